//! The record of one interaction, and what each event does to it.

use std::num::{NonZeroI64, NonZeroU64};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::ask::{Ask, EventKey, Held};
use super::events::{Events, Known};
use super::lapse::{Notice, Overdue};
use super::question::Question;
use super::report::{Follow, Report, Stale};
use super::state::{Event, Over, State, next};
use crate::denial::{Denial, Refusal};
use crate::time::Timestamp;

/// Most ids of events that are kept for people to read; duplicates are told by other means.
const EVENT_IDS_MAX: usize = 8;

/// All that is known of one interaction, less its id.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Interaction {
    /// The route its callbacks come in by.
    pub route: Arc<str>,
    /// Who calls back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider: Option<Arc<str>>,
    /// `name=value`, `&` between them.
    pub captures: Box<str>,
    /// Where it stands.
    pub state: State,
    /// Unix milliseconds, here and below.
    pub(super) created: i64,
    pub(super) expires: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) deadline: Option<NonZeroI64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) last_event: Option<NonZeroI64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) stalled_after_ms: Option<NonZeroU64>,
    /// Callbacks that are still allowed; the largest number: any.
    #[serde(default = "any_number", skip_serializing_if = "is_any_number")]
    uses_left: u32,
    /// Callbacks that were delivered.
    #[serde(default)]
    pub deliveries: u32,
    /// Callbacks that are being delivered.
    #[serde(skip)]
    pub(super) in_flight: u16,
    /// Whether the agent is told when it lapses or stalls.
    #[serde(default)]
    pub(super) notifies: bool,
    /// The silence that began with the last event was noticed.
    #[serde(default)]
    pub(super) stall_noticed: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) more: Option<Box<More>>,
}

/// A callback of this interaction that is being delivered.
#[derive(Clone, Copy, Debug)]
pub struct Claim {
    number: u32,
    /// The number of the question it asks.
    pub question: Option<u32>,
    /// What it reports is overtaken.
    pub stale: bool,
}

/// What few open interactions have.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub(super) struct More {
    /// The last status.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    status: Option<Box<str>>,
    /// The furthest progress.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    progress: Option<f64>,
    #[serde(skip)]
    events: Events,
    #[serde(default)]
    pub(super) event_ids: Vec<Box<str>>,
    #[serde(default)]
    pub(super) questions: Vec<Question>,
    #[serde(default)]
    pub(super) questions_asked: u32,
    #[serde(default)]
    pub(super) provider_id: Option<Box<str>>,
    #[serde(default)]
    pub(super) notice: Option<Notice>,
}

impl Interaction {
    /// A new one, open.
    pub fn new(route: Arc<str>, captures: Box<str>, issued: Timestamp, expires: Timestamp) -> Self {
        Self {
            route,
            provider: None,
            captures,
            state: State::Open,
            created: issued.unix_ms(),
            expires: expires.unix_ms(),
            deadline: None,
            last_event: None,
            stalled_after_ms: None,
            uses_left: any_number(),
            deliveries: 0,
            in_flight: 0,
            notifies: false,
            stall_noticed: false,
            more: None,
        }
    }

    /// The same, for a limited number of callbacks; `None`: any.
    pub fn limited(mut self, uses: Option<u32>) -> Self {
        self.uses_left = uses.unwrap_or_else(any_number);
        self
    }

    /// The same, followed as the route says.
    pub fn followed(mut self, follow: &Follow, notifies: bool) -> Self {
        let created = Timestamp::from_unix_ms(self.created);
        let ms = |duration: Duration| u64::try_from(duration.as_millis()).ok().and_then(NonZeroU64::new);
        self.deadline =
            follow.deadline.and_then(|deadline| NonZeroI64::new(created.plus(deadline).unix_ms()));
        self.stalled_after_ms = follow.stalled_after.and_then(ms);
        self.notifies = notifies;
        self
    }

    // === Reading ===

    /// When the request was made.
    pub fn created(&self) -> Timestamp {
        Timestamp::from_unix_ms(self.created)
    }

    /// When its token ends.
    pub fn expires(&self) -> Timestamp {
        Timestamp::from_unix_ms(self.expires)
    }

    /// When the final callback is due, at the latest.
    pub fn deadline(&self) -> Timestamp {
        Timestamp::from_unix_ms(self.deadline.map_or(self.expires, |at| at.get().min(self.expires)))
    }

