//! The store: the ledger of interactions and delivered events, in memory and optionally in a file. Callers await every
//! change that must be durable before its acknowledgement, so the interface also suits a shared store.
//!
//! To deliver a callback, a caller claims it ([`Store::claim`]) and settles it after the agent has accepted it
//! ([`Claimed::settle`]). A claim that is dropped is released, so that the provider's retry is delivered.

mod backend;
mod change;
mod dedup;
mod file;
mod journal;
mod memory;
mod mint;
mod restore;
mod sweep;
#[cfg(test)]
mod tests;
mod writer;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio::time::timeout;

use crate::config::StoreSettings;
use crate::denial::{Denial, Refusal};
use crate::interaction::{Ask, ClaimError, Cleared, Interaction, QuestionFault, Report};
use crate::observe::Metrics;
use crate::policy::Minted;
use crate::time::Timestamp;
use file::LedgerFile;
use journal::Journal;
use memory::{Hold, Memory, SHARDS};
use restore::restore;

pub use journal::Health;
pub use memory::DueNotice;
pub use mint::{MintRefusal, mint};

/// The approximate number of interactions that one step of a [`Walk`] reads. A step takes less than a millisecond.
const STEP: usize = 2_000;

/// The reason why a store cannot be opened.
#[derive(Debug)]
pub struct StoreError {
    /// The path of the file.
    pub path: Box<str>,
    /// The reason as text.
    pub message: String,
}

impl std::fmt::Display for StoreError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "cannot keep the ledger in {}: {}", self.path, self.message)
    }
}

/// The ledger.
#[derive(Debug)]
pub struct Store {
    memory: Arc<Memory>,
    journal: Option<Arc<Journal>>,
    /// Notified when a claim ends.
    claim_ended: Notify,
}

/// A callback that the caller may deliver. Dropping it without [`Claimed::settle`] releases it.
#[derive(Debug)]
pub struct Claimed<'s> {
    store: &'s Store,
    hold: Option<Hold>,
}

/// A question that the caller may answer. Dropping it without [`Taken::answered`] allows another answer.
#[derive(Debug)]
pub struct Taken<'s> {
    store: &'s Store,
    now: Timestamp,
    id: Box<str>,
    number: u32,
    /// The route of its interaction.
    pub route: Arc<str>,
    /// The endpoint of the provider that receives the answer.
    pub endpoint: Box<str>,
    answered: bool,
}

/// The progress of [`Store::walk`].
#[derive(Debug, Default)]
pub struct Walk {
    shard: usize,
    oldest: HashMap<Arc<str>, Timestamp>,
}

impl Store {
    /// Opens the store. With a file, this loads the contents of the file.
    ///
    /// # Errors
    /// Returns [`StoreError`] if the file cannot be used, or if another process uses it.
    pub fn start(
        settings: &StoreSettings,
        metrics: Arc<Metrics>,
        clock: fn() -> Instant,
    ) -> Result<Self, StoreError> {
        metrics.store_limits(settings.interactions_max);
        let Some(path) = &settings.path else {
            let memory = Arc::new(Memory::new(settings.clone(), None, metrics));
            return Ok(Self { memory, journal: None, claim_ended: Notify::new() });
        };
        let failed = |message| StoreError { path: path.clone(), message };
        let file = LedgerFile::open(path).map_err(failed)?;
        let contents = file.read().map_err(failed)?;
        let (journal, durable) =
            Journal::new(contents.number_max, settings.grace, Arc::clone(&metrics), clock);
        let journal = Arc::new(journal);
        let memory = Arc::new(Memory::new(settings.clone(), Some(Arc::clone(&journal)), metrics));
        restore(contents, &memory);
        writer::start(&journal, file, Arc::downgrade(&memory), durable).map_err(failed)?;
        Ok(Self { memory, journal: Some(journal), claim_ended: Notify::new() })
    }

    /// Returns the health of the ledger's file. A store without a file is always healthy.
    pub fn health(&self) -> Health {
        self.journal.as_ref().map_or(Health::Healthy, |journal| journal.refresh_health())
    }

    /// Returns the number of interactions and the number of delivered events.
    pub fn counts(&self) -> (usize, usize) {
        self.memory.counts()
    }

