//! Notices to the agent about callbacks that did not arrive in time or were not delivered. Also the list of the
//! callbacks and notices that the agent has accepted.

use serde::{Deserialize, Serialize};

use crate::time::Timestamp;

/// A pending notice to the agent about an interaction.
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

/// Identifies a notice of an interaction by its cause and its time. Two notices about two stalls of the same
/// interaction therefore have different ids.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct NoticeId {
    /// The cause of the notice.
    pub cause: Overdue,
    pub(super) since: i64,
}

impl Notice {
    /// Ends an attempt to send the notice, because the result of the attempt is unknown. The notice is sent again.
    pub(super) fn reset(&mut self) {
        self.in_flight = false;
    }

    pub(super) fn id(&self) -> NoticeId {
        NoticeId { cause: self.cause, since: self.since }
    }
}

/// The cause of a notice to the agent.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Overdue {
    /// The final callback did not arrive in time.
    Expired,
    /// No callback arrived for too long.
    Stalled,
    /// A callback arrived, and Callgate has given up its delivery.
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

/// The failed deliveries of verified callbacks to the agent.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Undelivered {
    /// The number of failed deliveries.
    pub count: u32,
    /// The time of the last failed delivery, in Unix milliseconds.
    pub(super) last: i64,
}

impl Undelivered {
    /// Returns the time of the last failed delivery.
    pub fn last_at(self) -> Timestamp {
        Timestamp::from_unix_ms(self.last)
    }

    /// Returns the JSON object for notices and for the callbacks API: `{"count": …, "last_at": …}`. The time is in RFC
    /// 3339 format.
    pub fn to_json(self) -> serde_json::Value {
        serde_json::json!({ "count": self.count, "last_at": self.last_at().to_string() })
    }
}

/// A callback or a notice that the agent has accepted, and the time at which the ledger recorded this.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Informed {
    /// The kind of the accepted callback or notice.
    pub by: InformedBy,
    pub(super) at: i64,
}

/// The kind of a callback or a notice that the agent has accepted.
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
    /// The notice that Callgate has given up the delivery of a callback.
    Undelivered,
    /// A kind that only a later version of Callgate defines.
    #[serde(other)]
    Unknown,
}

/// The result of an attempt to send a notice to the agent.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum NoticeResult {
    /// The agent accepted the notice.
    Accepted,
    /// The notice cannot be sent any more, for example because its route was removed from the configuration.
    Abandoned,
    /// The attempt failed. The notice is sent again later.
    Failed,
}

impl InformedBy {
    /// Returns [`Self::FinalCallback`] if an accepted callback ended the interaction, and otherwise [`Self::Callback`].
    pub fn of_callback(has_ended: bool) -> Self {
        if has_ended { Self::FinalCallback } else { Self::Callback }
    }

    /// Reports whether a callback or a notice of this kind informs the agent about the end of the interaction.
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
    /// Returns the time at which the ledger recorded that the agent had accepted the callback or the notice.
    pub fn at(self) -> Timestamp {
        Timestamp::from_unix_ms(self.at)
    }
}
