//! Applies the deadlines in a shared ledger. When the time of a deadline comes, the process that wrote the deadline
//! checks it. For each partition, two processes also check all deadlines regularly, so that the deadlines of a dead
//! process are found.
//!
//! When the Redis server has returned the id of an interaction to a process, it hides this id for a short time. Other
//! processes therefore do not check the same deadline at the same time.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use redis::Value;

use super::members::parse_owner;
use super::nodes::keys::Partition;
use super::nodes::scripts::{DUE, UNBIND};
use super::records::Decision;
use super::schedule::Waiting;
use super::store::RedisStore;
use crate::interaction::{Due, Interaction, Terms};
use crate::replica::Owner;
use crate::store::outcome::{DueNotice, NO_ROUTE};

/// The time for which the Redis server does not return an interaction id again after it has returned the id to a
/// process. The time is short: if the response is lost, no process checks the deadline until the id is returned again.
/// If the first process needs longer than this time, a second process gets the id, but does nothing, because the record
/// has the lease of the first process.
const HIDDEN: Duration = Duration::from_secs(5);
/// The maximum number of interaction ids that one call of the script `DUE` returns.
const IDS_PER_CALL: usize = 64;
/// The maximum number of partitions that one call of [`RedisStore::pass`] checks.
const CALLS_PER_PASS: usize = 32;
/// The pause before the partitions and interactions of a node that does not respond are checked again.
const SILENCE_PAUSE: Duration = Duration::from_secs(1);
/// The duration of the lease of a notice that is being sent.
const NOTICE_LEASE: Duration = Duration::from_secs(120);

/// The result of checking the deadlines of interactions.
#[derive(Debug, Default)]
pub(in crate::store) struct Found {
    pub(in crate::store) notices: Vec<DueNotice>,
    /// Pairs of an owner and its interaction. The owner is another process that is alive, and must send the notice of
    /// the interaction.
    pub(in crate::store) elsewhere: Vec<(Owner, Box<str>)>,
    pub(in crate::store) has_more: bool,
}

/// The result of checking the deadlines of one interaction.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Looked {
    Done,
    /// The record of the interaction cannot be changed now. The Redis server returns the id of the interaction again
    /// later.
    Refused,
    /// The node of the interaction does not respond.
    Silence,
}

/// The result of applying the expired deadlines of an interaction.
enum Passed {
    Nothing,
    /// This process has applied the deadlines. The values are the changed interaction and the effects of the deadlines.
    Here(Box<Interaction>, Due),
    Elsewhere(Owner),
}

impl RedisStore {
    /// Applies the expired deadlines of interactions. Returns the notices that must be sent now.
    pub(in crate::store) async fn pass(&self) -> Found {
        let mut found = Found::default();
        let Some(now) = self.clock.now() else { return found };
        if self.health.why_unusable().is_some() {
            return found;
        }
        let mut silent = HashSet::new();
        for one in self.due.take_waiting(now) {
            self.look_or_wait(one, &mut silent, &mut found).await;
        }
        let watched = self.members.lock().watched(&self.incarnation, now);
        let mut partitions = self.due.take(now, &watched);
        for number in partitions.split_off(partitions.len().min(CALLS_PER_PASS)) {
            self.due.looked(number, Some(now.unix_ms()));
            self.due.own.lock().insert((now.unix_ms(), number));
            found.has_more = true;
        }
        for number in partitions {
            let node = self.nodes.node_of(Partition::Number(number));
            if silent.contains(&node) || !self.look_into(number, &mut silent, &mut found).await {
                // This node is not called again during this pass, so that it does not delay the partitions of other
                // nodes.
                silent.insert(node);
                self.due.expect(Partition::Number(number), now.plus(SILENCE_PAUSE));
            }
        }
        found
    }

    /// Applies the expired deadlines of the interactions in a partition. Returns false if the Redis server does not
    /// respond.
    async fn look_into(&self, number: u8, silent: &mut HashSet<Box<str>>, found: &mut Found) -> bool {
        let partition = Partition::Number(number);
        let arguments =
            vec![IDS_PER_CALL.to_string().into_bytes(), HIDDEN.as_millis().to_string().into_bytes()];
        let called = self.call(&DUE, partition, vec![self.keys.due(partition)], arguments).await;
        let Ok((_, values)) = called else { return false };
        let mut values = values.into_iter();
        let Some(Value::Array(ids)) = values.next() else { return true };
        let first = match values.next() {
            Some(Value::BulkString(score)) => {
                std::str::from_utf8(&score).ok().and_then(|text| text.parse::<f64>().ok())
            }
            _ => None,
        };
        #[allow(clippy::cast_possible_truncation, reason = "scores are Unix milliseconds")]
        self.due.looked(number, first.map(|first| first as i64));
        found.has_more |= ids.len() >= IDS_PER_CALL;
        for id in ids {
            if let Value::BulkString(id) = id
                && let Ok(id) = std::str::from_utf8(&id)
                && let Some(one) = Waiting::new(id.into(), false)
            {
                self.look_or_wait(one, silent, found).await;
            }
        }
        true
    }

