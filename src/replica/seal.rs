//! Encrypts the owner of an interaction for the callback token. Providers receive the token, and must not learn the
//! addresses in the cluster.

use std::fmt;

use data_encoding::BASE64URL_NOPAD;
use hmac::{Hmac, Mac};
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use sha2::Sha256;

use super::incarnation::Incarnation;
use crate::secret::Secret;

/// The label from which the encryption key is derived (domain separation).
const PURPOSE: &[u8] = b"callgate owner of an interaction, version 1";
/// The maximum length in bytes of the address of a replica: the longest DNS name, a colon and a port.
const ADDRESS_BYTES_MAX: usize = 260;

/// The owner of an interaction: at first the replica that minted the token of the interaction, and later the replica
/// that took over the interaction.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Owner {
    /// The replica id of the owner.
    pub incarnation: Incarnation,
    /// The `host:port` at which other replicas reach the owner.
    pub address: Box<str>,
}

/// Encrypts and decrypts the owners in callback tokens.
#[derive(Clone)]
pub struct OwnerSealer {
    /// The encryption key derived from each configured secret. The first key encrypts, and all keys decrypt.
    keys: Vec<[u8; 32]>,
}

/// Formats only the name of the type, because the keys are secret.
impl fmt::Debug for OwnerSealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OwnerSealer")
    }
}

impl OwnerSealer {
    /// Creates a sealer. The first secret encrypts, and all secrets decrypt.
    pub fn new(secrets: &[Secret]) -> Self {
        Self { keys: secrets.iter().filter_map(|secret| derived(secret, PURPOSE)).collect() }
    }

    /// Encrypts an owner for the token of one interaction. Returns nonce, ciphertext and tag in base64url. Returns
    /// `None` only if there is no secret or the operating system provides no random numbers.
    pub fn seal(&self, owner: &Owner, interaction: &str) -> Option<String> {
        let mut nonce = [0; NONCE_LEN];
        getrandom::fill(&mut nonce).ok()?;
        let mut text = owner.incarnation.bytes().to_vec();
        text.extend_from_slice(owner.address.as_bytes());
        let key = aead(self.keys.first()?)?;
        let bound = Aad::from(interaction.as_bytes());
        key.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), bound, &mut text).ok()?;
        Some(BASE64URL_NOPAD.encode(&[&nonce[..], &text].concat()))
    }

    /// Decrypts the owner from the token of an interaction. Returns `None` if no secret decrypts `sealed` for this
    /// interaction.
    pub fn open(&self, sealed: &str, interaction: &str) -> Option<Owner> {
        let bytes = BASE64URL_NOPAD.decode(sealed.as_bytes()).ok()?;
        let (nonce, text) = bytes.split_first_chunk::<NONCE_LEN>()?;
        self.keys.iter().find_map(|key| {
            let mut text = text.to_vec();
            let bound = Aad::from(interaction.as_bytes());
            let nonce = Nonce::assume_unique_for_key(*nonce);
            let text = &*aead(key)?.open_in_place(nonce, bound, &mut text).ok()?;
            let (incarnation, address) = text.split_first_chunk()?;
            let address = std::str::from_utf8(address).ok().filter(|address| is_address(address))?;
            Some(Owner { incarnation: Incarnation::from_bytes(*incarnation), address: address.into() })
        })
    }
}

/// Reports whether a text is a valid `host:port`.
pub fn is_address(text: &str) -> bool {
    let Ok(authority) = text.parse::<http::uri::Authority>() else { return false };
    let is_complete = authority.port_u16().is_some_and(|port| port > 0) && !authority.host().is_empty();
    is_complete && !text.contains('@') && text.len() <= ADDRESS_BYTES_MAX
}

/// Derives a 256-bit key from a secret: the HMAC-SHA-256 of the label `purpose`.
pub(super) fn derived(secret: &Secret, purpose: &[u8]) -> Option<[u8; 32]> {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.expose()).ok()?;
    mac.update(purpose);
    Some(mac.finalize().into_bytes().into())
}

fn aead(key: &[u8; 32]) -> Option<LessSafeKey> {
    Some(LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(text: &str) -> Secret {
        Secret::new(text.as_bytes().to_vec())
    }

    #[test]
    fn an_owner_is_read_with_every_secret_and_only_for_its_interaction() {
        let owner = Owner { incarnation: Incarnation::from_bytes([7; 8]), address: "10.2.3.4:8444".into() };
        let (old, new) = (secret("the old secret of the replicas"), secret("the new secret of the replicas"));
        let sealed = OwnerSealer::new(std::slice::from_ref(&old)).seal(&owner, "int_a").unwrap();
        let again = OwnerSealer::new(std::slice::from_ref(&old)).seal(&owner, "int_a").unwrap();
        assert_ne!(sealed, again, "nothing shows that two tokens have the same owner");
        assert!(!sealed.contains("10.2"), "{sealed}");
        let both = OwnerSealer::new(&[new.clone(), old]);
        assert_eq!(both.open(&sealed, "int_a"), Some(owner));
        assert_eq!(both.open(&sealed, "int_b"), None);
        assert_eq!(OwnerSealer::new(&[new]).open(&sealed, "int_a"), None);
        for changed in ["", "AAAA", &sealed[1..], &format!("{sealed}A")] {
            assert_eq!(both.open(changed, "int_a"), None, "{changed}");
        }
    }

    #[test]
    fn addresses_have_a_host_and_a_port() {
        for text in ["10.2.3.4:8444", "[2001:db8::1]:8444", "agent-0.agent.ns.svc:8444"] {
            assert!(is_address(text), "{text}");
        }
        for text in ["", "10.2.3.4", "10.2.3.4:0", ":8444", "a@b:1", "http://a:1", "a:1/b"] {
            assert!(!is_address(text), "{text}");
        }
        assert!(!is_address(&format!("{}:1", "a".repeat(300))));
    }
}
