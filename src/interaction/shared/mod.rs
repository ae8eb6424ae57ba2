//! The record of an interaction that several processes share. It contains the interaction, the id of the process that
//! owns the interaction, the work in progress, and the last delivered events. A process reads the record, applies one
//! operation to it, and writes it back if no other process has changed it in the meantime.
//!
//! Work in progress has a lease. If a process dies, the other processes ignore its work after the end of the lease.
//! Lease times use the clock of the store, which all processes share.

use serde::{Deserialize, Serialize};

use crate::interaction::ask::{Ask, ClaimError, EventKey};
use crate::interaction::deadlines::Due;
use crate::interaction::interaction::{Claim, Interaction};
use crate::interaction::notice::{NoticeId, NoticeResult};
use crate::interaction::questions::QuestionFault;
use crate::interaction::report::Report;
use crate::time::Timestamp;

/// The maximum number of delivered events in the shared record of an interaction. The store saves older events outside
/// this record.
const EVENTS_MAX: usize = 8;

/// The record of an interaction that several processes share.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct SharedRecord {
    /// The interaction itself, without the owner and the leases.
    #[serde(rename = "i")]
    pub interaction: Interaction,
    /// The id of the process whose agent receives the callbacks, as text.
    #[serde(rename = "o", default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<Box<str>>,
    #[serde(rename = "l", default, skip_serializing_if = "Vec::is_empty")]
    leases: Vec<Lease>,
    /// The keys of the last delivered events, oldest first.
    #[serde(rename = "e", default, skip_serializing_if = "Vec::is_empty")]
    events: Vec<EventKey>,
}

/// The id of work in progress on an interaction. The work is the sending of a callback, an answer or a notice.
pub type LeaseId = u64;

/// The id of the work that a process begins on an interaction, and the end of the lease. Other processes do not do the
/// same work before the end of the lease.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    /// The id of the work, generated at random.
    pub id: LeaseId,
    /// The end of the lease, on the clock of the store.
    pub until: Timestamp,
}

/// Work in progress of one process on an interaction, and the end of its lease.
#[derive(Clone, Debug, Deserialize, Serialize)]
struct Lease {
    id: LeaseId,
    /// The end of the lease, in Unix milliseconds.
    until: i64,
    #[serde(rename = "w")]
    work: Work,
    /// The number of the claim (a callback that is being delivered) in the interaction. The claim gets a new number
    /// each time the shared record is read.
    #[serde(skip)]
    number: u32,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
enum Work {
    /// A callback is being delivered.
    #[serde(rename = "c")]
    Callback(CallbackWork),
    /// An answer to the question with this number is being sent to the provider.
    #[serde(rename = "a")]
    Answer(u32),
    /// The pending notice is being sent to the agent.
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

/// The result of [`SharedRecord::settle`], which records that the agent accepted a callback.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Settled {
    /// The ledger has recorded the delivery.
    Recorded {
        /// Whether this callback ended the interaction.
        ended: bool,
        /// The delivered events that the shared record has no room for. The store must save these events outside the
        /// record.
        surplus: Vec<EventKey>,
    },
    /// The lease has ended. Another process may have delivered the same event.
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
    /// Creates the shared record of an interaction on which no process works.
    pub fn new(interaction: Interaction, owner: Option<Box<str>>) -> Self {
        Self { interaction, owner, leases: Vec::new(), events: Vec::new() }
    }

    /// Restores the work in progress after the shared record was read. Ends all work whose lease has ended at the time
    /// `now`. Returns whether any work was ended.
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

    /// Ends the work of a lease as unsuccessful.
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

    /// Reports whether the work with this id is in progress.
    pub fn has_lease(&self, id: LeaseId) -> bool {
        self.leases.iter().any(|lease| lease.id == id)
    }

    /// Reports whether the shared record contains the key `event` among the delivered events.
    pub fn has_delivered(&self, event: EventKey) -> bool {
        self.events.contains(&event)
    }

    /// Reports whether `events` is not empty and contains only delivered events. `known` contains the delivered events
    /// that the store saves outside this record.
    pub fn has_delivered_all(&self, events: &[EventKey], known: &[EventKey]) -> bool {
        !events.is_empty() && events.iter().all(|event| self.has_delivered(*event) || known.contains(event))
    }

    /// Returns the keys of the last delivered events, oldest first.
    pub fn events(&self) -> &[EventKey] {
        &self.events
    }

    /// Adds a delivered event to the shared record. If the record then has too many events, removes and returns the
    /// oldest event.
    pub fn add_event(&mut self, event: EventKey) -> Option<EventKey> {
        self.events.push(event);
        (self.events.len() > EVENTS_MAX).then(|| self.events.remove(0))
    }

    /// Claims a callback for delivery, as [`Interaction::claim`] does. `is_known` reports whether an event is one of
    /// the delivered events that the store saves outside this record. If the claim with the id of `terms` exists
    /// already, returns this claim.
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

    /// Records that the agent accepted the callback of the claim `id`, as [`Interaction::settle`] does.
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

    /// Ends the work with this id without success: a callback was not delivered, an answer was not sent, or the result
    /// of a notice is unknown. Returns whether the work was in progress.
    pub fn release(&mut self, id: LeaseId) -> bool {
        let Some(lease) = self.take(id) else { return false };
        self.end(&lease);
        true
    }

    /// Ends a claim (a callback that is being delivered) because the agent did not accept the callback, as
    /// [`Interaction::fail`] does. Returns whether the claim was in progress.
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

    /// Records that the provider accepted the answer to a question, even if the lease of the answer has ended.
    pub fn answered(&mut self, id: LeaseId, number: u32) {
        self.take(id);
        self.interaction.answer(number, true);
    }

    /// Applies all deadlines that have passed at the time `now`, as [`Interaction::pass`] does. A notice that must be
    /// sent gets the lease `terms`. If this lease exists already, returns its notice again.
    pub fn pass(&mut self, terms: Terms, now: Timestamp) -> Due {
        self.release(terms.id);
        let due = self.interaction.pass(now);
        if due.notice.is_some() {
            self.lease(terms, 0, Work::Notice);
        }
        due
    }

    /// Records the result of an attempt to send a notice, as [`Interaction::noticed`] does.
    pub fn noticed(&mut self, notice: NoticeId, result: NoticeResult, now: Timestamp) {
        self.leases.retain(|lease| !matches!(lease.work, Work::Notice));
        self.interaction.noticed(notice, result, now);
    }

    /// Returns the time at which a process must check the interaction next.
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
