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
    /// For each route: the number of its open interactions, and the creation time of the oldest of them.
    pub(super) routes: HashMap<Arc<str>, (i64, Timestamp)>,
}
