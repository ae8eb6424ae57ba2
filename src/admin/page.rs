//! The admin page, and the API under `/ui/api` that the page uses.
//!
//! The page is one HTML document that contains its style and script. The page receives the data of requests as JSON and
//! shows this data as text. The page is read-only, unless `listen.admin.actions` is true. Then the page can also revoke
//! interactions, capture denied requests, and replay and erase messages.

use std::sync::LazyLock;

use data_encoding::BASE64;
use http::HeaderValue;
use http::header::{
    CONTENT_SECURITY_POLICY, HeaderName, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::callbacks::ListQuery;
use super::responses::{answer, problem};
use super::server::{AdminRequest, AdminResponse};
use super::service::Admin;
use super::{caller, interaction_view};
use crate::denial::Denial;
use crate::guard::Url;
use crate::interaction::State;
use crate::path::{Parameter, parameter};
use crate::time::Timestamp;

/// The maximum number of requests or interactions in one response to the admin page.
const ROWS_MAX: usize = 1000;
const INTERACTIONS_DEFAULT: usize = 100;
/// The header that the admin page must send with each change. An HTML form cannot set this header. A page of another
/// site can set this header only after a CORS preflight, which Callgate does not allow.
const ACTION: HeaderName = HeaderName::from_static("callgate-action");

/// The resource of the admin page that a request path names.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Place<'r> {
    /// The HTML document.
    Page,
    /// A resource of the page's API. Contains the path after `/ui/api/`.
    Api(&'r str),
}

impl<'r> Place<'r> {
    /// Returns the resource that a path names, or `None` if the path belongs neither to the page nor to its API.
    pub(super) fn of(path: &'r str) -> Option<Self> {
        match path {
            "/" | "/ui" | "/ui/" => Some(Self::Page),
            _ => path.strip_prefix("/ui/api/").map(Self::Api),
        }
    }
}

/// The HTML document of the admin page, and the value of its `Content-Security-Policy` header.
struct Page {
    html: String,
    policy: HeaderValue,
}

/// The admin page, built at first use. Its `Content-Security-Policy` allows only the style and the script by their
/// hashes, requests to the admin listener, and `data:` images.
static PAGE: LazyLock<Page> = LazyLock::new(|| {
    let (style, script) = (compact_style(include_str!("page.css")), compact(include_str!("page.js")));
    let digest = |text: &str| BASE64.encode(&Sha256::digest(text));
    let policy = format!(
        "default-src 'none'; script-src 'sha256-{}'; style-src 'sha256-{}'; connect-src 'self'; img-src data:; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        digest(&script),
        digest(&style)
    );
    let html = compact(include_str!("page.html"));
    let html = html.replace("/*style*/", &style).replace("/*script*/", &script);
    // The policy contains only characters that are valid in a header, so the fallback is never used.
    Page { html, policy: HeaderValue::from_str(&policy).unwrap_or_else(|_| NOTHING.clone()) }
});

/// Removes indentation, empty lines and comment lines, so that the page is smaller. A string of the page must not span
/// several lines, because its lines would be changed as well.
fn compact(text: &str) -> String {
    let is_comment = |line: &str| ["//", "/**", "* "].iter().any(|start| line.starts_with(start));
    let lines = text.lines().map(str::trim_start).filter(|line| !line.is_empty() && !is_comment(line));
    lines.collect::<Vec<_>>().join("\n")
}

/// Minifies CSS: removes indentation, empty lines, comment lines, and spaces around punctuation. The style sheet must
/// not contain a string with such spaces, because these spaces would be removed as well.
fn compact_style(text: &str) -> String {
    let pairs = [(": ", ":"), ("; ", ";"), (", ", ","), (" { ", "{"), (" {\n", "{"), (" }", "}")];
    pairs.into_iter().fold(compact(text), |text, (from, to)| text.replace(from, to))
}

/// The `Content-Security-Policy` of every response except the HTML document.
static NOTHING: HeaderValue = HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'");

impl Admin {
    /// Returns the response to a request for the page or its API.
    pub(super) async fn page(&self, request: &AdminRequest, place: Place<'_>) -> AdminResponse {
        let response = match (self.asked_as_ours(request), place) {
            (Err(refused), _) => refused,
            (Ok(()), Place::Api(name)) => self.api(request, name).await,
            (Ok(()), Place::Page) => match request.method.as_str() {
                "GET" | "HEAD" => {
                    let html = AdminResponse::new(200, "text/html; charset=utf-8", PAGE.html.clone());
                    return guarded(html, PAGE.policy.clone());
                }
                _ => not_allowed("GET, HEAD"),
            },
        };
        guarded(response, NOTHING.clone())
    }

    async fn api(&self, request: &AdminRequest, name: &str) -> AdminResponse {
        let may = || {
            caller::from_our_page(request)?;
            self.knows_the_token(request)
        };
        if let Err(response) = may() {
            return response;
        }
        if let Some(rest) =
            name.strip_prefix("capture").filter(|rest| rest.is_empty() || rest.starts_with('/'))
        {
            let id = rest.trim_start_matches('/');
            let acts = !matches!(request.method.as_str(), "GET" | "HEAD");
            let may = if acts { self.may_act(request, "capture") } else { Ok(()) };
            return may.map_or_else(|response| response, |()| self.answer_capture(request, id));
        }
        if let Some(rest) = caller::below(name, "inbox") {
            let may = match request.method.as_str() {
                "DELETE" => self.may_act(request, "drop"),
                "POST" => self.may_act(request, "replay"),
                _ => Ok(()),
            };
            return match may {
                Ok(()) => self.answer_inbox(request, rest).await,
                Err(response) => response,
            };
        }
        let reads = matches!(request.method.as_str(), "GET" | "HEAD");
        if let Some(id) = name.strip_prefix("details/") {
            return if reads { self.interaction_details(id).await } else { not_allowed("GET, HEAD") };
        }
        match (name, name.strip_prefix("interactions/")) {
            ("interactions" | "members" | "reasons" | "recent" | "state", _) if !reads => {
                not_allowed("GET, HEAD")
            }
            ("interactions", _) => self.interactions_response(request).await,
            ("members", _) => answer(200, &self.members()),
            ("reasons", _) => reasons_response(),
            ("recent", _) => self.recent_response(request),
            ("state", _) => answer(200, &self.current_state()),
            (_, Some(id)) if request.method == "DELETE" => match self.may_act(request, "revoke") {
                Ok(()) => self.revoke_interaction(id).await,
                Err(response) => response,
            },
            (_, Some(_)) => not_allowed("DELETE"),
            _ => problem(
                404,
                "not found: capture, details, inbox, interactions, members, reasons, recent, state",
            ),
        }
    }

    /// Denies a change, unless `listen.admin.actions` is true and the request comes from the admin page itself.
    fn may_act(&self, request: &AdminRequest, action: &str) -> Result<(), AdminResponse> {
        if !self.listener.load().actions {
            return Err(problem(403, "the page only reads, unless `listen.admin.actions` is true"));
        }
        caller::surely_from_our_page(request)?;
        match request.headers.get(&ACTION).is_some_and(|given| given == action) {
            true => Ok(()),
            false => Err(problem(403, &format!("the header callgate-action: {action} is missing"))),
        }
    }

    fn recent_response(&self, request: &AdminRequest) -> AdminResponse {
        let number = |name, default| match parameter(&request.query, name) {
            Parameter::Missing => Some(default),
            Parameter::One(text) => text.parse::<u64>().ok(),
            Parameter::Several => None,
        };
        let limit = number("limit", ROWS_MAX as u64).and_then(|limit| usize::try_from(limit).ok());
        let (Some(after), Some(limit)) = (number("after", 0), limit.filter(|limit| is_page(*limit))) else {
            return problem(400, "after must be a number, and limit must be a number from 1 to 1000");
        };
        let rows = self.recent.after(after, limit);
        let status = json!({
            "began": rows.began.to_string(),
            "last": rows.last,
            "max": rows.max,
            "more": rows.more,
            "rows": rows.rows,
        });
        answer(200, &status)
    }

    async fn interactions_response(&self, request: &AdminRequest) -> AdminResponse {
        let query = |name| match parameter(&request.query, name) {
            Parameter::One(value) => Some(value.into_owned()),
            Parameter::Missing | Parameter::Several => None,
        };
        let state = query("state").unwrap_or_else(|| "open".to_owned());
        let only = State::from_name(&state).filter(|_| state != "open");
        if only.is_none() && !matches!(&*state, "all" | "open") {
            return problem(400, "no such state");
        }
        let limit = query("limit").map_or(Some(INTERACTIONS_DEFAULT), |text| text.parse().ok());
        let Some(limit) = limit.filter(|limit| is_page(*limit)) else {
            return problem(400, "limit must be a number from 1 to 1000");
        };
        // The filter `open` selects every state that is not final, such as asking and progressing.
        let over = (state == "open").then_some(false);
        let after = query("after").unwrap_or_default();
        let search = query("search").map(|text| text.trim().to_lowercase()).filter(|text| !text.is_empty());
        if let Some(id) = search.as_deref().filter(|text| text.starts_with("int_")) {
            return self.interaction_as_list(id).await;
        }
        let newest = query("sort").is_some_and(|sort| sort == "newest");
        let before = query("before").filter(|text| !text.is_empty()).map(|text| Timestamp::parse(&text));
        if before == Some(None) {
            return problem(400, "before must be a time");
        }
        let (route, before) = (query("route"), before.flatten());
        let list = ListQuery {
            route,
            state: only,
            over,
            search,
            newest,
            before,
            after,
            limit,
            ..ListQuery::default()
        };
        let Ok(mut found) = self.list_all(&list).await else {
            return answer(503, &json!({ "title": "the store is not available" }));
        };
        found.interactions.iter_mut().for_each(fit_to_page);
        answer(200, &found.into_json())
    }

    /// Returns the interaction with this id as a list with one entry, or an empty list if there is no such interaction.
    async fn interaction_as_list(&self, id: &str) -> AdminResponse {
        let found = self.read_anywhere(id).await;
        let mut views: Vec<Value> = serde_json::from_str(&found.body).ok().into_iter().collect();
        views.retain(|view| found.status == 200 && view.is_object());
        views.iter_mut().for_each(fit_to_page);
        answer(200, &json!({ "interactions": views, "next": null }))
    }

    /// Returns the details of one interaction for the admin page. The URLs of questions come from messages, so the
    /// response contains only their hosts.
    async fn interaction_details(&self, id: &str) -> AdminResponse {
        let found = self.read_anywhere(id).await;
        let view = serde_json::from_str::<Value>(&found.body).ok().filter(|_| found.status == 200);
        let Some(mut view) = view else { return found };
        for question in view.get_mut("questions").and_then(Value::as_array_mut).into_iter().flatten() {
            if let Some(members) = question.as_object_mut() {
                let url = members.remove("endpoint");
                let host = url.as_ref().and_then(Value::as_str).and_then(|url| Url::parse(url).ok());
                let host = host.map(|url| url.authority().to_owned());
                members.insert("host".to_owned(), json!(host));
            }
        }
        answer(200, &view)
    }
}

/// Reduces the JSON of an interaction to the keys that the admin page shows. Removes URLs that come from messages. Adds
/// the key `open`, which states whether the interaction can still change its state.
fn fit_to_page(interaction: &mut Value) {
    let state = interaction.get("state").and_then(Value::as_str).and_then(State::from_name);
    if let Some(members) = interaction.as_object_mut() {
        members.retain(|name, _| name == "member" || interaction_view::SHARED.contains(&&**name));
        members.insert("open".to_owned(), json!(state.is_some_and(State::is_open)));
    }
}

/// Returns the status, the title and the explanation of every denial as JSON, by denial code.
fn reasons_response() -> AdminResponse {
    let reasons: serde_json::Map<_, _> = Denial::ALL
        .iter()
        .map(|denial| {
            let status = json!({ "status": denial.status(), "title": denial.title(), "help": denial.help() });
            (denial.code().to_owned(), status)
        })
        .collect();
    answer(200, &json!(reasons))
}

fn is_page(limit: usize) -> bool {
    (1..=ROWS_MAX).contains(&limit)
}

fn not_allowed(allow: &'static str) -> AdminResponse {
    AdminResponse { allow, ..problem(405, "method not allowed") }
}

/// Adds security headers to a response: `Content-Security-Policy`, and headers against type sniffing, referrers,
/// framing and access from other origins.
fn guarded(mut response: AdminResponse, policy: HeaderValue) -> AdminResponse {
    let fixed = |name, value| (name, HeaderValue::from_static(value));
    response.headers.extend([
        (CONTENT_SECURITY_POLICY, policy),
        fixed(X_CONTENT_TYPE_OPTIONS, "nosniff"),
        fixed(REFERRER_POLICY, "no-referrer"),
        fixed(X_FRAME_OPTIONS, "DENY"),
        fixed(HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
        fixed(HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    ]);
    response
}
