//! Messages that the agent asks for.

use std::sync::Arc;

use tokio::sync::futures::Notified;

use super::Inbox;
use super::entry::{Entry, NO_LANE};
use crate::denial::{Denial, Refusal};
use crate::inbox::MessageState;
use crate::store::file::Change;
use crate::time::Timestamp;

/// A message that the agent may work on until the end of its lease.
#[derive(Clone, Copy, Debug)]
pub struct Leased {
    /// The number of the message.
    pub number: u64,
    /// The number of this attempt.
    pub attempt: u32,
    /// The end of the lease.
    pub until: Timestamp,
}

impl Inbox {
    /// Returns a future that ends when there may be messages to pull.
    pub fn pulled(&self) -> Notified<'_> {
        self.pulled.notified()
    }

    /// Leases up to `max` messages of these routes, the oldest first: as many as `bytes_max` allows, but at least one.
    /// With an interaction, only its messages. A lease does not hold back later messages.
    pub fn lease(
        &self,
        interaction: Option<&str>,
        routes: &[Arc<str>],
        (max, bytes_max): (usize, u64),
        now: Timestamp,
    ) -> Vec<Leased> {
        if !self.accepts_changes() {
            return Vec::new();
        }
        let mut index = self.index.lock();
        let is_due = |entry: &Entry| {
            entry.state == MessageState::Due
                && entry.at <= now.unix_ms()
                && routes.contains(&index.name(entry.route))
        };
        let found: Vec<u64> = match interaction {
            Some(id) => {
                let is_due = |number: &u64| index.waiting.get(number).is_some_and(is_due);
                index.lane(self.lane(Some(id))).filter(is_due).take(max).collect()
            }
            None => {
                let queues = index.routes.iter().filter(|queue| routes.contains(&queue.name));
                let due = queues
                    .flat_map(|queue| queue.due.iter().take_while(|(at, _)| *at <= now.unix_ms()).take(max));
                let mut due: Vec<_> = due.map(|(_, number)| *number).collect();
                due.sort_unstable();
                due.truncate(max);
                due
            }
        };
        let mut bytes = 0;
        let size = |number: &u64| index.waiting.get(number).map_or(0, |entry| u64::from(entry.bytes));
        let found: Vec<_> = found
            .into_iter()
            .take_while(|number| {
                let is_first = bytes == 0;
                bytes += size(number);
                is_first || bytes <= bytes_max
            })
            .collect();
        let until = now.plus(self.settings().lease);
        let lease = |number: u64| {
            let entry = index.change(number, |entry| {
                entry.tries.pulled();
                (entry.state, entry.is_pulled, entry.at) = (MessageState::Leased, true, until.unix_ms());
            })?;
            Some(Leased { number, attempt: entry.tries.attempts.into(), until })
        };
        found.into_iter().filter_map(lease).collect()
    }

    /// Gives a lease back that the agent did not receive.
    pub fn unlease(&self, number: u64, now: Timestamp) {
        self.index.lock().change(number, |entry| {
            if entry.is_pulled {
                (entry.state, entry.is_pulled, entry.at) = (MessageState::Due, false, now.unix_ms());
            }
        });
    }

    /// Records that the agent has processed a message of this interaction, or of any if there is none. The record is
    /// durable once this returns `Ok`.
    ///
    /// # Errors
    /// Returns `message_unknown` if no such message waits, and `store_unavailable`.
    pub async fn taken(&self, interaction: Option<&str>, number: u64, now: Timestamp) -> Result<(), Refusal> {
        self.take_pulled(interaction, number).await?;
        let sequence = {
            let mut index = self.index.lock();
            let entry = self.pulled_entry(&index, interaction, number)?;
            let change = self.delivered(&mut index, number, now);
            let route = index.name(entry.route);
            self.metrics.message_settled(&route, "taken");
            self.metrics.message_delivered(&route, age(&entry, now));
            self.record(change)
        };
        self.changed.notify_one();
        self.pulled.notify_waiters();
        self.durable(sequence).await
    }

    /// Records that the agent could not process a message. The message is due again after a delay.
    ///
    /// # Errors
    /// Returns `message_unknown` if no such message waits, and `store_unavailable`.
    pub async fn freed(
        &self,
        interaction: Option<&str>,
        number: u64,
        (now, random): (Timestamp, u64),
    ) -> Result<(), Refusal> {
        self.take_pulled(interaction, number).await?;
        let backoff = self.settings().backoff;
        let sequence = {
            let mut index = self.index.lock();
            self.pulled_entry(&index, interaction, number)?;
            let changed = index.change(number, |entry| {
                let delay = entry.tries.freed(backoff, random);
                (entry.state, entry.is_pulled) = (MessageState::Due, false);
                entry.at = now.plus(delay).unix_ms();
            });
            let change = |entry: Entry| Change::MessageState(number, entry.stored(Some("failed")));
            self.record(changed.map(change))
        };
        self.changed.notify_one();
        self.durable(sequence).await
    }

    /// Returns a message that the agent may settle: it is waiting, and is not being delivered by Callgate.
    fn pulled_entry(
        &self,
        index: &super::Index,
        interaction: Option<&str>,
        number: u64,
    ) -> Result<Entry, Refusal> {
        let lane = self.lane(interaction);
        let entry = index.waiting.get(&number).filter(|entry| lane == NO_LANE || entry.lane == lane);
        let entry = entry.filter(|entry| entry.is_pulled || entry.state == MessageState::Due);
        entry.copied().ok_or_else(|| Refusal::new(Denial::MessageUnknown, Denial::MessageUnknown.help()))
    }

    /// Returns the number of messages of an interaction that wait, and of those that are not durable yet.
    pub fn waiting_of(&self, interaction: &str) -> (usize, usize) {
        let (index, lane) = (self.index.lock(), self.lane(Some(interaction)));
        (index.lane(lane).count(), index.arriving(lane))
    }

    /// Returns the messages of an interaction after `after` that are kept, oldest first, for somebody who only watches.
    pub fn messages_of(&self, interaction: &str, after: u64, max: usize) -> Vec<u64> {
        let lane = self.lane(Some(interaction));
        let index = self.index.lock();
        let settled = index.settled.range(after.saturating_add(1)..).filter(|(_, entry)| entry.lane == lane);
        let settled = settled.map(|(number, _)| *number).take(max);
        let mut found: Vec<_> = index.lane(lane).filter(|number| *number > after).chain(settled).collect();
        found.sort_unstable();
        found.truncate(max);
        found
    }

    /// Returns the number of callbacks of an interaction that the agent has not received, and the time of the last one.
    pub fn undelivered(&self, interaction: &str) -> Option<(u32, Timestamp)> {
        let index = self.index.lock();
        let (mut count, mut last) = (0_u32, i64::MIN);
        for (_, entry) in index.undelivered(self.lane(Some(interaction))) {
            count = count.saturating_add(1);
            last = last.max(if entry.state.is_waiting() { entry.since } else { entry.at });
        }
        (count > 0).then_some((count, Timestamp::from_unix_ms(last)))
    }
}

/// Returns the time since a message was accepted, in seconds.
fn age(entry: &Entry, now: Timestamp) -> f64 {
    now.unix_ms().saturating_sub(entry.since).max(0) as f64 / 1000.0
}
