//! Reads three kinds of signature schemes: shared tokens, JWTs and HTTP message signatures. These kinds have no
//! `content`.

use std::time::Duration;

use super::place::{ENCODINGS, PUBLIC, TOLERANCE_DEFAULT, place};
use crate::config::yaml::{Cursor, Fields};
use crate::signature::{
    Encoding, ExpectedClaim, JwtPlace, JwtScheme, MacAlgorithm, MessageSignatureScheme, PublicKeyAlgorithm,
    SharedSecretPlace, SignatureAlgorithm,
};

/// The default leeway for the times in a JWT: the accepted difference between the provider's clock and Callgate's.
const LEEWAY_DEFAULT: Duration = Duration::from_secs(60);

/// The maximum leeway for the times in a JWT.
const LEEWAY_MAX: Duration = Duration::from_secs(300);

const JOSE: &[(&str, &str)] = &[
    ("ES256", "ES256"),
    ("ES384", "ES384"),
    ("EdDSA", "EdDSA"),
    ("HS256", "HS256"),
    ("HS384", "HS384"),
    ("HS512", "HS512"),
    ("PS256", "PS256"),
    ("RS256", "RS256"),
    ("RS384", "RS384"),
    ("RS512", "RS512"),
];

pub(super) fn token(fields: &mut Fields<'_>) -> Option<SharedSecretPlace> {
    if let Some(at) = fields.optional("signature_at")
        && let Some(mut inner) = at.fields()
        && inner.has("each")
    {
        let list = inner.required("each").and_then(|at| at.pointer());
        let member = inner.required("member").and_then(|at| at.pointer());
        inner.finish();
        return Some(SharedSecretPlace::Each { list: list?, member: member? });
    }
    place(fields).map(SharedSecretPlace::At)
}

pub(super) fn message(fields: &mut Fields<'_>) -> Option<MessageSignatureScheme> {
    let texts = |at: &Cursor<'_>| -> Option<Vec<Box<str>>> {
        at.list_or_one()?.iter().map(|at| at.text().map(Into::into)).collect()
    };
    let components = fields.required("components").and_then(|at| texts(&at));
    let algorithms = fields.required("algorithm").and_then(|at| {
        let cipher = |at: &Cursor<'_>| {
            if at.is_word("hmac-sha256") {
                return Some(SignatureAlgorithm::Mac(MacAlgorithm::HmacSha256));
            }
            Some(SignatureAlgorithm::Public(match at.one_of(PUBLIC)? {
                PublicKeyAlgorithm::EcdsaP256Der => PublicKeyAlgorithm::EcdsaP256Fixed,
                PublicKeyAlgorithm::EcdsaP384Der => PublicKeyAlgorithm::EcdsaP384Fixed,
                other => other,
            }))
        };
        let ciphers = at.list_or_one()?.iter().map(cipher).collect::<Option<Vec<_>>>()?;
        if ciphers.len() > 1 && ciphers.iter().any(|cipher| matches!(cipher, SignatureAlgorithm::Mac(_))) {
            return at.error("hmac-sha256 cannot be combined with other algorithms", "keep one of them");
        }
        Some(ciphers)
    });
    let tag = fields.optional("tag").map(|at| at.text());
    let max_age = fields.optional("max_age").map_or(Some(TOLERANCE_DEFAULT), |at| at.duration());
    let expires = fields.optional("expires").map_or(Some(false), |at| required_or_optional(&at));
    let nonce = fields.optional("nonce").map_or(Some(false), |at| at.boolean());
    let digest = fields.optional("digest").map_or(Some(false), |at| at.boolean());
    let purposes = fields.optional("purpose").map_or(Some(Vec::new()), |at| texts(&at));
    let components = components?;
    if digest? && !components.iter().any(|name| **name == *"content-digest") {
        return fields
            .at()
            .error("`digest` needs a signed content-digest", "add content-digest to `components`");
    }
    Some(MessageSignatureScheme {
        algorithms: algorithms?,
        components,
        expires: expires?,
        max_age: max_age?,
        nonce: nonce?,
        purposes: purposes?,
        tag: tag.map_or(Some(None), |read| read.map(|tag| Some(tag.into())))?,
    })
}

