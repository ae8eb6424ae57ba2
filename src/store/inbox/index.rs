//! The messages of the inbox in memory: which of them are due, in which order, and how many there are.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::entry::{Entry, NO_LANE};
use crate::inbox::{Cause, InboxSettings, MessageState};
use crate::time::Timestamp;

/// If the clock is set back by at most this time, the step is ignored as drift. In milliseconds.
const DRIFT_MS: i64 = 2_000;
/// The minimum time between two searches for messages whose period for attempts has ended, in milliseconds.
const LOOK_MS: i64 = 250;

/// The number of messages of one route in each state.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Counts {
    /// The number of messages that are neither delivered nor dead.
    pub waiting: usize,
    /// The number of waiting messages that are being delivered, or that the agent has pulled.
    pub leased: usize,
    /// The number of dead messages, which Callgate does not try to deliver any more.
    pub dead: usize,
    /// The number of delivered messages that are retained.
    pub delivered: usize,
}

/// The messages of one route in memory.
#[derive(Debug, Default)]
pub(super) struct RouteQueue {
    pub(super) name: Arc<str>,
    /// Whether a message waits until all earlier messages of its interaction are delivered or dead.
    pub(super) is_ordered: bool,
    /// Whether the configuration does not contain the route any more and drops the messages of removed routes. The due
    /// messages of the route then become dead.
    is_removed: bool,
    /// The messages that may be delivered: the time of the next attempt in Unix milliseconds, and the message number.
    pub(super) due: BTreeSet<(i64, u64)>,
    pub(super) counts: Counts,
}

/// The messages of the inbox in memory.
#[derive(Debug, Default)]
pub(super) struct Index {
    /// The messages that are neither delivered nor dead, by message number.
    pub(super) waiting: BTreeMap<u64, Entry>,
    /// The delivered and dead messages, by message number.
    pub(super) settled: BTreeMap<u64, Entry>,
    /// The waiting messages: the fingerprint of the interaction, and the message number.
    lanes: BTreeSet<(u64, u64)>,
    /// The messages that Callgate is delivering: the fingerprint of the interaction, and the message number.
    in_flight: BTreeSet<(u64, u64)>,
    pub(super) routes: Vec<RouteQueue>,
    /// The pulled messages: the end of the lease in Unix milliseconds, and the message number.
    leases: BTreeSet<(i64, u64)>,
    /// The delivered and dead messages: the end of the retention in Unix milliseconds, and the message number.
    ends: BTreeSet<(i64, u64)>,
    /// The messages that are not durable yet: the sequence number of the change that stores the message, the message
    /// number, and the message.
    pub(super) storing: VecDeque<(u64, u64, Entry)>,
    /// For each message that is being accepted and is in no other list yet: the fingerprint of its interaction.
    pub(super) accepting: Vec<u64>,
    /// The number of all messages, including messages that are not durable yet.
    pub(super) count: usize,
    /// The size of all messages in bytes, including messages that are not durable yet.
    pub(super) bytes: u64,
    /// The dead messages: the fingerprint of the interaction, and the message number.
    dead_lanes: BTreeSet<(u64, u64)>,
    /// The time of the last search for messages whose period for attempts has ended, in Unix milliseconds.
    last_look: i64,
    /// The time of the last call of [`Index::clock`], in Unix milliseconds.
    pub(super) last_pass: i64,
}

impl Index {
    /// Returns the index of a route in the list of routes. Adds the route if the list does not contain it.
    pub(super) fn route(&mut self, name: &Arc<str>) -> u16 {
        let known = self.routes.iter().position(|route| route.name == *name);
        let index = known.unwrap_or_else(|| {
            self.routes.push(RouteQueue { name: Arc::clone(name), ..RouteQueue::default() });
            self.routes.len() - 1
        });
        u16::try_from(index).unwrap_or(u16::MAX)
    }

    pub(super) fn queue(&mut self, route: u16) -> Option<&mut RouteQueue> {
        self.routes.get_mut(usize::from(route))
    }

    /// Returns the name of the route with this index.
    pub(super) fn name(&self, route: u16) -> Arc<str> {
        self.routes.get(usize::from(route)).map(|route| Arc::clone(&route.name)).unwrap_or_default()
    }

    /// Adds a message to the list of messages that are not durable yet.
    pub(super) fn stored(&mut self, sequence: u64, number: u64, entry: Entry) {
        self.arrived(entry.lane);
        self.storing.push_back((sequence, number, entry));
    }

