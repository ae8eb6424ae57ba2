//! A strict parser and verifier for compact JWS (RFC 7515). The parser checks the size of the token, the number of its
//! parts, and the header parameters. The verifier accepts exactly one algorithm for each key. The module `token` checks
//! the claims.

mod claims;

use std::fmt;

use data_encoding::BASE64URL_NOPAD;
use jsonwebtoken::DecodingKey;
use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny};

use crate::denial::{Denial, Refusal};
use crate::secret::Secret;

pub(crate) use claims::Claims;

/// The minimum length of a shared key that signs or verifies tokens, in bytes.
pub const SHARED_KEY_BYTES_MIN: usize = 24;

/// The maximum length of a token, in bytes. The length is checked before the token is parsed.
const TOKEN_BYTES_MAX: usize = 8 * 1024;

/// The kind of key that an algorithm needs.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Family {
    /// An ECDSA key pair.
    Ecdsa,
    /// An Ed25519 key pair.
    Eddsa,
    /// A key that the signer and the verifier share.
    Hmac,
    /// An RSA key pair, for PKCS#1 v1.5 or PSS.
    Rsa,
}

/// A JWS signature algorithm. The algorithm `none` is not supported.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Algorithm {
    name: &'static str,
    inner: jsonwebtoken::Algorithm,
    family: Family,
}

impl Algorithm {
    /// All algorithms that the configuration accepts.
    pub const ALL: &'static [Self] = &[
        Self::new("ES256", jsonwebtoken::Algorithm::ES256, Family::Ecdsa),
        Self::new("ES384", jsonwebtoken::Algorithm::ES384, Family::Ecdsa),
        Self::new("EdDSA", jsonwebtoken::Algorithm::EdDSA, Family::Eddsa),
        Self::new("HS256", jsonwebtoken::Algorithm::HS256, Family::Hmac),
        Self::new("HS384", jsonwebtoken::Algorithm::HS384, Family::Hmac),
        Self::new("HS512", jsonwebtoken::Algorithm::HS512, Family::Hmac),
        Self::new("PS256", jsonwebtoken::Algorithm::PS256, Family::Rsa),
        Self::new("PS384", jsonwebtoken::Algorithm::PS384, Family::Rsa),
        Self::new("PS512", jsonwebtoken::Algorithm::PS512, Family::Rsa),
        Self::new("RS256", jsonwebtoken::Algorithm::RS256, Family::Rsa),
        Self::new("RS384", jsonwebtoken::Algorithm::RS384, Family::Rsa),
        Self::new("RS512", jsonwebtoken::Algorithm::RS512, Family::Rsa),
    ];

    const fn new(name: &'static str, inner: jsonwebtoken::Algorithm, family: Family) -> Self {
        Self { name, inner, family }
    }

    /// Returns the algorithm with this JOSE name (RFC 7518 section 3.1). Names are case-sensitive. Returns `None` if
    /// no supported algorithm has this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|algorithm| algorithm.name == name).copied()
    }

    /// Returns the JOSE name of the algorithm, such as `HS256`.
    pub fn name(self) -> &'static str {
        self.name
    }

    /// Returns the kind of key that the algorithm needs.
    pub fn family(self) -> Family {
        self.family
    }

    pub(crate) fn inner(self) -> jsonwebtoken::Algorithm {
        self.inner
    }
}

/// The key material from which a [`Key`] is created.
#[derive(Clone, Copy, Debug)]
pub enum KeyMaterial<'a> {
    /// A private key as PEM (PKCS#8).
    PrivatePem(&'a Secret),
    /// A public key as PEM.
    PublicPem(&'a Secret),
    /// A shared key, as raw bytes.
    Shared(&'a Secret),
}

/// The reason why key material cannot be used with an algorithm.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum KeyFault {
    /// The PEM text contains no private key of the kind that the algorithm needs.
    NotAPrivateKey,
    /// The PEM text contains no public key of the kind that the algorithm needs.
    NotAPublicKey,
    /// The key material is of the wrong kind: a shared key for an asymmetric algorithm, or an asymmetric key for an
    /// HMAC algorithm.
    OtherKind,
    /// The shared key is shorter than [`SHARED_KEY_BYTES_MIN`].
    TooShort,
}

impl fmt::Display for KeyFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotAPrivateKey => write!(f, "contains no PEM private key for this algorithm"),
            Self::NotAPublicKey => write!(f, "contains no PEM public key for this algorithm"),
            Self::OtherKind => write!(f, "is not the kind of key that this algorithm needs"),
            Self::TooShort => write!(f, "is shorter than {SHARED_KEY_BYTES_MIN} bytes"),
        }
    }
}

/// A verification key and the only algorithm with which Callgate uses the key.
#[derive(Clone)]
pub struct Key {
    id: Option<Box<str>>,
    algorithm: Algorithm,
    decoding: DecodingKey,
}

/// Formats the id and the algorithm of the key, but not the secret key material.
impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({:?}, {})", self.id, self.algorithm.name())
    }
}

