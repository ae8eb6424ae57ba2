//! The partitions of a shared ledger, as far as messages are concerned.

/// The number of partitions of a shared ledger. The partition of a message is its number modulo this constant.
pub(super) const PARTITIONS: u64 = crate::store::redis::PARTITIONS as u64;
