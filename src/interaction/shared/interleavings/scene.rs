//! The input of a search: the number of callbacks and failures. Also the operations on the record, and the next step of
//! a process after each operation.

use crate::interaction::EventKey;
use crate::time::Timestamp;

/// The number of a record: its index in `Records::held`. 0 means that there is no record.
pub(super) type Held = u32;

/// The length of a tick in seconds. A lease lasts one tick.
pub(super) const TICK: i64 = 10;
pub(super) const DEADLINE: i64 = 2 * TICK;
/// The time at which the token expires, in seconds. From this time on, the record of the interaction can be removed.
pub(super) const EXPIRES: i64 = DEADLINE;
/// The number of the last tick.
pub(super) const TICKS: i64 = 2;

/// The callbacks and failures that a search tries in all orders.
#[derive(Clone, Copy, Default)]
pub(super) struct Scene {
    pub(super) uses: Option<u32>,
    /// Whether the second event ends the interaction.
    pub(super) is_final: bool,
    /// The number of callbacks that arrive. If it is 3, the third callback repeats the event of the first.
    pub(super) events: usize,
    pub(super) revokes: bool,
    /// The number of times that a process checks the deadline.
    pub(super) looks: u8,
    pub(super) crashes: u8,
    /// The number of calls to the store that get no response.
    pub(super) faults: u8,
    /// The number of times that an agent does not accept a callback.
    pub(super) refusals: u8,
}

/// The job of a process: to deliver the callback with this number, to check the deadline, or to revoke the interaction.
#[derive(Clone, Copy, Debug)]
pub(super) enum Job {
    Callback(usize),
    Look,
    Revoke,
}

/// One operation on the record of the interaction.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(super) enum Kind {
    Claim(usize),
    Settle(usize),
    Fail,
    Pass,
    /// The agent has accepted the notice. The fields are the time of the notice and the tick at which its lease ends.
    Noticed(i64, i64),
    Revoke,
}

/// The next step of a process after an operation.
#[derive(Clone, Copy, Debug)]
pub(super) enum Then {
    /// The agent receives the event. The fields are the number of the event and the tick at which the lease ends.
    Deliver(usize, i64),
    /// The agent receives the notice. The fields are the time of the notice and the tick at which its lease ends.
    Send(i64, i64),
    Poll(usize),
    Duplicate(usize),
    Settled(usize),
    Noticed,
    Revoked,
    /// The process does nothing more. If the operation was for a callback, the caller receives an error.
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

/// Returns the key of the event with this number.
pub(super) fn key(event: usize) -> EventKey {
    EventKey(1 + event as u128)
}