/// Formats the id and the algorithm of the key, but not the secret key material.
impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.id {
            Some(id) => write!(f, "{id} ({})", self.algorithm.name()),
            None => write!(f, "without id ({})", self.algorithm.name()),
        }
    }
}

impl Key {
    /// Creates a verification key. `id` is the key id that tokens name in the header `kid`.
    ///
    /// # Errors
    /// Returns a [`KeyFault`] if the key material does not fit the algorithm.
    pub fn new(id: Option<&str>, algorithm: Algorithm, material: KeyMaterial<'_>) -> Result<Self, KeyFault> {
        let decoding = match (algorithm.family(), material) {
            (Family::Hmac, KeyMaterial::Shared(secret)) if secret.len() < SHARED_KEY_BYTES_MIN => {
                return Err(KeyFault::TooShort);
            }
            (Family::Hmac, KeyMaterial::Shared(secret)) => Ok(DecodingKey::from_secret(secret.expose())),
            (Family::Rsa, KeyMaterial::PublicPem(pem)) => DecodingKey::from_rsa_pem(pem.expose()),
            (Family::Ecdsa, KeyMaterial::PublicPem(pem)) => DecodingKey::from_ec_pem(pem.expose()),
            (Family::Eddsa, KeyMaterial::PublicPem(pem)) => DecodingKey::from_ed_pem(pem.expose()),
            _ => return Err(KeyFault::OtherKind),
        };
        let decoding = decoding.map_err(|_| KeyFault::NotAPublicKey)?;
        Ok(Self { id: id.map(Into::into), algorithm, decoding })
    }

    #[cfg(test)]
    pub(crate) fn from_jwk(algorithm: Algorithm, jwk: &jsonwebtoken::jwk::Jwk) -> Self {
        let id = jwk.common.key_id.as_deref().map(Into::into);
        Self { id, algorithm, decoding: DecodingKey::from_jwk(jwk).unwrap() }
    }

    /// Verifies a token whose header was already compared byte by byte with the expected header. `rest` is the token
    /// after the header and its dot. Returns the decoded payload of the token.
    pub(crate) fn verify(&self, token: &str, rest: &str) -> Result<Vec<u8>, Refusal> {
        let malformed = |detail: &'static str| Refusal::new(Denial::TokenMalformed, detail);
        if token.len() > TOKEN_BYTES_MAX {
            return Err(malformed("the token is longer than 8 KiB"));
        }
        let (payload, signature) =
            rest.split_once('.').ok_or_else(|| malformed("the token is not a compact JWS"))?;
        let signed = token.get(..token.len() - signature.len() - 1).unwrap_or_default();
        let payload = self.payload(signed, payload, signature)?;
        payload.ok_or_else(|| Refusal::new(Denial::TokenForged, "the token's signature does not verify"))
    }

    /// Returns the decoded payload of a token if its signature is valid, or `None` if the signature is invalid.
    fn payload(&self, signed: &str, payload: &str, signature: &str) -> Result<Option<Vec<u8>>, Refusal> {
        // `jsonwebtoken` decodes the signature, and returns an error if it is not base64url. Callgate treats this
        // error as an invalid signature.
        let verdict = jsonwebtoken::crypto::verify(
            signature,
            signed.as_bytes(),
            &self.decoding,
            self.algorithm.inner(),
        );
        if !verdict.unwrap_or(false) {
            return Ok(None);
        }
        let malformed = || Refusal::new(Denial::TokenMalformed, "the token's payload is not base64url");
        BASE64URL_NOPAD.decode(payload.as_bytes()).map(Some).map_err(|_| malformed())
    }

    /// Returns the only algorithm with which Callgate uses the key.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// Returns the id of the key, which tokens name in the header `kid`. Returns `None` if the key has no id.
    pub fn id(&self) -> Option<&str> {
        self.id.as_deref()
    }
}

/// A parsed JWS token. The signature of the token has not been verified yet.
#[derive(Debug)]
pub(crate) struct Unverified<'t> {
    header: Header,
    payload: &'t str,
    signed: &'t str,
    signature: &'t str,
}

/// The header parameters of a JWS that Callgate reads. Callgate uses `alg`, `typ` and `kid`. A token with any other
/// parameter of this list is denied, because the parameter could change the meaning of the token or the source of its
/// verification key. Parameters outside this list are ignored (RFC 7515 section 4).
#[derive(Debug, Deserialize)]
struct Header {
    alg: String,
    #[serde(default, deserialize_with = "text")]
    typ: Option<String>,
    #[serde(default, deserialize_with = "text")]
    kid: Option<String>,
    #[serde(default, deserialize_with = "present")]
    b64: bool,
    #[serde(default, deserialize_with = "present")]
    crit: bool,
    #[serde(default, deserialize_with = "present")]
    enc: bool,
    #[serde(default, deserialize_with = "present")]
    jku: bool,
    #[serde(default, deserialize_with = "present")]
    jwk: bool,
    #[serde(default, deserialize_with = "present")]
    p2c: bool,
    #[serde(default, deserialize_with = "present")]
    x5c: bool,
    #[serde(default, deserialize_with = "present")]
    x5u: bool,
    #[serde(default, deserialize_with = "present")]
    zip: bool,
}

