//! The handover of interactions to another process of the same group. A process hands over the record of each
//! interaction: its state, deadlines, remaining uses and recent events.

use std::collections::HashSet;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use serde::{Deserialize, Serialize};

use super::file::Change;
use super::ledger::{Store, durable};
use super::memory::{Memory, SHARDS, full};
use super::outcome::NO_ROUTE;
use super::redis::RedisStore;
use crate::config::StoreSettings;
use crate::denial::Refusal;
use crate::interaction::{Inherited, Interaction};
use crate::replica::{Incarnation, Owner};

/// Records of interactions that a process hands over to another process.
#[derive(Debug, Default, Deserialize, Serialize)]
pub struct HandedRecords(Vec<HandedRecord>);

#[derive(Debug, Deserialize, Serialize)]
struct HandedRecord {
    id: Box<str>,
    record: Interaction,
}

impl HandedRecords {
    /// Reports whether there are no records to hand over.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the number of records to hand over.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Returns the ids of the interactions whose records are handed over.
    pub fn ids(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|one| &*one.id)
    }

    /// Removes the records of the interactions with these ids. Returns the ids of the removed records.
    pub fn remove(&mut self, ids: Vec<String>) -> Vec<String> {
        let mut ids: HashSet<String> = ids.into_iter().collect();
        let mut removed = Vec::with_capacity(ids.len());
        self.0.retain(|one| match ids.take(&*one.id) {
            Some(id) => {
                removed.push(id);
                false
            }
            None => true,
        });
        removed
    }

    /// Removes and returns the first records. The JSON of the returned records has at most `bytes` bytes in total,
    /// unless the first record alone is larger.
    pub fn split_off_batch(&mut self, bytes: usize) -> Self {
        let mut total = 0;
        let size = |one: &HandedRecord| serde_json::to_vec(one).map_or(0, |json| json.len() + 1);
        let mut fits = |one: &HandedRecord| {
            let is_first = total == 0;
            total += size(one);
            is_first || total <= bytes
        };
        let count = self.0.iter().map_while(|one| fits(one).then_some(())).count();
        let rest = self.0.split_off(count);
        Self(std::mem::replace(&mut self.0, rest))
    }
}

impl Store {
    /// Returns the number of parts (shards) of the ledger. A handover to another process sends one part after the
    /// other.
    #[allow(clippy::unused_self, reason = "the number belongs to the ledger")]
    pub fn shards(&self) -> usize {
        SHARDS
    }

    /// Reports whether the ledger is in a file.
    pub fn is_durable(&self) -> bool {
        self.commit_queue.is_some()
    }

    /// Reports whether several processes share the ledger.
    pub fn is_shared(&self) -> bool {
        self.shared.is_some()
    }

    /// Returns the process that owns an interaction in a shared ledger. Returns `None` if the ledger is not shared, or
    /// if no owner is recorded.
    ///
    /// # Errors
    /// Returns the denial `store_unavailable` if the shared ledger cannot be read.
    pub async fn shared_owner(&self, id: &str) -> Result<Option<Owner>, Refusal> {
        let Some(shared) = &self.shared else { return Ok(None) };
        let record = shared.read(id).await?;
        Ok(record.and_then(|record| RedisStore::parse_owner(&record.owner?)))
    }

    /// Reports whether a process is dead, which means that it has stopped sending heartbeats to the shared ledger.
    /// Returns false if the state of the process is unknown, or if the ledger is not shared.
    pub fn is_dead(&self, member: Incarnation) -> bool {
        self.shared.as_ref().is_some_and(|shared| shared.lives(member) == Some(false))
    }

    /// Schedules the deadlines of these interactions, so that the next calls of [`Store::pass`] apply them, even if
    /// other processes own the interactions. Does nothing if the ledger is not shared.
    pub fn apply_here(&self, ids: impl Iterator<Item = Box<str>>) {
        if let Some(shared) = &self.shared {
            shared.pass_on(ids);
        }
    }

    /// Applies changed logins and certificates in the settings to the connections to a shared ledger.
    pub fn log_in_again(&self, settings: &StoreSettings) {
        if let (Some(shared), Some(redis)) = (&self.shared, &settings.redis) {
            shared.log_in_again(redis);
        }
    }

