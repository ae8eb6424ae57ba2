//! Metrics of ingress connections, memory for bodies, certificates, the configuration, observe mode and trace exports.

use std::collections::BTreeSet;

use parking_lot::Mutex;
use prometheus::{IntCounterVec, IntGauge, IntGaugeVec};

use super::forward_proxy_metrics::ForwardProxyMetrics;
use super::process_metrics::ProcessMetrics;
use super::registry::{Label, MetricRegistry};

/// The values of the label `reason` for ingress connections that were closed before their first request.
const CONNECTIONS_REFUSED: [&str; 6] =
    ["address_full", "full", "proxy_header", "proxy_untrusted", "slow", "tls"];

/// The registered metrics of the server: connections, memory, certificates, configuration, observe mode and traces.
#[derive(Debug)]
pub(super) struct ServerMetrics {
    pub(super) admin_refused: IntCounterVec,
    pub(super) body_bytes: IntGauge,
    pub(super) certificate_ends: IntGaugeVec,
    pub(super) certificates: Mutex<BTreeSet<String>>,
    pub(super) connections: IntGauge,
    pub(super) connections_refused: IntCounterVec,
    pub(super) forward_proxy: ForwardProxyMetrics,
    pub(super) generation: IntGauge,
    pub(super) interactions_kept: IntGauge,
    pub(super) loaded: IntGauge,
    pub(super) observed: IntCounterVec,
    pub(super) process: ProcessMetrics,
    pub(super) reload_failed: IntGauge,
    pub(super) reloads: IntCounterVec,
    pub(super) routes_observing: IntGauge,
    pub(super) routes_only_expire: IntGaugeVec,
    pub(super) routes_streaming: IntGauge,
    pub(super) traces: IntCounterVec,
}

impl ServerMetrics {
    pub(super) fn new(make: &MetricRegistry<'_>) -> prometheus::Result<Self> {
        Ok(Self {
            admin_refused: admin_refused(make)?,
            body_bytes: make.gauge("callgate_body_bytes_held", "Memory reserved for request bodies, in bytes.")?,
            certificates: Mutex::default(),
            certificate_ends: make.gauges(
                "callgate_certificate_expiry_timestamp_seconds",
                "Expiry time of a certificate of Callgate, in Unix seconds: of a listener, or the one that Callgate presents to an agent.",
                &[Label::from("certificate", "a file in `listen.ingress[].tls`, `listen.egress.tls`, `agent.tls` or `agents.NAME.tls`")],
            )?,
            connections: make.gauge("callgate_ingress_connections", "Open connections to the ingress listeners.")?,
            connections_refused: make.counters(
                "callgate_ingress_connections_refused_total",
                "Connections closed before their first request, by reason (address_full, full, proxy_header, proxy_untrusted, slow, tls).",
                &[Label::closed("reason", CONNECTIONS_REFUSED)],
            )?,
            forward_proxy: ForwardProxyMetrics::new(make)?,
            generation: make.gauge(
                "callgate_config_generation",
                "Number of configurations applied since the start, including the first one.",
            )?,
            interactions_kept: make.gauge(
                "callgate_store_interactions_kept",
                "Ended interactions that the store keeps for store.keep_ended, and removes when it is full.",
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
            process: ProcessMetrics::new(make)?,
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
            routes_only_expire: make.gauges(
                "callgate_route_only_expires",
                "1 for each route whose interactions can end only by their deadline: it has no interaction.done and no interaction.failed, and no egress rule limits the callbacks with inject.uses.",
                &[Label::route()],
            )?,
            routes_streaming: make.gauge(
                "callgate_routes_streaming",
                "Routes with `stream: true`, which pass requests on while they arrive.",
            )?,
            routes_observing: make.gauge("callgate_routes_observing", "Routes in observe mode.")?,
        })
    }
}

fn admin_refused(make: &MetricRegistry<'_>) -> prometheus::Result<IntCounterVec> {
    make.counters(
        "callgate_admin_requests_refused_total",
        "Requests to the admin listener that were refused, by status: 401 without the token, 403 from a web page, under another host name, or without a configured token from another host.",
        &[Label::closed("status", ["401", "403"])],
    )
}
