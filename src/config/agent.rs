//! `agent`: the address of the agent, its timeouts, and the headers that it receives.

use std::time::Duration;

use super::yaml::{Cursor, Fields};
use crate::policy::{Agent, AgentAddress};

/// Reads `agent`.
pub(super) fn agent(at: &Cursor<'_>) -> Option<Agent> {
    let mut fields = at.fields()?;
    let address = fields.required("address").and_then(|at| agent_address(&at));
    let mut connect = Some(Duration::from_secs(1));
    let mut response = Some(Duration::from_secs(30));
    // Most servers close a connection after it has been idle for 5 s or longer. Callgate closes an idle connection
    // earlier. Otherwise it could send a request over a connection that the agent is just closing.
    let mut idle = Some(Duration::from_secs(4));
    if let Some(mut timeouts) = fields.optional("timeouts").and_then(|at| at.fields()) {
        connect = or_default(&mut timeouts, "connect", connect);
        response = or_default(&mut timeouts, "response", response);
        idle = or_default(&mut timeouts, "idle", idle);
        timeouts.finish();
    }
    let forwarded_headers = fields.optional("forwarded_headers").map_or(Some(true), |at| at.boolean());
    fields.finish();
    Some(Agent {
        address: address?,
        connect_timeout: connect?,
        response_timeout: response?,
        idle_timeout: idle?,
        forwarded_headers: forwarded_headers?,
    })
}

fn agent_address(at: &Cursor<'_>) -> Option<AgentAddress> {
    let text = at.text()?;
    let hint = "127.0.0.1:8000, or unix:/run/agent/agent.sock";
    if let Some(path) = text.strip_prefix("unix:") {
        return if path.starts_with('/') && path.len() < 100 {
            Some(AgentAddress::Unix(path.into()))
        } else {
            at.error("the path of a Unix socket must be absolute and shorter than 100 bytes", hint)
        };
    }
    let parsed = text.parse::<http::uri::Authority>().ok();
    match parsed.and_then(|authority| authority.port_u16()) {
        Some(1..) if !text.contains('@') => Some(AgentAddress::Tcp(text.into())),
        _ => at.error(format!("`{text}` is not an address with a port"), hint),
    }
}

fn or_default(fields: &mut Fields<'_>, key: &'static str, default: Option<Duration>) -> Option<Duration> {
    fields.optional(key).map_or(default, |at| at.duration())
}
