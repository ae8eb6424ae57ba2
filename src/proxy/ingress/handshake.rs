//! Answering a provider's handshake: what it hands over is kept first.

use super::context::IngressContext;
use super::record::{ExchangeRecord, Outcome};
use crate::denial::Denial;
use crate::http::{Session, response};
use crate::ingress::{Denied, Route, Seen};
use crate::policy::Policy;
use crate::signature::{HandshakeReply, Verifier, VerifierKeys};

/// Answers a handshake.
///
/// # Errors
/// `store_unavailable`: what it hands over could not be kept. `keys_unavailable`: too many confirmations wait.
pub(crate) async fn answer(
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
        log::error!("the secret handed over by {name} could not be kept: {error}");
        return Err(Denied { denial: Denial::StoreUnavailable, seen });
    }
    if reply.secret.is_some() {
        let client = seen.client.map_or_else(String::new, |client| client.to_string());
        log::warn!("{client} handed over the secret of the route {name}");
    }
    if let Some(url) = &reply.confirmation_url
        && !context.fetcher.confirm(url)
    {
        log::warn!("a subscription of the route {name} was not confirmed: too many others wait to be");
        return Err(Denied { denial: Denial::KeysUnavailable, seen });
    }
    context.recorder.metrics.handshake(name, &reply.name);
    let told = response::reply(session, &reply).await;
    let status = if told { reply.status } else { 0 };
    Ok(ExchangeRecord::answered(seen, Outcome::Allowed("handshake"), status, told))
}
