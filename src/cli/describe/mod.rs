//! Describes a compiled configuration as JSON, with defaults and without secrets.

mod delivery;
mod startup;

use std::net::IpAddr;

use serde_json::{Map, Value, json};

use crate::config::Config;
use crate::egress::{Rule, Unmatched};
use crate::ingress::{Actions, Carrier, Provider, QueryRule, Route, TokenRule};
use crate::interaction::{Stale, UnmatchedCallback};
use crate::json::Pointer;
use crate::policy::{Feed, Policy};
use crate::signature::{Proof, SignaturePlace, TimestampSource, Verifier, VerifierKeys};
use crate::source::{Allowlist, Networks};
use crate::time::{Rate, format_duration};
use crate::token::Form;

/// The maximum number of IP address ranges that `callgate check --print` prints for each list of networks.
const RANGES_MAX: usize = 50;

/// Returns the output of `callgate check --print` as JSON: all sections of the configuration, and each route with the
/// settings that apply to it.
pub(super) fn describe(config: &Config) -> Value {
    let policy = &config.policy;
    let mut shown = startup::startup(&config.startup);
    let rest = json!({
        "include": config.sources.included(),
        "public_url": *policy.ingress.edge().public_url,
        "client_address": client_address(policy),
        "callback_tokens": policy.minting.as_ref().map(|minting| json!({
            "ttl": format_duration(minting.ttl),
            "form": if minting.minter.form() == Form::Opaque { "opaque" } else { "jwt" },
            "minted_with": minting.minter.to_string(),
            "keys": callback_keys(policy).unwrap_or_else(|| vec![minting.minter.to_string()]),
        })),
        "assertion": policy.ingress.routes().iter().find_map(|route| route.asserter.as_ref()).map(|asserter| json!({
            "key": asserter.algorithm().name(),
            "audience": asserter.audience(),
            "ttl": format_duration(asserter.ttl()),
        })),
        "inbox": delivery::inbox(&policy.inbox),
        "limits": limits(policy),
        "replicas": config.startup.replicas.as_ref().zip(policy.replicas.as_deref()).map(|(listener, replicas)| {
            startup::replicas(listener, replicas)
        }),
        "outbound_proxy": policy.outbound_proxy.as_ref().map(|proxy| json!({
            "url": proxy.url().to_string().trim_end_matches('/'),
            "no_proxy": proxy.no_proxy().iter().map(ToString::to_string).collect::<Vec<_>>(),
            "credentials": if proxy.credentials().is_some() { "given" } else { "none" },
        })),
        "trusted_roots": policy.trusted_roots.as_ref().map_or("the platform's", |roots| &*roots.path),
        "explain_denials": policy.explain_denials,
        "providers": policy.providers.iter().map(|one| (one.name.to_string(), provider(policy, one))).collect::<Map<_, _>>(),
        "egress": policy.egress.rules().iter().map(|rule| self::rule(rule)).collect::<Vec<_>>(),
        "routes": policy.ingress.routes().iter().map(|route| self::route(policy, route)).collect::<Vec<_>>(),
        "fetch": fetching(policy),
        "secrets": config.secrets.iter().map(|secret| json!({
            "path": secret.path,
            "source": secret.source,
            "fingerprint": secret.shown(),
        })).collect::<Vec<_>>(),
    });
    if let (Value::Object(shown), Value::Object(rest)) = (&mut shown, rest) {
        shown.extend(rest);
        shown.extend(delivery::agents(policy));
    }
    shown
}

fn client_address(policy: &Policy) -> Value {
    policy.ingress.edge().client_address.as_ref().map_or_else(
        || json!("the peer's"),
        |rule| {
            json!({
                "header": rule.header.name().as_str(),
                "trusted_proxies": allowlist(policy, &rule.trusted_proxies),
            })
        },
    )
}

