//! Reads the setting `deliver` of a route: whether a callback is delivered at once, or stored in the inbox.

use http::Method;

use crate::config::yaml::Cursor;
use crate::ingress::{Deliver, Route};

const WORDS: &[(&str, Deliver)] =
    &[("inbox", Deliver::Inbox), ("now", Deliver::Now), ("pull", Deliver::Pull)];
/// The request methods of callbacks that can be stored in the inbox. A caller that uses one of these methods does not
/// need the agent's response.
const METHODS: [Method; 3] = [Method::PATCH, Method::POST, Method::PUT];

/// Reads the setting `deliver: now | inbox | pull` of a route.
pub(super) fn deliver(at: Option<Cursor<'_>>) -> Option<Deliver> {
    at.map_or(Some(Deliver::Now), |at| at.one_of(WORDS))
}

/// Reports an error if a route stores callbacks although one of its settings does not allow this: the route passes
/// streams on, delivers requests that fail its checks (observe mode), or has callers that need the response of the
/// agent. `at` is the route in the configuration.
pub(super) fn can_be_kept(at: &Cursor<'_>, route: &Route) -> Option<()> {
    if !route.deliver.keeps() {
        return Some(());
    }
    let at = at.fields()?.optional("deliver")?;
    if route.stream {
        return at.error("a stream is passed on while it arrives, and is not kept", "remove `stream`");
    }
    if route.observes() {
        let message = "a route in observe mode delivers requests that fail its checks, and keeps none";
        return at.error(message, "write `mode: enforce` in the route");
    }
    if let Some(method) = route.methods.iter().find(|method| !METHODS.contains(method)) {
        let message = format!("the caller of a {method} request needs the answer of the agent");
        return at.error(message, "list only POST, PUT and PATCH in `methods`, or write `deliver: now`");
    }
    if !route.tells_duplicates {
        let message = "`duplicates: deliver` is for callers that need the answer of the agent";
        return at.error(message, "remove `duplicates`, or write `deliver: now`");
    }
    if let Some(provider) = route.provider.as_ref().filter(|provider| provider.reads_answer) {
        let message = format!("the provider {} reads the answer of the agent", provider.name);
        let hint = "write `deliver: now`; if it does not read the answers on this route, write `answer: ignored` \
                    in the provider";
        return at.error(message, hint);
    }
    Some(())
}
