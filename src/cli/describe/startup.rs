//! Describes the startup configuration as JSON: listeners, store, shutdown and traces.

use serde_json::{Value, json};

use super::ranges;
use crate::config::{
    AccessLog, AdminListener, Listener, RedisMode, RedisSettings, ReplicaListener, Resumption, Startup, Tls,
    Unknown,
};
use crate::egress::ForwardProxy;
use crate::replica::{Gone, Replicas};
use crate::time::format_duration;

/// Describes the sections of the startup configuration as JSON.
pub(super) fn startup(startup: &Startup) -> Value {
    let store = &startup.store;
    json!({
        "listen": {
            "ingress": startup.ingress.iter().map(listener).collect::<Vec<_>>(),
            "egress": startup.egress.as_ref().map(|egress| json!({
                "address": egress.address.to_string(),
                "body_memory_max": egress.body_memory_bytes_max,
                "connections_max": egress.connections_max,
                "hosts": egress.hosts,
                "proxy": egress.proxy.as_ref().map(|proxy| forward_proxy(proxy)),
                "tls": egress.tls.as_ref().map(egress_tls),
            })),
            "admin": startup.admin.as_ref().map(admin),
        },
        "access_log": match startup.access_log {
            AccessLog::Off => "off",
            AccessLog::Stdout => "stdout",
        },
        "reload": if startup.watches { "watch" } else { "signal" },
        "threads": startup.threads.map_or_else(|| json!("one per processor, 2 at most"), |count| json!(count)),
        "store": {
            "kind": match (&store.path, &store.redis) {
                (Some(_), _) => "file",
                (None, Some(_)) => "redis",
                (None, None) => "memory",
            },
            "path": store.path,
            "redis": store.redis.as_ref().map(redis),
            "unknown": if store.unknown == Unknown::Adopt { "adopt" } else { "refuse" },
            "interactions_max": store.interactions_max,
            "events_max": store.events_max,
            "remember": format_duration(store.remember),
            "keep_ended": format_duration(store.keep_ended),
            "grace": format_duration(store.grace),
        },
        "shutdown": {
            "delay": format_duration(startup.shutdown_delay),
            "grace": format_duration(startup.shutdown_grace),
        },
        "traces": startup.traces.as_ref().map_or_else(|| json!("off"), |traces| json!({
            "endpoint": traces.endpoint,
            "sample": traces.sample,
            "service": traces.service,
        })),
    })
}

/// Describes the section `store.redis` of the configuration as JSON, without user names and passwords.
fn redis(redis: &RedisSettings) -> Value {
    let (mode, master) = match &redis.mode {
        RedisMode::Single => ("single", None),
        RedisMode::Sentinel(master) => ("sentinel", Some(master)),
        RedisMode::Cluster => ("cluster", None),
    };
    json!({
        "nodes": redis.nodes,
        "mode": mode,
        "master": master,
        "tls": redis.tls.is_some(),
        "prefix": redis.prefix,
        "timeout": format_duration(redis.timeout),
        "wait": { "replicas": redis.wait_replicas, "timeout": format_duration(redis.wait_timeout) },
    })
}

/// Describes the section `replicas` of the configuration as JSON.
pub(super) fn replicas(listener: &ReplicaListener, replicas: &Replicas) -> Value {
    json!({
        "address": listener.listener.address.to_string(),
        "advertise": listener.advertise,
        "mint": replicas.mint,
        "group": replicas.group,
        "discover": replicas.discover,
        "gone": match replicas.gone {
            Gone::Any => "any",
            Gone::Refuse => "refuse",
            Gone::Retry => "retry",
        },
        "gone_after": format_duration(replicas.gone_after),
        "patience": format_duration(replicas.patience),
        "timeout": format_duration(replicas.timeout),
        "tls": listener.listener.tls.as_ref().map(tls),
    })
}

fn admin(admin: &AdminListener) -> Value {
    json!({
        "address": admin.address.to_string(),
        "token": if admin.token.is_some() { "given" } else { "none: callbacks API and page are for callers on this host" },
        "hosts": admin.hosts,
        "recent": admin.recent,
        "actions": admin.actions,
        "bodies": admin.bodies,
    })
}

fn listener(listener: &Listener) -> Value {
    json!({
        "address": listener.address.to_string(),
        "health": listener.health,
        "tls": listener.tls.as_ref().map(tls),
        "proxy_protocol": listener.proxied_by.as_ref().map(|trusted| json!({ "trusted_proxies": ranges(trusted) })),
    })
}

fn forward_proxy(proxy: &ForwardProxy) -> Value {
    json!({
        "others": if proxy.tunnels_others { "tunnel" } else { "refuse" },
        "tunnel": proxy.tunnel.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "ports": proxy.ports,
        "allow_private": proxy.guard.entries().collect::<Vec<_>>(),
        "bundle": proxy.bundle,
        "ca": proxy.authority.as_ref().map_or_else(|| json!("created at start"), |files| json!({
            "certificate": files.certificate.path,
            "key": files.key.path,
        })),
        "password": proxy.password.is_some(),
        "tunnels_max": proxy.tunnels_max,
        "idle": format_duration(proxy.idle),
    })
}

fn egress_tls(tls: &Tls) -> Value {
    let files = tls.certificates.first();
    json!({
        "certificate": files.map(|files| &files.certificate),
        "key": files.map(|files| &files.key),
    })
}

fn tls(tls: &Tls) -> Value {
    json!({
        "certificates": tls.certificates.iter().map(|files| json!({
            "certificate": files.certificate,
            "key": files.key,
        })).collect::<Vec<_>>(),
        "min_version": if tls.tls_1_2 { "1.2" } else { "1.3" },
        "tickets": match &tls.resumption {
            Resumption::Remembered => json!("none"),
            Resumption::Tickets(secrets) if secrets.is_empty() => json!("keys of the process"),
            Resumption::Tickets(secrets) => secrets.iter().map(|secret| json!({ "fingerprint": secret.fingerprint() })).collect(),
        },
        "client_certificates": tls.clients.as_ref().map_or_else(|| json!("not asked for"), |clients| json!({
            "authorities": clients.file,
            "required": clients.required,
        })),
    })
}