/// Returns descriptions of the keys that verify callback tokens, without secrets. All routes with callback tokens use
/// the same keys. Returns `None` if no route has callback tokens.
fn callback_keys(policy: &Policy) -> Option<Vec<String>> {
    policy.ingress.routes().iter().find_map(|route| match &route.token {
        Some(TokenRule::Callback { verifier, .. }) => {
            Some(verifier.keys().iter().map(ToString::to_string).collect())
        }
        _ => None,
    })
}

fn limits(policy: &Policy) -> Value {
    let limits = &policy.limits;
    json!({
        "body_deadline": format_duration(limits.body_deadline),
        "body_memory_max": limits.body_memory_bytes_max,
        "connections_max": limits.connections_max,
        "connections_per_address_max": limits.connections_per_address_max,
        "head_deadline": format_duration(limits.head_deadline),
        "head_max": limits.head_bytes_max,
        "headers_max": limits.headers_max,
        "idle_timeout": format_duration(limits.idle_timeout),
        "throughput_min": limits.bytes_per_second_min,
        "rate_per_address": limits.rate_per_address.map(rate),
        "streams_max": limits.streams_max,
    })
}

fn provider(policy: &Policy, provider: &Provider) -> Value {
    json!({
        "preset": provider.preset,
        "public_url": provider.public_url,
        "decode": provider.decode.iter().map(|coding| coding.name()).collect::<Vec<_>>(),
        "allow": address(policy, provider),
        "same_event": provider.verifier.as_ref().map(|verifier| verifier.scheme().describe_identity()),
        "signature": provider.verifier.as_ref().map_or_else(|| json!("none"), signature),
        "well_known": provider.published.as_ref().map_or("none", |_| "publish"),
    })
}

fn rate(rate: Rate) -> String {
    format!("{} in {}", rate.requests, format_duration(rate.per))
}

fn route(policy: &Policy, route: &Route) -> Value {
    json!({
        "name": *route.name,
        "mode": if route.observes() { "OBSERVE: requests that fail a check are delivered" } else { "enforce" },
        "rate": route.rate.map(rate),
        "path": route.path.as_str(),
        "methods": route.methods.iter().map(|method| method.as_str()).collect::<Vec<_>>(),
        "gate": {
            "body_bytes_max": route.body_bytes_max,
            "address": route.provider.as_deref().map_or_else(|| json!("any"), |provider| address(policy, provider)),
            "client_certificate": route.certificate.as_ref().map_or_else(
                || json!("none"),
                |rule| if rule.names.is_empty() { json!("any of a trusted authority") } else { json!(rule.names) },
            ),
            "token": route.token.as_ref().map_or_else(|| json!("none"), token),
            "signature": route
                .provider
                .as_ref()
                .and_then(|provider| provider.verifier.as_ref())
                .map_or_else(|| json!("none"), signature),
        },
        "provider": route.provider.as_ref().map(|provider| &*provider.name),
        "agent": &*route.agent.name,
        "forward": route.forward.as_str(),
        "query": match route.query {
            QueryRule::Drop => "drop",
            QueryRule::Pass => "pass, less the token",
        },
        "headers": route.passed_headers.as_ref().map_or_else(
            || json!("all, less those that are always removed"),
            |allowed| json!(allowed.names().collect::<Vec<_>>()),
        ),
        "stream": route.stream,
        "deliver": route.deliver.name(),
        "duplicates": if route.tells_duplicates { "answer" } else { "deliver" },
        "interaction": interaction(route),
        "actions": route.actions.as_ref().map(actions),
        "assertion": route.asserter.as_ref().map(|asserter| {
            format!("{} for {}", asserter.algorithm().name(), asserter.audience())
        }),
    })
}