    /// Records a minted interaction that begins `now`. The record is durable once this returns `Ok`.
    ///
    /// # Errors
    /// Returns the denial `store_full` or `store_unavailable`.
    pub async fn open(&self, minted: &Minted, now: Timestamp) -> Result<(), Refusal> {
        self.check()?;
        let sequence = self.memory.open(minted, now)?;
        let opened = durable(self.journal.as_ref(), sequence).await;
        if opened.is_err() {
            // Nobody receives the token. Without this, the agent would be notified about a callback that cannot come.
            self.memory.not_sent(&minted.interaction, true, now);
        }
        opened
    }

    /// Reports whether the store accepts new interactions and callbacks.
    fn accepts_changes(&self) -> bool {
        self.journal.as_ref().is_none_or(|journal| journal.accepts_changes())
    }

    fn check(&self) -> Result<(), Refusal> {
        if self.accepts_changes() { Ok(()) } else { Err(unavailable()) }
    }

    /// Claims a verified callback for its delivery. If the same event or the last use of the interaction is being
    /// delivered, this waits for the end of that delivery, but at most for `patience`.
    ///
    /// # Errors
    /// Returns [`ClaimError`] if the callback must not be delivered now.
    pub async fn claim(
        &self,
        ask: &Ask<'_>,
        now: Timestamp,
        patience: Duration,
    ) -> Result<Claimed<'_>, ClaimError> {
        self.check().map_err(ClaimError::Refused)?;
        let claimed = match self.memory.claim(ask, now) {
            Ok(Some(hold)) => Ok(self.claimed(hold)),
            // Boxed, because this case is rare and would make the future of every exchange larger.
            Ok(None) => Box::pin(self.claim_patiently(ask, now, patience)).await,
            Err(error) => Err(error),
        };
        if claimed.is_err()
            && let Some(journal) = &self.journal
            && !journal.durable(journal.sequence()).await
        {
            // The records behind this result are not durable yet, and may be lost in a crash.
            return Err(ClaimError::Refused(unavailable()));
        }
        claimed
    }

    async fn claim_patiently(
        &self,
        ask: &Ask<'_>,
        now: Timestamp,
        patience: Duration,
    ) -> Result<Claimed<'_>, ClaimError> {
        let detail = "the same event or the last allowed use is still being delivered";
        let late = || ClaimError::Refused(Refusal::new(Denial::EventInFlight, detail));
        timeout(patience, self.claim_when_free(ask, now)).await.map_err(|_| late())?
    }

    async fn claim_when_free(&self, ask: &Ask<'_>, now: Timestamp) -> Result<Claimed<'_>, ClaimError> {
        loop {
            // Created before the attempt, so that a claim that ends after the attempt is noticed.
            let ended = self.claim_ended.notified();
            if let Some(hold) = self.memory.claim(ask, now)? {
                return Ok(self.claimed(hold));
            }
            ended.await;
        }
    }

    fn claimed(&self, hold: Hold) -> Claimed<'_> {
        Claimed { store: self, hold: Some(hold) }
    }

    /// Revokes an interaction, so that its token is denied from now on. Returns false if the interaction is unknown and
    /// will not be adopted.
    ///
    /// # Errors
    /// Returns the denial `store_full` or `store_unavailable`.
    pub async fn revoke(&self, id: &str, now: Timestamp) -> Result<bool, Refusal> {
        self.check()?;
        let Some(revoked) = self.memory.revoke(id, now) else { return Ok(false) };
        durable(self.journal.as_ref(), revoked?).await?;
        Ok(true)
    }

    /// Records that the request of an interaction did not reach its provider, or that the provider rejected it. `unseen`
    /// is whether nobody received the token. Such an interaction is removed when the ledger is full.
    ///
    /// # Errors
    /// Returns the denial `store_unavailable`.
    pub async fn not_sent(&self, id: &str, unseen: bool, now: Timestamp) -> Result<(), Refusal> {
        durable(self.journal.as_ref(), self.memory.not_sent(id, unseen, now)).await
    }

    /// Records the id that the provider gave to an interaction.
    ///
    /// # Errors
    /// Returns the denial `store_unavailable`.
    pub async fn bind(&self, id: &str, provider_id: &str, now: Timestamp) -> Result<(), Refusal> {
        durable(self.journal.as_ref(), self.memory.bind(id, provider_id, now)).await
    }

    /// Reserves a question of an interaction for an answer: the question with this number, or the only open question.
    ///
    /// # Errors
    /// Returns [`QuestionFault`] if the question cannot be answered now.
    pub fn take_question(
        &self,
        id: &str,
        number: Option<u32>,
        now: Timestamp,
    ) -> Result<Taken<'_>, QuestionFault> {
        // An answer that cannot be recorded might be sent twice.
        self.check().map_err(|_| QuestionFault::Unavailable)?;
        let (route, number, endpoint) = self.memory.take_question(id, number, now)?;
        Ok(Taken { store: self, now, id: id.into(), number, route, endpoint, answered: false })
    }

    /// Returns the record of an interaction.
    pub fn read(&self, id: &str) -> Option<Interaction> {
        self.memory.read(id)
    }

    /// Returns the first `limit` interactions that are `wanted` and whose ids come after `after`, in the order of ids.
    pub fn list(
        &self,
        after: &str,
        limit: usize,
        wanted: impl Fn(&Interaction) -> bool,
    ) -> BTreeMap<Arc<str>, Interaction> {
        self.memory.list(after, limit, wanted)
    }

    /// Applies all deadlines up to `now` and removes expired records. Returns the notices that must be sent. While the
    /// store accepts nothing new, this does nothing, and the next call applies these deadlines.
    pub fn pass(&self, now: Timestamp) -> Vec<DueNotice> {
        let mut notices = Vec::new();
        self.health();
        for index in (0..SHARDS).take_while(|_| self.accepts_changes()) {
            self.memory.pass(index, now, &mut notices);
        }
        if self.accepts_changes() {
            self.memory.pass_dedup(now);
        }
        notices
    }

    /// Records whether the agent acknowledged a notice.
    ///
    /// # Errors
    /// Returns the denial `store_unavailable`.
    pub async fn noticed(&self, due: &DueNotice, answered: bool, now: Timestamp) -> Result<(), Refusal> {
        let sequence = self.memory.noticed(&due.id, due.notice, answered, now);
        durable(self.journal.as_ref(), sequence).await
    }

    /// Continues the search for the oldest open interaction of each route. The search through a large ledger takes many
    /// steps, so that no step delays callbacks.
    pub fn walk(&self, walk: &mut Walk, metrics: &Metrics, now: Timestamp) {
        metrics.store_counts(self.counts());
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

    /// Writes the queued changes and closes the file.
    pub fn close(&self) {
        if let Some(journal) = &self.journal {
            journal.close();
        }
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.close();
    }
}

