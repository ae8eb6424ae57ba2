//! Stores a permitted callback in the inbox instead of delivering the callback at once, and responds to the provider.

use bytes::Bytes;

use super::callback_exchange::CallbackExchange;
use super::request_log::{ExchangeRecord, Outcome};
use crate::clock::instant;
use crate::denial::Denial;
use crate::http::{Caller, head_of, response};
use crate::ingress::{Denied, Permit, Route};
use crate::store::Claimed;

/// The response status for a callback that is stored in the inbox, unless the provider's scheme requires another
/// status.
const ACCEPTED: u16 = 202;

impl CallbackExchange<'_> {
    /// Stores a callback in the inbox. The caller receives the response after the message, the event and the
    /// interaction are durable.
    pub(super) async fn keep(
        &mut self,
        caller: Caller<'_>,
        mut permit: Permit,
        claimed: Option<Claimed<'_>>,
        body: Bytes,
    ) -> ExchangeRecord {
        let (context, Some(claimed)) = (self.context, claimed) else {
            // Not expected: the checks permit a callback only if its event was claimed in the ledger.
            let denied = Denied { denial: Denial::StoreUnavailable, seen: permit.into_seen() };
            return self.deny(denied, 0).await;
        };
        let body = permit.take_decoded_body().map_or(body, Bytes::from);
        let body = permit.body_with_local_endpoint(&body, &context.actions_url).map_or(body, Bytes::from);
        if claimed.is_stale() {
            context.recorder.metrics.stale(&permit.route().name, "delivered");
        }
        let now = context.clocks.ledger_now(instant());
        let keeps_signature = self.policy.inbox.keeps_signature;
        let kept = permit.keep(&head_of(self.session, caller), &body, keeps_signature, now);
        let event_id = permit.event_id().and_then(|id| id.to_str().ok());
        let accepted = context.store.accept(claimed, (kept, body), (permit.report(), event_id), now).await;
        let seen = permit.into_seen();
        if let Err(refusal) = accepted {
            return self.deny(Denied { denial: refusal.denial, seen }, 0).await;
        }
        let verifier = seen.route.as_deref().and_then(Route::verifier);
        let status = verifier.and_then(|verifier| verifier.scheme().acknowledge).unwrap_or(ACCEPTED);
        let was_written = response::acknowledge(self.session, status, "accepted").await;
        let sent = if was_written { status } else { 0 };
        ExchangeRecord::responded(seen, Outcome::Allowed("accepted"), sent, was_written)
    }
}
