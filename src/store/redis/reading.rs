//! Reads interactions of a shared ledger: one interaction, a list, and slowly all of them for the metrics.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use redis::Value;

use super::members::parse_owner;
use super::nodes::Failure;
use super::nodes::keys::{PARTITIONS, Partition};
use super::nodes::scripts::{COUNT, READ, SCAN};
use super::records::{parse_record, unavailable};
use super::store::RedisStore;
use super::walk::Walk;
use crate::denial::Refusal;
use crate::interaction::{Interaction, SharedRecord};
use crate::store::outcome::{NO_ROUTE, OwnedInteraction};
use crate::time::Timestamp;

/// The approximate number of ids that one call of a scan reads.
const SCAN_COUNT: usize = 500;
/// The number of records that [`RedisStore::list`] reads first. The number doubles with each further read.
const READ_FIRST: usize = 128;
/// The maximum number of records that [`RedisStore::list`] reads at once.
const READ_MAX: usize = 4096;
/// The number of records that one step of the walk through the ledger reads. There are four steps per second, so that
/// the walk through a large ledger costs the Redis server little.
const STEP: usize = 100;
/// The number of steps of the walk through the ledger between two counts of all interactions.
const STEPS_PER_COUNT: u32 = 40;
/// The duration of the pause between two walks through the ledger, in steps of the walk.
const STEPS_PER_WALK: u32 = 60;

impl RedisStore {
    /// Returns the record of the interaction with this id, if the ledger contains the interaction.
    pub(in crate::store) async fn read(&self, id: &str) -> Result<Option<SharedRecord>, Refusal> {
        Ok(self.load(id, &[]).await?.record)
    }

    /// Returns the interaction of a record, and the address of its owner.
    pub(in crate::store) fn owned(record: SharedRecord) -> OwnedInteraction {
        let owner = record.owner.as_deref().and_then(parse_owner);
        (record.interaction, owner.map(|owner| owner.address))
    }

    /// Returns the first `limit` interactions whose id comes after `after` and for which `wanted` returns true, in the
    /// order of ids.
    pub(in crate::store) async fn list(
        &self,
        after: &str,
        limit: usize,
        wanted: impl Fn(&Interaction) -> bool,
    ) -> Result<BTreeMap<Arc<str>, OwnedInteraction>, Refusal> {
        let ids = self.ids_after(after).await?;
        let mut found = BTreeMap::new();
        let (mut ids, mut count) = (ids.into_iter().peekable(), READ_FIRST);
        while found.len() < limit && ids.peek().is_some() {
            let some: Vec<_> = ids.by_ref().take(count).collect();
            let records = self.read_many(some).await?;
            let wanted = records.into_iter().filter(|(_, record)| wanted(&record.interaction));
            found.extend(wanted.map(|(id, record)| (Arc::from(id), Self::owned(record))));
            count = (count * 2).min(READ_MAX);
        }
        while found.len() > limit {
            found.pop_last();
        }
        Ok(found)
    }

    /// Returns the ids of all interactions whose id comes after `after`.
    ///
    /// # Errors
    /// Returns the denial `store_unavailable` if the ledger cannot be read.
    pub(in crate::store) async fn ids_after(&self, after: &str) -> Result<BTreeSet<String>, Refusal> {
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
        Ok(ids)
    }

    /// Reads the records of these interactions, with one call for each partition. Returns each record with its
    /// interaction id. Omits records that this version of Callgate cannot read.
    ///
    /// # Errors
    /// Returns the denial `store_unavailable` if the ledger cannot be read.
    pub(in crate::store) async fn read_many(
        &self,
        ids: Vec<String>,
    ) -> Result<Vec<(String, SharedRecord)>, Refusal> {
        let mut by_partition: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for id in ids {
            by_partition.entry(Partition::of(&id)).or_default().push(id);
        }
        let mut records = Vec::new();
        for (partition, ids) in by_partition {
            let keys = ids.iter().map(|id| self.keys.record(id)).collect();
            let read = self.call(&READ, partition, keys, Vec::new()).await;
            let (now, values) = read.map_err(|failure| unavailable(&failure))?;
            let Some(Value::Array(values)) = values.into_iter().next() else { continue };
            records.extend(ids.into_iter().zip(values).filter_map(|(id, value)| match value {
                Value::BulkString(bytes) => parse_record(&bytes, now).map(|record| (id, record)),
                _ => None,
            }));
        }
        Ok(records)
    }

