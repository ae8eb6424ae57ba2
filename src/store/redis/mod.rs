//! The ledger on Redis or Valkey, which several processes share.
//!
//! The Redis server stores versioned records, and compares and sets them. It contains no rules about interactions: each
//! process reads a record, applies the state machine of [`SharedRecord`](crate::interaction::SharedRecord), and writes
//! the record back if no other process has changed it meanwhile. A call whose response is lost may have been executed,
//! or may still be executed. Its effect is then looked up by the version of the record or by the id of the claim.

mod callbacks;
mod copy;
mod deadlines;
mod events;
mod health;
mod matching;
mod members;
mod messages;
mod nodes;
mod operations;
mod probe;
mod reading;
mod records;
mod schedule;
#[cfg(test)]
mod simulation;
mod start;
mod store;
mod walk;

pub(super) use self::callbacks::SharedClaim;
pub(super) use self::copy::Use;
pub(super) use self::deadlines::Found;
pub(super) use self::matching::SharedAwait;
pub(super) use self::messages::{KnownMessages, MessageChange, StoredHead, Suspects, TakenOver};
pub(super) use self::nodes::keys::PARTITIONS;
pub(super) use self::operations::SharedTaken;
pub(super) use self::records::{NewMessage, NotChanged, Placed};
#[cfg(test)]
pub(super) use self::simulation::SimulatedLedger;
pub(super) use self::store::RedisStore;
