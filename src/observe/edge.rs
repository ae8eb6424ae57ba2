//! Metrics of the public edge: connections, certificates, what is held, and the configuration of the moment.

use std::collections::BTreeSet;

use parking_lot::Mutex;
use prometheus::{IntCounterVec, IntGauge, IntGaugeVec};

use super::maker::{Label, Maker};
use super::metrics::Metrics;

/// Why a connection is closed before its first request.
const CONNECTIONS_REFUSED: [&str; 6] =
    ["address_full", "full", "proxy_header", "proxy_untrusted", "slow", "tls"];

/// What faces the outside.
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
            body_bytes: make.gauge("callgate_body_bytes_held", "Memory that is set aside for bodies.")?,
            certificates: Mutex::default(),
            certificate_ends: make.gauges(
                "callgate_certificate_expiry_timestamp_seconds",
                "When a certificate that is shown to callers ends, in Unix seconds.",
                &[Label::from("certificate", "a file in `listen.ingress[].tls`")],
            )?,
            connections: make.gauge("callgate_ingress_connections", "Connections from outside.")?,
            connections_refused: make.counters(
                "callgate_ingress_connections_refused_total",
                "Connections that were closed before their first request, by reason (address_full, full, proxy_header, proxy_untrusted, slow, tls).",
                &[Label::closed("reason", CONNECTIONS_REFUSED)],
            )?,
            generation: make.gauge(
                "callgate_config_generation",
                "How often a configuration was taken, the one of the start included.",
            )?,
            loaded: make.gauge(
                "callgate_config_loaded_timestamp_seconds",
                "When the configuration of the moment was taken, in Unix seconds.",
            )?,
            observed: make.counters(
                "callgate_observed_denials_total",
                "Denials there would have been, on routes that only observe.",
                &[Label::route(), Label::provider(), Label::reason(&[])],
            )?,
            reload_failed: make.gauge(
                "callgate_config_reload_failed",
                "1 while the files hold something else than what is served, because it could not be taken.",
            )?,
            reloads: make.counters(
                "callgate_config_reloads_total",
                "Attempts to take another configuration, by outcome (ok, refused).",
                &[Label::closed("outcome", ["ok", "refused"])],
            )?,
            traces: make.counters(
                "callgate_trace_batches_total",
                "Batches of spans that were sent to the collector, by outcome (ok, failed).",
                &[Label::closed("outcome", ["ok", "failed"])],
            )?,
            routes_observing: make.gauge("callgate_routes_observing", "Routes on which nothing is refused.")?,
        })
    }
}

impl Metrics {
    /// A connection was closed before its first request.
    pub fn connection_refused(&self, reason: &str) {
        self.edge.connections_refused.with_label_values(&[reason]).inc();
    }

    /// What there is at the moment: connections, and bytes of bodies.
    pub fn held(&self, connections: usize, body_bytes: u64) {
        self.edge.connections.set(i64::try_from(connections).unwrap_or(i64::MAX));
        self.edge.body_bytes.set(i64::try_from(body_bytes).unwrap_or(i64::MAX));
    }

    /// The certificates of the moment, by file, and when each ends.
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

    /// A batch of spans was sent, or could not be.
    pub fn traces_sent(&self, ok: bool) {
        self.edge.traces.with_label_values(&[if ok { "ok" } else { "failed" }]).inc();
    }

    /// When each certificate of the moment ends, by file, in Unix seconds.
    pub fn certificate_ends(&self) -> Vec<(String, i64)> {
        let known = self.edge.certificates.lock();
        let end = |file: &String| self.edge.certificate_ends.with_label_values(&[file]).get();
        known.iter().map(|file| (file.clone(), end(file))).collect()
    }

    /// A denial there would have been.
    pub fn observed(&self, route: &str, provider: &str, reason: &str) {
        self.edge.observed.with_label_values(&[route, provider, reason]).inc();
    }

    /// How many routes only observe.
    pub fn routes_observing(&self, count: usize) {
        self.edge.routes_observing.set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// A configuration was taken: which one, and when.
    pub fn config_taken(&self, generation: u64, unix_secs: i64) {
        self.edge.generation.set(i64::try_from(generation).unwrap_or(i64::MAX));
        self.edge.loaded.set(unix_secs);
        self.edge.reload_failed.set(0);
        if generation > 1 {
            self.edge.reloads.with_label_values(&["ok"]).inc();
        }
    }

    /// Another configuration could not be taken.
    pub fn config_refused(&self) {
        self.edge.reload_failed.set(1);
        self.edge.reloads.with_label_values(&["refused"]).inc();
    }
}