    /// Records that a message of the interaction with this fingerprint is not being accepted any more.
    pub(super) fn arrived(&mut self, lane: u64) {
        if let Some(at) = self.accepting.iter().position(|other| *other == lane) {
            self.accepting.swap_remove(at);
        }
    }

    /// Reports whether the index contains the message with this number.
    pub(super) fn contains(&self, number: u64) -> bool {
        self.waiting.contains_key(&number)
            || self.settled.contains_key(&number)
            || self.storing.iter().any(|(_, other, _)| *other == number)
    }

    /// Reports whether the route delivers the messages of an interaction one after another.
    pub(super) fn is_ordered(&self, route: u16) -> bool {
        self.routes.get(usize::from(route)).is_some_and(|route| route.is_ordered)
    }

    /// Adds a waiting, delivered or dead message to the lists. `count` and `bytes` must already include the message.
    pub(super) fn add(&mut self, number: u64, entry: Entry) {
        match entry.state {
            MessageState::Due | MessageState::Leased => {
                self.waiting.insert(number, entry);
                if entry.lane != NO_LANE {
                    // A replayed message can have a lower number than the first waiting message so far.
                    let former = self.head(entry.lane).filter(|head| *head > number);
                    self.lanes.insert((entry.lane, number));
                    former.into_iter().for_each(|former| self.hold_back(former));
                }
                if let Some(queue) = self.queue(entry.route) {
                    queue.counts.waiting += 1;
                    queue.counts.leased += usize::from(entry.state == MessageState::Leased);
                }
                self.schedule(number);
            }
            MessageState::Delivered | MessageState::Dead => {
                self.settled.insert(number, entry);
                self.ends.insert((entry.since, number));
                if entry.state == MessageState::Dead && entry.lane != NO_LANE {
                    self.dead_lanes.insert((entry.lane, number));
                }
                if let Some(queue) = self.queue(entry.route) {
                    match entry.state {
                        MessageState::Dead => queue.counts.dead += 1,
                        _ => queue.counts.delivered += 1,
                    }
                }
            }
        }
    }

    /// Removes a message from all lists, but does not change `count` and `bytes`. Returns the removed message.
    pub(super) fn take_out(&mut self, number: u64) -> Option<Entry> {
        if let Some(entry) = self.settled.remove(&number) {
            self.ends.remove(&(entry.since, number));
            self.dead_lanes.remove(&(entry.lane, number));
            if let Some(queue) = self.queue(entry.route) {
                match entry.state {
                    MessageState::Dead => queue.counts.dead -= 1,
                    _ => queue.counts.delivered -= 1,
                }
            }
            return Some(entry);
        }
        let entry = self.waiting.remove(&number)?;
        self.leases.remove(&(entry.at, number));
        if let Some(queue) = self.queue(entry.route) {
            queue.counts.waiting -= 1;
            queue.counts.leased -= usize::from(entry.state == MessageState::Leased);
            queue.due.remove(&(entry.at, number));
        }
        if entry.lane != NO_LANE {
            self.lanes.remove(&(entry.lane, number));
            self.in_flight.remove(&(entry.lane, number));
            // The next message of the interaction may be delivered now.
            if let Some(next) = self.head(entry.lane) {
                self.schedule(next);
            }
        }
        Some(entry)
    }

    /// Removes a message from all lists, and subtracts it from `count` and `bytes`. Returns the removed message.
    pub(super) fn remove(&mut self, number: u64) -> Option<Entry> {
        let entry = self.take_out(number)?;
        self.uncount(&entry);
        Some(entry)
    }

    pub(super) fn uncount(&mut self, entry: &Entry) {
        self.count = self.count.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(entry.bytes.into());
    }

    /// Returns the number of the first waiting message of the interaction with this fingerprint.
    fn head(&self, lane: u64) -> Option<u64> {
        self.lane(lane).next()
    }

    /// Returns the numbers of the waiting messages of the interaction with this fingerprint, in ascending order.
    pub(super) fn lane(&self, lane: u64) -> impl DoubleEndedIterator<Item = u64> {
        self.lanes.range((lane, 0)..=(lane, u64::MAX)).map(|(_, number)| *number)
    }

