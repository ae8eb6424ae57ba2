//! HTTP message signatures (RFC 9421) with Content-Digest (RFC 9530). The scheme determines which components a
//! signature must cover, which keys are accepted, and how long a signature is valid.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};
use sha2::{Digest, Sha256, Sha512};
use subtle::ConstantTimeEq;

use crate::denial::{Denial, Refusal};
use crate::secret::Secret;
use crate::signature::context::SignatureContext;
use crate::signature::keys::{
    AuthenticationTag, KeySet, MacKey, PublicKey, PublicKeyAlgorithm, SignatureAlgorithm,
};
use crate::signature::request_parts::{
    SignatureInput, byte_sequence, byte_sequences, check_tolerance, parse_signature_input, required_header,
};
use crate::time::Timestamp;

const SIGNATURE: HeaderName = HeaderName::from_static("signature");
const SIGNATURE_INPUT: HeaderName = HeaderName::from_static("signature-input");
const CONTENT_DIGEST: HeaderName = HeaderName::from_static("content-digest");

/// The maximum time by which `created` of a message signature may be ahead of Callgate's clock.
const FUTURE: Duration = Duration::from_secs(60);

/// The signature scheme of a provider that sends HTTP message signatures (RFC 9421).
#[derive(Clone, Debug, Default)]
pub struct MessageSignatureScheme {
    /// The accepted algorithms (RFC 9421 section 3.3). If the list contains a MAC algorithm, it must contain no other
    /// algorithm.
    pub algorithms: Vec<SignatureAlgorithm>,
    /// The components of a request that a signature must cover, such as `@method`. A signature may cover more
    /// components.
    pub components: Vec<Box<str>>,
    /// True if `expires` is required. The time in `expires` may be at most `max_age` after `created`.
    pub expires: bool,
    /// The maximum accepted age of a signature, measured from its parameter `created`.
    pub max_age: Duration,
    /// True if the signature must have a `nonce` of at least 16 characters.
    pub nonce: bool,
    /// The accepted purposes of a key (`adcp_use`). If the list is empty, keys need no purpose.
    pub purposes: Vec<Box<str>>,
    /// The required `tag` of the signature. If it is `None`, a signature with any tag or without a tag is accepted.
    pub tag: Option<Box<str>>,
}

/// The result of verifying the signature over a request head. The body must still be compared with the signed digest.
#[derive(Clone, Debug)]
pub(in crate::signature) struct VerifiedMessageSignature {
    digest: Option<HeaderValue>,
    tag: AuthenticationTag,
}

impl MessageSignatureScheme {
    /// Reports whether signatures of this scheme must cover the digest of the body.
    pub fn covers_body(&self) -> bool {
        self.components.iter().any(|name| **name == *CONTENT_DIGEST.as_str())
    }

    /// Returns the longest time for which the same message may be accepted again after its arrival.
    pub(in crate::signature) fn replay_window(&self) -> Duration {
        self.max_age.saturating_add(FUTURE)
    }

    /// Verifies the signature over a request head.
    ///
    /// # Errors
    /// Returns `signature_missing`, `signature_malformed`, `signature_claim`, `signature_mismatch`,
    /// `signature_key_unknown`, `signature_too_old`, `signature_too_new` or `header_duplicated`.
    pub(in crate::signature) fn verify_head(
        &self,
        context: &SignatureContext<'_>,
        keys: &MessageKeys<'_>,
        now: Timestamp,
    ) -> Result<VerifiedMessageSignature, Refusal> {
        let input = text(required_header(&context.head, &SIGNATURE_INPUT)?)?;
        let signatures = text(required_header(&context.head, &SIGNATURE)?)?;
        let inputs = parse_signature_input(input)
            .ok_or_else(|| malformed("the header signature-input is malformed"))?;
        let ours =
            |input: &&SignatureInput<'_>| self.tag.is_none() || input.text("tag") == self.tag.as_deref();
        let mut ours = inputs.iter().filter(ours);
        let input = match (ours.next(), ours.next()) {
            (Some(input), None) => input,
            (None, _) => return Err(claim("no signature has the required `tag`")),
            (Some(_), Some(_)) => return Err(malformed("more than one signature has the required `tag`")),
        };
        let signature = byte_sequence(signatures, input.label).ok_or_else(|| {
            malformed("the header signature is malformed, or has no member with the label of the signature")
        })?;
        self.check(input, now)?;
        let base = signature_base(input, context)?;
        self.check_key(input, keys, base.as_bytes(), &signature, now)?;
        let digest = match self.covers_body() {
            true => Some(required_header(&context.head, &CONTENT_DIGEST)?.clone()),
            false => None,
        };
        Ok(VerifiedMessageSignature { digest, tag: AuthenticationTag::new(&Sha256::digest(base.as_bytes())) })
    }

