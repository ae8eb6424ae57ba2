//! The callbacks API of the admin listener: mint, list, read and revoke interactions.
//!
//! A client of this API can mint tokens. Therefore Callgate accepts only clients on this host, unless an admin token is
//! configured. Requests from a web page are always denied.

use std::sync::Arc;

use http::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::{Value, json};

use super::responses::{answer, problem};
use super::server::{AdminRequest, AdminResponse};
use super::service::Admin;
use super::{caller, status};
use crate::clock::instant;
use crate::denial::Refusal;
use crate::interaction::{Interaction, State};
use crate::path::{Parameter, parameter};
use crate::policy::{MintFault, MintRequest};
use crate::store::{MintRefusal, mint};
use crate::time::parse_duration;

/// Maximum number of interactions in one response.
const PAGE_MAX: usize = 1000;
const PAGE_DEFAULT: usize = 100;
/// Number of digits in an interaction id: 128 bits in base 32.
const ID_DIGITS: usize = 26;

/// The body of a request to mint.
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

/// The names and values of the captures. Repeated names are kept, so that the policy can report them as an error.
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

/// Returns the part of a path after `/callbacks` or `/callbacks/`. Returns `None` for any other path.
pub(super) fn path(path: &str) -> Option<&str> {
    let rest = path.strip_prefix("/callbacks")?;
    if rest.is_empty() { Some(rest) } else { rest.strip_prefix('/') }
}

impl Admin {
    pub(super) async fn callbacks(&self, request: &AdminRequest, id: &str) -> AdminResponse {
        let may = || {
            caller::from_no_page(request)?;
            self.asked_as_ours(request)?;
            self.knows_the_token(request)
        };
        if let Err(response) = may() {
            return response;
        }
        match (request.method.as_str(), id) {
            ("POST", "") => self.mint(request).await,
            ("GET" | "HEAD", "") => self.list(request).await,
            ("GET" | "HEAD", id) => match self.store.read(id) {
                Some(interaction) => answer(200, &view(id, &interaction)),
                None => problem(404, "no such interaction"),
            },
            ("DELETE", id) if !id.is_empty() => self.revoke(id).await,
            (_, "") => AdminResponse { allow: "GET, HEAD, POST", ..problem(405, "method not allowed") },
            _ => AdminResponse { allow: "DELETE, GET, HEAD", ..problem(405, "method not allowed") },
        }
    }

    /// Revokes an interaction. An interaction that another replica minted can be revoked as well.
    pub(super) async fn revoke(&self, id: &str) -> AdminResponse {
        if !is_id(id) && self.store.read(id).is_none() {
            return problem(404, "no such interaction");
        }
        match self.store.revoke(id, self.ledger_clock.now(instant())).await {
            Ok(true) => AdminResponse { body: String::new(), ..problem(204, "") },
            Ok(false) => problem(404, "no such interaction"),
            Err(refusal) => refused(&refusal),
        }
    }

    async fn mint(&self, request: &AdminRequest) -> AdminResponse {
        // The media type must be JSON. Without a CORS preflight, which Callgate does not allow, a web page cannot send
        // this media type to another origin.
        let media_type = request.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let essence = media_type.and_then(|text| text.split(';').next()).unwrap_or_default().trim();
        if !essence.eq_ignore_ascii_case("application/json") {
            return problem(415, "the body must be application/json");
        }
        let Some(body) = &request.body else { return problem(413, "the body is too large") };
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
        let policy = self.policy.load_full();
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

    async fn list(&self, request: &AdminRequest) -> AdminResponse {
        let query = |name| match parameter(&request.query, name) {
            Parameter::One(value) => Some(value.into_owned()),
            Parameter::Missing | Parameter::Several => None,
        };
        let (route, after) = (query("route"), query("after").unwrap_or_default());
        let state = match query("state") {
            None => None,
            Some(name) => match State::from_name(&name) {
                Some(state) => Some(state),
                None => return problem(400, "no such state"),
            },
        };
        let limit = query("limit").map_or(Some(PAGE_DEFAULT), |text| text.parse().ok());
        let Some(limit) = limit.filter(|limit| (1..=PAGE_MAX).contains(limit)) else {
            return problem(400, "limit must be a number from 1 to 1000");
        };
        let wanted = |interaction: &Interaction| {
            route.as_deref().is_none_or(|route| *interaction.route == *route)
                && state.is_none_or(|state| interaction.state == state)
        };
        let found = self.store.list(&after, limit, wanted).await;
        let next = found.last_key_value().filter(|_| found.len() == limit).map(|(id, _)| Arc::clone(id));
        let interactions: Vec<_> = found.iter().map(|(id, interaction)| view(id, interaction)).collect();
        answer(200, &json!({ "interactions": interactions, "next": next }))
    }
}

/// Returns an interaction as JSON for the callbacks API.
fn view(id: &str, interaction: &Interaction) -> Value {
    let questions: Vec<_> = interaction
        .questions()
        .iter()
        .map(|question| {
            json!({ "number": question.number, "endpoint": question.endpoint, "answered": question.answered })
        })
        .collect();
    let besides = [
        ("uses_left", json!(interaction.uses_left())),
        ("event_ids", json!(interaction.event_ids())),
        ("questions", json!(questions)),
        ("provider_id", json!(interaction.provider_id())),
        ("notice", json!(interaction.notice().map(|notice| notice.name()))),
        ("expires_at", json!(interaction.expires().to_string())),
    ];
    status::interaction(id, interaction, besides)
}

/// Reports whether a text has the form of an interaction id. The ledger need not contain the interaction, because
/// another replica may have minted it.
fn is_id(id: &str) -> bool {
    let rest = id.strip_prefix("int_").unwrap_or_default();
    rest.len() == ID_DIGITS && rest.bytes().all(|b| matches!(b, b'a'..=b'z' | b'2'..=b'7'))
}

fn refused(refusal: &Refusal) -> AdminResponse {
    let denial = refusal.denial;
    let body = json!({
        "type": "about:blank",
        "title": denial.title(),
        "status": denial.status(),
        "reason": denial.code(),
        "detail": refusal.detail,
    });
    let again = denial.retry_after_secs().map(|seconds| (RETRY_AFTER, HeaderValue::from(seconds)));
    AdminResponse {
        headers: again.into_iter().collect(),
        ..AdminResponse::new(denial.status(), "application/problem+json", format!("{body}\n"))
    }
}
