//! Records the metrics of an installation of several processes (replicas).

use std::time::Duration;

use crate::observe::metrics::metrics::Metrics;

impl Metrics {
    /// Counts an attempt to forward a callback to the process that owns its interaction. `took` is the time until the
    /// response. `None` means that there was no response.
    pub fn replica_request(&self, outcome: &str, took: Option<Duration>) {
        self.replicas.requests.with_label_values(&[outcome]).inc();
        if let Some(took) = took {
            self.replicas.seconds.observe(took.as_secs_f64());
        }
    }

    /// Counts a request to the replica listener that has no valid proof of another replica.
    pub fn replica_denied(&self) {
        self.replicas.denied.inc();
    }

    /// Counts a callback for an interaction whose owner process is dead. `did` is what Callgate did with the callback
    /// because of the setting `replicas.gone`: `adopted`, `refused` or `retry`.
    pub fn owner_gone(&self, did: &str) {
        self.replicas.owner_gone.with_label_values(&[did]).inc();
    }

    /// Sets the number of replicas that are alive, including this process.
    pub fn members(&self, count: usize) {
        self.replicas.members.set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// Counts interactions that this process took over from a replica that stopped.
    pub fn taken_over(&self, count: usize) {
        self.replicas.taken_over.inc_by(count as u64);
    }

    /// Counts the interactions of this process when the process stops. Another replica took over `taken` interactions.
    /// No replica took over `lost` interactions.
    pub fn handed_over(&self, taken: usize, lost: usize) {
        for (result, count) in [("taken", taken), ("lost", lost)] {
            self.replicas.handed_over.with_label_values(&[result]).inc_by(count as u64);
        }
    }
}
