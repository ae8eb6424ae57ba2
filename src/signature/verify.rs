//! Verifying: what the head shows, and what the body says.

use std::borrow::Cow;

use http::HeaderValue;
use sha2::{Digest, Sha256};

use super::content::{self, Values};
use super::form;
use super::format::Slice;
use super::jwt::{JwtKeys, Statement};
use super::mac::{Keyed, Tag};
use super::message::{MessageKeys, Sealed};
use super::place::{Place, optional, required};
use super::{
    Cipher, ContentScheme, IdSource, KeySet, Keys, Proof, SIGNATURES_MAX, Signed, TimestampSource, Verifier,
    sns,
};
use crate::denial::{Denial, Refusal};
use crate::json::{Found, Pointer, find};
use crate::secret::Secret;

/// What the head of one request shows, read once.
#[derive(Clone, Debug)]
pub struct Presented {
    shown: Shown,
    timestamp: Option<Slice>,
    id: Option<HeaderValue>,
}

/// The proof, as far as the head shows it.
#[derive(Clone, Debug)]
enum Shown {
    /// It is in the body, or has been looked at.
    Nothing,
    Sealed(Box<Sealed>),
    Signatures(Vec<Box<[u8]>>),
    Statement(Box<Statement>),
    Tags(Vec<Tag>),
}

impl Presented {
    /// The id of the event, where the head says it.
    pub fn event_id(&self) -> Option<&HeaderValue> {
        self.id.as_ref()
    }

    /// What a message shows that is about to be signed.
    pub(super) fn unsigned(timestamp: Option<Slice>, id: Option<HeaderValue>) -> Self {
        Self { shown: Shown::Nothing, timestamp, id }
    }
}

impl Verifier {
    /// The first half: reads what the head shows, and holds the timestamp against the time.
    ///
    /// # Errors
    /// `signature_missing`, `signature_malformed`, `signature_too_old`, `signature_too_new`, `header_duplicated`; and
    /// where the head is all there is to look at, whatever speaks against it.
    pub fn present(&self, signed: &Signed<'_>) -> Result<Presented, Refusal> {
        let head = &signed.head;
        for (name, value) in &self.scheme.require {
            if required(head, name)? != value {
                let detail = format!("{name} does not say what the provider's signatures go with");
                return Err(Refusal::new(Denial::SignatureMalformed, detail));
            }
        }
        let mut timestamp = None;
        let mut token_id = None;
        let shown = match &self.scheme.proof {
            Proof::Content(scheme) => {
                let shown;
                (shown, timestamp) = self.present_content(scheme, signed)?;
                shown
            }
            Proof::Jwt(jwt) => {
                let name = |secret: &Secret| self.key_id(secret);
                let set;
                let keys = match &self.keys {
                    Keys::Shared | Keys::Derived | Keys::Learned(_) => JwtKeys::Shared(&self.macs, &name),
                    _ => {
                        set = self.public_keys(signed, b"")?;
                        JwtKeys::Public(&set)
                    }
                };
                let statement = jwt.read(signed, &keys, signed.now)?;
                token_id = statement.id.as_deref().and_then(|id| HeaderValue::from_str(id).ok());
                Shown::Statement(statement.into())
            }
            Proof::Message(scheme) => {
                let set;
                let keys = match &self.keys {
                    Keys::Shared => MessageKeys::Shared(&self.macs),
                    _ => {
                        set = self.public_keys(signed, b"")?;
                        MessageKeys::Public(&set)
                    }
                };
                Shown::Sealed(scheme.read(signed, &keys, signed.now)?.into())
            }
            Proof::Nothing | Proof::Sns => Shown::Nothing,
            Proof::Token(place) => {
                place.check_head(head, &self.secrets)?;
                Shown::Nothing
            }
        };
        let id = match self.scheme.id.as_ref().and_then(IdSource::header) {
            Some(name) if self.signs_header_id() => Some(required(head, name)?.clone()),
            Some(name) => optional(head, name)?.cloned(),
            None => token_id,
        };
        self.check_id(id.as_ref())?;
        Ok(Presented { shown, timestamp, id })
    }

