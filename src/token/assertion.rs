//! Assertions: short-lived JWTs that Callgate adds to every message to the agent. An assertion proves that Callgate
//! sent the message, and not another process that can reach the agent's port. The claims contain the method, the
//! target and the digest of the body of the message.

use std::fmt;
use std::time::Duration;

use data_encoding::{BASE64URL_NOPAD, HEXLOWER};
use jsonwebtoken::EncodingKey;
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::callback_claims::CALLGATE_ISSUER;
use super::mint::header_text;
use crate::jose::{Algorithm, Family, KeyFault, KeyMaterial, SHARED_KEY_BYTES_MIN};
use crate::time::Timestamp;

/// The `typ` of assertions. It differs from the `typ` of callback tokens, so that an assertion is never accepted as a
/// callback token, and a callback token never as an assertion.
const ASSERTION_TYPE: &str = "assertion+jwt";

/// The unique id and the sending time of one message to the agent.
#[derive(Clone, Copy, Debug)]
pub struct Stamp<'a> {
    /// The request id in the access log, or another unique id of the message.
    pub id: &'a str,
    /// The time at which the message is sent.
    pub now: Timestamp,
}

/// The properties of a message to the agent that its assertion contains.
#[derive(Clone, Copy, Debug)]
pub struct Asserted<'a> {
    /// The HTTP method of the message.
    pub method: &'a str,
    /// The internal path and query to which the message is sent.
    pub target: &'a str,
    /// The body of the message, after all rewriting. `None` if Callgate passes the body on while it arrives. The
    /// assertion then contains no hash of the body.
    pub body: Option<&'a [u8]>,
    /// The id of the interaction to which the message belongs. `None` if it belongs to no interaction.
    pub interaction: Option<&'a str>,
    /// The provider's event id. `None` if the message has no event id.
    pub event_id: Option<&'a str>,
    /// The number of the question that the callback asks the agent. `None` if the callback asks no question.
    pub question: Option<u32>,
    /// The cause of a notice, which is a message from Callgate itself. `None` for a callback.
    pub notice: Option<&'a str>,
    /// True if the body is the text of a provider. The agent must not treat this text as an instruction.
    pub is_untrusted: bool,
    /// The unique id and the sending time of the message.
    pub stamp: Stamp<'a>,
}

/// The claims of an assertion.
#[derive(Serialize)]
struct Claims<'a> {
    iss: &'static str,
    aud: &'a str,
    jti: &'a str,
    iat: i64,
    exp: i64,
    method: &'a str,
    target: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    body_sha256: Option<String>,
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
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<&'static str>,
}

/// The value of the header `Callgate-Content` and of the claim `content` in messages whose body is the text of a
/// provider.
pub const UNTRUSTED: &str = "untrusted";

/// Signs assertions for the agent with one key.
#[derive(Clone)]
pub struct Asserter {
    algorithm: Algorithm,
    key: EncodingKey,
    /// The encoded JWT header of every assertion, including the dot after the header.
    header: Box<str>,
    audience: Box<str>,
    ttl: Duration,
}

/// Formats the algorithm and the audience, but not the key.
impl fmt::Debug for Asserter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Asserter({}, for {})", self.algorithm.name(), self.audience)
    }
}

impl Asserter {
    /// Creates a signer of assertions. `material` is a shared key of at least 24 bytes, or a private key as PEM.
    /// `audience` is the value of the claim `aud`.
    ///
    /// # Errors
    /// Returns a [`KeyFault`] if the key material does not fit the algorithm.
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

    /// Creates the assertion for a message of a route. Returns `None` if signing fails, for example because the system
    /// has no random numbers. The message is then sent without an assertion, and the agent must deny the message.
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
            body_sha256: message.body.map(|body| HEXLOWER.encode(&Sha256::digest(body))),
            route,
            provider,
            sub: message.interaction,
            event_id: message.event_id,
            question: message.question,
            notice: message.notice,
            content: message.is_untrusted.then_some(UNTRUSTED),
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

    /// Returns the algorithm with which assertions are signed.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// Returns the value of the claim `aud` in assertions.
    pub fn audience(&self) -> &str {
        &self.audience
    }

    /// Returns the lifetime of an assertion.
    pub fn ttl(&self) -> Duration {
        self.ttl
    }
}
