//! Metrics of what is fetched, and of handshakes.

use std::collections::BTreeMap;

use parking_lot::Mutex;
use prometheus::{GaugeVec, IntCounterVec};

use super::maker::{Label, Maker};
use super::metrics::Metrics;

/// How a fetch ends.
const OUTCOMES: [&str; 2] = ["ok", "failed"];

/// What is fetched from elsewhere, and who made sure of an address of ours.
#[derive(Debug)]
pub(super) struct Fetched {
    age_seconds: GaugeVec,
    ages: Mutex<BTreeMap<String, f64>>,
    fetches: IntCounterVec,
    handshakes: IntCounterVec,
}

impl Fetched {
    pub(super) fn new(make: &Maker<'_>) -> prometheus::Result<Self> {
        Ok(Self {
            ages: Mutex::default(),
            age_seconds: make.ages(
                "callgate_feed_age_seconds",
                "How long ago a key set or address list was last fetched; no series until the first time.",
                &[Label::from("feed", "an address that is fetched from")],
            )?,
            fetches: make.counters(
                "callgate_feed_fetches_total",
                "Attempts to fetch a key set, an address list or a certificate, by outcome (ok, failed).",
                &[
                    Label::from("feed", "an address that is fetched from, `certificate` or `confirmation`"),
                    Label::closed("outcome", OUTCOMES),
                ],
            )?,
            handshakes: make.counters(
                "callgate_handshakes_total",
                "Handshakes of providers that were answered.",
                &[Label::route(), Label::from("handshake", "the provider's scheme")],
            )?,
        })
    }
}

impl Metrics {
    /// A fetch ended. `feed` is an address from the configuration, `certificate` or `confirmation`.
    pub fn fetched(&self, feed: &str, ok: bool) {
        // Both are there from the first one on, so that the first failure is an increase.
        for outcome in OUTCOMES {
            self.fetched.fetches.with_label_values(&[feed, outcome]);
        }
        let [good, bad] = OUTCOMES;
        let outcome = if ok { good } else { bad };
        self.fetched.fetches.with_label_values(&[feed, outcome]).inc();
    }

    /// How old something fetched is; `None`: it was never had.
    pub fn feed_age(&self, feed: &str, seconds: Option<f64>) {
        if let Some(seconds) = seconds {
            self.fetched.age_seconds.with_label_values(&[feed]).set(seconds);
            self.fetched.ages.lock().insert(feed.to_owned(), seconds);
        }
    }

    /// Something is not fetched any more.
    pub fn feed_gone(&self, feed: &str) {
        let _ = self.fetched.age_seconds.remove_label_values(&[feed]);
        self.fetched.ages.lock().remove(feed);
    }

    /// How old each thing is that was fetched, in seconds.
    pub fn feed_ages(&self) -> BTreeMap<String, f64> {
        self.fetched.ages.lock().clone()
    }

    /// A handshake was answered.
    pub fn handshake(&self, route: &str, handshake: &str) {
        self.fetched.handshakes.with_label_values(&[route, handshake]).inc();
    }
}
