//! Records the metrics of a store that several processes share.

use crate::observe::metrics::metrics::Metrics;

impl Metrics {
    /// Records the duration of a commit to the ledger file.
    pub fn commit(&self, seconds: f64) {
        self.ledger.commit_seconds.observe(seconds);
    }

    /// Sets whether the ledger cannot be written at present: its file, or Redis or Valkey.
    pub fn store_failed(&self, failed: bool) {
        self.ledger.store_failed.set(i64::from(failed));
    }

    /// Records the time of a call.
    pub fn store_call(&self, call: &str, seconds: f64) {
        self.shared_store.call_seconds.with_label_values(&[call]).observe(seconds);
    }

    /// Counts a change that was decided again because of a change of another process.
    pub fn store_conflict(&self) {
        self.shared_store.conflicts.inc();
    }

    /// Counts a change whose response was lost.
    pub fn store_unknown_outcome(&self) {
        self.shared_store.unknown_outcomes.inc();
    }

    /// Sets whether the data of the store was replaced.
    pub fn store_replaced(&self, is_replaced: bool) {
        self.shared_store.replaced.set(i64::from(is_replaced));
    }

    /// Sets by how much the clock of this process is ahead of the clock of the store.
    pub fn store_clock_skew(&self, seconds: f64) {
        self.shared_store.clock_skew.with_label_values::<&str>(&[]).set(seconds);
    }

    /// Records that a route has interactions in a shared store.
    pub fn shared_interaction_opened(&self, route: &str) {
        self.ledger.expect(route);
    }

    /// Counts an interaction of a shared store that ended. The number of open ones is counted separately, because
    /// another process may have opened it.
    pub fn shared_interaction_ended(&self, route: &str, outcome: &str) {
        self.ledger.ended.with_label_values(&[route, outcome]).inc();
    }

    /// Sets the numbers of open interactions of the part of the ledger that this process counts.
    pub fn shared_open<'r>(&self, counts: impl Iterator<Item = (&'r str, i64)>) {
        self.ledger.open.reset();
        for (route, count) in counts {
            self.ledger.open.with_label_values(&[route]).set(count);
        }
    }
}