impl Claimed<'_> {
    /// Returns the proof that the ledger allows the delivery.
    pub fn cleared(&self) -> Cleared {
        match &self.hold {
            Some(Hold::Interaction(_, claim)) => Cleared::by_the_ledger(claim.question, claim.stale),
            Some(Hold::Dedup(_)) | None => Cleared::by_the_ledger(None, false),
        }
    }

    /// Reports whether a later callback has already reported newer progress.
    pub fn is_stale(&self) -> bool {
        matches!(&self.hold, Some(Hold::Interaction(_, claim)) if claim.stale)
    }

    /// Records that the agent accepted the callback. The record is durable once this returns `Ok`, and only then may the
    /// provider receive an acknowledgement.
    ///
    /// # Errors
    /// Returns the denial `store_unavailable`.
    pub async fn settle(
        mut self,
        report: &Report,
        event_id: Option<&str>,
        now: Timestamp,
    ) -> Result<(), Refusal> {
        let Some(hold) = self.hold.take() else { return Ok(()) };
        let sequence = self.store.memory.settle(hold, report, event_id, now);
        // Notified before the commit: this future may be dropped while it waits, and a waiting claim awaits the commit
        // itself.
        self.store.claim_ended.notify_waiters();
        durable(self.store.journal.as_ref(), sequence).await
    }
}

impl Drop for Claimed<'_> {
    fn drop(&mut self) {
        if let Some(hold) = self.hold.take() {
            self.store.memory.release(&hold);
            self.store.claim_ended.notify_waiters();
        }
    }
}

impl Taken<'_> {
    /// Records that the provider accepted the answer.
    ///
    /// # Errors
    /// Returns the denial `store_unavailable`.
    pub async fn answered(mut self) -> Result<(), Refusal> {
        self.answered = true;
        let sequence = self.store.memory.answer(&self.id, self.number, true, self.now);
        durable(self.store.journal.as_ref(), sequence).await
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        if !self.answered {
            self.store.memory.answer(&self.id, self.number, false, self.now);
        }
    }
}

async fn durable(journal: Option<&Arc<Journal>>, sequence: u64) -> Result<(), Refusal> {
    match journal {
        Some(journal) if !journal.durable(sequence).await => Err(unavailable()),
        _ => Ok(()),
    }
}

fn unavailable() -> Refusal {
    Refusal::new(Denial::StoreUnavailable, "the ledger's file cannot be written now")
}
