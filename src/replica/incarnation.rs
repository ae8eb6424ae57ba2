//! The id of a replica.

use std::fmt;

use data_encoding::HEXLOWER;

/// The id of a replica: 8 random bytes. If the ledger is in a file, the id is stored in a second file next to the
/// ledger file, and a restarted process has the same id. Otherwise each start of a process generates a new id, so that
/// a new process is not mistaken for the former process at the same address.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Incarnation([u8; 8]);

impl Incarnation {
    /// Generates a random replica id. Returns `None` if the operating system cannot provide random numbers.
    pub fn random() -> Option<Self> {
        let mut bytes = [0; 8];
        getrandom::fill(&mut bytes).ok()?;
        Some(Self(bytes))
    }

    /// Creates a replica id from its bytes.
    pub const fn from_bytes(bytes: [u8; 8]) -> Self {
        Self(bytes)
    }

    /// Returns the bytes of the id.
    pub const fn bytes(self) -> [u8; 8] {
        self.0
    }

    /// Parses a replica id: 16 lower-case hexadecimal digits.
    pub fn parse(text: &str) -> Option<Self> {
        HEXLOWER.decode(text.as_bytes()).ok()?.try_into().ok().map(Self)
    }
}

/// Formats a replica id as 16 lower-case hexadecimal digits.
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
