//! Passes on requests of the agent without inserting a callback URL. The body is sent while it arrives, and a
//! connection can be switched to WebSocket.

use std::time::Duration;

use bytes::Bytes;
use http::{Method, StatusCode};

use super::agent_exchange::{AgentExchange, INTERACTION, NO_CALLBACK};
use super::provider_client::{Guarded, ProviderResponse, SendError, Timeouts};
use super::request_log::ExchangeEnd;
use crate::denial::Refusal;
use crate::egress::{Rule, Unchanged};
use crate::framing::is_same_header;
use crate::http::client::{Message, Upload};
use crate::http::{CLOSE_TIMEOUT, RelayError, head_of, lingering_close, relay_websocket};
use crate::path::Captures;

impl AgentExchange<'_> {
    /// Sends the agent's request unchanged to the provider and relays the response.
    pub(super) async fn pass_on(&mut self, rule: &Rule, captures: &Captures) -> ExchangeEnd {
        let head = head_of(self.session, self.caller);
        let expects_body = head.method != Method::HEAD.as_str();
        let card = rule.card_place(&head, b"");
        let unchanged = match rule.unchanged(&head, self.session.version(), captures) {
            Ok(unchanged) => unchanged,
            Err(refusal) => return self.deny(refusal, &[]).await,
        };
        if rule.inject.is_some() {
            self.details.detail = Some(NO_CALLBACK.to_owned());
        }
        let Unchanged { url, head, is_chunked, is_upgrade } = unchanged;
        let timeouts = Timeouts { connect: rule.connect_timeout, response: rule.response_timeout };
        let providers = self.context.providers.load_full();
        let guarded = self.guard.map(|guard| Guarded { guard, agents: &self.policy.agents });
        let declared = head_of(self.session, self.caller).body_bytes_declared;
        let sent = if self.session.has_no_body() {
            let message = Message::new(head, Bytes::new(), expects_body).with_upgrade(is_upgrade);
            let sent = self.session.unless_closed(providers.send(&url, guarded, message, timeouts)).await;
            sent.transpose()
        } else {
            let skip = |name: &str| rule.headers.iter().any(|(ours, _)| is_same_header(ours.as_str(), name));
            let mut upload = Upload {
                session: self.session,
                length: declared.filter(|_| !is_chunked),
                bytes_max: rule.body_bytes_max,
                limits: &self.policy.limits,
                // There is no total deadline for the body: the body is not held in memory, so its size is not limited,
                // and a large body may take long.
                deadline: Duration::MAX,
                skip_trailer: &skip,
                bytes: 0,
            };
            let sent =
                providers.send_streamed(&url, guarded, head, &mut upload, expects_body, timeouts).await;
            self.details.body_bytes = upload.bytes;
            sent
        };
        match sent {
            Ok(None) => ExchangeEnd { outcome: Ok("ok"), status: 0, reusable: false },
            Ok(Some(mut provider_response)) => {
                let local = |location: &str| rule.local_location(location, &url, captures);
                self.keep_location_local(&mut provider_response, &url, local);
                if provider_response.response.status() == StatusCode::SWITCHING_PROTOCOLS {
                    return self.relay_websocket(provider_response).await;
                }
                provider_response.response.keep_trailers();
                let sent = (&url, captures);
                let body_start = self.localize_card(rule, card, &mut provider_response, sent).await;
                let end = match body_start {
                    Ok(body_start) => self.relay(provider_response, body_start, "ok").await,
                    Err(fault) => self.deny(SendError::ResponseFault(fault).refusal(), &[]).await,
                };
                if !self.session.is_body_done() {
                    // The provider responded before the provider had received the whole body. The connection to the
                    // agent is closed. Unread data would cause a TCP reset, and the agent could lose the response.
                    lingering_close::discard_body(self.session, CLOSE_TIMEOUT).await;
                }
                end
            }
            Err(failed) => self.deny(self.failed(failed), &[]).await,
        }
    }

    /// Relays a 101 response, and then the bytes in both directions until the WebSocket connection ends. Until then,
    /// the connection counts as a request in flight.
    async fn relay_websocket(&mut self, provider_response: ProviderResponse) -> ExchangeEnd {
        let mut response = provider_response.response;
        response.remove_headers(|name| name.as_str().starts_with("callgate"));
        response.set_header(&INTERACTION, None);
        match relay_websocket(self.session, response, self.policy.limits.idle_timeout).await {
            Err(RelayError::Upstream(fault)) => {
                let denial = fault.provider_denial();
                self.deny(Refusal::new(denial, "the provider switched to another protocol"), &[]).await
            }
            Err(RelayError::Caller) => ExchangeEnd { outcome: Ok("ok"), status: 0, reusable: false },
            Ok(()) => {
                let status = StatusCode::SWITCHING_PROTOCOLS.as_u16();
                ExchangeEnd { outcome: Ok("ok"), status, reusable: false }
            }
        }
    }
}
