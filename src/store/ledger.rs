//! The ledger of interactions and delivered events.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use super::event_memory::FingerprintKey;
use super::file::{Change, CommitQueue, Health, LedgerFile};
use super::file_writer;
use super::inbox::{Backing, Inbox, SharedMessages, start_shared};
use super::memory::{Memory, SHARDS};
use super::new_record::opened_record;
use super::outcome::{DueNotice, OwnedInteraction, Passed, Revoked};
use super::redis::{Found, RedisStore};
use super::restore::Restore;
use super::waiting_claims::Waiters;
use crate::clock::Clock;
use crate::config::{StoreSettings, Unknown};
use crate::denial::{Denial, Refusal};
use crate::interaction::{Interaction, NoticeResult};
use crate::observe::Metrics;
use crate::policy::Minted;
use crate::replica::Owner;
use crate::time::Timestamp;
use tokio::sync::Notify;

/// The approximate number of interactions that one step of a [`Walk`] reads. A step takes less than a millisecond.
const STEP: usize = 2_000;

/// The reason why a store cannot be opened.
#[derive(Debug)]
pub struct StoreError {
    /// The path of the ledger's file, or the addresses of the Redis nodes.
    pub path: Box<str>,
    /// The reason why the store cannot be opened, as a text for operators.
    pub message: String,
}

impl std::fmt::Display for StoreError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "cannot keep the ledger in {}: {}", self.path, self.message)
    }
}

/// The store: the ledger of interactions and delivered events, and the inbox of messages.
#[derive(Debug)]
pub struct Store {
    pub(super) memory: Arc<Memory>,
    pub(super) commit_queue: Option<Arc<CommitQueue>>,
    pub(super) inbox: Arc<Inbox>,
    /// The claims that wait until another claim ends.
    pub(super) waiters: Waiters,
    /// Notified when a waiting callback may find its interaction by the provider's id, or must stop waiting for it.
    pub(super) matched_changed: Notify,
    /// The ledger on Redis or Valkey. If it exists, `memory` contains no interactions.
    pub(super) shared: Option<Arc<RedisStore>>,
}

/// The progress of the search for the oldest open interaction of each route ([`Store::walk`]).
#[derive(Debug, Default)]
pub struct Walk {
    shard: usize,
    oldest: HashMap<Arc<str>, Timestamp>,
}

impl Store {
    /// Opens the store at the time `now`. With a file, this loads the contents of the file.
    ///
    /// # Errors
    /// Returns [`StoreError`] if the file cannot be used, or if another process uses it.
    pub fn start(
        settings: &StoreSettings,
        metrics: Arc<Metrics>,
        clock: fn() -> Instant,
        now: Timestamp,
    ) -> Result<Self, StoreError> {
        metrics.store_limits(settings.interactions_max, settings.events_max);
        let Some(path) = &settings.path else {
            let key = FingerprintKey::random();
            let inbox = Inbox::new(key, Backing::Nothing, Arc::clone(&metrics));
            let memory = Arc::new(Memory::new(settings.clone(), key, None, metrics));
            return Ok(Self::with(memory, None, inbox));
        };
        let failed = |message| StoreError { path: path.clone(), message };
        let mut file = LedgerFile::open(path).map_err(failed)?;
        let (commit_queue, durable) = CommitQueue::new(settings.grace, Arc::clone(&metrics), clock);
        let commit_queue = Arc::new(commit_queue);
        let stored = file.fingerprint_key().map_err(failed)?;
        let key = stored.map_or_else(FingerprintKey::random, FingerprintKey);
        let reader = file.message_reader();
        let backing = Backing::File(Arc::clone(&commit_queue), reader);
        let inbox = Inbox::new(key, backing, Arc::clone(&metrics));
        let memory = Arc::new(Memory::new(settings.clone(), key, Some(Arc::clone(&commit_queue)), metrics));
        let mut restore = Restore::new(&memory, &inbox, now);
        file.read(|record| restore.add(record)).map_err(failed)?;
        commit_queue.continue_after(restore.finish());
        if stored.is_none() {
            // The secret key of the fingerprints is written before the first event, or in the same commit.
            commit_queue.record([Change::FingerprintKey(key.0)]);
        }
        file_writer::start(&commit_queue, file, Arc::downgrade(&memory), durable).map_err(failed)?;
        Ok(Self::with(memory, Some(commit_queue), inbox))
    }

