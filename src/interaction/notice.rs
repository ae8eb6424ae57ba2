//! The notice that tells the agent that a callback did not arrive in time, and the record of what the agent has accepted.

use serde::{Deserialize, Serialize};

use crate::time::Timestamp;

/// A notice that must be sent to the agent.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Notice {
    /// The cause of the notice.
    pub cause: Overdue,
    pub(super) since: i64,
    #[serde(default)]
    pub(super) attempts: u32,
    #[serde(default)]
    pub(super) next: i64,
    #[serde(skip)]
    pub(super) in_flight: bool,
}

/// Identifies a notice. The notice about a later stall of the same interaction has another id.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct NoticeId {
    /// The cause of the notice.
    pub cause: Overdue,
    pub(super) since: i64,
}

impl Notice {
    /// Ends an attempt that another process cannot know, so that the notice is sent again.
    pub(super) fn reset(&mut self) {
        self.in_flight = false;
    }

    pub(super) fn id(&self) -> NoticeId {
        NoticeId { cause: self.cause, since: self.since }
    }
}

/// The cause of a notice.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Overdue {
    /// The final callback did not arrive in time.
    Expired,
    /// No callback arrived for too long.
    Stalled,
    /// A callback arrived, and Callgate has given up to deliver it.
    Undelivered,
}

impl Overdue {
    /// Returns `expired`, `stalled` or `undelivered`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Expired => "expired",
            Self::Stalled => "stalled",
            Self::Undelivered => "undelivered",
        }
    }
}

/// Counts the verified callbacks that the agent did not accept.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Undelivered {
    /// Number of failed deliveries.
    pub count: u32,
    /// Time of the last failed delivery, in Unix milliseconds.
    pub(super) last: i64,
}

impl Undelivered {
    /// Returns the time of the last failed delivery.
    pub fn last_at(self) -> Timestamp {
        Timestamp::from_unix_ms(self.last)
    }

    /// Returns the JSON of notices and of the callbacks API: `{"count": …, "last_at": RFC 3339}`.
    pub fn to_json(self) -> serde_json::Value {
        serde_json::json!({ "count": self.count, "last_at": self.last_at().to_string() })
    }
}

/// A callback or a notice that the agent has accepted.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Informed {
    /// What the agent has accepted.
    pub by: InformedBy,
    pub(super) at: i64,
}

/// What the agent has accepted.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum InformedBy {
    /// A callback that did not end the interaction.
    Callback,
    /// The callback that ended the interaction.
    FinalCallback,
    /// The notice that the interaction has expired.
    Expired,
    /// The notice that no callback arrived for too long.
    Stalled,
    /// The notice that Callgate has given up to deliver a callback.
    Undelivered,
    /// Something that a later version has recorded.
    #[serde(other)]
    Unknown,
}

/// The result of sending a notice.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum NoticeResult {
    /// The agent accepted it.
    Accepted,
    /// It cannot be sent any more, for example because its route is gone.
    Abandoned,
    /// It is sent again later.
    Failed,
}

impl InformedBy {
    /// Returns a callback that has ended the interaction or not.
    pub fn of_callback(has_ended: bool) -> Self {
        if has_ended { Self::FinalCallback } else { Self::Callback }
    }

    /// Reports whether the agent knows by this that the interaction has ended.
    pub(super) fn is_end(self) -> bool {
        matches!(self, Self::FinalCallback | Self::Expired)
    }
}

impl From<Overdue> for InformedBy {
    fn from(cause: Overdue) -> Self {
        match cause {
            Overdue::Expired => Self::Expired,
            Overdue::Stalled => Self::Stalled,
            Overdue::Undelivered => Self::Undelivered,
        }
    }
}

impl Informed {
    /// Returns the time at which the ledger recorded that the agent has accepted it.
    pub fn at(self) -> Timestamp {
        Timestamp::from_unix_ms(self.at)
    }
}
