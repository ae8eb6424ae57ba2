//! The access of this process to the ledger on Redis or Valkey.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, OnceCell};

use super::health::{EngineClock, EngineHealth};
use super::members::{Members, owner_text, parse_owner};
use super::nodes::Nodes;
use super::nodes::keys::Keys;
use super::nodes::keys::Partition;
use super::schedule::Schedule;
use super::walk::Walk;
use crate::config::{RedisSettings, StoreSettings};
use crate::denial::{Denial, Refusal};
use crate::observe::Metrics;
use crate::replica::{Incarnation, Owner};
use crate::store::event_memory::FingerprintKey;
use crate::store::file::Health;
use crate::time::Timestamp;

/// If the clocks of the Redis server and of this process differ by more than this time, a warning is logged.
const SKEW_MAX: Duration = Duration::from_secs(5);

/// The access of this process to the ledger on Redis or Valkey.
pub(in crate::store) struct RedisStore {
    pub(super) nodes: Nodes,
    pub(super) keys: Keys,
    pub(in crate::store) settings: StoreSettings,
    pub(super) metrics: Arc<Metrics>,
    /// The id of this run of the process, by which other processes that share the ledger identify it.
    pub(super) incarnation: Box<str>,
    /// The id and the address of this process as the owner of interactions, if the configuration has a section
    /// `replicas`.
    owner: Mutex<Option<Box<str>>>,
    pub(super) clock: EngineClock,
    pub(super) health: EngineHealth,
    pub(super) members: Mutex<Arc<Members>>,
    pub(super) due: Schedule,
    pub(super) walk: Mutex<Walk>,
    /// The number of interactions in the ledger, according to the last count.
    pub(super) interactions: AtomicUsize,
    /// The number of background tasks that have not ended.
    pub(super) tasks: AtomicUsize,
    pub(super) task_ended: Notify,
    /// The secret keys of the event fingerprints that were copied from ledgers in files. The secret keys are read once,
    /// before their first use.
    pub(super) copied_keys: OnceCell<Vec<FingerprintKey>>,
    wall_clock: fn() -> Timestamp,
}

impl std::fmt::Debug for RedisStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RedisStore")
    }
}

impl RedisStore {
    /// Starts the store. `own` is the id and the address of this process, if the configuration has a section
    /// `replicas`. Must be called within a tokio runtime.
    pub(in crate::store) fn start(
        settings: &StoreSettings,
        redis: &RedisSettings,
        own: Option<&Owner>,
        metrics: Arc<Metrics>,
        wall_clock: fn() -> Timestamp,
    ) -> Result<Arc<Self>, String> {
        let nodes = Nodes::new(redis.clone(), Arc::clone(&metrics));
        Self::start_on(nodes, settings, redis, own, metrics, wall_clock).map(Arc::new)
    }

    /// Starts the store on these nodes. A simulation passes simulated nodes.
    pub(super) fn start_on(
        nodes: Nodes,
        settings: &StoreSettings,
        redis: &RedisSettings,
        own: Option<&Owner>,
        metrics: Arc<Metrics>,
        wall_clock: fn() -> Timestamp,
    ) -> Result<Self, String> {
        let drawn = || Incarnation::random().ok_or("the system provides no random numbers");
        let incarnation = own.map_or_else(drawn, |own| Ok(own.incarnation))?;
        Ok(Self {
            nodes,
            keys: Keys::new(&redis.prefix),
            settings: settings.clone(),
            metrics,
            incarnation: incarnation.to_string().into(),
            owner: Mutex::new(own.map(owner_text)),
            clock: EngineClock::default(),
            health: EngineHealth::new(settings.grace),
            members: Mutex::default(),
            due: Schedule::default(),
            walk: Mutex::default(),
            interactions: AtomicUsize::new(0),
            tasks: AtomicUsize::new(0),
            task_ended: Notify::new(),
            copied_keys: OnceCell::new(),
            wall_clock,
        })
    }

    /// Uses these logins and certificates for all connections from now on.
    pub(in crate::store) fn log_in_again(&self, settings: &RedisSettings) {
        self.nodes.log_in_again(settings);
    }

