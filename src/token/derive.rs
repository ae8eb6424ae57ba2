//! Derives a signing secret for each interaction. In some protocols, the client that requests callbacks chooses the
//! key with which the provider signs them. Callgate sends the derived secret to the provider with the request. When a
//! callback arrives, Callgate derives the secret again. Callgate never stores the secret.

use std::fmt;

use data_encoding::BASE64;
use hmac::{Hmac, Mac};
use sha2::Sha256;

use crate::secret::Secret;

/// The first bytes of the text whose MAC is a derived secret. This prefix ensures that the secret differs from every
/// other value that is computed with the key (domain separation).
const PURPOSE: &[u8] = b"callgate secret of an interaction, version 1\0";

/// Derives the signing secrets of interactions from one key.
#[derive(Clone)]
pub struct Deriver {
    mac: Hmac<Sha256>,
}

/// Formats only the name of the type, not the key.
impl fmt::Debug for Deriver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Deriver")
    }
}

impl Deriver {
    /// Creates a deriver. `key` is a key that signs callback tokens. Returns `None` if the HMAC does not accept the
    /// key.
    pub fn new(key: &Secret) -> Option<Self> {
        Hmac::new_from_slice(key.expose()).ok().map(|mac| Self { mac })
    }

    /// Returns the signing secret of an interaction in the format of Standard Webhooks: `whsec_` and the base64 of 32
    /// bytes.
    pub fn secret(&self, interaction: &str) -> Secret {
        let mut mac = self.mac.clone();
        mac.update(PURPOSE);
        mac.update(interaction.as_bytes());
        let text = format!("whsec_{}", BASE64.encode(&mac.finalize().into_bytes()));
        Secret::new(text.into_bytes())
    }
}
