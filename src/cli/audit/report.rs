//! The report of `callgate audit`, as text and as JSON.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde_json::{Value, json};

use super::log::{Log, Route};

/// The number of callers that the text shows for each route.
const CALLERS_SHOWN: usize = 10;
/// The name that the access log uses for requests to no route.
const NO_ROUTE: &str = "none";

/// Returns the report as JSON.
pub(super) fn json(log: &Log) -> Value {
    let names = |wanted: fn(&Route) -> bool| -> Vec<&str> {
        configured(log).filter(|(_, route)| wanted(route)).map(|(name, _)| name).collect()
    };
    json!({
        "lines": log.lines,
        "entries": log.entries(),
        "skipped": log.not_json,
        "other_lines": log.other_json,
        "egress_requests": log.egress,
        "first": log.first,
        "last": log.last,
        "routes": configured(log).map(|(name, route)| route_json(name, route)).collect::<Vec<_>>(),
        "no_route": log.routes.get(NO_ROUTE).map(|route| route_json(NO_ROUTE, route)),
        "enforceable": names(Route::can_be_enforced),
        "not_enforceable": names(|route| route.would_reject > 0),
        "unused": names(Route::is_unused),
    })
}

fn configured(log: &Log) -> impl Iterator<Item = (&str, &Route)> {
    log.routes.iter().map(|(name, route)| (&**name, route)).filter(|(name, _)| *name != NO_ROUTE)
}

fn route_json(name: &str, route: &Route) -> Value {
    let callers = route.callers();
    let callers = callers.iter().map(|(address, caller)| {
        json!({ "address": address, "requests": caller.requests, "rejected": caller.rejected })
    });
    let reasons = route
        .reasons
        .iter()
        .map(|((verdict, reason), count)| json!({ "verdict": verdict, "reason": reason, "count": count }));
    json!({
        "route": name,
        "mode": mode(route),
        "requests": route.requests,
        "accepted": route.accepted,
        "denied": route.denied,
        "failed": route.failed,
        "observed": route.observed,
        "would_reject": route.would_reject,
        "would_reject_reasons": route.would_reject_reasons,
        "reasons": reasons.collect::<Vec<_>>(),
        "providers": route.providers,
        "callers": callers.collect::<Vec<_>>(),
        "enforceable": route.can_be_enforced(),
        "advice": advice(name, route),
    })
}

fn mode(route: &Route) -> &'static str {
    if route.observes { "observe" } else { "enforce" }
}

/// Returns what the operator can do about a route.
fn advice(name: &str, route: &Route) -> String {
    let requests = route.let_in();
    if name == NO_ROUTE {
        return "no route has these paths: add a route, or tell the callers".to_owned();
    }
    if route.observes && route.can_be_enforced() {
        return format!("can be closed with `mode: enforce`: all {requests} requests passed every check");
    }
    if route.would_reject > 0 {
        let would_reject = route.would_reject;
        return format!(
            "cannot be closed yet: `mode: enforce` would reject {would_reject} of {requests} requests"
        );
    }
    if route.is_unused() {
        return "no request was accepted: remove the route if nobody needs it".to_owned();
    }
    "is closed: it accepts only requests that pass every check".to_owned()
}

/// Returns the report as text.
pub(super) fn text(log: &Log) -> String {
    let mut out = String::new();
    // Writing to a string cannot fail.
    let _ = writeln!(out, "{}", summary(log));
    for (name, route) in configured(log).chain(log.routes.get_key_value(NO_ROUTE).map(|(n, r)| (&**n, r))) {
        let title =
            if name == NO_ROUTE { "requests to no route".to_owned() } else { format!("route {name}") };
        let _ = write!(out, "\n{}\n{}", printable(&title), route_text(name, route));
    }
    out
}

fn summary(log: &Log) -> String {
    let mut summary = format!("{} requests", log.entries());
    if let (Some(first), Some(last)) = (&log.first, &log.last) {
        let _ = write!(summary, " from {} to {}", printable(first), printable(last));
    }
    if log.egress > 0 {
        let _ = write!(summary, ", {} of them from the agent", log.egress);
    }
    if log.not_json > 0 {
        let _ = write!(summary, "\nskipped {} lines that are not JSON", log.not_json);
    }
    if log.other_json > 0 {
        let _ = write!(
            summary,
            "\nskipped {} lines of JSON that are not entries of the access log",
            log.other_json
        );
    }
    summary
}

fn route_text(name: &str, route: &Route) -> String {
    let mut out = String::new();
    let mut row = |key: &str, value: &str| {
        let _ = writeln!(out, "  {key:<13} {}", printable(value));
    };
    if name != NO_ROUTE {
        row("mode", mode(route));
    }
    let mut requests = format!("{}", route.requests);
    let counts = [
        (route.accepted, "accepted"),
        (route.observed, "observed"),
        (route.denied, "denied"),
        (route.failed, "failed"),
    ];
    for (i, (count, word)) in counts.into_iter().filter(|(count, _)| *count > 0).enumerate() {
        let _ = write!(requests, "{}{count} {word}", if i == 0 { ": " } else { ", " });
    }
    row("requests", &requests);
    if !route.providers.is_empty() {
        row("providers", &listed(&route.providers));
    }
    let reasons =
        route.reasons.iter().map(|((verdict, reason), count)| format!("{verdict} {reason} {count}"));
    row("reasons", &reasons.collect::<Vec<_>>().join(", "));
    if route.would_reject > 0 {
        let reasons = listed(&route.would_reject_reasons);
        row("would reject", &format!("{} of {} ({reasons})", route.would_reject, route.let_in()));
    }
    for (i, (address, caller)) in route.callers().iter().take(CALLERS_SHOWN).enumerate() {
        let rejected = match caller.rejected {
            0 => String::new(),
            rejected => format!(", {rejected} rejected"),
        };
        row(if i == 0 { "callers" } else { "" }, &format!("{address}  {}{rejected}", caller.requests));
    }
    let more = route.callers.len().saturating_sub(CALLERS_SHOWN);
    if more > 0 {
        row("", &format!("and {more} more"));
    }
    row("advice", &advice(name, route));
    out
}

fn listed(counts: &BTreeMap<String, u64>) -> String {
    counts.iter().map(|(name, count)| format!("{name} {count}")).collect::<Vec<_>>().join(", ")
}

/// Replaces control characters, so that text from a log cannot send escape sequences to the terminal.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect()
}
