//! Finds the interaction of a callback that contains the provider's id, but no token. The provider returned this id in
//! the response to a request. Another process may have sent the request, and may still wait for the response. Therefore
//! the Redis server also records which responses are outstanding.

use std::sync::Arc;
use std::time::Duration;

use redis::Value;
use tokio::time::sleep;

use super::nodes::keys::Partition;
use super::nodes::scripts::{AWAIT, BIND, FIND};
use super::records::unavailable;
use super::store::RedisStore;
use crate::clock::instant;
use crate::denial::Refusal;
use crate::interaction::Ask;
use crate::random::new_id;

/// The pause between two look-ups of a provider's id while a response is outstanding.
const PAUSE: Duration = Duration::from_millis(50);
/// The maximum time for which a response counts as outstanding. This limit takes effect if the process that awaits the
/// response dies.
const AWAITED_MAX: Duration = Duration::from_secs(600);

/// A request that is recorded in a shared ledger, because its response can still contain the provider's id.
#[derive(Debug)]
pub(in crate::store) struct SharedAwait {
    store: Arc<RedisStore>,
    route: Arc<str>,
    request: String,
}

impl RedisStore {
    /// Returns the interaction to which the provider's id in a callback belongs. Waits for at most `patience` while the
    /// response to a request of the route is outstanding. Returns `None` if no interaction has this provider's id.
    ///
    /// # Errors
    /// Returns the denial `store_unavailable` if the ledger cannot be read.
    pub(in crate::store) async fn find_matched(
        &self,
        ask: &Ask<'_>,
        patience: Duration,
    ) -> Result<Option<Arc<str>>, Refusal> {
        let Some(provider_id) = &ask.report.id else { return Ok(None) };
        let began = instant();
        loop {
            let keys = vec![self.keys.provider_id(ask.route, provider_id), self.keys.awaited(ask.route)];
            // `patience` does not interrupt the call. Without the response of the Redis server, it is unknown whether
            // an interaction has this provider's id.
            let found = self.call(&FIND, Partition::of(ask.route), keys, Vec::new()).await;
            match found.map_err(|failure| unavailable(&failure))?.1.as_slice() {
                [Value::BulkString(id), ..] => {
                    return Ok(std::str::from_utf8(id).ok().map(Arc::from));
                }
                [_, Value::Int(awaited), ..]
                    if *awaited > 0 && instant().saturating_duration_since(began) < patience =>
                {
                    sleep(PAUSE).await;
                }
                _ => return Ok(None),
            }
        }
    }

    /// Records that a provider's id belongs to an interaction.
    pub(super) async fn remember_provider_id(
        &self,
        route: &str,
        provider_id: &str,
        id: &str,
    ) -> Result<(), Refusal> {
        let keys = vec![self.keys.provider_id(route, provider_id)];
        let bound = self.call(&BIND, Partition::of(route), keys, vec![id.as_bytes().to_vec()]).await;
        bound.map(|_| ()).map_err(|failure| unavailable(&failure))
    }

    /// Records that the response to a request of the route is outstanding. Returns `None` if the system provides no
    /// random numbers.
    pub(in crate::store) async fn await_response(self: &Arc<Self>, route: &Arc<str>) -> Option<SharedAwait> {
        let request = new_id("")?;
        self.set_awaited(route, &request, AWAITED_MAX).await;
        Some(SharedAwait { store: Arc::clone(self), route: Arc::clone(route), request })
    }

    async fn set_awaited(&self, route: &str, request: &str, patience: Duration) {
        let arguments = vec![request.as_bytes().to_vec(), patience.as_micros().to_string().into_bytes()];
        if let Err(failure) =
            self.call(&AWAIT, Partition::of(route), vec![self.keys.awaited(route)], arguments).await
        {
            log::warn!("{route}: callbacks may not wait for the provider's id: {}", failure.reason);
        }
    }
}

impl Drop for SharedAwait {
    fn drop(&mut self) {
        let (store, route) = (Arc::clone(&self.store), Arc::clone(&self.route));
        let request = std::mem::take(&mut self.request);
        self.store.later(async move { store.set_awaited(&route, &request, Duration::ZERO).await });
    }
}

#[cfg(test)]
mod tests {
    use super::super::simulation::SimulatedLedger;
    use super::*;
    use crate::interaction::{Follow, Report};
    use crate::path::{CanonicalPath, Template};

    /// The time for which a callback waits for the response with its provider's id.
    const PATIENCE: Duration = Duration::from_secs(10);

    /// Looks up a provider's id. Returns the interaction and the duration of the look-up in seconds.
    async fn find(store: &RedisStore, provider_id: &str) -> (Option<Arc<str>>, u64) {
        let (route, follow) = ("r".into(), Follow::default());
        let captures = Template::parse("/w").unwrap().capture(&CanonicalPath::parse("/w").unwrap());
        let report = Report { id: Some(provider_id.into()), ..Report::default() };
        let began = instant();
        let found = store.find_matched(&Ask::new(&route, &captures, &follow, &report), PATIENCE).await;
        (found.unwrap(), instant().saturating_duration_since(began).as_secs())
    }

    #[tokio::test(start_paused = true)]
    async fn a_callback_waits_for_its_provider_id_only_while_a_response_is_outstanding() {
        let (_, [one, other]) = SimulatedLedger::start(|_| {}).await;
        let route = "r".into();
        assert_eq!(find(&other, "task").await, (None, 0), "no request was sent");
        let awaited = one.await_response(&route).await.unwrap();
        let remembered = async {
            sleep(Duration::from_secs(4)).await;
            one.remember_provider_id(&route, "task", "int_a").await.unwrap();
        };
        let (found, ()) = tokio::join!(find(&other, "task"), remembered);
        assert_eq!(found, (Some("int_a".into()), 4));
        assert_eq!(find(&other, "another").await, (None, PATIENCE.as_secs()), "its response does not come");
        drop(awaited);
        one.end().await;
        assert_eq!(find(&other, "another").await, (None, 0), "the response has come without this id");
        assert_eq!(find(&other, "task").await, (Some("int_a".into()), 0));
    }
}
