//! The check that the ledger makes before Callgate delivers a verified callback: the description of the callback
//! ([`Ask`]), the permission ([`Cleared`]), and the reasons for a denial ([`ClaimError`]).

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::report::{Follow, Report};
use crate::denial::Refusal;
use crate::path::Captures;
use crate::token::Granted;

/// The key of an event, by which the ledger recognizes duplicates. No key belongs to two events of the same [`Scope`].
/// The lowest bit of a key is 0 if the key was made from a MAC. The bit is 1 if the key was made from an event id or
/// from other parts of a message.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
pub struct EventKey(pub u128);

impl EventKey {
    /// Creates a key from the provider's event id.
    pub fn of_id(route: &str, scope: Scope<'_>, id: &[u8]) -> Self {
        Self(Self::digest(route, scope, b"id", id) | 1)
    }

    /// Creates a key from several parts of a message. `parts` contains the encoded parts. The caller must encode
    /// different lists of parts as different bytes.
    pub fn of_parts(route: &str, scope: Scope<'_>, parts: &[u8]) -> Self {
        Self(Self::digest(route, scope, b"identity", parts) | 1)
    }

    /// Creates a key from the MAC of a message. If the message belongs to an interaction, the first 16 bytes of the MAC
    /// are the key. Otherwise, the key is a digest of the route, the path captures and the MAC.
    pub fn of_tag(route: &str, scope: Scope<'_>, tag: &[u8]) -> Self {
        let whole = match scope {
            Scope::Interaction(_) => first_half(tag),
            Scope::Captures(_) => Self::digest(route, scope, b"signature", tag),
        };
        Self(whole & !1)
    }

    fn digest(route: &str, scope: Scope<'_>, kind: &[u8], event: &[u8]) -> u128 {
        // Hashing one buffer once is faster than updating the digest for each field.
        let mut bytes = Vec::with_capacity(192);
        let mut field = |field: &[u8]| {
            bytes.extend_from_slice(&(field.len() as u64).to_le_bytes());
            bytes.extend_from_slice(field);
        };
        if let Scope::Captures(captures) = scope {
            field(route.as_bytes());
            captures.iter().for_each(|(name, value)| {
                field(name.as_bytes());
                field(value.as_bytes());
            });
        }
        field(kind);
        field(event);
        first_half(&Sha256::digest(&bytes))
    }
}

/// Returns the first 16 bytes of a MAC or a digest as a number. The caller must pass at least 16 bytes.
fn first_half(bytes: &[u8]) -> u128 {
    bytes.first_chunk().copied().map_or(0, u128::from_be_bytes)
}

/// The callbacks among which an event key identifies one event.
#[derive(Clone, Copy, Debug)]
pub enum Scope<'a> {
    /// The callbacks of one route that belong to no interaction and whose paths have these captures.
    Captures(&'a Captures),
    /// The callbacks of the interaction with this id.
    Interaction(&'a str),
}

/// A verified callback, as the ledger receives it. The ledger decides whether Callgate delivers the callback now.
#[derive(Clone, Copy, Debug)]
pub struct Ask<'a> {
    /// The name of the route that received the callback.
    pub route: &'a Arc<str>,
    /// The provider of the route, if the route has one.
    pub provider: Option<&'a Arc<str>>,
    /// The names and values of the path captures of the request.
    pub captures: &'a Captures,
    /// The rights that the callback token grants, if the token names an interaction.
    pub granted: Option<&'a Granted>,
    /// The id of the interaction of a callback without a token. The ledger found the interaction by the provider's id
    /// of the work. `None` if the callback has a token, or if no interaction was found.
    pub matched: Option<&'a str>,
    /// The keys of the event. If an event with one of these keys was already delivered, the callback is a duplicate.
    pub events: &'a [EventKey],
    /// The keys of the message itself. They are used only if `events` is empty. While the interaction is open, the keys
    /// are ignored, because two equal messages can be two events. After the end of the interaction, a message with a
    /// delivered key is a duplicate: the sender has repeated the message.
    pub repeats: &'a [EventKey],
    /// The longest time for which a replay of this message passes the signature check. `None` if the provider's
    /// signature scheme does not limit this time.
    pub replay_window: Option<Duration>,
    /// The provider's event id. It is used only for display, for example in the callbacks API.
    pub event_id: Option<&'a str>,
    /// The rules of the route for reading the state of an interaction from its callbacks.
    pub follow: &'a Follow,
    /// Whether the agent gets a notice when the interaction expires or stalls (see [`Overdue`](super::Overdue)).
    pub notifies: bool,
    /// Whether the ledger creates a record for an unknown interaction, even if the setting `store.unknown` is `refuse`.
    pub adopts: bool,
    /// The longest time that the delivery can take. If the process dies during the delivery, another process delivers
    /// the callback after this time.
    pub delivery_max: Duration,
    /// The status, the progress and the other values that the callback reports.
    pub report: &'a Report,
}