    /// Sets the address of this process. A shared ledger records this address for each interaction that this process
    /// owns.
    pub fn set_own(&self, own: &Owner) {
        if let Some(shared) = &self.shared {
            shared.set_own(own);
        }
    }

    /// Waits for the background work in a shared ledger, because this process stops. Then removes this process from the
    /// list of processes that share the ledger.
    pub async fn leave_shared(&self) {
        if let Some(shared) = &self.shared {
            self.inbox.flush().await;
            shared.end().await;
        }
    }

    /// Reports whether the memory of this process contains the interaction. The interactions of a shared ledger are not
    /// in memory.
    pub fn knows(&self, id: &str) -> bool {
        self.memory.shard(Memory::index(id)).interactions.contains_key(id)
    }

    /// Reports whether this ledger contains interactions that other processes handed over and whose tokens the process
    /// `from` minted.
    pub fn inherits(&self, from: Incarnation) -> bool {
        let origins = self.memory.origins.lock();
        !origins.is_empty() && origins.contains_key(from.to_string().as_str())
    }

    /// Returns the origins of the interactions that were handed over to this ledger. An origin is the id of the process
    /// that minted the token.
    pub fn inherited(&self) -> Vec<String> {
        self.memory.origins.lock().keys().map(|origin| origin.to_string()).collect()
    }

    /// Returns the records of one part of the ledger, for the handover to another process. `origin` is the id of this
    /// process. It becomes the origin (the process that minted the token) of each record that has no origin yet.
    pub fn records(&self, shard: usize, origin: &str) -> HandedRecords {
        HandedRecords(self.memory.handed_records(shard, origin))
    }

    /// Adds records that another process hands over. When this method returns `Ok`, the added records are durable.
    /// Returns the ids of the added records. A record for which the ledger has no room is not added.
    ///
    /// # Errors
    /// Returns the denial `store_unavailable` if the records cannot be made durable.
    pub async fn take_over(&self, records: HandedRecords) -> Result<Vec<String>, Refusal> {
        self.check()?;
        let (mut taken, mut last, mut refused) = (Vec::with_capacity(records.0.len()), 0, None);
        for HandedRecord { id, record } in records.0 {
            match self.memory.take_over(&id, record) {
                Ok(sequence) => {
                    last = last.max(sequence);
                    taken.push(id.into_string());
                }
                // The next records are tried nevertheless: a record needs no room if the ledger already contains its
                // interaction.
                Err(refusal) => refused = Some(refusal),
            }
        }
        if let Some(refusal) = refused {
            log::warn!("not all interactions of another member were taken over: {}", refusal.detail);
        }
        durable(self.commit_queue.as_ref(), last).await?;
        Ok(taken)
    }

    /// Removes the records that another process has received and stored.
    pub async fn handed_over(&self, ids: &[String]) {
        let last = ids.iter().map(|id| self.memory.handed_over(id)).max().unwrap_or_default();
        if durable(self.commit_queue.as_ref(), last).await.is_err() {
            log::error!(
                "the file of the ledger still contains interactions that another member has taken over"
            );
        }
    }

    /// Removes the file that contains the identity of this process. The next process that opens the ledger's file then
    /// has a new identity.
    pub fn forget_incarnation(&self) {
        if let Some(path) = self.memory.settings.path.as_deref().map(incarnation_path)
            && let Err(error) = std::fs::remove_file(&path)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            log::error!("{} cannot be removed: {error}", path.display());
        }
    }
}

/// Returns the path of the file that contains the identity of the process. This file is next to the ledger's file.
pub(super) fn incarnation_path(ledger: &str) -> PathBuf {
    PathBuf::from(format!("{ledger}.member"))
}

/// Returns the identity of this process. If the ledger is in a file, the identity is stored in another file next to it.
/// A process that starts again with the same ledger therefore has the same identity.
///
/// # Errors
/// Returns an explanation if the file with the identity cannot be read or written.
pub fn incarnation(ledger: Option<&str>) -> Result<Incarnation, String> {
    let random = || Incarnation::random().ok_or("the system provides no random numbers".to_owned());
    let Some(path) = ledger.map(incarnation_path) else { return random() };
    let failed = |error: std::io::Error| format!("{}: {error}", path.display());
    match std::fs::read_to_string(&path) {
        Ok(text) => {
            let malformed =
                || format!("{} does not contain the identity of a member; remove it", path.display());
            Incarnation::parse(text.trim()).ok_or_else(malformed)
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let incarnation = random()?;
            write_durably(&path, &format!("{incarnation}\n")).map_err(failed)?;
            Ok(incarnation)
        }
        Err(error) => Err(failed(error)),
    }
}

