//! The requests of the admin listener: metrics, health, the callbacks API and the admin page.
//!
//! This module turns a request into a response. The `proxy` module reads and writes the connections.

mod callbacks;
mod caller;
mod page;
mod told;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::ArcSwap;
use serde_json::json;

use crate::config::AdminListener;
use crate::observe::{ConfigState, Metrics, Recent};
use crate::policy::Policy;
use crate::proxy::{Clock, LedgerClock, PlainRequest, PlainResponse};
use crate::store::Store;

/// The parts of Callgate that the admin listener shows or changes.
#[derive(Debug)]
pub struct Admin {
    /// The metrics.
    pub metrics: Arc<Metrics>,
    /// Whether callbacks are accepted. It becomes false when the process is asked to stop.
    pub ready: Arc<AtomicBool>,
    /// The ledger.
    pub store: Arc<Store>,
    /// The current policy.
    pub policy: Arc<ArcSwap<Policy>>,
    /// The clock for the times in tokens.
    pub clock: Clock,
    /// The clock of the ledger.
    pub ledger_clock: Arc<LedgerClock>,
    /// The configuration in use, and the result of the last reload.
    pub config: Arc<ConfigState>,
    /// The most recent ingress requests.
    pub recent: Arc<Recent>,
    /// The settings of the admin listener, such as its token. A reload replaces them.
    pub listener: ArcSwap<AdminListener>,
}

impl Admin {
    /// Returns the response to one request.
    pub async fn respond(&self, request: PlainRequest) -> PlainResponse {
        if let Some(rest) = callbacks::path(&request.path) {
            return self.callbacks(&request, rest).await;
        }
        if let Some(place) = page::Place::of(&request.path) {
            return self.page(&request, place).await;
        }
        if !matches!(request.method.as_str(), "GET" | "HEAD") {
            return PlainResponse { allow: "GET, HEAD", ..text(405, "method not allowed") };
        }
        match request.path.as_str() {
            // Only a new process can open the file again.
            "/livez" if !self.store.is_healthy() => text(503, "the ledger's file cannot be written"),
            "/livez" => text(200, "ok"),
            "/metrics" => self.asked_as_scraped(&request).map_or_else(|refused| refused, |()| self.scraped()),
            "/readyz" if wants_more(&request.query) => {
                self.asked_as_scraped(&request).map_or_else(|refused| refused, |()| self.told(&request))
            }
            "/readyz" => self.readiness().map_or_else(|why| text(503, why), |()| text(200, "ok")),
            _ => text(404, "not found: /, /callbacks, /livez, /metrics, /readyz"),
        }
    }
}

/// Reports whether the query has the parameter `verbose`.
fn wants_more(query: &str) -> bool {
    query.split('&').any(|pair| pair == "verbose" || pair.starts_with("verbose="))
}

impl Admin {
    /// Returns readiness and the state of the configuration. The errors of a failed reload name files, routes and
    /// providers, so they are shown only to clients that may use the callbacks API.
    fn told(&self, request: &PlainRequest) -> PlainResponse {
        let readiness = self.readiness();
        let mut config = self.config.told();
        let may_know = self.asked_as_ours(request).and_then(|()| self.knows_the_token(request)).is_ok();
        if let Some(refused) = config.refused.as_mut().filter(|_| !may_know) {
            let count = refused.errors.len();
            refused.errors =
                vec![format!("errors: {count}, shown only to callers on this host or with the admin token")];
        }
        let told = json!({
            "ready": readiness.is_ok(),
            "why_not": readiness.err(),
            "config": config,
        });
        let status = if readiness.is_ok() { 200 } else { 503 };
        PlainResponse { content_type: "application/json", ..text(status, &format!("{told:#}")) }
    }

    /// Whether callbacks are taken; why not.
    fn readiness(&self) -> Result<(), &'static str> {
        match (self.ready.load(Ordering::Relaxed), self.store.is_healthy()) {
            (false, _) => Err("stopping"),
            (true, false) => Err("the ledger's file cannot be written"),
            (true, true) => Ok(()),
        }
    }

    fn scraped(&self) -> PlainResponse {
        self.metrics.store_counts(self.store.counts());
        match self.metrics.text() {
            Ok(body) => PlainResponse {
                content_type: "text/plain; version=0.0.4; charset=utf-8",
                body,
                ..text(200, "")
            },
            Err(error) => text(500, &error.to_string()),
        }
    }
}

fn text(status: u16, body: &str) -> PlainResponse {
    PlainResponse::new(status, "text/plain; charset=utf-8", format!("{body}\n"))
}
