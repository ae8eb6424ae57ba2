//! Periodic upkeep of the server: closes idle connections and updates gauges. When the server stops, closes the ledger
//! and the trace exporter.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::time::timeout;

use super::egress::Providers;
use super::ingress::{Agents, IngressContext};
use super::listen::ConnectionLimits;
use crate::clock::instant;
use crate::http::BodyMemory;
use crate::observe::{Metrics, Traces};

/// The interval between two runs of the upkeep.
const TICK: Duration = Duration::from_millis(250);

/// The components that need upkeep.
pub(super) struct Upkeep {
    pub(super) agents: Arc<Agents>,
    pub(super) body_memory: BodyMemory,
    pub(super) connection_limits: Arc<ConnectionLimits>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) providers: Arc<ArcSwap<Providers>>,
}

impl Upkeep {
    /// Closes idle connections and updates gauges periodically. Runs until the task is aborted.
    pub(super) async fn run(self) {
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            self.agents.sweep(instant());
            self.providers.load().sweep();
            self.metrics.held(self.connection_limits.count(), self.body_memory.bytes());
        }
    }
}

/// The maximum time for closing the ledger's file. After a timeout, no acknowledged change is lost, because all
/// acknowledged changes are already on disk.
const STORE_CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// Closes the ledger's file and exports the last trace spans.
pub(super) async fn close_files(ingress: &IngressContext) {
    let (store, recorder) = (Arc::clone(&ingress.store), Arc::clone(&ingress.recorder));
    let closed = tokio::task::spawn_blocking(move || {
        store.close();
        recorder.traces.iter().for_each(Traces::stop);
    });
    if timeout(STORE_CLOSE_TIMEOUT, closed).await.is_err() {
        log::error!("the ledger's file could not be closed in time");
    }
}
