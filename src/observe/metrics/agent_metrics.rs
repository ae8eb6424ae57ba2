//! Metrics of the requests that the agents receive.

use prometheus::IntCounterVec;

use super::metrics::Metrics;
use super::registry::{Label, MetricRegistry};
use crate::denial::Denial;

/// The result of a request to an agent that answered with 2xx.
pub const AGENT_ACCEPTED: &str = "accepted";
/// The result of a request to an agent that answered with another status.
pub const AGENT_REJECTED: &str = "rejected";
/// The other results of a request to an agent, which are the codes of denials.
const FAULTS: [Denial; 5] = [
    Denial::AgentGarbled,
    Denial::AgentRedirected,
    Denial::AgentReset,
    Denial::AgentTimeout,
    Denial::AgentUnreachable,
];

/// Metrics of the requests that the agents receive.
#[derive(Debug)]
pub(super) struct AgentMetrics {
    requests: IntCounterVec,
}

/// Returns all results of a request to an agent.
fn results() -> impl Iterator<Item = &'static str> {
    [AGENT_ACCEPTED, AGENT_REJECTED].into_iter().chain(FAULTS.iter().map(|denial| denial.code()))
}

impl AgentMetrics {
    pub(super) fn new(make: &MetricRegistry<'_>) -> prometheus::Result<Self> {
        Ok(Self {
            requests: make.counters(
                "callgate_agent_requests_total",
                "Callbacks and notices for an agent, by result: accepted (2xx), rejected (another status), or the reason why there is no valid response.",
                &[Label::agent(), Label::closed("result", results())],
            )?,
        })
    }
}

impl Metrics {
    /// Counts a callback or notice for an agent. `result` is [`AGENT_ACCEPTED`], [`AGENT_REJECTED`] or the code of a
    /// denial.
    pub fn agent_request(&self, agent: &str, result: &str) {
        self.agents.requests.with_label_values(&[agent, result]).inc();
    }

    /// Creates a series with the value 0 for each result of a request to this agent. An alert can then detect even the
    /// first failure, as an increase from 0.
    pub fn expect_agent(&self, agent: &str) {
        for result in results() {
            self.agents.requests.with_label_values(&[agent, result]);
        }
    }
}
