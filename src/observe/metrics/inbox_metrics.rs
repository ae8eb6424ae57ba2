//! Metrics of the inbox.

use prometheus::{GaugeVec, HistogramVec, IntCounterVec, IntGauge, IntGaugeVec};

use super::registry::{Label, MetricRegistry};
use crate::inbox::Cause;

/// The histogram buckets for the time until a message of the inbox is delivered, in seconds. The time is some
/// milliseconds if the agent is reachable. If the agent is not reachable, it can be days.
const DELAY_BUCKETS: &[f64] = &[
    5e-3, 1e-2, 2.5e-2, 1e-1, 5e-1, 1.0, 5.0, 30.0, 60.0, 300.0, 1800.0, 3600.0, 21_600.0, 86_400.0,
    259_200.0,
];
/// The results of an attempt to deliver a message of the inbox, as values of the label `result`.
pub(super) const RESULTS: [&str; 6] = ["accepted", "busy", "failed", "gone", "rejected", "unreachable"];
/// The outcomes of a message of the inbox, as values of the label `outcome`. The causes of dead messages are additional
/// values of this label.
const ENDS: [&str; 4] = ["delivered", "erased", "overtaken", "taken"];
/// The results of a request that wakes an agent, as values of the label `result`.
const WOKEN: [&str; 2] = ["failed", "sent"];

/// The registered metrics of the inbox.
#[derive(Debug)]
pub(super) struct InboxMetrics {
    pub(super) accepted: IntCounterVec,
    pub(super) attempts: IntCounterVec,
    pub(super) bytes: IntGauge,
    pub(super) bytes_max: IntGauge,
    pub(super) circuit_open: IntGaugeVec,
    pub(super) dead: IntGaugeVec,
    pub(super) delay: HistogramVec,
    pub(super) delivered: IntGaugeVec,
    pub(super) messages_max: IntGauge,
    pub(super) oldest: GaugeVec,
    pub(super) settled: IntCounterVec,
    pub(super) waiting: IntGaugeVec,
    pub(super) wakes: IntCounterVec,
}

/// Returns all outcomes of a message of the inbox, including the causes of dead messages.
pub(super) fn ends() -> impl Iterator<Item = &'static str> {
    ENDS.into_iter().chain(Cause::ALL.map(Cause::name))
}

impl InboxMetrics {
    pub(super) fn new(make: &MetricRegistry<'_>) -> prometheus::Result<Self> {
        Ok(Self {
            accepted: make.counters(
                "callgate_inbox_accepted_total",
                "Callbacks that were kept in the inbox and answered with 202.",
                &[Label::route()],
            )?,
            attempts: make.counters(
                "callgate_inbox_attempts_total",
                "Attempts to deliver a message of the inbox, by result: accepted (2xx), busy (408, 425, 429), failed (5xx or no answer), gone (410), rejected (another 4xx), unreachable.",
                &[Label::route(), Label::closed("result", RESULTS)],
            )?,
            bytes: make.gauge("callgate_inbox_bytes", "Size of all messages in the inbox, in bytes.")?,
            bytes_max: make.gauge("callgate_inbox_bytes_max", "Maximum size of all messages in the inbox, in bytes. When it is reached, callbacks are denied.")?,
            circuit_open: make.gauges(
                "callgate_inbox_circuit_open",
                "1 while deliveries of the inbox to an agent pause because it does not respond, else 0.",
                &[Label::agent()],
            )?,
            dead: make.gauges(
                "callgate_inbox_dead",
                "Messages in the inbox that Callgate does not try to deliver any more, and that are kept for people.",
                &[Label::route()],
            )?,
            delay: make.histograms(
                "callgate_inbox_delay_seconds",
                "Time from the acceptance of a message to its delivery, in seconds.",
                DELAY_BUCKETS,
                &[Label::route()],
            )?,
            delivered: make.gauges(
                "callgate_inbox_delivered",
                "Delivered messages that are kept because of `inbox.keep.delivered`.",
                &[Label::route()],
            )?,
            messages_max: make.gauge(
                "callgate_inbox_messages_max",
                "Maximum number of messages in the inbox. When it is reached, callbacks are denied.",
            )?,
            oldest: make.ages(
                "callgate_inbox_oldest_seconds",
                "Age of the oldest message that waits for the agent, in seconds. 0 if none waits.",
                &[Label::route()],
            )?,
            settled: make.counters(
                "callgate_inbox_settled_total",
                "Messages that ceased to wait, by outcome: delivered, taken (by an agent that pulls), overtaken, erased, or the cause for which they are dead.",
                &[Label::route(), Label::closed("outcome", ends())],
            )?,
            waiting: make.gauges(
                "callgate_inbox_waiting",
                "Messages in the inbox that wait for the agent, or that are being delivered.",
                &[Label::route()],
            )?,
            wakes: make.counters(
                "callgate_inbox_wakes_total",
                "Requests to `agent.wake`, by result.",
                &[Label::agent(), Label::closed("result", WOKEN)],
            )?,
        })
    }
}
