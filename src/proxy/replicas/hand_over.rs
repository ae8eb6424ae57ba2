//! Finds the replica that has an interaction, and forwards callbacks of the interaction to this replica.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Method;

use super::liveness::Member;
use super::member_client::{API, Identity, MemberResponse, SendError, Sending};
use super::replication::{HandedOver, RETRY_PAUSE, Replication};
use crate::clock::instant;
use crate::replica::{Incarnation, Outcome, Owner, Replicas};

/// The minimum time between two rounds in which all replicas are asked whether they have received the interactions of
/// a stopped replica.
const HEIRS_PAUSE: Duration = Duration::from_secs(1);

/// Which process must handle a callback.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Place {
    /// This process must handle the callback.
    Here,
    /// Another replica must handle the callback.
    Member(Owner),
    /// No process can handle the callback, because the owner of the interaction is dead.
    Gone,
    /// No process is known: every replica that can have the interaction was asked, and none has the interaction.
    Nowhere,
}

/// Whether this process must handle a callback that another replica forwards.
pub(crate) enum Acceptance {
    /// This process has the interaction.
    Here,
    /// No replica has the interaction, so this process applies the setting `replicas.gone`.
    Gone,
    /// Another replica has the interaction.
    Moved,
    /// A replica that may have the interaction cannot be asked. Contains an explanation.
    Unknown(String),
}

/// What to do after an attempt to forward a callback.
enum Next {
    /// Determine again which replica has the interaction.
    Again,
    End(HandedOver),
}

impl Replication {
    /// Reports whether this process can have the interactions of `owner`. This is the case if this process is the owner
    /// or has received the owner's interactions.
    fn may_have(&self, owner: &Owner) -> bool {
        owner.incarnation == self.incarnation() || self.store().inherits(owner.incarnation)
    }

    /// Returns the other replicas that can have the interactions of an owner.
    fn other_holders(&self, replicas: &Replicas, owner: &Owner) -> Vec<Owner> {
        let mut others = self.members.holders(owner, replicas.gone_after);
        others.retain(|other| other.incarnation != self.incarnation());
        others
    }

    /// Returns which process must handle the callbacks of an interaction. The ledger has precedence over the owner in
    /// the token, because the interaction may have been moved. `asked` contains the processes that have responded that
    /// they do not have the interaction.
    pub(crate) fn place(
        &self,
        replicas: &Replicas,
        owner: &Owner,
        interaction: &str,
        asked: &[Incarnation],
    ) -> Place {
        if self.store().is_shared() {
            return match owner.incarnation {
                own if own == self.incarnation() => Place::Here,
                other if asked.contains(&other) => Place::Nowhere,
                other if self.members.is_gone(other, replicas.gone_after) => Place::Gone,
                other if self.store().is_dead(other) => Place::Gone,
                _ => Place::Member(owner.clone()),
            };
        }
        let may_have = self.may_have(owner);
        if may_have && self.store().knows(interaction) {
            return Place::Here;
        }
        let others = self.other_holders(replicas, owner);
        match others.iter().find(|other| !asked.contains(&other.incarnation)) {
            Some(other) => Place::Member(other.clone()),
            None if owner.incarnation == self.incarnation() => Place::Here,
            // The interaction was not moved, or the replica to which it was moved is dead.
            None if may_have || others.is_empty() => Place::Gone,
            None => Place::Nowhere,
        }
    }

    /// Returns whether this process must handle a callback that another replica forwards. If this ledger does not
    /// contain the interaction, asks the other replicas that can have it. If no replica has the interaction, exactly
    /// one of these replicas decides what happens to the callback: the owner, or otherwise the replica with the highest
    /// replica id.
    pub(crate) async fn accepts(&self, replicas: &Replicas, owner: &Owner, interaction: &str) -> Acceptance {
        if self.store().is_shared() {
            let is_own = owner.incarnation == self.incarnation();
            return if is_own { Acceptance::Here } else { Acceptance::Moved };
        }
        if !self.may_have(owner) {
            return Acceptance::Moved;
        }
        if self.store().knows(interaction) {
            return Acceptance::Here;
        }
        let others = self.other_holders(replicas, owner);
        let target = format!("{API}/callbacks/{interaction}");
        for other in &others {
            match self.ask(replicas, other, (&Method::GET, &target), Bytes::new()).await {
                Ok(answer) if answer.status == 200 => return Acceptance::Moved,
                Ok(answer) if answer.status == 404 => {}
                Ok(answer) => {
                    return Acceptance::Unknown(format!("{}: status {}", other.address, answer.status));
                }
                Err(error) => return Acceptance::Unknown(format!("{}: {error}", other.address)),
            }
        }
        let own = self.incarnation();
        let precedes = |other: &Owner| other.incarnation == owner.incarnation || other.incarnation > own;
        match others.iter().any(precedes) {
            _ if own == owner.incarnation => Acceptance::Here,
            true => Acceptance::Moved,
            false => Acceptance::Gone,
        }
    }