    fn present_content(
        &self,
        scheme: &ContentScheme,
        signed: &Signed<'_>,
    ) -> Result<(Shown, Option<Slice>), Refusal> {
        let head = &signed.head;
        let (shown, mut timestamp) = match scheme.cipher {
            Cipher::Mac(algorithm) => {
                let mut tags = Vec::new();
                let timestamp =
                    scheme.place.read(head, |text| tags.extend(scheme.encoding.decode(text, algorithm)))?;
                (Shown::Tags(tags), timestamp)
            }
            Cipher::Public(_) => {
                let mut signatures = Vec::new();
                let timestamp = scheme.place.read(head, |text| {
                    signatures.extend(scheme.encoding.decode_any(text).map(Vec::into_boxed_slice));
                })?;
                (Shown::Signatures(signatures), timestamp)
            }
        };
        if matches!(scheme.place, Place::Headers { .. }) {
            shown.check_count(scheme.place.name())?;
        }
        if let Some(rule) = &scheme.timestamp {
            let text = match &rule.source {
                TimestampSource::SignatureHeader => Some(timestamp.take().ok_or_else(|| {
                    let detail = format!("{} holds no timestamp", scheme.place.name());
                    Refusal::new(Denial::SignatureMalformed, detail)
                })?),
                TimestampSource::Header(name) => Some(Slice::whole(required(head, name)?)),
                TimestampSource::Body(_) => None,
            };
            if let Some(text) = &text {
                rule.check(text.as_str(), signed.now)?;
            }
            timestamp = text;
        }
        // A signed header that came twice would be verified once and delivered twice.
        for name in scheme.content.headers() {
            required(head, name)?;
        }
        Ok((shown, timestamp))
    }

    /// An id must not contain what follows it in the signed content, or a signature for one pair of id and
    /// timestamp would also be one for another split of the same bytes.
    pub(super) fn check_id(&self, id: Option<&HeaderValue>) -> Result<(), Refusal> {
        let Some(id) = id else { return Ok(()) };
        let visible = !id.is_empty() && id.as_bytes().iter().all(u8::is_ascii_graphic);
        let after = match &self.scheme.proof {
            Proof::Content(scheme) => scheme.content.after_id(),
            _ => None,
        };
        let splits = after.is_some_and(|byte| id.as_bytes().contains(&byte));
        if visible && !splits && id.len() <= 256 {
            return Ok(());
        }
        Err(Refusal::new(Denial::SignatureMalformed, "the event id has a character that ids may not have"))
    }

    fn signs_header_id(&self) -> bool {
        matches!(&self.scheme.proof, Proof::Content(scheme) if scheme.content.uses_id())
    }

    fn key_id(&self, secret: &Secret) -> Option<Box<str>> {
        std::str::from_utf8(self.scheme.key_form.id(secret)?).ok().map(Into::into)
    }

