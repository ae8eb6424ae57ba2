//! Records the metrics of the forward proxy.

use super::metrics::Metrics;

impl Metrics {
    /// Counts a TLS handshake of the forward proxy with a client of the agent. `outcome` is `client_refused`, `failed`
    /// or `ok`.
    pub fn proxy_handshake(&self, host: &str, outcome: &str) {
        self.server.forward_proxy.handshakes.with_label_values(&[host, outcome]).inc();
    }

    /// Counts a tunnel that the forward proxy opened.
    pub fn tunnel_opened(&self) {
        self.server.forward_proxy.tunnels.inc();
        self.server.forward_proxy.open.inc();
    }

    /// Counts a tunnel of the forward proxy that ended. `sent` is the number of bytes from the agent, and `received`
    /// the number of bytes to the agent.
    pub fn tunnel_ended(&self, sent: u64, received: u64) {
        self.server.forward_proxy.open.dec();
        for (direction, bytes) in [("sent", sent), ("received", received)] {
            self.server.forward_proxy.bytes.with_label_values(&[direction]).inc_by(bytes);
        }
    }
}
