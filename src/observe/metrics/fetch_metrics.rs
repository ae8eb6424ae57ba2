//! Metrics of fetched documents (key sets, address lists, certificates) and of provider handshakes.

use std::collections::BTreeMap;

use parking_lot::Mutex;
use prometheus::{GaugeVec, IntCounterVec, IntGaugeVec};

use super::registry::{Label, MetricRegistry};

/// The values of the label `outcome` in the metric that counts fetches.
pub(super) const OUTCOMES: [&str; 2] = ["ok", "failed"];

/// The registered metrics of fetched documents and of provider handshakes.
#[derive(Debug)]
pub(super) struct FetchMetrics {
    pub(super) age_seconds: GaugeVec,
    pub(super) available: IntGaugeVec,
    pub(super) ages: Mutex<BTreeMap<String, f64>>,
    pub(super) fetches: IntCounterVec,
    pub(super) handshakes: IntCounterVec,
}

impl FetchMetrics {
    pub(super) fn new(make: &MetricRegistry<'_>) -> prometheus::Result<Self> {
        Ok(Self {
            ages: Mutex::default(),
            age_seconds: make.ages(
                "callgate_feed_age_seconds",
                "Time since the last successful fetch of a key set or address list, in seconds. No series exists before the first one.",
                &[Label::from("feed", "a configured URL")],
            )?,
            available: make.gauges(
                "callgate_feed_available",
                "1 if Callgate has a key set or address list, and 0 if it was never fetched or its keys are too old. Callbacks that need it then get 503.",
                &[Label::from("feed", "a configured URL")],
            )?,
            fetches: make.counters(
                "callgate_feed_fetches_total",
                "Attempts to fetch a key set, an address list or a certificate, or to confirm a subscription, by outcome (ok, failed).",
                &[
                    Label::from("feed", "a configured URL, or `certificate` or `confirmation`"),
                    Label::closed("outcome", OUTCOMES),
                ],
            )?,
            handshakes: make.counters(
                "callgate_handshakes_total",
                "Provider handshakes that Callgate answered.",
                &[Label::route(), Label::from("handshake", "the provider's scheme")],
            )?,
        })
    }
}
