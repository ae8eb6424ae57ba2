//! The reasons why the fields of a form cannot be read.

use std::fmt;

/// The reason why the fields of a form cannot be read.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum FormError {
    /// Different programs could read different values of the field with this name.
    Ambiguous(Box<str>),
    /// The form is malformed. The field describes the fault.
    Malformed(&'static str),
    /// The body is not a form.
    NotForm,
}

/// Formats the error as a clause for error messages.
impl fmt::Display for FormError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ambiguous(name) => write!(
                f,
                "{name} occurs twice, another name differs from it only in spelling, or programs differ in how they read \
                 its value"
            ),
            Self::Malformed(detail) => write!(f, "{detail}"),
            Self::NotForm => write!(f, "the body is not a form"),
        }
    }
}
