//! The last step of the gate: the verdict of the ledger on a verified callback, and the permit to deliver the callback.

use std::net::IpAddr;
use std::sync::Arc;

use http::HeaderValue;

use super::decide::{Admitted, Seen};
use super::edge::Edge;
use super::observed::{Observed, Turned};
use super::route::Route;
use crate::denial::Denial;
use crate::interaction::{Ask, ClaimError, Cleared, EventKey, Report};
use crate::trail::{Check, Trail};

/// A request that passed all checks of its head and its body. The ledger has not checked the request yet.
#[derive(Debug)]
pub struct Verified {
    pub(super) admitted: Box<Admitted>,
    pub(super) target: String,
    pub(super) report: Report,
    pub(super) events: Vec<EventKey>,
    pub(super) repeats: Vec<EventKey>,
    pub(super) event_id: Option<HeaderValue>,
    /// Whether the process that minted the token is dead, so that this process takes over the interaction.
    pub(super) owner_is_gone: bool,
}

/// The proof that a request passed all checks, including the check by the ledger. Only [`Verified::permit`] can create
/// this value. The code that delivers a callback requires it.
#[derive(Debug)]
pub struct Permit {
    verified: Box<Verified>,
    cleared: Cleared,
}

/// A verified callback that gets no permit, because the ledger does not allow its delivery.
#[derive(Debug)]
pub struct Halted {
    /// The reason for which the ledger does not allow the delivery.
    pub held: ClaimError,
    /// What Callgate does with the request: it is denied, or delivered because its route is in observe mode.
    pub turned: Turned,
}

impl Verified {
    /// Returns the route.
    pub fn route(&self) -> &Arc<Route> {
        &self.admitted.route
    }

    /// Returns the internal request target (path and query at the agent).
    pub fn target(&self) -> &str {
        &self.target
    }

    /// Returns the client address.
    pub fn client(&self) -> IpAddr {
        self.admitted.client
    }

    /// Returns the id and the encrypted owner of the interaction, both from the token. The owner is the process that
    /// minted the token. Returns `None` if the token names no owner.
    pub fn owner(&self) -> Option<(&str, &str)> {
        let granted = self.admitted.found.granted.as_ref()?;
        Some((&granted.interaction, granted.owner.as_deref()?))
    }

    /// Records the id of the interaction that the ledger found for the callback. Has no effect if the token names an
    /// interaction.
    pub fn belongs_to(&mut self, interaction: Option<&str>) {
        if self.admitted.found.granted.is_none() {
            self.admitted.found.matched = interaction.map(Into::into);
        }
    }

    /// Records that the process that minted the token is dead, so that the ledger creates a record for the interaction.
    pub fn adopt_without_owner(&mut self) {
        self.owner_is_gone = true;
    }

    /// Returns the data about this request for the log and the metrics.
    pub fn into_seen(self) -> Seen {
        self.admitted.into_seen()
    }

