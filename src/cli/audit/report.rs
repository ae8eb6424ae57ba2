//! The report of `callgate audit`, as text and as JSON.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde_json::{Value, json};

use super::log::{Log, Route};
use crate::cli::common::printable;

/// The maximum number of callers per route in the text report.
const CALLERS_SHOWN: usize = 10;
/// The route name that the access log contains for requests whose path matches no route.
const NO_ROUTE: &str = "none";

/// Returns the report of `callgate audit` as JSON.
pub(super) fn json(log: &Log) -> Value {
    let names = |wanted: fn(&Route) -> bool| -> Vec<&str> {
        configured(log).filter(|(_, route)| wanted(route)).map(|(name, _)| name).collect()
    };
    json!({
        "lines": log.lines,
        "entries": log.entries(),
        "skipped": log.not_json,
        "other_lines": log.other_json,
        "older": log.older,
        "egress_requests": log.egress,
        "first": log.first,
        "last": log.last,
        "routes": configured(log).map(|(name, route)| route_json(name, route)).collect::<Vec<_>>(),
        "no_route": log.routes.get(NO_ROUTE).map(|route| route_json(NO_ROUTE, route)),
        "enforceable": names(Route::can_be_enforced),
        "not_enforceable": names(Route::cannot_be_enforced),
        "unused": names(Route::is_unused),
    })
}

fn configured(log: &Log) -> impl Iterator<Item = (&str, &Route)> {
    log.routes.iter().map(|(name, route)| (&**name, route)).filter(|(name, _)| *name != NO_ROUTE)
}

fn route_json(name: &str, route: &Route) -> Value {
    let callers = route.callers();
    let callers = callers.iter().map(|(address, caller)| {
        json!({
            "address": address,
            "requests": caller.requests,
            "rejected": caller.rejected,
            "reasons": caller.reasons,
        })
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
        "agent_rejected": route.agent_rejected(),
        "agent_statuses": route.agent_rejections,
        "would_reject": route.would_reject,
        "would_reject_reasons": route.would_reject_reasons,
        "would_reject_last": route.would_reject_last,
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

/// Returns the advice to the operator about a route, as one sentence.
fn advice(name: &str, route: &Route) -> String {
    let advice = advice_about_mode(name, route);
    match route.agent_rejected() {
        0 => advice,
        count => {
            let delivered = route.delivered;
            format!(
                "{advice}; the agent answered {count} of {delivered} delivered requests with an error: check it"
            )
        }
    }
}

fn advice_about_mode(name: &str, route: &Route) -> String {
    let (requests, would_reject) = (route.let_in(), route.would_reject);
    if name == NO_ROUTE {
        return "no route has these paths: add a route, or tell the callers".to_owned();
    }
    if route.cannot_be_enforced() {
        let last = route.would_reject_last.as_deref().unwrap_or("at an unknown time");
        return format!(
            "cannot be closed yet: `mode: enforce` would reject {would_reject} of {requests} requests, the last one {last}; \
             if you have corrected the configuration since then, read only newer requests with `--since`"
        );
    }
    if route.is_unused() {
        return "no request was accepted: remove the route if nobody needs it".to_owned();
    }
    if route.observes && route.can_be_enforced() {
        return format!("can be closed with `mode: enforce`: all {requests} requests passed every check");
    }
    "is closed: it accepts only requests that pass every check".to_owned()
}

/// Returns the report of `callgate audit` as text.
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
    if log.older > 0 {
        let _ = write!(summary, "\nskipped {} requests before `--since`", log.older);
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
    if route.agent_rejected() > 0 {
        let statuses = route.agent_rejections.iter().map(|(status, count)| format!("{status} {count}"));
        let statuses = statuses.collect::<Vec<_>>().join(", ");
        row("agent", &format!("rejected {} of {} ({statuses})", route.agent_rejected(), route.delivered));
    }
    if !route.providers.is_empty() {
        row("providers", &listed(&route.providers));
    }
    let reasons =
        route.reasons.iter().map(|((verdict, reason), count)| format!("{verdict} {reason} {count}"));
    row("reasons", &reasons.collect::<Vec<_>>().join(", "));
    if route.would_reject > 0 {
        let reasons = listed(&route.would_reject_reasons);
        row("would reject", &format!("{} of {} ({reasons})", route.would_reject, route.let_in()));
        if route.would_reject_reasons.values().sum::<u64>() > route.would_reject {
            row("", "a request can fail several checks");
        }
    }
    for (i, (address, caller)) in route.callers().iter().take(CALLERS_SHOWN).enumerate() {
        let rejected = match caller.rejected {
            0 => String::new(),
            rejected => format!(", {rejected} rejected ({})", listed(&caller.reasons)),
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
