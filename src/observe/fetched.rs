//! Metrics of fetched documents (key sets, address lists, certificates) and of provider handshakes.

use std::collections::BTreeMap;

use parking_lot::Mutex;
use prometheus::{GaugeVec, IntCounterVec};

use super::maker::{Label, Maker};
use super::metrics::Metrics;

/// Values of the label `outcome` of a fetch.
const OUTCOMES: [&str; 2] = ["ok", "failed"];

/// The registered metrics of this file.
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
                "Time since the last successful fetch of a key set or address list, in seconds. No series exists before the first one.",
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

impl Metrics {
    /// Counts a finished fetch. `feed` is a configured URL, `certificate` or `confirmation`.
    pub fn fetched(&self, feed: &str, ok: bool) {
        // Creates both series with the first fetch, so that the first failure is an increase that an alert can detect.
        for outcome in OUTCOMES {
            self.fetched.fetches.with_label_values(&[feed, outcome]);
        }
        let [good, bad] = OUTCOMES;
        let outcome = if ok { good } else { bad };
        self.fetched.fetches.with_label_values(&[feed, outcome]).inc();
    }

    /// Sets the age of a feed, in seconds. `None`: it was not fetched yet, and the call has no effect.
    pub fn feed_age(&self, feed: &str, seconds: Option<f64>) {
        if let Some(seconds) = seconds {
            self.fetched.age_seconds.with_label_values(&[feed]).set(seconds);
            self.fetched.ages.lock().insert(feed.to_owned(), seconds);
        }
    }

    /// Removes the age of a feed that is no longer fetched.
    pub fn feed_gone(&self, feed: &str) {
        let _ = self.fetched.age_seconds.remove_label_values(&[feed]);
        self.fetched.ages.lock().remove(feed);
    }

    /// Returns the age of each fetched feed, in seconds.
    pub fn feed_ages(&self) -> BTreeMap<String, f64> {
        self.fetched.ages.lock().clone()
    }

    /// Counts a handshake that was answered.
    pub fn handshake(&self, route: &str, handshake: &str) {
        self.fetched.handshakes.with_label_values(&[route, handshake]).inc();
    }
}
