//! Attempts to deliver messages.

use std::sync::Arc;

use super::entry::Entry;
use super::{Inbox, PASSED_MAX, unavailable};
use crate::denial::Refusal;
use crate::inbox::{Attempted, Cause, MessageState, Next, Outcome};
use crate::store::file::Change;
use crate::time::Timestamp;

/// A message for which an attempt to deliver it has begun. Dropping this value without [`Started::end`] makes the
/// message due again.
#[derive(Debug)]
pub struct Started {
    inbox: Arc<Inbox>,
    /// The number of the message.
    pub number: u64,
    /// The route of the message.
    pub route: Arc<str>,
    /// The number of this attempt to deliver the message, beginning with 1.
    pub attempt: u32,
    /// The time at which the period for attempts began.
    since: Timestamp,
    /// The time at which the message is due again if the attempt ends without an outcome, in Unix milliseconds.
    again_at: i64,
    /// The time at which the attempt began. When the attempt has an outcome, the time of the outcome. If the clock was
    /// set back since then, the due time is set back, too.
    ended_at: Timestamp,
    has_ended: bool,
}

impl Inbox {
    /// Begins an attempt to deliver the message that is due first among the messages of these routes. Returns `None` if
    /// no message is due at `now`.
    pub fn start(self: &Arc<Self>, routes: &[Arc<str>], now: Timestamp) -> Option<Started> {
        let mut index = self.index.lock();
        let is_wanted = |name: &Arc<str>| routes.contains(name);
        let queues = index.routes.iter().filter(|queue| is_wanted(&queue.name));
        let (at, number) = *queues.filter_map(|queue| queue.due.first()).min()?;
        if at > now.unix_ms() {
            return None;
        }
        let entry = index.change(number, |entry| entry.state = MessageState::Leased)?;
        let attempt = u32::from(entry.tries.attempts) + 1;
        let since = Timestamp::from_unix_ms(entry.since);
        let (inbox, route) = (Arc::clone(self), index.name(entry.route));
        Some(Started { inbox, number, route, attempt, since, again_at: at, ended_at: now, has_ended: false })
    }

    /// Returns the due time of the message that is due first among the messages of these routes. Returns `None` if no
    /// attempt can begin for any of their messages.
    pub fn next_due(&self, routes: &[Arc<str>]) -> Option<Timestamp> {
        let index = self.index.lock();
        let queues = index.routes.iter().filter(|queue| routes.contains(&queue.name));
        queues.filter_map(|queue| queue.due.first()).min().map(|(at, _)| Timestamp::from_unix_ms(*at))
    }

    /// Marks the waiting messages of a route as dead, because the configuration does not contain the route any more.
    /// Attempts in progress are not interrupted. Returns the number of messages that are now dead.
    pub fn route_removed(&self, route: &str, now: Timestamp) -> usize {
        let of_route: Vec<_> = {
            let index = self.index.lock();
            let is_of_route = |entry: &Entry| {
                index.routes.get(usize::from(entry.route)).is_some_and(|queue| *queue.name == *route)
            };
            let of_route = index.waiting.iter().filter(|(_, entry)| is_of_route(entry));
            of_route.map(|(number, _)| *number).collect()
        };
        self.bury_all(&of_route, Cause::RouteRemoved, now)
    }

    /// Marks the waiting messages of a revoked interaction as dead. Attempts in progress are not interrupted.
    pub fn revoked(&self, interaction: &str, now: Timestamp) {
        let lane = self.lane(Some(interaction));
        let messages: Vec<_> = self.index.lock().lane(lane).collect();
        self.bury_all(&messages, Cause::Revoked, now);
        self.waiters.wake(lane);
    }

    /// Marks each of these messages as dead if it waits for an attempt. Returns the number of messages that are now
    /// dead.
    fn bury_all(&self, numbers: &[u64], cause: Cause, now: Timestamp) -> usize {
        let mut count = 0;
        // The index is unlocked between two parts. The messages with the highest numbers are therefore marked first. If
        // an earlier message of an interaction were marked first, the next message could be delivered between two
        // parts.
        for part in numbers.rchunks(PASSED_MAX) {
            let mut index = self.index.lock();
            let mut changes = Vec::new();
            for number in part {
                let entry = index.waiting.get(number);
                if entry.is_some_and(|entry| entry.state == MessageState::Due) {
                    changes.extend(self.bury(&mut index, *number, (cause, None), now));
                }
            }
            count += changes.len();
            // The lock of the index is held while the changes are recorded, so that the file receives them in order.
            self.record(changes);
        }
        count
    }

