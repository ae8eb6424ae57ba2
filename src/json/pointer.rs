//! JSON pointers (RFC 6901).

/// Most pointers that are looked for in one pass.
pub const POINTERS_MAX: usize = 32;

/// A JSON pointer (RFC 6901) to a member, never to the whole document.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Pointer {
    pub(super) text: Box<str>,
    pub(super) tokens: Vec<Box<str>>,
}

impl Pointer {
    /// Reads a pointer. `None` when it does not begin with a slash, or has a `~` that escapes nothing.
    pub fn parse(text: &str) -> Option<Self> {
        let escapes = text.split('~').skip(1).all(|rest| rest.starts_with(['0', '1']));
        let rest = text.strip_prefix('/').filter(|_| escapes)?;
        let tokens = rest.split('/').map(|token| token.replace("~1", "/").replace("~0", "~").into());
        Some(Self { text: text.into(), tokens: tokens.collect() })
    }

    /// As written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether one of two pointers goes through the place of the other.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.tokens.iter().zip(&other.tokens).all(|(a, b)| a == b)
    }
}
