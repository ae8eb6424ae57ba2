//! Finds the interaction of a callback that has no token. The callback contains an id that the provider gave to the
//! work, for example a job id.
//!
//! Callgate reads this id from the provider's response to the agent's request. A callback can arrive before Callgate
//! has read the response. The callback therefore waits for a short time while a request of its route has no response
//! yet.

use std::collections::HashMap;
use std::sync::Arc;

use super::Store;
use super::redis::SharedAwait;
use crate::interaction::Interaction;

/// The interactions that can be found by the provider's id. Lock order: a thread that has locked a shard may lock this
/// value. A thread that has locked this value must not lock a shard.
#[derive(Debug, Default)]
pub(super) struct Matching {
    /// Maps a route and a provider's id to the id of the interaction.
    pub(super) known: HashMap<(Arc<str>, Box<str>), Arc<str>>,
    /// For each route: the number of requests without a response. The response to each of these requests can contain a
    /// provider's id.
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
        // A later interaction of the route can have the same provider's id. The map then contains only the later one.
        if self.known.get(&key).is_some_and(|known| **known == *id) {
            self.known.remove(&key);
        }
    }

    /// Reports whether a request of the route has no response yet. The response can contain a provider's id.
    pub(super) fn is_awaited(&self, route: &str) -> bool {
        self.awaited.contains_key(route)
    }
}

/// A request that has no response yet. The response can contain a provider's id. Until this value is dropped, callbacks
/// of the route wait if no interaction is found for them.
pub struct ResponseAwaited {
    store: Arc<Store>,
    route: Arc<str>,
    /// The entry for the request in a shared ledger. While the entry exists, callbacks at other processes wait, too.
    /// Dropping this field removes the entry.
    _shared: Option<SharedAwait>,
}

impl Store {
    /// Registers a request that is about to be sent, so that callbacks wait for its response. The route matches
    /// callbacks by the provider's id (`match`).
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Timestamp;

    #[test]
    fn the_latest_interaction_with_a_provider_id_is_found_until_it_is_removed() {
        let record = |route: &str, provider_id: Option<&str>| {
            let now = Timestamp::from_unix_ms(0);
            let mut record = Interaction::new(route.into(), "".into(), now, now);
            provider_id.into_iter().for_each(|id| record.bind(id));
            record
        };
        let (work, other) = (record("r", Some("work")), record("other", Some("work")));
        let mut matching = Matching::default();
        matching.add("int_a", &work);
        matching.add("int_b", &work);
        matching.add("int_c", &other);
        matching.add("int_d", &record("r", None));
        let of = |matching: &Matching, route: &str| {
            let key = (Arc::from(route), Box::from("work"));
            matching.known.get(&key).map(ToString::to_string)
        };
        let found = |matching: &Matching| (of(matching, "r"), of(matching, "other"));
        let (b, c) = (Some("int_b".to_owned()), Some("int_c".to_owned()));
        // An earlier interaction with the same id, and an interaction without an id.
        matching.remove("int_a", &work);
        matching.remove("int_d", &record("r", None));
        assert_eq!(found(&matching), (b, c.clone()));
        matching.remove("int_b", &work);
        assert_eq!(found(&matching), (None, c));
        matching.remove("int_c", &other);
        assert_eq!(matching.known.len(), 0);
    }
}
