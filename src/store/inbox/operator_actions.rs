//! The views of messages for operators, and the operations of operators: replay and removal.

use std::num::NonZero;
use std::sync::Arc;
use std::time::Duration;

use super::entry::Entry;
use super::index::Counts;
use super::{Inbox, PASSED_MAX};
use crate::denial::Refusal;
use crate::inbox::{Cause, MessageState};
use crate::store::file::Change;
use crate::time::{Rate, Timestamp};

/// Selects messages of the inbox.
#[derive(Clone, Debug, Default)]
pub struct MessageFilter {
    /// Only messages of this route.
    pub route: Option<Box<str>>,
    /// Only messages in this state.
    pub state: Option<MessageState>,
    /// Only messages of this interaction.
    pub interaction: Option<Box<str>>,
    /// Only messages whose number is higher than this number.
    pub after: u64,
}

/// A message as operators see it, without its head and body.
#[derive(Clone, Debug)]
pub struct MessageView {
    /// The number of the message.
    pub number: u64,
    /// The name of the message's route.
    pub route: Arc<str>,
    /// The state of the message.
    pub state: MessageState,
    /// The reason why the message is dead. `None` if the message is not dead.
    pub cause: Option<Cause>,
    /// The number of attempts that may have reached the agent.
    pub attempts: u16,
    /// The time of the next attempt or of the end of the lease. For a delivered or dead message, the time at which the
    /// message was delivered or became dead.
    pub at: Timestamp,
    /// The size of head and body, in bytes.
    pub bytes: u32,
}

/// The result of replaying messages.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Replayed {
    /// The number of messages that are due again.
    Messages(usize),
    /// The message is waiting already, so it was not replayed.
    Waiting,
    /// The inbox does not contain the message.
    Unknown,
}

/// The messages of one route, as operators see them.
#[derive(Clone, Debug)]
pub struct RouteOverview {
    /// The name of the route.
    pub route: Arc<str>,
    /// The number of messages of the route in each state.
    pub counts: Counts,
    /// The time at which the period for attempts of the oldest waiting message began.
    pub oldest: Option<Timestamp>,
}

impl Inbox {
    /// Returns an overview of the messages of each route, and the size of all messages in bytes.
    pub fn overview(&self) -> (Vec<RouteOverview>, u64) {
        let index = self.index.lock();
        let oldest = index.oldest().into_iter().map(|(_, at)| at.map(Timestamp::from_unix_ms));
        let routes = index.routes.iter().zip(oldest);
        let overview = routes.map(|(queue, oldest)| RouteOverview {
            route: Arc::clone(&queue.name),
            counts: queue.counts,
            oldest,
        });
        (overview.collect(), index.bytes)
    }

    /// Returns the view of the message with this number.
    pub fn view(&self, number: u64) -> Option<MessageView> {
        let index = self.index.lock();
        let entry = index.waiting.get(&number).or_else(|| index.settled.get(&number))?;
        Some(view(number, entry, index.name(entry.route)))
    }

    /// Returns up to `limit` messages that the filter selects, in the order of their numbers.
    pub fn list(&self, filter: &MessageFilter, limit: usize) -> Vec<MessageView> {
        let lane = filter.interaction.as_deref().map(|id| self.lane(Some(id)));
        let index = self.index.lock();
        let after = filter.after.saturating_add(1);
        let mut found: Vec<MessageView> = Vec::new();
        for messages in [&index.waiting, &index.settled] {
            let wanted = messages.range(after..).filter_map(|(number, entry)| {
                let name = index.name(entry.route);
                let is_wanted = filter.route.as_deref().is_none_or(|route| *name == *route)
                    && filter.state.is_none_or(|state| entry.state == state)
                    && lane.is_none_or(|lane| entry.lane == lane);
                is_wanted.then(|| view(*number, entry, name))
            });
            found.extend(wanted.take(limit));
        }
        found.sort_unstable_by_key(|view| view.number);
        found.truncate(limit);
        found
    }

