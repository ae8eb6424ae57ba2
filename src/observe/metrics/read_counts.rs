//! Reads the values of counters, for the admin page.

use prometheus::core::Collector;

use super::metrics::Metrics;

/// The number of requests that have the same name (of a route or of an egress rule), provider, verdict and reason.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Count {
    /// The name of the route or of the egress rule.
    pub name: String,
    /// The name of the provider. Empty for requests of the agent.
    pub provider: String,
    /// The verdict about the requests, such as `allow` or `deny`.
    pub verdict: String,
    /// The reason of the verdict: the code of a denial, or another reason such as `ok`.
    pub reason: String,
    /// The number of requests since the start of the process.
    pub requests: u64,
}

impl Metrics {
    /// Returns the numbers of ingress requests since the start, by route, provider, verdict and reason.
    pub fn ingress_counts(&self) -> Vec<Count> {
        counts(&self.ingress.ingress_requests, "route")
    }

    /// Returns the numbers of requests of the agent since the start, by egress rule, verdict and reason.
    pub fn egress_counts(&self) -> Vec<Count> {
        counts(&self.egress.egress_requests, "rule")
    }
}

fn counts(counters: &impl Collector, name: &str) -> Vec<Count> {
    let families = counters.collect();
    let metrics = families.iter().flat_map(|family| family.get_metric());
    let count = |metric: &prometheus::proto::Metric| {
        let label = |name: &str| {
            let found = metric.get_label().iter().find(|label| label.name() == name);
            found.map(|label| label.value().to_owned()).unwrap_or_default()
        };
        Count {
            name: label(name),
            provider: label("provider"),
            verdict: label("verdict"),
            reason: label("reason"),
            requests: metric.get_counter().get_value() as u64,
        }
    };
    metrics.map(count).filter(|count| count.requests > 0).collect()
}