fn interaction(route: &Route) -> Value {
    let follow = &route.follow;
    let pointer = |pointer: &Option<Pointer>| pointer.as_ref().map(|pointer| pointer.as_str().to_owned());
    json!({
        "status": follow.status.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "progress": pointer(&follow.progress),
        "id": follow.id.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "match": follow.matching.map(|_| "by the provider's id"),
        "unmatched": follow.matching.map(|unmatched| match unmatched {
            UnmatchedCallback::Deliver => "deliver",
            UnmatchedCallback::Refuse => "refuse",
        }),
        "asking": follow.asking,
        "done": follow.done,
        "failed": follow.failed,
        "deadline": follow.deadline.map_or_else(|| "the token's end".to_owned(), format_duration),
        "stalled_after": follow.stalled_after.map(format_duration),
        "stale": match follow.stale {
            None => "less progress is delivered, what comes behind a final callback is refused",
            Some(Stale::Deliver) => "delivered, also behind a final callback",
            Some(Stale::Drop) => "dropped and answered with 200",
        },
        "notify": route.notify.as_ref().map(|path| path.as_str().to_owned()),
    })
}

fn actions(actions: &Actions) -> Value {
    json!({
        "pointer": actions.pointer.as_str(),
        "hosts": actions.guard.entries().collect::<Vec<_>>(),
        "rewrite": actions.rewrite,
        "timeouts": {
            "connect": format_duration(actions.connect_timeout),
            "response": format_duration(actions.response_timeout),
        },
        "headers": actions.headers.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(),
        "signed": actions.signer.is_some(),
    })
}

fn rule(rule: &Rule) -> Value {
    json!({
        "name": *rule.name,
        "path": rule.path.as_str(),
        "methods": rule.methods.iter().map(|method| method.as_str()).collect::<Vec<_>>(),
        "target": match &rule.target.path {
            None => rule.target.url.to_string(),
            Some(path) => format!("{}{}", rule.target.url.to_string().trim_end_matches('/'), path.as_str()),
        },
        "proxied": rule.proxied.is_some(),
        "unmatched": rule.proxied.map(Unmatched::name),
        "body_bytes_max": rule.body_bytes_max,
        "headers": rule.headers.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(),
        "timeouts": {
            "connect": format_duration(rule.connect_timeout),
            "response": format_duration(rule.response_timeout),
        },
        "inject": rule.inject.as_ref().map(|inject| json!({
            "route": &*inject.route,
            "requests": match rule.path.remainder() {
                None => "all".to_owned(),
                Some(_) => format!("those with {}", inject.body_kind().name()),
            },
            "params": inject
                .params
                .iter()
                .map(|(name, source)| (name.to_string(), source.to_string()))
                .collect::<std::collections::BTreeMap<_, _>>(),
            "places": inject.insertions().map(|one| one.place.to_string()).collect::<Vec<_>>(),
            "when": inject.when.iter().map(|(pointer, accepted)| (pointer.as_str(), accepted)).collect::<std::collections::BTreeMap<_, _>>(),
            "if_present": if inject.keep { "keep" } else { "refuse" },
            "ttl": inject.ttl.map(format_duration),
            "uses": inject.uses,
            "response": inject.requests.iter().flat_map(|one| &one.response).map(Pointer::as_str).collect::<Vec<_>>(),
        })),
    })
}

fn address(policy: &Policy, provider: &Provider) -> Value {
    match &provider.allow {
        None => json!("any"),
        Some(allow) => json!(allowlist(policy, allow)),
    }
}

/// Describes the section `fetch` of the configuration as JSON, with the URLs that Callgate fetches.
fn fetching(policy: &Policy) -> Value {
    let fetching = &policy.fetching;
    json!({
        "addresses": policy.feeds.iter().map(Feed::label).collect::<Vec<_>>(),
        "cache": fetching.cache,
        "every": format_duration(fetching.every),
        "stale_ok": format_duration(fetching.stale_ok),
        "timeout": format_duration(fetching.timeout),
        "required": fetching.required,
    })
}

/// Describes an allowlist as text: the networks in the configuration, and the URLs of the published address lists.
fn allowlist(policy: &Policy, allow: &Allowlist) -> Vec<String> {
    let mut shown = ranges(&allow.fixed);
    let feeds = allow.feeds.iter().filter_map(|id| policy.feeds.get(id.0));
    shown.extend(feeds.map(|feed| format!("published at {}", feed.label())));
    shown
}

