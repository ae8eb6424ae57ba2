//! What the event log already contains about other members, so that it does not repeat itself.

use std::collections::HashMap;

use parking_lot::Mutex;

use super::members::Presence;
use crate::proxy::listen::LogThrottle;
use crate::replica::Incarnation;

/// What the event log already contains, so that it does not repeat itself.
#[derive(Default)]
pub(super) struct Logged {
    pub(super) throttle: LogThrottle,
    /// The member whose interactions were taken over last.
    pub(super) taken_over_from: Mutex<Option<Incarnation>>,
    /// The presence of the members after the last round.
    pub(super) presences: Mutex<HashMap<Incarnation, Presence>>,
}
