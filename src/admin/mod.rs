//! The requests of the admin listener: metrics, health, the callbacks API and the admin page.
//!
//! This module turns a request into a response. The `proxy` module reads and writes the connections.

mod callbacks;
mod caller;
mod page;
mod responses;
mod server;
mod status;

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
    pub async fn respond(&self, request: AdminRequest) -> AdminResponse {
        if let Some(rest) = callbacks::path(&request.path) {
            return self.callbacks(&request, rest).await;
        }
        if let Some(place) = page::Place::of(&request.path) {
            return self.page(&request, place).await;
        }
        self.probe_or_scrape(&request).unwrap_or_else(|refused| refused)
    }

    /// Answers probes, which a kubelet or a balancer sends under any host name, and scrapers.
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
            "/readyz" => Ok(self.status(request)),
            _ => Ok(text(404, "not found: /, /callbacks, /livez, /metrics, /readyz")),
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
    fn status(&self, request: &AdminRequest) -> AdminResponse {
        let readiness = self.readiness();
        let mut config = self.config.status();
        let may_know = self.asked_as_ours(request).and_then(|()| self.knows_the_token(request)).is_ok();
        if let Some(refused) = config.refused.as_mut().filter(|_| !may_know) {
            let count = refused.errors.len();
            refused.errors =
                vec![format!("errors: {count}, shown only to callers on this host or with the admin token")];
        }
        let answer = json!({
            "ready": readiness.is_ok(),
            "why_not": readiness.err(),
            "config": config,
        });
        let status = if readiness.is_ok() { 200 } else { 503 };
        AdminResponse { content_type: "application/json", ..text(status, &format!("{answer:#}")) }
    }

    /// Whether a restart would help; why. A disk that fails or hangs is no better after one.
    fn liveness(&self) -> Result<(), &'static str> {
        match self.store.health() {
            Health::Healthy | Health::Busy | Health::Hanging | Health::Failing => Ok(()),
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
