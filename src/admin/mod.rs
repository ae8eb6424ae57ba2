//! The admin listener: metrics and health. Knows nothing of sockets: a request in, an answer out.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::observe::Metrics;
use crate::proxy::{PlainRequest, PlainResponse};

/// What the admin listener tells about.
#[derive(Clone, Debug)]
pub struct Admin {
    /// The metrics.
    pub metrics: Arc<Metrics>,
    /// Whether callbacks are taken: false from the moment the process is asked to stop.
    pub ready: Arc<AtomicBool>,
}

impl Admin {
    /// Answers one request.
    pub fn respond(&self, request: &PlainRequest) -> PlainResponse {
        let text = |status, body: &str| PlainResponse {
            status,
            content_type: "text/plain; charset=utf-8",
            body: format!("{body}\n"),
        };
        if !matches!(request.method.as_str(), "GET" | "HEAD") {
            return text(405, "method not allowed");
        }
        match request.path.as_str() {
            "/livez" => text(200, "ok"),
            "/metrics" => match self.metrics.text() {
                Ok(body) => PlainResponse {
                    status: 200,
                    content_type: "text/plain; version=0.0.4; charset=utf-8",
                    body,
                },
                Err(error) => text(500, &error.to_string()),
            },
            "/readyz" if self.ready.load(Ordering::Relaxed) => text(200, "ok"),
            "/readyz" => text(503, "stopping"),
            _ => text(404, "not found: /livez, /metrics, /readyz"),
        }
    }
}
