//! JWTs that providers send as signatures in a header, in the query or in the body. Some tokens contain the hash of
//! the body, some are the whole body, and others only identify the sender. The scheme, and never the token, determines
//! which keys, algorithms and claims are accepted (RFC 8725).

use std::borrow::Cow;
use std::time::Duration;

use data_encoding::BASE64URL_NOPAD;
use http::HeaderName;
use serde_json::Value;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::denial::{Denial, Refusal};
use crate::jose::{Claims, Unverified};
use crate::request::RequestHead;
use crate::secret::Secret;
use crate::signature::context::SignatureContext;
use crate::signature::keys::{AuthenticationTag, Encoding, KeySet, MacKey, PublicKeyAlgorithm};
use crate::signature::request_parts::{SignaturePlace, body_parts};
use crate::time::Timestamp;

/// The value that a claim of a JWT must have.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum ExpectedClaim {
    /// The claim must be the id of the key that verified the token.
    KeyId,
    /// The claim must be one of these texts.
    OneOf(Vec<Box<str>>),
    /// The claim must be the URL that the provider called, with its query.
    Url,
}

/// The location of a JWT in a request.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum JwtPlace {
    /// The JWT is a part of the request, such as a header.
    At(SignaturePlace),
    /// The JWT is the whole body.
    WholeBody,
}

impl JwtPlace {
    /// Returns the names of the headers that can contain the token. The list is empty if the token is not in a header.
    pub fn headers(&self) -> &[HeaderName] {
        match self {
            Self::At(place) => place.headers(),
            Self::WholeBody => &[],
        }
    }

    /// Returns the name of the header that contains the token, or `None` if the token is not in a header.
    pub fn header(&self) -> Option<&HeaderName> {
        let Self::At(place) = self else { return None };
        place.header()
    }

    /// Returns the name of the query parameter that contains the token, or `None` if the token is not in the query.
    pub fn parameter(&self) -> Option<&str> {
        let Self::At(place) = self else { return None };
        place.parameter()
    }
}

/// The signature scheme of a provider that sends a JWT.
#[derive(Clone, Debug)]
pub struct JwtScheme {
    /// The location of the token in the request.
    pub place: JwtPlace,
    /// The JOSE names of the accepted algorithms.
    pub algorithms: Vec<Box<str>>,
    /// The claims that a token must have, such as `iss`, `aud` and `sub`, each with its expected value.
    pub claims: Vec<(Box<str>, ExpectedClaim)>,
    /// The claim that contains the SHA-256 digest of the body, and the encoding of the digest. If it is `None`, no
    /// claim covers the body.
    pub body_hash: Option<(Box<str>, Encoding)>,
    /// The maximum accepted age of the claim `iat`. If it is `None`, `iat` is optional.
    pub max_age: Option<Duration>,
    /// True if tokens must have the claim `exp`.
    pub expires: bool,
    /// The accepted clock difference for the claims `exp`, `nbf` and `iat`.
    pub leeway: Duration,
    /// The claim that contains the event id. `None` if no claim contains it.
    pub id: Option<Box<str>>,
}

/// The result of verifying a JWT whose signature and claims are valid.
#[derive(Clone, Debug)]
pub(in crate::signature) struct VerifiedJwt {
    /// The SHA-256 digest of the body, as a claim of the token states it. `None` if the scheme has no claim for the
    /// digest.
    body_hash: Option<Box<[u8]>>,
    pub(in crate::signature) id: Option<Box<str>>,
    tag: AuthenticationTag,
    /// True if the token is the whole body.
    is_body: bool,
}

/// The keys with which JWTs are verified.
pub(in crate::signature) enum JwtKeys<'k> {
    /// MAC keys, each with its shared secret, and a function that returns the id of the key in a secret.
    Shared(&'k [(MacKey, Secret)], &'k dyn Fn(&Secret) -> Option<Box<str>>),
    /// Public keys of the provider.
    Public(&'k KeySet),
}

impl JwtScheme {
    /// Returns the longest time for which the same token may be accepted again after its arrival. Returns `None` if
    /// the scheme does not limit the age of `iat`.
    pub(in crate::signature) fn replay_window(&self) -> Option<Duration> {
        self.max_age.map(|age| age.saturating_add(self.leeway))
    }

