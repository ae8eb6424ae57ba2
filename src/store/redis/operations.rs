//! Changes to interactions in a shared ledger, except callbacks and deadlines.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;

use super::nodes::keys::Partition;
use super::nodes::scripts::TOUCH;
use super::records::{Decision, Loaded, no_random_numbers, unavailable};
use super::store::RedisStore;
use crate::config::Unknown;
use crate::denial::{Denial, Refusal};
use crate::interaction::{
    Event, Interaction, LeaseId, NoticeResult, QuestionFault, SharedRecord, State, Terms,
};
use crate::policy::TTL_MAX;
use crate::random::random;
use crate::store::outcome::Revoked;
use crate::store::outcome::{DueNotice, NO_ROUTE};
use crate::time::Timestamp;

/// The duration of the lease of an answer that is being sent to the provider. It is longer than any sensible timeout of
/// an action endpoint.
const ANSWER_LEASE: Duration = Duration::from_secs(600);

/// The maximum number of attempts to read whether an interaction has messages, if the Redis node does not respond.
const LOOKS_MAX: u32 = 4;
/// The pause between two checks of the messages of an interaction.
const LOOK_PAUSE: Duration = Duration::from_secs(5);
/// The maximum number of times that one check counts the messages. They are counted again if another process has
/// changed the record meanwhile.
const COUNTS_MAX: u32 = 4;

/// A provider's question that is reserved for an answer of this process. Dropping this value releases the question.
#[derive(Debug)]
pub(in crate::store) struct SharedTaken {
    store: Arc<RedisStore>,
    id: Box<str>,
    lease: LeaseId,
    number: u32,
    has_ended: bool,
}

/// The route of a reserved question, the provider's endpoint for the answer, and the question.
pub(in crate::store) type TakenQuestion = (Arc<str>, Box<str>, SharedTaken);

impl RedisStore {
    /// Records a minted interaction in a shared ledger.
    pub(in crate::store) async fn open(&self, id: &str, record: Interaction) -> Result<(), Refusal> {
        if let Some(fault) = self.health.why_unusable() {
            return Err(Refusal::new(Denial::StoreUnavailable, fault));
        }
        self.check_room()?;
        let now = self.clock.now().unwrap_or(record.created());
        // The id is new, so there is no record to read.
        let given = Loaded::nothing(now);
        let opened = self.change(id, &[], Some(given), |draft| match draft.record {
            Some(_) => Decision::Keep(()),
            None => {
                draft.record = Some(SharedRecord::new(record.clone(), self.owner()));
                Decision::Write(())
            }
        });
        let opened = opened.await.map(|_| ());
        if opened.is_ok() {
            self.metrics.shared_interaction_opened(&record.route);
        }
        opened
    }

    /// Revokes an interaction. See [`Store::revoke`](crate::store::Store::revoke).
    pub(in crate::store) async fn revoke(&self, id: &str, remembers: bool) -> Result<Revoked, Refusal> {
        let remembers = remembers || self.settings.unknown == Unknown::Adopt;
        let changed = self.change(id, &[], None, |draft| {
            let now = draft.now;
            match &mut draft.record {
                Some(record) => {
                    let route = Arc::clone(&record.interaction.route);
                    let ended = record.interaction.end_by(Event::Revoked, now);
                    let known = *route != *NO_ROUTE || !draft.is_repeat;
                    Decision::Write((
                        if known { Revoked::Known } else { Revoked::Remembered },
                        ended.then_some(route),
                    ))
                }
                None if remembers => {
                    let mut record = Interaction::new(NO_ROUTE.into(), "".into(), now, now.plus(TTL_MAX));
                    record.state = State::Revoked;
                    draft.record = Some(SharedRecord::new(record, None));
                    Decision::Write((Revoked::Remembered, None))
                }
                None => Decision::Keep((Revoked::Unknown, None)),
            }
        });
        let ((revoked, ended), _) = changed.await?;
        if let Some(route) = ended {
            self.metrics.shared_interaction_ended(&route, State::Revoked.name());
        }
        Ok(revoked)
    }

    /// Changes the record of an interaction with the function `update`, if the interaction exists.
    async fn update(
        &self,
        id: &str,
        mut update: impl FnMut(&mut SharedRecord, Timestamp),
    ) -> Result<(), Refusal> {
        let changed = self.change(id, &[], None, |draft| {
            let now = draft.now;
            let Some(record) = &mut draft.record else { return Decision::Keep(None) };
            let was_open = record.interaction.state.is_open();
            update(record, now);
            let state = record.interaction.state;
            let ended = was_open && !state.is_open();
            Decision::Write(ended.then(|| (Arc::clone(&record.interaction.route), state.name())))
        });
        if let Some((route, state)) = changed.await?.0 {
            self.metrics.shared_interaction_ended(&route, state);
        }
        Ok(())
    }

    /// Records that the agent's request for an interaction was not sent.
    pub(in crate::store) async fn not_sent(&self, id: &str) -> Result<(), Refusal> {
        self.update(id, |record, now| {
            record.interaction.end_by(Event::NotSent, now);
        })
        .await
    }