    /// When the last callback was delivered.
    pub fn last_event(&self) -> Option<Timestamp> {
        self.last_event.map(|at| Timestamp::from_unix_ms(at.get()))
    }

    /// The last status.
    pub fn status(&self) -> Option<&str> {
        self.more.as_ref().and_then(|more| more.status.as_deref())
    }

    /// The furthest progress.
    pub fn progress(&self) -> Option<f64> {
        self.more.as_ref().and_then(|more| more.progress)
    }

    /// Callbacks that are still allowed; `None`: any number.
    pub fn uses_left(&self) -> Option<u32> {
        (!is_any_number(&self.uses_left)).then_some(self.uses_left)
    }

    /// Name and value of each capture.
    pub fn captures(&self) -> impl Iterator<Item = (&str, &str)> {
        self.captures.split('&').filter_map(|pair| pair.split_once('='))
    }

    /// The last few ids of delivered events, latest last.
    pub fn event_ids(&self) -> &[Box<str>] {
        self.more.as_ref().map_or(&[], |more| &more.event_ids)
    }

    /// The questions that were asked.
    pub fn questions(&self) -> &[Question] {
        self.more.as_ref().map_or(&[], |more| &more.questions)
    }

    /// What the provider calls it.
    pub fn provider_id(&self) -> Option<&str> {
        self.more.as_ref().and_then(|more| more.provider_id.as_deref())
    }

    /// The notice that the agent has not answered yet.
    pub fn notice(&self) -> Option<Overdue> {
        self.more.as_ref().and_then(|more| more.notice.as_ref()).map(|notice| notice.cause)
    }

    pub(super) fn more(&mut self) -> &mut More {
        self.more.get_or_insert_default()
    }

    // === Callbacks ===

    /// Claims a callback: whether it may be delivered now. `Ok(None)`: not before what is under way has ended, since it
    /// is the same event or has the last use.
    ///
    /// # Errors
    /// [`Held`].
    pub fn claim(&mut self, ask: &Ask<'_>, now: Timestamp) -> Result<Option<Claim>, Held> {
        let known = self.more.as_ref().map_or(Known::Unknown, |more| more.events.known(ask.events));
        match known {
            Known::Delivered => return Err(Held::Duplicate),
            Known::Delivering => return Ok(None),
            Known::Unknown => {}
        }
        let stale = self.admits(ask, now)?;
        if self.uses_left <= u32::from(self.in_flight) || self.in_flight == u16::MAX {
            return Ok(None);
        }
        let question = match &ask.report.question {
            Some(endpoint) => Some(self.ask(endpoint).ok_or_else(|| {
                refused(Denial::QuestionsTooMany, "as many questions as are remembered are open")
            })?),
            None => None,
        };
        self.in_flight += 1;
        let number = self.more().events.claim(ask.events);
        Ok(Some(Claim { number, question, stale }))
    }

    /// Whether a callback is one for this interaction, and whether what it reports is overtaken.
    fn admits(&self, ask: &Ask<'_>, now: Timestamp) -> Result<bool, Held> {
        if self.state == State::Revoked {
            return Err(refused(Denial::InteractionRevoked, "revoked"));
        }
        if self.route != *ask.route {
            return Err(refused(Denial::InteractionUnknown, "the interaction is one of another route"));
        }
        // One secret or address may serve all the work of an account: what is said of other work is not for this.
        if let (Some(ours), Some(theirs)) = (self.provider_id(), &ask.report.id)
            && *ours != **theirs
        {
            return Err(refused(
                Denial::InteractionMismatch,
                "the callback is about other work of the provider",
            ));
        }
        let used_up = self.uses_left == 0;
        let stale = match self.state {
            State::Done | State::Failed
                if !used_up && ask.report.is_progress() && ask.follow.stale.is_some() =>
            {
                true
            }
            state if !state.is_open() => {
                return Err(refused(Denial::InteractionOver, format!("it is over: {}", state.name())));
            }
            _ if now >= self.deadline() => {
                return Err(refused(Denial::InteractionOver, "its deadline has passed"));
            }
            _ => self.is_overtaken(ask.report),
        };
        if stale && ask.follow.stale == Some(Stale::Drop) { Err(Held::Stale) } else { Ok(stale) }
    }