fn required_or_optional(at: &Cursor<'_>) -> Option<bool> {
    at.one_of(&[("optional", false), ("required", true)])
}

pub(super) fn jwt(fields: &mut Fields<'_>) -> Option<JwtScheme> {
    let place = jwt_place(fields);
    let algorithms = fields.required("algorithm").and_then(|at| {
        at.list_or_one()?.iter().map(|at| at.one_of(JOSE).map(Into::into)).collect::<Option<Vec<Box<str>>>>()
    });
    let mut claims = Vec::new();
    let mut good = true;
    for (key, name) in [("issuer", "iss"), ("audience", "aud"), ("subject", "sub")] {
        if let Some(at) = fields.optional(key) {
            match expected(&at) {
                Some(value) => claims.push((name.into(), value)),
                None => good = false,
            }
        }
    }
    let body_hash = fields.optional("body_hash").map(|at| {
        let mut inner = at.fields()?;
        let claim = inner.required("claim").and_then(|at| at.text());
        let encoding = inner.required("encoding").and_then(|at| at.one_of(ENCODINGS));
        inner.finish();
        Some((claim?.into(), encoding?))
    });
    let max_age = fields.optional("max_age").map(|at| at.duration());
    let expires = fields.optional("expires").map_or(Some(true), |at| required_or_optional(&at));
    let leeway = fields.optional("leeway").map_or(Some(LEEWAY_DEFAULT), |at| leeway_of(&at));
    good.then_some(())?;
    let body_hash: Option<(Box<str>, Encoding)> = body_hash.map_or(Some(None), |read| read.map(Some))?;
    let algorithms = algorithms?;
    let shared = |name: &str| name.starts_with("HS");
    if algorithms.iter().any(|name| shared(name)) && algorithms.len() > 1 {
        return fields
            .at()
            .error("an HS algorithm cannot be combined with other algorithms", "keep one of them");
    }
    Some(JwtScheme {
        place: place?,
        algorithms,
        claims,
        body_hash,
        max_age: max_age.map_or(Some(None), |read| read.map(Some))?,
        expires: expires?,
        leeway: leeway?,
        id: None,
    })
}

/// Reads `leeway`, the accepted clock difference for the times in a JWT. The setting is a field of a signature scheme,
/// or a field of a provider with a preset.
pub(super) fn leeway_of(at: &Cursor<'_>) -> Option<Duration> {
    match at.duration_or_zero()? {
        leeway if leeway > LEEWAY_MAX => at.error("must be at most 5m", ""),
        leeway => Some(leeway),
    }
}

/// Reads the location of a JWT. With `signature_at: body`, the whole body is the JWT. Otherwise the location has the
/// same settings as the location of a signature.
fn jwt_place(fields: &mut Fields<'_>) -> Option<JwtPlace> {
    match fields.optional("signature_at").filter(|at| at.is_word("body")) {
        None => place(fields).map(JwtPlace::At),
        Some(_) => {
            for key in ["header", "format", "separator"] {
                if let Some(at) = fields.optional(key) {
                    return at.error("the token is the whole body, so it is in no header", "remove it");
                }
            }
            Some(JwtPlace::WholeBody)
        }
    }
}

/// Reads which value a JWT claim must have: the word `url` (the URL that the provider called, with its query), the word
/// `key-id` (the id of the key that verified the token), or one or more accepted texts.
fn expected(at: &Cursor<'_>) -> Option<ExpectedClaim> {
    let list = at.list_or_one()?;
    let texts = list.iter().map(|at| at.text()).collect::<Option<Vec<_>>>()?;
    Some(match texts.as_slice() {
        ["url"] => ExpectedClaim::Url,
        ["key-id"] => ExpectedClaim::KeyId,
        _ => ExpectedClaim::OneOf(texts.into_iter().map(Into::into).collect()),
    })
}
