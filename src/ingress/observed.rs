//! Requests that Callgate delivers although a check failed, because their route is in observe mode. They are delivered
//! as received. The ledger does not record them. They have no assertion, and their only `Callgate-*` headers are
//! `Callgate-Content` and `Callgate-Observed`.

use std::sync::Arc;

use super::decide::{Admitted, Seen};
use super::route::Route;
use crate::denial::Denial;

/// What Callgate does with a verified request that gets no permit. The request is denied, or delivered in observe mode.
#[derive(Debug)]
pub enum Turned {
    /// The request is not delivered.
    Away(Box<Seen>),
    /// The request is delivered nevertheless, because its route is in observe mode.
    Observed(Box<Observed>),
}

/// A request that is delivered only because its route is in observe mode. The gate did not permit it.
#[derive(Debug)]
pub struct Observed {
    pub(super) admitted: Box<Admitted>,
    pub(super) target: String,
    /// The verdict that the request would receive in enforce mode: the code of a denial, `handshake`, `duplicate` or
    /// `stale`.
    pub(super) instead: &'static str,
}

impl Observed {
    /// Returns the internal request target (path and query at the agent).
    pub fn target(&self) -> &str {
        &self.target
    }

    /// Returns the verdict that the request would receive in enforce mode: the code of the first denial, `handshake`,
    /// `duplicate` or `stale`.
    pub fn instead(&self) -> &'static str {
        self.instead
    }

    /// Returns the denials that observe mode recorded instead of enforcing them.
    pub fn denials(&self) -> &[Denial] {
        &self.admitted.found.observed
    }

    /// Returns the route.
    pub fn route(&self) -> &Arc<Route> {
        &self.admitted.route
    }

    /// Returns the data about this request for the log and the metrics.
    pub fn into_seen(self) -> Seen {
        self.admitted.into_seen()
    }
}