    /// Returns the values of this callback that the ledger needs for its check.
    pub fn ask(&self) -> Ask<'_> {
        let route = self.route();
        Ask {
            route: &route.name,
            provider: route.provider.as_ref().map(|provider| &provider.name),
            captures: &self.admitted.captures,
            granted: self.admitted.found.granted.as_ref(),
            matched: None,
            events: &self.events,
            repeats: &self.repeats,
            replay_window: route.verifier().and_then(|verifier| verifier.scheme().replay_window()),
            event_id: self.event_id.as_ref().and_then(|id| id.to_str().ok()),
            follow: &route.follow,
            notifies: route.notify.is_some(),
            adopts: self.owner_is_gone,
            delivery_max: self.route().agent.patience(),
            report: &self.report,
        }
    }

    /// Denies the request although its checks have passed, for example because of a rate limit. On a route in observe
    /// mode, the request is delivered nevertheless.
    fn turned_away(mut self, denial: Denial) -> Turned {
        self.admitted.found.observed.push(denial);
        self.turned(denial.code())
    }

    fn turned(self, instead: &'static str) -> Turned {
        match self.admitted.route.observes() {
            true => {
                Turned::Observed(Box::new(Observed { admitted: self.admitted, target: self.target, instead }))
            }
            false => Turned::Away(Box::new(self.admitted.into_seen())),
        }
    }

    fn halted(mut self, held: ClaimError) -> Halted {
        let instead = match &held {
            ClaimError::Duplicate => "duplicate",
            ClaimError::Stale => "stale",
            ClaimError::Refused(refusal) => {
                self.admitted.found.observed.push(refusal.denial);
                refusal.denial.code()
            }
        };
        Halted { held, turned: self.turned(instead) }
    }

    /// Applies the verdict of the ledger to the verified callback.
    ///
    /// # Errors
    /// Returns [`Halted`] if the ledger does not allow the delivery.
    pub fn permit(
        self: Box<Self>,
        ruling: Result<Cleared, ClaimError>,
        trail: &mut Trail,
    ) -> Result<Permit, Box<Halted>> {
        let in_flight =
            |held: &ClaimError| matches!(held, ClaimError::Refused(r) if r.denial == Denial::EventInFlight);
        match &ruling {
            Err(ClaimError::Duplicate) => trail.hold(Check::Duplicate, "the event was already delivered"),
            Err(held @ ClaimError::Refused(refusal)) if in_flight(held) => {
                trail.deny(Check::Duplicate, refusal.denial, || refusal.detail.to_string());
            }
            Err(ClaimError::Refused(refusal)) if !knows_events(refusal.denial) => {
                trail.skip(Check::Duplicate, "not checked, because the ledger denied the callback first");
            }
            _ if self.events.is_empty() => trail.skip(
                Check::Duplicate,
                "the route delivers duplicates, or nothing tells this event apart from others",
            ),
            _ => trail.pass(Check::Duplicate, || "the event was not delivered before".to_owned()),
        }
        match &ruling {
            Err(ClaimError::Duplicate) => {}
            Err(held) if in_flight(held) => {}
            Err(ClaimError::Stale) => trail
                .hold(Check::Interaction, "the progress is lower than before, or the interaction has ended"),
            Err(ClaimError::Refused(refusal)) => {
                trail.deny(Check::Interaction, refusal.denial, || refusal.detail.to_string());
            }
            Ok(_) if self.admitted.found.interaction().is_none() => {
                trail.skip(Check::Interaction, "the token names no interaction");
            }
            Ok(cleared) if cleared.is_stale() => {
                trail.pass(Check::Interaction, || {
                    "the progress is out of order; the route delivers it".to_owned()
                });
            }
            Ok(_) => trail.pass(Check::Interaction, || "open".to_owned()),
        }
        match ruling {
            Ok(cleared) => Ok(Permit { verified: self, cleared }),
            Err(held) => Err(Box::new(self.halted(held))),
        }
    }
}

/// Reports whether the ledger checks for a duplicate before it denies a callback for the reason `denial`.
fn knows_events(denial: Denial) -> bool {
    !matches!(denial, Denial::InteractionUnknown | Denial::StoreFull | Denial::StoreUnavailable)
}

impl Permit {
    /// Denies the callback although it has a permit, for example because of a rate limit. On a route in observe mode,
    /// the callback is delivered nevertheless.
    pub fn turned_away(self, denial: Denial) -> Turned {
        self.verified.turned_away(denial)
    }

    /// Returns the route.
    pub fn route(&self) -> &Arc<Route> {
        self.verified.route()
    }

    /// Returns the client address.
    pub fn client(&self) -> IpAddr {
        self.verified.admitted.client
    }

    /// Returns the id of the interaction that the callback belongs to, if there is one.
    pub fn interaction(&self) -> Option<&str> {
        self.verified.admitted.found.interaction()
    }

    /// Returns the provider's event id, if the provider sends one.
    pub fn event_id(&self) -> Option<&HeaderValue> {
        self.verified.event_id.as_ref()
    }

    /// Reports whether the process that minted the token is dead.
    pub(super) fn owner_is_gone(&self) -> bool {
        self.verified.owner_is_gone
    }

    /// Returns the number that the ledger assigned to the question in this callback. Returns `None` if the callback
    /// asks no question.
    pub(super) fn question(&self) -> Option<u32> {
        self.cleared.question()
    }

    /// Returns the status, the progress and the other values that the callback reports.
    pub fn report(&self) -> &Report {
        &self.verified.report
    }

    /// Returns the internal request target (path and query at the agent).
    pub fn target(&self) -> &str {
        &self.verified.target
    }

    /// Takes the decoded body, which the agent receives instead of the received body. Returns `None` if the body was
    /// not decoded, or if the route is in observe mode, in which the agent receives the request unchanged.
    pub fn take_decoded_body(&mut self) -> Option<Vec<u8>> {
        let admitted = &mut self.verified.admitted;
        admitted.delivers_decoded().then(|| std::mem::take(&mut admitted.found.decoded))
    }

    /// Reports whether the agent receives the decoded body instead of the received body.
    pub(super) fn delivers_decoded(&self) -> bool {
        self.verified.admitted.delivers_decoded()
    }

    /// Returns the settings that all routes share.
    pub(super) fn edge(&self) -> &Edge {
        &self.verified.admitted.edge
    }

    /// Returns the request with the results of the checks of its head.
    pub(super) fn admitted(&self) -> &Admitted {
        &self.verified.admitted
    }

    /// Returns the data about this callback for the log and the metrics.
    pub fn into_seen(self) -> Seen {
        self.verified.admitted.into_seen()
    }
}
