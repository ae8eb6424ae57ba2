//! The record of an interaction that several processes share. Besides the interaction, it contains its owner, the work
//! under way and the last delivered events. A process reads the record, applies one operation to it, and writes it back
//! if no other process has changed it meanwhile.
//!
//! Work under way has a lease. If a process dies, the other processes ignore its work once the lease has ended. The
//! times of leases are those of the store's clock, which all processes share.

use serde::{Deserialize, Serialize};

use crate::interaction::ask::{Ask, ClaimError, EventKey};
use crate::interaction::deadlines::Due;
use crate::interaction::interaction::{Claim, Interaction};
use crate::interaction::notice::{NoticeId, NoticeResult};
use crate::interaction::questions::QuestionFault;
use crate::interaction::report::Report;
use crate::time::Timestamp;

/// Maximum number of delivered events that the record contains. The store keeps older ones beside the record.
const EVENTS_MAX: usize = 8;

/// An interaction as several processes share it.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct SharedRecord {
    /// The interaction.
    #[serde(rename = "i")]
    pub interaction: Interaction,
    /// The member whose agent receives the callbacks, as text.
    #[serde(rename = "o", default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<Box<str>>,
    #[serde(rename = "l", default, skip_serializing_if = "Vec::is_empty")]
    leases: Vec<Lease>,
    /// The last delivered events, oldest first.
    #[serde(rename = "e", default, skip_serializing_if = "Vec::is_empty")]
    events: Vec<EventKey>,
}

/// Identifies a piece of work.
pub type LeaseId = u64;

/// The terms of a lease.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    /// The id of the work, drawn at random.
    pub id: LeaseId,
    /// The end of the lease.
    pub until: Timestamp,
}

/// Work of one process on an interaction.
#[derive(Clone, Debug, Deserialize, Serialize)]
struct Lease {
    id: LeaseId,
    /// The end of the lease, in Unix milliseconds.
    until: i64,
    #[serde(rename = "w")]
    work: Work,
    /// The number of the claim. It is assigned when the record is read.
    #[serde(skip)]
    number: u32,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
enum Work {
    /// A callback is being delivered.
    #[serde(rename = "c")]
    Callback(CallbackWork),
    /// An answer to the question with this number is being sent.
    #[serde(rename = "a")]
    Answer(u32),
    /// The pending notice is being sent.
    #[serde(rename = "n")]
    Notice,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
struct CallbackWork {
    #[serde(rename = "e", default, skip_serializing_if = "Vec::is_empty")]
    events: Vec<EventKey>,
    #[serde(rename = "q", default, skip_serializing_if = "Option::is_none")]
    question: Option<u32>,
    #[serde(rename = "s", default, skip_serializing_if = "std::ops::Not::not")]
    stale: bool,
}

/// The result of [`SharedRecord::settle`].
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Settled {
    /// The delivery is recorded.
    Recorded {
        /// Whether this callback ended the interaction.
        ended: bool,
        /// Delivered events that have no place in the record. The store must keep them.
        surplus: Vec<EventKey>,
    },
    /// The lease has ended. Another process may have delivered the event, too.
    Lost,
}

impl Lease {
    fn claim(&self) -> Option<Claim> {
        match &self.work {
            Work::Callback(work) => Some(Claim::restored(self.number, work.question, work.stale)),
            Work::Answer(_) | Work::Notice => None,
        }
    }
}

impl SharedRecord {
    /// Creates the record of an interaction on which nobody works.
    pub fn new(interaction: Interaction, owner: Option<Box<str>>) -> Self {
        Self { interaction, owner, leases: Vec::new(), events: Vec::new() }
    }

    /// Restores the work under way after the record was read, and ends the work whose lease has ended at `now`. Returns
    /// whether work has ended.
    pub fn resume(&mut self, now: Timestamp) -> bool {
        let mut leases = std::mem::take(&mut self.leases);
        for lease in &mut leases {
            match &lease.work {
                Work::Callback(work) => lease.number = self.interaction.resume_claim(&work.events),
                Work::Answer(number) => self.interaction.resume_answer(*number),
                Work::Notice => self.interaction.resume_notice(),
            }
        }
        let (ended, live) = leases.into_iter().partition(|lease: &Lease| lease.until <= now.unix_ms());
        self.leases = live;
        let has_ended = !ended.is_empty();
        ended.iter().for_each(|lease: &Lease| self.end(lease));
        has_ended
    }

    /// Ends work without a result.
    fn end(&mut self, lease: &Lease) {
        match (&lease.work, lease.claim()) {
            (Work::Callback(_), Some(claim)) => self.interaction.release(&claim),
            (Work::Answer(number), _) => self.interaction.answer(*number, false),
            (Work::Notice, _) => self.interaction.end_notice_attempt(),
            (Work::Callback(_), None) => {}
        }
    }

    fn take(&mut self, id: LeaseId) -> Option<Lease> {
        let at = self.leases.iter().position(|lease| lease.id == id)?;
        Some(self.leases.remove(at))
    }

    fn lease(&mut self, terms: Terms, number: u32, work: Work) {
        self.leases.push(Lease { id: terms.id, until: terms.until.unix_ms(), work, number });
    }

    /// Reports whether this work is under way.
    pub fn has_lease(&self, id: LeaseId) -> bool {
        self.leases.iter().any(|lease| lease.id == id)
    }

