//! Records the metrics of the forward proxy.

use super::metrics::Metrics;

impl Metrics {
    /// Counts a TLS handshake on an intercepted connection.
    pub fn proxy_handshake(&self, host: &str, outcome: &str) {
        self.server.forward_proxy.handshakes.with_label_values(&[host, outcome]).inc();
    }

    /// Counts a tunnel that was opened.
    pub fn tunnel_opened(&self) {
        self.server.forward_proxy.tunnels.inc();
        self.server.forward_proxy.open.inc();
    }

    /// Counts a tunnel that ended, with the bytes in both directions.
    pub fn tunnel_ended(&self, sent: u64, received: u64) {
        self.server.forward_proxy.open.dec();
        for (direction, bytes) in [("sent", sent), ("received", received)] {
            self.server.forward_proxy.bytes.with_label_values(&[direction]).inc_by(bytes);
        }
    }
}
