//! What is asked of the ledger before a verified callback is delivered, and what it may answer.

use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::report::{Follow, Report};
use crate::denial::Refusal;
use crate::path::Captures;
use crate::token::Granted;

/// The event that a callback is, for telling duplicates within its scope.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct EventKey(pub u128);

impl EventKey {
    /// The key of an event by the provider's id of it.
    pub fn of_id(route: &str, scope: Scope<'_>, id: &[u8]) -> Self {
        Self(Self::digest(route, scope, b"id", id) | 1)
    }

    /// The key of an event by its MAC, which is as good as random already: among the events of one interaction nothing
    /// has to be added to it.
    pub fn of_tag(route: &str, scope: Scope<'_>, tag: &[u8]) -> Self {
        let whole = match scope {
            Scope::Interaction(_) => first_half(tag),
            Scope::Captures(_) => Self::digest(route, scope, b"signature", tag),
        };
        Self(whole & !1)
    }

    fn digest(route: &str, scope: Scope<'_>, kind: &[u8], event: &[u8]) -> u128 {
        // One buffer and one digest: an update for each field costs more than the digest does.
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

/// The first 16 bytes; a MAC or digest has more.
fn first_half(bytes: &[u8]) -> u128 {
    bytes.first_chunk().copied().map_or(0, u128::from_be_bytes)
}

/// Within what an event's id must be unique.
#[derive(Clone, Copy, Debug)]
pub enum Scope<'a> {
    /// The captures of a route whose tokens name no interaction.
    Captures(&'a Captures),
    /// An interaction.
    Interaction(&'a str),
}

/// What the ledger is asked: may this verified callback be delivered now?
#[derive(Clone, Copy, Debug)]
pub struct Ask<'a> {
    /// The route.
    pub route: &'a Arc<str>,
    /// Its provider.
    pub provider: Option<&'a Arc<str>>,
    /// What the path captured.
    pub captures: &'a Captures,
    /// The interaction, where the token names one.
    pub granted: Option<&'a Granted>,
    /// By what the event is known; any of them that was delivered makes it a duplicate.
    pub events: &'a [EventKey],
    /// The provider's id of the event, for people.
    pub event_id: Option<&'a str>,
    /// How the route follows its interactions.
    pub follow: &'a Follow,
    /// Whether the agent is told when an interaction lapses.
    pub notifies: bool,
    /// What the body reports.
    pub report: &'a Report,
}

/// The proof that the ledger was asked and had nothing against it. Only the ledger makes it.
#[derive(Clone, Copy, Debug)]
pub struct Cleared {
    /// The number of the question that this callback asks, where it asks one.
    question: Option<u32>,
    /// What it reports is overtaken.
    stale: bool,
}

impl Cleared {
    /// For the ledger alone.
    #[cfg(feature = "proxy")]
    pub(crate) fn by_the_ledger(question: Option<u32>, stale: bool) -> Self {
        Self { question, stale }
    }

    /// The number of the question that this callback asks, where it asks one.
    pub fn question(self) -> Option<u32> {
        self.question
    }

    /// Whether what the callback reports is overtaken, and delivered all the same.
    pub fn is_stale(self) -> bool {
        self.stale
    }
}

/// Why a verified callback is not delivered.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Held {
    /// It was delivered already: the caller is told so with 200.
    Duplicate,
    /// The ledger refuses it.
    Refused(Refusal),
    /// It reports progress that is overtaken, and the route drops such: 200.
    Stale,
}
