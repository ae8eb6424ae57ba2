//! A type for secrets. It overwrites its bytes when it is dropped and prints as `[secret]`. The type has no
//! `PartialEq`, because a comparison with `==` would leak timing.

use std::fmt;

use data_encoding::HEXLOWER;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

/// A secret text or raw key material. The bytes are overwritten when the value is dropped.
#[derive(Clone)]
pub struct Secret {
    bytes: Zeroizing<Vec<u8>>,
}

impl Secret {
    /// Creates a secret from its bytes.
    pub fn new(bytes: Vec<u8>) -> Self {
        Self { bytes: Zeroizing::new(bytes) }
    }

    /// Returns the raw bytes of the secret, for code that creates a key from the bytes or decodes them. The caller must
    /// not log the bytes, put them into an error, or compare them with `==`.
    pub fn expose(&self) -> &[u8] {
        &self.bytes
    }

    /// Returns the length of the secret in bytes.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Reports whether the secret has no bytes.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Compares the secret with `candidate` in constant time. The SHA-256 digests of the two values are compared,
    /// because digests always have the same length. The time therefore does not reveal how many bytes of the candidate
    /// are correct.
    pub fn matches(&self, candidate: &[u8]) -> bool {
        Sha256::digest(&*self.bytes).ct_eq(&Sha256::digest(candidate)).into()
    }
}

/// Authentication schemes of the header `Authorization`, each with the space that follows it. IANA has registered these
/// schemes, except `Token`, which is common although it is not registered.
const SCHEMES: [&[u8]; 5] = [b"basic ", b"bearer ", b"digest ", b"hoba ", b"token "];

impl Secret {
    /// Compares the secret with the value of the header `Authorization`. The case of the authentication scheme does not
    /// matter, and more than one space may follow the scheme (RFC 9110 section 11.1). All other bytes are compared as
    /// in [`Self::matches`].
    pub fn matches_authorization(&self, value: &[u8]) -> bool {
        let same_scheme = |scheme: &&&[u8]| {
            let begins = |text: &[u8]| {
                text.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme))
            };
            begins(&self.bytes) && begins(value)
        };
        let Some(scheme) = SCHEMES.iter().find(same_scheme) else { return self.matches(value) };
        // The candidate begins with the scheme in the spelling of the secret, so that the case of the scheme does not
        // matter.
        let mut candidate = Zeroizing::new(self.bytes.get(..scheme.len()).unwrap_or_default().to_vec());
        let rest = value.get(scheme.len()..).unwrap_or_default();
        let spaces = rest.iter().take_while(|byte| **byte == b' ').count();
        candidate.extend_from_slice(rest.get(spaces..).unwrap_or_default());
        self.matches(&candidate)
    }
}

/// The minimum length of a secret that has a fingerprint, in bytes.
const FINGERPRINT_BYTES_MIN: usize = 16;
/// The text that is hashed in front of a secret, so that the fingerprint is not the hash of the secret itself.
const FINGERPRINT_LABEL: &[u8] = b"callgate secret fingerprint 1\0";

impl Secret {
    /// Returns the fingerprint of the secret: 8 hexadecimal digits. The fingerprint is the same in every process, so
    /// that an operator can compare two secrets without seeing them. Returns `None` for a secret of fewer than 16
    /// bytes.
    ///
    /// An attacker who knows the fingerprint can test guesses without asking Callgate, because only one of 2^32 wrong
    /// guesses has the same fingerprint. A random secret stays safe, because nobody can test enough guesses. A secret
    /// that a person invented has fewer likely values, and is often short. Therefore short secrets have no fingerprint.
    pub fn fingerprint(&self) -> Option<String> {
        if self.len() < FINGERPRINT_BYTES_MIN {
            return None;
        }
        let digest = Sha256::new().chain_update(FINGERPRINT_LABEL).chain_update(&*self.bytes).finalize();
        digest.get(..4).map(|start| HEXLOWER.encode(start))
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

    #[test]
    fn a_fingerprint_is_the_same_in_every_process_and_short_secrets_have_none() {
        let fingerprint = |text: &str| Secret::new(text.into()).fingerprint();
        assert_eq!(fingerprint("0123456789abcdef").as_deref(), Some("7ee340f3"));
        assert_ne!(fingerprint("0123456789abcdef"), fingerprint("0123456789abcdeg"));
        assert_eq!(fingerprint("0123456789abcde"), None);
    }

    #[test]
    fn the_case_of_an_authentication_scheme_does_not_matter() {
        let secret = Secret::new(b"Bearer Abc".to_vec());
        for value in ["Bearer Abc", "bearer Abc", "BEARER   Abc"] {
            assert!(secret.matches_authorization(value.as_bytes()), "{value}");
        }
        for value in ["Bearer abc", "BearerAbc", "Abc", "Basic Abc", "Bearer Abc ", "Bearer", ""] {
            assert!(!secret.matches_authorization(value.as_bytes()), "{value}");
        }
        let plain = Secret::new(b"Correct horse".to_vec());
        assert!(plain.matches_authorization(b"Correct horse"));
        assert!(!plain.matches_authorization(b"correct horse"), "`Correct` is not an authentication scheme");
    }
}