    /// Forwards a callback to the replica that has the interaction. Tries again for `replicas.patience` while no
    /// connection can be opened. `callback.write_head` writes the request head with the proof.
    pub(crate) async fn hand_over(
        self: &Arc<Self>,
        replicas: &Arc<Replicas>,
        owner: &Owner,
        interaction: &str,
        callback: &Sending<'_>,
    ) -> HandedOver {
        let (began, mut asked) = (instant(), Vec::new());
        let (mut has_asked_all, mut has_asked_heirs) = (false, false);
        loop {
            let to = match self.place(replicas, owner, interaction, &asked) {
                Place::Here => return HandedOver::Here,
                Place::Member(to) => to,
                Place::Gone if self.store().is_shared() => return HandedOver::Gone,
                Place::Gone if self.members.heirs_are_known(owner.incarnation) => return HandedOver::Gone,
                Place::Gone if self.find_heirs(replicas, owner).await => continue,
                Place::Gone => {
                    let reason =
                        "the owner is gone, and a member that may have its interactions cannot be reached";
                    return HandedOver::Unreachable(reason.to_owned());
                }
                Place::Nowhere if has_asked_all || self.store().is_shared() => {
                    let reason = "the interaction was handed over, and no member has it";
                    return HandedOver::Unreachable(reason.to_owned());
                }
                Place::Nowhere => {
                    self.ask_all(replicas).await;
                    asked.clear();
                    has_asked_all = true;
                    continue;
                }
            };
            let sent = self.send(replicas, &to, callback, replicas.timeout).await;
            if let Ok(response) = &sent
                && response.outcome == Outcome::Moved
            {
                asked.push(to.incarnation);
            }
            match self.after_attempt(replicas, &to, sent, began) {
                Next::End(end) => return end,
                Next::Again => {}
            }
            if self.members.is_refusing(to.incarnation) {
                // The replica may have stopped after it moved its interactions to another replica.
                if !has_asked_heirs && !self.members.has_heir(to.incarnation) {
                    has_asked_heirs = true;
                    self.ask_for_heirs(replicas).await;
                    continue;
                }
                tokio::time::sleep(RETRY_PAUSE).await;
            }
        }
    }

    /// Records the result of an attempt to forward a callback, and returns what to do next.
    fn after_attempt(
        &self,
        replicas: &Replicas,
        to: &Owner,
        sent: Result<MemberResponse, SendError>,
        began: Instant,
    ) -> Next {
        let (outcome, reason) = match sent {
            Ok(response) => match response.outcome {
                Outcome::Answered | Outcome::Refused => {
                    self.metrics.replica_request(response.outcome.name(), Some(began.elapsed()));
                    return Next::End(HandedOver::Response(Box::new(response)));
                }
                Outcome::Mistaken => {
                    self.members.replaced(to, instant());
                    ("mistaken", None)
                }
                Outcome::Moved => ("moved", None),
                Outcome::Stopping => ("stopping", Some("it is stopping".to_owned())),
                Outcome::Clock => ("unreachable", Some(SendError::Clock.to_string())),
            },
            Err(SendError::Mistaken(about)) => {
                self.members.replaced(to, instant());
                self.learned(about);
                ("mistaken", None)
            }
            Err(error @ (SendError::Busy(_) | SendError::Clock)) => ("unreachable", Some(error.to_string())),
            Err(error @ (SendError::NotSent(_) | SendError::Stranger)) => {
                let is_gone = self.members.refused(to, replicas.gone_after, instant());
                let is_late = !is_gone && began.elapsed() >= replicas.patience;
                ("unreachable", is_late.then(|| error.to_string()))
            }
            Err(error @ SendError::Unknown(_)) => ("unknown", Some(error.to_string())),
        };
        self.metrics.replica_request(outcome, None);
        match reason {
            Some(reason) => Next::End(HandedOver::Unreachable(format!("{}: {reason}", to.address))),
            None => Next::Again,
        }
    }

    /// Asks the other replicas whether they have received the interactions of a dead owner. Returns false if not all
    /// replicas responded.
    async fn find_heirs(self: &Arc<Self>, replicas: &Arc<Replicas>, owner: &Owner) -> bool {
        // Callbacks that arrive during the round wait here, and then use the responses of this round.
        let Ok(_permit) = self.finding_heirs.acquire().await else { return false };
        if self.members.heirs_are_known(owner.incarnation) {
            return true;
        }
        let has_just_failed = |at: Instant| instant().saturating_duration_since(at) < HEIRS_PAUSE;
        if self.heirs_not_found.lock().is_some_and(has_just_failed) {
            return false;
        }
        let is_complete = self.ask_all(replicas).await;
        *self.heirs_not_found.lock() = (!is_complete).then(instant);
        if is_complete {
            self.members.asked_for_heirs(owner.incarnation);
        }
        is_complete
    }

    /// Asks all other replicas to list the replicas from which they have received interactions. Asks at most once per
    /// [`HEIRS_PAUSE`].
    async fn ask_for_heirs(self: &Arc<Self>, replicas: &Arc<Replicas>) {
        // Callbacks that arrive during the round wait here, and then use the responses of this round.
        let Ok(_permit) = self.finding_heirs.acquire().await else { return };
        let is_recent = |at: Instant| instant().saturating_duration_since(at) < HEIRS_PAUSE;
        if !self.heirs_asked.lock().is_some_and(is_recent) {
            self.ask_all(replicas).await;
            *self.heirs_asked.lock() = Some(instant());
        }
    }

    /// Asks all replicas that are not dead to describe themselves. From the descriptions, this process learns which
    /// replica has received the interactions of which other replica. Returns whether every replica responded.
    async fn ask_all(self: &Arc<Self>, replicas: &Arc<Replicas>) -> bool {
        let mut asked = Vec::new();
        for Member { owner, .. } in self.members.all_but_gone(replicas.gone_after) {
            let (this, replicas) = (Arc::clone(self), Arc::clone(replicas));
            asked.push(tokio::spawn(async move {
                let answered = this.introduce(&replicas, &owner.address).await;
                if answered.as_ref().is_err_and(SendError::is_refusal) {
                    this.members.refused(&owner, replicas.gone_after, instant());
                }
                answered.is_ok() || this.members.is_gone(owner.incarnation, replicas.gone_after)
            }));
        }
        let mut is_complete = true;
        for one in asked {
            is_complete &= one.await.unwrap_or(false);
        }
        is_complete
    }
}
