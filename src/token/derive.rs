//! Secrets made for one interaction: handed to the provider with the request, made again when it calls back, never
//! stored. For protocols in which whoever asks for callbacks chooses what they are signed with.

use std::fmt;

use data_encoding::BASE64;
use hmac::{Hmac, Mac};
use sha2::Sha256;

use crate::secret::Secret;

/// What keeps these secrets apart from everything else that is made with the key.
const PURPOSE: &[u8] = b"callgate secret of an interaction, version 1\0";

/// Makes secrets under one key.
#[derive(Clone)]
pub struct Deriver {
    mac: Hmac<Sha256>,
}

/// Prints no key material.
impl fmt::Debug for Deriver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Deriver")
    }
}

impl Deriver {
    /// A deriver under the key that callback tokens are made with; `None` for an empty one.
    pub fn new(key: &Secret) -> Option<Self> {
        Hmac::new_from_slice(key.expose()).ok().map(|mac| Self { mac })
    }

    /// The secret of an interaction, in the form of Standard Webhooks: `whsec_` and the base64 of 32 bytes.
    pub fn secret(&self, interaction: &str) -> Secret {
        let mut mac = self.mac.clone();
        mac.update(PURPOSE);
        mac.update(interaction.as_bytes());
        let text = format!("whsec_{}", BASE64.encode(&mac.finalize().into_bytes()));
        Secret::new(text.into_bytes())
    }
}
