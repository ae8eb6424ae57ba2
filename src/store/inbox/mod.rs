//! The inbox: callbacks that Callgate stores until their agent has received them. The heads and bodies of these
//! messages are in the ledger's file or in a shared ledger. An index of the messages that this process delivers is in
//! memory.
//!
//! A message is written with its event and its interaction in one commit ([`Store::accept`]). The message becomes due
//! when this commit is durable. The result of an attempt to deliver the message is recorded before the next message of
//! the interaction is delivered.

mod accept;
mod backing;
mod delivery_attempts;
mod entry;
mod ids;
mod index;
#[cfg(test)]
mod index_tests;
mod operator_actions;
mod pull_waiters;
mod pulls;
mod reading;
mod restore;
mod shared;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::event_memory::FingerprintKey;
use super::file::Change;
use super::ledger::{Store, unavailable};
use crate::denial::Refusal;
use crate::inbox::{Cause, InboxSettings, MessageState};
use crate::ingress::Kept;
use crate::interaction::EventKey;
use crate::observe::Metrics;
use crate::time::Timestamp;
use accept::Reserved;
use entry::NO_LANE;
use ids::{ID, Ids};
use index::Index;
use pull_waiters::PullWaiters;

pub(super) use backing::Backing;
pub use delivery_attempts::Started;
pub use index::Counts;
pub use operator_actions::{MessageFilter, MessageView, Replayed, RouteOverview};
pub use pulls::{Leased, Settling};
pub(super) use shared::{SharedMessages, start as start_shared};

/// The maximum number of messages that one call of [`Inbox::pass`] changes for each reason. There are at least four
/// calls per second.
const PASSED_MAX: usize = 2_000;

/// The inbox: the callbacks that Callgate stores as messages until their agent has received them.
#[derive(Debug)]
pub struct Inbox {
    index: Mutex<Index>,
    /// The highest message number that was assigned.
    number: AtomicU64,
    ids: Ids,
    /// The secret key of the fingerprints of interactions.
    key: FingerprintKey,
    backing: Backing,
    metrics: Arc<Metrics>,
    settings: ArcSwap<InboxSettings>,
    /// Notified when a message may have become due.
    changed: Notify,
    /// The agents that wait for messages. They are woken when a message can be pulled, or when an interaction has
    /// ended.
    waiters: PullWaiters,
    is_stopping: AtomicBool,
}

/// The result of applying the current time to the messages ([`Inbox::pass`]).
#[derive(Debug, Default)]
pub struct PassedMessages {
    /// The numbers of the messages that are dead because their period for attempts has ended.
    pub given_up: Vec<u64>,
    /// The duration by which the clock was set back, if it was set back.
    pub set_back: Option<Duration>,
}

/// A message as read from the ledger.
#[derive(Debug)]
pub struct Message {
    /// The head of the message.
    pub kept: Kept,
    /// The decrypted body of the message.
    pub body: Bytes,
}

/// The head of a message as read from the ledger, without the body.
#[derive(Debug)]
pub struct MessageHead {
    /// The head of the message.
    pub kept: Kept,
    /// The result of the last attempt, as a text for operators.
    pub last_result: Option<Box<str>>,
}

impl Inbox {
    pub(super) fn new(key: FingerprintKey, backing: Backing, metrics: Arc<Metrics>) -> Self {
        let ids = Ids::default();
        if backing.shared().is_none() {
            ids.set_key(key);
        }
        Self {
            index: Mutex::default(),
            number: AtomicU64::new(0),
            ids,
            key,
            backing,
            metrics,
            settings: ArcSwap::default(),
            changed: Notify::new(),
            waiters: PullWaiters::default(),
            is_stopping: AtomicBool::new(false),
        }
    }

    /// Returns the current settings of the inbox.
    pub fn settings(&self) -> Arc<InboxSettings> {
        self.settings.load_full()
    }

    /// Returns the id of the message with this number. The id cannot be guessed, and no other installation has the same
    /// id.
    pub fn id(&self, number: u64) -> String {
        self.ids.id(number)
    }

    /// Returns the number of the message with this id. Returns `None` if the id is not an id of this ledger.
    pub fn number_of(&self, id: &str) -> Option<u64> {
        let number = id.strip_prefix(ID)?.split_once('_')?.0.parse().ok()?;
        (self.id(number) == id).then_some(number)
    }

    /// Returns the fingerprint of an interaction. Messages with the same fingerprint are in one sequence. Without an
    /// interaction, returns [`NO_LANE`].
    fn lane(&self, interaction: Option<&str>) -> u64 {
        interaction.map_or(NO_LANE, |id| self.key.fingerprint(id, EventKey(0)))
    }