/// Returns the ranges of a set of networks as text. If there are more than [`RANGES_MAX`] ranges, the last entry
/// contains the number of omitted ranges.
fn ranges(networks: &Networks) -> Vec<String> {
    let one = |(first, last): (IpAddr, IpAddr)| {
        if first == last { first.to_string() } else { format!("{first} to {last}") }
    };
    let mut shown: Vec<_> = networks.ranges().take(RANGES_MAX).map(one).collect();
    if networks.len() > RANGES_MAX {
        shown.push(format!("and {} more", networks.len() - RANGES_MAX));
    }
    shown
}

fn token(rule: &TokenRule) -> Value {
    match rule {
        TokenRule::Callback { carriers, verifier } => json!({
            "kind": "callback",
            "from": self::carriers(carriers),
            "keys": verifier.keys().iter().map(ToString::to_string).collect::<Vec<_>>(),
            "bound_to": "the route and every capture",
        }),
        TokenRule::Jwt { carriers, verifier } => json!({
            "kind": "jwt",
            "from": self::carriers(carriers),
            "keys": verifier.keys.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "issuer": verifier.rules.issuer,
            "audience": verifier.rules.audience,
            "required": verifier.rules.required,
            "typ": verifier.rules.typ.as_deref().unwrap_or("absent or JWT"),
            "leeway": format_duration(verifier.rules.leeway),
            "bind": verifier.rules.bind.iter().cloned().collect::<std::collections::BTreeMap<_, _>>(),
        }),
        TokenRule::Static { carriers, secrets } => json!({
            "kind": "static",
            "from": self::carriers(carriers),
            "secrets": secrets.len(),
        }),
    }
}

fn carriers(carriers: &[Carrier]) -> Vec<String> {
    carriers.iter().map(Carrier::to_string).collect()
}

fn signature(verifier: &Verifier) -> Value {
    let scheme = verifier.scheme();
    let mut shown = json!({
        "algorithm": scheme.summary(),
        "covers": scheme.covers().names(),
        "id": scheme.id.as_ref().map(ToString::to_string),
        "handshakes": scheme.handshakes.iter().map(|handshake| &*handshake.name).collect::<Vec<_>>(),
        "keys": match verifier.keys() {
            VerifierKeys::Derived => "one for each interaction",
            VerifierKeys::Fetched(_) => "fetched",
            VerifierKeys::Learned(_) => "handed over by a handshake",
            VerifierKeys::Named(_, None) => "certificates that the messages name",
            VerifierKeys::Named(_, Some(_)) | VerifierKeys::Public(_) => "given",
            VerifierKeys::Shared => "shared",
        },
        "secrets": verifier.secrets_count(),
    });
    if let (Proof::Content(content), Some(shown)) = (&scheme.proof, shown.as_object_mut()) {
        shown.insert("content".to_owned(), content.content.as_str().into());
        shown.insert("encoding".to_owned(), content.encoding.name().into());
        shown.insert("place".to_owned(), place(&content.place));
        let timestamp = content.timestamp.as_ref().map(|rule| {
            json!({
                "from": match &rule.source {
                    TimestampSource::Header(name) => format!("header {name}"),
                    source => source.to_string(),
                },
                "unit": rule.unit.name(),
                "past": format_duration(rule.past),
                "future": format_duration(rule.future),
            })
        });
        shown.insert("timestamp".to_owned(), timestamp.unwrap_or_default());
    }
    shown
}

fn place(place: &SignaturePlace) -> Value {
    match place {
        SignaturePlace::Headers { names, format } => json!({
            "headers": names.iter().map(|name| name.as_str()).collect::<Vec<_>>(),
            "format": format.as_str(),
        }),
        place => json!(place.to_string()),
    }
}