    /// The public keys that a message is verified under.
    ///
    /// # Errors
    /// `keys_unavailable` when they could not be fetched so far.
    fn public_keys<'k>(&'k self, signed: &'k Signed<'_>, body: &[u8]) -> Result<Cow<'k, KeySet>, Refusal> {
        let unavailable =
            || Refusal::new(Denial::KeysUnavailable, "the provider's keys could not be fetched so far");
        match &self.keys {
            Keys::Public(set) => Ok(Cow::Borrowed(set)),
            Keys::Fetched(id) => {
                signed.keyring.set(*id).map(|set| Cow::Borrowed(&**set)).ok_or_else(unavailable)
            }
            Keys::Named(rule, given) => {
                let url = rule.url(&signed.head, body)?;
                let given = given.as_ref();
                let set = given.or_else(|| signed.keyring.certificate(&url).map(|set| &**set));
                set.map(Cow::Borrowed).ok_or_else(unavailable)
            }
            Keys::Shared | Keys::Derived | Keys::Learned(_) => Err(unavailable()),
        }
    }

    /// The second half: the raw bytes, under any of the keys, against any of the signatures.
    ///
    /// Returns what tells one message from another: for MACs the ones under the keys that were tried, the one that
    /// matched last, so that a caller who takes one of two signatures away, or a new key in front of the old one,
    /// leaves one of them as it was; for other signatures a hash of what is signed.
    ///
    /// # Errors
    /// `signature_mismatch` and its like.
    pub fn verify(
        &self,
        presented: &Presented,
        signed: &Signed<'_>,
        body: &[u8],
    ) -> Result<Vec<Tag>, Refusal> {
        self.check_absent(body)?;
        match (&self.scheme.proof, &presented.shown) {
            (Proof::Content(scheme), _) => self.verify_content(scheme, presented, signed, body),
            (Proof::Jwt(_), Shown::Statement(statement)) => statement.verify(body),
            (Proof::Message(_), Shown::Sealed(sealed)) => sealed.verify(body),
            (Proof::Sns, _) => {
                let keys = self.public_keys(signed, body)?;
                sns::verify(signed, &self.secrets, &keys, body, signed.now)
            }
            (Proof::Nothing, _) => Ok(Vec::new()),
            (Proof::Token(place), _) => {
                place.check_body(body, &self.secrets)?;
                Ok(Vec::new())
            }
            _ => Err(Refusal::new(Denial::SignatureMissing, "the head shows no proof")),
        }
    }

    fn check_absent(&self, body: &[u8]) -> Result<(), Refusal> {
        if self.scheme.absent.is_empty() {
            return Ok(());
        }
        let pointers: Vec<&Pointer> = self.scheme.absent.iter().collect();
        let found = find(body, &pointers)
            .map_err(|_| Refusal::new(Denial::SignatureMalformed, "the body is not JSON"))?;
        match found.iter().zip(&pointers).find(|(found, _)| !matches!(found, Found::Missing)) {
            None => Ok(()),
            Some((_, pointer)) => {
                let detail = format!("{} is there, which the signature does not cover", pointer.as_str());
                Err(Refusal::new(Denial::SignatureMalformed, detail))
            }
        }
    }

    fn verify_content(
        &self,
        scheme: &ContentScheme,
        presented: &Presented,
        signed: &Signed<'_>,
        body: &[u8],
    ) -> Result<Vec<Tag>, Refusal> {
        let within = self.read_body(scheme, presented, signed, body)?;
        let shown = within.shown.as_ref().unwrap_or(&presented.shown);
        let matched = match (scheme.cipher, shown) {
            (Cipher::Mac(_), Shown::Tags(shown)) => {
                // Which secret matches is no secret; how far a comparison got would be.
                let mut tags = Vec::with_capacity(self.macs.len());
                let derived: Vec<_>;
                let macs = match &self.keys {
                    Keys::Derived => {
                        derived = signed.derived.iter().filter_map(|secret| self.ready(secret)).collect();
                        &derived
                    }
                    Keys::Learned(id) => {
                        let secret = signed.keyring.secret(*id).ok_or_else(|| {
                            let detail = "the provider has not handed over its secret so far";
                            Refusal::new(Denial::KeysUnavailable, detail)
                        })?;
                        derived = self.ready(secret).into_iter().collect();
                        &derived
                    }
                    _ => &self.macs,
                };
                let mut matched = false;
                for key in macs {
                    let tag = self.tag(scheme, key, presented, signed, body, &within)?;
                    tags.push(tag);
                    matched = shown.iter().any(|signature| tag.matches(signature));
                    if !matched && scheme.content.parts().contains(&super::Part::Form) {
                        let other = form::other_port(signed.public_url);
                        let signed = Signed { public_url: &other, ..*signed };
                        let tag = self.tag(scheme, key, presented, &signed, body, &within)?;
                        matched = shown.iter().any(|signature| tag.matches(signature));
                        tags.push(tag);
                    }
                    if matched {
                        break;
                    }
                }
                matched.then_some(tags)
            }
            (Cipher::Public(algorithm), Shown::Signatures(shown)) => {
                let keys = self.public_keys(signed, body)?;
                // The place of the secret is taken by what stands in `secrets` beside the keys: an id of a webhook.
                let contents = self.contents(scheme, presented, signed, body, &within)?;
                contents.iter().find_map(|content| {
                    let valid = keys.keys().iter().filter(|key| key.is_valid_at(signed.now));
                    let made = |key| shown.iter().any(|one| algorithm.verifies(key, content, one));
                    valid.into_iter().any(made).then(|| vec![Tag::new(&Sha256::digest(content))])
                })
            }
            _ => None,
        };
        matched.ok_or_else(|| {
            let detail = format!(
                "none of {} signatures matches under {} secrets over {} body bytes",
                shown.len(),
                self.secrets.len(),
                body.len()
            );
            Refusal::new(Denial::SignatureMismatch, detail)
        })
    }

    /// A secret made ready for this scheme.
    pub(super) fn ready(&self, secret: &Secret) -> Option<(Keyed, Secret)> {
        let keyed = Keyed::new(self.scheme.mac()?, &self.scheme.key_form, secret).ok()?;
        Some((keyed, secret.clone()))
    }

    /// Reads from the body what a scheme has there: members of the content, timestamp, signature.
    fn read_body<'b>(
        &self,
        scheme: &ContentScheme,
        presented: &Presented,
        signed: &Signed<'_>,
        body: &'b [u8],
    ) -> Result<Within<'b>, Refusal> {
        let mut pointers: Vec<&Pointer> = scheme.content.members().collect();
        let members_count = pointers.len();
        let rule = scheme.timestamp.as_ref();
        let timestamp_at = rule.and_then(|rule| match &rule.source {
            TimestampSource::Body(pointer) => Some(pointer),
            _ => None,
        });
        pointers.extend(timestamp_at);
        if let Place::Body(pointer) = &scheme.place {
            pointers.push(pointer);
        }
        let mut found = content::members(body, &pointers)?;
        let shown = match &scheme.place {
            Place::Headers { .. } => None,
            Place::Body(_) => {
                let text = found.pop().unwrap_or_default();
                let shown = match scheme.cipher {
                    Cipher::Mac(algorithm) => {
                        Shown::Tags(scheme.encoding.decode(&text, algorithm).into_iter().collect())
                    }
                    Cipher::Public(_) => {
                        let bytes = scheme.encoding.decode_any(&text).map(Vec::into_boxed_slice);
                        Shown::Signatures(bytes.into_iter().collect())
                    }
                };
                if text.is_empty() {
                    return Err(Refusal::new(Denial::SignatureMissing, "the body holds no signature"));
                }
                shown.check_count("the body")?;
                Some(shown)
            }
        };
        let timestamp = match (rule, timestamp_at) {
            (Some(rule), Some(_)) => {
                let text = found.pop().unwrap_or_default();
                rule.check(&text, signed.now)?;
                text.into_owned().into_bytes()
            }
            _ => presented.timestamp.as_ref().map_or_else(Vec::new, |slice| slice.as_bytes().to_vec()),
        };
        found.truncate(members_count);
        Ok(Within { shown, timestamp, members: found })
    }

    /// The MAC of a message under one secret.
    pub(super) fn tag(
        &self,
        scheme: &ContentScheme,
        (keyed, secret): &(Keyed, Secret),
        presented: &Presented,
        signed: &Signed<'_>,
        body: &[u8],
        within: &Within<'_>,
    ) -> Result<Tag, Refusal> {
        let mut mac = keyed.start();
        let values = Values {
            signed,
            body,
            timestamp: &within.timestamp,
            id: presented.id.as_ref(),
            secret: secret.expose(),
            members: &within.members,
        };
        scheme.content.write(&values, &mut |bytes| mac.update(bytes))?;
        Ok(mac.finish())
    }

    /// The signed content, once for each of `secrets`, or once where there are none.
    fn contents(
        &self,
        scheme: &ContentScheme,
        presented: &Presented,
        signed: &Signed<'_>,
        body: &[u8],
        within: &Within<'_>,
    ) -> Result<Vec<Vec<u8>>, Refusal> {
        let uses_secret = scheme.content.parts().contains(&super::Part::Secret);
        let secrets: Vec<&[u8]> = match uses_secret {
            true => self.secrets.iter().map(Secret::expose).collect(),
            false => vec![b""],
        };
        let content = |secret: &[u8]| {
            let values = Values {
                signed,
                body,
                timestamp: &within.timestamp,
                id: presented.id.as_ref(),
                secret,
                members: &within.members,
            };
            let mut bytes = Vec::with_capacity(body.len() + 64);
            scheme.content.write(&values, &mut |part| bytes.extend_from_slice(part)).map(|()| bytes)
        };
        secrets.into_iter().map(content).collect()
    }

    /// Whether the id of the event is under the signature, so that nobody can change it.
    pub fn signs_id(&self) -> bool {
        match (&self.scheme.proof, &self.scheme.id) {
            (Proof::Jwt(jwt), None) => jwt.id.is_some(),
            (_, None) => false,
            (_, Some(IdSource::Body(_))) => self.scheme.covers().body,
            (Proof::Content(scheme), Some(IdSource::Header(name))) => {
                scheme.content.uses_id() || scheme.content.headers().any(|header| header == name)
            }
            _ => false,
        }
    }
}

/// What a scheme has in the body.
pub(super) struct Within<'b> {
    shown: Option<Shown>,
    timestamp: Vec<u8>,
    members: Vec<Cow<'b, str>>,
}

impl<'b> Within<'b> {
    /// For signing: nothing is read but the members of the content.
    pub(super) fn signing(scheme: &ContentScheme, timestamp: &[u8], body: &'b [u8]) -> Result<Self, Refusal> {
        let pointers: Vec<&Pointer> = scheme.content.members().collect();
        let members = content::members(body, &pointers)?;
        Ok(Self { shown: None, timestamp: timestamp.to_vec(), members })
    }
}

impl Shown {
    fn len(&self) -> usize {
        match self {
            Self::Tags(tags) => tags.len(),
            Self::Signatures(signatures) => signatures.len(),
            Self::Nothing | Self::Sealed(_) | Self::Statement(_) => 1,
        }
    }

    fn check_count(&self, place: &str) -> Result<(), Refusal> {
        match self.len() {
            1..=SIGNATURES_MAX => Ok(()),
            count => {
                let detail = format!("{place} holds {count} readable signatures");
                Err(Refusal::new(Denial::SignatureMalformed, detail))
            }
        }
    }
}
