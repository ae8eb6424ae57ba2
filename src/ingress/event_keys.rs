//! The keys of a verified message, by which the ledger recognizes duplicates.

use http::HeaderValue;
use sha2::{Digest, Sha256};

use super::decide::Admitted;
use crate::interaction::{EventKey, Scope};
use crate::json::{Found, find};
use crate::request::RequestHead;
use crate::signature::{AuthenticationTag, DuplicateRule, IdentityPart, Scheme};

/// The buffer capacity in bytes that is sufficient for the encoded parts of most messages: an id, a topic and a tag.
const ENCODED_BYTES: usize = 160;

/// The parts of a verified message that can distinguish its event from other events.
struct Message<'m> {
    route: &'m str,
    scope: Scope<'m>,
    head: &'m RequestHead<'m>,
    body: &'m [u8],
    tags: &'m [AuthenticationTag],
    id: Option<&'m HeaderValue>,
}

impl Admitted {
    /// Returns two lists of keys for a message. The first list contains the keys of the event, for `Ask::events`. If
    /// the event has no key, the second list contains the keys of the message itself, for `Ask::repeats`. Otherwise the
    /// second list is empty. Both lists are empty if the route delivers duplicates.
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

    /// Returns the key of the event id. If the event id is missing or not signed, also returns the keys of the
    /// signature tags.
    fn by_signature(&self, scheme: &Scheme) -> Vec<EventKey> {
        let tags = (self.id.is_none() || !scheme.signs_id()).then(|| self.tag_keys());
        self.id_key().into_iter().chain(tags.into_iter().flatten()).collect()
    }

    /// Returns the keys of the parts by which the signature scheme identifies an event. If the signature is one of
    /// these parts, returns one key for each authentication tag of the message. A message can have several tags, one
    /// for each secret that was tried. A repeated message therefore has a known key even if the operator has added a
    /// secret.
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
        let mut encoded = Vec::with_capacity(ENCODED_BYTES);
        let mut members = self.members(parts).into_iter();
        let mut has_part = false;
        for part in parts {
            has_part |= self.write(part, &mut members, &mut encoded);
        }
        if !has_part {
            // The message has none of the parts that identify an event. The signatures of two events can then be equal,
            // unless the signatures cover a time.
            return if scheme.covers().time { self.tag_keys().collect() } else { Vec::new() };
        }
        let parts_end = encoded.len();
        let mut key = |tag: &[u8]| {
            encoded.truncate(parts_end);
            encoded.extend_from_slice(tag);
            EventKey::of_parts(self.route, self.scope, &encoded)
        };
        if parts.contains(&IdentityPart::Signature) && !self.tags.is_empty() {
            return self.tags.iter().map(|tag| key(tag.as_bytes())).collect();
        }
        vec![key(b"")]
    }

    /// Returns the values of the JSON keys that identify the event, in the order of `parts`. Parses the body once.
    fn members(&self, parts: &[IdentityPart]) -> Vec<Found<'_>> {
        let pointers: Vec<_> = parts.iter().filter_map(IdentityPart::pointer).collect();
        if pointers.is_empty() { Vec::new() } else { find(self.body, &pointers).unwrap_or_default() }
    }

    /// Appends a part of the message in encoded form. If the part is the value of a JSON key, appends the next value of
    /// `members`. Returns whether the message has the part. The signature is not appended here, because a message can
    /// have several tags.
    fn write<'f>(
        &self,
        part: &IdentityPart,
        members: &mut impl Iterator<Item = Found<'f>>,
        out: &mut Vec<u8>,
    ) -> bool {
        match part {
            IdentityPart::Body => encode(Some(&Sha256::digest(self.body)), out),
            IdentityPart::Header(name) => {
                let mut values = Vec::new();
                for value in self.head.headers.get_all(name) {
                    encode(Some(value.as_bytes()), &mut values);
                }
                encode(Some(values.as_slice()).filter(|values| !values.is_empty()), out)
            }
            IdentityPart::Id => encode(self.id.map(HeaderValue::as_bytes), out),
            IdentityPart::Member(_) => encode(members.next().and_then(member_text).as_deref(), out),
            IdentityPart::Signature => encode(None, out),
        }
    }
}

/// Returns the value of a JSON key as bytes: the decoded text of a string or number, or the JSON text of an array or
/// object. Two spellings of the same text, for example `"a"` and `"\u0061"`, must identify the same event, because a
/// signature covers the decoded text. `null` and the empty text count as missing.
fn member_text(found: Found<'_>) -> Option<Vec<u8>> {
    let text = match found.word() {
        Some(word) => word.into_string().into_bytes(),
        None => found.raw().filter(|raw| *raw != "null")?.as_bytes().to_vec(),
    };
    (!text.is_empty()).then_some(text)
}

/// Appends a value with its length as prefix, so that different lists of values result in different bytes. Returns
/// whether there is a value.
fn encode(value: Option<&[u8]>, out: &mut Vec<u8>) -> bool {
    let length = value.map_or(u64::MAX, |value| value.len() as u64);
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(value.unwrap_or_default());
    value.is_some()
}
