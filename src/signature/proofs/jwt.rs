//! A JWT as signature: a token in a header that says the hash of the body, or, where a provider binds less, only who
//! sends it. Which keys, which algorithms and which claims is the scheme's to say, never the token's (RFC 8725).

use std::time::Duration;

use data_encoding::BASE64URL_NOPAD;
use serde_json::Value;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::denial::{Denial, Refusal};
use crate::jose::{Claims, Unverified};
use crate::secret::Secret;
use crate::signature::context::SignatureContext;
use crate::signature::keys::{AuthenticationTag, Encoding, KeySet, MacKey, PublicKeyAlgorithm};
use crate::signature::request_parts::SignaturePlace;
use crate::time::Timestamp;

/// Allowed clock difference for `exp`, `nbf` and `iat`.
const LEEWAY: Duration = Duration::from_secs(60);

/// What a claim is compared with.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum ExpectedClaim {
    /// The name that stands with the key.
    KeyId,
    /// One of these texts.
    OneOf(Vec<Box<str>>),
    /// The public URL as called, with its query.
    Url,
}

/// How a provider puts a JWT to use.
#[derive(Clone, Debug)]
pub struct JwtScheme {
    /// Where the token travels.
    pub place: SignaturePlace,
    /// The JOSE names of the algorithms it may be signed with.
    pub algorithms: Vec<Box<str>>,
    /// What claims must say: `iss`, `aud`, `sub` and others by their names.
    pub claims: Vec<(Box<str>, ExpectedClaim)>,
    /// The claim that holds the SHA-256 of the body, and how it is written; `None`: the body is not bound.
    pub body_hash: Option<(Box<str>, Encoding)>,
    /// How old `iat` may be; `None`: it is not looked at.
    pub max_age: Option<Duration>,
    /// Whether `exp` must be there.
    pub expires: bool,
    /// The claim that is the event's id.
    pub id: Option<Box<str>>,
}

/// A token that was found genuine.
#[derive(Clone, Debug)]
pub(in crate::signature) struct VerifiedJwt {
    /// The hash that the body must have.
    body_hash: Option<Box<[u8]>>,
    pub(in crate::signature) id: Option<Box<str>>,
    tag: AuthenticationTag,
}

/// The keys of a JWT scheme.
pub(in crate::signature) enum JwtKeys<'k> {
    /// Shared ones, each with the name it may have.
    Shared(&'k [(MacKey, Secret)], &'k dyn Fn(&Secret) -> Option<Box<str>>),
    /// Public ones.
    Public(&'k KeySet),
}

impl JwtScheme {
    /// Verifies the token of a request.
    pub(in crate::signature) fn verify_head(
        &self,
        context: &SignatureContext<'_>,
        keys: &JwtKeys<'_>,
        now: Timestamp,
    ) -> Result<VerifiedJwt, Refusal> {
        let token = self.place.single(&context.head)?;
        let token = Unverified::parse(token).map_err(as_signature)?;
        if !self.algorithms.iter().any(|name| **name == *token.algorithm()) {
            return Err(Refusal::new(Denial::SignatureMismatch, "the token's alg is not the provider's"));
        }
        let key_id = genuine(&token, keys, now)?;
        let payload = BASE64URL_NOPAD
            .decode(token.payload().as_bytes())
            .map_err(|_| Refusal::new(Denial::SignatureMalformed, "the payload is not base64url"))?;
        let claims: Claims = serde_json::from_slice(&payload).map_err(|_| {
            Refusal::new(Denial::SignatureClaim, "the claims are not a JSON object with each member once")
        })?;
        self.check_times(&claims, now)?;
        for (name, expected) in &self.claims {
            check(&claims, name, expected, key_id.as_deref(), context)?;
        }
        let body_hash = match &self.body_hash {
            None => None,
            Some((name, encoding)) => {
                let text = claims.text(name).map_err(as_signature)?.unwrap_or_default();
                let hash = hash_of(text, *encoding).ok_or_else(|| {
                    Refusal::new(Denial::SignatureClaim, format!("the claim {name} is no hash of a body"))
                })?;
                Some(hash.into())
            }
        };
        let id = match &self.id {
            None => None,
            Some(name) => claims.text(name).map_err(as_signature)?.map(Into::into),
        };
        Ok(VerifiedJwt { body_hash, id, tag: AuthenticationTag::new(&Sha256::digest(token.signed())) })
    }

