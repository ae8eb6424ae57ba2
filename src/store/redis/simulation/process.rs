//! The settings and the store of a simulated process.

use std::sync::Arc;
use std::time::Duration;

use super::simulated_redis::{BEGIN_US, StandIn};
use crate::config::{RedisLogin, RedisMode, RedisSettings, StoreSettings, Unknown};
use crate::observe::Metrics;
use crate::replica::Owner;
use crate::store::redis::nodes::Nodes;
use crate::store::redis::store::RedisStore;
use crate::time::Timestamp;

/// The time at which the simulation begins, according to the clocks of the processes.
pub(super) const BEGIN: Timestamp = Timestamp::from_unix_secs(BEGIN_US / 1_000_000);

/// Returns the settings of the simulated processes.
pub(in crate::store::redis) fn settings() -> StoreSettings {
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
    StoreSettings {
        path: None,
        redis: Some(redis),
        unknown: Unknown::Refuse,
        interactions_max: usize::MAX,
        events_max: 1000,
        remember: Duration::from_secs(60),
        keep_ended: Duration::ZERO,
        grace: Duration::from_secs(10),
    }
}

/// Starts the store of a process that uses a simulated Redis server. `own` is the id and the address of the process. No
/// background task runs.
pub(super) fn start(
    engine: &Arc<StandIn>,
    metrics: &Arc<Metrics>,
    settings: &StoreSettings,
    own: Option<&Owner>,
) -> Arc<RedisStore> {
    let redis = settings.redis.as_ref().unwrap();
    let nodes = Nodes::simulated(redis.clone(), Arc::clone(metrics), Arc::clone(engine));
    let (metrics, clock) = (Arc::clone(metrics), || BEGIN);
    Arc::new(RedisStore::start_on(nodes, settings, redis, own, metrics, clock).unwrap())
}
