//! The circuit breaker of each agent, and the number of deliveries in progress to each agent.

use std::collections::HashMap;
use std::time::Duration;

use parking_lot::Mutex;

use crate::inbox::{Circuit, Outcome, Start};
use crate::observe::Metrics;
use crate::time::Timestamp;

#[derive(Default)]
struct State {
    circuit: Circuit,
    in_flight: usize,
    /// The time of the last request that woke the agent.
    woken_at: Option<Timestamp>,
}

/// The minimum interval between two requests that wake the same agent.
const WAKE_INTERVAL: Duration = Duration::from_secs(30);

/// The circuit breakers of the agents, by agent name.
#[derive(Default)]
pub(super) struct Circuits(Mutex<HashMap<Box<str>, State>>);

/// One delivery in progress: the name of the agent and the number of the message.
pub(super) struct Slot {
    agent: Box<str>,
    message: u64,
}

impl Circuits {
    /// Returns whether a delivery to the agent can begin now, can begin only as a probe, or must wait. At most
    /// `concurrency` deliveries to the agent are in progress at the same time.
    pub(super) fn start(&self, agent: &str, concurrency: usize, now: Timestamp) -> Start {
        let states = self.0.lock();
        match states.get(agent) {
            None => Start::Free,
            Some(state) if state.in_flight >= concurrency => Start::Wait(None),
            Some(state) => state.circuit.start(now),
        }
    }

    /// Records that the delivery of a message to the agent begins.
    pub(super) fn began(&self, agent: &str, message: u64) -> Slot {
        let mut states = self.0.lock();
        let state = states.entry(agent.into()).or_default();
        state.circuit.began(message);
        state.in_flight += 1;
        Slot { agent: agent.into(), message }
    }

    /// Records the outcome of a delivery. Returns whether the agent's circuit breaker was open before.
    pub(super) fn outcome(&self, slot: &Slot, outcome: Outcome, now: Timestamp) -> bool {
        let mut states = self.0.lock();
        let Some(state) = states.get_mut(&slot.agent) else { return false };
        let was_open = state.circuit.is_open();
        state.circuit.ended(slot.message, outcome, now);
        let is_open = state.circuit.is_open();
        drop(states);
        match (was_open, is_open) {
            (false, true) => log::warn!(
                "the agent {} does not respond: deliveries of the inbox pause, and one message at a time is tried",
                slot.agent
            ),
            (true, false) => {
                log::info!("the agent {} responds again: deliveries of the inbox go on", slot.agent)
            }
            _ => {}
        }
        was_open
    }

    /// Records that a delivery has ended, with or without an outcome.
    pub(super) fn ended(&self, slot: Slot) {
        let mut states = self.0.lock();
        if let Some(state) = states.get_mut(&slot.agent) {
            state.circuit.abandoned(slot.message);
            state.in_flight = state.in_flight.saturating_sub(1);
        }
    }

    /// Reports whether the agent should be woken now. The agent's circuit breaker must be open, a message must be ready
    /// for delivery, and [`WAKE_INTERVAL`] must have passed since the last wake request. If so, records `now` as the
    /// time of the last wake request.
    pub(super) fn may_wake(&self, agent: &str, now: Timestamp, is_due: impl FnOnce() -> bool) -> bool {
        let mut states = self.0.lock();
        let Some(state) = states.get_mut(agent).filter(|state| state.circuit.is_open()) else { return false };
        let is_early = state.woken_at.is_some_and(|at| now < at.plus(WAKE_INTERVAL) && now >= at);
        if is_early || !is_due() {
            return false;
        }
        state.woken_at = Some(now);
        true
    }

    /// Moves the next probes of all circuit breakers to an earlier time, because the clock was set back.
    pub(super) fn set_back(&self, by: Duration) {
        self.0.lock().values_mut().for_each(|state| state.circuit.set_back(by));
    }

    /// Updates the metrics of the circuit breakers.
    pub(super) fn report(&self, metrics: &Metrics) {
        for (agent, state) in &*self.0.lock() {
            metrics.inbox_circuit(agent, state.circuit.is_open());
        }
    }
}
