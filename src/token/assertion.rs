//! Assertions: a short-lived JWT with every message to the agent, by which it can tell what came through Callgate
//! from what reached its port another way. It names the very method, target and body it goes with.

use std::fmt;
use std::time::Duration;

use data_encoding::{BASE64URL_NOPAD, HEXLOWER};
use jsonwebtoken::EncodingKey;
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::mint::header_text;
use super::{CALLGATE_ISSUER, SHARED_KEY_BYTES_MIN};
use crate::jose::{Algorithm, Family, KeyFault, KeyMaterial};
use crate::time::Timestamp;

/// The `typ` of an assertion. It differs from that of callback tokens, so that neither passes for the other.
const ASSERTION_TYPE: &str = "assertion+jwt";

/// What tells one message to the agent from every other.
#[derive(Clone, Copy, Debug)]
pub struct Stamp<'a> {
    /// The request id of the access log, or one like it.
    pub id: &'a str,
    /// When it is sent.
    pub now: Timestamp,
}

/// A message to the agent, as it is sent.
#[derive(Clone, Copy, Debug)]
pub struct Asserted<'a> {
    /// The HTTP method.
    pub method: &'a str,
    /// The internal path and query.
    pub target: &'a str,
    /// The body, after every rewriting.
    pub body: &'a [u8],
    /// The interaction it belongs to.
    pub interaction: Option<&'a str>,
    /// The provider's id of the event.
    pub event_id: Option<&'a str>,
    /// The number of the question that it asks.
    pub question: Option<u32>,
    /// What a notice is about; `None`: it is a callback.
    pub notice: Option<&'a str>,
    /// As said.
    pub stamp: Stamp<'a>,
}

/// The claims.
#[derive(Serialize)]
struct Claims<'a> {
    iss: &'static str,
    aud: &'a str,
    jti: &'a str,
    iat: i64,
    exp: i64,
    method: &'a str,
    target: &'a str,
    body_sha256: String,
    route: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    provider: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sub: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    event_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    question: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    notice: Option<&'a str>,
}

/// Signs assertions under one key.
#[derive(Clone)]
pub struct Asserter {
    algorithm: Algorithm,
    key: EncodingKey,
    /// The header of every assertion as it stands in it, dot included.
    header: Box<str>,
    audience: Box<str>,
    ttl: Duration,
}

/// Prints no key material.
impl fmt::Debug for Asserter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Asserter({}, for {})", self.algorithm.name(), self.audience)
    }
}

impl Asserter {
    /// Makes a key ready: a shared one of at least 24 bytes, or the PEM of a private one.
    ///
    /// # Errors
    /// [`KeyFault`]: material of another kind, or a private key that does not sign with this algorithm.
    pub fn new(
        key_id: &str,
        algorithm: Algorithm,
        material: KeyMaterial<'_>,
        audience: &str,
        ttl: Duration,
    ) -> Result<Self, KeyFault> {
        let key = match (algorithm.family(), material) {
            (Family::Hmac, KeyMaterial::Shared(secret)) if secret.len() < SHARED_KEY_BYTES_MIN => {
                return Err(KeyFault::TooShort);
            }
            (Family::Hmac, KeyMaterial::Shared(secret)) => Ok(EncodingKey::from_secret(secret.expose())),
            (Family::Ecdsa, KeyMaterial::PrivatePem(pem)) => EncodingKey::from_ec_pem(pem.expose()),
            (Family::Eddsa, KeyMaterial::PrivatePem(pem)) => EncodingKey::from_ed_pem(pem.expose()),
            (Family::Rsa, KeyMaterial::PrivatePem(pem)) => EncodingKey::from_rsa_pem(pem.expose()),
            _ => return Err(KeyFault::OtherKind),
        };
        let key = key.map_err(|_| KeyFault::NotAPrivateKey)?;
        let header = header_text(ASSERTION_TYPE, algorithm, key_id).ok_or(KeyFault::NotAPrivateKey)?;
        let asserter = Self { algorithm, key, header, audience: audience.into(), ttl };
        match asserter.signature(b"") {
            Some(_) => Ok(asserter),
            None => Err(KeyFault::NotAPrivateKey),
        }
    }

    /// The assertion for a message of a route. `None` where signing fails, for want of randomness say: the message then goes
    /// without, and the agent refuses it.
    pub fn assert(&self, route: &str, provider: Option<&str>, message: &Asserted<'_>) -> Option<String> {
        let issued = message.stamp.now.unix_secs();
        let ttl = i64::try_from(self.ttl.as_secs()).ok()?;
        let claims = Claims {
            iss: CALLGATE_ISSUER,
            aud: &self.audience,
            jti: message.stamp.id,
            iat: issued,
            exp: issued.saturating_add(ttl),
            method: message.method,
            target: message.target,
            body_sha256: HEXLOWER.encode(&Sha256::digest(message.body)),
            route,
            provider,
            sub: message.interaction,
            event_id: message.event_id,
            question: message.question,
            notice: message.notice,
        };
        let mut token = String::from(&*self.header);
        BASE64URL_NOPAD.encode_append(&serde_json::to_vec(&claims).ok()?, &mut token);
        let signature = self.signature(token.as_bytes())?;
        token.push('.');
        token.push_str(&signature);
        Some(token)
    }

    fn signature(&self, signed: &[u8]) -> Option<String> {
        jsonwebtoken::crypto::sign(signed, &self.key, self.algorithm.inner()).ok()
    }

    /// The algorithm.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// Whom it is for.
    pub fn audience(&self) -> &str {
        &self.audience
    }

    /// How long it is good for.
    pub fn ttl(&self) -> Duration {
        self.ttl
    }
}