    fn check_times(&self, claims: &Claims, now: Timestamp) -> Result<(), Refusal> {
        let expires = claims.moment("exp").map_err(as_signature)?;
        if self.expires && expires.is_none() {
            return Err(Refusal::new(Denial::SignatureClaim, "the token has no exp"));
        }
        if expires.is_some_and(|at| now >= at.plus(LEEWAY)) {
            return Err(Refusal::new(Denial::SignatureTooOld, "the token has expired"));
        }
        let issued = claims.moment("iat").map_err(as_signature)?;
        for at in issued.into_iter().chain(claims.moment("nbf").map_err(as_signature)?) {
            if at > now.plus(LEEWAY) {
                return Err(Refusal::new(Denial::SignatureTooNew, "the token is not valid yet"));
            }
        }
        match (self.max_age, issued) {
            (None, _) => Ok(()),
            (Some(_), None) => Err(Refusal::new(Denial::SignatureClaim, "the token has no iat")),
            (Some(age), Some(at)) if at < now.minus(age) => {
                Err(Refusal::new(Denial::SignatureTooOld, "the token was issued too long ago"))
            }
            _ => Ok(()),
        }
    }

    /// A token with which the provider would send this body. Only for schemes whose key is shared.
    pub(in crate::signature) fn sign(
        &self,
        context: &SignatureContext<'_>,
        body: &[u8],
        (keyed, key_id): (&MacKey, Option<&str>),
        id: &str,
    ) -> Option<String> {
        let now = context.now;
        let mut claims = serde_json::Map::new();
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
        let token = format!("{content}.{}", BASE64URL_NOPAD.encode(mac.finish().as_bytes()));
        Some(self.place.write("", &token))
    }
}

impl VerifiedJwt {
    /// Holds the body against the hash, where the token says one.
    pub(in crate::signature) fn verify_body(&self, body: &[u8]) -> Result<Vec<AuthenticationTag>, Refusal> {
        let same = |hash: &[u8]| bool::from(Sha256::digest(body).ct_eq(hash));
        if self.body_hash.as_deref().is_none_or(same) {
            // One token may come with many messages: it tells one from another only if it is about the body.
            return Ok(self.body_hash.iter().map(|_| self.tag).collect());
        }
        Err(Refusal::new(Denial::SignatureMismatch, "the token says another hash than the body's"))
    }
}

/// Whether the token is signed under one of the keys; the name of the key, where it has one.
fn genuine(token: &Unverified<'_>, keys: &JwtKeys<'_>, now: Timestamp) -> Result<Option<Box<str>>, Refusal> {
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
            // One algorithm per key: a key that names one is good for that alone.
            let fits = |alg: Option<&str>| alg.is_none_or(|alg| alg == token.algorithm());
            let mut keys = set.named(token.key_id(), now).filter(|key| fits(key.algorithm())).peekable();
            if keys.peek().is_none() {
                return Err(Refusal::new(
                    Denial::SignatureKeyUnknown,
                    "no key of the provider has this name",
                ));
            }
            let verifies = keys.any(|key| algorithm.verifies(key, token.signed().as_bytes(), &signature));
            if verifies { Ok(None) } else { Err(forged()) }
        }
    }
}

fn check(
    claims: &Claims,
    name: &str,
    expected: &ExpectedClaim,
    key_id: Option<&str>,
    context: &SignatureContext<'_>,
) -> Result<(), Refusal> {
    let right = if name == "aud" {
        let audience = claims.audience().map_err(as_signature)?;
        audience.iter().any(|text| says(expected, text, key_id, context))
    } else if let Some(Value::Bool(value)) = claims.get(name) {
        says(expected, if *value { "true" } else { "false" }, key_id, context)
    } else {
        let text = claims.text(name).map_err(as_signature)?;
        text.is_some_and(|text| says(expected, text, key_id, context))
    };
    if right {
        return Ok(());
    }
    Err(Refusal::new(Denial::SignatureClaim, format!("the claim {name} does not say what it must")))
}

fn says(expected: &ExpectedClaim, text: &str, key_id: Option<&str>, context: &SignatureContext<'_>) -> bool {
    match expected {
        ExpectedClaim::KeyId => key_id == Some(text),
        ExpectedClaim::OneOf(texts) => texts.iter().any(|one| **one == *text),
        ExpectedClaim::Url => text.strip_prefix(context.public_url) == Some(context.head.target),
    }
}

/// The hash in a claim. Base64 comes with its padding and without.
fn hash_of(text: &str, encoding: Encoding) -> Option<Vec<u8>> {
    let hash = match encoding {
        Encoding::Hex => encoding.decode_any(text),
        Encoding::Base64 => data_encoding::BASE64_NOPAD.decode(text.trim_end_matches('=').as_bytes()).ok(),
        Encoding::Base64Url => BASE64URL_NOPAD.decode(text.trim_end_matches('=').as_bytes()).ok(),
    };
    hash.filter(|hash| hash.len() == 32)
}

/// What is wrong with a token that is a signature is said as of a signature.
fn as_signature(refusal: Refusal) -> Refusal {
    let denial = match refusal.denial {
        Denial::TokenMalformed => Denial::SignatureMalformed,
        Denial::TokenClaim => Denial::SignatureClaim,
        _ => Denial::SignatureMismatch,
    };
    Refusal::new(denial, refusal.detail)
}