    pub(super) fn with(memory: Arc<Memory>, commit_queue: Option<Arc<CommitQueue>>, inbox: Inbox) -> Self {
        let (waiters, matched_changed) = (Waiters::default(), Notify::default());
        Self { memory, commit_queue, inbox: Arc::new(inbox), waiters, matched_changed, shared: None }
    }

    /// Starts the store of the settings: on Redis or Valkey, in a file, or in memory. `own` is the address of this
    /// process, if the configuration has a section `replicas`. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// Returns [`StoreError`] if the store must not be used. A Redis server that does not respond is no error. The
    /// store is then unavailable until the server responds.
    pub async fn start_shared(
        settings: &StoreSettings,
        own: Option<&Owner>,
        metrics: Arc<Metrics>,
        clock: fn() -> Instant,
        now: Timestamp,
    ) -> Result<Self, StoreError> {
        let Some(redis) = &settings.redis else { return Self::start(settings, metrics, clock, now) };
        let failed = |message| StoreError { path: redis.nodes.join(", ").into(), message };
        let wall_clock = || Clock::System.now();
        let shared =
            RedisStore::start(settings, redis, own, Arc::clone(&metrics), wall_clock).map_err(failed)?;
        shared.begin().await.map_err(failed)?;
        let mut store = Self::start(settings, Arc::clone(&metrics), clock, now)?;
        let messages = SharedMessages::new(Arc::clone(&shared), settings.grace);
        let key = FingerprintKey::random();
        store.inbox = Arc::new(Inbox::new(key, Backing::Shared(messages), metrics));
        start_shared(&store.inbox);
        store.shared = Some(shared);
        Ok(store)
    }

    /// Returns the health of the ledger's file, or of a shared ledger. A ledger in memory is always healthy.
    pub fn health(&self) -> Health {
        match &self.shared {
            Some(shared) => shared.health(),
            None => self
                .commit_queue
                .as_ref()
                .map_or(Health::Healthy, |commit_queue| commit_queue.refresh_health()),
        }
    }

    /// Returns the number of interactions and the number of delivered events. Interactions that are retained only for
    /// display are not counted. The number of events is 0 in a shared ledger, because its events are not counted.
    pub fn counts(&self) -> (usize, usize) {
        match &self.shared {
            Some(shared) => (shared.count(), 0),
            None => self.memory.counts(),
        }
    }

    /// Records a minted interaction that begins at `now`. The change is durable when this method returns `Ok`.
    ///
    /// # Errors
    /// Returns the denial `store_full` if the ledger is full. Returns the denial `store_unavailable` if the record
    /// cannot be made durable.
    pub async fn open(&self, minted: &Minted, now: Timestamp) -> Result<(), Refusal> {
        if let Some(shared) = &self.shared {
            return shared.open(&minted.interaction, opened_record(minted, now)).await;
        }
        self.check()?;
        let sequence = self.memory.open(minted, now)?;
        let opened = durable(self.commit_queue.as_ref(), sequence).await;
        if opened.is_err() {
            // The minting fails, so nobody receives the token, and no callback can arrive. Without this call, the agent
            // would get a notice about the missing callback.
            self.memory.not_sent(&minted.interaction, true, now);
        }
        opened
    }

    /// Reports whether the store accepts new interactions and callbacks.
    fn accepts_changes(&self) -> bool {
        self.commit_queue.as_ref().is_none_or(|commit_queue| commit_queue.accepts_changes())
    }

