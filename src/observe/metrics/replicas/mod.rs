//! The metrics of an installation of several processes (replicas).

mod record;

use prometheus::{Histogram, IntCounter, IntCounterVec, IntGauge};

use crate::observe::metrics::registry::{Label, MetricRegistry};

/// The histogram buckets for the time to forward a callback to the process that owns its interaction, in seconds.
const BUCKETS: &[f64] =
    &[0.000_25, 0.000_5, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];
/// The outcomes of attempts to forward a callback to the process that owns its interaction.
const OUTCOMES: [&str; 7] =
    ["answered", "mistaken", "moved", "refused", "stopping", "unknown", "unreachable"];

/// The registered metrics of an installation of several processes (replicas).
#[derive(Debug)]
pub(in crate::observe::metrics) struct ReplicaMetrics {
    pub(in crate::observe::metrics) denied: IntCounter,
    pub(in crate::observe::metrics) handed_over: IntCounterVec,
    pub(in crate::observe::metrics) members: IntGauge,
    pub(in crate::observe::metrics) owner_gone: IntCounterVec,
    pub(in crate::observe::metrics) requests: IntCounterVec,
    pub(in crate::observe::metrics) seconds: Histogram,
    pub(in crate::observe::metrics) taken_over: IntCounter,
}

impl ReplicaMetrics {
    pub(in crate::observe::metrics) fn new(make: &MetricRegistry<'_>) -> prometheus::Result<Self> {
        Ok(Self {
            denied: make.counter(
                "callgate_replica_denied_total",
                "Requests to the replica listener without a valid proof of another replica.",
            )?,
            handed_over: make.counters(
                "callgate_ledger_handed_over_total",
                "Interactions at the end of the process, by whether another replica has taken them over.",
                &[Label::closed("result", ["taken", "lost"])],
            )?,
            members: make.gauge(
                "callgate_members",
                "Replicas that are present, including this one. 0 without the section `replicas`.",
            )?,
            owner_gone: make.counters(
                "callgate_owner_gone_total",
                "Callbacks whose owner is gone, by what `replicas.gone` did.",
                &[Label::closed("did", ["adopted", "refused", "retry"])],
            )?,
            requests: make.counters(
                "callgate_replica_requests_total",
                "Attempts to hand a callback over to another replica, by outcome.",
                &[Label::closed("outcome", OUTCOMES)],
            )?,
            seconds: make.histogram(
                "callgate_replica_seconds",
                "Time from the decision to hand a callback over to the head of the owner's response, in seconds.",
                BUCKETS,
            )?,
            taken_over: make.counter(
                "callgate_ledger_taken_over_total",
                "Interactions that this process has taken over from replicas that stopped.",
            )?,
        })
    }
}
