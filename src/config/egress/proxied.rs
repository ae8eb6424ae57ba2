//! Reads `proxied` and `unmatched` of an egress rule. Callgate finds a `proxied` rule for a request in two ways: by the
//! path of a request to the egress listener, and by the URL of a request to the forward proxy.

use std::cmp::Ordering;

use crate::config::repeated::repeated;
use crate::config::yaml::{Cursor, Fields};
use crate::egress::{Rule, Target, Unmatched};
use crate::guard::{Scheme, Url};
use crate::path::Template;

/// Reads `proxied` and `unmatched` of an egress rule. `path` and `target` are settings of the same rule. Returns
/// `Some(None)` if the rule does not have `proxied: true`.
pub(super) fn proxied(
    fields: &mut Fields<'_>,
    path: Option<&Template>,
    target: Option<&Target>,
) -> Option<Option<Unmatched>> {
    let at = fields.optional("proxied");
    let is_proxied = at.as_ref().map_or(Some(false), Cursor::boolean);
    let unmatched_at = fields.optional("unmatched");
    let words = [("pass", Unmatched::Pass), ("refuse", Unmatched::Refuse)];
    let unmatched = unmatched_at.as_ref().map_or(Some(Unmatched::Pass), |at| at.one_of(&words));
    let Some(at) = at.filter(|_| is_proxied == Some(true)) else {
        if let (Some(at), Some(false), Some(_)) = (unmatched_at, is_proxied, unmatched) {
            return at.error("`unmatched` has no effect without `proxied: true`", "");
        }
        return is_proxied.and(unmatched).map(|_| None);
    };
    if let (Some(path), Some(target)) = (path, target) {
        findable(&at, path, target)?;
    }
    unmatched.map(Some)
}

/// Reports an error if the forward proxy cannot find a `proxied` egress rule by the rule's target, for one of these
/// reasons:
///
/// - The target is an HTTPS URL with an IP address, for which Callgate cannot issue a certificate.
/// - The target has a query or a percent-encoding.
/// - The target lacks a capture of the rule's `path`.
fn findable(at: &Cursor<'_>, path: &Template, target: &Target) -> Option<()> {
    if target.url.scheme() == Scheme::Https && target.url.address().is_some() {
        return at.error(
            "the target is an IP address, for which Callgate cannot issue a certificate",
            "use the name of the host",
        );
    }
    let names: Vec<_> = match &target.path {
        Some(template) => template.names().collect(),
        None => match Template::parse(target.url.target()) {
            Ok(_) => Vec::new(),
            Err(_) => {
                return at.error(
                    "requests cannot be found by a target with a query or with percent-encoding",
                    "remove `proxied`, or change the target",
                );
            }
        },
    };
    match path.names().find(|name| !names.contains(name)) {
        None => Some(()),
        Some(name) => at.error(
            format!("the target does not contain the capture {name} of `path`"),
            "add it to the target",
        ),
    }
}

/// Reports an error for each `proxied` rule whose target accepts the same requests as the target of an earlier rule.
/// Also reports an error if two `proxied` rules with the same host have different values of `unmatched`.
pub(super) fn distinct_urls(rules: &[&(Cursor<'_>, Rule)]) {
    let proxied: Vec<_> = rules.iter().filter(|(_, rule)| rule.proxied.is_some()).collect();
    let origin = |rule: &Rule| {
        let Target { url, .. } = &rule.target;
        (url.scheme().name(), url.host().to_owned(), url.port())
    };
    for (i, earlier) in repeated(&proxied, |(_, a), (_, b)| {
        origin(a).cmp(&origin(b)).then_with(|| target_path(a).precedence(&target_path(b)))
    }) {
        let (Some((at, _)), Some((_, earlier))) = (proxied.get(i), proxied.get(earlier)) else { continue };
        let message = format!("the target accepts the same requests as the rule {}", earlier.name);
        let _: Option<()> = at.error(message, "set `proxied` for one of the two");
    }
    let by_host = |a: &Url, b: &Url| -> Ordering { a.host().cmp(b.host()) };
    for (i, earlier) in repeated(&proxied, |(_, a), (_, b)| by_host(&a.target.url, &b.target.url)) {
        let (Some((at, rule)), Some((_, earlier))) = (proxied.get(i), proxied.get(earlier)) else { continue };
        if rule.proxied != earlier.proxied {
            let message =
                format!("`unmatched` differs from that of the rule {} for the same host", earlier.name);
            let _: Option<()> =
                at.error(message, "requests that no rule matches belong to all rules of a host");
        }
    }
}

fn target_path(rule: &Rule) -> Template {
    let fixed = || Template::parse(rule.target.url.target()).unwrap_or_else(|_| Template::root());
    rule.target.path.clone().unwrap_or_else(fixed)
}
