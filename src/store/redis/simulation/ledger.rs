//! A simulated shared ledger without faults, for unit tests.

use std::sync::Arc;
use std::time::Duration;

use super::lookups::HeldMessage;
use super::process::{BEGIN, settings, start};
use super::simulated_redis::{Faults, StandIn};
use crate::config::StoreSettings;
use crate::ingress::Kept;
use crate::observe::Metrics;
use crate::replica::{Incarnation, Owner};
use crate::store::redis::nodes::keys::{Keys, Partition};
use crate::store::redis::store::RedisStore;
use crate::time::Timestamp;

/// A simulated shared ledger.
pub(in crate::store) struct SimulatedLedger {
    pub(in crate::store::redis) engine: Arc<StandIn>,
    /// The settings of the processes that share the ledger.
    pub(in crate::store) settings: StoreSettings,
    /// The metrics of the processes that share the ledger.
    pub(in crate::store) metrics: Arc<Metrics>,
}

impl SimulatedLedger {
    /// The time at which the simulation begins.
    pub(in crate::store) const BEGIN: Timestamp = BEGIN;

    /// Creates a ledger, and starts processes that share it. `change` changes the settings of the processes before they
    /// start. Each process owns the interactions that it opens, and knows the other processes by their heartbeats. Must
    /// be called within a tokio runtime whose clock is paused.
    pub(in crate::store) async fn start<const N: usize>(
        change: impl FnOnce(&mut StoreSettings),
    ) -> (Self, [Arc<RedisStore>; N]) {
        let mut settings = settings();
        change(&mut settings);
        let (engine, metrics) = (StandIn::new(1, Faults::NONE), Arc::new(Metrics::new().unwrap()));
        let processes = std::array::from_fn(|number| {
            let address = format!("process-{number}:80").into();
            let own = Owner { incarnation: Incarnation::random().unwrap(), address };
            start(&engine, &metrics, &settings, Some(&own))
        });
        // With its second heartbeat, a process reads the first heartbeats of all others.
        for process in processes.iter().chain(&processes) {
            assert!(process.beat().await);
        }
        (Self { engine, settings, metrics }, processes)
    }

    /// Adds a message of the inbox. If it belongs to an interaction, `head` names the interaction. The process `holder`
    /// holds the message. If `holder` is `None`, a dead process holds the message. The lease of the message ends
    /// `leased_for` after the beginning of the simulation.
    pub(in crate::store) fn add_message(
        &self,
        (number, id): (u64, &str),
        holder: Option<&RedisStore>,
        head: &[u8],
        leased_for: Duration,
    ) {
        let keys = Keys::new(&self.settings.redis.as_ref().unwrap().prefix);
        let leased_until = Self::BEGIN.plus(leased_for).unix_ms();
        let holder = holder.map_or("gone", |holder| &*holder.incarnation).to_owned();
        let interaction = Kept::from_bytes(head).ok().and_then(|kept| kept.interaction);
        let message = HeldMessage { holder, interaction, head: head.to_vec(), leased_until };
        self.engine.add_message(&keys.messages_due(Partition::of_message(number)), id, message);
    }
}