    /// Makes a dead or delivered message due again, with the same id. The change is durable when this method returns
    /// `Ok`.
    ///
    /// # Errors
    /// Returns the denial `store_unavailable` if the change is not durable in time.
    pub async fn replay(&self, number: u64, now: Timestamp) -> Result<Replayed, Refusal> {
        let sequence = {
            let mut index = self.index.lock();
            if index.waiting.contains_key(&number) {
                return Ok(Replayed::Waiting);
            }
            match self.revive(&mut index, number, now) {
                Some(change) => self.record([change]),
                None => return Ok(Replayed::Unknown),
            }
        };
        self.due();
        self.durable(sequence).await.map(|()| Replayed::Messages(1))
    }

    /// Makes the dead and delivered messages that the filter selects due again. If `since` is set, excludes messages
    /// that became dead or were delivered earlier. If `rate` is set, the messages become due one after another, at this
    /// rate. Returns the number of messages that are due again.
    ///
    /// # Errors
    /// Returns the denial `store_unavailable` if a change is not durable in time. Some of the messages may then be due
    /// again.
    pub async fn replay_many(
        &self,
        filter: &MessageFilter,
        since: Option<Timestamp>,
        rate: Option<Rate>,
        now: Timestamp,
    ) -> Result<usize, Refusal> {
        let interval = rate.map_or(Duration::ZERO, |rate| rate.per / NonZero::get(rate.requests));
        let found = self.list(filter, usize::MAX);
        let is_wanted =
            |view: &&MessageView| !view.state.is_waiting() && since.is_none_or(|since| view.at >= since);
        let found: Vec<_> = found.iter().filter(is_wanted).map(|view| view.number).collect();
        let (mut at, mut count) = (now, 0);
        // The messages are changed in parts. Between two parts, other tasks can use the index, and the changes are
        // written.
        for part in found.chunks(PASSED_MAX) {
            let sequence = {
                let mut index = self.index.lock();
                let mut changes = Vec::new();
                for number in part {
                    if let Some(change) = self.revive(&mut index, *number, at) {
                        changes.push(change);
                        at = at.plus(interval);
                    }
                }
                count += changes.len();
                self.record(changes)
            };
            self.due();
            self.durable(sequence).await?;
        }
        Ok(count)
    }

    /// Removes a message permanently. Returns false if there is no such message, or if the message is being delivered.
    ///
    /// # Errors
    /// Returns the denial `store_unavailable` if the change is not durable in time.
    pub async fn erase(&self, number: u64) -> Result<bool, Refusal> {
        let sequence = {
            let mut index = self.index.lock();
            let is_in_flight = |entry: &Entry| entry.state == MessageState::Leased && !entry.is_pulled;
            if index.waiting.get(&number).is_some_and(is_in_flight) {
                return Ok(false);
            }
            let Some(entry) = index.remove(number) else { return Ok(false) };
            self.metrics.message_settled(&index.name(entry.route), "erased");
            self.record([Change::MessageGone(number)])
        };
        self.due();
        self.durable(sequence).await.map(|()| true)
    }

    fn due(&self) {
        self.changed.notify_one();
        self.waiters.wake_all();
    }

    /// Makes a delivered or dead message due at `at`. Its period for attempts begins anew at this time. Returns the
    /// change for the ledger, or `None` if no delivered or dead message has this number.
    fn revive(&self, index: &mut super::Index, number: u64, at: Timestamp) -> Option<Change> {
        if !index.settled.contains_key(&number) {
            return None;
        }
        let mut entry = index.take_out(number)?;
        entry.tries.replayed();
        (entry.state, entry.cause, entry.is_replayed) = (MessageState::Due, None, true);
        (entry.at, entry.since) = (at.unix_ms(), at.unix_ms());
        index.add(number, entry);
        Some(Change::MessageState(number, entry.stored(None)))
    }
}

fn view(number: u64, entry: &Entry, route: Arc<str>) -> MessageView {
    let (state, cause, attempts) = (entry.state, entry.cause, entry.tries.attempts);
    MessageView { number, route, state, cause, attempts, at: entry.at(), bytes: entry.bytes }
}
