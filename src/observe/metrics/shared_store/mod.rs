//! The metrics of a store that several processes share: Redis or Valkey.

mod record;

use prometheus::{GaugeVec, HistogramVec, IntCounter, IntGauge};

use crate::observe::metrics::registry::{Label, MetricRegistry};

/// The histogram buckets for the time of a call to Redis or Valkey, in seconds.
const BUCKETS: &[f64] =
    &[0.000_25, 0.000_5, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5];
/// The names of the calls to Redis or Valkey, as values of the label `call`.
const CALLS: [&str; 30] = [
    "accept",
    "accept_event",
    "await",
    "beat",
    "bind",
    "cas",
    "claim_event",
    "copy",
    "count",
    "due",
    "find",
    "find_copied",
    "forget",
    "load",
    "message_adopt",
    "message_apply",
    "message_begin",
    "message_holders",
    "message_number",
    "message_take",
    "message_take_one",
    "messages",
    "messages_undelivered",
    "messages_waiting",
    "read",
    "release_event",
    "scan",
    "settle_event",
    "touch",
    "unbind",
];

/// The registered metrics of a store that several processes share: Redis or Valkey.
#[derive(Debug)]
pub(in crate::observe::metrics) struct SharedStoreMetrics {
    pub(in crate::observe::metrics) call_seconds: HistogramVec,
    pub(in crate::observe::metrics) clock_skew: GaugeVec,
    pub(in crate::observe::metrics) conflicts: IntCounter,
    pub(in crate::observe::metrics) replaced: IntGauge,
    pub(in crate::observe::metrics) unknown_outcomes: IntCounter,
}

impl SharedStoreMetrics {
    pub(in crate::observe::metrics) fn new(make: &MetricRegistry<'_>) -> prometheus::Result<Self> {
        Ok(Self {
            call_seconds: make.histograms(
                "callgate_store_call_seconds",
                "Time of a call to Redis or Valkey with its repetitions, in seconds.",
                BUCKETS,
                &[Label::closed("call", CALLS)],
            )?,
            clock_skew: make.ages(
                "callgate_store_clock_skew_seconds",
                "By how much the clock of this process is ahead of the clock of Redis or Valkey, in seconds.",
                &[],
            )?,
            conflicts: make.counter(
                "callgate_store_conflicts_total",
                "Changes that were decided again, because another process had changed the same interaction.",
            )?,
            replaced: make.gauge(
                "callgate_store_replaced",
                "1 if the data of Redis or Valkey was replaced since this process started, so that interactions may be missing.",
            )?,
            unknown_outcomes: make.counter(
                "callgate_store_unknown_outcomes_total",
                "Changes whose response was lost, so that it had to be looked up whether they were made.",
            )?,
        })
    }
}
