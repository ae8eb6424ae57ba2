//! Mints callback tokens. The key for minting is in a type of its own, so that code with only a verifier cannot mint.

use std::borrow::Cow;
use std::fmt;

use data_encoding::BASE64URL_NOPAD;
use jsonwebtoken::{EncodingKey, Header};

use super::callback_claims::{CALLBACK_TYPE, CALLBACK_VERSION, CALLGATE_ISSUER, Claims, OWNED_VERSION};
use super::derive::Deriver;
use super::opaque::OpaqueKey;
use crate::jose::{Algorithm, Family, KeyFault, SHARED_KEY_BYTES_MIN};
use crate::secret::Secret;
use crate::time::Timestamp;

/// Returns the header of a token.
fn header(typ: &str, algorithm: Algorithm, key_id: &str) -> Header {
    let mut header = Header::new(algorithm.inner());
    header.typ = Some(typ.to_owned());
    header.kid = Some(key_id.to_owned());
    header
}

/// Returns the encoded header of a token, including the dot that follows it. A verifier compares it with the
/// beginning of a token instead of parsing the header.
pub(super) fn header_text(typ: &str, algorithm: Algorithm, key_id: &str) -> Option<Box<str>> {
    let json = serde_json::to_vec(&header(typ, algorithm, key_id)).ok()?;
    Some((BASE64URL_NOPAD.encode(&json) + ".").into())
}

/// The contents of a new token.
#[derive(Clone, Copy, Debug)]
pub struct Grant<'a> {
    /// The route that accepts the token.
    pub route: &'a str,
    /// The interaction that the token belongs to.
    pub interaction: &'a str,
    /// The captures that the token is bound to.
    pub captures: &'a [(&'a str, &'a str)],
    /// The time at which the token is minted.
    pub issued: Timestamp,
    /// The time at which the token expires. Rounded down to whole seconds.
    pub expires: Timestamp,
    /// Number of callbacks that the token allows. `None` means any number.
    pub uses: Option<u32>,
    /// The encrypted owner of the interaction. `None` if the token names no owner.
    pub owner: Option<&'a str>,
}

/// The form of new callback tokens. Tokens of both forms are accepted.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Form {
    /// A JWT. It contains all rights of the token.
    #[default]
    Jwt,
    /// A short text. The ledger knows the rights.
    Opaque,
}

/// A new token.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct MintedToken {
    /// The text of the token.
    pub token: String,
    /// The interaction that the token belongs to. The form of the token decides whether it is that of the [`Grant`].
    pub interaction: String,
}

/// Mints callback tokens with one key.
#[derive(Clone)]
pub struct Minter {
    form: Form,
    opaque: OpaqueKey,
    key_id: Box<str>,
    algorithm: Algorithm,
    key: EncodingKey,
    deriver: Deriver,
    audience: Box<str>,
}

/// Formats the id and the algorithm of the key, but not the key.
impl fmt::Debug for Minter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Minter({}, {})", self.key_id, self.algorithm.name())
    }
}

/// Formats the id and the algorithm of the key.
impl fmt::Display for Minter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.key_id, self.algorithm.name())
    }
}

impl Minter {
    /// Creates a minter. `audience` is the public URL of this Callgate.
    ///
    /// # Errors
    /// Returns a [`KeyFault`] unless the key is a shared key of at least 24 bytes.
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
        let opaque = OpaqueKey::new(secret).ok_or(KeyFault::TooShort)?;
        let (key_id, audience, form) = (key_id.into(), audience.into(), Form::Jwt);
        Ok(Self { form, opaque, key_id, algorithm, key, deriver, audience })
    }

    /// Sets the form of new tokens.
    #[must_use]
    pub fn with_form(self, form: Form) -> Self {
        Self { form, ..self }
    }

    /// Returns the form of new tokens.
    pub fn form(&self) -> Form {
        self.form
    }

    /// Returns the derived signing secret of one interaction, for providers that receive their secret with the
    /// request.
    pub fn secret(&self, interaction: &str) -> Secret {
        self.deriver.secret(interaction)
    }

    /// Mints a token. Returns `None` only if the cryptography library fails.
    ///
    /// The interaction of an opaque token is a digest of the token, and not the one of the grant.
    pub fn mint(&self, grant: &Grant<'_>) -> Option<MintedToken> {
        match self.form {
            Form::Jwt => {
                Some(MintedToken { token: self.mint_jwt(grant)?, interaction: grant.interaction.to_owned() })
            }
            Form::Opaque => {
                let (token, interaction) = self.opaque.mint(&self.audience, grant.route, grant.captures)?;
                Some(MintedToken { token, interaction })
            }
        }
    }

    fn mint_jwt(&self, grant: &Grant<'_>) -> Option<String> {
        let header = header(CALLBACK_TYPE, self.algorithm, &self.key_id);
        let claims = Claims {
            v: if grant.owner.is_some() { OWNED_VERSION } else { CALLBACK_VERSION },
            iss: CALLGATE_ISSUER.into(),
            aud: Cow::Borrowed(&self.audience),
            sub: grant.interaction.into(),
            route: grant.route.into(),
            cap: grant.captures.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect(),
            iat: grant.issued.unix_secs(),
            exp: grant.expires.unix_secs(),
            uses: grant.uses,
            own: grant.owner.map(Cow::Borrowed),
        };
        jsonwebtoken::encode(&header, &claims, &self.key).ok()
    }
}