    /// Returns the number of messages of the interaction with this fingerprint that are being accepted or are not
    /// durable yet.
    pub(super) fn arriving(&self, lane: u64) -> usize {
        let storing = self.storing.iter().filter(|(_, _, entry)| entry.lane == lane).count();
        storing + self.accepting.iter().filter(|other| **other == lane).count()
    }

    /// Returns the waiting and dead messages of the interaction with this fingerprint, each with its number.
    pub(super) fn undelivered(&self, lane: u64) -> impl Iterator<Item = (u64, &Entry)> {
        let dead = self.dead_lanes.range((lane, 0)..=(lane, u64::MAX)).map(|(_, number)| *number);
        let entry = |number| self.waiting.get(&number).or_else(|| self.settled.get(&number));
        self.lane(lane).chain(dead).filter_map(move |number| Some((number, entry(number)?)))
    }

    /// Makes a message of an ordered route unavailable, because an earlier message of its interaction waits.
    fn hold_back(&mut self, number: u64) {
        let Some(entry) = self.waiting.get(&number).copied() else { return };
        if let Some(queue) = self.queue(entry.route).filter(|queue| queue.is_ordered) {
            queue.due.remove(&(entry.at, number));
        }
    }

    /// Reports whether a message is the first waiting message of its interaction, and no message of the interaction is
    /// in delivery. A message can be replayed while a later message is in delivery.
    fn is_next(&self, lane: u64, number: u64) -> bool {
        let is_busy = || self.in_flight.range((lane, 0)..=(lane, u64::MAX)).next().is_some();
        lane == NO_LANE || (self.head(lane) == Some(number) && !is_busy())
    }

    /// Makes a due message available, unless it must wait for another message of its interaction.
    fn schedule(&mut self, number: u64) {
        let Some(entry) = self.waiting.get(&number).copied() else { return };
        if entry.state != MessageState::Due {
            return;
        }
        let is_next = self.is_next(entry.lane, number);
        if let Some(queue) = self.queue(entry.route)
            && (is_next || !queue.is_ordered)
        {
            queue.due.insert((entry.at, number));
        }
    }

    /// Changes a waiting message, and updates the lists that contain it. Returns the changed message, or `None` if no
    /// waiting message has this number.
    pub(super) fn change(&mut self, number: u64, change: impl FnOnce(&mut Entry)) -> Option<Entry> {
        let entry = self.waiting.get(&number).copied()?;
        self.leases.remove(&(entry.at, number));
        let was_in_flight = self.in_flight.remove(&(entry.lane, number));
        if let Some(queue) = self.queue(entry.route) {
            queue.due.remove(&(entry.at, number));
        }
        let changed = self.waiting.get_mut(&number)?;
        change(changed);
        let changed = *changed;
        if let Some(queue) = self.queue(entry.route) {
            queue.counts.leased += usize::from(changed.state == MessageState::Leased);
            queue.counts.leased -= usize::from(entry.state == MessageState::Leased);
        }
        match changed.state {
            MessageState::Leased if changed.is_pulled => {
                self.leases.insert((changed.at, number));
            }
            MessageState::Leased if changed.lane != NO_LANE => {
                self.in_flight.insert((changed.lane, number));
            }
            _ => {}
        }
        self.schedule(number);
        // The first waiting message may have been replayed meanwhile, and must then be scheduled.
        if was_in_flight && let Some(head) = self.head(changed.lane) {
            self.schedule(head);
        }
        Some(changed)
    }

    /// Changes a waiting message to delivered or dead, and retains it for `keep`. Returns the changed message.
    pub(super) fn settle(
        &mut self,
        number: u64,
        (state, cause): (MessageState, Option<Cause>),
        keep: Duration,
        now: Timestamp,
    ) -> Option<Entry> {
        let mut entry = self.take_out(number)?;
        (entry.state, entry.cause, entry.at) = (state, cause, now.unix_ms());
        (entry.is_pulled, entry.is_progress, entry.since) = (false, false, now.plus(keep).unix_ms());
        self.add(number, entry);
        Some(entry)
    }

