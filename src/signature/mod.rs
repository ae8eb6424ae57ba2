//! Provider signatures: a scheme is data, and verifying is the same few lines for every scheme.
//!
//! A scheme says which header carries the signature and in which grammar ([`Format`]), which bytes are under
//! the MAC ([`Content`]), how it is encoded, and where timestamp and id come from. Verification has two
//! halves: [`Verifier::present`] needs the head alone and refuses what is missing, unreadable or stale
//! before a byte of body is read; [`Verifier::verify`] runs the MAC over the raw bytes.

mod content;
mod format;
mod id;
mod mac;

use std::time::Duration;

use http::{HeaderName, HeaderValue};

use crate::denial::{Denial, Refusal};
use crate::request::{RequestHead, Single};
use crate::secret::Secret;
use crate::time::Timestamp;

pub use content::{Content, ContentFault, Part};
pub use format::{Format, FormatFault};
pub use id::IdSource;
pub use mac::{Algorithm, Encoding, KeyFault, KeyForm, Tag};

use format::Slice;
use mac::Keyed;

/// Longest header that takes part in a signature, in bytes.
const HEADER_BYTES_MAX: usize = 8 * 1024;
/// Most signatures looked at in one header: rotation needs two, an attacker would like thousands.
const SIGNATURES_MAX: usize = 16;

/// How a timestamp is written.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum TimestampUnit {
    /// RFC 3339.
    Rfc3339,
    /// Unix milliseconds, decimal.
    UnixMilliseconds,
    /// Unix seconds, decimal.
    UnixSeconds,
}

/// Where the timestamp comes from.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum TimestampSource {
    /// A header of its own.
    Header(HeaderName),
    /// The `{timestamp}` field of the signature header.
    SignatureHeader,
}

/// The timestamp of a scheme, and how far it may be off.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct TimestampRule {
    /// Where it comes from.
    pub source: TimestampSource,
    /// How it is written.
    pub unit: TimestampUnit,
    /// Allowed age; exactly this old still passes.
    pub past: Duration,
    /// Allowed lead; exactly this far ahead still passes.
    pub future: Duration,
}

/// How a provider signs: the whole of it, as data.
#[derive(Clone, Debug)]
pub struct Scheme {
    /// The MAC.
    pub algorithm: Algorithm,
    /// The bytes under the MAC.
    pub content: Content,
    /// How the signature is written.
    pub encoding: Encoding,
    /// The grammar of the signature header.
    pub format: Format,
    /// The signature header and its alternatives; signatures are collected from all that are there.
    pub headers: Vec<HeaderName>,
    /// Where the id of the event is, where the provider sends one.
    pub id: Option<IdSource>,
    /// How the secret's text becomes a key.
    pub key_form: KeyForm,
    /// The timestamp, where the provider sends one.
    pub timestamp: Option<TimestampRule>,
}

/// What is signed besides the head: given to both halves of [`Verifier`].
#[derive(Clone, Copy, Debug)]
pub struct Signed<'a> {
    /// The head, as received.
    pub head: RequestHead<'a>,
    /// What every external URL begins with: `{url}` is this and the raw target.
    pub public_url: &'a str,
}

/// The signature fields of one request, read once.
#[derive(Clone, Debug)]
pub struct Presented {
    signatures: Vec<Tag>,
    timestamp: Option<Slice>,
    id: Option<HeaderValue>,
}

impl Presented {
    /// The id of the event, where it is in a header.
    pub fn event_id(&self) -> Option<&HeaderValue> {
        self.id.as_ref()
    }
}

/// A scheme with its keys.
#[derive(Clone)]
pub struct Verifier {
    scheme: Scheme,
    keys: Vec<Keyed>,
}

/// Prints the scheme, not the keys.
impl std::fmt::Debug for Verifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Verifier({} keys, {:?})", self.keys.len(), self.scheme)
    }
}

impl Verifier {
    /// Prepares every secret for the scheme; any of them verifies, the first one signs.
    ///
    /// # Errors
    /// [`KeyFault`] and the index of the secret that is not in the scheme's key form.
    pub fn new(scheme: Scheme, secrets: &[Secret]) -> Result<Self, (usize, KeyFault)> {
        let keys = secrets
            .iter()
            .enumerate()
            .map(|(i, secret)| {
                Keyed::new(scheme.algorithm, &scheme.key_form, secret).map_err(|fault| (i, fault))
            })
            .collect::<Result<_, _>>()?;
        Ok(Self { scheme, keys })
    }

    /// The scheme.
    pub fn scheme(&self) -> &Scheme {
        &self.scheme
    }

    /// How many secrets verify.
    pub fn keys_count(&self) -> usize {
        self.keys.len()
    }

