//! The first half of verifying: what the head shows.

use std::borrow::Cow;

use http::HeaderValue;

use super::presented::{Presented, Shown};
use super::verifier::Verifier;
use crate::denial::{Denial, Refusal};
use crate::secret::Secret;
use crate::signature::context::Signed;
use crate::signature::keys::{KeySet, Keys};
use crate::signature::proofs::{JwtKeys, MessageKeys};
use crate::signature::request_parts::{IdSource, optional, required};
use crate::signature::scheme::Proof;

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
}
