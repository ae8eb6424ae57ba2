//! The store: the ledger of interactions and delivered events, in memory, or in memory and in a file. Its face is
//! narrow, and everything that must be safe before somebody is told so is awaited: a shared store can come behind
//! it.
//!
//! Who delivers a callback claims it first ([`Store::claim`]) and settles it once the agent took it
//! ([`Claimed::settle`]); a claim that is dropped is released, so that the provider's retry is delivered.

mod change;
mod dedup;
mod file;
mod journal;
mod memory;
mod mint;
mod restore;
mod sweep;
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

/// Interactions that one step of a walk through the ledger looks at; less than a millisecond.
const STEP: usize = 2_000;

/// Why a store does not start.
#[derive(Debug)]
pub struct StoreError {
    /// The file.
    pub path: Box<str>,
    /// What is wrong, in words.
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
    /// Somebody who waits for a claim to end looks again.
    freed: Notify,
}

/// A callback that the ledger lets pass. Dropped without being settled, it is released.
#[derive(Debug)]
pub struct Claimed<'s> {
    store: &'s Store,
    hold: Option<Hold>,
}

/// A question that is being answered. Dropped without having been answered, it can be answered again.
#[derive(Debug)]
pub struct Taken<'s> {
    store: &'s Store,
    now: Timestamp,
    id: Box<str>,
    number: u32,
    /// The route of its interaction.
    pub route: Arc<str>,
    /// Where the answer goes.
    pub endpoint: Box<str>,
    answered: bool,
}

/// How far a walk through the ledger has come.
#[derive(Debug, Default)]
pub struct Walk {
    shard: usize,
    oldest: HashMap<Arc<str>, Timestamp>,
}

impl Store {
    /// Opens the store; with a file, takes over what it holds.
    ///
    /// # Errors
    /// [`StoreError`]: the file cannot be used, or another process uses it.
    pub fn start(
        settings: &StoreSettings,
        metrics: Arc<Metrics>,
        clock: fn() -> Instant,
    ) -> Result<Self, StoreError> {
        metrics.store_limits(settings.interactions_max);
        let Some(path) = &settings.path else {
            let memory = Arc::new(Memory::new(settings.clone(), None, metrics));
            return Ok(Self { memory, journal: None, freed: Notify::new() });
        };
        let failed = |message| StoreError { path: path.clone(), message };
        let file = LedgerFile::open(path).map_err(failed)?;
        let held = file.read().map_err(failed)?;
        let (journal, safe) = Journal::new(held.number_max, settings.grace, Arc::clone(&metrics), clock);
        let journal = Arc::new(journal);
        let memory = Arc::new(Memory::new(settings.clone(), Some(Arc::clone(&journal)), metrics));
        restore(held, &memory);
        writer::start(&journal, file, Arc::downgrade(&memory), safe).map_err(failed)?;
        Ok(Self { memory, journal: Some(journal), freed: Notify::new() })
    }

    /// Looks whether everything that is acknowledged can be kept.
    pub fn health(&self) -> Health {
        self.journal.as_ref().map_or(Health::Well, |journal| journal.look())
    }

    /// How many interactions and delivered events are known.
    pub fn counts(&self) -> (usize, usize) {
        self.memory.counts()
    }

    /// Records a minted interaction, which begins `now`; it is safe once this returns.
    ///
    /// # Errors
    /// `store_full`, `store_unavailable`.
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

    /// Whether something new may be begun.
    fn takes_more(&self) -> bool {
        self.journal.as_ref().is_none_or(|journal| journal.takes_more())
    }

    fn check(&self) -> Result<(), Refusal> {
        if self.takes_more() { Ok(()) } else { Err(unavailable()) }
    }

    /// Asks whether a verified callback may be delivered now. Where the same event is being delivered, or the last
    /// use of the interaction is, this waits for how that ends, at most for `patience`.
    ///
    /// # Errors
    /// [`ClaimError`].
    pub async fn claim(
        &self,
        ask: &Ask<'_>,
        now: Timestamp,
        patience: Duration,
    ) -> Result<Claimed<'_>, ClaimError> {
        self.check().map_err(ClaimError::Refused)?;
        let claimed = match self.memory.claim(ask, now) {
            Ok(Some(hold)) => Ok(self.claimed(hold)),
            // Boxed, because it is rare, and every exchange would carry its room about.
            Ok(None) => Box::pin(self.claim_patiently(ask, now, patience)).await,
            Err(held) => Err(held),
        };
        if claimed.is_err()
            && let Some(journal) = &self.journal
            && !journal.durable(journal.sequence()).await
        {
            // What the answer rests on is not safe yet, and may not be there after a crash.
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
        let detail = "the same event, or the last one allowed, is still being delivered";
        let late = || ClaimError::Refused(Refusal::new(Denial::EventInFlight, detail));
        timeout(patience, self.claim_freed(ask, now)).await.map_err(|_| late())?
    }

    async fn claim_freed(&self, ask: &Ask<'_>, now: Timestamp) -> Result<Claimed<'_>, ClaimError> {
        loop {
            // Registered before the look: an end that falls between the two is not missed.
            let freed = self.freed.notified();
            if let Some(hold) = self.memory.claim(ask, now)? {
                return Ok(self.claimed(hold));
            }
            freed.await;
        }
    }

    fn claimed(&self, hold: Hold) -> Claimed<'_> {
        Claimed { store: self, hold: Some(hold) }
    }

