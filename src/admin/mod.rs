//! The admin listener: metrics, health, the callbacks API, and a page to look at. Knows nothing of sockets: a request
//! in, an answer out.

mod callbacks;
mod caller;
mod page;
mod server;
mod told;

pub use server::{AdminRequest, AdminResponse, serve};

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::ArcSwap;
use serde_json::json;

use crate::clock::{Clock, LedgerClock};
use crate::config::AdminListener;
use crate::observe::{ConfigState, Metrics, Recent};
use crate::policy::Policy;
use crate::store::{Health, Store};

/// What the admin listener tells about.
#[derive(Debug)]
pub struct Admin {
    /// The metrics.
    pub metrics: Arc<Metrics>,
    /// Whether callbacks are taken: false from the moment the process is asked to stop.
    pub ready: Arc<AtomicBool>,
    /// The ledger.
    pub store: Arc<Store>,
    /// The policy of the moment.
    pub policy: Arc<ArcSwap<Policy>>,
    /// The clock tokens are made by.
    pub clock: Clock,
    /// The clock of the ledger.
    pub ledger_clock: Arc<LedgerClock>,
    /// Which configuration is served by.
    pub config: Arc<ConfigState>,
    /// The last requests that came in.
    pub recent: Arc<Recent>,
    /// Who may use the callbacks API; a reload replaces it.
    pub listener: ArcSwap<AdminListener>,
}

impl Admin {
    /// Answers one request.
    pub async fn respond(&self, request: AdminRequest) -> AdminResponse {
        if let Some(rest) = callbacks::path(&request.path) {
            return self.callbacks(&request, rest).await;
        }
        if let Some(place) = page::Place::of(&request.path) {
            return self.page(&request, place).await;
        }
        self.probe_or_scrape(&request).unwrap_or_else(|refused| refused)
    }

    /// Answers probes, which a kubelet or a balancer sends under whatever name it was told, and scrapers.
    fn probe_or_scrape(&self, request: &AdminRequest) -> Result<AdminResponse, AdminResponse> {
        caller::from_our_page(request)?;
        let (reads, named) =
            (matches!(request.method.as_str(), "GET" | "HEAD"), self.asked_as_scraped(request));
        let probed = match request.path.as_str() {
            "/livez" => Some(self.liveness()),
            "/readyz" if !wants_more(&request.query) => Some(self.readiness()),
            _ => None,
        };
        if let Some(state) = probed.filter(|_| reads) {
            return Ok(match state {
                Ok(()) => text(200, "ok"),
                // A page whose name was made to resolve to this host could read why.
                Err(why) => text(503, if named.is_ok() { why } else { "unavailable" }),
            });
        }
        named?;
        match request.path.as_str() {
            _ if !reads => Ok(AdminResponse { allow: "GET, HEAD", ..text(405, "method not allowed") }),
            "/metrics" => Ok(self.scraped()),
            "/readyz" => Ok(self.told(request)),
            _ => Ok(text(404, "not found: /, /callbacks, /livez, /metrics, /readyz")),
        }
    }
}

/// Whether the query says `verbose`.
fn wants_more(query: &str) -> bool {
    query.split('&').any(|pair| pair == "verbose" || pair.starts_with("verbose="))
}

impl Admin {
    /// Readiness, and which configuration is served by. The mistakes of one that was not taken name files, routes and
    /// providers: they are for those who may ask for the callbacks too.
    fn told(&self, request: &AdminRequest) -> AdminResponse {
        let readiness = self.readiness();
        let mut config = self.config.told();
        let may_know = self.asked_as_ours(request).and_then(|()| self.knows_the_token(request)).is_ok();
        if let Some(refused) = config.refused.as_mut().filter(|_| !may_know) {
            let words =
                format!("{} of them, told to callers on this host or with the token", refused.errors.len());
            refused.errors = vec![words];
        }
        let told = json!({
            "ready": readiness.is_ok(),
            "why_not": readiness.err(),
            "config": config,
        });
        let status = if readiness.is_ok() { 200 } else { 503 };
        AdminResponse { content_type: "application/json", ..text(status, &format!("{told:#}")) }
    }

    /// Whether a restart would help; why. A disk that fails or hangs is no better after one.
    fn liveness(&self) -> Result<(), &'static str> {
        match self.store.health() {
            Health::Well | Health::Busy | Health::Hanging | Health::Failing => Ok(()),
            gone @ Health::Gone => gone.why_not().map_or(Ok(()), Err),
        }
    }

    /// Whether callbacks are taken; why not.
    fn readiness(&self) -> Result<(), &'static str> {
        match self.ready.load(Ordering::Relaxed) {
            true => self.store.health().why_not().map_or(Ok(()), Err),
            false => Err("stopping"),
        }
    }

    fn scraped(&self) -> AdminResponse {
        // Updates the gauge of the store's health, also if nothing else has asked for it since.
        self.store.health();
        self.metrics.store_counts(self.store.counts());
        match self.metrics.text() {
            Ok(body) => AdminResponse {
                content_type: "text/plain; version=0.0.4; charset=utf-8",
                body,
                ..text(200, "")
            },
            Err(error) => text(500, &error.to_string()),
        }
    }
}

fn text(status: u16, body: &str) -> AdminResponse {
    AdminResponse::new(status, "text/plain; charset=utf-8", format!("{body}\n"))
}
