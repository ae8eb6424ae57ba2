//! Responds to handshakes, by which a provider verifies a new webhook URL. If a handshake contains a secret, the secret
//! is saved before the response is written.

use super::request_log::{ExchangeRecord, Outcome};
use crate::denial::Denial;
use crate::http::{Session, response};
use crate::ingress::{Denied, Route, Seen};
use crate::policy::Policy;
use crate::proxy::ingress::context::IngressContext;
use crate::signature::{HandshakeReply, Verifier, VerifierKeys};

/// Saves the secret in a provider's handshake, or schedules the confirmation request that the handshake requires. Then
/// responds to the handshake.
///
/// # Errors
/// Returns `store_unavailable` if the secret could not be saved, and `keys_unavailable` if too many confirmations are
/// pending.
pub(crate) async fn respond(
    context: &IngressContext,
    policy: &Policy,
    session: &mut Session,
    (reply, seen): (HandshakeReply, Seen),
) -> Result<ExchangeRecord, Denied> {
    let route = seen.route.as_deref();
    let name = route.map_or("none", |route| &route.name);
    let verifier = route.and_then(Route::verifier);
    if let (Some(secret), Some(VerifierKeys::Learned(feed))) = (&reply.secret, verifier.map(Verifier::keys))
        && let Err(error) = context.fetcher.learn(policy, *feed, secret).await
    {
        log::error!("the secret in a handshake of the route {name} could not be saved: {error}");
        return Err(Denied { denial: Denial::StoreUnavailable, seen });
    }
    if reply.secret.is_some() {
        let client = seen.client.map_or_else(String::new, |client| client.to_string());
        log::warn!("{client} sent the secret of the route {name} in a handshake");
    }
    if let Some(url) = &reply.confirmation_url
        && !context.fetcher.confirm(url)
    {
        log::warn!(
            "a subscription of the route {name} was not confirmed: too many confirmations are pending"
        );
        return Err(Denied { denial: Denial::KeysUnavailable, seen });
    }
    context.recorder.metrics.handshake(name, &reply.name);
    let was_written = response::reply(session, &reply).await;
    let status = if was_written { reply.status } else { 0 };
    Ok(ExchangeRecord::responded(seen, Outcome::Allowed("handshake"), status, was_written))
}
