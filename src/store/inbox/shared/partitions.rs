//! The partitions of the ledger, as far as messages are concerned.

/// The number of partitions. The number of a message is congruent to its partition.
pub(super) const PARTITIONS: u64 = crate::store::redis::PARTITIONS as u64;