    /// Reports whether the scheme expects the token in the head of a request.
    pub(in crate::signature) fn is_in_head(&self) -> bool {
        matches!(&self.place, JwtPlace::At(place) if place.body_part().is_none())
    }

    /// Reports whether the token covers the whole body.
    pub(in crate::signature) fn covers_body(&self) -> bool {
        self.body_hash.is_some() || self.place == JwtPlace::WholeBody
    }

    /// Returns the token in the head of a request. Returns `None` if the scheme expects the token in the body.
    ///
    /// # Errors
    /// Returns `signature_missing`, `signature_malformed` or `header_duplicated`.
    pub(in crate::signature) fn head_token<'a>(
        &self,
        head: &RequestHead<'a>,
    ) -> Result<Option<Cow<'a, str>>, Refusal> {
        match &self.place {
            JwtPlace::At(place) if place.body_part().is_none() => place.single(head).map(Some),
            JwtPlace::At(_) | JwtPlace::WholeBody => Ok(None),
        }
    }

    /// Returns the token in the body of a request. Returns `None` if the scheme expects the token in the head.
    ///
    /// # Errors
    /// Returns `signature_missing` or `signature_malformed`.
    pub(in crate::signature) fn body_token<'b>(
        &self,
        head: &RequestHead<'_>,
        body: &'b [u8],
    ) -> Result<Option<Cow<'b, str>>, Refusal> {
        let token = match &self.place {
            JwtPlace::WholeBody => match std::str::from_utf8(body) {
                Ok(token) => Cow::Borrowed(token),
                Err(_) => return Err(Refusal::new(Denial::SignatureMalformed, "the body is not a token")),
            },
            JwtPlace::At(place) => match place.body_part() {
                None => return Ok(None),
                Some(part) => body_parts(head, body, &[part])?.pop().unwrap_or_default(),
            },
        };
        if token.is_empty() {
            return Err(Refusal::new(Denial::SignatureMissing, "the body has no token"));
        }
        Ok(Some(token))
    }

    /// Returns the event id in a token that was already verified. Returns `None` if the token has no event id.
    pub(in crate::signature) fn id_in(&self, token: &str) -> Option<Box<str>> {
        let token = Unverified::parse_in_body(token).ok()?;
        let payload = BASE64URL_NOPAD.decode(token.payload().as_bytes()).ok()?;
        let claims: Claims = serde_json::from_slice(&payload).ok()?;
        claims.text(self.id.as_deref()?).ok()?.map(Into::into)
    }

    /// Verifies the signature and the claims of a token.
    ///
    /// # Errors
    /// Returns `signature_malformed`, `signature_mismatch`, `signature_claim`, `signature_key_unknown`,
    /// `signature_too_old` or `signature_too_new`.
    pub(in crate::signature) fn verify(
        &self,
        token: &str,
        context: &SignatureContext<'_>,
        keys: &JwtKeys<'_>,
        now: Timestamp,
    ) -> Result<VerifiedJwt, Refusal> {
        let is_body = self.place == JwtPlace::WholeBody;
        let token = match self.is_in_head() {
            true => Unverified::parse(token),
            false => Unverified::parse_in_body(token),
        };
        let token = token.map_err(as_signature)?;
        if !self.algorithms.iter().any(|name| **name == *token.algorithm()) {
            return Err(Refusal::new(
                Denial::SignatureMismatch,
                "the provider does not use the token's algorithm",
            ));
        }
        let key_id = verify_signature(&token, keys, now)?;
        let payload = BASE64URL_NOPAD.decode(token.payload().as_bytes()).map_err(|_| {
            Refusal::new(Denial::SignatureMalformed, "the payload of the token is not base64url")
        })?;
        let claims: Claims = serde_json::from_slice(&payload).map_err(|_| {
            Refusal::new(Denial::SignatureClaim, "the claims are not a JSON object with unique names")
        })?;
        self.check_times(&claims, now)?;
        for (name, expected) in &self.claims {
            check_claim(&claims, name, expected, key_id.as_deref(), context)?;
        }
        let body_hash = match &self.body_hash {
            None => None,
            Some((name, encoding)) => {
                let text = claims.text(name).map_err(as_signature)?.unwrap_or_default();
                let hash = decode_digest(text, *encoding).ok_or_else(|| {
                    Refusal::new(Denial::SignatureClaim, format!("the claim {name} is not a SHA-256 digest"))
                })?;
                Some(hash.into())
            }
        };
        let id = match &self.id {
            None => None,
            Some(name) => claims.text(name).map_err(as_signature)?.map(Into::into),
        };
        let tag = AuthenticationTag::new(&Sha256::digest(token.signed()));
        Ok(VerifiedJwt { body_hash, id, tag, is_body })
    }

    fn check_times(&self, claims: &Claims, now: Timestamp) -> Result<(), Refusal> {
        let expires = claims.moment("exp").map_err(as_signature)?;
        if self.expires && expires.is_none() {
            return Err(Refusal::new(Denial::SignatureClaim, "the token has no `exp`"));
        }
        if expires.is_some_and(|at| now >= at.plus(self.leeway)) {
            return Err(Refusal::new(Denial::SignatureTooOld, "the token has expired"));
        }
        let issued = claims.moment("iat").map_err(as_signature)?;
        for at in issued.into_iter().chain(claims.moment("nbf").map_err(as_signature)?) {
            if at > now.plus(self.leeway) {
                return Err(Refusal::new(Denial::SignatureTooNew, "the token is not valid yet"));
            }
        }
        match (self.max_age, issued) {
            (None, _) => Ok(()),
            (Some(_), None) => Err(Refusal::new(Denial::SignatureClaim, "the token has no `iat`")),
            (Some(age), Some(at)) if at < now.minus(age) => {
                Err(Refusal::new(Denial::SignatureTooOld, "the token was issued too long ago"))
            }
            _ => Ok(()),
        }
    }

    /// Returns the token that the provider would send with this body, signed with a shared key. If the token is the
    /// whole body, `body` must be a JSON object. Its keys and values become claims of the token.
    pub(in crate::signature) fn sign(
        &self,
        context: &SignatureContext<'_>,
        body: &[u8],
        (keyed, key_id): (&MacKey, Option<&str>),
        id: &str,
    ) -> Option<String> {
        let now = context.now;
        let mut claims = match self.place {
            JwtPlace::WholeBody => serde_json::from_slice(body).ok()?,
            JwtPlace::At(_) => serde_json::Map::new(),
        };
        for (name, expected) in &self.claims {
            let value = match expected {
                ExpectedClaim::KeyId => key_id?.to_owned(),
                ExpectedClaim::OneOf(texts) => texts.first()?.to_string(),
                ExpectedClaim::Url => format!("{}{}", context.public_url, context.head.target),
            };
            claims.insert(name.to_string(), value.into());
        }
        if let Some((name, encoding)) = &self.body_hash {
            claims.insert(name.to_string(), encoding.encode(&Sha256::digest(body)).into());
        }
        if let Some(name) = &self.id {
            claims.insert(name.to_string(), id.into());
        }
        claims.insert("iat".to_owned(), now.unix_secs().into());
        claims.insert("exp".to_owned(), now.plus(Duration::from_secs(300)).unix_secs().into());
        let header = serde_json::json!({ "alg": &**self.algorithms.first()?, "typ": "JWT" });
        let encode = |value: &Value| BASE64URL_NOPAD.encode(value.to_string().as_bytes());
        let content = format!("{}.{}", encode(&header), encode(&Value::Object(claims)));
        let mut mac = keyed.start();
        mac.update(content.as_bytes());
        Some(format!("{content}.{}", BASE64URL_NOPAD.encode(mac.finish().as_bytes())))
    }
}

