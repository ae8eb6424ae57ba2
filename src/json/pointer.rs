//! JSON pointers (RFC 6901).

/// The maximum number of JSON pointers that one pass over a document looks up.
pub const POINTERS_MAX: usize = 32;

/// The token that refers to the position after the last element of an array (RFC 6901 section 4).
pub(super) const APPEND: &str = "-";

/// Reports whether a token refers to an array element. This is the case for `-` and for tokens that consist of digits.
/// Digits with a leading zero are not a valid index, but Callgate does not use them as a JSON key either.
pub(super) fn names_element(token: &str) -> bool {
    token == APPEND || (!token.is_empty() && token.bytes().all(|b| b.is_ascii_digit()))
}

/// A JSON pointer (RFC 6901) with at least one token. It therefore never refers to the whole document.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Pointer {
    pub(super) text: Box<str>,
    pub(super) tokens: Vec<Box<str>>,
}

impl Pointer {
    /// Parses a JSON pointer. Returns `None` if the text does not begin with a slash, or if a `~` is not part of `~0`
    /// or `~1`.
    pub fn parse(text: &str) -> Option<Self> {
        let escapes = text.split('~').skip(1).all(|rest| rest.starts_with(['0', '1']));
        let rest = text.strip_prefix('/').filter(|_| escapes)?;
        let tokens = rest.split('/').map(|token| token.replace("~1", "/").replace("~0", "~").into());
        Some(Self { text: text.into(), tokens: tokens.collect() })
    }

    /// Returns the JSON pointer as it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Reports whether the two pointers are equal or one of them is a prefix of the other. A `-` counts as equal to
    /// every index, because both may refer to the same array element.
    pub fn overlaps(&self, other: &Self) -> bool {
        let may_be = |a: &str, b: &str| a == APPEND && names_element(b);
        self.tokens.iter().zip(&other.tokens).all(|(a, b)| a == b || may_be(a, b) || may_be(b, a))
    }
}
