//! Bytes that must not leak: they are wiped when dropped, print as `[secret]`, and cannot be compared with
//! `==` because the type has no `PartialEq`.

use std::fmt;

use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

/// A secret, or key material in its raw form.
#[derive(Clone)]
pub struct Secret {
    bytes: Zeroizing<Vec<u8>>,
}

impl Secret {
    /// Takes the bytes over.
    pub fn new(bytes: Vec<u8>) -> Self {
        Self { bytes: Zeroizing::new(bytes) }
    }

    /// The raw bytes, for a key schedule or a decoder. Never for a log, an error or a comparison.
    pub fn expose(&self) -> &[u8] {
        &self.bytes
    }

    /// Length in bytes.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Whether `candidate` is this secret, in a time that depends on neither content nor on where two
    /// lengths part: both sides are hashed first, so equal-length digests are what is compared.
    pub fn matches(&self, candidate: &[u8]) -> bool {
        Sha256::digest(&*self.bytes).ct_eq(&Sha256::digest(candidate)).into()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_matches_only_itself_and_never_prints() {
        let secret = Secret::new(b"correct horse".to_vec());
        assert!(secret.matches(b"correct horse"));
        for other in ["", "correct hors", "correct horse ", "Correct horse"] {
            assert!(!secret.matches(other.as_bytes()), "{other}");
        }
        assert_eq!(format!("{secret:?}"), "[secret]");
    }
}
