//! Finds the interaction of a callback without a token by the id that the provider gave to the interaction.
//!
//! Callgate reads the id from the provider's response to the agent's request. A callback can arrive before the response
//! was read. It therefore waits for a short time while the response to a request of its route is outstanding.

use std::collections::HashMap;
use std::sync::Arc;

use super::Store;
use super::redis::SharedAwait;
use crate::interaction::Interaction;

/// The interactions that callbacks find by the provider's id. A thread may lock this value while it has locked a shard,
/// but must not lock a shard while it has locked this value.
#[derive(Debug, Default)]
pub(super) struct Matching {
    /// The interactions by route and provider's id.
    pub(super) known: HashMap<(Arc<str>, Box<str>), Arc<str>>,
    /// The number of requests of each route whose response can still contain the provider's id.
    awaited: HashMap<Arc<str>, usize>,
}

impl Matching {
    /// Adds an interaction, if its provider's id is known.
    pub(super) fn add(&mut self, id: &str, record: &Interaction) {
        if let Some(provider_id) = record.provider_id() {
            self.known.insert((Arc::clone(&record.route), provider_id.into()), id.into());
        }
    }

    /// Removes an interaction, unless a later interaction has the same provider's id.
    pub(super) fn remove(&mut self, id: &str, record: &Interaction) {
        let Some(provider_id) = record.provider_id() else { return };
        let key = (Arc::clone(&record.route), provider_id.into());
        // A later interaction of the route can have the same provider's id.
        if self.known.get(&key).is_some_and(|known| **known == *id) {
            self.known.remove(&key);
        }
    }

    /// Reports whether the response to a request of the route can still contain a provider's id.
    pub(super) fn is_awaited(&self, route: &str) -> bool {
        self.awaited.contains_key(route)
    }
}

/// A request whose response can still contain the provider's id. Callbacks of the route that belong to no known
/// interaction wait until this value is dropped.
pub struct ResponseAwaited {
    store: Arc<Store>,
    route: Arc<str>,
    /// The entry for the request in a shared ledger, so that callbacks at other processes wait, too. Dropping this
    /// field removes the entry.
    _shared: Option<SharedAwait>,
}

impl Store {
    /// Records that a request is about to be sent on a route that matches callbacks by the provider's id (`match`).
    pub async fn await_response(self: &Arc<Self>, route: &Arc<str>) -> ResponseAwaited {
        let shared = match &self.shared {
            Some(shared) => shared.await_response(route).await,
            None => None,
        };
        *self.memory.matching.lock().awaited.entry(Arc::clone(route)).or_default() += 1;
        ResponseAwaited { store: Arc::clone(self), route: Arc::clone(route), _shared: shared }
    }
}

impl Drop for ResponseAwaited {
    fn drop(&mut self) {
        {
            let awaited = &mut self.store.memory.matching.lock().awaited;
            match awaited.get_mut(&self.route) {
                Some(number) if *number > 1 => *number -= 1,
                _ => {
                    awaited.remove(&self.route);
                }
            }
        }
        self.store.matched_changed.notify_waiters();
    }
}