    /// Applies the deadlines of one interaction. If the node of the interaction does not respond, schedules another
    /// check.
    async fn look_or_wait(&self, one: Waiting, silent: &mut HashSet<Box<str>>, found: &mut Found) {
        let node = self.nodes.node_of(Partition::of(&one.id));
        if silent.contains(&node) || self.look_at(&one, &node, found).await == Looked::Silence {
            silent.insert(node);
            if let Some(now) = self.clock.now() {
                self.due.look_again(one, now.plus(SILENCE_PAUSE));
            }
        }
    }

    /// Applies the deadlines of one interaction. `node` is the address of the node with the record of the interaction.
    async fn look_at(&self, one: &Waiting, node: &str, found: &mut Found) -> Looked {
        let Waiting { id, lease, is_passed_on, .. } = one;
        let members = Arc::clone(&self.members.lock());
        let passed = self.change(id, &[], None, |draft| {
            let now = draft.now;
            let Some(record) = &mut draft.record else { return Decision::Remove(Passed::Nothing) };
            let terms = Terms { id: *lease, until: now.plus(NOTICE_LEASE) };
            let due = record.pass(terms, now);
            let owner = record.owner.as_deref().and_then(parse_owner);
            let other = owner.filter(|owner| {
                let incarnation = owner.incarnation.to_string();
                incarnation != *self.incarnation && members.lives(&incarnation, now)
            });
            match other {
                Some(owner) if due.notice.is_some() && !is_passed_on => {
                    Decision::Keep(Passed::Elsewhere(owner))
                }
                _ => {
                    let (interaction, dead) = (Box::new(record.interaction.clone()), due.dead);
                    let passed = Passed::Here(interaction, due);
                    // An ended interaction is retained for the configured time, but only while the ledger has much
                    // room.
                    let kept =
                        record.interaction.ended_at().map(|ended| ended.plus(self.settings.keep_ended));
                    let kept = kept.filter(|until| now < *until && *record.interaction.route != *NO_ROUTE);
                    match kept.filter(|_| self.has_much_room(node)) {
                        Some(until) if dead => {
                            record.interaction.is_kept = true;
                            draft.look_again = Some(until);
                            Decision::Write(passed)
                        }
                        None if dead => Decision::Remove(passed),
                        _ => Decision::Write(passed),
                    }
                }
            }
        });
        match passed.await {
            Ok((Passed::Here(interaction, due), _)) => self.applied(id, &interaction, due, found).await,
            Ok((Passed::Elsewhere(owner), _)) => found.elsewhere.push((owner, id.clone())),
            Ok((Passed::Nothing, _)) => {}
            Err(refusal) => {
                log::warn!("{id}: its deadline is applied later: {}", refusal.detail);
                // The change may have failed although the node responds, for example if this version of Callgate cannot
                // read the record.
                return if self.health.is_failing(node) { Looked::Silence } else { Looked::Refused };
            }
        }
        Looked::Done
    }

    async fn applied(&self, id: &str, interaction: &Interaction, due: Due, found: &mut Found) {
        let route = &interaction.route;
        if due.lapsed {
            self.metrics.shared_interaction_ended(route, interaction.state.name());
        }
        if let Some(cause) = due.given_up {
            self.metrics.notice(route, cause.name(), "given_up");
        }
        if let Some(notice) = due.notice {
            let is_retry = interaction.notice_attempts() > 0;
            found.notices.push(DueNotice { id: id.into(), route: Arc::clone(route), notice, is_retry });
        }
        if due.dead
            && **route != *NO_ROUTE
            && interaction.is_matched()
            && let Some(provider_id) = interaction.provider_id()
        {
            self.forget_provider_id(route, provider_id, id).await;
        }
    }

    /// Removes the entry that maps a provider's id to the interaction `id`. Does nothing if the entry maps the
    /// provider's id to another interaction.
    pub(super) async fn forget_provider_id(&self, route: &str, provider_id: &str, id: &str) {
        let keys = vec![self.keys.provider_id(route, provider_id)];
        let _ = self.call(&UNBIND, Partition::of(route), keys, vec![id.as_bytes().to_vec()]).await;
    }
}
