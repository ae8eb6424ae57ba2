//! The inbox API for operators: lists, shows, replays and erases messages (stored callbacks).

mod view;

use serde::Deserialize;
use serde_json::json;

use super::callbacks::{refused, unknown_route};
use super::responses::{answer, problem};
use super::server::{AdminRequest, AdminResponse};
use super::service::Admin;
use crate::clock::instant;
use crate::inbox::MessageState;
use crate::path::{Parameter, parameter};
use crate::store::{MessageFilter, Replayed};
use crate::time::{Rate, Timestamp, parse_duration, parse_rate};

/// The default number of messages in one response to a list request. The maximum is [`PAGE_MAX`].
const PAGE_DEFAULT: usize = 100;
const PAGE_MAX: usize = 1000;
/// The query parameters of a request that lists messages.
const PARAMETERS: [&str; 5] = ["after", "interaction", "limit", "route", "state"];

/// The JSON body of a request that replays many messages.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    #[serde(default)]
    route: Option<Box<str>>,
    #[serde(default)]
    state: Option<String>,
    #[serde(default)]
    since: Option<String>,
    #[serde(default)]
    rate: Option<RateText>,
}

/// The rate of a replay: a text such as `10/s`, or a number of messages per second.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum RateText {
    Number(u32),
    Text(String),
}

impl Admin {
    fn now(&self) -> Timestamp {
        self.ledger_clock.now(instant())
    }

    pub(super) async fn inbox(&self, request: &AdminRequest, rest: &str) -> AdminResponse {
        match self.may_use_apis(request) {
            Ok(()) => self.answer_inbox(request, rest).await,
            Err(response) => response,
        }
    }

    /// Responds to a request of the inbox API. The caller must have checked that the client is allowed to use this API.
    pub(super) async fn answer_inbox(&self, request: &AdminRequest, rest: &str) -> AdminResponse {
        let not_allowed = |allow| AdminResponse { allow, ..problem(405, "method not allowed") };
        match (request.method.as_str(), rest.split_once('/')) {
            ("GET" | "HEAD", None) if rest.is_empty() => self.list_messages(&request.query).await,
            (_, None) if rest.is_empty() => not_allowed("GET, HEAD"),
            ("POST", None) if rest == "replay" => self.replay_messages(request).await,
            (_, None) if rest == "replay" => not_allowed("POST"),
            ("GET" | "HEAD", None) => self.show_message(rest).await,
            ("DELETE", None) => self.erase_message(rest).await,
            (_, None) => not_allowed("DELETE, GET, HEAD"),
            ("POST", Some((id, "replay"))) => self.replay_message(id).await,
            (_, Some((_, "replay"))) => not_allowed("POST"),
            _ => problem(404, "no such message"),
        }
    }

    async fn list_messages(&self, query: &str) -> AdminResponse {
        let (filter, limit) = match list_query(query) {
            Ok(asked) => asked,
            Err(fault) => return problem(400, fault),
        };
        let found = self.store.inbox().list(&filter, limit);
        if found.is_empty()
            && let Some(name) = filter.route.as_deref()
            && let Some(fault) = unknown_route(&self.policy.load(), name)
        {
            return problem(400, &fault);
        }
        let next = found.last().filter(|_| found.len() == limit).map(|last| last.number);
        let mut messages = Vec::with_capacity(found.len());
        for message in &found {
            messages.push(self.message(message, view::Detail::Line).await);
        }
        answer(200, &json!({ "messages": messages, "next": next }))
    }

    async fn show_message(&self, id: &str) -> AdminResponse {
        let inbox = self.store.inbox();
        let Some(found) = inbox.number_of(id).and_then(|number| inbox.view(number)) else {
            return problem(404, "no such message");
        };
        let detail = match self.listener.load().bodies {
            true => view::Detail::Body,
            false => view::Detail::Head,
        };
        answer(200, &self.message(&found, detail).await)
    }

    async fn replay_message(&self, id: &str) -> AdminResponse {
        let inbox = self.store.inbox();
        let Some(number) = inbox.number_of(id) else { return problem(404, "no such message") };
        match inbox.replay(number, self.now()).await {
            Ok(Replayed::Messages(count)) => answer(200, &json!({ "replayed": count })),
            Ok(Replayed::Waiting) => problem(409, "the message is already waiting for the agent"),
            Ok(Replayed::Unknown) => problem(404, "no such message"),
            Err(refusal) => refused(&refusal),
        }
    }