impl VerifiedJwt {
    /// Compares the body with the digest in the token, if there is one. Returns the tag of the message, or no tag if
    /// the token does not cover the body.
    ///
    /// # Errors
    /// Returns `signature_mismatch` if the digest is not the digest of the body.
    pub(in crate::signature) fn verify_body(&self, body: &[u8]) -> Result<Vec<AuthenticationTag>, Refusal> {
        let same = |hash: &[u8]| bool::from(Sha256::digest(body).ct_eq(hash));
        if self.body_hash.as_deref().is_none_or(same) {
            // A provider may send the same token with several messages if the token does not cover the body.
            let is_of_message = self.is_body || self.body_hash.is_some();
            return Ok(is_of_message.then_some(self.tag).into_iter().collect());
        }
        Err(Refusal::new(Denial::SignatureMismatch, "the digest in the token is not the digest of the body"))
    }
}

/// Verifies the signature of a token. Returns the id of the shared key that verified the token, if the key has an id.
///
/// # Errors
/// Returns `signature_mismatch` if no key verifies the token, and `signature_key_unknown` if no public key of the
/// provider fits the token's key id and algorithm.
fn verify_signature(
    token: &Unverified<'_>,
    keys: &JwtKeys<'_>,
    now: Timestamp,
) -> Result<Option<Box<str>>, Refusal> {
    let forged = || Refusal::new(Denial::SignatureMismatch, "the token's signature does not verify");
    let signature = BASE64URL_NOPAD.decode(token.signature().as_bytes()).map_err(|_| forged())?;
    match keys {
        JwtKeys::Shared(keys, name) => {
            let found = keys.iter().find(|(keyed, _)| {
                let mut mac = keyed.start();
                mac.update(token.signed().as_bytes());
                mac.finish().as_bytes().ct_eq(&signature).into()
            });
            found.map(|(_, secret)| name(secret)).ok_or_else(forged)
        }
        JwtKeys::Public(set) => {
            let algorithm = PublicKeyAlgorithm::from_jose(token.algorithm()).ok_or_else(forged)?;
            // A key that names an algorithm must not be used with another algorithm.
            let fits = |alg: Option<&str>| alg.is_none_or(|alg| alg == token.algorithm());
            let mut keys = set.named(token.key_id(), now).filter(|key| fits(key.algorithm())).peekable();
            if keys.peek().is_none() {
                return Err(Refusal::new(
                    Denial::SignatureKeyUnknown,
                    "the provider has no key with this id",
                ));
            }
            let verifies = keys.any(|key| algorithm.verifies(key, token.signed().as_bytes(), &signature));
            if verifies { Ok(None) } else { Err(forged()) }
        }
    }
}