    /// Records in memory that a message was delivered. Returns the change for the ledger, or `None` if the inbox does
    /// not contain the message.
    pub(super) fn delivered(&self, index: &mut super::Index, number: u64, now: Timestamp) -> Option<Change> {
        let settings = self.settings();
        if settings.keep_delivered.is_zero() {
            index.remove(number)?;
            return Some(Change::MessageGone(number));
        }
        let settled = (MessageState::Delivered, None);
        let entry = index.settle(number, settled, settings.keep_delivered, now)?;
        Some(Change::MessageState(number, entry.stored(None)))
    }
}

impl Started {
    /// Records the outcome of the attempt. `last` describes the outcome for operators. Returns what happens to the
    /// message, or `None` if the inbox does not contain the message any more.
    ///
    /// If the message is delivered or dead, this result is durable when this method returns `Ok`. There is one
    /// exception: if a node of a shared ledger refuses changes, the result is written later. Until then, no other
    /// attempt begins for a message on this node, and the next message of the interaction is not delivered.
    ///
    /// # Errors
    /// Returns the denial `store_unavailable` if the result is not durable in time.
    pub async fn end(
        mut self,
        outcome: Outcome,
        last: &str,
        (now, is_probe, random): (Timestamp, bool, u64),
    ) -> Result<Option<Next>, Refusal> {
        let (inbox, settings) = (Arc::clone(&self.inbox), self.inbox.settings());
        let ends = self.since.plus(settings.tried_for);
        let attempted = Attempted { now, ends, is_probe, random };
        let (next, sequence) = {
            let mut index = inbox.index.lock();
            let Some(entry) = index.waiting.get_mut(&self.number) else { return Ok(None) };
            let next = entry.tries.after(outcome, settings.backoff, attempted);
            let mut stored = *entry;
            let change = match next {
                // The message stays in the index until its removal is durable, so that later messages of its
                // interaction wait.
                Next::Delivered if settings.keep_delivered.is_zero() => Change::MessageGone(self.number),
                Next::Delivered => {
                    let until = now.plus(settings.keep_delivered).unix_ms();
                    (stored.state, stored.at, stored.since) = (MessageState::Delivered, now.unix_ms(), until);
                    Change::MessageState(self.number, stored.stored(Some(last)))
                }
                Next::Dead(cause) => {
                    let until = now.plus(settings.keep_dead).unix_ms();
                    (stored.state, stored.cause) = (MessageState::Dead, Some(cause));
                    (stored.at, stored.since) = (now.unix_ms(), until);
                    Change::MessageState(self.number, stored.stored(Some(last)))
                }
                Next::Due(at) => {
                    (self.again_at, self.ended_at) = (at.unix_ms(), now);
                    stored.at = at.unix_ms();
                    Change::MessageState(self.number, stored.stored(Some(last)))
                }
            };
            match next {
                // No caller waits until the new due time is durable. If a crash loses this time, the message is due
                // earlier.
                Next::Due(_) => (next, inbox.backing.defer(change, |number| inbox.id(number))),
                _ => (next, Some(inbox.record([change]))),
            }
        };
        let Some(sequence) = sequence else { return Ok(Some(next)) };
        let is_durable = inbox.backing.ended(sequence, self.number).await;
        if let Next::Due(_) = next {
            return Ok(Some(next));
        }
        self.has_ended = true;
        let mut index = inbox.index.lock();
        match next {
            Next::Delivered => drop(inbox.delivered(&mut index, self.number, now)),
            Next::Dead(cause) => {
                drop(inbox.bury(&mut index, self.number, (cause, Some(last)), now));
            }
            Next::Due(_) => {}
        }
        drop(index);
        inbox.changed.notify_one();
        if is_durable { Ok(Some(next)) } else { Err(unavailable()) }
    }

    /// Ends the attempt before the message was read. The message is due at the same time as before. No task is woken,
    /// because nothing has changed.
    pub fn put_back(mut self) {
        let (number, at) = (self.number, self.again_at);
        self.inbox.index.lock().change(number, |entry| (entry.state, entry.at) = (MessageState::Due, at));
        self.has_ended = true;
    }

    /// Ends the attempt without an outcome. The message is due again at `at`.
    pub fn postpone(mut self, at: Timestamp) {
        self.again_at = at.unix_ms();
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        if self.has_ended {
            return;
        }
        let mut index = self.inbox.index.lock();
        let at = self.again_at.saturating_sub(index.set_back_since(self.ended_at));
        index.change(self.number, |entry| (entry.state, entry.at) = (MessageState::Due, at));
        drop(index);
        self.inbox.changed.notify_one();
    }
}