    fn check(&self, input: &SignatureInput<'_>, now: Timestamp) -> Result<(), Refusal> {
        for name in &self.components {
            if !input.components.iter().any(|component| **component == **name) {
                return Err(claim(format!("the signature does not cover {name}")));
            }
        }
        let moment = |name: &'static str| input.integer(name).map(Timestamp::from_unix_secs);
        let created = moment("created").ok_or_else(|| malformed("the signature has no `created`"))?;
        check_tolerance(created, now, self.max_age, FUTURE)?;
        let expires = moment("expires");
        if self.expires && expires.is_none() {
            return Err(malformed("the signature has no `expires`"));
        }
        if let Some(expires) = expires {
            if expires <= created || expires > created.plus(self.max_age) {
                return Err(claim("`expires` is not after `created`, or is too long after it"));
            }
            if now > expires {
                return Err(Refusal::new(Denial::SignatureTooOld, "the signature has expired"));
            }
        }
        if self.nonce && input.text("nonce").is_none_or(|nonce| nonce.len() < 16) {
            return Err(malformed("the signature has no `nonce` of at least 16 characters"));
        }
        Ok(())
    }

    /// Checks that a key of the provider made the signature. The parameter `keyid` of the signature names the key.
    fn check_key(
        &self,
        input: &SignatureInput<'_>,
        keys: &MessageKeys<'_>,
        base: &[u8],
        signature: &[u8],
        now: Timestamp,
    ) -> Result<(), Refusal> {
        let stated = input.text("alg");
        let fits =
            |algorithm: &&SignatureAlgorithm| stated.is_none_or(|name| name == registered_name(**algorithm));
        let algorithms: Vec<_> = self.algorithms.iter().filter(fits).copied().collect();
        if algorithms.is_empty() {
            return Err(claim("the provider does not use the signature's `alg`"));
        }
        let made = match keys {
            MessageKeys::Shared(keys) => keys.iter().any(|(keyed, _)| {
                let mut mac = keyed.start();
                mac.update(base);
                mac.finish().as_bytes().ct_eq(signature).into()
            }),
            MessageKeys::Public(set) => {
                let may = |purpose: Option<&str>| {
                    let ours = |p: &str| self.purposes.iter().any(|ours| **ours == *p);
                    self.purposes.is_empty() || purpose.is_some_and(ours)
                };
                let unknown = |detail| Err(Refusal::new(Denial::SignatureKeyUnknown, detail));
                let named: Vec<_> = set.named(input.text("keyid"), now).collect();
                if named.is_empty() {
                    return unknown("the provider has no key with this id");
                }
                let keys: Vec<_> = named.into_iter().filter(|key| may(key.purpose())).collect();
                if keys.is_empty() {
                    return unknown("the key has another purpose");
                }
                let verifies = |key: &&PublicKey| {
                    algorithms.iter().any(|algorithm| match algorithm {
                        SignatureAlgorithm::Public(public) => public.verifies(key, base, signature),
                        SignatureAlgorithm::Mac(_) => false,
                    })
                };
                keys.iter().any(verifies)
            }
        };
        if made {
            return Ok(());
        }
        Err(Refusal::new(Denial::SignatureMismatch, "no key of the provider verifies the signature"))
    }
}

/// The keys with which HTTP message signatures are verified.
pub(in crate::signature) enum MessageKeys<'k> {
    /// Public keys of the provider.
    Public(&'k KeySet),
    /// MAC keys, each with the shared secret from which it was computed.
    Shared(&'k [(MacKey, Secret)]),
}

/// Returns the registered name of an algorithm for HTTP message signatures (RFC 9421 section 6.2).
fn registered_name(algorithm: SignatureAlgorithm) -> &'static str {
    match algorithm {
        SignatureAlgorithm::Public(PublicKeyAlgorithm::RsaPkcs1Sha256) => "rsa-v1_5-sha256",
        SignatureAlgorithm::Public(algorithm) => algorithm.name(),
        SignatureAlgorithm::Mac(algorithm) => algorithm.name(),
    }
}