/// Deserializes an optional string. The value `null` is an error. A missing JSON key is not an error.
fn text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    String::deserialize(deserializer).map(Some)
}

fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    IgnoredAny::deserialize(deserializer).map(|_| true)
}

impl Header {
    fn refused_member(&self) -> Option<&'static str> {
        [
            (self.b64, "b64"),
            (self.crit, "crit"),
            (self.enc, "enc"),
            (self.jku, "jku"),
            (self.jwk, "jwk"),
            (self.p2c, "p2c"),
            (self.x5c, "x5c"),
            (self.x5u, "x5u"),
            (self.zip, "zip"),
        ]
        .into_iter()
        .find_map(|(there, name)| there.then_some(name))
    }
}

/// Reports whether `json`, which must be valid JSON, is an object.
pub(crate) fn is_object(json: &[u8]) -> bool {
    json.trim_ascii_start().starts_with(b"{")
}

impl<'t> Unverified<'t> {
    /// Parses a JWS token without verifying its signature.
    pub(crate) fn parse(token: &'t str) -> Result<Self, Refusal> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(Refusal::new(Denial::TokenMalformed, "the token is longer than 8 KiB"));
        }
        Self::parse_in_body(token)
    }

    /// Parses a JWS token from a request body, without verifying its signature. Only the size of the body limits the
    /// size of the token.
    pub(crate) fn parse_in_body(token: &'t str) -> Result<Self, Refusal> {
        let malformed = |detail: &'static str| Refusal::new(Denial::TokenMalformed, detail);
        let (signed, signature) =
            token.rsplit_once('.').ok_or_else(|| malformed("the token is not a compact JWS"))?;
        let (header, payload) =
            signed.split_once('.').ok_or_else(|| malformed("the token is not a compact JWS"))?;
        if payload.contains('.') {
            return Err(malformed(
                "the token has more than three parts; an encrypted token (JWE) has five, a signed one three",
            ));
        }
        let header = BASE64URL_NOPAD
            .decode(header.as_bytes())
            .map_err(|_| malformed("the token's header is not base64url"))?;
        // serde would also accept a list of the values without their keys. A header must be an object (RFC 7515
        // section 4).
        let header = Some(header).filter(|header| is_object(header));
        let header: Option<Header> = header.and_then(|header| serde_json::from_slice(&header).ok());
        let header = header
            .ok_or_else(|| malformed("the token's header is not JSON with alg, typ and kid as strings"))?;
        if let Some(member) = header.refused_member() {
            let detail = format!("the token's header has the member {member}");
            return Err(Refusal::new(Denial::TokenMalformed, detail));
        }
        Ok(Self { header, payload, signed, signature })
    }

    /// Returns the `typ` of the token's header in lower case, without the optional prefix `application/` (RFC 7515
    /// section 4.1.9). Returns `None` if the header has no `typ`.
    pub(crate) fn media_type(&self) -> Option<String> {
        let typ = self.header.typ.as_ref()?.to_ascii_lowercase();
        Some(typ.strip_prefix("application/").map_or_else(|| typ.clone(), str::to_owned))
    }

    /// Returns the `alg` of the token's header. The `alg` is not verified.
    pub(crate) fn algorithm(&self) -> &str {
        &self.header.alg
    }

    /// Returns the `kid` of the token's header, or `None` if there is none. The `kid` is not verified. Use it only to
    /// look up a configured key.
    pub(crate) fn key_id(&self) -> Option<&str> {
        self.header.kid.as_deref()
    }

    /// Returns the signed text of the token: header, dot and payload, in base64url.
    pub(crate) fn signed(&self) -> &'t str {
        self.signed
    }

    /// Returns the signature of the token in base64url.
    pub(crate) fn signature(&self) -> &'t str {
        self.signature
    }

    /// Returns the payload of the token in base64url. The payload is not verified.
    pub(crate) fn payload(&self) -> &'t str {
        self.payload
    }

    /// Verifies the signature of the token, and returns the decoded payload. If the token has a `kid`, only keys with
    /// this id and keys without an id are tried. Otherwise, all keys are tried. The algorithm of the key must be the
    /// `alg` of the token.
    pub(crate) fn verify(&self, keys: &[Key]) -> Result<Vec<u8>, Refusal> {
        let kid = self.header.kid.as_deref();
        let answers = |key: &&Key| kid.is_none() || key.id().is_none() || key.id() == kid;
        let mut candidates = keys.iter().filter(answers).peekable();
        if candidates.peek().is_none() {
            return Err(Refusal::new(
                Denial::TokenKeyUnknown,
                "the token names a key that is not configured",
            ));
        }
        let mut reason = (Denial::TokenAlgorithm, "the token's alg is not the algorithm of its key");
        for key in candidates {
            if key.algorithm.name() != self.header.alg {
                continue;
            }
            if let Some(payload) = key.payload(self.signed, self.payload, self.signature)? {
                return Ok(payload);
            }
            reason = (Denial::TokenForged, "the token's signature does not verify");
        }
        Err(Refusal::new(reason.0, reason.1))
    }
}