    /// Sets the routes, and whether each route delivers the messages of an interaction in order. Due messages of routes
    /// that are not in `routes` wait, or become dead if `drops_others` is true.
    pub(super) fn configure(&mut self, routes: &[(Arc<str>, bool)], drops_others: bool) {
        self.routes.iter_mut().for_each(|queue| queue.is_removed = drops_others);
        for (name, is_ordered) in routes {
            let index = self.route(name);
            let Some(queue) = self.queue(index) else { continue };
            queue.is_removed = false;
            if std::mem::replace(&mut queue.is_ordered, *is_ordered) != *is_ordered {
                queue.due.clear();
                let waiting = self.waiting.iter().filter(|(_, entry)| entry.route == index);
                let waiting: Vec<_> = waiting.map(|(number, _)| *number).collect();
                waiting.into_iter().for_each(|number| self.schedule(number));
            }
        }
    }

    // === Time ===

    /// Returns the number of milliseconds by which the clock was set back since `then`, or 0.
    pub(super) fn set_back_since(&self, then: Timestamp) -> i64 {
        let back = then.unix_ms().saturating_sub(self.last_pass);
        if self.last_pass > 0 && back > DRIFT_MS { back } else { 0 }
    }

    /// If the clock was set back, moves future times of waiting messages back, too. Returns the duration by which the
    /// clock was set back.
    pub(super) fn clock(&mut self, now: Timestamp) -> Option<Duration> {
        let (before, now) = (std::mem::replace(&mut self.last_pass, now.unix_ms()), now.unix_ms());
        let back = before.saturating_sub(now);
        if before == 0 || back <= DRIFT_MS {
            return None;
        }
        let waiting = self.waiting.iter().filter(|(_, entry)| entry.at > now);
        let waiting: Vec<_> = waiting.map(|(number, _)| *number).collect();
        for number in waiting {
            self.change(number, |entry| {
                entry.at -= back;
                // The period for attempts of a replayed message may begin later than now, and is then moved back, too.
                entry.since = entry.since.min(now.max(entry.since - back));
            });
        }
        u64::try_from(back).ok().map(Duration::from_millis)
    }

    /// Returns the numbers of up to `max` pulled messages whose lease has expired.
    pub(super) fn lapsed(&self, now: Timestamp, max: usize) -> Vec<u64> {
        let is_over = |(at, _): &&(i64, u64)| *at <= now.unix_ms();
        self.leases.iter().take_while(is_over).take(max).map(|(_, number)| *number).collect()
    }

    /// Returns the numbers of up to `max` due messages whose period for attempts ended. Searches at most every 250 ms.
    pub(super) fn given_up(&mut self, settings: &InboxSettings, now: Timestamp, max: usize) -> Vec<u64> {
        // A search can go through all waiting messages, and each attempt causes a call of this method.
        if (0..LOOK_MS).contains(&(now.unix_ms() - self.last_look)) {
            return Vec::new();
        }
        self.last_look = now.unix_ms();
        let since = now.minus(settings.tried_for).unix_ms();
        let mut found = Vec::new();
        // The messages are in the order of acceptance. The search ends at the first message that was not replayed and
        // whose period for attempts has not ended.
        for (number, entry) in &self.waiting {
            if found.len() >= max || (entry.since > since && !entry.is_replayed) {
                break;
            }
            if entry.since <= since && entry.state == MessageState::Due {
                found.push(*number);
            }
        }
        found
    }

    /// Returns the numbers of up to `max` due messages of removed routes. These messages must become dead.
    pub(super) fn orphans(&self, max: usize) -> Vec<u64> {
        let removed = self.routes.iter().filter(|queue| queue.is_removed);
        removed.flat_map(|queue| &queue.due).map(|(_, number)| *number).take(max).collect()
    }

    /// Returns the numbers of up to `max` delivered or dead messages whose retention has ended.
    pub(super) fn outlived(&self, now: Timestamp, max: usize) -> Vec<u64> {
        let is_over = |(at, _): &&(i64, u64)| *at <= now.unix_ms();
        self.ends.iter().take_while(is_over).take(max).map(|(_, number)| *number).collect()
    }

    /// Returns each route, with the start (Unix ms) of the period for attempts of its oldest waiting message.
    pub(super) fn oldest(&self) -> Vec<(Arc<str>, Option<i64>)> {
        let mut oldest: Vec<_> = self.routes.iter().map(|route| (Arc::clone(&route.name), None)).collect();
        let mut left = self.routes.iter().filter(|route| route.counts.waiting > 0).count();
        for entry in self.waiting.values() {
            if left == 0 {
                break;
            }
            if let Some((_, at)) = oldest.get_mut(usize::from(entry.route))
                && at.is_none()
            {
                *at = Some(entry.since);
                left -= 1;
            }
        }
        oldest
    }
}
