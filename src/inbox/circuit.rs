//! The circuit breaker of one agent. While the agent does not respond, attempts to deliver messages pause, and only
//! single probes are sent.

use std::time::Duration;

use super::outcome::Outcome;
use crate::time::Timestamp;

/// The number of consecutive failed attempts that opens the circuit of an agent, if they belong to at least two
/// messages. If no connection can be opened, one attempt is enough.
const FAILURES_MAX: u32 = 5;
/// The delay before the first probe of an agent. The delay doubles after each failed probe.
const PROBE_FIRST: Duration = Duration::from_secs(1);
/// The maximum delay between two probes of an agent.
const PROBE_MOST: Duration = Duration::from_secs(15);

/// Whether an attempt to deliver a message to an agent may begin now.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Start {
    /// Any number of attempts may begin, because the circuit is closed.
    Free,
    /// One attempt may begin. It is the probe of an open circuit.
    Probe,
    /// No attempt may begin before this time. If the time is `None`, no attempt may begin before the probe in progress
    /// has ended.
    Wait(Option<Timestamp>),
}

/// The circuit breaker of one agent. It opens after repeated failures, and then allows only single probes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Circuit {
    /// The number of consecutive failed attempts.
    failures: u32,
    /// The number of the message with which the current series of failed attempts began.
    first: Option<u64>,
    /// Whether the consecutive failed attempts belong to more than one message.
    has_other: bool,
    open: Option<Open>,
}

#[derive(Clone, Copy, Debug)]
struct Open {
    delay: Duration,
    probe_at: Timestamp,
    /// The number of the message that the probe in progress tries to deliver.
    probe: Option<u64>,
}

impl Circuit {
    /// Returns whether an attempt to deliver a message may begin at `now`.
    pub fn start(&self, now: Timestamp) -> Start {
        match self.open {
            None => Start::Free,
            Some(Open { probe: Some(_), .. }) => Start::Wait(None),
            Some(open) if open.probe_at <= now => Start::Probe,
            Some(open) => Start::Wait(Some(open.probe_at)),
        }
    }

    /// Reports whether the circuit is open.
    pub fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// Records that the attempt to deliver this message begins.
    pub fn began(&mut self, message: u64) {
        if let Some(open) = &mut self.open {
            open.probe = Some(message);
        }
    }

    /// Records that the attempt to deliver this message has ended without an outcome.
    pub fn abandoned(&mut self, message: u64) {
        if let Some(open) = self.open.as_mut().filter(|open| open.probe == Some(message)) {
            open.probe = None;
        }
    }

    /// Records the outcome of an attempt to deliver a message.
    pub fn ended(&mut self, message: u64, outcome: Outcome, now: Timestamp) {
        if outcome.is_alive() {
            *self = Self::default();
            return;
        }
        if let Some(open) = &mut self.open {
            // The failure of an attempt that began before the circuit opened does not delay the next probe.
            if open.probe == Some(message) {
                open.probe = None;
                open.delay = (open.delay * 2).min(PROBE_MOST);
                open.probe_at = now.plus(open.delay);
            }
            return;
        }
        self.failures += 1;
        self.has_other |= self.first.is_some_and(|first| first != message);
        self.first = self.first.or(Some(message));
        // If the agent is reachable and a single message always fails, the circuit stays closed, so that the other
        // messages are delivered.
        if outcome == Outcome::Unreachable || (self.failures >= FAILURES_MAX && self.has_other) {
            self.open = Some(Open { delay: PROBE_FIRST, probe_at: now.plus(PROBE_FIRST), probe: None });
        }
    }

    /// Makes the next probe earlier by `by`, because the clock was set back by this duration.
    pub fn set_back(&mut self, by: Duration) {
        if let Some(open) = &mut self.open {
            open.probe_at = open.probe_at.minus(by);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_unix_secs(seconds)
    }

    #[test]
    fn an_unreachable_agent_is_probed_by_one_message_at_growing_intervals() {
        let mut circuit = Circuit::default();
        assert_eq!(circuit.start(at(0)), Start::Free);
        circuit.began(1);
        circuit.began(2);
        circuit.ended(1, Outcome::Unreachable, at(0));
        // The second attempt began before the circuit opened.
        circuit.ended(2, Outcome::Unreachable, at(0));
        let mut now = 0;
        for delay in [1, 2, 4, 8, 15, 15, 15] {
            assert_eq!(circuit.start(at(now)), Start::Wait(Some(at(now + delay))));
            now += delay;
            assert_eq!(circuit.start(at(now)), Start::Probe);
            circuit.began(3);
            assert_eq!(circuit.start(at(now)), Start::Wait(None));
            circuit.ended(3, Outcome::Failed(None), at(now));
        }
        assert_eq!(circuit.start(at(now + 15)), Start::Probe);
        circuit.began(4);
        circuit.ended(4, Outcome::Accepted, at(now + 15));
        assert_eq!(circuit.start(at(now + 15)), Start::Free);
    }

    #[test]
    fn five_failures_in_a_row_open_the_circuit_unless_one_message_causes_them() {
        let fail = |circuit: &mut Circuit, messages: &[u64]| {
            messages.iter().for_each(|message| circuit.ended(*message, Outcome::Failed(None), at(0)));
        };
        let mut circuit = Circuit::default();
        fail(&mut circuit, &[1, 2, 3, 4]);
        assert!(!circuit.is_open());
        fail(&mut circuit, &[5]);
        assert!(circuit.is_open());
        let mut circuit = Circuit::default();
        fail(&mut circuit, &[1; 100]);
        assert!(!circuit.is_open(), "only one message fails");
        fail(&mut circuit, &[2]);
        assert!(circuit.is_open());
        for alive in [Outcome::Accepted, Outcome::Rejected, Outcome::Gone, Outcome::Busy(None)] {
            let mut circuit = Circuit::default();
            fail(&mut circuit, &[1, 2, 3, 4]);
            circuit.ended(6, alive, at(0));
            fail(&mut circuit, &[5]);
            assert!(!circuit.is_open(), "{alive:?}");
        }
    }

    #[test]
    fn a_probe_without_an_outcome_is_repeated() {
        let mut circuit = Circuit::default();
        circuit.ended(1, Outcome::Unreachable, at(0));
        circuit.began(1);
        circuit.abandoned(2);
        assert_eq!(circuit.start(at(1)), Start::Wait(None));
        circuit.abandoned(1);
        assert_eq!(circuit.start(at(1)), Start::Probe);
    }

    #[test]
    fn a_clock_that_is_set_back_does_not_delay_the_probe() {
        let mut circuit = Circuit::default();
        circuit.ended(1, Outcome::Unreachable, at(10_000));
        circuit.set_back(Duration::from_secs(9_000));
        assert_eq!(circuit.start(at(1_001)), Start::Probe);
    }
}