    /// Records changes of messages. Returns the sequence number of the changes for [`Inbox::durable`].
    fn record(&self, changes: impl IntoIterator<Item = Change>) -> u64 {
        self.backing.record(changes, |number| self.id(number))
    }

    /// Waits until the change with this sequence number is durable.
    ///
    /// # Errors
    /// Returns the denial `store_unavailable` if the change is not durable after `store.grace`.
    async fn durable(&self, sequence: u64) -> Result<(), Refusal> {
        if self.backing.durable(sequence).await { Ok(()) } else { Err(unavailable()) }
    }

    /// Reports whether changes can be written, so that attempts may begin.
    pub fn accepts_changes(&self) -> bool {
        self.backing.accepts_changes()
    }

    /// Reports whether the inbox contains no messages.
    pub fn is_empty(&self) -> bool {
        self.index.lock().count == 0
    }

    /// Sets the settings of the inbox. `routes` contains the name of each route, and whether the route delivers the
    /// messages of an interaction one after another.
    pub fn configure(&self, settings: Arc<InboxSettings>, routes: &[(Arc<str>, bool)]) {
        let drops_others = settings.drops_removed_routes;
        self.settings.store(settings);
        self.index.lock().configure(routes, drops_others);
        self.changed.notify_one();
        self.waiters.wake_all();
    }

    /// Returns the names of the routes that have waiting messages.
    pub fn waiting_routes(&self) -> Vec<Arc<str>> {
        let index = self.index.lock();
        let waiting = index.routes.iter().filter(|route| route.counts.waiting > 0);
        waiting.map(|route| Arc::clone(&route.name)).collect()
    }

    /// Returns each route with the number of its messages in each state.
    pub fn counts(&self) -> Vec<(Arc<str>, Counts)> {
        let index = self.index.lock();
        index.routes.iter().map(|route| (Arc::clone(&route.name), route.counts)).collect()
    }

    /// Ends the waits of agents that pull messages, because the process stops.
    pub fn stop(&self) {
        self.is_stopping.store(true, Ordering::SeqCst);
        self.waiters.wake_all();
    }

    /// Reports whether [`Inbox::stop`] was called, because the process stops.
    pub fn is_stopping(&self) -> bool {
        self.is_stopping.load(Ordering::SeqCst)
    }

    /// Waits until a message may be due, or until a commit that contains new messages is durable. The caller must call
    /// [`Inbox::pass`] afterwards.
    pub async fn changed(&self) {
        let has_more = !self.index.lock().storing.is_empty();
        match self.backing.stores().filter(|_| has_more) {
            Some(mut durable) => {
                // A commit may have become durable before this wait began.
                if self.has_stored(*durable.borrow_and_update()) {
                    return;
                }
                tokio::select! {
                    changed = durable.changed() => if changed.is_err() {
                        // The writer has ended. Nothing will become durable.
                        self.changed.notified().await;
                    },
                    () = self.changed.notified() => {}
                }
            }
            None => self.changed.notified().await,
        }
    }

    fn has_stored(&self, durable: u64) -> bool {
        self.index.lock().storing.front().is_some_and(|(sequence, ..)| *sequence <= durable)
    }

    /// Applies the current time to the messages: makes durable new messages due, expires leases, gives up messages
    /// whose period for attempts has ended, and removes messages whose retention has ended. If the settings drop the
    /// messages of removed routes, a message that was being delivered or accepted during the removal of its route
    /// becomes dead. Returns the messages that were given up, and whether the clock was set back.
    pub fn pass(&self, now: Timestamp) -> PassedMessages {
        let settings = &self.settings();
        let mut index = self.index.lock();
        let set_back = index.clock(now);
        self.promote(&mut index, settings);
        let lapsed = index.lapsed(now, PASSED_MAX);
        for number in &lapsed {
            index.change(*number, |entry| {
                (entry.state, entry.is_pulled, entry.at) = (MessageState::Due, false, now.unix_ms());
            });
        }
        if !lapsed.is_empty() {
            self.waiters.wake_all();
        }
        let mut passed = PassedMessages { set_back, ..PassedMessages::default() };
        if !self.accepts_changes() {
            return passed;
        }
        let mut changes = Vec::new();
        passed.given_up = index.given_up(settings, now, PASSED_MAX);
        for number in &passed.given_up {
            changes.extend(self.bury(&mut index, *number, (Cause::GivenUp, None), now));
        }
        for number in index.orphans(PASSED_MAX) {
            changes.extend(self.bury(&mut index, number, (Cause::RouteRemoved, None), now));
        }
        for number in index.outlived(now, PASSED_MAX) {
            index.remove(number);
            changes.push(Change::MessageGone(number));
        }
        if !changes.is_empty() {
            self.record(changes);
        }
        passed
    }

