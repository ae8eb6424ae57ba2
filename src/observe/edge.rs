//! Metrics of ingress connections, memory for bodies, certificates, the configuration, observe mode and trace exports.

use std::collections::BTreeSet;

use parking_lot::Mutex;
use prometheus::{IntCounterVec, IntGauge, IntGaugeVec};

use super::maker::{Label, Maker};
use super::metrics::Metrics;

/// Values of the label `reason` for connections that were closed before their first request.
const CONNECTIONS_REFUSED: [&str; 6] =
    ["address_full", "full", "proxy_header", "proxy_untrusted", "slow", "tls"];

/// The registered metrics of this file.
#[derive(Debug)]
pub(super) struct Edge {
    body_bytes: IntGauge,
    certificate_ends: IntGaugeVec,
    certificates: Mutex<BTreeSet<String>>,
    connections: IntGauge,
    connections_refused: IntCounterVec,
    generation: IntGauge,
    loaded: IntGauge,
    observed: IntCounterVec,
    reload_failed: IntGauge,
    reloads: IntCounterVec,
    routes_observing: IntGauge,
    traces: IntCounterVec,
}

impl Edge {
    pub(super) fn new(make: &Maker<'_>) -> prometheus::Result<Self> {
        Ok(Self {
            body_bytes: make.gauge("callgate_body_bytes_held", "Memory reserved for request bodies, in bytes.")?,
            certificates: Mutex::default(),
            certificate_ends: make.gauges(
                "callgate_certificate_expiry_timestamp_seconds",
                "Expiry time of a server certificate, in Unix seconds.",
                &[Label::from("certificate", "a file in `listen.ingress[].tls`")],
            )?,
            connections: make.gauge("callgate_ingress_connections", "Open connections to the ingress listeners.")?,
            connections_refused: make.counters(
                "callgate_ingress_connections_refused_total",
                "Connections closed before their first request, by reason (address_full, full, proxy_header, proxy_untrusted, slow, tls).",
                &[Label::closed("reason", CONNECTIONS_REFUSED)],
            )?,
            generation: make.gauge(
                "callgate_config_generation",
                "Number of configurations applied since the start, including the first one.",
            )?,
            loaded: make.gauge(
                "callgate_config_loaded_timestamp_seconds",
                "Time at which the current configuration was applied, in Unix seconds.",
            )?,
            observed: make.counters(
                "callgate_observed_denials_total",
                "Requests on routes in observe mode that would have been denied, by reason.",
                &[Label::route(), Label::provider(), Label::reason(&[])],
            )?,
            reload_failed: make.gauge(
                "callgate_config_reload_failed",
                "1 if the last reload failed and Callgate still uses the previous configuration, else 0.",
            )?,
            reloads: make.counters(
                "callgate_config_reloads_total",
                "Reloads of the configuration, by outcome (ok, refused).",
                &[Label::closed("outcome", ["ok", "refused"])],
            )?,
            traces: make.counters(
                "callgate_trace_batches_total",
                "Batches of trace spans sent to the collector, by outcome (ok, failed).",
                &[Label::closed("outcome", ["ok", "failed"])],
            )?,
            routes_observing: make.gauge("callgate_routes_observing", "Routes in observe mode.")?,
        })
    }
}

impl Metrics {
    /// Counts a connection that was closed before its first request.
    pub fn connection_refused(&self, reason: &str) {
        self.edge.connections_refused.with_label_values(&[reason]).inc();
    }

    /// Sets the number of open ingress connections and the memory reserved for bodies, in bytes.
    pub fn held(&self, connections: usize, body_bytes: u64) {
        self.edge.connections.set(i64::try_from(connections).unwrap_or(i64::MAX));
        self.edge.body_bytes.set(i64::try_from(body_bytes).unwrap_or(i64::MAX));
    }

    /// Sets the server certificates in use: each file with its expiry time in Unix seconds. Removes all other files.
    pub fn certificates<'c>(&self, ends: impl Iterator<Item = (&'c str, i64)>) {
        let mut known = self.edge.certificates.lock();
        let gone = std::mem::take(&mut *known);
        for (file, end) in ends {
            self.edge.certificate_ends.with_label_values(&[file]).set(end);
            known.insert(file.to_owned());
        }
        for file in gone.difference(&known) {
            let _ = self.edge.certificate_ends.remove_label_values(&[file]);
        }
    }

    /// Counts a batch of spans that was sent, or that could not be sent.
    pub fn traces_sent(&self, ok: bool) {
        self.edge.traces.with_label_values(&[if ok { "ok" } else { "failed" }]).inc();
    }

    /// Returns the files of the server certificates in use, each with its expiry time in Unix seconds.
    pub fn certificate_ends(&self) -> Vec<(String, i64)> {
        let known = self.edge.certificates.lock();
        let end = |file: &String| self.edge.certificate_ends.with_label_values(&[file]).get();
        known.iter().map(|file| (file.clone(), end(file))).collect()
    }

    /// Counts a request on a route in observe mode that would have been denied for this reason.
    pub fn observed(&self, route: &str, provider: &str, reason: &str) {
        self.edge.observed.with_label_values(&[route, provider, reason]).inc();
    }

    /// Sets the number of routes in observe mode.
    pub fn routes_observing(&self, count: usize) {
        self.edge.routes_observing.set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// Records that a configuration was applied, with its generation and the time. Generation 1 is not a reload.
    pub fn config_taken(&self, generation: u64, unix_secs: i64) {
        self.edge.generation.set(i64::try_from(generation).unwrap_or(i64::MAX));
        self.edge.loaded.set(unix_secs);
        self.edge.reload_failed.set(0);
        if generation > 1 {
            self.edge.reloads.with_label_values(&["ok"]).inc();
        }
    }

    /// Counts a failed reload.
    pub fn config_refused(&self) {
        self.edge.reload_failed.set(1);
        self.edge.reloads.with_label_values(&["refused"]).inc();
    }
}
