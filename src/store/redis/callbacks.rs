//! Claims callbacks in a shared ledger for delivery, and records the results.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;

use super::events::{EventClaim, EventHold};
use super::records::{Decision, Draft, Loaded, NewMessage, NotChanged, Placed, jitter, no_random_numbers};
use super::store::RedisStore;
use crate::clock::instant;
use crate::denial::{Denial, Refusal};
use crate::interaction::{
    Ask, ClaimError, Cleared, EventKey, InformedBy, LeaseId, Report, Settled, SharedRecord, Terms,
};
use crate::random::random;
use crate::store::event_memory::is_inherited;
use crate::store::new_record::adopted_record;
use crate::time::Timestamp;

/// The time by which the lease of a claim is longer than the maximum duration of the delivery.
const LEASE_MARGIN: Duration = Duration::from_secs(5);
/// The pauses between attempts to claim a callback while another process delivers the same event, in milliseconds. The
/// last pause is repeated.
const BUSY_PAUSES_MS: [u64; 4] = [50, 100, 200, 500];

/// A callback that this process has claimed in a shared ledger, and may deliver. Dropping this value releases the
/// claim.
#[derive(Debug)]
pub(in crate::store) struct SharedClaim {
    store: Arc<RedisStore>,
    hold: Option<Hold>,
}

#[derive(Debug)]
enum Hold {
    Interaction(Box<InteractionHold>),
    Event(EventHold),
}

#[derive(Debug)]
struct InteractionHold {
    id: Box<str>,
    lease: LeaseId,
    events: Vec<EventKey>,
    question: Option<u32>,
    stale: bool,
    /// The record of the interaction after the claim was written to it. With this copy, the claim can end without
    /// another read of the record. `None` until the claim is certainly recorded.
    loaded: Option<Loaded>,
}

/// The result of one attempt to claim a callback.
enum Attempt {
    Claimed(Option<u32>, bool),
    Busy,
    Failed(ClaimError),
}

impl RedisStore {
    /// Claims a verified callback for delivery. Waits for at most `patience` while another process delivers the same
    /// event. After this time, returns the denial `event_in_flight`.
    pub(in crate::store) async fn claim(
        self: &Arc<Self>,
        ask: &Ask<'_>,
        patience: Duration,
    ) -> Result<SharedClaim, ClaimError> {
        if let Some(fault) = self.health.why_unusable() {
            return Err(ClaimError::Refused(Refusal::new(Denial::StoreUnavailable, fault)));
        }
        let detail = "the same event or the last allowed use is still being delivered";
        let late = || ClaimError::Refused(Refusal::new(Denial::EventInFlight, detail));
        let lease = ask.delivery_max + LEASE_MARGIN;
        let (began, mut pauses, mut pause) = (instant(), BUSY_PAUSES_MS.into_iter(), 0);
        loop {
            // `patience` does not interrupt a call to the Redis server. If it did, the interrupted call could leave a
            // claim behind until the lease expires.
            if let Some(claim) = self.claim_once(ask, lease).await? {
                return Ok(claim);
            }
            pause = pauses.next().unwrap_or(pause);
            let left = patience.saturating_sub(instant().saturating_duration_since(began));
            if left.is_zero() {
                return Err(late());
            }
            sleep((Duration::from_millis(pause / 2) + jitter(pause)).min(left)).await;
        }
    }

    /// Tries once to claim a callback. Returns `Ok(None)` if another process delivers the event.
    ///
    /// The `SharedClaim` is created before the call to the Redis server. If this future is dropped, or if the outcome
    /// of the call is unknown, the `SharedClaim` is dropped. It then releases the claim that the server may have
    /// recorded.
    async fn claim_once(
        self: &Arc<Self>,
        ask: &Ask<'_>,
        lease: Duration,
    ) -> Result<Option<SharedClaim>, ClaimError> {
        let Some(id) = ask.interaction() else {
            return self.claim_event_once(ask, lease).await;
        };
        let lease_id = random::<8>().map(u64::from_be_bytes).ok_or_else(no_random_numbers);
        let lease_id = lease_id.map_err(ClaimError::Refused)?;
        let events: Vec<_> = ask.events.iter().chain(ask.repeats).copied().collect();
        let hold = InteractionHold {
            id: Box::from(id),
            lease: lease_id,
            events: events.clone(),
            question: None,
            stale: false,
            loaded: None,
        };
        let mut claim =
            SharedClaim { store: Arc::clone(self), hold: Some(Hold::Interaction(Box::new(hold))) };
        let mut adopts = false;
        let changed = self.change(id, &events, None, |draft| {
            let terms = Terms { id: lease_id, until: draft.now.plus(lease) };
            // `adopts` is true if this claim creates the record: the record does not exist, or an earlier attempt to
            // write this claim has created the record.
            let is_own = |record: &SharedRecord| draft.is_repeat && record.has_lease(lease_id);
            adopts = draft.record.as_ref().is_none_or(|record| adopts && is_own(record));
            match self.decide(ask, id, terms, draft) {
                claimed @ Attempt::Claimed(..) => Decision::Write(claimed),
                other => Decision::Keep(other),
            }
        });
        let (attempt, loaded) = changed.await.map_err(ClaimError::Refused)?;
        if adopts && matches!(attempt, Attempt::Claimed(..)) {
            self.metrics.interaction_adopted(ask.route);
        }
        if let (Attempt::Claimed(question, stale), Some(Hold::Interaction(hold))) =
            (&attempt, &mut claim.hold)
        {
            (hold.question, hold.stale, hold.loaded) = (*question, *stale, Some(loaded));
            return Ok(Some(claim));
        }
        claim.hold = None;
        match attempt {
            Attempt::Busy | Attempt::Claimed(..) => Ok(None),
            Attempt::Failed(ClaimError::Duplicate) => {
                self.confirm(id, &loaded).await.map_err(ClaimError::Refused)?;
                Err(ClaimError::Duplicate)
            }
            Attempt::Failed(error) => Err(error),
        }
    }

