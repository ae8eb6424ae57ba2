//! Claims callbacks for delivery, so that no event is delivered twice. A claim waits while another claim delivers the
//! same event, or while other claims hold all remaining uses of the interaction's token.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

use super::file::Change;
use super::ledger::{Store, durable, unavailable};
use super::memory::Hold;
use super::redis::{NewMessage, NotChanged, Placed, SharedClaim};
use super::waiting_claims::{WaitKey, Waiter};
use crate::denial::{Denial, Refusal};
use crate::interaction::{Ask, ClaimError, Cleared, Report, UnmatchedCallback};
use crate::time::Timestamp;

/// The maximum time for which a callback waits for the provider's response to the agent's request. This response
/// contains the provider's id, by which the ledger finds the interaction of the callback.
const RESPONSE_WAIT_MAX: Duration = Duration::from_secs(10);

/// A claimed callback, which the caller may deliver. Dropping this value without [`Claimed::settle`] releases the
/// claim.
#[derive(Debug)]
pub struct Claimed<'s> {
    store: &'s Store,
    hold: Option<Hold>,
    /// The claim in the shared ledger. `None` unless several processes share the ledger.
    shared: Option<SharedClaim>,
}

impl Store {
    /// Claims a verified callback for delivery. Waits for at most `patience` while another claim delivers the same
    /// event, or while other claims hold all remaining uses of the interaction's token.
    ///
    /// # Errors
    /// Returns [`ClaimError`] if the callback must not be delivered now.
    pub async fn claim(
        &self,
        ask: &Ask<'_>,
        now: Timestamp,
        patience: Duration,
    ) -> Result<Claimed<'_>, ClaimError> {
        self.check().map_err(ClaimError::Refused)?;
        let matched = match ask.follow.matching.filter(|_| ask.granted.is_none()) {
            // Few callbacks are matched by the provider's id. The future is boxed, so that the futures of all other
            // callbacks stay small.
            Some(unmatched) => match Box::pin(self.find_matched(ask)).await.map_err(ClaimError::Refused)? {
                None if unmatched == UnmatchedCallback::Refuse => {
                    let detail = "no interaction has the provider's id of the callback";
                    return Err(ClaimError::Refused(Refusal::new(Denial::InteractionUnknown, detail)));
                }
                matched => matched,
            },
            None => None,
        };
        let ask = &Ask { matched: matched.as_deref(), ..*ask };
        if let Some(shared) = &self.shared {
            let claim = Box::pin(shared.claim(ask, patience)).await?;
            return Ok(Claimed { store: self, hold: None, shared: Some(claim) });
        }
        let claimed = match self.memory.claim(ask, now) {
            Ok(Some(hold)) => Ok(self.claimed(hold)),
            // Few claims must wait. The future is boxed, so that the futures of claims that do not wait stay small.
            Ok(None) => Box::pin(self.wait_for_claim(ask, now, patience)).await,
            Err(error) => Err(error),
        };
        if claimed.is_err()
            && let Some(commit_queue) = &self.commit_queue
            && !commit_queue.durable(commit_queue.sequence()).await
        {
            // The denial depends on changes that are not durable. A crash may undo these changes.
            return Err(ClaimError::Refused(unavailable()));
        }
        claimed
    }

    async fn wait_for_claim(
        &self,
        ask: &Ask<'_>,
        now: Timestamp,
        patience: Duration,
    ) -> Result<Claimed<'_>, ClaimError> {
        let detail = "the same event or the last allowed use is still being delivered";
        let late = || ClaimError::Refused(Refusal::new(Denial::EventInFlight, detail));
        timeout(patience, self.claim_when_free(ask, now)).await.map_err(|_| late())?
    }

    async fn claim_when_free(&self, ask: &Ask<'_>, now: Timestamp) -> Result<Claimed<'_>, ClaimError> {
        let keys = WaitKey::of_ask(ask);
        let mut woken: Option<Waiter<'_>> = None;
        loop {
            let waiter = self.waiters.register(&keys);
            if let Some(hold) = self.memory.claim(ask, now)? {
                woken.into_iter().for_each(Waiter::succeeded);
                return Ok(self.claimed(hold));
            }
            // If only this claim was woken, dropping its waiter wakes the other waiting claims. One of them may
            // succeed.
            drop(woken.take());
            waiter.woken().await;
            woken = Some(waiter);
        }
    }

    fn claimed(&self, hold: Hold) -> Claimed<'_> {
        Claimed { store: self, hold: Some(hold), shared: None }
    }
}

