//! Handles the requests of the callbacks API, which lists, reads, mints and revokes interactions.
//!
//! A client of this API can mint tokens. Therefore Callgate accepts only clients on this host, unless an admin token is
//! configured. Requests from a web page are always denied.

use http::header::{HeaderValue, RETRY_AFTER};
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::json;

use crate::admin::responses::{answer, problem};
use crate::admin::server::{AdminRequest, AdminResponse};
use crate::admin::service::Admin;
use crate::clock::instant;
use crate::denial::{Denial, Refusal};
use crate::http::response::retry_after_secs;
use crate::interaction::State;
use crate::policy::{MintFault, MintRequest};
use crate::store::{MintRefusal, mint};
use crate::time::parse_duration;

/// The JSON body of a request that mints a callback token.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    route: String,
    #[serde(default)]
    params: Params,
    #[serde(default)]
    ttl: Option<String>,
    #[serde(default)]
    uses: Option<u32>,
}

/// The names and values of the path captures in a request that mints a callback token. Repeated names are retained, so
/// that the policy can report them as an error.
#[derive(Default)]
struct Params(Vec<(String, String)>);

impl<'de> Deserialize<'de> for Params {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Pairs;
        impl<'de> Visitor<'de> for Pairs {
            type Value = Params;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object whose values are strings")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Params, A::Error> {
                let mut pairs = Vec::new();
                while let Some(pair) = map.next_entry()? {
                    pairs.push(pair);
                }
                Ok(Params(pairs))
            }
        }
        deserializer.deserialize_map(Pairs)
    }
}

impl Admin {
    pub(in crate::admin) async fn callbacks(&self, request: &AdminRequest, id: &str) -> AdminResponse {
        if let Err(response) = self.may_use_apis(request) {
            return response;
        }
        match (request.method.as_str(), id) {
            ("POST", "") => self.mint(request).await,
            ("GET" | "HEAD", "") => self.list_anywhere(&request.query).await,
            ("GET" | "HEAD", id) => self.read_anywhere(id).await,
            ("DELETE", id) if !id.is_empty() => self.revoke_interaction(id).await,
            (_, "") => AdminResponse { allow: "GET, HEAD, POST", ..problem(405, "method not allowed") },
            _ => AdminResponse { allow: "DELETE, GET, HEAD", ..problem(405, "method not allowed") },
        }
    }

    /// Revokes an interaction. Sets the `outcome` of the response to `already_revoked` if the interaction was already
    /// revoked before this request.
    pub(in crate::admin) async fn revoke_interaction(&self, id: &str) -> AdminResponse {
        let before = self.interactions.store.read_owned(id).await;
        let was_revoked =
            before.is_ok_and(|found| found.is_some_and(|(found, _)| found.state == State::Revoked));
        let mut response = self.revoke(id).await;
        if was_revoked {
            response.outcome = "already_revoked";
        }
        response
    }

    async fn mint(&self, request: &AdminRequest) -> AdminResponse {
        let body = match request.json() {
            Ok(body) => body,
            Err((status, detail)) => return problem(status, detail),
        };
        let wanted: Wanted = match serde_json::from_slice(body) {
            Ok(wanted) => wanted,
            Err(error) => return problem(400, &format!("the body is not a valid request to mint: {error}")),
        };
        let ttl = match wanted.ttl.as_deref().map(|text| parse_duration(text).ok_or(text)) {
            None => None,
            Some(Ok(ttl)) => Some(ttl),
            Some(Err(text)) => return problem(400, &format!("`{text}` is not a duration, such as 2h")),
        };
        let parameters: Vec<_> =
            wanted.params.0.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let wanted = MintRequest { route: &wanted.route, parameters: &parameters, ttl, uses: wanted.uses };
        if self.interactions.replication.as_ref().is_some_and(|replication| replication.is_handing_over()) {
            let detail = "the ledger is being handed over to another replica";
            return refused(&Refusal::new(Denial::StoreUnavailable, detail));
        }
        let policy = self.policy.load_full();
        if policy.route(wanted.route).is_some_and(|route| route.follow.matching.is_some()) {
            return problem(400, "the interactions of this route begin with a request of the agent");
        }
        let (now, ledger_now) = (self.clock.now(), self.ledger_clock.now(instant()));
        match mint(&self.store, &policy, &self.metrics, &wanted, now, ledger_now).await {
            Ok(minted) => answer(
                201,
                &json!({
                    "interaction": minted.interaction,
                    "callback_url": minted.callback_url,
                    "callback_token": minted.callback_token,
                    "expires_at": minted.expires.to_string(),
                }),
            ),
            Err(MintRefusal::Refused(refusal)) => refused(&refusal),
            Err(MintRefusal::Fault(MintFault::Route)) => problem(404, "no such route"),
            Err(MintRefusal::Fault(MintFault::Cryptography)) => problem(500, "the token could not be made"),
            Err(MintRefusal::Fault(fault)) => problem(400, &fault.to_string()),
        }
    }
}

pub(in crate::admin) fn refused(refusal: &Refusal) -> AdminResponse {
    let denial = refusal.denial;
    let body = json!({
        "type": "about:blank",
        "title": denial.title(),
        "status": denial.status(),
        "reason": denial.code(),
        "detail": refusal.detail,
    });
    let again = retry_after_secs(denial).map(|seconds| (RETRY_AFTER, HeaderValue::from(seconds)));
    AdminResponse {
        headers: again.into_iter().collect(),
        ..AdminResponse::new(denial.status(), "application/problem+json", format!("{body}\n"))
    }
}