    /// The first half: reads the signature fields and holds the timestamp against `now`.
    ///
    /// # Errors
    /// `signature_missing`, `signature_malformed`, `signature_too_old`, `signature_too_new`,
    /// `header_duplicated`.
    pub fn present(&self, head: &RequestHead<'_>, now: Timestamp) -> Result<Presented, Refusal> {
        let scheme = &self.scheme;
        let mut signatures = Vec::new();
        let mut timestamp = None;
        let mut found = false;
        for name in &scheme.headers {
            let Some(value) = optional(head, name)? else { continue };
            found = true;
            let fields = scheme.format.read(value, scheme.encoding, scheme.algorithm)?;
            signatures.extend(fields.signatures);
            timestamp = fields.timestamp.or(timestamp);
        }
        let first = scheme.headers.first().map_or("", HeaderName::as_str);
        if !found {
            return Err(Refusal::new(Denial::SignatureMissing, format!("no {first} header")));
        }
        if signatures.is_empty() || signatures.len() > SIGNATURES_MAX {
            let detail = format!("{first} holds {} readable signatures", signatures.len());
            return Err(Refusal::new(Denial::SignatureMalformed, detail));
        }
        if let Some(rule) = &scheme.timestamp {
            let text = match &rule.source {
                TimestampSource::SignatureHeader => timestamp.ok_or_else(|| {
                    Refusal::new(Denial::SignatureMalformed, format!("{first} holds no timestamp"))
                })?,
                TimestampSource::Header(name) => Slice::whole(required(head, name)?),
            };
            rule.check(text.as_str(), now)?;
            timestamp = Some(text);
        }
        // A signed header that came twice would be verified once and delivered twice.
        for name in scheme.content.headers() {
            required(head, name)?;
        }
        let id = match scheme.id.as_ref().and_then(IdSource::header) {
            Some(name) if scheme.content.uses_id() => Some(required(head, name)?.clone()),
            Some(name) => optional(head, name)?.cloned(),
            None => None,
        };
        self.check_id(id.as_ref())?;
        Ok(Presented { signatures, timestamp, id })
    }

    /// An id must not contain what follows it in the signed content, or a signature for one pair of id and
    /// timestamp would also be one for another split of the same bytes.
    fn check_id(&self, id: Option<&HeaderValue>) -> Result<(), Refusal> {
        let Some(id) = id else { return Ok(()) };
        let visible = !id.is_empty() && id.as_bytes().iter().all(u8::is_ascii_graphic);
        let splits = self.scheme.content.after_id().is_some_and(|byte| id.as_bytes().contains(&byte));
        if visible && !splits && id.len() <= 256 {
            return Ok(());
        }
        Err(Refusal::new(Denial::SignatureMalformed, "the event id has a character that ids may not have"))
    }

    /// Whether the id of the event is under the signature, so that nobody can change it.
    pub fn signs_id(&self) -> bool {
        match &self.scheme.id {
            None => false,
            Some(IdSource::Body(_)) => true,
            Some(IdSource::Header(name)) => {
                self.scheme.content.uses_id() || self.scheme.content.headers().any(|header| header == name)
            }
        }
    }

    /// The second half: the MAC over the raw bytes, under any of the keys, against any of the signatures.
    ///
    /// Returns the MACs under the keys that were tried, the one that matched last. They tell one message from another:
    /// a caller who takes one of two signatures away, or a new key in front of the old one, leaves one of them as it
    /// was.
    ///
    /// # Errors
    /// `signature_mismatch`.
    pub fn verify(
        &self,
        presented: &Presented,
        signed: &Signed<'_>,
        body: &[u8],
    ) -> Result<Vec<Tag>, Refusal> {
        // Which secret matches is no secret; how far a comparison got would be.
        let mut tags = Vec::with_capacity(self.keys.len());
        let matched = self.keys.iter().any(|key| {
            let tag = self.tag(key, presented, signed, body);
            tags.push(tag);
            presented.signatures.iter().any(|signature| tag.matches(signature))
        });
        if matched {
            return Ok(tags);
        }
        let detail = format!(
            "none of {} signatures matches under {} secrets over {} body bytes",
            presented.signatures.len(),
            self.keys.len(),
            body.len()
        );
        Err(Refusal::new(Denial::SignatureMismatch, detail))
    }

    fn tag(&self, key: &Keyed, presented: &Presented, signed: &Signed<'_>, body: &[u8]) -> Tag {
        let mut mac = key.start();
        for part in self.scheme.content.parts() {
            match part {
                Part::Literal(text) => mac.update(text.as_bytes()),
                Part::Body => mac.update(body),
                Part::Timestamp => mac.update(presented.timestamp.as_ref().map_or(b"", Slice::as_bytes)),
                Part::Id => mac.update(presented.id.as_ref().map_or(b"", HeaderValue::as_bytes)),
                Part::Method => mac.update(signed.head.method.as_bytes()),
                Part::Url => {
                    mac.update(signed.public_url.as_bytes());
                    mac.update(signed.head.target.as_bytes());
                }
                Part::Header(name) => {
                    mac.update(signed.head.headers.get(name).map_or(b"", HeaderValue::as_bytes));
                }
            }
        }
        mac.finish()
    }

