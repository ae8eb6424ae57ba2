//! Verifying: what the head shows, and what the body says.

use std::borrow::Cow;

use http::HeaderValue;

use super::format::Slice;
use super::jwt::{JwtKeys, Statement};
use super::mac::Tag;
use super::message::{MessageKeys, Sealed};
use super::place::{optional, required};
use super::{Handshake, IdSource, KeySet, Keys, Proof, SIGNATURES_MAX, Signed, Verifier, sns};
use crate::denial::{Denial, Refusal};
use crate::json::{Found, Pointer, find};
use crate::secret::Secret;

/// What the head of one request shows, read once.
#[derive(Clone, Debug)]
pub struct Presented {
    pub(super) shown: Shown,
    pub(super) timestamp: Option<Slice>,
    pub(super) id: Option<HeaderValue>,
}

/// The proof, as far as the head shows it.
#[derive(Clone, Debug)]
pub(super) enum Shown {
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

    /// Whether the head shows the proof, so that the message is no unsigned handshake.
    pub fn is_in_the_head(&self) -> bool {
        !matches!(self.shown, Shown::Nothing)
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
                // Whether there is a token at all is known without any key.
                jwt.place.one(head)?;
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
    pub(super) fn public_keys<'k>(
        &'k self,
        signed: &'k Signed<'_>,
        body: &[u8],
    ) -> Result<Cow<'k, KeySet>, Refusal> {
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
        self.check_beginning(body)?;
        match (&self.scheme.proof, &presented.shown) {
            (Proof::Content(scheme), _) => self.verify_content(scheme, presented, signed, body),
            (Proof::Jwt(_), Shown::Statement(statement)) => statement.verify(body),
            (Proof::Message(_), Shown::Sealed(sealed)) => sealed.verify(body),
            // Of another topic, nothing is fetched.
            (Proof::Sns, _) => sns::Message::read(signed, &self.secrets, body)?
                .verify(&*self.public_keys(signed, body)?, signed.now),
            (Proof::Nothing, _) => Ok(Vec::new()),
            (Proof::Token(place), _) => {
                place.check_body(body, &self.secrets)?;
                Ok(Vec::new())
            }
            _ => Err(Refusal::new(Denial::SignatureMissing, "the head shows no proof")),
        }
    }

    /// A body that could be something else to the signature, the end of a URL or a challenge that anybody may have
    /// signed, must begin as neither does.
    fn check_beginning(&self, body: &[u8]) -> Result<(), Refusal> {
        let joined =
            matches!(&self.scheme.proof, Proof::Content(scheme) if scheme.content.joins_url_and_body());
        let ambiguous = joined || self.scheme.handshakes.iter().any(Handshake::signs_for_anybody);
        if !ambiguous || body.is_empty() && joined || body.starts_with(b"{") || body.starts_with(b"[") {
            return Ok(());
        }
        let detail = "the body does not begin as JSON does, and could be something else to the signature";
        Err(Refusal::new(Denial::SignatureMalformed, detail))
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
}

impl Shown {
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Tags(tags) => tags.len(),
            Self::Signatures(signatures) => signatures.len(),
            Self::Nothing | Self::Sealed(_) | Self::Statement(_) => 1,
        }
    }

    pub(super) fn check_count(&self, place: &str) -> Result<(), Refusal> {
        match self.len() {
            1..=SIGNATURES_MAX => Ok(()),
            count => {
                let detail = format!("{place} holds {count} readable signatures");
                Err(Refusal::new(Denial::SignatureMalformed, detail))
            }
        }
    }
}
