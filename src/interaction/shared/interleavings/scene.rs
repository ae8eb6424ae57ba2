//! What happens in a search: the scene, and the operations on the record.

use crate::interaction::EventKey;
use crate::time::Timestamp;

/// A record in the memory of a member, or 0 if there is none.
pub(super) type Held = u32;

/// The length of a tick in seconds. A lease lasts one tick.
pub(super) const TICK: i64 = 10;
pub(super) const DEADLINE: i64 = 2 * TICK;
/// The expiry of the token. From then on, the record can be removed.
pub(super) const EXPIRES: i64 = DEADLINE;
/// The last tick.
pub(super) const TICKS: i64 = 2;

/// What happens in one search.
#[derive(Clone, Copy, Default)]
pub(super) struct Scene {
    pub(super) uses: Option<u32>,
    /// The second event ends the interaction.
    pub(super) is_final: bool,
    /// How many callbacks arrive. The third one is the first event again.
    pub(super) events: usize,
    pub(super) revokes: bool,
    /// How many looks at the deadline begin.
    pub(super) looks: u8,
    pub(super) crashes: u8,
    /// How many calls have no response.
    pub(super) faults: u8,
    /// How often an agent does not accept a callback.
    pub(super) refusals: u8,
}

/// What a member does.
#[derive(Clone, Copy, Debug)]
pub(super) enum Job {
    Callback(usize),
    Look,
    Revoke,
}

/// One operation on a record.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(super) enum Kind {
    Claim(usize),
    Settle(usize),
    Fail,
    Pass,
    /// The agent has accepted the notice of this time, whose lease ends at this tick.
    Noticed(i64, i64),
    Revoke,
}

/// What follows an operation.
#[derive(Clone, Copy, Debug)]
pub(super) enum Then {
    /// The agent receives the event. The lease ends at this tick.
    Deliver(usize, i64),
    /// The agent receives the notice of this time. The lease ends at this tick.
    Send(i64, i64),
    Poll(usize),
    Duplicate(usize),
    Settled(usize),
    Noticed,
    Revoked,
    /// The caller receives an error, or nothing more happens.
    Failed,
}

impl Kind {
    pub(super) fn number(self) -> u64 {
        match self {
            Self::Claim(event) => event as u64,
            Self::Settle(event) => 4 + event as u64,
            Self::Fail => 8,
            Self::Pass => 9,
            Self::Noticed(_, until) => 16 + until as u64,
            Self::Revoke => 10,
        }
    }
}

impl Then {
    pub(super) fn number(self) -> u64 {
        match self {
            Self::Deliver(event, until) => 0x100 + ((until as u64) << 1) + event as u64,
            Self::Send(_, until) => 0x200 + until as u64,
            Self::Poll(event) => 0x10 + event as u64,
            Self::Duplicate(event) => 0x20 + event as u64,
            Self::Settled(event) => 0x30 + event as u64,
            Self::Noticed => 0x40,
            Self::Revoked => 0x41,
            Self::Failed => 0x42,
        }
    }
}

pub(super) fn at(seconds: i64) -> Timestamp {
    Timestamp::from_unix_secs(1000 + seconds)
}

/// The key of an event.
pub(super) fn key(event: usize) -> EventKey {
    EventKey(1 + event as u128)
}
