//! Reads the provider's task id from the response to a request with a callback URL. Binds this id to the interaction.

use bytes::Bytes;
use tokio::sync::oneshot;

use crate::clock::instant;
use crate::egress::{EventIds, id_at};
use crate::http::client::ResponseFault;
use crate::json::Pointer;
use crate::policy::Minted;
use crate::proxy::egress::agent_exchange::{AgentExchange, RESPONSE_BYTES_MAX};
use crate::proxy::egress::provider_client::ProviderResponse;
use crate::proxy::egress::request_log::ExchangeEnd;
use crate::request::is_json;

impl AgentExchange<'_> {
    /// Reads the beginning of a JSON response and records the provider's task id. `body_start` is the part of
    /// the body that was read before the call. Returns the part of the body that was read before and during the call.
    pub(in crate::proxy::egress) async fn learn_id(
        &mut self,
        minted: &Minted,
        pointers: &[Pointer],
        provider_response: &mut ProviderResponse,
        mut body_start: Bytes,
    ) -> Result<Bytes, ResponseFault> {
        let response = &mut provider_response.response;
        if !response.is_success() || !is_json(response.headers()) {
            return Ok(body_start);
        }
        if body_start.is_empty() {
            body_start = response.read_up_to(RESPONSE_BYTES_MAX).await?;
        }
        match id_at(&body_start, pointers) {
            Some(id) => self.bind(minted, &id).await,
            None => {
                let places: Vec<_> = pointers.iter().map(Pointer::as_str).collect();
                self.details.detail = Some(format!("the response has no id at {}", places.join(", ")));
            }
        }
        Ok(body_start)
    }

    /// Relays a stream of server-sent events to the agent. Records the provider's id as soon as an event contains the
    /// id, without delaying the stream.
    pub(in crate::proxy::egress) async fn relay_events(
        &mut self,
        minted: &Minted,
        pointers: Vec<Pointer>,
        provider_response: ProviderResponse,
        reason: &'static str,
    ) -> ExchangeEnd {
        let (sender, receiver) = oneshot::channel();
        let (mut ids, mut sender) = (EventIds::new(pointers), Some(sender));
        let observe = move |data: &[u8]| {
            if let Some(id) = ids.read(data)
                && let Some(sender) = sender.take()
            {
                let _ = sender.send(id);
            }
        };
        let (store, clocks) = (&self.context.store, &self.context.clocks);
        let awaited = self.awaited.take();
        let bound = async {
            let _awaited = awaited;
            let Ok(id) = receiver.await else { return };
            if let Err(refusal) = store.bind(&minted.interaction, &id, clocks.ledger_now(instant())).await {
                log::error!("{}: {}", minted.interaction, refusal.detail);
            }
        };
        // At the end of the stream, the sender is dropped. The future `bound` then ends, even if no event contained an
        // id.
        let (end, ()) =
            tokio::join!(self.relay_observed(provider_response, Bytes::new(), reason, observe), bound);
        end
    }

    async fn bind(&self, minted: &Minted, id: &str) {
        let now = self.context.clocks.ledger_now(instant());
        if let Err(refusal) = self.context.store.bind(&minted.interaction, id, now).await {
            log::error!("{}: {}", minted.interaction, refusal.detail);
        }
    }
}