    pub(super) fn check(&self) -> Result<(), Refusal> {
        if self.accepts_changes() { Ok(()) } else { Err(unavailable()) }
    }

    /// Revokes an interaction, so that its token is denied from now on. An unknown interaction is recorded as revoked
    /// if the ledger could adopt it later: if `store.unknown` is `adopt`, or if `remembers` is true.
    ///
    /// # Errors
    /// Returns the denial `store_full` if the ledger is full. Returns the denial `store_unavailable` if the revocation
    /// cannot be made durable.
    pub async fn revoke(&self, id: &str, remembers: bool, now: Timestamp) -> Result<Revoked, Refusal> {
        if let Some(shared) = &self.shared {
            let revoked = shared.revoke(id, remembers).await?;
            self.inbox.revoke_shared(id, now).await;
            return Ok(revoked);
        }
        self.check()?;
        let is_known = self.knows(id);
        let Some(revoked) = self.memory.revoke(id, remembers, now) else { return Ok(Revoked::Unknown) };
        self.inbox.revoked(id, now);
        durable(self.commit_queue.as_ref(), revoked?).await?;
        Ok(if is_known { Revoked::Known } else { Revoked::Remembered })
    }

    /// Reports whether the ledger adopts unknown interactions.
    pub fn adopts(&self) -> bool {
        self.memory.settings.unknown == Unknown::Adopt
    }

    /// Records that the agent's request for an interaction did not reach the provider, or that the provider rejected
    /// the request. `unseen` is true if nobody received the token. A full ledger removes interactions whose token
    /// nobody received.
    ///
    /// # Errors
    /// Returns the denial `store_unavailable` if the change cannot be made durable.
    pub async fn not_sent(&self, id: &str, unseen: bool, now: Timestamp) -> Result<(), Refusal> {
        if let Some(shared) = &self.shared {
            return shared.not_sent(id).await;
        }
        durable(self.commit_queue.as_ref(), self.memory.not_sent(id, unseen, now)).await
    }

    /// Records that the agent received an error for its request. The error does not show whether the provider accepted
    /// the request.
    ///
    /// # Errors
    /// Returns the denial `store_unavailable` if the change cannot be made durable.
    pub async fn doubt(&self, id: &str, now: Timestamp) -> Result<(), Refusal> {
        if let Some(shared) = &self.shared {
            return shared.doubt(id).await;
        }
        durable(self.commit_queue.as_ref(), self.memory.doubt(id, now)).await
    }

    /// Records the id that the provider gave to an interaction.
    ///
    /// # Errors
    /// Returns the denial `store_unavailable` if the change cannot be made durable.
    pub async fn bind(&self, id: &str, provider_id: &str, now: Timestamp) -> Result<(), Refusal> {
        if let Some(shared) = &self.shared {
            return shared.bind(id, provider_id).await;
        }
        let sequence = self.memory.bind(id, provider_id, now);
        self.matched_changed.notify_waiters();
        durable(self.commit_queue.as_ref(), sequence).await
    }

    /// Returns the record of the interaction with this id, if the ledger contains the interaction.
    ///
    /// # Errors
    /// Returns the denial `store_unavailable` if the ledger cannot be read.
    pub async fn read(&self, id: &str) -> Result<Option<Interaction>, Refusal> {
        match &self.shared {
            Some(shared) => Ok(shared.read(id).await?.map(|record| record.interaction)),
            None => Ok(self.memory.read(id)),
        }
    }

    /// Returns the record of the interaction with this id, if the ledger contains the interaction. In a shared ledger,
    /// also returns the address of the interaction's owner.
    ///
    /// # Errors
    /// Returns the denial `store_unavailable` if the ledger cannot be read.
    pub async fn read_owned(&self, id: &str) -> Result<Option<OwnedInteraction>, Refusal> {
        match &self.shared {
            Some(shared) => Ok(shared.read(id).await?.map(RedisStore::owned)),
            None => Ok(self.memory.read(id).map(|interaction| (interaction, None))),
        }
    }

