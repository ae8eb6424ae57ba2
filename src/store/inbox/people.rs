//! What people see of the messages, and what they can do with them: replay and remove.

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

/// Selects messages.
#[derive(Clone, Debug, Default)]
pub struct MessageFilter {
    /// Only messages of this route.
    pub route: Option<Box<str>>,
    /// Only messages in this state.
    pub state: Option<MessageState>,
    /// Only messages of this interaction.
    pub interaction: Option<Box<str>>,
    /// Only messages with a higher number.
    pub after: u64,
}

/// A message for people, without its head and body.
#[derive(Clone, Debug)]
pub struct MessageView {
    /// The number.
    pub number: u64,
    /// The route.
    pub route: Arc<str>,
    /// The state.
    pub state: MessageState,
    /// The reason why a dead message is dead.
    pub cause: Option<Cause>,
    /// The number of attempts that may have reached the agent.
    pub attempts: u16,
    /// The time of the next attempt or of the end of the lease. For a settled message, the time at which it was settled.
    pub at: Timestamp,
    /// The size of head and body, in bytes.
    pub bytes: u32,
}

/// The result of a replay.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Replayed {
    /// The number of messages that are due again.
    Messages(usize),
    /// The message waits already.
    Waiting,
    /// There is no such message.
    Unknown,
}

/// The messages of one route, for people.
#[derive(Clone, Debug)]
pub struct RouteOverview {
    /// The route.
    pub route: Arc<str>,
    /// The numbers of messages.
    pub counts: Counts,
    /// The time from which on the time for attempts of the oldest waiting message counts.
    pub oldest: Option<Timestamp>,
}

impl Inbox {
    /// Returns the messages of each route, and the size of all messages.
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

    /// Returns a message.
    pub fn view(&self, number: u64) -> Option<MessageView> {
        let index = self.index.lock();
        let entry = index.waiting.get(&number).or_else(|| index.settled.get(&number))?;
        Some(view(number, entry, index.name(entry.route)))
    }

    /// Returns up to `limit` messages, in the order of their numbers.
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

    /// Makes a dead or delivered message due again. Its id stays the same. This is durable once this returns `Ok`.
    ///
    /// # Errors
    /// Returns the denial `store_unavailable`.
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

    /// Makes dead and delivered messages due again that were settled at `since` or later. `rate` spreads them.
    ///
    /// # Errors
    /// Returns the denial `store_unavailable`. A part of the messages may then be due again.
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
        // Others may use the index, and the file is written, between two parts.
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

    /// Removes a message for good. Returns false if there is none, or if it is being delivered.
    ///
    /// # Errors
    /// Returns the denial `store_unavailable`.
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

    /// Makes a settled message due at `at`, from which on the time for attempts counts anew. Returns the change for the
    /// file.
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
