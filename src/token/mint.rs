//! Minting callback tokens. The key that mints is a type of its own, so that no verifier can mint.

use std::borrow::Cow;
use std::fmt;

use data_encoding::BASE64URL_NOPAD;
use jsonwebtoken::{EncodingKey, Header};

use super::callback::Claims;
use super::derive::Deriver;
use super::{CALLBACK_TYPE, CALLBACK_VERSION, CALLGATE_ISSUER, SHARED_KEY_BYTES_MIN};
use crate::jose::{Algorithm, Family, KeyFault};
use crate::secret::Secret;
use crate::time::Timestamp;

/// The header of a token made under a key.
fn header(typ: &str, algorithm: Algorithm, key_id: &str) -> Header {
    let mut header = Header::new(algorithm.inner());
    header.typ = Some(typ.to_owned());
    header.kid = Some(key_id.to_owned());
    header
}

/// That header as it stands in a token, dot included: a verifier that finds it there knows what it says.
pub(super) fn header_text(typ: &str, algorithm: Algorithm, key_id: &str) -> Option<Box<str>> {
    let json = serde_json::to_vec(&header(typ, algorithm, key_id)).ok()?;
    Some((BASE64URL_NOPAD.encode(&json) + ".").into())
}

/// What a token is made for.
#[derive(Clone, Copy, Debug)]
pub struct Grant<'a> {
    /// The route it opens.
    pub route: &'a str,
    /// The interaction it belongs to.
    pub interaction: &'a str,
    /// The captures it is bound to.
    pub captures: &'a [(&'a str, &'a str)],
    /// When it is made.
    pub issued: Timestamp,
    /// When it ends, in whole seconds.
    pub expires: Timestamp,
    /// How many callbacks it is good for; `None`: any number.
    pub uses: Option<u32>,
}

/// Mints callback tokens under one key.
#[derive(Clone)]
pub struct Minter {
    key_id: Box<str>,
    algorithm: Algorithm,
    key: EncodingKey,
    deriver: Deriver,
    audience: Box<str>,
}

/// Prints no key material.
impl fmt::Debug for Minter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Minter({}, {})", self.key_id, self.algorithm.name())
    }
}

impl Minter {
    /// A minter for the Callgate at `audience`, its public URL.
    ///
    /// # Errors
    /// [`KeyFault`]: only shared keys of at least 24 bytes mint.
    pub fn new(
        key_id: &str,
        algorithm: Algorithm,
        secret: &Secret,
        audience: &str,
    ) -> Result<Self, KeyFault> {
        if algorithm.family() != Family::Hmac {
            return Err(KeyFault::OtherKind);
        }
        if secret.len() < SHARED_KEY_BYTES_MIN {
            return Err(KeyFault::TooShort);
        }
        let key = EncodingKey::from_secret(secret.expose());
        let deriver = Deriver::new(secret).ok_or(KeyFault::TooShort)?;
        Ok(Self { key_id: key_id.into(), algorithm, key, deriver, audience: audience.into() })
    }

    /// The secret of one interaction, for providers that are to sign with one.
    pub fn secret(&self, interaction: &str) -> Secret {
        self.deriver.secret(interaction)
    }

    /// The token for a grant. `None` only if the cryptography of the process is not there.
    pub fn mint(&self, grant: &Grant<'_>) -> Option<String> {
        let header = header(CALLBACK_TYPE, self.algorithm, &self.key_id);
        let claims = Claims {
            v: CALLBACK_VERSION,
            iss: CALLGATE_ISSUER.into(),
            aud: Cow::Borrowed(&self.audience),
            sub: grant.interaction.into(),
            route: grant.route.into(),
            cap: grant.captures.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect(),
            iat: grant.issued.unix_secs(),
            exp: grant.expires.unix_secs(),
            uses: grant.uses,
        };
        jsonwebtoken::encode(&header, &claims, &self.key).ok()
    }
}
