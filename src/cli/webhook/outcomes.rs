//! The metrics of the webhook: how many requests it has answered, by outcome.

use std::sync::atomic::{AtomicU64, Ordering};

/// What the webhook did with a request.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Outcome {
    /// It added the sidecar.
    Patched,
    /// The object stays as it is.
    Unchanged,
    /// The workload cannot have the sidecar. The webhook denied it.
    Denied,
    /// The workload cannot have the sidecar. The webhook admitted it with a warning.
    Unusable,
    /// The request was not an AdmissionReview.
    Invalid,
}

const ALL: [(Outcome, &str); 5] = [
    (Outcome::Patched, "patched"),
    (Outcome::Unchanged, "unchanged"),
    (Outcome::Denied, "denied"),
    (Outcome::Unusable, "unusable"),
    (Outcome::Invalid, "invalid"),
];

/// The number of requests by outcome.
#[derive(Default)]
pub(super) struct Outcomes([AtomicU64; ALL.len()]);

impl Outcomes {
    pub(super) fn count(&self, outcome: Outcome) {
        for ((known, _), counter) in ALL.iter().zip(&self.0) {
            if *known == outcome {
                counter.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// Returns the metrics in the text format of Prometheus.
    pub(super) fn text(&self) -> String {
        let mut text = "# HELP callgate_webhook_reviews_total Requests to /mutate by outcome\n\
                        # TYPE callgate_webhook_reviews_total counter\n"
            .to_owned();
        for ((_, name), counter) in ALL.iter().zip(&self.0) {
            let count = counter.load(Ordering::Relaxed);
            text.push_str(&format!("callgate_webhook_reviews_total{{outcome=\"{name}\"}} {count}\n"));
        }
        text
    }
}
