//! The progress of the slow walk through the ledger.

use std::collections::HashMap;
use std::sync::Arc;

use crate::time::Timestamp;

/// The progress of the walk through the partitions that this process watches over.
#[derive(Debug, Default)]
pub(super) struct Walk {
    pub(super) steps: u32,
    /// The number of steps until the next walk begins.
    pub(super) pause: u32,
    pub(super) partition: usize,
    pub(super) cursor: Vec<u8>,
    pub(super) ids: Vec<String>,
    /// The number of open interactions of each route, and the creation of the oldest one.
    pub(super) routes: HashMap<Arc<str>, (i64, Timestamp)>,
}