    /// Reads some interaction ids of a partition, beginning at `cursor`. Returns the cursor for the next call, and the
    /// ids.
    pub(super) async fn scan(
        &self,
        partition: Partition,
        cursor: &[u8],
    ) -> Result<(Vec<u8>, Vec<String>), Failure> {
        let (next, pairs) = self.scan_set(partition, self.keys.due(partition), cursor).await?;
        Ok((next, pairs.into_iter().filter_map(|(id, _)| String::from_utf8(id).ok()).collect()))
    }

    /// Reads some entries of a sorted set with their scores as text, beginning at `cursor`. Returns the cursor for the
    /// next call, and the entries.
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

    /// Performs one step of the walk through the ledger. The walk finds the number of open interactions and the oldest
    /// open interaction of each route, for the metrics.
    pub(in crate::store) async fn walk(&self, now: Timestamp) {
        if self.health.is_any_failing() {
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
        for (_, record) in self.read_many(walk.ids.split_off(rest)).await.unwrap_or_default() {
            if record.interaction.state.is_open() && *record.interaction.route != *NO_ROUTE {
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

    /// Reads the next interaction ids for the walk, from the partitions for which this process is responsible. Returns
    /// the progress of the walk.
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
                walk.partition += 1;
            }
        }
        walk
    }

    /// Counts all interactions in the shared ledger, and stores the number for [`RedisStore::count`].
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::store::redis::simulation::{SCANNED_MAX, SimulatedLedger};

    const BEGIN: Timestamp = SimulatedLedger::BEGIN;
    /// The partition in which a test opens many interactions.
    const PARTITION: Partition = Partition::Number(7);

    /// Opens an interaction that was created some seconds before the simulation began.
    async fn open(store: &RedisStore, id: &str, route: &str, age: u64) {
        let created = BEGIN.minus(Duration::from_secs(age));
        let record =
            Interaction::new(route.into(), "".into(), created, BEGIN.plus(Duration::from_secs(3600)));
        store.open(id, record).await.unwrap();
    }

    /// Performs some steps of the walk. Returns the number of open interactions of each route and the age of the oldest
    /// one in seconds, according to the metrics.
    async fn walked(
        ledger: &SimulatedLedger,
        store: &RedisStore,
        steps: u32,
    ) -> BTreeMap<String, (i64, i64)> {
        for _ in 0..steps {
            let step = store.walk(BEGIN);
            tokio::time::timeout(Duration::from_secs(10), step).await.expect("a step ends");
        }
        let text = ledger.metrics.text().unwrap();
        let value = |metric: &str, route: &str| {
            let begin = format!("{metric}{{route=\"{route}\"}} ");
            let line = text.lines().find_map(|line| line.strip_prefix(&*begin));
            line.map(|value| value.parse::<i64>().unwrap())
        };
        let of = |route: &str| {
            let open = value("callgate_interactions_open", route)?;
            let age = value("callgate_interactions_oldest_age_seconds", route)?;
            Some((route.to_owned(), (open, age)))
        };
        ["many", "few", "ended", NO_ROUTE].into_iter().filter_map(of).collect()
    }

    /// Returns `count` interaction ids that belong to the partition [`PARTITION`].
    fn together(count: usize) -> Vec<String> {
        let ids = (0..).map(|number| format!("int_{number}"));
        ids.filter(|id| Partition::of(id) == PARTITION).take(count).collect()
    }

    /// One partition has more interactions than one scan returns, and more than one step of the walk reads. Most
    /// partitions have no interactions.
    #[tokio::test(start_paused = true)]
    async fn the_walks_of_all_processes_together_find_each_open_interaction_once() {
        let (ledger, [store, other]) = SimulatedLedger::start(|_| {}).await;
        let many = together(2 * SCANNED_MAX + 10);
        for (number, id) in many.iter().enumerate() {
            open(&store, id, "many", (number as u64 * 7) % 100).await;
        }
        for (id, age) in [("few_a", 5), ("few_b", 9), ("few_c", 7)] {
            open(&store, id, "few", age).await;
        }
        open(&store, "ended", "ended", 50).await;
        store.revoke("ended", false).await.unwrap();
        store.revoke("never opened", true).await.unwrap();
        let all = many.len() + 5;
        let mut found = BTreeMap::new();
        for process in [&store, &other] {
            assert_eq!(process.count(), 0);
            walked(&ledger, process, 1).await;
            assert_eq!(process.count(), all, "the first step counts all interactions");
            for (route, (open, age)) in walked(&ledger, process, STEPS_PER_COUNT - 1).await {
                let (sum, oldest) = found.entry(route).or_insert((0, 0));
                (*sum, *oldest) = (*sum + open, age.max(*oldest));
            }
        }
        let expected = [("few".to_owned(), (3, 9)), ("many".to_owned(), (many.len() as i64, 99))];
        assert_eq!(found, BTreeMap::from(expected));
    }

    #[tokio::test(start_paused = true)]
    async fn a_walk_begins_some_time_after_the_end_of_the_last_one() {
        let (ledger, [store]) = SimulatedLedger::start(|_| {}).await;
        open(&store, "int_a", "few", 5).await;
        let found = |open, age| BTreeMap::from([("few".to_owned(), (open, age))]);
        // The first step reads the interaction, and the second step finds no further interactions.
        assert_eq!(walked(&ledger, &store, 1).await, BTreeMap::new());
        assert_eq!(walked(&ledger, &store, 1).await, found(1, 5));
        open(&store, "int_b", "few", 8).await;
        assert_eq!((walked(&ledger, &store, STEPS_PER_COUNT - 2).await, store.count()), (found(1, 5), 1));
        assert_eq!((walked(&ledger, &store, 1).await, store.count()), (found(1, 5), 2));
        assert_eq!(walked(&ledger, &store, STEPS_PER_WALK - STEPS_PER_COUNT + 1).await, found(1, 5));
        assert_eq!(walked(&ledger, &store, 3).await, found(2, 8));
    }

    #[tokio::test(start_paused = true)]
    async fn a_scan_returns_every_interaction_of_a_partition_with_its_due_time() {
        let (_, [store]) = SimulatedLedger::start(|_| {}).await;
        let opened = together(2 * SCANNED_MAX + 1);
        for id in opened.iter().cloned().chain((0..64).map(|number| format!("other_{number}"))) {
            open(&store, &id, "r", 0).await;
        }
        let (mut ids, mut pairs) = (BTreeSet::new(), Vec::new());
        let (mut cursors, key) = (vec![b"0".to_vec()], store.keys.due(PARTITION));
        for _ in 0..3 {
            let cursor = cursors.last().unwrap().clone();
            let (next, some) = store.scan(PARTITION, &cursor).await.unwrap();
            ids.extend(some);
            let (same, some) = store.scan_set(PARTITION, key.clone(), &cursor).await.unwrap();
            pairs.extend(some);
            assert_eq!(next, same);
            cursors.push(next);
        }
        assert_eq!(cursors.last().map(Vec::as_slice), Some(&b"0"[..]), "the scan has ended: {cursors:?}");
        ids.retain(|id| !id.starts_with("other_"));
        assert_eq!(ids, opened.into_iter().collect());
        for (id, due) in pairs {
            let id = String::from_utf8(id).unwrap();
            let record = store.read(&id).await.unwrap().unwrap();
            let at = record.next_look(record.interaction.created()).unix_ms();
            assert_eq!(String::from_utf8(due).unwrap(), at.to_string(), "{id}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_list_of_a_shared_ledger_has_the_first_wanted_interactions_in_order() {
        let (_, [one, other]) = SimulatedLedger::start(|_| {}).await;
        let mut ids = together(SCANNED_MAX + 10);
        ids.extend((0..300).map(|number| format!("more_{number}")));
        ids.sort();
        for (number, id) in ids.iter().enumerate() {
            open(&one, id, if number % 3 == 0 { "few" } else { "many" }, 0).await;
        }
        for route in ["all", "few", "many", "none"] {
            let wanted = ids.iter().enumerate().filter(|(number, _)| match route {
                "all" => true,
                "few" => number % 3 == 0,
                "many" => number % 3 != 0,
                _ => false,
            });
            let wanted: Vec<_> = wanted.map(|(_, id)| id.as_str()).collect();
            let [seventh, last] = [wanted.get(7), wanted.last()].map(|id| id.map_or("", |id| *id));
            for (after, limit) in [
                ("", 0),
                ("", 1),
                ("", 3),
                ("", 100),
                ("", 1000),
                (seventh, 3),
                (seventh, 100),
                (seventh, 1000),
                (last, 3),
            ] {
                let is_wanted = |record: &Interaction| route == "all" || *record.route == *route;
                let listed = other.list(after, limit, is_wanted).await.unwrap();
                let expected: Vec<_> = wanted.iter().copied().filter(|id| *id > after).take(limit).collect();
                let listed: Vec<_> = listed.keys().map(|id| &**id).collect();
                assert_eq!(listed, expected, "{route} after {after:?}, at most {limit}");
            }
        }
        one.revoke("more_250", false).await.unwrap();
        let open = other.list("", 1000, |interaction| interaction.state.is_open()).await.unwrap();
        assert_eq!((open.len(), open.contains_key("more_250")), (ids.len() - 1, false));
    }
}