    /// Records the address of this process as the owner of interactions, once the address is known.
    pub(in crate::store) fn set_own(&self, own: &Owner) {
        *self.owner.lock() = Some(owner_text(own));
    }

    pub(super) fn owner(&self) -> Option<Box<str>> {
        self.owner.lock().clone()
    }

    /// Returns the health of the store for health probes and metrics.
    pub(in crate::store) fn health(&self) -> Health {
        let health = self.health.health(&self.nodes.addresses());
        self.metrics.store_failed(matches!(health, Health::Away | Health::Partial | Health::Unusable));
        if self.owner().is_none()
            && let Some(now) = self.clock.now()
        {
            // If the configuration has a section `replicas`, this metric is set elsewhere, to the number of reachable
            // replicas.
            self.metrics.members(self.members.lock().count(now));
        }
        health
    }

    /// Returns the number of interactions in the ledger, according to the last count.
    pub(in crate::store) fn count(&self) -> usize {
        self.interactions.load(Ordering::Relaxed)
    }

    /// Reports whether the ledger has less than half of the maximum number of interactions, and the node of an
    /// interaction is not full.
    pub(super) fn has_much_room(&self, node: &str) -> bool {
        self.count() < self.settings.interactions_max / 2 && !self.health.is_full(node)
    }

    pub(super) fn check_room(&self) -> Result<(), Refusal> {
        if self.count() >= self.settings.interactions_max {
            return Err(Refusal::new(Denial::StoreFull, "the ledger is full"));
        }
        Ok(())
    }

    /// Reports whether a process that shares the ledger is alive. Returns `None` if the node with the list of processes
    /// does not respond.
    pub(in crate::store) fn lives(&self, member: Incarnation) -> Option<bool> {
        if self.health.is_failing(&self.nodes.node_of(Partition::Members)) {
            return None;
        }
        let now = self.clock.now()?;
        Some(self.members.lock().lives(&member.to_string(), now))
    }

    /// Parses the owner in the record of an interaction.
    pub(in crate::store) fn parse_owner(text: &str) -> Option<Owner> {
        parse_owner(text)
    }

    /// Schedules the deadlines of interactions for this process, because another process has asked it to apply them.
    pub(in crate::store) fn pass_on(&self, ids: impl Iterator<Item = Box<str>>) {
        self.due.pass_on(ids);
    }

    pub(super) fn compare_clocks(&self, engine: Timestamp) {
        let own = (self.wall_clock)();
        let skew = own.unix_ms().saturating_sub(engine.unix_ms());
        self.metrics.store_clock_skew(skew as f64 / 1000.0);
        if skew.unsigned_abs() > u64::try_from(SKEW_MAX.as_millis()).unwrap_or(u64::MAX) {
            log::warn!("the clock of this process differs from the clock of the store by {skew} ms");
        }
    }

    /// Runs a background task, for which only [`RedisStore::end`] waits.
    pub(super) fn later(self: &Arc<Self>, task: impl Future<Output = ()> + Send + 'static) {
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        self.tasks.fetch_add(1, Ordering::SeqCst);
        let store = Arc::clone(self);
        runtime.spawn(async move {
            task.await;
            store.tasks.fetch_sub(1, Ordering::SeqCst);
            store.task_ended.notify_waiters();
        });
    }
}

#[cfg(test)]
mod tests {
    use super::super::nodes::Failure;
    use super::super::simulation::SimulatedLedger;
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_ledger_that_is_half_full_has_room_but_not_much() {
        let (_, [store]) = SimulatedLedger::start(|settings| settings.interactions_max = 10).await;
        for (count, has_much, has_some) in
            [(0, true, true), (4, true, true), (5, false, true), (9, false, true), (10, false, false)]
        {
            store.interactions.store(count, Ordering::Relaxed);
            assert_eq!(
                (store.has_much_room("a:1"), store.check_room().is_ok()),
                (has_much, has_some),
                "{count}"
            );
        }
        store.interactions.store(0, Ordering::Relaxed);
        let full = Failure { full_node: Some("a:1".into()), ..Failure::refused("OOM") };
        store.health.called(|| "a:1".into(), true, Some(&full));
        assert!(!store.has_much_room("a:1") && store.has_much_room("b:1"));
    }
}
