//! The keys by which the ledger recognizes duplicates of a verified message.

use http::HeaderValue;
use sha2::{Digest, Sha256};

use super::decide::Admitted;
use crate::interaction::{EventKey, Scope};
use crate::json::{Pointer, find_one};
use crate::request::RequestHead;
use crate::signature::{AuthenticationTag, DuplicateRule, IdentityPart, Scheme};

/// The parts of a verified message that distinguish its event from other events.
struct Message<'m> {
    route: &'m str,
    scope: Scope<'m>,
    head: &'m RequestHead<'m>,
    body: &'m [u8],
    tags: &'m [AuthenticationTag],
    id: Option<&'m HeaderValue>,
}

impl Admitted {
    /// Returns the keys of a message for `Ask::events` and for `Ask::repeats`. If the ledger knows a key of the first
    /// list, the message is a duplicate.
    pub(super) fn event_keys(
        &self,
        head: &RequestHead<'_>,
        body: &[u8],
        tags: &[AuthenticationTag],
        id: Option<&HeaderValue>,
    ) -> (Vec<EventKey>, Vec<EventKey>) {
        if !self.route.tells_duplicates {
            return (Vec::new(), Vec::new());
        }
        let scope = match &self.found.granted {
            Some(granted) => Scope::Interaction(&granted.interaction),
            None => Scope::Captures(&self.captures),
        };
        let message = Message { route: &self.route.name, scope, head, body, tags, id };
        // Without a verifier, a message has neither an event id nor a signature.
        let events = match self.route.verifier().map(|verifier| verifier.scheme()) {
            Some(scheme) => match scheme.duplicates {
                DuplicateRule::Deliver => Vec::new(),
                DuplicateRule::Identity => message.by_identity(scheme),
                DuplicateRule::Signature => message.by_signature(scheme),
            },
            None => Vec::new(),
        };
        let repeats = if events.is_empty() { message.tag_keys().collect() } else { Vec::new() };
        (events, repeats)
    }
}

impl Message<'_> {
    fn id_key(&self) -> Option<EventKey> {
        self.id.map(|id| EventKey::of_id(self.route, self.scope, id.as_bytes()))
    }

    fn tag_keys(&self) -> impl Iterator<Item = EventKey> {
        self.tags.iter().map(|tag| EventKey::of_tag(self.route, self.scope, tag.as_bytes()))
    }

    /// Returns the key of the event id. If the id is missing or not signed, also returns the keys of the signature.
    fn by_signature(&self, scheme: &Scheme) -> Vec<EventKey> {
        let tags = (self.id.is_none() || !scheme.signs_id()).then(|| self.tag_keys());
        self.id_key().into_iter().chain(tags.into_iter().flatten()).collect()
    }

    /// Returns the keys of the parts by which the scheme identifies an event. A message can have several tags, one for
    /// each secret that was tried. Each tag makes its own key, so that the message keeps its keys when a secret is
    /// added.
    fn by_identity(&self, scheme: &Scheme) -> Vec<EventKey> {
        let parts = scheme.identity.as_slice();
        match parts {
            [] => return Vec::new(),
            [IdentityPart::Signature] => return self.tag_keys().collect(),
            [IdentityPart::Id] if self.id.is_some() => {
                return self.id_key().into_iter().collect();
            }
            _ => {}
        }
        let uses_signature = parts.contains(&IdentityPart::Signature);
        let values: Vec<_> = parts.iter().map(|part| self.value(part)).collect();
        if values.iter().all(Option::is_none) {
            // The message has none of the parts. If the signature covers a time, it still distinguishes the message.
            return if scheme.covers().time { self.tag_keys().collect() } else { Vec::new() };
        }
        let encoded = encode(values.iter().map(Option::as_deref));
        let key = |tag: &[u8]| {
            let parts = [encoded.as_slice(), tag].concat();
            EventKey::of_parts(self.route, self.scope, &parts)
        };
        if uses_signature && !self.tags.is_empty() {
            return self.tags.iter().map(|tag| key(tag.as_bytes())).collect();
        }
        vec![key(b"")]
    }

    /// Returns the value of a member of the body: the decoded text of a string or number, or the JSON text of a list or
    /// object. A signature covers the decoded text, so another spelling of the same text must not be another event.
    /// `null` and the empty text count as missing.
    fn member(&self, pointer: &Pointer) -> Option<Vec<u8>> {
        let found = find_one(self.body, pointer);
        let text = match found.word() {
            Some(word) => word.into_string().into_bytes(),
            None => found.raw().filter(|raw| *raw != "null")?.as_bytes().to_vec(),
        };
        (!text.is_empty()).then_some(text)
    }

    /// Returns the value of a part. Returns `None` for a part that the message does not have, and for the signature.
    fn value(&self, part: &IdentityPart) -> Option<Vec<u8>> {
        match part {
            IdentityPart::Body => Some(Sha256::digest(self.body).to_vec()),
            IdentityPart::Header(name) => {
                let values: Vec<_> =
                    self.head.headers.get_all(name).iter().map(HeaderValue::as_bytes).collect();
                (!values.is_empty()).then(|| encode(values.into_iter().map(Some)))
            }
            IdentityPart::Id => self.id.map(|id| id.as_bytes().to_vec()),
            IdentityPart::Member(pointer) => self.member(pointer),
            IdentityPart::Signature => None,
        }
    }
}

/// Joins values, each with its length, so that different lists are different bytes.
fn encode<'v>(values: impl Iterator<Item = Option<&'v [u8]>>) -> Vec<u8> {
    let mut bytes = Vec::new();
    for value in values {
        match value {
            Some(value) => {
                bytes.extend_from_slice(&(value.len() as u64).to_le_bytes());
                bytes.extend_from_slice(value);
            }
            None => bytes.extend_from_slice(&u64::MAX.to_le_bytes()),
        }
    }
    bytes
}