fn check_claim(
    claims: &Claims,
    name: &str,
    expected: &ExpectedClaim,
    key_id: Option<&str>,
    context: &SignatureContext<'_>,
) -> Result<(), Refusal> {
    let matched = if name == "aud" {
        let audience = claims.audience().map_err(as_signature)?;
        audience.iter().any(|text| matches(expected, text, key_id, context))
    } else if let Some(Value::Bool(value)) = claims.get(name) {
        matches(expected, if *value { "true" } else { "false" }, key_id, context)
    } else {
        let text = claims.text(name).map_err(as_signature)?;
        text.is_some_and(|text| matches(expected, text, key_id, context))
    };
    if matched {
        return Ok(());
    }
    Err(Refusal::new(Denial::SignatureClaim, format!("the claim {name} does not have the expected value")))
}

fn matches(
    expected: &ExpectedClaim,
    text: &str,
    key_id: Option<&str>,
    context: &SignatureContext<'_>,
) -> bool {
    match expected {
        ExpectedClaim::KeyId => key_id == Some(text),
        ExpectedClaim::OneOf(texts) => texts.iter().any(|one| **one == *text),
        ExpectedClaim::Url => text.strip_prefix(context.public_url) == Some(context.head.target),
    }
}

/// Decodes a SHA-256 digest in a claim. The padding of base64 is optional.
fn decode_digest(text: &str, encoding: Encoding) -> Option<Vec<u8>> {
    let hash = match encoding {
        Encoding::Hex => encoding.decode_any(text),
        Encoding::Base64 => data_encoding::BASE64_NOPAD.decode(text.trim_end_matches('=').as_bytes()).ok(),
        Encoding::Base64Url => BASE64URL_NOPAD.decode(text.trim_end_matches('=').as_bytes()).ok(),
    };
    hash.filter(|hash| hash.len() == 32)
}

/// Replaces the `token_*` reason of a denial by the corresponding `signature_*` reason. The JWT parser returns
/// `token_*` reasons, but here the JWT is a signature.
fn as_signature(refusal: Refusal) -> Refusal {
    let denial = match refusal.denial {
        Denial::TokenMalformed => Denial::SignatureMalformed,
        Denial::TokenClaim => Denial::SignatureClaim,
        _ => Denial::SignatureMismatch,
    };
    Refusal::new(denial, refusal.detail)
}

#[cfg(test)]
#[path = "jwt_tests.rs"]
mod tests;
