//! The components of Callgate that the admin listener shows or changes, and their health.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::ArcSwap;

use super::callbacks::local::LocalInteractions;
use crate::clock::{Clock, LedgerClock};
use crate::config::{AdminListener, RestartSetting};
use crate::observe::capture::Captures;
use crate::observe::{ConfigState, Metrics, Recent};
use crate::policy::Policy;
use crate::store::{Health, Store};

/// The components of Callgate that the admin listener shows or changes.
#[derive(Debug)]
pub struct Admin {
    /// The metrics.
    pub metrics: Arc<Metrics>,
    /// True if callbacks are accepted. Becomes false when the process starts to stop.
    pub ready: Arc<AtomicBool>,
    /// Whether the keys and address lists that `fetch.required` waits for have been fetched.
    pub fetched: AtomicBool,
    /// The ledger.
    pub store: Arc<Store>,
    /// The interactions in the ledger, and the connections to the other replicas.
    pub interactions: LocalInteractions,
    /// The current policy.
    pub policy: Arc<ArcSwap<Policy>>,
    /// The clock for the times in tokens.
    pub clock: Clock,
    /// The clock of the ledger.
    pub ledger_clock: Arc<LedgerClock>,
    /// The configuration in use, and the result of the last reload.
    pub config: Arc<ConfigState>,
    /// The settings that only a restart can change.
    pub restart: Vec<RestartSetting>,
    /// The most recent ingress requests.
    pub recent: Arc<Recent>,
    /// The captured requests: denied requests that are stored for an operator.
    pub captures: Arc<Captures>,
    /// The settings of the admin listener, such as its token. A reload replaces these settings.
    pub listener: ArcSwap<AdminListener>,
}

impl Admin {
    /// Returns an error with the cause if only a restart can make the process healthy again. Returns no error if the
    /// disk fails or hangs.
    pub(super) fn liveness(&self) -> Result<(), &'static str> {
        match self.store.health() {
            Health::Healthy
            | Health::Busy
            | Health::Hanging
            | Health::Failing
            | Health::Away
            | Health::Partial
            | Health::Unusable => Ok(()),
            gone @ Health::Gone => gone.why_not().map_or(Ok(()), Err),
        }
    }

    /// Reports whether the ledger adopts unknown interactions.
    pub(super) fn adopts(&self) -> bool {
        self.store.adopts()
    }

    /// Returns an error with the cause if Callgate does not accept callbacks at the moment.
    pub(super) fn readiness(&self) -> Result<(), &'static str> {
        if !self.ready.load(Ordering::Relaxed) {
            return Err("stopping");
        }
        if let Some(why_not) = self.store.health().why_not() {
            return Err(why_not);
        }
        match self.has_fetched() {
            true => Ok(()),
            false => Err("waiting for the first fetch of keys and address lists (fetch.required)"),
        }
    }

    /// Reports whether every feed (keys or addresses at a URL) was fetched at least once. Always true without
    /// `fetch.required`. Once true, the result stays true, because a provider that a reload adds must not make the
    /// other routes unavailable.
    fn has_fetched(&self) -> bool {
        if self.fetched.load(Ordering::Relaxed) {
            return true;
        }
        let policy = self.policy.load();
        let has_fetched = !policy.fetching.required || policy.missing_feeds().next().is_none();
        self.fetched.store(has_fetched, Ordering::Relaxed);
        has_fetched
    }
}
