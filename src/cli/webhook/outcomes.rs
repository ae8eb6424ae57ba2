//! The metrics of the webhook: the number of requests that it has answered, by outcome.

use std::sync::atomic::{AtomicU64, Ordering};

/// The outcome of a request to the webhook.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Outcome {
    /// The webhook added the sidecar to the object.
    Patched,
    /// The webhook did not change the object.
    Unchanged,
    /// The sidecar cannot be added to the workload. The webhook denied the request.
    Denied,
    /// The sidecar cannot be added to the workload. The webhook admitted the workload with a warning.
    Unusable,
    /// The body of the request was not an AdmissionReview of Kubernetes.
    Invalid,
    /// The response was not ready in time. The webhook answered with status 503.
    Late,
}

const ALL: [(Outcome, &str); 6] = [
    (Outcome::Patched, "patched"),
    (Outcome::Unchanged, "unchanged"),
    (Outcome::Denied, "denied"),
    (Outcome::Unusable, "unusable"),
    (Outcome::Invalid, "invalid"),
    (Outcome::Late, "late"),
];

/// The number of requests to the webhook, by outcome.
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

    /// Returns the metrics of the webhook in the text format of Prometheus.
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
