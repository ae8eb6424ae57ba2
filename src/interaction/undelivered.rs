//! The number of callbacks that the agent did not accept.

use serde::{Deserialize, Serialize};

use crate::time::Timestamp;

/// Counts the verified callbacks that arrived and that the agent did not accept.
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
