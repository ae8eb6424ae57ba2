//! The record of one interaction, and the effect of callbacks on it.

use std::num::{NonZeroI64, NonZeroU64};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::ask::{Ask, ClaimError, EventKey};
use super::captures::of_pairs;
use super::more::More;
use super::notice::Overdue;
use super::questions::Question;
use super::report::{Follow, Report};
use super::stale_progress::{Stale, is_after_final, is_lower};
use super::state::{Event, Over, State, next};
use crate::denial::{Denial, Refusal};
use crate::time::Timestamp;

/// The maximum number of event ids that an interaction stores for display. Duplicates are recognized by [`EventKey`].
const EVENT_IDS_MAX: usize = 8;

/// The record of one interaction. The ledger stores the id of the interaction separately.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Interaction {
    /// The route that receives the callbacks of this interaction.
    pub route: Arc<str>,
    /// The provider that sends the callbacks of this interaction.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider: Option<Arc<str>>,
    /// The path captures, as the text that [`pairs`](super::pairs) returns.
    pub captures: Box<str>,
    /// The current state of the interaction.
    pub state: State,
    /// The time at which the interaction was created. All times in this record are in Unix milliseconds.
    pub(super) created: i64,
    pub(super) expires: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) deadline: Option<NonZeroI64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) last_event: Option<NonZeroI64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) stalled_after_ms: Option<NonZeroU64>,
    /// The number of callbacks that are still allowed. `u32::MAX` means any number.
    #[serde(default = "any_number", skip_serializing_if = "is_any_number")]
    pub(super) uses_left: u32,
    /// The number of callbacks that were delivered.
    #[serde(default)]
    pub deliveries: u32,
    /// The number of callbacks that are being delivered.
    #[serde(skip)]
    pub(super) in_flight: u16,
    /// Whether the token has expired, and the ledger retains the ended interaction only for display.
    #[serde(skip)]
    pub is_kept: bool,
    /// Whether the agent gets a notice when the interaction expires or stalls (see [`Overdue`]).
    #[serde(default)]
    pub(super) notifies: bool,
    /// Whether a stall was already recorded since the last callback. One stall causes only one notice.
    #[serde(default)]
    pub(super) stall_noticed: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) more: Option<Box<More>>,
}

/// A callback whose delivery is in progress. The claim ends with [`Interaction::settle`], [`Interaction::fail`] or
/// [`Interaction::release`].
#[derive(Clone, Copy, Debug)]
pub struct Claim {
    number: u32,
    /// The number of the question that the callback asks, if it asks one.
    pub question: Option<u32>,
    /// Whether the progress that the callback reports is stale (see [`Stale`]).
    pub stale: bool,
}

impl Claim {
    /// Restores a claim (a callback that is being delivered) from a record that several processes share.
    pub(super) fn restored(number: u32, question: Option<u32>, stale: bool) -> Self {
        Self { number, question, stale }
    }

    pub(super) fn number(&self) -> u32 {
        self.number
    }
}

