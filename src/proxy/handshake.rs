//! Answering a provider's handshake: what it hands over is kept first.

use super::answer;
use super::ended::{Ended, Outcome};
use super::exchange::Shared;
use super::session::Session;
use crate::denial::Denial;
use crate::ingress::{Denied, Route, Seen};
use crate::policy::Policy;
use crate::signature::{HandshakeReply, Verifier, VerifierKeys};

/// Answers a handshake.
///
/// # Errors
/// `store_unavailable`: what it hands over could not be kept. `keys_unavailable`: too many confirmations wait.
pub(super) async fn answer(
    shared: &Shared,
    policy: &Policy,
    session: &mut Session,
    (reply, seen): (HandshakeReply, Seen),
) -> Result<Ended, Denied> {
    let route = seen.route.as_deref();
    let name = route.map_or("none", |route| &route.name);
    let verifier = route.and_then(Route::verifier);
    if let (Some(secret), Some(VerifierKeys::Learned(feed))) = (&reply.secret, verifier.map(Verifier::keys))
        && let Err(error) = shared.fetcher.learn(policy, *feed, secret).await
    {
        log::error!("the secret handed over by {name} could not be kept: {error}");
        return Err(Denied { denial: Denial::StoreUnavailable, seen });
    }
    if reply.secret.is_some() {
        let client = seen.client.map_or_else(String::new, |client| client.to_string());
        log::warn!("{client} handed over the secret of the route {name}");
    }
    if let Some(url) = &reply.confirmation_url
        && !shared.fetcher.confirm(url)
    {
        log::warn!("a subscription of the route {name} was not confirmed: too many others wait to be");
        return Err(Denied { denial: Denial::KeysUnavailable, seen });
    }
    shared.metrics.handshake(name, &reply.name);
    let told = answer::reply(session, &reply).await;
    let status = if told { reply.status } else { 0 };
    Ok(Ended::answered(seen, Outcome::Allowed("handshake"), status, told))
}
