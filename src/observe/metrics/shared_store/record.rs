//! Records the metrics of a store that several processes share, and the failures of any store.

use crate::observe::metrics::metrics::Metrics;

impl Metrics {
    /// Records the duration of a commit to the ledger file, in seconds.
    pub fn commit(&self, seconds: f64) {
        self.ledger.commit_seconds.observe(seconds);
    }

    /// Sets whether writing to the ledger fails at present. The ledger is in a file, or in Redis or Valkey.
    pub fn store_failed(&self, failed: bool) {
        self.ledger.store_failed.set(i64::from(failed));
    }

    /// Records the duration of a call to Redis or Valkey, in seconds. `call` is the name of the call.
    pub fn store_call(&self, call: &str, seconds: f64) {
        self.shared_store.call_seconds.with_label_values(&[call]).observe(seconds);
    }

    /// Counts a repeated decision about a change of an interaction in the shared store. The decision is repeated if
    /// another process has changed the same interaction in the meantime.
    pub fn store_conflict(&self) {
        self.shared_store.conflicts.inc();
    }

    /// Counts a change of the shared store if the response of Redis or Valkey to the change was lost. This process must
    /// then look up whether the change was made.
    pub fn store_unknown_outcome(&self) {
        self.shared_store.unknown_outcomes.inc();
    }

    /// Sets whether the data of Redis or Valkey was replaced since this process started.
    pub fn store_replaced(&self, is_replaced: bool) {
        self.shared_store.replaced.set(i64::from(is_replaced));
    }

    /// Sets by how many seconds the clock of this process is ahead of the clock of Redis or Valkey.
    pub fn store_clock_skew(&self, seconds: f64) {
        self.shared_store.clock_skew.with_label_values::<&str>(&[]).set(seconds);
    }

    /// Creates the time series of a route that has interactions in a shared store. Does not change the number of open
    /// interactions. [`Self::shared_open`] sets this number.
    pub fn shared_interaction_opened(&self, route: &str) {
        self.ledger.expect(route);
    }

    /// Counts an interaction of a shared store that ended. Does not change the number of open interactions, because
    /// another process may have opened this interaction. [`Self::shared_open`] sets this number.
    pub fn shared_interaction_ended(&self, route: &str, outcome: &str) {
        self.ledger.ended.with_label_values(&[route, outcome]).inc();
    }

    /// Sets the number of open interactions of each route. Each process counts the interactions in a part of the shared
    /// ledger. `counts` is the result of this process.
    pub fn shared_open<'r>(&self, counts: impl Iterator<Item = (&'r str, i64)>) {
        self.ledger.open.reset();
        for (route, count) in counts {
            self.ledger.open.with_label_values(&[route]).set(count);
        }
    }
}
