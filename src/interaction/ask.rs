//! What is asked of the ledger before a verified callback is delivered, and what it may answer.

use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::report::{Follow, Report};
use crate::denial::Refusal;
use crate::path::Captures;
use crate::token::Granted;

/// The event that a callback is, for telling duplicates: a digest of the route, of the interaction (or, without
/// one, of the captures), and of what the provider calls the event by.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct EventKey(pub u128);

impl EventKey {
    /// The key of an event. `kind` keeps ids and signatures apart.
    pub fn new(route: &str, scope: Scope<'_>, kind: &str, event: &[u8]) -> Self {
        let mut digest = Sha256::new();
        let mut field = |bytes: &[u8]| {
            digest.update((bytes.len() as u64).to_le_bytes());
            digest.update(bytes);
        };
        field(route.as_bytes());
        match scope {
            Scope::Interaction(id) => field(id.as_bytes()),
            Scope::Captures(captures) => captures.iter().for_each(|(name, value)| {
                field(name.as_bytes());
                field(value.as_bytes());
            }),
        }
        field(kind.as_bytes());
        field(event);
        let half = digest.finalize().first_chunk().copied().unwrap_or_default();
        Self(u128::from_be_bytes(half) >> 8 << 8 | u128::from(scope.part()))
    }

    /// The part of a ledger in which the event is kept: that of its scope.
    pub fn part(self) -> u8 {
        u8::try_from(self.0 & 0xff).unwrap_or_default()
    }
}

/// Within what an event's id must be unique.
#[derive(Clone, Copy, Debug)]
pub enum Scope<'a> {
    /// The captures of a route whose tokens name no interaction.
    Captures(&'a Captures),
    /// An interaction.
    Interaction(&'a str),
}

impl Scope<'_> {
    /// The part of a ledger in which everything of this scope is kept, the same after every start (FNV-1a).
    pub fn part(self) -> u8 {
        let step = |hash: u32, byte: u8| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193);
        let over = |hash: u32, text: &str| text.bytes().fold(hash, step);
        let hash = match self {
            Self::Interaction(id) => over(0x811c_9dc5, id),
            Self::Captures(captures) => {
                captures.iter().fold(0x811c_9dc5, |hash, (_, value)| over(hash, value))
            }
        };
        hash.to_be_bytes().into_iter().fold(0, |folded, byte| folded ^ byte)
    }
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

impl Ask<'_> {
    /// What decides in which part of a ledger everything about this callback is kept.
    pub fn scope(&self) -> Scope<'_> {
        match self.granted {
            Some(granted) => Scope::Interaction(&granted.interaction),
            None => Scope::Captures(self.captures),
        }
    }
}

/// The proof that the ledger was asked and had nothing against it. Only the ledger makes it.
#[derive(Clone, Copy, Debug)]
pub struct Cleared {
    /// The number of the question that this callback asks, where it asks one.
    question: Option<u32>,
}

impl Cleared {
    /// For the ledger alone.
    #[cfg(feature = "proxy")]
    pub(crate) fn by_the_ledger(question: Option<u32>) -> Self {
        Self { question }
    }

    /// The number of the question that this callback asks, where it asks one.
    pub fn question(self) -> Option<u32> {
        self.question
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
