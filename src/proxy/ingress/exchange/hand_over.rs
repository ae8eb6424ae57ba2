//! Forwards a verified callback to the replica that owns the interaction of the callback.

use std::sync::Arc;

use bytes::Bytes;

use super::callback_exchange::CallbackExchange;
use super::request_log::{ExchangeRecord, Outcome};
use crate::clock::instant;
use crate::denial::{Denial, Refusal};
use crate::http::{Caller, RelayError, head_of, response};
use crate::ingress::{Denied, Verified};
use crate::interaction::ClaimError;
use crate::proxy::replicas::{Acceptance, HandedOver, MemberResponse, Place, Sending};
use crate::replica::{Gone, Owner, Replicas, Vouched};
use crate::replica::{Outcome as MemberOutcome, REPLICA};
use crate::trail::{Check, Trail};

/// The callback if this process must deliver the callback. Otherwise the result of the request for the log, because
/// another replica has responded or the callback was denied.
type Found = Result<Box<Verified>, Box<ExchangeRecord>>;

impl CallbackExchange<'_> {
    /// Finds the owner of the callback's interaction. If the owner is another process, forwards the callback and relays
    /// the response. Returns the callback if this process must deliver the callback. Otherwise returns the log
    /// record of the forwarded request.
    pub(super) async fn find_owner(
        &mut self,
        verified: Box<Verified>,
        caller: Caller<'_>,
        body: &Bytes,
        trail: &mut Trail,
    ) -> Result<Box<Verified>, Box<ExchangeRecord>> {
        let context = self.context;
        let (Some(replication), Some(replicas)) = (&context.replication, self.policy.replicas.clone()) else {
            return Ok(verified);
        };
        let (interaction, owner) = match self.owner_of(&replicas, &verified).await {
            Ok(Some(found)) => found,
            Ok(None) => return Ok(verified),
            Err(refusal) => {
                return self.refuse(verified, (refusal.denial, refusal.detail.into_owned()), trail).await;
            }
        };
        let interaction = &*interaction;
        if self.origin.is_member() {
            // A forwarded callback is not forwarded again. If another replica has the interaction, the response has the
            // outcome `Moved`, and the sender forwards the callback to another replica.
            return match replication.accepts(&replicas, &owner, interaction).await {
                Acceptance::Here => Ok(verified),
                Acceptance::Gone => {
                    self.without_owner(&replicas, (interaction, &owner), verified, trail).await
                }
                Acceptance::Moved => {
                    self.session.set_outcome(MemberOutcome::Moved);
                    let detail = "the interaction was handed over to another member".to_owned();
                    self.refuse(verified, (Denial::ReplicaMistaken, detail), trail).await
                }
                Acceptance::Unknown(detail) => {
                    self.refuse(verified, (Denial::OwnerUnreachable, detail), trail).await
                }
            };
        }
        match replication.place(&replicas, &owner, interaction, &[]) {
            Place::Here => Ok(verified),
            Place::Member(_) | Place::Gone | Place::Nowhere => {
                self.hand_over(&replicas, (interaction, &owner), (verified, caller), body, trail).await
            }
        }
    }

    /// Returns the interaction of a callback and its owner. A shared ledger has precedence over the owner in the token,
    /// because another replica may have adopted the interaction since the token was minted. Returns `None` if neither
    /// the ledger nor the token contains an owner.
    ///
    /// # Errors
    /// Returns the denial if the owner cannot be determined.
    async fn owner_of(
        &self,
        replicas: &Replicas,
        verified: &Verified,
    ) -> Result<Option<(Box<str>, Owner)>, Refusal> {
        let store = &self.context.store;
        if store.is_shared() {
            let ask = verified.ask();
            let interaction: Option<Box<str>> = match ask.interaction() {
                Some(interaction) => Some(interaction.into()),
                None => store.matched(&ask).await?.map(|interaction| (*interaction).into()),
            };
            let Some(interaction) = interaction else { return Ok(None) };
            if let Some(owner) = store.shared_owner(&interaction).await? {
                return Ok(Some((interaction, owner)));
            }
        }
        let Some((interaction, sealed)) = verified.owner() else { return Ok(None) };
        match replicas.sealer.open(sealed, interaction) {
            Some(owner) => Ok(Some((interaction.into(), owner))),
            None => {
                let detail = "none of `replicas.secrets` decrypts the owner in the token";
                Err(Refusal::new(Denial::OwnerUnreachable, detail))
            }
        }
    }

    async fn hand_over(
        &mut self,
        replicas: &Arc<Replicas>,
        (interaction, owner): (&str, &Owner),
        (verified, caller): (Box<Verified>, Caller<'_>),
        body: &Bytes,
        trail: &mut Trail,
    ) -> Found {
        let Some(replication) = &self.context.replication else { return Ok(verified) };
        let began = instant();
        let handed_over = {
            let head = head_of(self.session, caller);
            let write_head = |proof: &str| verified.write_for_member(&head, body, proof);
            let client = Vouched {
                address: verified.client(),
                is_tls: head.is_tls,
                certificate: head.certificate.cloned(),
            };
            let callback = Sending {
                method: head.method,
                target: head.target,
                client: Some(client),
                body: body.clone(),
                write_head: Some(&write_head),
            };
            replication.hand_over(replicas, owner, interaction, &callback).await
        };
        match handed_over {
            HandedOver::Here => Ok(verified),
            HandedOver::Gone => self.without_owner(replicas, (interaction, owner), verified, trail).await,
            HandedOver::Unreachable(detail) => {
                self.refuse(verified, (Denial::OwnerUnreachable, detail), trail).await
            }
            HandedOver::Response(response) => {
                trail.skip(Check::Duplicate, "not checked, because another member owns the interaction");
                trail.pass(Check::Interaction, || "handed over to its owner".to_owned());
                let member = response.client().agent().authority().into();
                let mut end = self.relay_from_member(*response, verified).await;
                end.member = Some(member);
                end.delivery_duration = end.ended_at.saturating_duration_since(began);
                Err(Box::new(end))
            }
        }
    }

    async fn relay_from_member(&mut self, member: MemberResponse, verified: Box<Verified>) -> ExchangeRecord {
        let client = member.client();
        let mut response = member.response;
        response.set_header(&REPLICA, None);
        let status = response.status().as_u16();
        let seen = verified.into_seen();
        let reuse = |connection| MemberResponse::keep(&client, connection);
        let limits = &self.policy.limits;
        let outcome = Outcome::Allowed("handed_over");
        match response::relay(self.session, &mut response, Bytes::new(), limits, reuse).await {
            Ok(()) => ExchangeRecord::responded(seen, outcome, status, true),
            Err(RelayError::Upstream(_)) => {
                let denied = Outcome::Denied(Denial::OwnerUnreachable);
                ExchangeRecord::responded(seen, denied, status, false)
            }
            Err(RelayError::Caller) => ExchangeRecord::responded(seen, outcome, 0, false),
        }
    }

    /// Applies the setting `replicas.gone` to a callback of an interaction whose owner is dead.
    async fn without_owner(
        &mut self,
        replicas: &Replicas,
        (interaction, owner): (&str, &Owner),
        mut verified: Box<Verified>,
        trail: &mut Trail,
    ) -> Found {
        let Some(replication) = &self.context.replication else { return Ok(verified) };
        let detail = format!("the process at {} that minted the token is gone", owner.address);
        let (did, denial) = match replicas.gone {
            Gone::Any => ("adopted", None),
            Gone::Refuse => ("refused", Some(Denial::OwnerGone)),
            Gone::Retry => ("retry", Some(Denial::OwnerUnreachable)),
        };
        replication.owner_gone(did);
        match denial {
            None => {
                replication.log_adoption(owner, interaction);
                verified.adopt_without_owner();
                Ok(verified)
            }
            Some(denial) => self.refuse(verified, (denial, detail), trail).await,
        }
    }

    async fn refuse(
        &mut self,
        verified: Box<Verified>,
        (denial, detail): (Denial, String),
        trail: &mut Trail,
    ) -> Found {
        let refused = ClaimError::Refused(Refusal::new(denial, detail));
        let end = match verified.permit(Err(refused), trail) {
            Ok(permit) => self.deny(Denied { denial, seen: permit.into_seen() }, 0).await,
            Err(halted) => match halted.turned {
                crate::ingress::Turned::Away(seen) => self.deny(Denied { denial, seen: *seen }, 0).await,
                crate::ingress::Turned::Observed(observed) => {
                    self.deny(Denied { denial, seen: observed.into_seen() }, 0).await
                }
            },
        };
        Err(Box::new(end))
    }
}
