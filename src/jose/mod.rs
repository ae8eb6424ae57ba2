//! The compact JWS (RFC 7515) read strictly: size, parts, header members, one algorithm per key.

mod claims;

use std::fmt;

use data_encoding::BASE64URL_NOPAD;
use jsonwebtoken::DecodingKey;
use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny};

use crate::denial::{Denial, Refusal};
use crate::secret::Secret;

pub(crate) use claims::Claims;

/// Fewest bytes a shared key may have that tokens are made or verified with.
pub const SHARED_KEY_BYTES_MIN: usize = 24;

/// Longest token, in bytes, before anything of it is parsed.
const TOKEN_BYTES_MAX: usize = 8 * 1024;

/// Which kind of key material an algorithm takes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Family {
    /// ECDSA.
    Ecdsa,
    /// Ed25519.
    Eddsa,
    /// A shared key.
    Hmac,
    /// RSA, PKCS#1 v1.5 or PSS.
    Rsa,
}

/// The algorithm of a key. There is no `none`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Algorithm {
    name: &'static str,
    inner: jsonwebtoken::Algorithm,
    family: Family,
}

impl Algorithm {
    /// Every algorithm that can be configured.
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

    /// From its JOSE name (RFC 7518 section 3.1), which is case-sensitive.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|algorithm| algorithm.name == name).copied()
    }

    /// The JOSE name.
    pub fn name(self) -> &'static str {
        self.name
    }

    /// The kind of key it takes.
    pub fn family(self) -> Family {
        self.family
    }

    pub(crate) fn inner(self) -> jsonwebtoken::Algorithm {
        self.inner
    }
}

/// What a key is made from.
#[derive(Clone, Copy, Debug)]
pub enum KeyMaterial<'a> {
    /// A private key as PEM (PKCS#8).
    PrivatePem(&'a Secret),
    /// A public key as PEM.
    PublicPem(&'a Secret),
    /// A shared key, as raw bytes.
    Shared(&'a Secret),
}

/// Why key material makes no key.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum KeyFault {
    /// The PEM holds no private key of the algorithm's family.
    NotAPrivateKey,
    /// The PEM holds no public key of the algorithm's family.
    NotAPublicKey,
    /// The material is of the other kind: a shared key for an asymmetric algorithm, or the reverse.
    OtherKind,
    /// A shared key of fewer than 24 bytes.
    TooShort,
}

impl fmt::Display for KeyFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotAPrivateKey => write!(f, "holds no PEM private key of this algorithm's kind"),
            Self::NotAPublicKey => write!(f, "holds no PEM public key of this algorithm's kind"),
            Self::OtherKind => write!(f, "is not the kind of key this algorithm takes"),
            Self::TooShort => write!(f, "is shorter than {SHARED_KEY_BYTES_MIN} bytes"),
        }
    }
}

/// A key that verifies, with the one algorithm it is good for.
#[derive(Clone)]
pub struct Key {
    id: Option<Box<str>>,
    algorithm: Algorithm,
    decoding: DecodingKey,
}

/// Prints no key material.
impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({:?}, {})", self.id, self.algorithm.name())
    }
}

impl Key {
    /// Makes a key ready.
    ///
    /// # Errors
    /// [`KeyFault`].
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

    /// Verifies a token whose header is known to be right; `rest` is what stands behind the header.
    pub(crate) fn verify(&self, token: &str, rest: &str) -> Result<Vec<u8>, Refusal> {
        let malformed = |detail: &'static str| Refusal::new(Denial::TokenMalformed, detail);
        if token.len() > TOKEN_BYTES_MAX {
            return Err(malformed("the token is longer than 8 KiB"));
        }
        let (payload, signature) = rest.split_once('.').ok_or_else(|| malformed("not a compact JWS"))?;
        let signed = token.get(..token.len() - signature.len() - 1).unwrap_or_default();
        let payload = self.payload(signed, payload, signature)?;
        payload.ok_or_else(|| Refusal::new(Denial::TokenForged, "the token's signature does not verify"))
    }

    /// The payload's bytes, if the signature verifies under this key.
    fn payload(&self, signed: &str, payload: &str, signature: &str) -> Result<Option<Vec<u8>>, Refusal> {
        // The library reads the signature's base64url; an error there is a signature that cannot match.
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

    /// The one algorithm it is good for.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The key's id, by which tokens name it.
    pub fn id(&self) -> Option<&str> {
        self.id.as_deref()
    }
}

/// A token taken apart, nothing of it believed yet.
#[derive(Debug)]
pub(crate) struct Unverified<'t> {
    header: Header,
    payload: &'t str,
    signed: &'t str,
    signature: &'t str,
}

/// The header members that are looked at. The ones that could change what a token means, or where its key
/// comes from, are recorded so that they can be refused; the rest is ignored, as RFC 7515 section 4 asks.
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

/// A string; `null` is not the same as being absent.
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

/// Whether a JSON text is an object, if it is JSON at all.
pub(crate) fn is_object(json: &[u8]) -> bool {
    json.trim_ascii_start().starts_with(b"{")
}

impl<'t> Unverified<'t> {
    /// Takes a token apart.
    pub(crate) fn parse(token: &'t str) -> Result<Self, Refusal> {
        let malformed = |detail: &'static str| Refusal::new(Denial::TokenMalformed, detail);
        if token.len() > TOKEN_BYTES_MAX {
            return Err(malformed("the token is longer than 8 KiB"));
        }
        let (signed, signature) = token.rsplit_once('.').ok_or_else(|| malformed("not a compact JWS"))?;
        let (header, payload) = signed.split_once('.').ok_or_else(|| malformed("not a compact JWS"))?;
        if payload.contains('.') {
            return Err(malformed("five parts: an encrypted token (JWE) where a signed one is expected"));
        }
        let header = BASE64URL_NOPAD
            .decode(header.as_bytes())
            .map_err(|_| malformed("the token's header is not base64url"))?;
        // A list in the order of our members would do for serde; a header is an object (RFC 7515 section 4).
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

    /// The header's `typ`, lower case, without the `application/` that may be left out (RFC 7515 section
    /// 4.1.9).
    pub(crate) fn media_type(&self) -> Option<String> {
        let typ = self.header.typ.as_ref()?.to_ascii_lowercase();
        Some(typ.strip_prefix("application/").map_or_else(|| typ.clone(), str::to_owned))
    }

    /// The header's `alg`: whatever the token says of itself.
    pub(crate) fn algorithm(&self) -> &str {
        &self.header.alg
    }

    /// The header's `kid`: a name to look up among known keys, nothing else.
    pub(crate) fn key_id(&self) -> Option<&str> {
        self.header.kid.as_deref()
    }

    /// The bytes under the signature.
    pub(crate) fn signed(&self) -> &'t str {
        self.signed
    }

    /// The signature, base64url.
    pub(crate) fn signature(&self) -> &'t str {
        self.signature
    }

    /// The payload, base64url, whoever signed it.
    pub(crate) fn payload(&self) -> &'t str {
        self.payload
    }

    /// Verifies the signature under the key that the token names, or under any of `keys` with its algorithm
    /// when it names none, and hands out the payload's bytes. A key without an id answers to any name.
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
        let mut reason = (Denial::TokenAlgorithm, "the token's alg is not the one its key is good for");
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
