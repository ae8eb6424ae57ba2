//! The progress of the slow walk through a shared ledger, which computes metrics.

use std::collections::HashMap;
use std::sync::Arc;

use crate::time::Timestamp;

/// The progress of the walk through the partitions for which this process is responsible.
#[derive(Debug, Default)]
pub(super) struct Walk {
    pub(super) steps: u32,
    /// The number of steps until the next walk begins.
    pub(super) pause: u32,
    pub(super) partition: usize,
    pub(super) cursor: Vec<u8>,
    pub(super) ids: Vec<String>,
    /// The number of open interactions of each route, and the creation time of the oldest open interaction.
    pub(super) routes: HashMap<Arc<str>, (i64, Timestamp)>,
}
