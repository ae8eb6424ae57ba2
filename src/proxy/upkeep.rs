//! The periodic upkeep: closes idle connections and updates gauges.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;

use super::egress::Providers;
use super::ingress::Agents;
use super::listen::ConnectionLimits;
use crate::clock::instant;
use crate::http::BodyMemory;
use crate::observe::Metrics;

/// Interval between two runs.
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
    /// Runs until it is aborted.
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