    fn is_overtaken(&self, report: &Report) -> bool {
        let less = || matches!((self.progress(), report.progress), (Some(before), Some(now)) if now < before);
        report.end.is_none() && less()
    }

    /// The callback was not delivered after all: everything is as before.
    pub fn release(&mut self, claim: &Claim) {
        self.in_flight = self.in_flight.saturating_sub(1);
        self.more().events.release(claim.number);
        if let Some(question) = claim.question {
            self.unask(question);
        }
    }

    /// The agent took the callback. `number` is told its events, and makes the numbers by which a file knows them.
    /// Returns whether the interaction was open until now, and is over by it.
    pub fn settle(
        &mut self,
        claim: &Claim,
        report: &Report,
        event_id: Option<&str>,
        now: Timestamp,
        number: impl FnMut(EventKey) -> u64,
    ) -> bool {
        self.in_flight = self.in_flight.saturating_sub(1);
        self.deliveries = self.deliveries.saturating_add(1);
        self.uses_left = self.uses_left().map_or_else(any_number, |left| left.saturating_sub(1));
        self.last_event = NonZeroI64::new(now.unix_ms());
        self.stall_noticed = false;
        let fresh = self.state.is_open() && !self.is_overtaken(report);
        let more = self.more();
        more.events.settle(claim.number, number);
        more.notice.take_if(|notice| notice.cause == Overdue::Stalled);
        if let Some(id) = event_id {
            if more.event_ids.len() >= EVENT_IDS_MAX {
                more.event_ids.remove(0);
            }
            more.event_ids.push(id.into());
        }
        if fresh {
            if report.status.is_some() && more.status != report.status {
                more.status.clone_from(&report.status);
            }
            more.progress = report.progress.or(more.progress);
        }
        let last = self.uses_left == 0 && report.end.is_none();
        // The agent may have answered the question while it took the callback.
        let answered = claim.question.is_some_and(|number| self.is_answered(number));
        self.go(match report.event() {
            _ if last => Event::Completed,
            Event::Asked if answered => Event::Progressed,
            // Asked by a status, and not any more: the answer went another way.
            Event::Progressed
                if self.state == State::Asking && report.status.is_some() && !self.has_open_question() =>
            {
                Event::Answered
            }
            event => event,
        })
    }

    /// Takes over a delivered event that a file held.
    pub fn restore_event(&mut self, key: EventKey, number: u64) {
        self.more().events.restore(key, number);
    }

    /// Its delivered events, and the numbers by which a file knows them.
    pub fn delivered_events(&self) -> impl Iterator<Item = (EventKey, u64)> {
        self.more.iter().flat_map(|more| more.events.delivered())
    }

    /// The numbers by which a file knows its delivered events.
    pub fn event_numbers(&self) -> impl Iterator<Item = u64> {
        self.more.iter().flat_map(|more| more.events.numbers())
    }

    /// Applies an event. Returns whether the interaction was open until now and is over by it.
    pub fn go(&mut self, event: Event) -> bool {
        match next(self.state, event) {
            Ok(state) => {
                let ended = self.state.is_open() && !state.is_open();
                self.state = state;
                if state == State::Revoked
                    && let Some(more) = &mut self.more
                {
                    more.notice = None;
                }
                ended
            }
            Err(Over(_)) => false,
        }
    }

    /// The provider's own id of it became known.
    pub fn bind(&mut self, provider_id: &str) {
        self.more().provider_id = Some(provider_id.into());
    }
}

/// Captures as a record keeps them: `name=value`, `&` between them. Neither can have these characters.
pub fn pairs<'c>(captures: impl Iterator<Item = (&'c str, &'c str)>) -> Box<str> {
    let pairs: Vec<_> = captures.map(|(name, value)| format!("{name}={value}")).collect();
    pairs.join("&").into()
}

fn refused(denial: Denial, detail: impl Into<std::borrow::Cow<'static, str>>) -> Held {
    Held::Refused(Refusal::new(denial, detail))
}

/// A number of uses that stands for any: an option would make every record larger.
fn any_number() -> u32 {
    u32::MAX
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_any_number(uses: &u32) -> bool {
    *uses == u32::MAX
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_stays_small() {
        assert!(size_of::<Interaction>() <= 112, "{}", size_of::<Interaction>());
    }
}
