//! What is left of a verified callback: the ledger's word, and with it the permit to deliver.

use std::net::IpAddr;
use std::sync::Arc;

use http::{HeaderName, HeaderValue};

use super::decide::{Admitted, Seen};
use super::observed::{Observed, Turned};
use super::route::Route;
use crate::denial::Denial;
use crate::interaction::{Ask, Cleared, EventKey, FIRST_QUESTION, Held, Report};
use crate::json::{find_one, quoted, replace};
use crate::trail::{Check, Trail};

/// A request that every check passed which needs no memory: what is left is to ask the ledger.
#[derive(Debug)]
pub struct Verified {
    pub(super) admitted: Box<Admitted>,
    pub(super) target: String,
    pub(super) report: Report,
    pub(super) events: Vec<EventKey>,
    pub(super) event_id: Option<HeaderValue>,
}

/// The proof that every check of a route's gate passed and that the ledger had nothing against it. It is made
/// in one place, by [`Verified::permit`], and delivering takes one.
#[derive(Debug)]
pub struct Permit {
    verified: Box<Verified>,
    cleared: Cleared,
}

/// A verified callback that is not delivered.
#[derive(Debug)]
pub struct Halted {
    /// Why.
    pub held: Held,
    /// What becomes of it.
    pub turned: Turned,
}

impl Verified {
    /// The route.
    pub fn route(&self) -> &Arc<Route> {
        &self.admitted.route
    }

    /// The internal request target.
    pub fn target(&self) -> &str {
        &self.target
    }

    /// What the ledger is to be asked.
    pub fn ask(&self) -> Ask<'_> {
        let route = self.route();
        Ask {
            route: &route.name,
            provider: route.provider.as_ref().map(|provider| &provider.name),
            captures: &self.admitted.captures,
            granted: self.admitted.found.granted.as_ref(),
            events: &self.events,
            event_id: self.event_id.as_ref().and_then(|id| id.to_str().ok()),
            follow: &route.follow,
            notifies: route.notify.is_some(),
            report: &self.report,
        }
    }

    /// What becomes of it where it is refused after all.
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

    fn halted(mut self, held: Held) -> Halted {
        let instead = match &held {
            Held::Duplicate => "duplicate",
            Held::Stale => "stale",
            Held::Refused(refusal) => {
                self.admitted.found.observed.push(refusal.denial);
                refusal.denial.code()
            }
        };
        Halted { held, turned: self.turned(instead) }
    }

    /// Decides by what the ledger answered.
    ///
    /// # Errors
    /// [`Halted`] when it holds the callback back.
    pub fn permit(
        self: Box<Self>,
        ruling: Result<Cleared, Held>,
        trail: &mut Trail,
    ) -> Result<Permit, Box<Halted>> {
        let in_flight = |held: &Held| matches!(held, Held::Refused(r) if r.denial == Denial::EventInFlight);
        match &ruling {
            Err(Held::Duplicate) => trail.hold(Check::Duplicate, "the event was delivered before"),
            Err(held @ Held::Refused(refusal)) if in_flight(held) => {
                trail.deny(Check::Duplicate, refusal.denial, || refusal.detail.to_string());
            }
            Err(Held::Refused(refusal)) if !knows_events(refusal.denial) => {
                trail.skip(Check::Duplicate, "the ledger could not tell");
            }
            _ if self.events.is_empty() => trail.skip(Check::Duplicate, "nothing to tell a duplicate by"),
            _ => trail.pass(Check::Duplicate, || "not delivered before".to_owned()),
        }
        match &ruling {
            Err(Held::Duplicate) => {}
            Err(held) if in_flight(held) => {}
            Err(Held::Stale) => trail.hold(Check::Interaction, "the progress is overtaken"),
            Err(Held::Refused(refusal)) => {
                trail.deny(Check::Interaction, refusal.denial, || refusal.detail.to_string());
            }
            Ok(_) if self.admitted.found.granted.is_none() => {
                trail.skip(Check::Interaction, "the token names no interaction");
            }
            Ok(cleared) if cleared.is_stale() => {
                trail.pass(Check::Interaction, || {
                    "the progress is overtaken, and delivered all the same".to_owned()
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

/// Whether a ledger that refuses so has looked for the event.
fn knows_events(denial: Denial) -> bool {
    !matches!(denial, Denial::InteractionUnknown | Denial::StoreFull | Denial::StoreUnavailable)
}

impl Permit {
    /// What becomes of it where it is not delivered after all.
    pub fn turned_away(self, denial: Denial) -> Turned {
        self.verified.turned_away(denial)
    }

    /// The route whose gate was passed.
    pub fn route(&self) -> &Arc<Route> {
        self.verified.route()
    }

    /// Who called.
    pub fn client(&self) -> IpAddr {
        self.verified.admitted.client
    }

    /// The interaction, where the token names one.
    pub fn interaction(&self) -> Option<&str> {
        self.verified.admitted.found.granted.as_ref().map(|granted| &*granted.interaction)
    }

    /// The provider's id of this event, where it sends one.
    pub fn event_id(&self) -> Option<&HeaderValue> {
        self.verified.event_id.as_ref()
    }

    /// The number of the question that the callback asks, where it asks one.
    pub(super) fn question(&self) -> Option<u32> {
        self.cleared.question()
    }

    /// What the body reports.
    pub fn report(&self) -> &Report {
        &self.verified.report
    }

    /// The internal request target.
    pub fn target(&self) -> &str {
        &self.verified.target
    }

    /// The body with the action endpoint replaced by a local URL below `local`, where the route says so; `None`
    /// where the agent gets the body as it came.
    pub fn rewritten(&self, body: &[u8], local: &str) -> Option<String> {
        let actions = self.route().actions.as_ref().filter(|actions| actions.rewrite)?;
        let number = self.cleared.question()?;
        let text = std::str::from_utf8(body).ok()?;
        let old = find_one(body, &actions.pointer).raw()?;
        let interaction = self.interaction()?;
        // An answer belongs to the question at whose address it comes, whatever else is open.
        let url = match number {
            FIRST_QUESTION => format!("{local}{interaction}"),
            _ => format!("{local}{interaction}/{number}"),
        };
        Some(replace(text, old, &quoted(&url)))
    }

    /// The `Host` the agent sees, whatever the caller sent.
    pub(super) fn authority(&self) -> &str {
        &self.verified.admitted.edge.authority
    }

    /// The header in which trusted proxies tell the client address, which nobody else may set.
    pub(super) fn address_header(&self) -> Option<HeaderName> {
        self.verified.admitted.edge.client_address.as_ref().map(|rule| rule.header.name())
    }

    /// The verified token, which is not passed on wherever it stands.
    pub(super) fn token(&self) -> Option<&[u8]> {
        self.verified.admitted.token()
    }

    /// What is known of the request.
    pub fn into_seen(self) -> Seen {
        self.verified.admitted.into_seen()
    }
}