    /// Tries once to claim an event that belongs to no interaction. See [`claim_once`](Self::claim_once).
    async fn claim_event_once(
        self: &Arc<Self>,
        ask: &Ask<'_>,
        lease: Duration,
    ) -> Result<Option<SharedClaim>, ClaimError> {
        let hold = EventHold::new(ask.route, ask.events).map_err(ClaimError::Refused)?;
        let mut claim = SharedClaim { store: Arc::clone(self), hold: Some(Hold::Event(hold)) };
        let Some(Hold::Event(hold)) = &claim.hold else { return Ok(None) };
        let claimed = self.claim_event(hold, lease).await.map_err(ClaimError::Refused)?;
        if matches!(claimed, EventClaim::Claimed) {
            return Ok(Some(claim));
        }
        claim.hold = None;
        match claimed {
            EventClaim::Delivered => Err(ClaimError::Duplicate),
            _ => Ok(None),
        }
    }

    fn decide(&self, ask: &Ask<'_>, id: &str, terms: Terms, draft: &mut Draft) -> Attempt {
        if draft.record.is_none() {
            match self.adopted(ask, draft.now) {
                Ok(record) => draft.record = Some(record),
                Err(refusal) => return Attempt::Failed(ClaimError::Refused(refusal)),
            }
        }
        let Draft { record: Some(record), known, now, .. } = draft else { return Attempt::Busy };
        let inherited = ask.events.iter().chain(ask.repeats).copied();
        let inherited: Vec<_> =
            inherited.filter(|event| is_inherited(&record.interaction, id, *event)).collect();
        match record.claim(ask, terms, *now, |event| known.contains(&event) || inherited.contains(&event)) {
            Ok(Some(claim)) => {
                // `adopts` is true if the owner of the interaction is dead. This process becomes the owner, so that the
                // next callbacks of the interaction go to the agent that receives this callback.
                if ask.adopts {
                    record.owner = self.owner();
                }
                Attempt::Claimed(claim.question, claim.stale)
            }
            Ok(None) => Attempt::Busy,
            Err(error) => Attempt::Failed(error),
        }
    }

    fn adopted(&self, ask: &Ask<'_>, now: Timestamp) -> Result<SharedRecord, Refusal> {
        let record = adopted_record(ask, self.settings.unknown, now)?;
        self.check_room()?;
        Ok(SharedRecord::new(record, self.owner()))
    }
}

impl SharedClaim {
    /// Returns the proof that the ledger allows the delivery of the callback.
    pub(in crate::store) fn cleared(&self) -> Cleared {
        match &self.hold {
            Some(Hold::Interaction(hold)) => Cleared::by_the_ledger(hold.question, hold.stale),
            Some(Hold::Event(_)) | None => Cleared::by_the_ledger(None, false),
        }
    }

    /// Returns the id of the callback's interaction, if the callback has one.
    pub(in crate::store) fn interaction(&self) -> Option<&str> {
        match &self.hold {
            Some(Hold::Interaction(hold)) => Some(&hold.id),
            Some(Hold::Event(_)) | None => None,
        }
    }

    /// Reports whether the callback is delivered although the progress that it reports is stale (see
    /// [`Stale`](crate::interaction::Stale)).
    pub(in crate::store) fn is_stale(&self) -> bool {
        matches!(&self.hold, Some(Hold::Interaction(hold)) if hold.stale)
    }

