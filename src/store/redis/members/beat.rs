//! Writes the heartbeat of this process, and reads the heartbeats of the other processes that share the ledger.

use std::sync::Arc;
use std::time::Duration;

use redis::Value;

use super::{About, Members, member, parse_owner};
use crate::random::new_id;
use crate::store::redis::nodes::Failure;
use crate::store::redis::nodes::keys::Partition;
use crate::store::redis::nodes::scripts::{BEAT, FORGET};
use crate::store::redis::records::FORMAT;
use crate::store::redis::store::RedisStore;
use crate::time::Timestamp;

/// The interval between two attempts to write a heartbeat while the Redis server does not respond.
pub(in crate::store::redis) const BEAT_RETRY: Duration = Duration::from_secs(1);
/// The time without a heartbeat after which a process is removed from the list of processes.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(86_400);

impl RedisStore {
    /// Writes the heartbeat of this process, and reads the list of processes. Returns false if the Redis server did not
    /// respond.
    pub(in crate::store::redis) async fn beat(&self) -> bool {
        let about = About {
            address: self
                .owner()
                .as_deref()
                .and_then(parse_owner)
                .map(|owner| owner.address)
                .unwrap_or_default(),
            version: env!("CARGO_PKG_VERSION").into(),
        };
        let about = serde_json::to_vec(&about).unwrap_or_default();
        let Ok((now, values)) = self.send_beat(about).await else { return false };
        self.compare_clocks(now);
        let [name, _format, Value::Array(found)] = values.as_slice() else { return true };
        let all: Vec<_> = found.as_chunks::<2>().0.iter().filter_map(member).collect();
        let old = now.minus(FORGOTTEN_AFTER);
        let forgotten: Vec<_> = all.iter().filter(|member| member.beat < old).collect();
        if !forgotten.is_empty() {
            let arguments = forgotten.iter().map(|member| member.incarnation.as_bytes().to_vec()).collect();
            let _ = self.call(&FORGET, Partition::Members, vec![self.keys.members()], arguments).await;
        }
        let ledger = match name {
            Value::BulkString(name) => Some(name.clone()),
            _ => None,
        };
        let former = {
            let mut members = self.members.lock();
            let new = Members { all, ledger: ledger.clone(), read_at: Some(now) };
            std::mem::replace(&mut *members, Arc::new(new)).ledger.clone()
        };
        if former.is_some() && former != ledger {
            log::error!("the data of the store was replaced: interactions that it lacks are unknown now");
            self.metrics.store_replaced(true);
        }
        true
    }

    /// Removes this process from the list of processes that share the ledger.
    pub(in crate::store::redis) async fn leave(&self) {
        let _ = self.send_beat(Vec::new()).await;
    }

    /// Reads the list of processes that share the ledger, but does not add this process to the list. Returns the time
    /// of the Redis server and the list.
    pub(in crate::store::redis) async fn look_at_members(&self) -> Result<(Timestamp, Members), Failure> {
        let (now, values) = self.beat_as("", Vec::new()).await?;
        let [Value::BulkString(name), _format, Value::Array(found)] = values.as_slice() else {
            return Err(Failure::refused("the engine returned no members"));
        };
        let all = found.as_chunks::<2>().0.iter().filter_map(member).collect();
        Ok((now, Members { all, ledger: Some(name.clone()), read_at: Some(now) }))
    }

    /// Writes a heartbeat with the description of this process. If the description is empty, removes this process from
    /// the list. Returns the time of the Redis server and the other values of the script `BEAT`.
    async fn send_beat(&self, about: Vec<u8>) -> Result<(Timestamp, Vec<Value>), Failure> {
        self.beat_as(&self.incarnation, about).await
    }

    async fn beat_as(&self, incarnation: &str, about: Vec<u8>) -> Result<(Timestamp, Vec<Value>), Failure> {
        let keys = vec![self.keys.members(), self.keys.about()];
        let name = new_id("").unwrap_or_default().into_bytes();
        let arguments = vec![incarnation.as_bytes().to_vec(), about, name, FORMAT.to_string().into_bytes()];
        self.call(&BEAT, Partition::Members, keys, arguments).await
    }
}
