//! Messages that agents pull, and then acknowledge or return.

use std::sync::Arc;

use tokio::sync::futures::Notified;

use super::Inbox;
use super::entry::{Entry, NO_LANE};
use crate::denial::{Denial, Refusal};
use crate::inbox::MessageState;
use crate::store::file::Change;
use crate::time::Timestamp;

/// A message that an agent has pulled, and may work on until the end of the lease. Dropping this value without
/// [`Leased::received`] ends the lease, so that the message is due again.
#[derive(Debug)]
pub struct Leased {
    inbox: Arc<Inbox>,
    /// The number of the message.
    pub number: u64,
    /// The number of this attempt to process the message, beginning with 1.
    pub attempt: u32,
    /// The end of the lease.
    pub until: Timestamp,
    /// The time at which the message is due again if the agent does not receive it, in Unix milliseconds.
    again_at: i64,
    /// The time at which the lease began. If the clock was set back since then, the due time is set back, too.
    leased_at: Timestamp,
    is_received: bool,
}

impl Leased {
    /// Records that the response with the message was written to the agent.
    pub fn received(mut self) {
        self.is_received = true;
    }

    /// Ends the lease. The message is due again at `at`.
    pub fn postpone(mut self, at: Timestamp) {
        self.again_at = at.unix_ms();
    }
}

impl Drop for Leased {
    fn drop(&mut self) {
        if self.is_received {
            return;
        }
        let mut index = self.inbox.index.lock();
        let at = self.again_at.saturating_sub(index.set_back_since(self.leased_at));
        let changed = index.change(self.number, |entry| {
            // If the message is not pulled, or has another attempt number, this lease has ended already.
            if entry.is_pulled && u32::from(entry.tries.attempts) == self.attempt {
                (entry.state, entry.is_pulled, entry.at) = (MessageState::Due, false, at);
            }
        });
        drop(index);
        if let Some(entry) = changed {
            self.inbox.waiters.wake(entry.lane);
        }
    }
}

/// The conditions that a message must satisfy so that a request of an agent can acknowledge or return it.
#[derive(Clone, Copy, Debug)]
pub struct Settling<'s> {
    /// The interaction of the message. `None` if the request does not name the interaction.
    pub interaction: Option<&'s str>,
    /// The routes whose messages the agent pulls.
    pub routes: &'s [Arc<str>],
    /// The number of the attempt that the agent has worked on, if the request names the attempt.
    pub attempt: Option<u32>,
}

