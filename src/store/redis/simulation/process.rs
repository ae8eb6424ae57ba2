//! The store of a simulated process.

use std::sync::Arc;
use std::time::Duration;

use super::engine::{BEGIN_US, StandIn};
use crate::config::{RedisLogin, RedisMode, RedisSettings, StoreSettings, Unknown};
use crate::observe::Metrics;
use crate::store::redis::nodes::Nodes;
use crate::store::redis::store::RedisStore;
use crate::time::Timestamp;

pub(super) fn settings() -> (StoreSettings, RedisSettings) {
    let login = || RedisLogin { username: None, password: None };
    let redis = RedisSettings {
        nodes: vec!["simulated:6379".into()],
        mode: RedisMode::Single,
        login: login(),
        sentinel_login: login(),
        tls: None,
        prefix: "cg".into(),
        timeout: Duration::from_millis(500),
        wait_replicas: 1,
        wait_timeout: Duration::from_millis(200),
    };
    let store = StoreSettings {
        path: None,
        redis: None,
        unknown: Unknown::Refuse,
        interactions_max: usize::MAX,
        events_max: 1000,
        remember: Duration::from_secs(60),
        keep_ended: Duration::ZERO,
        grace: Duration::from_secs(10),
    };
    (store, redis)
}

/// Starts the store of a process that uses a simulated Redis server. `change` changes the settings before.
pub(super) fn start(
    engine: &Arc<StandIn>,
    metrics: &Arc<Metrics>,
    change: impl FnOnce(&mut StoreSettings),
) -> Arc<RedisStore> {
    let (mut settings, redis) = settings();
    change(&mut settings);
    let nodes = Nodes::simulated(redis.clone(), Arc::clone(metrics), Arc::clone(engine));
    let clock = || Timestamp::from_unix_ms(BEGIN_US / 1000);
    Arc::new(RedisStore::start_on(nodes, &settings, &redis, None, Arc::clone(metrics), clock).unwrap())
}

/// Starts the stores of processes that share the ledger of one simulated Redis server without faults. Each process has
/// sent a heartbeat.
pub(in crate::store::redis) async fn processes<const N: usize>(
    change: impl Fn(&mut StoreSettings),
) -> (Arc<StandIn>, [Arc<RedisStore>; N]) {
    let engine = StandIn::new(1, super::engine::Faults::NONE);
    let metrics = Arc::new(Metrics::new().unwrap());
    let stores = [(); N].map(|()| start(&engine, &metrics, &change));
    for store in stores.iter().chain(&stores) {
        assert!(store.beat().await);
    }
    (engine, stores)
}
