//! The identity of one process of Callgate.

use std::fmt;

use data_encoding::HEXLOWER;

/// The identity of one process: 8 random bytes. The next process at the same address has another incarnation, so that a
/// reused address is not mistaken for the process that had it before.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Incarnation([u8; 8]);

impl Incarnation {
    /// Draws a new incarnation. Returns `None` if the operating system cannot provide random numbers.
    pub fn random() -> Option<Self> {
        let mut bytes = [0; 8];
        getrandom::fill(&mut bytes).ok()?;
        Some(Self(bytes))
    }

    /// Creates an incarnation from its bytes.
    pub const fn from_bytes(bytes: [u8; 8]) -> Self {
        Self(bytes)
    }

    /// Returns the bytes.
    pub const fn bytes(self) -> [u8; 8] {
        self.0
    }

    /// Parses 16 lower-case hexadecimal digits.
    pub fn parse(text: &str) -> Option<Self> {
        HEXLOWER.decode(text.as_bytes()).ok()?.try_into().ok().map(Self)
    }
}

/// Formats the incarnation as 16 lower-case hexadecimal digits.
impl fmt::Display for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&HEXLOWER.encode(&self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_reads_back() {
        let incarnation = Incarnation::random().unwrap();
        assert_ne!(Some(incarnation), Incarnation::random());
        assert_eq!(Incarnation::parse(&incarnation.to_string()), Some(incarnation));
        for text in ["", "0123456789abcde", "0123456789abcdef0", "0123456789ABCDEF", "0123456789abcdeg"] {
            assert_eq!(Incarnation::parse(text), None, "{text}");
        }
    }
}
