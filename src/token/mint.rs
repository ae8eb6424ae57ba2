//! Creates callback tokens. The type [`Minter`] holds the key that signs new tokens. Code that has only a verifier
//! cannot create tokens.

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

/// Returns the JWT header of a callback token or of an assertion.
fn header(typ: &str, algorithm: Algorithm, key_id: &str) -> Header {
    let mut header = Header::new(algorithm.inner());
    header.typ = Some(typ.to_owned());
    header.kid = Some(key_id.to_owned());
    header
}

/// Returns the encoded JWT header of a token, including the dot after the header. Returns `None` if the header cannot
/// be encoded. A verifier compares this text with the beginning of a token instead of parsing the header.
pub(super) fn header_text(typ: &str, algorithm: Algorithm, key_id: &str) -> Option<Box<str>> {
    let json = serde_json::to_vec(&header(typ, algorithm, key_id)).ok()?;
    Some((BASE64URL_NOPAD.encode(&json) + ".").into())
}

/// The contents of a new callback token.
#[derive(Clone, Copy, Debug)]
pub struct Grant<'a> {
    /// The name of the route that accepts the token.
    pub route: &'a str,
    /// The id of the interaction to which the token belongs.
    pub interaction: &'a str,
    /// The path captures to which the token is bound, as pairs of name and value.
    pub captures: &'a [(&'a str, &'a str)],
    /// The time at which the token is created.
    pub issued: Timestamp,
    /// The time at which the token expires, rounded down to whole seconds.
    pub expires: Timestamp,
    /// The number of callbacks that the token allows. `None` means any number.
    pub uses: Option<u32>,
    /// The replica of Callgate that owns the interaction, in encrypted form. `None` if the token names no owner.
    pub owner: Option<&'a str>,
}

/// The form of new callback tokens. Callgate accepts tokens of both forms.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Form {
    /// A JWT, which contains all rights of the token.
    #[default]
    Jwt,
    /// A short text. Only the ledger contains the rights of the token.
    Opaque,
}

/// A new callback token and its interaction.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct MintedToken {
    /// The text of the callback token.
    pub token: String,
    /// The id of the interaction to which the token belongs. For a JWT, this is the interaction of the [`Grant`]. For
    /// an opaque token, it is a digest of the random bits in the token.
    pub interaction: String,
}

/// Creates callback tokens and signs them with one key.
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

/// Formats the id and the algorithm of the key, but not the secret key.
impl fmt::Debug for Minter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Minter({}, {})", self.key_id, self.algorithm.name())
    }
}

/// Formats the id and the algorithm of the key, but not the secret key.
impl fmt::Display for Minter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.key_id, self.algorithm.name())
    }
}

impl Minter {
    /// Creates a minter, which creates callback tokens. `audience` is the public URL of this Callgate.
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

    /// Returns this minter, changed so that it creates tokens of this form.
    #[must_use]
    pub fn with_form(self, form: Form) -> Self {
        Self { form, ..self }
    }

    /// Returns the form of new callback tokens.
    pub fn form(&self) -> Form {
        self.form
    }

    /// Returns the derived signing secret of one interaction, for providers that receive their secret with the
    /// request.
    pub fn secret(&self, interaction: &str) -> Secret {
        self.deriver.secret(interaction)
    }

    /// Creates and signs a callback token. Returns `None` only if the cryptography library fails, or if the system has
    /// no random numbers.
    ///
    /// For an opaque token, the id of the interaction is a digest of the random bits in the token, and not the
    /// interaction of the grant.
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
