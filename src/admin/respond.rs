//! Finds the response to a request to the admin listener: callbacks API, inbox, admin page, probes, metrics.

use serde_json::json;

use super::process;
use super::responses::answer;
use super::server::{AdminRequest, AdminResponse};
use super::service::Admin;
use super::{caller, page};
use crate::clock::instant;
use crate::policy::Feed;

impl Admin {
    /// Returns the response to a request to the admin listener. Logs each request that asks for a change.
    pub async fn respond(&self, request: AdminRequest) -> AdminResponse {
        let response = self.response_to(&request).await;
        self.metrics.admin_answered(response.status);
        self.log_action(&request, &response);
        response
    }

    async fn response_to(&self, request: &AdminRequest) -> AdminResponse {
        if let Some(rest) = caller::below(&request.path, "/callbacks") {
            return self.callbacks(request, rest).await;
        }
        if let Some(rest) = caller::below(&request.path, "/inbox") {
            return self.inbox(request, rest).await;
        }
        if let Some(rest) = caller::below(&request.path, "/capture") {
            return self.capture(request, rest);
        }
        if let "/config" | "/members" = request.path.as_str() {
            return self.read_only(request);
        }
        if let Some(place) = page::Place::of(&request.path) {
            return self.page(request, place).await;
        }
        self.probe_or_scrape(request).unwrap_or_else(|refused| refused)
    }

    /// Responds to `/members` with the state of all replicas, and to `/config` with data of the configuration in use.
    /// `callgate check` compares this data with another configuration.
    fn read_only(&self, request: &AdminRequest) -> AdminResponse {
        match self.may_use_apis(request) {
            Ok(()) if matches!(request.method.as_str(), "GET" | "HEAD") => match request.path.as_str() {
                "/members" => answer(200, &self.members()),
                _ => answer(200, &self.configuration()),
            },
            Ok(()) => AdminResponse { allow: "GET, HEAD", ..text(405, "method not allowed") },
            Err(response) => response,
        }
    }

    /// Returns data of the configuration in use, without secrets: its version, the settings that only a restart can
    /// change, and the fingerprints of the environment variables.
    fn configuration(&self) -> serde_json::Value {
        let status = self.config.status();
        json!({
            "program": env!("CARGO_PKG_VERSION"),
            "version": status.version,
            "generation": status.generation,
            "refused": status.refused.map(|refused| refused.version),
            "restart": self.restart,
            "environment": status.environment,
        })
    }

    /// Responds to health probes and to metrics scrapers. The host name of a probe is not checked, because a kubelet or
    /// a load balancer can use any host name.
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
                // The cause is shown only to callers that used a known host name. Otherwise a web page could read the
                // cause by DNS rebinding.
                Err(why) => text(503, if named.is_ok() { why } else { "unavailable" }),
            });
        }
        named?;
        match request.path.as_str() {
            _ if !reads => Ok(AdminResponse { allow: "GET, HEAD", ..text(405, "method not allowed") }),
            "/metrics" => Ok(self.scraped()),
            "/readyz" => Ok(self.status(request)),
            _ => Ok(text(
                404,
                "not found: /, /callbacks, /capture, /config, /inbox, /livez, /members, /metrics, /readyz",
            )),
        }
    }
}

/// Reports whether the query has the parameter `verbose`.
fn wants_more(query: &str) -> bool {
    query.split('&').any(|pair| pair == "verbose" || pair.starts_with("verbose="))
}

impl Admin {
    /// Returns readiness and the state of the configuration. The errors of a failed reload name files, routes and
    /// providers, so these errors are shown only to clients that may use the callbacks API. The fingerprints of secrets
    /// are also shown only to these clients.
    fn status(&self, request: &AdminRequest) -> AdminResponse {
        let readiness = self.readiness();
        let mut config = self.config.status();
        let may_know = self.asked_as_ours(request).and_then(|()| self.knows_the_token(request)).is_ok();
        if let Some(refused) = config.refused.as_mut().filter(|_| !may_know) {
            let count = refused.errors.len();
            let to_whom = match self.listener.load().token {
                Some(_) => "with the token of `listen.admin`",
                None => "to callers on this host",
            };
            refused.errors = vec![format!("errors: {count}, shown only {to_whom}")];
        }
        if !may_know {
            config.secrets.clear();
        }
        let policy = self.policy.load();
        let answer = json!({
            "ready": readiness.is_ok(),
            "why_not": readiness.err(),
            "not_fetched": policy.missing_feeds().map(Feed::label).collect::<Vec<_>>(),
            "config": config,
        });
        let status = if readiness.is_ok() { 200 } else { 503 };
        AdminResponse { content_type: "application/json", ..text(status, &format!("{answer:#}")) }
    }

    fn scraped(&self) -> AdminResponse {
        // Reading the health also updates the gauge for the health. Perhaps no other code has read the health since the
        // last scrape.
        self.store.health();
        self.metrics.store_counts(self.store.counts());
        self.metrics.process(&process::usage());
        self.metrics.store_kept(self.store.kept());
        self.store.inbox().report(self.ledger_clock.now(instant()));
        self.interactions.replication.iter().for_each(|replication| replication.report());
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
