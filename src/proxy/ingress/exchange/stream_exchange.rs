//! One request on a route with `stream: true`: passes the request on while it arrives, and relays the response.

use std::sync::Arc;

use bytes::Bytes;

use super::callback_exchange::CallbackExchange;
use super::request_log::{ExchangeRecord, Outcome};
use crate::clock::instant;
use crate::denial::Denial;
use crate::http::client::{StreamFault, UpstreamResponse};
use crate::http::{Caller, RelayError, discard_unread_body, head_of, response, set_traceparent};
use crate::ingress::{Admitted, Denied, Seen, Streamed};
use crate::proxy::agent_client::AgentClient;
use crate::proxy::ingress::deliver::deliver_streaming;
use crate::token::Stamp;
use crate::trail::{Check, Trail};

impl CallbackExchange<'_> {
    /// Passes a request on to the agent while the body arrives. On a route with `stream: true`, only the request head
    /// is checked.
    pub(super) async fn pass_on(
        &mut self,
        caller: Caller<'_>,
        admitted: Box<Admitted>,
        trail: &mut Trail,
    ) -> ExchangeRecord {
        let permitted = admitted.stream(&head_of(self.session, caller), trail);
        let streamed = match permitted.and_then(|streamed| self.check_stream_rate(streamed, trail)) {
            Ok(streamed) => streamed,
            Err(denied) => return self.deny(*denied, 0).await,
        };
        let agent = Arc::clone(&streamed.route().agent);
        let client = self.context.agents.client(&agent);
        let slot = match self.policy.limits.requests_share(self.policy.agents.len()) {
            None => None,
            Some(max) => match client.share.slot(max) {
                Some(slot) => Some(slot),
                None => {
                    let denial = Denial::Overloaded;
                    trail.deny(Check::Body, denial, || denial.help().to_owned());
                    return self.deny(Denied { denial, seen: streamed.into_seen() }, 0).await;
                }
            },
        };
        let began = instant();
        set_traceparent(self.session, self.span);
        let stamp = Stamp { id: self.request_id, now: self.context.clocks.now() };
        let (limits, metrics) = (&self.policy.limits, &self.context.recorder.metrics);
        let (answered, bytes) =
            deliver_streaming(metrics, &client, &streamed, (self.session, caller), stamp, limits).await;
        let delivery_duration = instant().saturating_duration_since(began);
        let seen = streamed.into_seen();
        let mut end = match answered {
            Ok(Some(response)) => self.relay_stream(&client, response, seen).await,
            // The caller closed the connection before the agent responded.
            Ok(None) => ExchangeRecord::responded(seen, Outcome::Allowed("stream"), 0, false),
            Err(StreamFault::Body(denial)) => {
                trail.deny(Check::Body, denial, || denial.help().to_owned());
                self.deny(Denied { denial, seen }, bytes).await
            }
            Err(StreamFault::Response(fault)) => {
                self.deny(Denied { denial: fault.agent_denial(), seen }, bytes).await
            }
        };
        drop(slot);
        // A response may last for hours, so the recorded time ends when the response head arrives.
        end.delivery_duration = delivery_duration;
        end.body_bytes = bytes;
        end
    }

    /// Applies the `rate` of a route with `stream: true`.
    fn check_stream_rate(&self, streamed: Streamed, trail: &mut Trail) -> Result<Streamed, Box<Denied>> {
        let route = streamed.route();
        match route.rate {
            Some(rate) if !self.context.rate_limits.allow_route(&route.name, rate) => {
                let denial = Denial::RouteBusy;
                trail.deny(Check::Rate, denial, || "more than the route's `rate`".to_owned());
                Err(Box::new(Denied { denial, seen: streamed.into_seen() }))
            }
            _ => Ok(streamed),
        }
    }

    async fn relay_stream(
        &mut self,
        client: &AgentClient,
        mut response: UpstreamResponse,
        seen: Seen,
    ) -> ExchangeRecord {
        let status = response.status().as_u16();
        let idle_timeout = seen.route.as_ref().map(|route| route.agent.idle_timeout);
        let reuse = |connection| {
            if let Some(idle_timeout) = idle_timeout {
                client.keep(idle_timeout, connection, instant());
            }
        };
        let outcome = Outcome::Allowed("stream");
        let relayed =
            response::relay(self.session, &mut response, Bytes::new(), &self.policy.limits, reuse).await;
        match relayed {
            Ok(()) => {
                discard_unread_body(self.session).await;
                ExchangeRecord::responded(seen, outcome, status, true)
            }
            Err(RelayError::Upstream(fault)) => {
                ExchangeRecord::responded(seen, Outcome::Denied(fault.agent_denial()), status, false)
            }
            Err(RelayError::Caller) => ExchangeRecord::responded(seen, outcome, 0, false),
        }
    }
}
