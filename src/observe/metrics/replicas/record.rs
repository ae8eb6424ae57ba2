//! Records the metrics of several members of one installation.

use std::time::Duration;

use crate::observe::metrics::metrics::Metrics;

impl Metrics {
    /// Counts an attempt to hand over a callback. `took` is the time until the response, if there is one.
    pub fn replica_request(&self, outcome: &str, took: Option<Duration>) {
        self.replicas.requests.with_label_values(&[outcome]).inc();
        if let Some(took) = took {
            self.replicas.seconds.observe(took.as_secs_f64());
        }
    }

    /// Counts a request to the replica listener without a valid proof.
    pub fn replica_denied(&self) {
        self.replicas.denied.inc();
    }

    /// Counts a callback whose owner is gone.
    pub fn owner_gone(&self, did: &str) {
        self.replicas.owner_gone.with_label_values(&[did]).inc();
    }

    /// Sets the number of present members.
    pub fn members(&self, count: usize) {
        self.replicas.members.set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// Counts the interactions that this process has taken over from another member.
    pub fn taken_over(&self, count: usize) {
        self.replicas.taken_over.inc_by(count as u64);
    }

    /// Counts the interactions that another member has taken over, and those that were lost.
    pub fn handed_over(&self, taken: usize, lost: usize) {
        for (result, count) in [("taken", taken), ("lost", lost)] {
            self.replicas.handed_over.with_label_values(&[result]).inc_by(count as u64);
        }
    }
}
