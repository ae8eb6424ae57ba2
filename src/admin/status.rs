//! JSON views of the current state for the admin page: routes, providers, feeds, certificates, configuration.

use serde_json::{Value, json};

use super::service::Admin;
use crate::egress::Rule;
use crate::feed::FeedId;
use crate::ingress::{Provider, Route, TokenRule};
use crate::observe::Count;
use crate::policy::{Feed, FeedKind, Policy};
use crate::time::Timestamp;

impl Admin {
    /// Returns the state of Callgate for the admin page as JSON. The ages of feeds and the expiry times of certificates
    /// come from the metrics.
    pub(super) fn current_state(&self) -> Value {
        let (policy, listener) = (self.policy.load(), self.listener.load());
        let readiness = self.readiness();
        let (interactions, events) = self.store.counts();
        let ages = self.metrics.feed_ages();
        let feeds = policy.feeds.iter().enumerate();
        let certificates =
            self.metrics.certificate_ends().into_iter().map(
                |(file, end)| json!({ "file": file, "ends": Timestamp::from_unix_secs(end).to_string() }),
            );
        json!({
            "version": env!("CARGO_PKG_VERSION"),
            "now": self.clock.now().to_string(),
            "ready": readiness.is_ok(),
            "why_not": readiness.err(),
            "config": self.config.status(),
            "actions": listener.actions,
            "member": self.interactions.replication.as_ref().map(|replication| replication.address()),
            "client_header": policy.ingress.edge().client_address.as_ref().map(|rule| rule.header.name().as_str().to_owned()),
            "public_url": &*policy.ingress.edge().public_url,
            "interactions": interactions,
            "events": events,
            "routes": policy.ingress.routes().iter().map(|route| self::route(route)).collect::<Vec<_>>(),
            "providers": policy.providers.iter().map(|provider| self::provider(&policy, provider)).collect::<Vec<_>>(),
            "feeds": feeds.map(|(at, feed)| {
                self::feed(&policy, feed, FeedId(at), ages.get(feed.label()).copied())
            }).collect::<Vec<_>>(),
            "certificates": certificates.collect::<Vec<_>>(),
            "egress": policy.egress.rules().iter().map(|rule| self::rule(rule)).collect::<Vec<_>>(),
            "counts": {
                "ingress": counts(self.metrics.ingress_counts()),
                "egress": counts(self.metrics.egress_counts()),
            },
            "kept": self.store.kept(),
            "inbox": self.inbox_state(&policy),
        })
    }
}

fn rule(rule: &Rule) -> Value {
    let url = rule.target.url.to_string();
    json!({
        "name": *rule.name,
        "path": rule.path.as_str(),
        "target": rule.target.path.as_ref().map_or(url.clone(), |path| {
            format!("{}{}", url.trim_end_matches('/'), path.as_str())
        }),
        "route": rule.inject.as_ref().map(|inject| &*inject.route),
        "proxied": rule.proxied.is_some(),
    })
}

/// Returns the numbers of requests by route or rule, provider, verdict and reason, as JSON. Each number counts the
/// requests since the start of the process.
fn counts(counts: Vec<Count>) -> Vec<Value> {
    let count = |one: Count| json!({ "name": one.name, "provider": one.provider, "verdict": one.verdict, "reason": one.reason, "requests": one.requests });
    counts.into_iter().map(count).collect()
}

fn route(route: &Route) -> Value {
    json!({
        "name": *route.name,
        "path": route.path.as_str(),
        "methods": route.methods.iter().map(|method| method.as_str()).collect::<Vec<_>>(),
        "provider": route.provider.as_ref().map(|provider| &*provider.name),
        "agent": &*route.agent.name,
        "forward": route.forward.as_str(),
        "observes": route.observes(),
        "streams": route.stream,
        "token": route.token.as_ref().map(token),
        // The headers and parameters that carry secrets. If the page shows a request as a curl command, the command
        // contains placeholders instead of the values.
        "headers": route.token.iter().flat_map(TokenRule::headers).map(|name| name.as_str()).collect::<Vec<_>>(),
        "parameters": route.secret_parameters().collect::<Vec<_>>(),
        "signed": route.verifier().is_some_and(|verifier| verifier.scheme().has_proof()),
    })
}

/// Describes the token that a route requires, and where the request carries the token.
fn token(rule: &TokenRule) -> String {
    let (kind, carriers) = match rule {
        TokenRule::Callback { carriers, .. } => ("minted here", carriers),
        TokenRule::Jwt { carriers, .. } => ("a JWT", carriers),
        TokenRule::Static { carriers, .. } => ("a secret", carriers),
    };
    let places: Vec<_> = carriers.iter().map(ToString::to_string).collect();
    format!("{kind}, in {}", places.join(" or "))
}

fn provider(policy: &Policy, provider: &Provider) -> Value {
    let lists = &policy.ingress.edge().fetched_data.lists;
    json!({
        "name": *provider.name,
        "preset": provider.preset,
        "signs": provider.verifier.as_ref().is_some_and(|verifier| verifier.scheme().has_proof()),
        "networks": provider.allow.as_ref().map(|allow| allow.len(lists)),
    })
}

/// Returns a feed (keys, addresses or a secret at a URL) as JSON: its age and its number of entries, but not the
/// entries.
fn feed(policy: &Policy, feed: &Feed, id: FeedId, age_seconds: Option<f64>) -> Value {
    let outside = &policy.ingress.edge().fetched_data;
    let (kind, count) = match feed.kind {
        FeedKind::Addresses(_) => ("addresses", outside.lists.get(id).map(|list| list.len())),
        FeedKind::Keys => ("keys", outside.keyring.set(id).map(|set| set.keys().len())),
        FeedKind::Secret => ("secret", outside.keyring.secret(id).map(|_| 1)),
    };
    json!({ "label": feed.label(), "kind": kind, "count": count, "age_seconds": age_seconds })
}
