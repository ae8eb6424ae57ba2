//! A simulated shared ledger without faults, for tests of the modules that use [`RedisStore`].

use std::sync::Arc;
use std::time::Duration;

use super::engine::{BEGIN_US, Faults, HeldMessage, StandIn};
use super::process::settings;
use crate::config::{RedisSettings, StoreSettings};
use crate::observe::Metrics;
use crate::replica::{Incarnation, Owner};
use crate::store::redis::nodes::Nodes;
use crate::store::redis::store::RedisStore;
use crate::time::Timestamp;

/// A simulated shared ledger, and the stores of the processes that share it.
pub(in crate::store) struct SimulatedLedger {
    engine: Arc<StandIn>,
    /// The store of each process. No background task runs.
    pub(in crate::store) processes: Vec<Arc<RedisStore>>,
    pub(in crate::store) settings: StoreSettings,
    pub(in crate::store) metrics: Arc<Metrics>,
}

impl SimulatedLedger {
    /// The time at which the simulation begins.
    pub(in crate::store) const BEGIN: Timestamp = Timestamp::from_unix_secs(BEGIN_US / 1_000_000);

    /// Creates a ledger on nodes with these addresses, and starts processes. Each process owns the interactions that it
    /// opens. Must be called within a tokio runtime whose clock is paused.
    pub(in crate::store) async fn start(nodes: &[&str], processes: usize) -> Self {
        let faults = Faults { lost_requests: 0, lost_responses: 0, late: 0, waits: false, lag_ms: 1 };
        let engine = StandIn::new(1, faults);
        let (settings, redis) = settings();
        let redis = RedisSettings { nodes: nodes.iter().map(|node| (*node).into()).collect(), ..redis };
        let metrics = Arc::new(Metrics::new().unwrap());
        let start = |number| {
            let address = format!("process-{number}:80").into();
            let own = Owner { incarnation: Incarnation::random().unwrap(), address };
            let nodes = Nodes::simulated(redis.clone(), Arc::clone(&metrics), Arc::clone(&engine));
            let (metrics, clock) = (Arc::clone(&metrics), || Self::BEGIN);
            Arc::new(RedisStore::start_on(nodes, &settings, &redis, Some(&own), metrics, clock).unwrap())
        };
        let processes: Vec<_> = (0..processes).map(start).collect();
        // With its second heartbeat, a process reads the first heartbeats of all others.
        for process in processes.iter().chain(&processes) {
            assert!(process.beat().await);
        }
        Self { engine, processes, settings, metrics }
    }

    /// Adds a message of the inbox with this id and head. The process `holder` holds the message, and an attempt or a
    /// pull of the message has a lease for this time after the beginning.
    pub(in crate::store) fn add_message(&self, id: &str, head: Vec<u8>, holder: usize, leased_for: Duration) {
        let holder = self.processes[holder].incarnation.clone();
        let leased_until = Self::BEGIN.plus(leased_for).unix_ms();
        self.engine.hold(id, HeldMessage { holder, head, leased_until });
    }
}