impl VerifiedMessageSignature {
    /// Compares the body with every SHA-256 and SHA-512 digest in the signed header Content-Digest. Returns the tag of
    /// the message, or no tag if the signature does not cover the body.
    ///
    /// # Errors
    /// Returns `signature_mismatch` if a digest differs, and `signature_malformed` if the header has no such digest.
    pub(in crate::signature) fn verify_body(&self, body: &[u8]) -> Result<Vec<AuthenticationTag>, Refusal> {
        let Some(digest) = &self.digest else { return Ok(Vec::new()) };
        let members = byte_sequences(text(digest)?)
            .ok_or_else(|| malformed("the header content-digest is malformed"))?;
        let mut known = 0;
        for (name, bytes) in &members {
            let same: bool = match *name {
                "sha-256" => Sha256::digest(body).ct_eq(bytes).into(),
                "sha-512" => Sha512::digest(body).ct_eq(bytes).into(),
                _ => continue,
            };
            known += 1;
            if !same {
                return Err(Refusal::new(
                    Denial::SignatureMismatch,
                    "content-digest does not match the body",
                ));
            }
        }
        if known == 0 {
            return Err(malformed("content-digest has neither a sha-256 nor a sha-512 digest"));
        }
        Ok(vec![self.tag])
    }
}

/// Returns the signature base, which is the signed text (RFC 9421 section 2.5).
fn signature_base(input: &SignatureInput<'_>, context: &SignatureContext<'_>) -> Result<String, Refusal> {
    let mut base = String::new();
    for (i, component) in input.components.iter().enumerate() {
        if input.components.iter().take(i).any(|earlier| earlier == component) {
            return Err(malformed("the signature lists a component twice"));
        }
        base.push_str(&format!("\"{component}\": {}\n", component_value(component, context)?));
    }
    base.push_str("\"@signature-params\": ");
    base.push_str(input.raw);
    Ok(base)
}

fn component_value(component: &str, context: &SignatureContext<'_>) -> Result<String, Refusal> {
    let head = &context.head;
    Ok(match component {
        "@method" => head.method.to_owned(),
        "@authority" => authority(context.public_url),
        "@scheme" => context.public_url.split("://").next().unwrap_or_default().to_ascii_lowercase(),
        "@target-uri" => target_uri(context),
        "@request-target" => head.target.to_owned(),
        "@path" => head.raw_path().to_owned(),
        "@query" => format!("?{}", head.raw_query().unwrap_or_default()),
        _ if component.starts_with('@') => {
            return Err(malformed("the signature covers an unknown derived component"));
        }
        name => header_value(head.headers, name)?,
    })
}

fn header_value(headers: &HeaderMap, name: &str) -> Result<String, Refusal> {
    let missing = || Refusal::new(Denial::SignatureMissing, "a header that the signature covers is missing");
    let name = HeaderName::from_lowercase(name.as_bytes())
        .map_err(|_| malformed("a component of the signature is not a header name"))?;
    let mut values = headers.get_all(&name).iter();
    let value = values.next().ok_or_else(missing)?;
    if values.next().is_some() {
        return Err(Refusal::new(Denial::HeaderDuplicated, format!("{name} occurs more than once")));
    }
    Ok(text(value)?.trim_matches([' ', '\t']).to_owned())
}

/// Returns the host and the port of a URL in lower case, without the default port of the scheme.
fn authority(public_url: &str) -> String {
    let (scheme, rest) = public_url.split_once("://").unwrap_or(("https", public_url));
    let authority = rest.split('/').next().unwrap_or_default().to_ascii_lowercase();
    let default = if scheme.eq_ignore_ascii_case("http") { ":80" } else { ":443" };
    authority.strip_suffix(default).map_or_else(|| authority.clone(), str::to_owned)
}

fn target_uri(context: &SignatureContext<'_>) -> String {
    let (scheme, rest) = context.public_url.split_once("://").unwrap_or(("https", context.public_url));
    let path = rest.find('/').and_then(|at| rest.get(at..)).unwrap_or_default();
    let target = uppercase_escapes(context.head.target);
    format!("{}://{}{path}{target}", scheme.to_ascii_lowercase(), authority(context.public_url))
}

/// Changes the hexadecimal digits of percent-encodings in a URL to upper case (RFC 3986 section 6.2.2.1).
fn uppercase_escapes(target: &str) -> String {
    let mut digits = 0;
    let upper = |c: char| {
        let within = digits > 0;
        digits = if c == '%' { 2 } else { u32::saturating_sub(digits, 1) };
        if within { c.to_ascii_uppercase() } else { c }
    };
    target.chars().map(upper).collect()
}

/// Returns a header value as text. Returns an error if the value contains bytes that are not visible ASCII.
fn text(value: &HeaderValue) -> Result<&str, Refusal> {
    value
        .to_str()
        .map_err(|_| malformed("a header that the signature uses contains bytes that are not visible ASCII"))
}

fn malformed(detail: &'static str) -> Refusal {
    Refusal::new(Denial::SignatureMalformed, detail)
}

fn claim(detail: impl Into<std::borrow::Cow<'static, str>>) -> Refusal {
    Refusal::new(Denial::SignatureClaim, detail)
}

#[cfg(test)]
#[path = "http_message_signatures_tests.rs"]
mod tests;