    /// Records that the inbox has given up a callback of an interaction.
    pub(in crate::store) async fn undelivered(&self, id: &str) -> Result<(), Refusal> {
        self.update(id, |record, now| record.interaction.lose_message(now)).await
    }

    /// Records in the background that the agent has received all callbacks of an interaction, if no message of the
    /// interaction is waiting or dead. If the node of the interaction does not respond, the removal of the last message
    /// may still be queued. The messages are then counted again after a pause.
    pub(in crate::store) fn message_received(self: &Arc<Self>, id: &str) {
        let (store, id) = (Arc::clone(self), Box::<str>::from(id));
        self.later(async move {
            for _ in 0..LOOKS_MAX {
                let looked = store.received_all(&id).await;
                match &looked {
                    Ok(()) if !store.health.is_failing(&store.nodes.node_of(Partition::of(&id))) => return,
                    Ok(()) => {}
                    Err(refusal) => {
                        log::warn!(
                            "{id}: it is unknown whether all its callbacks are delivered: {}",
                            refusal.detail
                        );
                    }
                }
                sleep(LOOK_PAUSE).await;
            }
        });
    }

    async fn received_all(&self, id: &str) -> Result<(), Refusal> {
        for _ in 0..COUNTS_MAX {
            let loaded = self.load(id, &[]).await?;
            let record = loaded.record.as_ref();
            let is_news = |interaction: &Interaction| {
                interaction.undelivered().is_some() || interaction.lacks_final_callback()
            };
            if !record.is_some_and(|record| is_news(&record.interaction)) {
                return Ok(());
            }
            // The record is read before the messages are counted. If a message is given up afterwards, the record
            // changes, and the messages are counted again.
            let left = self.undelivered_messages(id).await.map_err(|failure| unavailable(&failure))?;
            if left > 0 {
                return Ok(());
            }
            let mut is_first = true;
            let changed = self.change(id, &[], Some(loaded), |draft| match &mut draft.record {
                Some(record) if std::mem::take(&mut is_first) => {
                    record.interaction.receive_all(draft.now);
                    Decision::Write(true)
                }
                Some(_) => Decision::Keep(false),
                None => Decision::Keep(true),
            });
            if changed.await?.0 {
                break;
            }
        }
        Ok(())
    }

    /// Records that it is unknown whether the provider accepted the agent's request.
    pub(in crate::store) async fn doubt(&self, id: &str) -> Result<(), Refusal> {
        self.update(id, |record, _| record.interaction.doubt()).await
    }

    /// Records the id that the provider gave to an interaction.
    pub(in crate::store) async fn bind(&self, id: &str, provider_id: &str) -> Result<(), Refusal> {
        let changed = self.change(id, &[], None, |draft| match &mut draft.record {
            Some(record) => {
                let former = record.interaction.provider_id().map(Box::from);
                record.interaction.bind(provider_id);
                let route = Arc::clone(&record.interaction.route);
                Decision::Write(record.interaction.is_matched().then_some((route, former)))
            }
            None => Decision::Keep(None),
        });
        let Some((route, former)) = changed.await?.0 else { return Ok(()) };
        // The interaction's record is written first. A provider's id that is not in a record would never be removed.
        self.remember_provider_id(&route, provider_id, id).await?;
        if let Some::<Box<str>>(former) = former.filter(|former| **former != *provider_id) {
            self.forget_provider_id(&route, &former, id).await;
        }
        Ok(())
    }

    /// Reserves a provider's question. See [`Store::take_question`](crate::store::Store::take_question).
    pub(in crate::store) async fn take_question(
        self: &Arc<Self>,
        id: &str,
        number: Option<u32>,
    ) -> Result<TakenQuestion, QuestionFault> {
        let lease = random::<8>().map(u64::from_be_bytes).ok_or_else(no_random_numbers);
        let lease = lease.map_err(|_| QuestionFault::Unavailable)?;
        // This value exists before the record has the lease. If this future is dropped meanwhile, the value is dropped,
        // too, and releases the lease.
        let mut taken =
            SharedTaken { store: Arc::clone(self), id: id.into(), lease, number: 0, has_ended: false };
        let changed = self.change(id, &[], None, |draft| {
            let now = draft.now;
            let Some(record) = &mut draft.record else {
                return Decision::Keep(Err(QuestionFault::Unknown));
            };
            let route = Arc::clone(&record.interaction.route);
            match record.take_question(number, Terms { id: lease, until: now.plus(ANSWER_LEASE) }, now) {
                Ok((number, endpoint)) => Decision::Write(Ok((route, number, endpoint))),
                Err(fault) => Decision::Keep(Err(fault)),
            }
        });
        let (answer, _) = changed.await.map_err(|_| QuestionFault::Unavailable)?;
        taken.has_ended = answer.is_err();
        let (route, number, endpoint) = answer?;
        taken.number = number;
        Ok((route, endpoint, taken))
    }

