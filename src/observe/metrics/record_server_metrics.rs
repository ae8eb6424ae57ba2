//! Records the metrics of the server, of fetched documents (key sets, address lists, certificates, confirmations of
//! subscriptions), and of the handshakes with which providers verify a URL.

use std::collections::BTreeMap;

use super::fetch_metrics::OUTCOMES;
use super::metrics::Metrics;
use super::process_metrics::ProcessUsage;

// === Server ===

impl Metrics {
    /// Counts an ingress connection that was closed before its first request. `reason` is a value such as `full` or
    /// `tls`.
    pub fn connection_refused(&self, reason: &str) {
        self.server.connections_refused.with_label_values(&[reason]).inc();
    }

    /// Sets the number of open ingress connections, and the memory in bytes that is reserved for request bodies.
    pub fn held(&self, connections: usize, body_bytes: u64) {
        self.server.connections.set(i64::try_from(connections).unwrap_or(i64::MAX));
        self.server.body_bytes.set(i64::try_from(body_bytes).unwrap_or(i64::MAX));
    }

    /// Sets the expiry time of each server certificate in use. `ends` contains the file of each certificate and its
    /// expiry time in Unix seconds. Removes the time series of all files that `ends` does not contain.
    pub fn certificates<'c>(&self, ends: impl Iterator<Item = (&'c str, i64)>) {
        let mut known = self.server.certificates.lock();
        let gone = std::mem::take(&mut *known);
        for (file, end) in ends {
            self.server.certificate_ends.with_label_values(&[file]).set(end);
            known.insert(file.to_owned());
        }
        for file in gone.difference(&known) {
            let _ = self.server.certificate_ends.remove_label_values(&[file]);
        }
    }

    /// Counts a batch of trace spans that was sent. `ok` is true if the collector accepted the batch.
    pub fn traces_sent(&self, ok: bool) {
        self.server.traces.with_label_values(&[if ok { "ok" } else { "failed" }]).inc();
    }

    /// Returns the files of the server certificates in use, each with its expiry time in Unix seconds.
    pub fn certificate_ends(&self) -> Vec<(String, i64)> {
        let known = self.server.certificates.lock();
        let end = |file: &String| self.server.certificate_ends.with_label_values(&[file]).get();
        known.iter().map(|file| (file.clone(), end(file))).collect()
    }

    /// Counts a request on a route in observe mode that would have been denied for this reason.
    pub fn observed(&self, route: &str, provider: &str, reason: &str) {
        self.server.observed.with_label_values(&[route, provider, reason]).inc();
    }

    /// Sets the number of routes with `stream: true`, which forward requests while they arrive.
    pub fn routes_streaming(&self, count: usize) {
        self.server.routes_streaming.set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// Sets the metrics of the resources that the process uses.
    pub fn process(&self, usage: &ProcessUsage) {
        let process = &self.server.process;
        let no_labels: &[&str] = &[];
        for (gauges, value) in [
            (&process.max_fds, usage.max_fds),
            (&process.open_fds, usage.open_fds),
            (&process.resident_bytes, usage.resident_bytes),
            (&process.threads, usage.threads),
            (&process.virtual_bytes, usage.virtual_bytes),
        ] {
            if let Some(value) = value {
                gauges.with_label_values(no_labels).set(i64::try_from(value).unwrap_or(i64::MAX));
            }
        }
        if let Some(cpu) = usage.cpu {
            let counter = process.cpu_seconds.with_label_values(no_labels);
            // A counter cannot be set to a value. Therefore the counter is reset and then increased. If two scrapes do
            // this at the same time, the value can be twice as large as it should be.
            counter.reset();
            counter.inc_by(cpu.as_secs_f64());
        }
        if let Some(started) = usage.started {
            process.start_time.with_label_values(no_labels).set(started);
        }
    }

    /// Sets the number of ended interactions that the store retains only so that they can be looked up
    /// (`store.keep_ended`).
    pub fn store_kept(&self, interactions: usize) {
        self.server.interactions_kept.set(i64::try_from(interactions).unwrap_or(i64::MAX));
    }

    /// Sets the routes whose interactions can end only by their deadline.
    pub fn routes_only_expire<'r>(&self, routes: impl Iterator<Item = &'r str>) {
        self.server.routes_only_expire.reset();
        routes.for_each(|route| self.server.routes_only_expire.with_label_values(&[route]).set(1));
    }

    /// Sets the number of routes in observe mode.
    pub fn routes_observing(&self, count: usize) {
        self.server.routes_observing.set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// Records that a configuration was applied, with its generation number and the time in Unix seconds. Generation 1
    /// is the configuration at start, which does not count as a reload.
    pub fn config_taken(&self, generation: u64, unix_secs: i64) {
        self.server.generation.set(i64::try_from(generation).unwrap_or(i64::MAX));
        self.server.loaded.set(unix_secs);
        self.server.reload_failed.set(0);
        if generation > 1 {
            self.server.reloads.with_label_values(&["ok"]).inc();
        }
    }

    /// Counts a request to the admin listener if its response has the status 401 or 403. Ignores responses with another
    /// status.
    pub fn admin_answered(&self, status: u16) {
        let refused = match status {
            401 => "401",
            403 => "403",
            _ => return,
        };
        self.server.admin_refused.with_label_values(&[refused]).inc();
    }

    /// Counts a reload that failed, because the new configuration was rejected.
    pub fn config_refused(&self) {
        self.server.reload_failed.set(1);
        self.server.reloads.with_label_values(&["refused"]).inc();
    }
}

// === Fetches and handshakes ===

impl Metrics {
    /// Counts a finished fetch of a document. `feed` is a configured URL, `certificate` or `confirmation`. `ok` is true
    /// if the fetch succeeded.
    pub fn fetched(&self, feed: &str, ok: bool) {
        // Both series are created at the first fetch. An alert can then detect even the first failure, as an increase
        // from 0.
        for outcome in OUTCOMES {
            self.fetch.fetches.with_label_values(&[feed, outcome]);
        }
        let [good, bad] = OUTCOMES;
        let outcome = if ok { good } else { bad };
        self.fetch.fetches.with_label_values(&[feed, outcome]).inc();
    }

    /// Sets the time since the last successful fetch of a key set or address list. `feed` is its URL. `seconds` is
    /// `None` if the document was not fetched yet. The function then has no effect.
    pub fn feed_age(&self, feed: &str, seconds: Option<f64>) {
        if let Some(seconds) = seconds {
            self.fetch.age_seconds.with_label_values(&[feed]).set(seconds);
            self.fetch.ages.lock().insert(feed.to_owned(), seconds);
        }
    }

    /// Sets whether the content of a key set or address list is available. `feed` is its URL.
    pub fn feed_available(&self, feed: &str, is_available: bool) {
        self.fetch.available.with_label_values(&[feed]).set(is_available.into());
    }

    /// Removes the time series of a key set or address list that is no longer fetched. `feed` is its URL.
    pub fn feed_gone(&self, feed: &str) {
        let _ = self.fetch.age_seconds.remove_label_values(&[feed]);
        let _ = self.fetch.available.remove_label_values(&[feed]);
        self.fetch.ages.lock().remove(feed);
    }

    /// Returns the time since the last successful fetch of each key set and address list, in seconds, by its URL.
    pub fn feed_ages(&self) -> BTreeMap<String, f64> {
        self.fetch.ages.lock().clone()
    }

    /// Counts a provider handshake that Callgate answered. `handshake` is the name of the handshake.
    pub fn handshake(&self, route: &str, handshake: &str) {
        self.fetch.handshakes.with_label_values(&[route, handshake]).inc();
    }
}
