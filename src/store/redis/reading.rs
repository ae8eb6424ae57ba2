//! Reads interactions: one, a list, and slowly all of them for the metrics.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use redis::Value;

use super::members::parse_owner;
use super::nodes::Failure;
use super::nodes::keys::{PARTITIONS, Partition};
use super::nodes::scripts::{COUNT, SCAN};
use super::records::unavailable;
use super::store::RedisStore;
use super::walk::Walk;
use crate::denial::Refusal;
use crate::interaction::{Interaction, SharedRecord};
use crate::store::outcome::{NO_ROUTE, OwnedInteraction};
use crate::time::Timestamp;

/// The approximate number of ids that one call reads.
const SCAN_COUNT: usize = 500;
/// The number of records that one step of the walk reads. There are four steps per second, so that a large ledger costs
/// the engine little.
const STEP: usize = 100;
/// The number of steps between two counts of all interactions.
const STEPS_PER_COUNT: u32 = 40;
/// The number of steps between two walks.
const STEPS_PER_WALK: u32 = 60;

impl RedisStore {
    /// Returns the record of an interaction.
    pub(in crate::store) async fn read(&self, id: &str) -> Result<Option<SharedRecord>, Refusal> {
        Ok(self.load(id, &[]).await?.record)
    }

    /// Returns the interaction of a record, and the address of its owner.
    pub(in crate::store) fn owned(record: SharedRecord) -> OwnedInteraction {
        let owner = record.owner.as_deref().and_then(parse_owner);
        (record.interaction, owner.map(|owner| owner.address))
    }

    /// Returns the first `limit` interactions that are `wanted` and whose ids come after `after`, in the order of ids.
    pub(in crate::store) async fn list(
        &self,
        after: &str,
        limit: usize,
        wanted: impl Fn(&Interaction) -> bool,
    ) -> Result<BTreeMap<Arc<str>, OwnedInteraction>, Refusal> {
        let mut ids = BTreeSet::new();
        for partition in Partition::all() {
            let mut cursor = b"0".to_vec();
            loop {
                let (next, some) =
                    self.scan(partition, &cursor).await.map_err(|failure| unavailable(&failure))?;
                ids.extend(some.into_iter().filter(|id| **id > *after));
                if next == b"0" {
                    break;
                }
                cursor = next;
            }
        }
        let mut found = BTreeMap::new();
        for id in ids {
            if found.len() >= limit {
                break;
            }
            if let Some(record) = self.load(&id, &[]).await?.record
                && wanted(&record.interaction)
            {
                found.insert(Arc::from(id), Self::owned(record));
            }
        }
        Ok(found)
    }

    /// Reads some ids of a partition. Returns the cursor for the next call.
    pub(super) async fn scan(
        &self,
        partition: Partition,
        cursor: &[u8],
    ) -> Result<(Vec<u8>, Vec<String>), Failure> {
        let (next, pairs) = self.scan_set(partition, self.keys.due(partition), cursor).await?;
        Ok((next, pairs.into_iter().filter_map(|(id, _)| String::from_utf8(id).ok()).collect()))
    }

    /// Reads some members of a sorted set with their scores as text. Returns the cursor for the next call.
    pub(super) async fn scan_set(
        &self,
        partition: Partition,
        key: String,
        cursor: &[u8],
    ) -> Result<(Vec<u8>, Vec<(Vec<u8>, Vec<u8>)>), Failure> {
        let arguments = vec![cursor.to_vec(), SCAN_COUNT.to_string().into_bytes()];
        let (_, values) = self.call(&SCAN, partition, vec![key], arguments).await?;
        let [Value::BulkString(next), Value::Array(pairs)] = values.as_slice() else {
            return Ok((b"0".to_vec(), Vec::new()));
        };
        let pair = |pair: &[Value; 2]| match pair {
            [Value::BulkString(member), Value::BulkString(score)] => Some((member.clone(), score.clone())),
            _ => None,
        };
        Ok((next.clone(), pairs.as_chunks::<2>().0.iter().filter_map(pair).collect()))
    }

    /// Performs one step of the walk through the ledger, which finds the number of open interactions and the oldest one
    /// of each route.
    pub(in crate::store) async fn walk(&self, now: Timestamp) {
        if self.health.is_failing() {
            return;
        }
        let mut walk = std::mem::take(&mut *self.walk.lock());
        if walk.steps.is_multiple_of(STEPS_PER_COUNT) {
            self.count_all().await;
        }
        walk.steps = walk.steps.wrapping_add(1);
        if walk.pause > 0 {
            walk.pause -= 1;
            *self.walk.lock() = walk;
            return;
        }
        let watched = self.members.lock().first_watched(&self.incarnation, now);
        if walk.ids.is_empty() {
            walk = self.next_ids(walk, &watched).await;
        }
        let rest = walk.ids.len().saturating_sub(STEP);
        for id in walk.ids.split_off(rest) {
            if let Ok(loaded) = self.load(&id, &[]).await
                && let Some(record) = loaded.record
                && record.interaction.state.is_open()
                && *record.interaction.route != *NO_ROUTE
            {
                let created = record.interaction.created();
                let (count, oldest) =
                    walk.routes.entry(Arc::clone(&record.interaction.route)).or_insert((0, created));
                *count += 1;
                *oldest = created.min(*oldest);
            }
        }
        if walk.partition >= PARTITIONS && walk.ids.is_empty() {
            let age =
                |created: Timestamp| now.unix_ms().saturating_sub(created.unix_ms()).max(0) as f64 / 1000.0;
            self.metrics.oldest(walk.routes.iter().map(|(route, (_, created))| (&**route, age(*created))));
            self.metrics.shared_open(walk.routes.iter().map(|(route, (count, _))| (&**route, *count)));
            walk = Walk { steps: walk.steps, pause: STEPS_PER_WALK, ..Walk::default() };
        }
        *self.walk.lock() = walk;
    }

    /// Reads the next ids of the partitions that this process walks through.
    async fn next_ids(&self, mut walk: Walk, watched: &[bool; PARTITIONS]) -> Walk {
        while walk.ids.is_empty() && walk.partition < PARTITIONS {
            let number = u8::try_from(walk.partition).unwrap_or_default();
            if !watched.get(walk.partition).is_some_and(|watched| *watched) {
                walk.partition += 1;
                continue;
            }
            let cursor = if walk.cursor.is_empty() { b"0" } else { walk.cursor.as_slice() };
            let Ok((next, ids)) = self.scan(Partition::Number(number), cursor).await else { break };
            walk.ids = ids;
            walk.cursor = next;
            if walk.cursor == b"0" {
                walk.cursor.clear();
                walk.partition += 1;
            }
        }
        walk
    }

    /// Counts the interactions of all members.
    async fn count_all(&self) {
        let mut total = 0;
        for partition in Partition::all() {
            let counted = self.call(&COUNT, partition, vec![self.keys.due(partition)], Vec::new()).await;
            let Ok((_, values)) = counted else { return };
            if let Some(Value::Int(count)) = values.first() {
                total += usize::try_from(*count).unwrap_or_default();
            }
        }
        self.interactions.store(total, Ordering::Relaxed);
    }
}