    /// The headers with which the provider would send this request: the exact inverse of verifying, under
    /// the first secret. `None` without a secret, or when `id` is none that verifies.
    pub fn sign(
        &self,
        signed: &Signed<'_>,
        body: &[u8],
        id: &str,
        at: Timestamp,
    ) -> Option<Vec<(HeaderName, HeaderValue)>> {
        let scheme = &self.scheme;
        let mut headers = Vec::new();
        let timestamp = match &scheme.timestamp {
            None => None,
            Some(rule) => {
                let text = HeaderValue::from_str(&rule.unit.write(at)).ok()?;
                if let TimestampSource::Header(name) = &rule.source {
                    headers.push((name.clone(), text.clone()));
                }
                Some(Slice::whole(&text))
            }
        };
        let id = match scheme.id.as_ref().and_then(IdSource::header) {
            None => None,
            Some(name) => {
                let id = HeaderValue::from_str(id).ok()?;
                self.check_id(Some(&id)).ok()?;
                headers.push((name.clone(), id.clone()));
                Some(id)
            }
        };
        let presented = Presented { signatures: Vec::new(), timestamp, id };
        let tag = self.tag(self.keys.first()?, &presented, signed, body);
        let timestamp = presented.timestamp.as_ref().map_or("", Slice::as_str);
        let value = scheme.format.write(timestamp, &scheme.encoding.encode(&tag));
        headers.push((scheme.headers.first()?.clone(), HeaderValue::from_str(&value).ok()?));
        Some(headers)
    }
}

impl TimestampRule {
    fn check(&self, text: &str, now: Timestamp) -> Result<(), Refusal> {
        let at = self.unit.read(text).ok_or_else(|| {
            Refusal::new(Denial::SignatureMalformed, "the timestamp is not in the scheme's form")
        })?;
        let seconds = (now.unix_ms() - at.unix_ms()) as f64 / 1000.0;
        if at < now.minus(self.past) {
            let detail = format!("signed {seconds} s ago, tolerance {} s", self.past.as_secs());
            return Err(Refusal::new(Denial::SignatureTooOld, detail));
        }
        if at > now.plus(self.future) {
            let detail = format!("signed {} s ahead, tolerance {} s", -seconds, self.future.as_secs());
            return Err(Refusal::new(Denial::SignatureTooNew, detail));
        }
        Ok(())
    }
}

impl TimestampUnit {
    /// As the configuration writes it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Rfc3339 => "rfc3339",
            Self::UnixMilliseconds => "ms",
            Self::UnixSeconds => "s",
        }
    }

    /// Digits only, at most thirteen of them: no sign, no fraction, no tail.
    fn read(self, text: &str) -> Option<Timestamp> {
        let decimal = || {
            let digits = (1..=13).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
            digits.then(|| text.parse::<i64>().ok()).flatten()
        };
        match self {
            Self::Rfc3339 if text.contains('T') => Timestamp::parse(text),
            Self::Rfc3339 => None,
            Self::UnixMilliseconds => decimal().map(Timestamp::from_unix_ms),
            Self::UnixSeconds => decimal().map(Timestamp::from_unix_secs),
        }
    }

    fn write(self, at: Timestamp) -> String {
        match self {
            Self::Rfc3339 => at.to_string(),
            Self::UnixMilliseconds => at.unix_ms().to_string(),
            Self::UnixSeconds => at.unix_secs().to_string(),
        }
    }
}

fn optional<'a>(head: &RequestHead<'a>, name: &HeaderName) -> Result<Option<&'a HeaderValue>, Refusal> {
    match head.single(name) {
        Single::Missing => Ok(None),
        Single::One(value) if value.len() <= HEADER_BYTES_MAX => Ok(Some(value)),
        Single::One(_) => {
            Err(Refusal::new(Denial::SignatureMalformed, format!("{name} is longer than 8 KiB")))
        }
        Single::Several => {
            Err(Refusal::new(Denial::HeaderDuplicated, format!("{name} occurs more than once")))
        }
    }
}

fn required<'a>(head: &RequestHead<'a>, name: &HeaderName) -> Result<&'a HeaderValue, Refusal> {
    optional(head, name)?.ok_or_else(|| Refusal::new(Denial::SignatureMissing, format!("no {name} header")))
}

#[cfg(test)]
mod tests;