    /// Records the result of sending a notice.
    pub(in crate::store) async fn noticed(
        &self,
        due: &DueNotice,
        result: NoticeResult,
    ) -> Result<(), Refusal> {
        self.update(&due.id, |record, now| record.noticed(due.notice, result, now)).await
    }

    /// Records in the background that the delivery of a notice failed.
    pub(in crate::store) fn notice_failed(self: &Arc<Self>, due: &DueNotice) {
        let (store, due) = (Arc::clone(self), due.clone());
        self.later(async move {
            let _ = store.noticed(&due, NoticeResult::Failed).await;
        });
    }

    /// Waits until the replicas have confirmed the record of an interaction, if the configuration requires this. This
    /// is necessary before a duplicate is acknowledged, because the record of the first delivery must not be lost. It
    /// is also necessary after a change that the replicas did not confirm in time.
    pub(super) async fn confirm(&self, id: &str, loaded: &Loaded) -> Result<(), Refusal> {
        if loaded.record.is_none() || self.nodes.settings().wait_replicas == 0 {
            return Ok(());
        }
        let touched = self.call(&TOUCH, Partition::of(id), vec![self.keys.record(id)], Vec::new()).await;
        touched.map(|_| ()).map_err(|failure| unavailable(&failure))
    }
}

impl SharedTaken {
    /// Records that the provider accepted the answer.
    pub(in crate::store) async fn answered(mut self) -> Result<(), Refusal> {
        self.has_ended = true;
        let (lease, number) = (self.lease, self.number);
        self.store.update(&self.id, |record, _| record.answered(lease, number)).await
    }
}

impl SharedTaken {
    /// Releases the question, so that another answer can be sent.
    pub(in crate::store) async fn release(mut self) {
        self.has_ended = true;
        self.store.release_question(&self.id, self.lease).await;
    }
}

impl Drop for SharedTaken {
    fn drop(&mut self) {
        if self.has_ended {
            return;
        }
        let (store, id, lease) = (Arc::clone(&self.store), self.id.clone(), self.lease);
        self.store.later(async move { store.release_question(&id, lease).await });
    }
}

impl RedisStore {
    /// Releases a question, so that another answer can be sent. If this fails, the lease expires later.
    async fn release_question(&self, id: &str, lease: LeaseId) {
        let released = self.update(id, |record, _| {
            record.release(lease);
        });
        if let Err(refusal) = released.await {
            log::warn!("{id}: its question can be answered again only later: {}", refusal.detail);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::simulation::SimulatedLedger;
    use super::*;

    async fn open(store: &RedisStore, id: &str) {
        let now = store.clock.now().unwrap();
        store.open(id, Interaction::new("r".into(), "".into(), now, now.plus(TTL_MAX))).await.unwrap();
    }

    async fn state(store: &RedisStore, id: &str) -> Option<State> {
        store.read(id).await.unwrap().map(|record| record.interaction.state)
    }

    #[tokio::test(start_paused = true)]
    async fn an_interaction_whose_request_was_not_sent_has_ended() {
        let (_, [one, other]) = SimulatedLedger::start(|_| {}).await;
        open(&one, "int_a").await;
        assert_eq!(state(&other, "int_a").await, Some(State::Open));
        one.not_sent("int_a").await.unwrap();
        assert_eq!(state(&other, "int_a").await, Some(State::NotSent));
        one.not_sent("int_b").await.unwrap();
        assert_eq!(state(&other, "int_b").await, None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_revocation_says_whether_the_interaction_was_known_before() {
        for (unknown, remembers, expected) in [
            (Unknown::Refuse, false, Revoked::Unknown),
            (Unknown::Refuse, true, Revoked::Remembered),
            (Unknown::Adopt, false, Revoked::Remembered),
        ] {
            let (ledger, [one, other]) = SimulatedLedger::start(|settings| settings.unknown = unknown).await;
            open(&one, "int_a").await;
            assert_eq!(one.revoke("int_a", remembers).await.unwrap(), Revoked::Known);
            assert_eq!(state(&other, "int_a").await, Some(State::Revoked));
            assert_eq!(one.revoke("int_b", remembers).await.unwrap(), expected);
            let is_recorded = expected == Revoked::Remembered;
            assert_eq!(state(&other, "int_b").await, is_recorded.then_some(State::Revoked));
            let again = if is_recorded { Revoked::Known } else { expected };
            assert_eq!(other.revoke("int_b", remembers).await.unwrap(), again);
            // The response is lost, and another process changes the record before this process reads it again.
            for (id, is_known) in [("int_c", false), ("int_d", true)] {
                if is_known {
                    open(&one, id).await;
                }
                ledger.engine.lose_next_response("cas");
                let (first, second) = tokio::join!(one.revoke(id, remembers), async {
                    sleep(Duration::from_millis(500)).await;
                    other.revoke(id, remembers).await
                });
                let expected = if is_known { Revoked::Known } else { expected };
                let second_expected = if is_known { Revoked::Known } else { again };
                assert_eq!((first.unwrap(), second.unwrap()), (expected, second_expected), "{id}");
            }
        }
    }
}
