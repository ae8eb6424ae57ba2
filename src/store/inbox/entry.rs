//! A message of the inbox in memory. Its head and body are only in the ledger.

use serde::{Deserialize, Serialize};

use crate::inbox::{Cause, MessageState, Tries};
use crate::time::Timestamp;

/// The lane of messages without an interaction, which do not wait for each other. The lane of any other message is the
/// fingerprint of its interaction, by which the messages of the interaction are ordered.
pub(super) const NO_LANE: u64 = 0;

/// A message of the inbox in memory, without its head and body. It is small, because very many messages may wait.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    /// The fingerprint of the message's interaction, or [`NO_LANE`]. Messages with the same fingerprint are delivered
    /// in order.
    pub(super) lane: u64,
    /// A time in Unix milliseconds. Its meaning depends on the state of the message: the next attempt (due), the time
    /// at which the present attempt was due (being delivered), the end of the lease (pulled), or the delivery or death.
    pub(super) at: i64,
    /// The time at which the period for attempts began, in Unix milliseconds. For a delivered or dead message, the end
    /// of the retention.
    pub(super) since: i64,
    /// The size of head and body, in bytes.
    pub(super) bytes: u32,
    /// The index of the message's route in the list of routes.
    pub(super) route: u16,
    pub(super) tries: Tries,
    pub(super) state: MessageState,
    pub(super) cause: Option<Cause>,
    pub(super) is_progress: bool,
    /// Whether an operator has replayed the message, so that `since` is later than the time of acceptance.
    pub(super) is_replayed: bool,
    /// Whether an agent has pulled the message and works on it. The lease ends at `at`.
    pub(super) is_pulled: bool,
}

/// The state of a message in the ledger. A message without a state in the ledger is due and was never attempted.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) struct StoredState {
    pub(super) state: MessageState,
    pub(super) at: i64,
    pub(super) since: i64,
    pub(super) tries: Tries,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) cause: Option<Cause>,
    /// The result of the last attempt, as a text for operators.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) last: Option<Box<str>>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) is_replayed: bool,
}

impl Entry {
    /// Returns the state of the message as the ledger contains it (JSON). A leased message is stored as due, because a
    /// lease does not outlast the process.
    pub(super) fn stored(&self, last: Option<&str>) -> Vec<u8> {
        let state = if self.state == MessageState::Leased { MessageState::Due } else { self.state };
        let (at, since, tries, cause) = (self.at, self.since, self.tries, self.cause);
        let is_replayed = self.is_replayed;
        let stored = StoredState { state, at, since, tries, cause, last: last.map(Into::into), is_replayed };
        serde_json::to_vec(&stored).unwrap_or_default()
    }

    pub(super) fn at(&self) -> Timestamp {
        Timestamp::from_unix_ms(self.at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_stays_small() {
        assert!(size_of::<Entry>() <= 56, "{}", size_of::<Entry>());
    }
}
