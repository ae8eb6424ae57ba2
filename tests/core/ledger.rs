//! A ledger without threads, clocks and files, made of the state machine of interactions. The real ledger in `src/store`
//! uses the same state machine.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use callgate::config::{StoreSettings, Unknown};
use callgate::denial::{Denial, Refusal};
use callgate::ingress::{Permit, Verified};
use callgate::interaction::{Ask, Claim, ClaimError, Cleared, EventKey, Interaction, pairs};
use callgate::time::Timestamp;
use callgate::token::Granted;

use super::case::{Ledger, Verdict};

/// The interactions by id with their delivered events, and the delivered events without an interaction, each with the end
/// of its retention.
pub struct PureLedger {
    unknown: Unknown,
    remember: Duration,
    interactions: HashMap<Box<str>, Interaction>,
    delivered: HashSet<(Box<str>, EventKey)>,
    events: HashMap<EventKey, Timestamp>,
}

impl PureLedger {
    pub fn new(settings: &StoreSettings) -> Self {
        Self {
            unknown: settings.unknown,
            remember: settings.remember,
            interactions: HashMap::new(),
            delivered: HashSet::new(),
            events: HashMap::new(),
        }
    }

    /// Returns the claim of a callback that may be delivered. `None`: the callback has no interaction.
    fn claim(&mut self, ask: &Ask<'_>, at: Timestamp) -> Result<Option<Claim>, ClaimError> {
        let Some(granted) = ask.granted else {
            let known = |key: &EventKey| self.events.get(key).is_some_and(|until| *until > at);
            return if ask.events.iter().any(known) { Err(ClaimError::Duplicate) } else { Ok(None) };
        };
        if !self.interactions.contains_key(&granted.interaction) {
            let adopted = self.adopt(ask, granted, at)?;
            self.interactions.insert(granted.interaction.clone(), adopted);
        }
        let interaction = self.interactions.get_mut(&granted.interaction).unwrap();
        let known = |key| self.delivered.contains(&(granted.interaction.clone(), key));
        Ok(Some(interaction.claim(ask, at, known)?.expect("nothing else is being delivered")))
    }

    fn adopt(&self, ask: &Ask<'_>, granted: &Granted, at: Timestamp) -> Result<Interaction, ClaimError> {
        let denied = |denial| Err(ClaimError::Refused(Refusal::new(denial, "in the pure ledger")));
        if self.unknown == Unknown::Refuse {
            return denied(Denial::InteractionUnknown);
        }
        let captures = pairs(ask.captures.iter());
        let interaction = Interaction::new(Arc::clone(ask.route), captures, granted.issued, granted.expires);
        let interaction = interaction.followed(ask.follow, ask.notifies).limited(granted.uses);
        if at >= interaction.deadline() {
            return denied(Denial::InteractionOver);
        }
        Ok(interaction)
    }
}

impl Ledger for PureLedger {
    fn ask(
        &mut self,
        verified: Box<Verified>,
        at: Timestamp,
        delivers: bool,
        apply: impl FnOnce(Box<Verified>, Result<Cleared, ClaimError>) -> Result<Permit, Verdict>,
    ) -> Verdict {
        let ask = verified.ask();
        let repeats = ask.granted.map_or(&[] as &[_], |_| ask.repeats);
        let (events, id) =
            ([ask.events, repeats].concat(), ask.granted.map(|granted| granted.interaction.clone()));
        let claimed = self.claim(&ask, at);
        let cleared = |claim: &Option<Claim>| match claim {
            Some(claim) => Cleared::by_the_ledger(claim.question, claim.stale),
            None => Cleared::by_the_ledger(None, false),
        };
        let ruling = claimed.as_ref().map(cleared).map_err(Clone::clone);
        let permit = match apply(verified, ruling) {
            Ok(permit) => permit,
            Err(verdict) => return verdict,
        };
        let event_id = permit.event_id().map(|id| id.to_str().unwrap());
        match (id.as_ref().and_then(|id| self.interactions.get_mut(id)), claimed.unwrap()) {
            (Some(interaction), Some(claim)) if delivers => {
                // Nothing is forgotten here, so no fingerprint is needed.
                interaction.settle(&claim, permit.report(), event_id, at, |_| 0);
                self.delivered
                    .extend(id.into_iter().flat_map(|id| events.iter().map(move |key| (id.clone(), *key))));
            }
            (Some(interaction), Some(claim)) => interaction.release(&claim),
            _ if delivers => {
                self.events.extend(events.into_iter().map(|event| (event, at.plus(self.remember))));
            }
            _ => {}
        }
        Verdict::allowed(permit)
    }
}