    /// Applies some of the deadlines up to `now`, and removes expired records. One call takes a few milliseconds at
    /// most, even if very many deadlines pass at once. While the store accepts no new interactions and callbacks, a
    /// call does nothing, and a later call applies the deadlines.
    pub async fn pass(&self, now: Timestamp) -> Passed {
        let mut passed = Passed::default();
        self.health();
        if let Some(shared) = &self.shared {
            let Found { notices, elsewhere, has_more } = shared.pass().await;
            return Passed { notices, elsewhere, has_more };
        }
        if !self.accepts_changes() {
            return passed;
        }
        for _ in 0..SHARDS {
            // This check limits the number of changes that are not written to the file yet.
            if self.commit_queue.as_ref().is_some_and(|commit_queue| !commit_queue.may_defer()) {
                passed.has_more = true;
                break;
            }
            // The next call begins with the shard after the last one of this call, so that all shards get their turn.
            let index = self.memory.next_pass.fetch_add(1, Ordering::Relaxed);
            passed.has_more |= self.memory.pass(index, now, &mut passed.notices);
        }
        passed.has_more |= self.memory.pass_dedup(now);
        passed
    }

    /// Records the result of an attempt to send a notice.
    ///
    /// # Errors
    /// Returns the denial `store_unavailable` if the change cannot be made durable.
    pub async fn noticed(
        &self,
        due: &DueNotice,
        result: NoticeResult,
        now: Timestamp,
    ) -> Result<(), Refusal> {
        if let Some(shared) = &self.shared {
            return shared.noticed(due, result).await;
        }
        let sequence = self.memory.noticed(&due.id, due.notice, result, now);
        durable(self.commit_queue.as_ref(), sequence).await
    }

    /// Records that the delivery of a notice failed. Does not wait until the change is durable, because the notice is
    /// sent again after a crash in any case.
    pub fn notice_failed(&self, due: &DueNotice, now: Timestamp) {
        match &self.shared {
            Some(shared) => shared.notice_failed(due),
            None => drop(self.memory.noticed(&due.id, due.notice, NoticeResult::Failed, now)),
        }
    }

    /// Performs one step of the search for the oldest open interaction of each route. The search has many steps, so
    /// that it does not delay callbacks, even if the ledger is large.
    pub async fn walk(&self, walk: &mut Walk, metrics: &Metrics, now: Timestamp) {
        metrics.store_counts(self.counts());
        if let Some(shared) = &self.shared {
            return shared.walk(now).await;
        }
        let mut seen = 0;
        while seen < STEP && walk.shard < SHARDS {
            seen += self.memory.oldest(walk.shard, &mut walk.oldest);
            walk.shard += 1;
        }
        if walk.shard < SHARDS {
            return;
        }
        let age = |created: Timestamp| now.unix_ms().saturating_sub(created.unix_ms()).max(0) as f64 / 1000.0;
        metrics.oldest(walk.oldest.iter().map(|(route, created)| (&**route, age(*created))));
        *walk = Walk::default();
    }

    /// Writes the queued changes and closes the ledger's file.
    pub fn close(&self) {
        if let Some(commit_queue) = &self.commit_queue {
            commit_queue.close();
        }
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.close();
    }
}

pub(super) async fn durable(commit_queue: Option<&Arc<CommitQueue>>, sequence: u64) -> Result<(), Refusal> {
    match commit_queue {
        Some(commit_queue) if !commit_queue.durable(sequence).await => Err(unavailable()),
        _ => Ok(()),
    }
}

pub(super) fn unavailable() -> Refusal {
    Refusal::new(Denial::StoreUnavailable, "the ledger's file cannot be written now")
}