    /// Records that the agent accepted the callback.
    pub(in crate::store) async fn settle(
        mut self,
        report: &Report,
        event_id: Option<&str>,
    ) -> Result<(), Refusal> {
        let store = Arc::clone(&self.store);
        match self.hold.take() {
            None => Ok(()),
            Some(Hold::Event(hold)) => store.settle_event(&hold).await,
            Some(Hold::Interaction(mut hold)) => {
                let settled = Box::pin(store.settle(&mut hold, report, event_id, None)).await;
                settled.map(drop).map_err(|failed| failed.refusal)
            }
        }
    }

    /// Stores the message of a callback, and records in the same change that the callback was queued in the inbox.
    /// Returns where the message was stored, or `None` if this is unknown because a response was lost. Releases the
    /// claim if the change was certainly not recorded.
    pub(in crate::store) async fn keep(
        mut self,
        report: &Report,
        event_id: Option<&str>,
        message: NewMessage,
    ) -> Result<Option<Placed>, NotChanged> {
        let store = Arc::clone(&self.store);
        let mut hold = self.hold.take();
        let kept = match &mut hold {
            None => return Ok(None),
            Some(Hold::Event(hold)) => store.keep_event(hold, &message).await,
            Some(Hold::Interaction(hold)) => {
                Box::pin(store.settle(hold, report, event_id, Some(message))).await
            }
        };
        if kept.as_ref().is_err_and(|failed| !failed.may_have_happened) {
            // This method returns the claim to `self` and then drops `self`. Dropping `self` releases the claim.
            self.hold = hold;
        }
        kept
    }

    /// Records that the agent did not accept the callback.
    pub(in crate::store) async fn fail(mut self) {
        let Some(hold) = self.hold.take() else { return };
        let store = Arc::clone(&self.store);
        Box::pin(store.end_claim(hold, true)).await;
    }
}

impl Drop for SharedClaim {
    fn drop(&mut self) {
        let Some(hold) = self.hold.take() else { return };
        let store = Arc::clone(&self.store);
        self.store.later(async move { store.end_claim(hold, false).await });
    }
}

impl RedisStore {
    /// Records a callback that was delivered or queued in the inbox. Returns where its message was stored. Returns
    /// `None` if the callback has no message, or if the response of the Redis server was lost.
    async fn settle(
        &self,
        hold: &mut InteractionHold,
        report: &Report,
        event_id: Option<&str>,
        message: Option<NewMessage>,
    ) -> Result<Option<Placed>, NotChanged> {
        let InteractionHold { id, lease, events, loaded, .. } = hold;
        let changed = self.try_change(id, events, loaded.take(), |draft| {
            let has_happened = draft.is_repeat
                && draft.record.as_ref().is_some_and(|record| record.has_delivered_all(events, &draft.known));
            let now = draft.now;
            let Some(record) = &mut draft.record else { return Decision::Keep(None) };
            match record.settle(*lease, report, event_id, now) {
                Settled::Recorded { ended, surplus } => {
                    if message.is_none() {
                        record.interaction.inform(InformedBy::of_callback(ended), now);
                    }
                    let route = Arc::clone(&record.interaction.route);
                    let end = ended.then(|| (route, record.interaction.state.name()));
                    draft.surplus = surplus;
                    draft.message.clone_from(&message);
                    Decision::Write(Some(end))
                }
                Settled::Lost if has_happened => Decision::Keep(Some(None)),
                Settled::Lost => Decision::Keep(None),
            }
        });
        let (changed, loaded) = changed.await?;
        match changed {
            Some(end) => {
                if let Some((route, state)) = end {
                    self.metrics.shared_interaction_ended(&route, state);
                }
                Ok(loaded.placed)
            }
            None => Err(NotChanged::for_certain(Refusal::new(
                Denial::StoreUnavailable,
                "the delivery took longer than its lease, so another process may deliver the event, too",
            ))),
        }
    }

    /// Ends a claim whose callback was not delivered. `was_refused` is true if the agent did not accept the callback.
    /// If this call fails, the claim ends when its lease expires.
    async fn end_claim(&self, hold: Hold, was_refused: bool) {
        match hold {
            Hold::Event(hold) => self.release_event(&hold).await,
            Hold::Interaction(hold) => {
                let InteractionHold { id, lease, loaded, .. } = *hold;
                let changed = self.change(&id, &[], loaded, |draft| {
                    let now = draft.now;
                    let Some(record) = &mut draft.record else { return Decision::Keep(()) };
                    let ended = if was_refused { record.fail(lease, now) } else { record.release(lease) };
                    if ended { Decision::Write(()) } else { Decision::Keep(()) }
                });
                if let Err(refusal) = changed.await {
                    log::warn!("{id}: the claim of a callback ends only with its lease: {}", refusal.detail);
                }
            }
        }
    }
}