impl<'a> Ask<'a> {
    /// Returns the id of the interaction that the token names, or that the ledger found by the provider's id of the
    /// work.
    pub fn interaction(&self) -> Option<&'a str> {
        self.granted.map(|granted| &*granted.interaction).or(self.matched)
    }

    /// Creates the input for a callback that has no token, no provider and no event keys. The caller sets the other
    /// fields.
    pub fn new(route: &'a Arc<str>, captures: &'a Captures, follow: &'a Follow, report: &'a Report) -> Self {
        Self {
            route,
            provider: None,
            captures,
            granted: None,
            matched: None,
            events: &[],
            repeats: &[],
            replay_window: None,
            event_id: None,
            follow,
            notifies: false,
            adopts: false,
            delivery_max: Duration::from_secs(60),
            report,
        }
    }
}

/// The proof that the ledger permits the delivery of a callback. Only the ledger can create this value.
#[derive(Clone, Copy, Debug)]
pub struct Cleared {
    /// The number of the question that the permitted callback asks, if it asks one.
    question: Option<u32>,
    /// Whether the progress that the permitted callback reports is stale (see [`Stale`](super::Stale)).
    stale: bool,
}

impl Cleared {
    /// Creates the proof that the ledger permits the delivery of a callback. Only the ledger is allowed to call this
    /// function. `tests/tidy.rs` checks that no other module calls it.
    pub fn by_the_ledger(question: Option<u32>, stale: bool) -> Self {
        Self { question, stale }
    }

    /// Returns the number of the question that this callback asks, if it asks one.
    pub fn question(self) -> Option<u32> {
        self.question
    }

    /// Reports whether the callback is delivered although its progress is stale (see [`Stale`](super::Stale)).
    pub fn is_stale(self) -> bool {
        self.stale
    }
}

/// The reason why the ledger does not permit the delivery of a verified callback.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum ClaimError {
    /// The event was already delivered. The caller receives status 200.
    Duplicate,
    /// The ledger denies the callback.
    Refused(Refusal),
    /// The reported progress is stale (see [`Stale`](super::Stale)), and the route drops such callbacks. The caller
    /// receives status 200.
    Stale,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::path::{CanonicalPath, Template};

    /// The ledger stores keys for days, so a later version must compute the same keys.
    #[test]
    fn the_key_of_an_event_stays_the_same() {
        let captures = |path: &str| {
            let path = CanonicalPath::parse(path).unwrap();
            Template::parse("/w/{id}").unwrap().capture(&path)
        };
        let (first, second) = (captures("/w/1"), captures("/w/2"));
        let (open, other) = (Scope::Captures(&first), Scope::Captures(&second));
        let (own, foreign) = (Scope::Interaction("int_1"), Scope::Interaction("int_2"));
        let tag = [0x11; 32];
        for (key, expected) in [
            (EventKey::of_id("r", open, b"evt_1"), 0x6b659dc6ed8fe534416b6ddeedb9d063),
            (EventKey::of_id("r", open, b"evt_2"), 0xf69183ad31737d92873afb847217c50f),
            (EventKey::of_id("r", other, b"evt_1"), 0xf6514df14109e19973433193bc7087e7),
            (EventKey::of_id("s", open, b"evt_1"), 0xf75f573ceea027dc96800468aefdfed1),
            (EventKey::of_id("r", own, b"evt_1"), 0x61081ad2a966b03ef1697dcfc62912e1),
            (EventKey::of_parts("r", open, b"evt_1"), 0xb4fb722b7d45a1c44be78dea67c50ed3),
            (EventKey::of_parts("r", own, b"evt_1"), 0xcc6146b169ad79547e2b634592597a01),
            (EventKey::of_tag("r", open, &tag), 0xd98b835d6d8f547d88d038103711c08c),
            (EventKey::of_tag("s", open, &tag), 0x3ba3918b7dc7a86a0d71b5e67d1ef556),
            (EventKey::of_tag("r", own, &tag), 0x11111111111111111111111111111110),
            (EventKey::of_tag("r", own, &[0x10; 32]), 0x10101010101010101010101010101010),
        ] {
            assert_eq!(key.0, expected, "{key:#x?}");
        }
        // The key of an interaction is stored with the interaction, so neither the id nor the route matters.
        assert_eq!(EventKey::of_id("s", foreign, b"evt_1"), EventKey::of_id("r", own, b"evt_1"));
        assert_eq!(EventKey::of_tag("s", foreign, &tag), EventKey::of_tag("r", own, &tag));
    }
}
