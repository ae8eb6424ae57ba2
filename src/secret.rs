//! A type for secrets. It overwrites its bytes when it is dropped and prints as `[secret]`. It has no `PartialEq`, so
//! that secrets cannot be compared with `==`, which would leak timing.

use std::fmt;

use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

/// A secret, or raw key material.
#[derive(Clone)]
pub struct Secret {
    bytes: Zeroizing<Vec<u8>>,
}

impl Secret {
    /// Creates a secret from its bytes.
    pub fn new(bytes: Vec<u8>) -> Self {
        Self { bytes: Zeroizing::new(bytes) }
    }

    /// Returns the raw bytes, for code that creates a key from them or decodes them. The caller must not log them, put
    /// them into an error, or compare them with `==`.
    pub fn expose(&self) -> &[u8] {
        &self.bytes
    }

    /// Returns the length in bytes.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Reports whether the secret has no bytes.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Compares the secret with `candidate` in constant time. Both are hashed, and the digests of equal length are
    /// compared. The time therefore does not reveal how many bytes of the candidate are correct.
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
