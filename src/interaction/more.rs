//! The fields of an interaction's record that most open interactions do not need.

use std::num::NonZeroI64;

use serde::{Deserialize, Serialize};

use super::events::{Events, FailedEvent};
use super::notice::{Informed, Notice, Undelivered};
use super::questions::Question;

/// The fields of an interaction's record that most open interactions do not need. They are in a box, so that records
/// without them stay small.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub(super) struct More {
    /// The status that the callbacks reported last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) status: Option<Box<str>>,
    /// The highest progress that a callback reported.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) progress: Option<f64>,
    /// The time at which the interaction ended, in Unix milliseconds. `None` while the interaction is open, and if it
    /// ended at about its deadline.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) ended: Option<NonZeroI64>,
    #[serde(skip)]
    pub(super) events: Events,
    /// Whether the ledger has removed the fingerprints of the delivered events because the interaction is over.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) events_forgotten: bool,
    #[serde(default)]
    pub(super) event_ids: Vec<Box<str>>,
    #[serde(default)]
    pub(super) questions: Vec<Question>,
    #[serde(default)]
    pub(super) questions_asked: u32,
    #[serde(default)]
    pub(super) provider_id: Option<Box<str>>,
    #[serde(default)]
    pub(super) notice: Option<Notice>,
    /// The number of failed deliveries of verified callbacks, and the time of the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) undelivered: Option<Undelivered>,
    /// The number of changes of `notice`, `undelivered` and `informed`. Of two copies of a record, the copy with more
    /// changes is newer. The values of these fields do not show which copy is newer, because a notice can be removed
    /// and added again.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(super) changes: u32,
    /// The callbacks that the agent has not accepted yet, each with the number of failed attempts. The list is not
    /// stored, so it is empty after a restart.
    #[serde(skip)]
    pub(super) failed: Vec<FailedEvent>,
    /// Whether the agent received an error for its request. The error does not show whether the provider accepted the
    /// request.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) is_doubtful: bool,
    /// The last callbacks and notices that the agent has accepted, for display.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) informed: Vec<Informed>,
    /// Whether callbacks are matched to the interaction by the provider's task id, and not by a token.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) is_matched: bool,
    /// The id of the process that minted the token, if that process has handed over the interaction.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) origin: Option<Box<str>>,
    /// The events that were delivered by other processes or with other ledgers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) inherited: Vec<Inherited>,
}

impl More {
    /// Counts a change of `notice`, `undelivered` or `informed`.
    pub(super) fn count_change(&mut self) {
        self.changes = self.changes.saturating_add(1);
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// Events of an interaction that were delivered by another process, or by this process with another ledger. They are
/// added when the record is handed over or copied.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct Inherited {
    /// The secret key of the hash function with which the fingerprints were computed.
    pub key: [u64; 2],
    /// The fingerprints of the delivered events.
    pub events: Vec<u64>,
}