    /// Makes each new message due if its commit is durable.
    fn promote_stored(&self) {
        let mut index = self.index.lock();
        self.promote(&mut index, &self.settings());
        drop(index);
        self.changed.notify_one();
    }

    /// Makes each new message due if its commit is durable. If the settings coalesce progress, removes the waiting
    /// progress messages that a new progress message of the same interaction replaces.
    fn promote(&self, index: &mut Index, settings: &InboxSettings) {
        let durable = self.backing.stored_until();
        let mut overtaken = Vec::new();
        while let Some((sequence, ..)) = index.storing.front()
            && *sequence <= durable
            && let Some((_, number, entry)) = index.storing.pop_front()
        {
            if settings.coalesces_progress && entry.is_progress {
                overtaken.extend(overtake(index, number, entry.lane, &self.metrics));
            }
            index.add(number, entry);
            self.waiters.wake(entry.lane);
        }
        // The removal is recorded even while the file cannot be written. Otherwise, the removed messages would be in
        // the inbox again after a restart.
        if !overtaken.is_empty() {
            self.record(overtaken.into_iter().map(Change::MessageGone));
        }
    }

    /// Marks a message as dead. Returns the change of its state for the ledger, or `None` if the inbox does not contain
    /// the message.
    fn bury(
        &self,
        index: &mut Index,
        number: u64,
        (cause, last): (Cause, Option<&str>),
        now: Timestamp,
    ) -> Option<Change> {
        let (settled, keep) = ((MessageState::Dead, Some(cause)), self.settings().keep_dead);
        let entry = index.settle(number, settled, keep, now)?;
        self.metrics.message_settled(&index.name(entry.route), cause.name());
        Some(Change::MessageState(number, entry.stored(last)))
    }

    /// Updates the metrics that report the number, size and age of messages.
    pub fn report(&self, now: Timestamp) {
        let index = self.index.lock();
        let age = |at: i64| now.unix_ms().saturating_sub(at).max(0) as f64 / 1000.0;
        let oldest = index.oldest();
        for (route, (_, oldest)) in index.routes.iter().zip(&oldest) {
            let Counts { waiting, dead, delivered, .. } = route.counts;
            self.metrics.inbox(&route.name, [waiting, dead, delivered], oldest.map_or(0.0, age));
        }
        self.metrics.inbox_bytes(index.bytes);
    }
}

/// Removes the waiting progress messages of an interaction that are earlier than the message `number`. Returns the
/// numbers of the removed messages.
fn overtake(index: &mut Index, number: u64, lane: u64, metrics: &Metrics) -> Vec<u64> {
    if lane == NO_LANE {
        return Vec::new();
    }
    let is_old = |other: &u64| {
        let entry = index.waiting.get(other);
        entry.is_some_and(|entry| *other < number && entry.is_progress && entry.state == MessageState::Due)
    };
    let old: Vec<_> = index.lane(lane).filter(is_old).collect();
    for other in &old {
        if let Some(entry) = index.remove(*other) {
            metrics.message_settled(&index.name(entry.route), "overtaken");
        }
    }
    old
}

impl Store {
    /// Returns the inbox.
    pub fn inbox(&self) -> &Arc<Inbox> {
        &self.inbox
    }

    /// Records that the agent has received all messages of an interaction, including replayed messages and the final
    /// callback. Does nothing if a message of the interaction is being accepted, is waiting, or is dead.
    pub fn message_received(&self, interaction: &str, now: Timestamp) {
        let (_, arriving) = self.inbox.waiting_of(interaction);
        if arriving > 0 || self.inbox.undelivered(interaction).is_some() {
            return;
        }
        match &self.shared {
            Some(shared) => shared.message_received(interaction),
            None => self.memory.received_all(interaction, now),
        }
    }

    /// Records in an interaction that one of its callbacks will not reach the agent. The agent then gets a notice.
    ///
    /// # Errors
    /// Returns the denial `store_unavailable` if the change cannot be made durable.
    pub async fn undelivered(&self, interaction: &str, now: Timestamp) -> Result<(), Refusal> {
        if let Some(shared) = &self.shared {
            return shared.undelivered(interaction).await;
        }
        let sequence = self.memory.undelivered(interaction, now);
        self.inbox.durable(sequence).await
    }
}
