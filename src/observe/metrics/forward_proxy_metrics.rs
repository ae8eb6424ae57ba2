//! The metrics of the forward proxy.

use prometheus::{IntCounter, IntCounterVec, IntGauge};

use super::registry::{Label, MetricRegistry};

/// The outcomes of TLS handshakes between the forward proxy and the clients of the agent.
const OUTCOMES: [&str; 3] = ["client_refused", "failed", "ok"];

/// The registered metrics of the forward proxy.
#[derive(Debug)]
pub(super) struct ForwardProxyMetrics {
    pub(super) bytes: IntCounterVec,
    pub(super) handshakes: IntCounterVec,
    pub(super) open: IntGauge,
    pub(super) tunnels: IntCounter,
}

impl ForwardProxyMetrics {
    pub(super) fn new(make: &MetricRegistry<'_>) -> prometheus::Result<Self> {
        Ok(Self {
            bytes: make.counters(
                "callgate_egress_tunnel_bytes_total",
                "Bytes in tunnels that have ended, by direction: from the agent (sent) and to the agent (received).",
                &[Label::closed("direction", ["received", "sent"])],
            )?,
            handshakes: make.counters(
                "callgate_egress_handshakes_total",
                "TLS handshakes on intercepted connections, by outcome. `client_refused`: the client does not trust the certificate.",
                &[Label::from("host", "the hosts in `egress[].target` of rules with `proxied`"), Label::closed("outcome", OUTCOMES)],
            )?,
            open: make.gauge("callgate_egress_tunnels", "Open tunnels.")?,
            tunnels: make.counter("callgate_egress_tunnels_total", "Tunnels that were opened.")?,
        })
    }
}