    /// Reports whether the record contains an event as delivered.
    pub fn has_delivered(&self, event: EventKey) -> bool {
        self.events.contains(&event)
    }

    /// Reports whether there are such events, and all of them are delivered: the record contains them, or the store
    /// knows them beside the record.
    pub fn has_delivered_all(&self, events: &[EventKey], known: &[EventKey]) -> bool {
        !events.is_empty() && events.iter().all(|event| self.has_delivered(*event) || known.contains(event))
    }

    /// Returns the last delivered events, oldest first.
    pub fn events(&self) -> &[EventKey] {
        &self.events
    }

    /// Adds a delivered event. Returns the oldest event if it has no place in the record any more.
    pub fn add_event(&mut self, event: EventKey) -> Option<EventKey> {
        self.events.push(event);
        (self.events.len() > EVENTS_MAX).then(|| self.events.remove(0))
    }

    /// Claims a callback for delivery, as [`Interaction::claim`] does. `is_known` reports whether the store remembers an
    /// event as delivered beside the record. If the work with this id is already under way, returns its claim.
    ///
    /// # Errors
    /// Returns [`ClaimError`] if the callback must not be delivered.
    pub fn claim(
        &mut self,
        ask: &Ask<'_>,
        terms: Terms,
        now: Timestamp,
        is_known: impl Fn(EventKey) -> bool,
    ) -> Result<Option<Claim>, ClaimError> {
        if let Some(lease) = self.leases.iter().find(|lease| lease.id == terms.id) {
            return Ok(lease.claim());
        }
        let events = &self.events;
        let claim = self.interaction.claim(ask, now, |event| events.contains(&event) || is_known(event))?;
        let Some(claim) = claim else { return Ok(None) };
        let events = ask.events.iter().chain(ask.repeats).copied().collect();
        let work = CallbackWork { events, question: claim.question, stale: claim.stale };
        self.lease(terms, claim.number(), Work::Callback(work));
        Ok(Some(claim))
    }

    /// Records that the agent accepted the callback, as [`Interaction::settle`] does.
    pub fn settle(
        &mut self,
        id: LeaseId,
        report: &Report,
        event_id: Option<&str>,
        now: Timestamp,
    ) -> Settled {
        let Some(claim) = self.take(id).and_then(|lease| lease.claim()) else { return Settled::Lost };
        let mut delivered = Vec::new();
        let ended = self.interaction.settle(&claim, report, event_id, now, |event| {
            delivered.push(event);
            0
        });
        let surplus = delivered.into_iter().filter_map(|event| self.add_event(event)).collect();
        Settled::Recorded { ended, surplus }
    }

    /// Ends work that had no effect: a callback that was not delivered, or an answer that was not sent. Returns whether
    /// it was under way.
    pub fn release(&mut self, id: LeaseId) -> bool {
        let Some(lease) = self.take(id) else { return false };
        self.end(&lease);
        true
    }

    /// Ends a claim whose callback the agent did not accept, as [`Interaction::fail`] does. Returns whether it was under
    /// way.
    pub fn fail(&mut self, id: LeaseId, now: Timestamp) -> bool {
        let Some(claim) = self.take(id).and_then(|lease| lease.claim()) else { return false };
        self.interaction.fail(&claim, now);
        true
    }

    /// Reserves a question for an answer, as [`Interaction::take_question`] does.
    ///
    /// # Errors
    /// Returns a [`QuestionFault`] if no question can be answered.
    pub fn take_question(
        &mut self,
        number: Option<u32>,
        terms: Terms,
        now: Timestamp,
    ) -> Result<(u32, Box<str>), QuestionFault> {
        if let Some(taken) = self.leases.iter().find(|lease| lease.id == terms.id)
            && let Work::Answer(number) = taken.work
            && let Some(question) = self.interaction.questions().iter().find(|one| one.number == number)
        {
            return Ok((number, question.endpoint.clone()));
        }
        let (number, endpoint) = self.interaction.take_question(number, now)?;
        self.lease(terms, 0, Work::Answer(number));
        Ok((number, endpoint))
    }

    /// Records that the provider accepted the answer. The question is answered also if the lease has ended.
    pub fn answered(&mut self, id: LeaseId, number: u32) {
        self.take(id);
        self.interaction.answer(number, true);
    }

    /// Applies all deadlines that have passed at `now`, as [`Interaction::pass`] does. A notice that must be sent gets a
    /// lease. If the notice with this lease is already under way, returns it again.
    pub fn pass(&mut self, terms: Terms, now: Timestamp) -> Due {
        self.release(terms.id);
        let due = self.interaction.pass(now);
        if due.notice.is_some() {
            self.lease(terms, 0, Work::Notice);
        }
        due
    }

    /// Records the result of sending a notice, as [`Interaction::noticed`] does.
    pub fn noticed(&mut self, notice: NoticeId, result: NoticeResult, now: Timestamp) {
        self.leases.retain(|lease| !matches!(lease.work, Work::Notice));
        self.interaction.noticed(notice, result, now);
    }

    /// Returns the time at which somebody must look at the record again.
    pub fn next_look(&self, now: Timestamp) -> Timestamp {
        let next = self.interaction.next_look(now).unix_ms();
        let lease = self.leases.iter().map(|lease| lease.until).min().unwrap_or(i64::MAX);
        Timestamp::from_unix_ms(next.min(lease))
    }
}

#[cfg(test)]
mod interleavings;
#[cfg(test)]
mod tests;