    async fn replay_messages(&self, request: &AdminRequest) -> AdminResponse {
        let body = match request.json() {
            Ok(body) => body,
            Err((status, detail)) => return problem(status, detail),
        };
        let wanted = if body.is_empty() { Ok(Wanted::default()) } else { serde_json::from_slice(body) };
        let wanted: Wanted = match wanted {
            Ok(wanted) => wanted,
            Err(error) => {
                return problem(400, &format!("the body is not a valid request to replay: {error}"));
            }
        };
        let now = self.now();
        let asked = state(wanted.state.as_deref()).and_then(|state| {
            let since = wanted.since.as_deref().map(|text| since(text, now)).transpose()?;
            Ok((state, since, wanted.rate.as_ref().map(rate).transpose()?))
        });
        let (state, since, rate) = match asked {
            Ok(asked) => asked,
            Err(fault) => return problem(400, fault),
        };
        if let Some(fault) = wanted.route.as_deref().and_then(|name| unknown_route(&self.policy.load(), name))
        {
            return problem(404, &fault);
        }
        // Without a state in the request, only dead messages are replayed.
        let state = state.or(Some(MessageState::Dead));
        let filter = MessageFilter { route: wanted.route, state, ..MessageFilter::default() };
        match self.store.inbox().replay_many(&filter, since, rate, now).await {
            Ok(count) => answer(200, &json!({ "replayed": count })),
            Err(refusal) => refused(&refusal),
        }
    }

    async fn erase_message(&self, id: &str) -> AdminResponse {
        let inbox = self.store.inbox();
        let Some(number) = inbox.number_of(id).filter(|number| inbox.view(*number).is_some()) else {
            return problem(404, "no such message");
        };
        match inbox.erase(number).await {
            Ok(true) => AdminResponse { body: String::new(), ..problem(204, "") },
            Ok(false) => problem(409, "the message is being delivered"),
            Err(refusal) => refused(&refusal),
        }
    }
}

/// Parses the query of a request that lists messages. Returns the filter and the maximum number of messages.
///
/// # Errors
/// Returns an explanation if a parameter is unknown, occurs twice or is invalid.
fn list_query(query: &str) -> Result<(MessageFilter, usize), &'static str> {
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        if !PARAMETERS.contains(&pair.split('=').next().unwrap_or_default()) {
            return Err("the parameters are `state`, `route`, `interaction`, `limit` and `after`");
        }
    }
    // A parameter with an empty value is treated as a missing parameter.
    let value = |name: &str| match parameter(query, name) {
        Parameter::One(value) => Ok(Some(value.into_owned()).filter(|value| !value.is_empty())),
        Parameter::Missing => Ok(None),
        Parameter::Several => Err("a parameter occurs twice"),
    };
    let after = value("after")?.map_or(Some(0), |text| text.parse().ok());
    let limit = value("limit")?.map_or(Some(PAGE_DEFAULT), |text| text.parse().ok());
    let limit = limit.filter(|limit| (1..=PAGE_MAX).contains(limit));
    let filter = MessageFilter {
        route: value("route")?.map(Into::into),
        state: state(value("state")?.as_deref())?,
        interaction: value("interaction")?.map(Into::into),
        after: after.ok_or("`after` must be the number of a message")?,
    };
    Ok((filter, limit.ok_or("limit must be a number from 1 to 1000")?))
}

fn state(name: Option<&str>) -> Result<Option<MessageState>, &'static str> {
    let known = |name| MessageState::from_name(name).ok_or("the states are due, leased, delivered and dead");
    name.map(known).transpose()
}

/// Parses the start of a time range: a time in RFC 3339, or a duration before `now`, such as `1h`.
fn since(text: &str, now: Timestamp) -> Result<Timestamp, &'static str> {
    let ago = parse_duration(text).map(|ago| now.minus(ago));
    ago.or_else(|| Timestamp::parse(text)).ok_or("`since` must be a time, or a duration such as 1h")
}

fn rate(text: &RateText) -> Result<Rate, &'static str> {
    let rate = match text {
        RateText::Number(number) => parse_rate(&format!("{number}/s")),
        RateText::Text(text) => parse_rate(text),
    };
    rate.ok_or("`rate` must be a number in a time, such as 10/s")
}
