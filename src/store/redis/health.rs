//! Whether the engine answers, and the engine's clock.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::nodes::Failure;
use crate::clock::instant;
use crate::store::file::Health;
use crate::time::Timestamp;

/// Whether the engine answers.
#[derive(Debug)]
pub(super) struct EngineHealth {
    grace: Duration,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Since when no call has succeeded.
    failing_since: Option<Instant>,
    /// Why the engine must not be used.
    unusable: Option<String>,
}

impl EngineHealth {
    pub(super) fn new(grace: Duration) -> Self {
        Self { grace, state: Mutex::default() }
    }

    /// Records the result of a call.
    pub(super) fn called(&self, failure: Option<&Failure>) {
        let mut state = self.state.lock();
        match (failure, state.failing_since) {
            (None, None) | (Some(_), Some(_)) => {}
            (None, Some(_)) => {
                state.failing_since = None;
                drop(state);
                log::info!("the store answers again");
            }
            (Some(failure), None) => {
                state.failing_since = Some(instant());
                drop(state);
                log::error!("the store does not answer: {}", failure.reason);
            }
        }
    }

    /// Returns the health for probes and metrics.
    pub(super) fn health(&self) -> Health {
        let state = self.state.lock();
        match state.failing_since {
            _ if state.unusable.is_some() => Health::Unusable,
            None => Health::Healthy,
            Some(since) if instant().saturating_duration_since(since) >= self.grace => Health::Away,
            Some(_) => Health::Busy,
        }
    }

    /// Reports whether the last call failed.
    pub(super) fn is_failing(&self) -> bool {
        self.state.lock().failing_since.is_some()
    }

    /// Records why the engine must not be used, or that it may be used.
    pub(super) fn judged(&self, fault: Option<String>) {
        let mut state = self.state.lock();
        if let Some(fault) = fault.as_ref().filter(|fault| state.unusable.as_ref() != Some(*fault)) {
            log::error!("the store cannot be used: {fault}");
        }
        state.unusable = fault;
    }

    /// Returns why the engine must not be used.
    pub(super) fn why_unusable(&self) -> Option<String> {
        self.state.lock().unusable.clone()
    }
}

/// The engine's clock. All processes that share the ledger decide by it.
#[derive(Debug, Default)]
pub(super) struct EngineClock(Mutex<Option<(i64, Instant)>>);

impl EngineClock {
    /// Records a time of the engine, in Unix microseconds.
    pub(super) fn observe(&self, us: i64) {
        *self.0.lock() = Some((us, instant()));
    }

    /// Returns the engine's time. Returns `None` if the engine has never answered.
    pub(super) fn now(&self) -> Option<Timestamp> {
        let (us, at) = (*self.0.lock())?;
        let since = i64::try_from(instant().saturating_duration_since(at).as_micros()).unwrap_or(i64::MAX);
        Some(Timestamp::from_unix_ms(us.saturating_add(since) / 1000))
    }
}
