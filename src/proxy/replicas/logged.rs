//! What the event log already contains about other replicas, so that nothing is logged twice.

use std::collections::HashMap;

use parking_lot::Mutex;

use super::liveness::Presence;
use crate::proxy::listen::LogThrottle;
use crate::replica::Incarnation;

/// What the event log already contains about other replicas, so that nothing is logged twice.
#[derive(Default)]
pub(super) struct Logged {
    pub(super) throttle: LogThrottle,
    /// The id of the replica whose interactions were moved to this process most recently.
    pub(super) taken_over_from: Mutex<Option<Incarnation>>,
    /// The state of each replica (reachable, unreachable or dead) after the last round of discovery, by replica id.
    pub(super) presences: Mutex<HashMap<Incarnation, Presence>>,
}
