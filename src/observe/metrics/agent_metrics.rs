//! Metrics of the requests that the agents receive.

use prometheus::IntCounterVec;

use super::metrics::Metrics;
use super::registry::{Label, MetricRegistry};
use crate::denial::Denial;

/// The value of the label `result` for a request that an agent answered with 2xx.
pub const AGENT_ACCEPTED: &str = "accepted";
/// The value of the label `result` for a request that an agent answered with a status other than 2xx.
pub const AGENT_REJECTED: &str = "rejected";
/// The denials for failed requests to an agent. The codes of these denials are values of the label `result`.
const FAULTS: [Denial; 5] = [
    Denial::AgentGarbled,
    Denial::AgentRedirected,
    Denial::AgentReset,
    Denial::AgentTimeout,
    Denial::AgentUnreachable,
];

/// The registered metrics of the requests that the agents receive.
#[derive(Debug)]
pub(super) struct AgentMetrics {
    requests: IntCounterVec,
    rejected: IntCounterVec,
}

/// Returns all values of the label `result` for requests to an agent.
fn results() -> impl Iterator<Item = &'static str> {
    [AGENT_ACCEPTED, AGENT_REJECTED].into_iter().chain(FAULTS.iter().map(|denial| denial.code()))
}

impl AgentMetrics {
    pub(super) fn new(make: &MetricRegistry<'_>) -> prometheus::Result<Self> {
        Ok(Self {
            requests: make.counters(
                "callgate_agent_requests_total",
                "Callbacks, notices and streamed requests for an agent, and attempts to deliver the messages of an inbox, by result: accepted (2xx), rejected (another status), or the reason why there is no valid response.",
                &[Label::agent(), Label::closed("result", results())],
            )?,
            rejected: make.counters(
                "callgate_deliver_rejected_total",
                "Callbacks with the verdict allow or observe that the agent answered with a status other than 2xx. The provider received this status. Callbacks of an inbox are in callgate_inbox_attempts_total instead, and requests of streams are not counted.",
                &[Label::route()],
            )?,
        })
    }
}

impl Metrics {
    /// Counts a callback or a notice that was sent to an agent. `result` is [`AGENT_ACCEPTED`], [`AGENT_REJECTED`] or
    /// the code of a denial.
    pub fn agent_request(&self, agent: &str, result: &str) {
        self.agents.requests.with_label_values(&[agent, result]).inc();
    }

    /// Counts a callback that the agent received and answered with a status other than 2xx.
    pub fn delivery_rejected(&self, route: &str) {
        self.agents.rejected.with_label_values(&[route]).inc();
    }

    /// Creates the time series of rejected callbacks of a route with the value 0. An alert can then detect even the
    /// first rejected callback, as an increase from 0.
    pub fn expect_route(&self, route: &str) {
        self.agents.rejected.with_label_values(&[route]);
    }

    /// Creates a time series with the value 0 for each result of a request to this agent. An alert can then detect even
    /// the first failure, as an increase from 0.
    pub fn expect_agent(&self, agent: &str) {
        for result in results() {
            self.agents.requests.with_label_values(&[agent, result]);
        }
    }
}