impl Claimed<'_> {
    /// Returns the proof that the ledger allows the delivery of the callback.
    pub fn cleared(&self) -> Cleared {
        if let Some(shared) = &self.shared {
            return shared.cleared();
        }
        match &self.hold {
            Some(Hold::Interaction(_, claim, _)) => Cleared::by_the_ledger(claim.question, claim.stale),
            Some(Hold::Dedup(..)) | None => Cleared::by_the_ledger(None, false),
        }
    }

    /// Returns the id of the callback's interaction, if the callback has one.
    pub fn interaction(&self) -> Option<&str> {
        if let Some(shared) = &self.shared {
            return shared.interaction();
        }
        match &self.hold {
            Some(Hold::Interaction(id, ..)) => Some(id),
            Some(Hold::Dedup(..)) | None => None,
        }
    }

    /// Reports whether the progress in the callback is stale (see [`Stale`](crate::interaction::Stale)). The callback is
    /// delivered nevertheless.
    pub fn is_stale(&self) -> bool {
        if let Some(shared) = &self.shared {
            return shared.is_stale();
        }
        matches!(&self.hold, Some(Hold::Interaction(_, claim, _)) if claim.stale)
    }

    /// Records that the agent accepted the callback. The change is durable when this method returns `Ok`. Only then may
    /// the caller acknowledge the callback to the provider.
    ///
    /// # Errors
    /// Returns the denial `store_unavailable` if the change cannot be made durable.
    pub async fn settle(
        mut self,
        report: &Report,
        event_id: Option<&str>,
        now: Timestamp,
    ) -> Result<(), Refusal> {
        if let Some(shared) = self.shared.take() {
            return shared.settle(report, event_id).await;
        }
        let Some(hold) = self.hold.take() else { return Ok(()) };
        let sequence = self.store.memory.settle(&hold, report, event_id, now, None);
        // The waiting claims are woken before the commit, because the caller may drop this future during the commit. A
        // woken claim waits until the changes that it depends on are durable.
        self.store.waiters.claim_ended(&hold, true);
        durable(self.store.commit_queue.as_ref(), sequence).await
    }
}

impl Claimed<'_> {
    /// Stores the message of a callback in the inbox of a shared ledger. The same change records the callback as
    /// queued. Returns where the message was stored. Returns `None` if this is unknown, because a response of the Redis
    /// server was lost.
    ///
    /// # Errors
    /// Returns the denial `store_unavailable`, and whether the message may have been stored nevertheless.
    pub(super) async fn keep(
        mut self,
        report: &Report,
        event_id: Option<&str>,
        message: NewMessage,
    ) -> Result<Option<Placed>, NotChanged> {
        match self.shared.take() {
            Some(shared) => shared.keep(report, event_id, message).await,
            None => Err(NotChanged::for_certain(unavailable())),
        }
    }
}

impl Store {
    /// Stores the message of a claimed callback in the inbox. The same change records the callback as queued. Returns
    /// the sequence number of the change.
    pub(super) fn settle_with(
        &self,
        mut claimed: Claimed<'_>,
        report: &Report,
        event_id: Option<&str>,
        now: Timestamp,
        message: Change,
    ) -> u64 {
        let Some(hold) = claimed.hold.take() else { return 0 };
        let sequence = self.memory.settle(&hold, report, event_id, now, Some(message));
        self.waiters.claim_ended(&hold, true);
        sequence
    }
}

impl Claimed<'_> {
    /// Records that the agent did not accept the callback, and releases the claim. Does not wait until the change is
    /// durable, because the provider receives an error in any case.
    pub async fn fail(mut self, now: Timestamp) {
        if let Some(shared) = self.shared.take() {
            return shared.fail().await;
        }
        let Some(hold) = self.hold.take() else { return };
        match &hold {
            Hold::Interaction(id, claim, _) => self.store.memory.fail(id, claim, now),
            Hold::Dedup(..) => self.store.memory.release(&hold),
        }
        self.store.waiters.claim_ended(&hold, false);
    }
}

impl Drop for Claimed<'_> {
    fn drop(&mut self) {
        if let Some(hold) = self.hold.take() {
            self.store.memory.release(&hold);
            self.store.waiters.claim_ended(&hold, false);
        }
    }
}

impl Store {
    /// Finds the interaction of a callback that has no token. The callback contains the provider's task id.
    /// Returns `None` if the route does not match callbacks by this id, or if no interaction has the id.
    ///
    /// # Errors
    /// Returns the denial `store_unavailable` if the ledger cannot be read.
    pub async fn matched(&self, ask: &Ask<'_>) -> Result<Option<Arc<str>>, Refusal> {
        match ask.follow.matching.filter(|_| ask.granted.is_none()) {
            Some(_) => self.find_matched(ask).await,
            None => Ok(None),
        }
    }

    /// Returns the interaction that has the provider's id of a callback. While the ledger has no such interaction,
    /// waits for the responses to the agent's requests on the route, because these responses contain the provider's
    /// ids.
    async fn find_matched(&self, ask: &Ask<'_>) -> Result<Option<Arc<str>>, Refusal> {
        if let Some(shared) = &self.shared {
            return shared.find_matched(ask, RESPONSE_WAIT_MAX).await;
        }
        let Some(provider_id) = ask.report.id.clone() else { return Ok(None) };
        let key = (Arc::clone(ask.route), provider_id);
        let find = async {
            loop {
                // This future is created before the ledger is searched. It therefore also reports a change that is made
                // during the search.
                let changed = self.matched_changed.notified();
                {
                    let matching = self.memory.matching.lock();
                    if let Some(id) = matching.known.get(&key) {
                        return Some(Arc::clone(id));
                    }
                    if !matching.is_awaited(ask.route) {
                        return None;
                    }
                }
                changed.await;
            }
        };
        Ok(timeout(RESPONSE_WAIT_MAX, find).await.ok().flatten())
    }
}
