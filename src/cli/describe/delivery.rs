//! Describes the agents and the inbox of a compiled configuration as JSON.

use serde_json::{Value, json};

use crate::agent::{Agent, ONLY_AGENT};
use crate::inbox::InboxSettings;
use crate::policy::Policy;
use crate::time::format_duration;

/// Describes the sections `agent` and `agents` of the configuration as JSON. One of the two sections is null.
pub(super) fn agents(policy: &Policy) -> [(String, Value); 2] {
    let (one, several) = match policy.agents.as_slice() {
        [only] if *only.name == *ONLY_AGENT => (agent(only), Value::Null),
        several => {
            let several = several.iter().map(|one| (one.name.to_string(), agent(one)));
            (Value::Null, Value::Object(several.collect()))
        }
    };
    [("agent".to_owned(), one), ("agents".to_owned(), several)]
}

fn agent(agent: &Agent) -> Value {
    json!({
        "address": agent.address.to_string(),
        "forwarded_headers": agent.forwarded_headers,
        "timeouts": {
            "connect": format_duration(agent.connect_timeout),
            "response": format_duration(agent.response_timeout),
            "idle": format_duration(agent.idle_timeout),
        },
        "tls": agent.tls.as_ref().map(|tls| json!({
            "authorities": tls.authorities.as_ref().map_or("the platform's", |file| &*file.path),
            "certificate": tls.certificate.as_ref().map(|files| &*files.certificate.path),
            "key": tls.certificate.as_ref().map(|files| &*files.key.path),
            "name": &*tls.name,
        })),
        "wake": agent.wake.as_ref().map(|wake| json!({
            "url": &*wake.url,
            "headers": wake.headers.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(),
        })),
    })
}

/// Describes the section `inbox` of the configuration as JSON.
pub(super) fn inbox(inbox: &InboxSettings) -> Value {
    let word = |is, yes, no| if is { yes } else { no };
    json!({
        "for": format_duration(inbox.tried_for),
        "backoff": {
            "first": format_duration(inbox.backoff.first),
            "most": format_duration(inbox.backoff.most),
        },
        "order": word(inbox.is_ordered, "interaction", "none"),
        "coalesce": word(inbox.coalesces_progress, "progress", "none"),
        "concurrency": inbox.concurrency,
        "lease": format_duration(inbox.lease),
        "keep": {
            "delivered": format_duration(inbox.keep_delivered),
            "dead": format_duration(inbox.keep_dead),
        },
        "messages_max": inbox.messages_max,
        "bytes_max": inbox.bytes_max,
        "seal": word(inbox.sealer.is_some(), "given", "none"),
        "original_signature": word(inbox.keeps_signature, "keep", "drop"),
        "removed_routes": word(inbox.drops_removed_routes, "drop", "keep"),
    })
}
