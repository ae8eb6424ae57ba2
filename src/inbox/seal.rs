//! Encrypts the bodies of messages at rest with AES-256-GCM.

use std::fmt;

use hmac::{Hmac, Mac};
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use sha2::Sha256;

use crate::secret::Secret;

/// The input of HMAC-SHA-256, with the configured secret as the key. The output is the encryption key. The text
/// separates this use of the secret from all other uses.
const PURPOSE: &[u8] = b"callgate body of a message, version 1";
/// The minimum length of the configured secret, in bytes.
const SECRET_BYTES_MIN: usize = 16;

/// The number of bytes that encryption adds to a body: the nonce and the authentication tag.
pub const SEAL_BYTES: usize = NONCE_LEN + 16;

/// Encrypts and decrypts the bodies of messages.
#[derive(Clone, Eq, PartialEq)]
pub struct BodySealer {
    key: [u8; 32],
}

/// Formats only the name of the type, not the key.
impl fmt::Debug for BodySealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BodySealer")
    }
}

impl BodySealer {
    /// Creates a sealer whose key is derived from the secret. Returns `None` if the secret is shorter than 16 bytes.
    pub fn new(secret: &Secret) -> Option<Self> {
        let secret = Some(secret.expose()).filter(|secret| secret.len() >= SECRET_BYTES_MIN)?;
        let mut mac = Hmac::<Sha256>::new_from_slice(secret).ok()?;
        mac.update(PURPOSE);
        Some(Self { key: mac.finalize().into_bytes().into() })
    }

    /// Encrypts the body of the message with this id. Returns nonce, ciphertext and tag. Returns `None` if the
    /// operating system provides no random numbers.
    pub fn seal(&self, id: &str, body: &[u8]) -> Option<Vec<u8>> {
        let mut nonce = [0; NONCE_LEN];
        getrandom::fill(&mut nonce).ok()?;
        let mut sealed = Vec::with_capacity(NONCE_LEN + body.len() + AES_256_GCM.tag_len());
        sealed.extend_from_slice(&nonce);
        let mut text = body.to_vec();
        let bound = Aad::from(id.as_bytes());
        self.aead()?.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), bound, &mut text).ok()?;
        sealed.append(&mut text);
        Some(sealed)
    }

    /// Decrypts the body of the message with this id. Returns `None` if the body was encrypted with another key or for
    /// another message, or if it was changed afterwards.
    pub fn open(&self, id: &str, sealed: &[u8]) -> Option<Vec<u8>> {
        let (nonce, text) = sealed.split_first_chunk::<NONCE_LEN>()?;
        let mut text = text.to_vec();
        let bound = Aad::from(id.as_bytes());
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let length = self.aead()?.open_in_place(nonce, bound, &mut text).ok()?.len();
        text.truncate(length);
        Some(text)
    }

    fn aead(&self) -> Option<LessSafeKey> {
        UnboundKey::new(&AES_256_GCM, &self.key).ok().map(LessSafeKey::new)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sealer(secret: &str) -> BodySealer {
        BodySealer::new(&Secret::new(secret.as_bytes().to_vec())).unwrap()
    }

    #[test]
    fn only_the_same_key_and_the_same_message_open_a_body() {
        let one = sealer("0123456789abcdef");
        let sealed = one.seal("msg_1", b"body").unwrap();
        assert_eq!(sealed.len(), 4 + SEAL_BYTES);
        assert!(!sealed.windows(4).any(|window| window == b"body"));
        assert_ne!(sealed, one.seal("msg_1", b"body").unwrap(), "each nonce is used once");
        assert_eq!(one.open("msg_1", &sealed).unwrap(), b"body");
        assert_eq!(one.open("msg_2", &sealed), None);
        assert_eq!(sealer("another secret of 16").open("msg_1", &sealed), None);
        for at in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert_eq!(one.open("msg_1", &changed), None, "{at}");
        }
        assert_eq!(one.open("msg_1", &[]), None);
        assert!(BodySealer::new(&Secret::new(b"short".to_vec())).is_none());
    }
}
