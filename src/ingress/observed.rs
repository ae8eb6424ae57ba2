//! What comes of a request on a route that only observes, where a gate would have refused it: it is delivered as it
//! came, and is no permit. The ledger does not hear of it, and nothing vouches for it to the agent.

use std::sync::Arc;

use super::decide::{Admitted, Seen};
use super::route::Route;
use crate::denial::Denial;

/// What becomes of a verified request that is not let through after all.
#[derive(Debug)]
pub enum Turned {
    /// It is not delivered.
    Away(Box<Seen>),
    /// Its route only observes.
    Observed(Box<Observed>),
}

/// A request that is delivered though its route's gate would not have let it through.
#[derive(Debug)]
pub struct Observed {
    pub(super) admitted: Box<Admitted>,
    pub(super) target: String,
    /// What would have become of it: a denial's code, `handshake`, `duplicate` or `stale`.
    pub(super) instead: &'static str,
}

impl Observed {
    /// The internal request target.
    pub fn target(&self) -> &str {
        &self.target
    }

    /// What would have become of it: the code of the first denial, `handshake`, `duplicate` or `stale`.
    pub fn instead(&self) -> &'static str {
        self.instead
    }

    /// Every denial there would have been.
    pub fn denials(&self) -> &[Denial] {
        &self.admitted.found.observed
    }

    /// The route.
    pub fn route(&self) -> &Arc<Route> {
        &self.admitted.route
    }

    /// What is known of it.
    pub fn into_seen(self) -> Seen {
        self.admitted.into_seen()
    }
}
