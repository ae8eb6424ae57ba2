//! The input and the possible verdicts of the ledger's check, which runs before Callgate delivers a verified callback.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::report::{Follow, Report};
use crate::denial::Refusal;
use crate::path::Captures;
use crate::token::Granted;

/// The key of an event. It is unique within its [`Scope`], so that duplicates can be recognized. The lowest bit is 0 if
/// the key was made from a MAC, and 1 if it was made from an event id or from other parts of a message.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
pub struct EventKey(pub u128);

impl EventKey {
    /// Creates a key from the provider's event id.
    pub fn of_id(route: &str, scope: Scope<'_>, id: &[u8]) -> Self {
        Self(Self::digest(route, scope, b"id", id) | 1)
    }

    /// Creates a key from several parts of a message. `parts` must be encoded so that different lists of parts are
    /// different bytes.
    pub fn of_parts(route: &str, scope: Scope<'_>, parts: &[u8]) -> Self {
        Self(Self::digest(route, scope, b"identity", parts) | 1)
    }

    /// Creates a key from the MAC of a message. Within one interaction the MAC itself is used, because it is already
    /// as random as a digest.
    pub fn of_tag(route: &str, scope: Scope<'_>, tag: &[u8]) -> Self {
        let whole = match scope {
            Scope::Interaction(_) => first_half(tag),
            Scope::Captures(_) => Self::digest(route, scope, b"signature", tag),
        };
        Self(whole & !1)
    }

    fn digest(route: &str, scope: Scope<'_>, kind: &[u8], event: &[u8]) -> u128 {
        // One digest over one buffer is faster than many updates of the digest.
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

/// Returns the first 16 bytes of a MAC or a digest as a number. Every MAC and digest has at least 16 bytes.
fn first_half(bytes: &[u8]) -> u128 {
    bytes.first_chunk().copied().map_or(0, u128::from_be_bytes)
}

/// The scope in which event keys are unique.
#[derive(Clone, Copy, Debug)]
pub enum Scope<'a> {
    /// The captures of a path, for a route whose tokens name no interaction.
    Captures(&'a Captures),
    /// The interaction with this id.
    Interaction(&'a str),
}

/// The input for the check of the ledger. The check decides whether Callgate delivers a verified callback now.
#[derive(Clone, Copy, Debug)]
pub struct Ask<'a> {
    /// The route.
    pub route: &'a Arc<str>,
    /// The route's provider.
    pub provider: Option<&'a Arc<str>>,
    /// The captures of the path.
    pub captures: &'a Captures,
    /// The rights of the token, if the token names an interaction.
    pub granted: Option<&'a Granted>,
    /// The interaction that the provider's id belongs to, if the callback has no token. The ledger sets it.
    pub matched: Option<&'a str>,
    /// The keys of the event. If an event with one of these keys was already delivered, the callback is a duplicate.
    pub events: &'a [EventKey],
    /// The keys of the message itself, if `events` is empty. As long as the interaction is open, no such message is a
    /// duplicate. After the interaction has ended, the message is a duplicate if Callgate delivered a message with one
    /// of these keys before. The sender then probably did not receive the first response.
    pub repeats: &'a [EventKey],
    /// The longest time for which a replay of this message passes the check of the signature. `None` if the provider's
    /// scheme does not limit this time.
    pub replay_window: Option<Duration>,
    /// The provider's event id. It is only displayed, for example by the callbacks API.
    pub event_id: Option<&'a str>,
    /// How the states of the route's interactions are read from callbacks.
    pub follow: &'a Follow,
    /// Whether the agent gets a notice when the interaction expires or stalls (see [`Overdue`](super::Overdue)).
    pub notifies: bool,
    /// Whether the ledger adopts the interaction if it is unknown, whatever `store.unknown` says.
    pub adopts: bool,
    /// The longest time that the delivery can take. If the process dies, other processes wait for this time.
    pub delivery_max: Duration,
    /// The status, the progress and the other values that the callback reports.
    pub report: &'a Report,
}

impl<'a> Ask<'a> {
    /// Returns the interaction that the token names, or that the provider's id belongs to.
    pub fn interaction(&self) -> Option<&'a str> {
        self.granted.map(|granted| &*granted.interaction).or(self.matched)
    }

    /// Returns the input for a callback without a token, a provider and event keys. The caller adds what the callback
    /// has.
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

/// The proof that the ledger permits the delivery. Only the ledger creates it.
#[derive(Clone, Copy, Debug)]
pub struct Cleared {
    /// The number of the question that this callback asks, if it asks one.
    question: Option<u32>,
    /// Whether the reported progress is stale (see [`Stale`](super::Stale)).
    stale: bool,
}

impl Cleared {
    /// Creates the proof. Only a ledger is allowed to call this: `tests/tidy.rs` checks that no other module calls it.
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