/// Writes a file completely or not at all: after a crash of the host, the file has its old content or its new content.
fn write_durably(path: &Path, text: &str) -> std::io::Result<()> {
    let mut draft = path.as_os_str().to_owned();
    draft.push(".new");
    let mut file = std::fs::File::create(&draft)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    std::fs::rename(&draft, path)?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    std::fs::File::open(folder.unwrap_or_else(|| Path::new(".")))?.sync_all()
}

impl Memory {
    fn handed_records(&self, index: usize, origin: &str) -> Vec<HandedRecord> {
        let shard = self.shard(index);
        let mut records = Vec::with_capacity(shard.interactions.len());
        // Interactions that are retained only for display are not handed over, because no callback can arrive for them.
        for (id, slot) in shard.interactions.iter().filter(|(_, slot)| !slot.record.is_kept) {
            let mut record = slot.record.clone();
            let known = record.delivered_events().iter().copied();
            let events = known.filter(|fingerprint| shard.events.get(*fingerprint).is_some()).collect();
            record.leave(origin, Inherited { key: self.fingerprints.0, events });
            records.push(HandedRecord { id: (**id).into(), record });
        }
        records
    }

    /// Adds the record of an interaction that another process hands over. If the ledger contains the interaction
    /// already, merges the two records. Returns the sequence number of the change.
    fn take_over(&self, id: &str, mut record: Interaction) -> Result<u64, Refusal> {
        let id: Arc<str> = id.into();
        self.make_room_for_one();
        let mut shard = self.shard(Self::index(&id));
        let shard = &mut *shard;
        if let Some(slot) = shard.interactions.get_mut(&id) {
            let (had_origin, was_open) = (slot.record.origin().is_some(), slot.record.state.is_open());
            slot.record.merge(&record);
            if was_open && !slot.record.state.is_open() {
                self.metrics.interaction_left(&slot.record.route);
            }
            if let Some(origin) = slot.record.origin().filter(|_| !had_origin) {
                self.count_origin(origin);
            }
            return Ok(self.write(&id, slot));
        }
        let is_tombstone = *record.route == *NO_ROUTE;
        let max = self.settings.interactions_max;
        let more = |count: usize| (count < max).then_some(count + 1);
        let count = if is_tombstone { &self.tombstones } else { &self.interactions };
        count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).map_err(|_| full())?;
        match shard.names.get(&record.route) {
            Some(name) => record.route = Arc::clone(name),
            None => drop(shard.names.insert(Arc::clone(&record.route))),
        }
        let slot = self.insert(shard, &id, record, self.number());
        Ok(self.write(&id, slot))
    }

    /// Removes the record of an interaction that another process has received. Returns the sequence number of the
    /// change.
    fn handed_over(&self, id: &str) -> u64 {
        let mut shard = self.shard(Self::index(id));
        let shard = &mut *shard;
        let Some((id, slot)) = shard.interactions.get_key_value(id) else { return 0 };
        if slot.record.state.is_open() {
            self.metrics.interaction_left(&slot.record.route);
        }
        let id = Arc::clone(id);
        let changes: Option<Vec<Change>> = self.remove(shard, &id);
        match (changes, &self.commit_queue) {
            (Some(changes), Some(commit_queue)) => commit_queue.record(changes),
            _ => 0,
        }
    }

    /// Counts one more record that was handed over to this ledger. `origin` is the process that minted its token.
    pub(super) fn count_origin(&self, origin: &str) {
        *self.origins.lock().entry(origin.into()).or_default() += 1;
    }

    /// Undoes [`Self::count_origin`] for a record that was removed.
    pub(super) fn uncount_origin(&self, origin: &str) {
        let mut origins = self.origins.lock();
        if let Some(count) = origins.get_mut(origin) {
            *count -= 1;
            if *count == 0 {
                origins.remove(origin);
            }
        }
    }
}
