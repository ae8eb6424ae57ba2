//! HTTP Message Signatures (RFC 9421) with Content-Digest (RFC 9530): which components a signature must cover, whose
//! it must be and how long it is good for is the scheme's to say.

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

/// How far `created` may lie ahead.
const FUTURE: Duration = Duration::from_secs(60);

/// How a provider puts message signatures to use.
#[derive(Clone, Debug, Default)]
pub struct MessageSignatureScheme {
    /// The algorithms it may sign with (RFC 9421 section 3.3). The one with a shared key stands alone.
    pub algorithms: Vec<SignatureAlgorithm>,
    /// What a signature must cover at least.
    pub components: Vec<Box<str>>,
    /// Whether `expires` must be there, at most `max_age` behind `created`.
    pub expires: bool,
    /// How old `created` may be.
    pub max_age: Duration,
    /// Whether a `nonce` must be there.
    pub nonce: bool,
    /// What the key must say it is for; empty: it need not say.
    pub purposes: Vec<Box<str>>,
    /// The `tag` that the signature must have; `None`: any.
    pub tag: Option<Box<str>>,
}

/// A signature that was found genuine: what is left is to hold the body against its digest.
#[derive(Clone, Debug)]
pub(in crate::signature) struct VerifiedMessageSignature {
    digest: Option<HeaderValue>,
    tag: AuthenticationTag,
}

impl MessageSignatureScheme {
    /// Whether the body is bound, by its digest.
    pub fn covers_body(&self) -> bool {
        self.components.iter().any(|name| **name == *CONTENT_DIGEST.as_str())
    }

    /// Verifies the signature of a head.
    pub(in crate::signature) fn verify_head(
        &self,
        context: &SignatureContext<'_>,
        keys: &MessageKeys<'_>,
        now: Timestamp,
    ) -> Result<VerifiedMessageSignature, Refusal> {
        let input = text(required_header(&context.head, &SIGNATURE_INPUT)?)?;
        let signatures = text(required_header(&context.head, &SIGNATURE)?)?;
        let inputs =
            parse_signature_input(input).ok_or_else(|| malformed("signature-input is not readable"))?;
        let ours =
            |input: &&SignatureInput<'_>| self.tag.is_none() || input.text("tag") == self.tag.as_deref();
        let mut ours = inputs.iter().filter(ours);
        let input = match (ours.next(), ours.next()) {
            (Some(input), None) => input,
            (None, _) => return Err(claim("no signature has the tag it must have")),
            (Some(_), Some(_)) => return Err(malformed("more than one signature could be meant")),
        };
        let signature = byte_sequence(signatures, input.label)
            .ok_or_else(|| malformed("the signature is not readable"))?;
        self.check(input, now)?;
        let base = base(input, context)?;
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
                return Err(claim("the signature is good for longer than it may be, or not at all"));
            }
            if now > expires {
                return Err(Refusal::new(Denial::SignatureTooOld, "the signature has expired"));
            }
        }
        if self.nonce && input.text("nonce").is_none_or(|nonce| nonce.len() < 16) {
            return Err(malformed("the signature has no `nonce` of 16 characters or more"));
        }
        Ok(())
    }

    /// Whether a key of the provider with the name that is given made the signature.
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
            return Err(claim("the signature's alg is not one of the provider's"));
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
                    return unknown("no key of the provider has this name");
                }
                let keys: Vec<_> = named.into_iter().filter(|key| may(key.purpose())).collect();
                if keys.is_empty() {
                    return unknown("the key is for another purpose");
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
        Err(Refusal::new(
            Denial::SignatureMismatch,
            "the signature does not verify under the provider's keys",
        ))
    }
}

/// The keys of a message signature.
pub(in crate::signature) enum MessageKeys<'k> {
    /// Public ones.
    Public(&'k KeySet),
    /// Shared ones.
    Shared(&'k [(MacKey, Secret)]),
}

/// The name in RFC 9421's registry.
fn registered_name(algorithm: SignatureAlgorithm) -> &'static str {
    match algorithm {
        SignatureAlgorithm::Public(PublicKeyAlgorithm::RsaPkcs1Sha256) => "rsa-v1_5-sha256",
        SignatureAlgorithm::Public(algorithm) => algorithm.name(),
        SignatureAlgorithm::Mac(algorithm) => algorithm.name(),
    }
}

impl VerifiedMessageSignature {
    /// Holds the body against its digest.
    pub(in crate::signature) fn verify_body(&self, body: &[u8]) -> Result<Vec<AuthenticationTag>, Refusal> {
        let Some(digest) = &self.digest else { return Ok(Vec::new()) };
        let members =
            byte_sequences(text(digest)?).ok_or_else(|| malformed("content-digest is not readable"))?;
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
                    "content-digest is not that of the body",
                ));
            }
        }
        if known == 0 {
            return Err(malformed("content-digest has neither sha-256 nor sha-512"));
        }
        Ok(vec![self.tag])
    }
}

/// The signature base (RFC 9421 section 2.5).
fn base(input: &SignatureInput<'_>, context: &SignatureContext<'_>) -> Result<String, Refusal> {
    let mut base = String::new();
    for (i, component) in input.components.iter().enumerate() {
        if input.components.iter().take(i).any(|earlier| earlier == component) {
            return Err(malformed("a component is listed twice"));
        }
        base.push_str(&format!("\"{component}\": {}\n", value(component, context)?));
    }
    base.push_str("\"@signature-params\": ");
    base.push_str(input.raw);
    Ok(base)
}

fn value(component: &str, context: &SignatureContext<'_>) -> Result<String, Refusal> {
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
            return Err(malformed("a derived component that requests do not have"));
        }
        name => header(head.headers, name)?,
    })
}

fn header(headers: &HeaderMap, name: &str) -> Result<String, Refusal> {
    let missing = || Refusal::new(Denial::SignatureMissing, "a header that is said to be signed is missing");
    let name = HeaderName::from_lowercase(name.as_bytes()).map_err(|_| malformed("no name of a header"))?;
    let mut values = headers.get_all(&name).iter();
    let value = values.next().ok_or_else(missing)?;
    if values.next().is_some() {
        return Err(Refusal::new(Denial::HeaderDuplicated, format!("{name} occurs more than once")));
    }
    Ok(text(value)?.trim_matches([' ', '\t']).to_owned())
}

/// Host and port in lower case, the port left out where it is the scheme's.
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

/// Percent-encoding in upper case (RFC 3986 section 6.2.2.1).
fn uppercase_escapes(target: &str) -> String {
    let mut digits = 0;
    let upper = |c: char| {
        let within = digits > 0;
        digits = if c == '%' { 2 } else { u32::saturating_sub(digits, 1) };
        if within { c.to_ascii_uppercase() } else { c }
    };
    target.chars().map(upper).collect()
}

/// A header that takes part, as text.
fn text(value: &HeaderValue) -> Result<&str, Refusal> {
    value.to_str().map_err(|_| malformed("a header that is said to be signed is not visible ASCII"))
}

fn malformed(detail: &'static str) -> Refusal {
    Refusal::new(Denial::SignatureMalformed, detail)
}

fn claim(detail: impl Into<std::borrow::Cow<'static, str>>) -> Refusal {
    Refusal::new(Denial::SignatureClaim, detail)
}
