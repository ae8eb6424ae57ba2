//! Opaque callback tokens: 128 random bits and a 64-bit MAC. The tokens are short, because all other data is in the
//! ledger.
//!
//! The MAC covers the audience, the route and the path captures. Callgate can therefore deny a forged token, or a
//! token for another path, without reading the ledger. The id of the interaction is a digest of the random bits. The
//! ledger stores only the digest, and nobody can compute a token from the digest.

use std::fmt;

use data_encoding::{BASE32_NOPAD, BASE64URL_NOPAD};
use hmac::{Hmac, Mac};
use sha2::{Digest, Sha256};

use crate::secret::Secret;

/// The first bytes of the text whose MAC an opaque token contains (domain separation).
const MAC_PURPOSE: &[u8] = b"callgate opaque token, version 1\0";
/// The first bytes of the text whose digest becomes the id of the interaction (domain separation).
const ID_PURPOSE: &[u8] = b"callgate interaction of an opaque token, version 1\0";
const RANDOM_BYTES: usize = 16;
const MAC_BYTES: usize = 8;
/// The length of an opaque token, in bytes. The token is the base64url of the random bits and the MAC.
const TEXT_BYTES: usize = 32;

/// A key that creates and verifies opaque callback tokens.
#[derive(Clone)]
pub struct OpaqueKey(Hmac<Sha256>);

/// Formats only the name of the type, not the key.
impl fmt::Debug for OpaqueKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OpaqueKey")
    }
}

/// Reports whether a callback token has the form of an opaque token. A JWT contains dots, and an opaque token does
/// not.
pub(super) fn is_opaque(token: &str) -> bool {
    token.len() == TEXT_BYTES && !token.contains('.')
}

impl OpaqueKey {
    /// Creates a key for opaque tokens. `secret` is a key that signs callback tokens. Returns `None` if the HMAC does
    /// not accept the secret.
    pub fn new(secret: &Secret) -> Option<Self> {
        Hmac::new_from_slice(secret.expose()).ok().map(Self)
    }

    /// Returns a new opaque token and the id of its interaction. Returns `None` if the operating system provides no
    /// random numbers.
    pub(super) fn mint(
        &self,
        audience: &str,
        route: &str,
        captures: &[(&str, &str)],
    ) -> Option<(String, String)> {
        let mut random = [0; RANDOM_BYTES];
        getrandom::fill(&mut random).ok()?;
        let mac = self.mac(audience, route, captures.iter().copied(), &random).finalize().into_bytes();
        let token = [&random[..], mac.get(..MAC_BYTES)?].concat();
        Some((BASE64URL_NOPAD.encode(&token), interaction(&random)))
    }

    /// Returns the id of the interaction of an opaque token, if this key created the token for the route and exactly
    /// these path captures. Otherwise returns `None`. Compares the MAC in constant time.
    pub(super) fn verify<'c>(
        &self,
        token: &str,
        audience: &str,
        route: &str,
        captures: impl Iterator<Item = (&'c str, &'c str)>,
    ) -> Option<String> {
        let bytes = BASE64URL_NOPAD.decode(token.as_bytes()).ok()?;
        let (random, mac) = bytes.split_first_chunk::<RANDOM_BYTES>()?;
        if mac.len() != MAC_BYTES {
            return None;
        }
        self.mac(audience, route, captures, random).verify_truncated_left(mac).ok()?;
        Some(interaction(random))
    }

    fn mac<'c>(
        &self,
        audience: &str,
        route: &str,
        captures: impl Iterator<Item = (&'c str, &'c str)>,
        random: &[u8; RANDOM_BYTES],
    ) -> Hmac<Sha256> {
        let mut sorted: Vec<_> = captures.collect();
        sorted.sort_unstable();
        let mut mac = self.0.clone();
        mac.update(MAC_PURPOSE);
        // The length of each field is written before the field, so that different fields never yield the same bytes.
        let mut field = |text: &[u8]| {
            mac.update(&(text.len() as u64).to_be_bytes());
            mac.update(text);
        };
        field(audience.as_bytes());
        field(route.as_bytes());
        for (name, value) in sorted {
            field(name.as_bytes());
            field(value.as_bytes());
        }
        mac.update(random);
        mac
    }
}

/// Returns the id of an interaction, which is a digest of the random bits. The id has the same form as all other
/// interaction ids.
fn interaction(random: &[u8; RANDOM_BYTES]) -> String {
    let digest = Sha256::new().chain_update(ID_PURPOSE).chain_update(random).finalize();
    let half = digest.get(..RANDOM_BYTES).unwrap_or_default();
    format!("int_{}", BASE32_NOPAD.encode(half).to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    const CAPTURES: [(&str, &str); 2] = [("id", "a"), ("b", "c")];

    fn key(text: &str) -> OpaqueKey {
        OpaqueKey::new(&Secret::new(text.as_bytes().to_vec())).unwrap()
    }

    #[test]
    fn a_token_holds_for_its_key_audience_route_and_captures() {
        let key_a = key("a key of callback tokens");
        let (token, interaction) = key_a.mint("https://a", "r", &CAPTURES).unwrap();
        assert_eq!((token.len(), interaction.len(), is_opaque(&token)), (TEXT_BYTES, 30, true));
        let verify =
            |key: &OpaqueKey, token: &str, audience: &str, route: &str, captures: &[(&str, &str)]| {
                key.verify(token, audience, route, captures.iter().copied())
            };
        assert_eq!(verify(&key_a, &token, "https://a", "r", &CAPTURES), Some(interaction.clone()));
        let turned = [CAPTURES[1], CAPTURES[0]];
        assert_eq!(verify(&key_a, &token, "https://a", "r", &turned), Some(interaction.clone()));
        assert_eq!(verify(&key("another key of tokens"), &token, "https://a", "r", &CAPTURES), None);
        assert_eq!(verify(&key_a, &token, "https://b", "r", &CAPTURES), None);
        assert_eq!(verify(&key_a, &token, "https://a", "s", &CAPTURES), None);
        for other in [&CAPTURES[..1], &[("id", "ab"), ("b", "c")], &[("id", "ab"), ("", "c")], &[]] {
            assert_eq!(verify(&key_a, &token, "https://a", "r", other), None, "{other:?}");
        }
        for at in 0..token.len() {
            let mut changed = token.clone().into_bytes();
            changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(changed).unwrap();
            assert_eq!(verify(&key_a, &changed, "https://a", "r", &CAPTURES), None, "{changed}");
        }
        let (other_token, other) = key_a.mint("https://a", "r", &CAPTURES).unwrap();
        assert!(token != other_token && interaction != other);
    }
}
