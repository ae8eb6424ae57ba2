//! Collects the values of the requested fields while a form is read.

use std::borrow::Cow;

use super::form_error::FormError;
use crate::json::is_same_name;
use crate::query::loose;

/// The maximum number of fields in one form or query. The limit is needed because Callgate reads forms before it
/// verifies their signatures.
const FIELDS_MAX: usize = 1000;

/// One requested field, and its value if the value was already found.
struct Wanted<'n, 'b> {
    name: &'n str,
    loose: String,
    /// The number of form fields whose names are equal to the name of this field, or are treated as equal by some
    /// programs.
    count: usize,
    value: Option<Cow<'b, str>>,
}

/// The values of the requested fields of a form.
pub(super) struct FieldValues<'n, 'b> {
    wanted: Vec<Wanted<'n, 'b>>,
    fields: usize,
}

impl<'n, 'b> FieldValues<'n, 'b> {
    pub(super) fn new(names: &[&'n str]) -> Self {
        let wanted = |name: &&'n str| Wanted { name, loose: loose(name), count: 0, value: None };
        Self { wanted: names.iter().map(wanted).collect(), fields: 0 }
    }

    /// Adds a field of the form. Calls `value` only if the field is one of the requested fields.
    ///
    /// # Errors
    /// Returns [`FormError::Malformed`] if the form has too many fields, or if programs could interpret the name
    /// differently. Returns [`FormError::Ambiguous`] if the name or the value of a requested field is ambiguous.
    pub(super) fn add(
        &mut self,
        name: &str,
        value: impl Fn() -> Option<Cow<'b, str>>,
    ) -> Result<(), FormError> {
        self.fields += 1;
        if self.fields > FIELDS_MAX {
            return Err(FormError::Malformed("there are more than 1000 fields"));
        }
        // Some programs truncate a name at a NUL byte, or remove apostrophes around a name. These programs would read a
        // field with a different name.
        if name.bytes().any(|b| b.is_ascii_control()) || name.starts_with('\'') || name.ends_with('\'') {
            return Err(FormError::Malformed("the name of a field has a control character or an apostrophe"));
        }
        // The value of the field `_charset_` determines the encoding of all values (WHATWG HTML section 4.10.22.7).
        if name.eq_ignore_ascii_case("_charset_") {
            return Err(FormError::Malformed("the field _charset_ is not supported"));
        }
        let found = loose(name);
        for wanted in &mut self.wanted {
            if !is_same_name(&found, &wanted.loose) {
                continue;
            }
            wanted.count += 1;
            if name != wanted.name {
                return Err(FormError::Ambiguous(wanted.name.into()));
            }
            wanted.value = Some(value().ok_or_else(|| FormError::Ambiguous(wanted.name.into()))?);
        }
        Ok(())
    }

    /// Returns the values of the requested fields, in the order in which they were requested. The value of a missing
    /// field is `None`.
    ///
    /// # Errors
    /// Returns [`FormError::Ambiguous`] if a requested field occurs more than once.
    pub(super) fn finish(self) -> Result<Vec<Option<Cow<'b, str>>>, FormError> {
        let value = |wanted: Wanted<'n, 'b>| match wanted.count {
            0 | 1 => Ok(wanted.value),
            _ => Err(FormError::Ambiguous(wanted.name.into())),
        };
        self.wanted.into_iter().map(value).collect()
    }
}

/// Returns the text of a field value. Returns `None` if the value is not UTF-8, or if it contains a control character,
/// because some programs end a text at a control character.
pub(super) fn text(bytes: Cow<'_, [u8]>) -> Option<Cow<'_, str>> {
    let text = match bytes {
        Cow::Borrowed(bytes) => Cow::Borrowed(std::str::from_utf8(bytes).ok()?),
        Cow::Owned(bytes) => Cow::Owned(String::from_utf8(bytes).ok()?),
    };
    let plain = text.chars().all(|c| !c.is_control() || matches!(c, '\r' | '\n' | '\t'));
    plain.then_some(text)
}
