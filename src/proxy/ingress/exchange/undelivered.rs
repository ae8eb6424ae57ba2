//! Responds to verified callbacks that are not delivered, and delivers requests on routes in observe mode.

use std::sync::Arc;

use bytes::Bytes;

use super::callback_exchange::CallbackExchange;
use super::request_log::{ExchangeRecord, Outcome};
use crate::clock::instant;
use crate::http::{Caller, head_of, response, set_traceparent};
use crate::ingress::{Denied, Halted, Observed, Route, Turned};
use crate::interaction::ClaimError;
use crate::proxy::ingress::deliver::{Delivery, deliver};

impl CallbackExchange<'_> {
    /// Responds to a verified callback that must not be delivered, for example a duplicate. On a route in observe mode,
    /// delivers the callback nevertheless.
    pub(super) async fn respond_undelivered(
        &mut self,
        caller: Caller<'_>,
        halted: Halted,
        body: Bytes,
    ) -> ExchangeRecord {
        let Halted { held, turned } = halted;
        let seen = match turned {
            Turned::Away(seen) => *seen,
            Turned::Observed(observed) => return self.deliver_observed(caller, *observed, body).await,
        };
        let route = seen.route.as_ref().map_or("none", |route| &route.name);
        let metrics = &self.context.recorder.metrics;
        let result = match held {
            ClaimError::Refused(refusal) => {
                return self.deny(Denied { denial: refusal.denial, seen }, 0).await;
            }
            ClaimError::Duplicate => {
                metrics.duplicate(route);
                "duplicate"
            }
            ClaimError::Stale => {
                metrics.stale(route, "dropped");
                "stale"
            }
        };
        let verifier = seen.route.as_deref().and_then(Route::verifier);
        let status = verifier.and_then(|verifier| verifier.scheme().acknowledge).unwrap_or(200);
        let was_written = response::acknowledge(self.session, status, result).await;
        let sent = if was_written { status } else { 0 };
        ExchangeRecord::responded(seen, Outcome::Allowed(result), sent, was_written)
    }

    /// Delivers a request that would be denied in enforce mode, because the route of the request is in observe mode.
    pub(super) async fn deliver_observed(
        &mut self,
        caller: Caller<'_>,
        observed: Observed,
        body: Bytes,
    ) -> ExchangeRecord {
        let (context, agent) = (self.context, Arc::clone(&observed.route().agent));
        let client = context.agents.client(&agent);
        let began = instant();
        set_traceparent(self.session, self.span);
        let delivery = Delivery::observed(&observed, &head_of(self.session, caller), body);
        let outcome = Outcome::Observed(observed.instead(), observed.denials().to_vec());
        let seen = observed.into_seen();
        context.fetcher.want(&seen);
        let metrics = &context.recorder.metrics;
        let mut end = match deliver(metrics, &client, &agent, delivery, began).await {
            Ok(response) => self.relay(&client, &agent, response, seen, outcome).await,
            Err(denial) => self.deny(Denied { denial, seen }, 0).await,
        };
        end.delivery_duration = end.ended_at.saturating_duration_since(began);
        end
    }
}