impl Interaction {
    /// Creates the record of an interaction in the state `open`.
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
            is_kept: false,
            notifies: false,
            stall_noticed: false,
            more: None,
        }
    }

    /// Limits the number of callbacks of the interaction. `None` allows any number.
    pub fn limited(mut self, uses: Option<u32>) -> Self {
        self.uses_left = uses.unwrap_or_else(any_number);
        self
    }

    /// Records that callbacks are matched to this interaction by the provider's task id, and not by a token.
    pub fn matched(mut self) -> Self {
        self.more().is_matched = true;
        self
    }

    /// Reports whether callbacks are matched to this interaction by the provider's task id.
    pub fn is_matched(&self) -> bool {
        self.more.as_ref().is_some_and(|more| more.is_matched)
    }

    /// Sets the deadlines of the route. `notifies` determines whether the agent gets notices.
    pub fn followed(mut self, follow: &Follow, notifies: bool) -> Self {
        let created = Timestamp::from_unix_ms(self.created);
        let ms = |duration: Duration| u64::try_from(duration.as_millis()).ok().and_then(NonZeroU64::new);
        self.deadline =
            follow.deadline.and_then(|deadline| NonZeroI64::new(created.plus(deadline).unix_ms()));
        self.stalled_after_ms = follow.stalled_after.and_then(ms);
        self.notifies = notifies;
        self
    }

    // === Accessors ===

    /// Returns the time at which the callback token was minted, which is before the agent's request was sent.
    pub fn created(&self) -> Timestamp {
        Timestamp::from_unix_ms(self.created)
    }

    /// Returns the time at which the callback token expires.
    pub fn expires(&self) -> Timestamp {
        Timestamp::from_unix_ms(self.expires)
    }

    /// Returns the time at which the interaction expires if no final callback has arrived. This is the deadline of the
    /// route or the expiry of the token, whichever is earlier.
    pub fn deadline(&self) -> Timestamp {
        Timestamp::from_unix_ms(self.deadline.map_or(self.expires, |at| at.get().min(self.expires)))
    }

    /// Returns the time at which the last callback was delivered.
    pub fn last_event(&self) -> Option<Timestamp> {
        self.last_event.map(|at| Timestamp::from_unix_ms(at.get()))
    }

    /// Returns the status that the callbacks reported last.
    pub fn status(&self) -> Option<&str> {
        self.more.as_ref().and_then(|more| more.status.as_deref())
    }

    /// Returns the highest progress that a callback reported.
    pub fn progress(&self) -> Option<f64> {
        self.more.as_ref().and_then(|more| more.progress)
    }

    /// Returns the number of callbacks that are still allowed. `None` means any number.
    pub fn uses_left(&self) -> Option<u32> {
        (!is_any_number(&self.uses_left)).then_some(self.uses_left)
    }

    /// Returns the name and the value of each path capture.
    pub fn captures(&self) -> impl Iterator<Item = (&str, &str)> {
        of_pairs(&self.captures)
    }

    /// Returns the provider's ids of the last delivered events, oldest first.
    pub fn event_ids(&self) -> &[Box<str>] {
        self.more.as_ref().map_or(&[], |more| &more.event_ids)
    }

    /// Returns the questions of callbacks that the record of the interaction stores.
    pub fn questions(&self) -> &[Question] {
        self.more.as_ref().map_or(&[], |more| &more.questions)
    }

    /// Returns the id that the provider gave to the work, for example a job id.
    pub fn provider_id(&self) -> Option<&str> {
        self.more.as_ref().and_then(|more| more.provider_id.as_deref())
    }

    /// Returns the cause of the pending notice, which the agent has not acknowledged yet.
    pub fn notice(&self) -> Option<Overdue> {
        self.more.as_ref().and_then(|more| more.notice.as_ref()).map(|notice| notice.cause)
    }

    pub(super) fn more(&mut self) -> &mut More {
        self.more.get_or_insert_default()
    }

    // === Callbacks ===

    /// Claims a callback for delivery. `is_known` reports whether the ledger contains a key as the key of a delivered
    /// event. Returns `Ok(None)` if the caller must wait until another delivery ends. This is the case if the same
    /// event is being delivered, or if the deliveries in progress may consume all remaining uses of the token.
    ///
    /// # Errors
    /// Returns [`ClaimError`] if the callback must not be delivered.
    pub fn claim(
        &mut self,
        ask: &Ask<'_>,
        now: Timestamp,
        is_known: impl Fn(EventKey) -> bool,
    ) -> Result<Option<Claim>, ClaimError> {
        let any_known = |keys: &[EventKey]| keys.iter().any(|key| is_known(*key));
        if any_known(ask.events) {
            return Err(ClaimError::Duplicate);
        }
        if self.more.as_ref().is_some_and(|more| more.events.is_delivering(ask.events)) {
            return Ok(None);
        }
        let stale = match self.check_accepts(ask, now) {
            Err(ClaimError::Refused(refusal))
                if refusal.denial == Denial::InteractionOver && any_known(ask.repeats) =>
            {
                return Err(ClaimError::Duplicate);
            }
            other => other?,
        };
        if self.uses_left <= u32::from(self.in_flight) || self.in_flight == u16::MAX {
            return Ok(None);
        }
        let question = match &ask.report.question {
            Some(endpoint) => Some(self.ask(endpoint).ok_or_else(|| {
                refused(Denial::QuestionsTooMany, "the interaction has the maximum number of open questions")
            })?),
            None => None,
        };
        self.in_flight += 1;
        let number = self.more().events.claim(ask.events.iter().chain(ask.repeats));
        Ok(Some(Claim { number, question, stale }))
    }

    /// Checks that this interaction accepts the callback. Returns true if the progress in the callback is stale (see
    /// [`Stale`]).
    fn check_accepts(&self, ask: &Ask<'_>, now: Timestamp) -> Result<bool, ClaimError> {
        if self.state == State::Revoked {
            return Err(refused(Denial::InteractionRevoked, "the interaction was revoked"));
        }
        if self.route != *ask.route {
            return Err(refused(Denial::InteractionUnknown, "the interaction belongs to another route"));
        }
        // A provider may use the same secret for all work of an account. A valid signature then does not show which
        // work the callback is about. A callback about the work of another interaction must not affect this
        // interaction.
        if let (Some(ours), Some(theirs)) = (self.provider_id(), &ask.report.id)
            && *ours != **theirs
        {
            let detail = "the callback has another id of the provider's work than the interaction";
            return Err(refused(Denial::InteractionMismatch, detail));
        }
        // If the ledger has forgotten the delivered events, this callback may be a duplicate.
        let forgotten = self.has_forgotten_events();
        let drops = ask.follow.stale == Some(Stale::Drop);
        let stale = match self.state {
            state
                if self.uses_left > 0
                    && now < self.expires()
                    && (drops || !forgotten)
                    && is_after_final(state, ask.report.is_progress(), ask.follow.stale) =>
            {
                true
            }
            state if !state.is_open() => {
                let spent = if self.uses_left == 0 { "; all uses of its token are spent" } else { "" };
                let detail = format!("the interaction is over: {}{spent}", state.name());
                return Err(refused(Denial::InteractionOver, detail));
            }
            _ if now >= self.deadline() => {
                return Err(refused(Denial::InteractionOver, "the deadline of the interaction has passed"));
            }
            _ => self.is_overtaken(ask.report),
        };
        if stale && drops { Err(ClaimError::Stale) } else { Ok(stale) }
    }

    fn is_overtaken(&self, report: &Report) -> bool {
        is_lower(self.progress(), report.progress, report.end.is_some())
    }

    /// Ends a claim (a callback that is being delivered), and undoes the effects of the claim on the interaction.
    pub fn release(&mut self, claim: &Claim) {
        self.in_flight = self.in_flight.saturating_sub(1);
        self.more().events.release(claim.number);
        if let Some(question) = claim.question {
            self.unask(question);
        }
    }

    /// Ends a claim because the agent accepted its callback. Calls `remember` for each key of the event. `remember`
    /// stores the event in the ledger and returns its fingerprint. Returns whether the callback ended the interaction.
    pub fn settle(
        &mut self,
        claim: &Claim,
        report: &Report,
        event_id: Option<&str>,
        now: Timestamp,
        remember: impl FnMut(EventKey) -> u64,
    ) -> bool {
        self.forget_failures(claim);
        self.in_flight = self.in_flight.saturating_sub(1);
        self.deliveries = self.deliveries.saturating_add(1);
        self.uses_left = self.uses_left().map_or_else(any_number, |left| left.saturating_sub(1));
        self.last_event = NonZeroI64::new(now.unix_ms()).max(self.last_event);
        self.stall_noticed = false;
        let fresh = self.state.is_open() && !self.is_overtaken(report);
        let more = self.more();
        more.events.settle(claim.number, remember);
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
        // The agent may have answered the question before it sent the response to the callback.
        let answered = claim.question.is_some_and(|number| self.is_answered(number));
        let event = match report.event() {
            _ if last => Event::Completed,
            Event::Asked if answered => Event::Progressed,
            // The previous callback asked a question, and this callback does not. The interaction has no open question,
            // so the provider has received the answer without Callgate.
            Event::Progressed
                if self.state == State::Asking && report.status.is_some() && !self.has_open_question() =>
            {
                Event::Answered
            }
            event => event,
        };
        self.end_by(event, now)
    }

    /// Applies an event to the state of the interaction. Returns whether the event ended the interaction.
    pub(super) fn go(&mut self, event: Event) -> bool {
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

    /// Stores the id that the provider gave to the work, for example a job id.
    pub fn bind(&mut self, provider_id: &str) {
        self.more().provider_id = Some(provider_id.into());
    }
}

fn refused(denial: Denial, detail: impl Into<std::borrow::Cow<'static, str>>) -> ClaimError {
    ClaimError::Refused(Refusal::new(denial, detail))
}

/// Returns the value of `uses_left` that means any number of callbacks. An `Option` would need more memory.
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