impl Inbox {
    /// Returns a future that ends when there may be messages to pull: messages of this interaction, or of any
    /// interaction for `None`.
    pub fn pulled(&self, interaction: Option<&str>) -> Notified<'_> {
        self.waiters.wait(self.lane(interaction))
    }

    /// Reports whether the ledger is shared, so that other processes can change the messages and the interactions.
    pub fn is_shared(&self) -> bool {
        self.backing.shared().is_some()
    }

    /// Leases up to `max` due messages of these routes, the oldest first. The size of the leased messages is at most
    /// `bytes_max`, but at least one message is leased. If `interaction` is set, leases only messages of this
    /// interaction. In this case, a message of an ordered route can be leased before the agent has acknowledged the
    /// earlier messages.
    pub fn lease(
        self: &Arc<Self>,
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
            let mut again_at = 0;
            let entry = index.change(number, |entry| {
                again_at = entry.at;
                entry.tries.pulled();
                (entry.state, entry.is_pulled, entry.at) = (MessageState::Leased, true, until.unix_ms());
            })?;
            let (inbox, attempt) = (Arc::clone(self), entry.tries.attempts.into());
            Some(Leased { inbox, number, attempt, until, again_at, leased_at: now, is_received: false })
        };
        found.into_iter().filter_map(lease).collect()
    }

    /// Records that the agent has acknowledged a pulled message. The change is durable when this method returns `Ok`.
    /// Returns the interaction of the message.
    ///
    /// # Errors
    /// Returns the denial `message_unknown` if no waiting message has this number and satisfies `settling`. Returns the
    /// denial `store_unavailable` if the change is not durable in time.
    pub async fn taken(
        &self,
        settling: Settling<'_>,
        number: u64,
        now: Timestamp,
    ) -> Result<Option<Box<str>>, Refusal> {
        let found = self.take_pulled(settling.interaction, number).await?;
        let interaction = match settling.interaction {
            Some(interaction) => Some(interaction.into()),
            None if self.backing.shared().is_some() => found,
            // The index contains only the fingerprint of the interaction. The id of the interaction is in the message.
            None => self.read_head(number).await.ok().flatten().and_then(|head| head.kept.interaction),
        };
        let sequence = {
            let mut index = self.index.lock();
            let entry = self.pulled_entry(&index, settling, number)?;
            let change = self.delivered(&mut index, number, now);
            self.waiters.wake(entry.lane);
            let route = index.name(entry.route);
            self.metrics.message_settled(&route, "taken");
            self.metrics.message_delivered(&route, age(&entry, now));
            self.record(change)
        };
        self.changed.notify_one();
        self.durable(sequence).await.map(|()| interaction)
    }

    /// Records that the agent has returned a pulled message, because it could not process the message. The message is
    /// due again after a delay.
    ///
    /// # Errors
    /// Returns the denial `message_unknown` if no waiting message has this number and satisfies `settling`. Returns the
    /// denial `store_unavailable` if the change is not durable in time.
    pub async fn freed(
        &self,
        settling: Settling<'_>,
        number: u64,
        (now, random): (Timestamp, u64),
    ) -> Result<(), Refusal> {
        self.take_pulled(settling.interaction, number).await?;
        let backoff = self.settings().backoff;
        let sequence = {
            let mut index = self.index.lock();
            self.pulled_entry(&index, settling, number)?;
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

    /// Returns the message that a request of an agent acknowledges or returns. The message must be waiting, and
    /// Callgate must not be delivering it. Its lease may have expired, for example because this process was restarted.
    fn pulled_entry(
        &self,
        index: &super::Index,
        settling: Settling<'_>,
        number: u64,
    ) -> Result<Entry, Refusal> {
        let lane = self.lane(settling.interaction);
        let entry = index.waiting.get(&number).filter(|entry| lane == NO_LANE || entry.lane == lane);
        let entry = entry.filter(|entry| settling.routes.contains(&index.name(entry.route)));
        let entry = entry.filter(|entry| entry.is_pulled || entry.state == MessageState::Due);
        let is_current =
            |entry: &&Entry| settling.attempt.is_none_or(|one| one == u32::from(entry.tries.attempts));
        let entry = entry.filter(is_current);
        entry.copied().ok_or_else(|| Refusal::new(Denial::MessageUnknown, Denial::MessageUnknown.help()))
    }

    /// Returns the number of waiting messages of an interaction, and the number of its messages that are being accepted
    /// or are not durable yet.
    pub fn waiting_of(&self, interaction: &str) -> (usize, usize) {
        let (index, lane) = (self.index.lock(), self.lane(Some(interaction)));
        (index.lane(lane).count(), index.arriving(lane))
    }

    /// Returns the numbers of up to `max` messages of an interaction, in ascending order, beginning after `after`. The
    /// messages are not leased. Delivered and dead messages are included.
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

    /// Returns the number of callbacks of an interaction that the agent has not received, and the time of the last of
    /// these callbacks. Returns `None` if there are none.
    pub fn undelivered(&self, interaction: &str) -> Option<(u32, Timestamp)> {
        let index = self.index.lock();
        let (mut count, mut last) = (0_u32, i64::MIN);
        for (_, entry) in index.undelivered(self.lane(Some(interaction))) {
            count = count.saturating_add(1);
            // The period for attempts of a replayed message may begin later than now.
            let since = if entry.is_replayed { entry.since.min(index.last_pass) } else { entry.since };
            last = last.max(if entry.state.is_waiting() { since } else { entry.at });
        }
        (count > 0).then_some((count, Timestamp::from_unix_ms(last)))
    }
}

/// Returns the time since a message was accepted or replayed, in seconds.
fn age(entry: &Entry, now: Timestamp) -> f64 {
    now.unix_ms().saturating_sub(entry.since).max(0) as f64 / 1000.0
}