    /// Revokes an interaction: its token opens nothing from now on. Returns whether it could be known.
    ///
    /// # Errors
    /// `store_full`, `store_unavailable`.
    pub async fn revoke(&self, id: &str, now: Timestamp) -> Result<bool, Refusal> {
        self.check()?;
        let Some(revoked) = self.memory.revoke(id, now) else { return Ok(false) };
        durable(self.journal.as_ref(), revoked?).await?;
        Ok(true)
    }

    /// The request of an interaction did not reach its provider, or was refused; `unseen`: nobody got to know its token,
    /// so that it may be forgotten when room is needed.
    ///
    /// # Errors
    /// `store_unavailable`.
    pub async fn not_sent(&self, id: &str, unseen: bool, now: Timestamp) -> Result<(), Refusal> {
        durable(self.journal.as_ref(), self.memory.not_sent(id, unseen, now)).await
    }

    /// The provider's own id of an interaction became known.
    ///
    /// # Errors
    /// `store_unavailable`.
    pub async fn bind(&self, id: &str, provider_id: &str, now: Timestamp) -> Result<(), Refusal> {
        durable(self.journal.as_ref(), self.memory.bind(id, provider_id, now)).await
    }

    /// Takes a question of an interaction to answer it: the one of this number, or the only one that is open.
    ///
    /// # Errors
    /// [`QuestionFault`].
    pub fn take_question(
        &self,
        id: &str,
        number: Option<u32>,
        now: Timestamp,
    ) -> Result<Taken<'_>, QuestionFault> {
        // An answer that could not be kept would be given twice.
        self.check().map_err(|_| QuestionFault::Unavailable)?;
        let (route, number, endpoint) = self.memory.take_question(id, number, now)?;
        Ok(Taken { store: self, now, id: id.into(), number, route, endpoint, answered: false })
    }

    /// What is known of an interaction.
    pub fn read(&self, id: &str) -> Option<Interaction> {
        self.memory.read(id)
    }

    /// At most `limit` interactions in the order of their ids, behind `after`, that are wanted.
    pub fn list(
        &self,
        after: &str,
        limit: usize,
        wanted: impl Fn(&Interaction) -> bool,
    ) -> BTreeMap<Arc<str>, Interaction> {
        self.memory.list(after, limit, wanted)
    }

    /// Lets time pass: what is overdue lapses, what nobody needs any more is forgotten. Returns what the agent is to
    /// be told. While the file takes nothing new, time stands still here: what lapses meanwhile lapses afterwards.
    pub fn pass(&self, now: Timestamp) -> Vec<DueNotice> {
        let mut notices = Vec::new();
        self.health();
        for index in (0..SHARDS).take_while(|_| self.takes_more()) {
            self.memory.pass(index, now, &mut notices);
        }
        if self.takes_more() {
            self.memory.pass_dedup(now);
        }
        notices
    }

    /// The agent answered a notice, or did not.
    ///
    /// # Errors
    /// `store_unavailable`.
    pub async fn noticed(&self, due: &DueNotice, answered: bool, now: Timestamp) -> Result<(), Refusal> {
        let sequence = self.memory.noticed(&due.id, due.notice, answered, now);
        durable(self.journal.as_ref(), sequence).await
    }

    /// Walks on through the ledger for the oldest open interaction of each route. A walk through a large ledger takes
    /// many steps, so that no step holds up the callbacks.
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

    /// Writes what is left and closes the file.
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
    /// The proof, for the permit.
    pub fn cleared(&self) -> Cleared {
        match &self.hold {
            Some(Hold::Interaction(_, claim)) => Cleared::by_the_ledger(claim.question, claim.stale),
            Some(Hold::Dedup(_)) | None => Cleared::by_the_ledger(None, false),
        }
    }

    /// Whether what the callback reports is overtaken.
    pub fn is_stale(&self) -> bool {
        matches!(&self.hold, Some(Hold::Interaction(_, claim)) if claim.stale)
    }

    /// The agent took the callback; this is safe once it returns, and only then may the provider be told.
    ///
    /// # Errors
    /// `store_unavailable`.
    pub async fn settle(
        mut self,
        report: &Report,
        event_id: Option<&str>,
        now: Timestamp,
    ) -> Result<(), Refusal> {
        let Some(hold) = self.hold.take() else { return Ok(()) };
        let sequence = self.store.memory.settle(hold, report, event_id, now);
        let settled = durable(self.store.journal.as_ref(), sequence).await;
        self.store.freed.notify_waiters();
        settled
    }
}

impl Drop for Claimed<'_> {
    fn drop(&mut self) {
        if let Some(hold) = self.hold.take() {
            self.store.memory.release(&hold);
            self.store.freed.notify_waiters();
        }
    }
}

impl Taken<'_> {
    /// The provider took the answer.
    ///
    /// # Errors
    /// `store_unavailable`.
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
    Refusal::new(Denial::StoreUnavailable, "the store could not write")
}
