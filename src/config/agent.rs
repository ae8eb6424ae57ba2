//! Reads the configuration sections `agent` and `agents`: the addresses of the agents, their TLS settings and
//! timeouts, and the headers that they receive.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use super::listen::{pem, server_name};
use super::outbound::headers;
use super::yaml::{Cursor, Fields, did_you_mean, is_name};
use crate::agent::{Agent, AgentAddress, AgentTls, ClientCertificateFiles, ONLY_AGENT, Wake};
use crate::guard::Url;
use crate::ingress::Route;

/// The agents that the configuration defines.
pub(super) struct Agents<'n> {
    /// The agents whose settings have no mistakes.
    read: Vec<Arc<Agent>>,
    /// The entries of the section `agents`, including entries with mistakes. `None` if the configuration has the
    /// section `agent` instead.
    entries: Option<Vec<(&'n str, Cursor<'n>)>>,
    /// True if the settings of an agent have mistakes, or if the configuration has neither `agent` nor `agents`.
    has_mistakes: bool,
}

/// Reads the configuration section `agent` or `agents`.
pub(super) fn agents<'n>(root: &mut Fields<'n>) -> Agents<'n> {
    let several = root.optional("agents");
    if root.has("agents") {
        if root.optional("agent").is_some() {
            let _: Option<()> =
                root.at().error("`agent` and `agents` exclude each other", "move the agent to `agents`");
        }
        return several.and_then(|at| named(&at)).unwrap_or_else(Agents::none);
    }
    match root.required("agent").and_then(|at| agent(&at, ONLY_AGENT)) {
        Some(agent) => Agents { read: vec![Arc::new(agent)], entries: None, has_mistakes: false },
        None => Agents::none(),
    }
}

fn named<'n>(at: &Cursor<'n>) -> Option<Agents<'n>> {
    let mut entries = at.named()?;
    if entries.is_empty() {
        return at.error("the section names no agent", "such as planner: { address: 127.0.0.1:8000 }");
    }
    // `Cursor::named` has already reported a name that occurs twice.
    let mut seen = HashSet::new();
    entries.retain(|(name, _)| seen.insert(*name));
    let one = |(name, at): &(&'n str, Cursor<'n>)| match is_name(name) {
        true => agent(at, name).map(Arc::new),
        false => at.bad_name(name),
    };
    let read: Vec<_> = entries.iter().filter_map(one).collect();
    let has_mistakes = read.len() < entries.len();
    Some(Agents { read, entries: Some(entries), has_mistakes })
}

impl<'n> Agents<'n> {
    const fn none() -> Self {
        Self { read: Vec::new(), entries: None, has_mistakes: true }
    }

    /// Returns all agents. Returns `None` if the settings of an agent have a mistake, or if the configuration has
    /// neither `agent` nor `agents`.
    pub(super) fn all(&self) -> Option<Vec<Arc<Agent>>> {
        (!self.has_mistakes).then(|| self.read.clone())
    }

    /// Returns the time that Callgate waits for the response head of an agent: the maximum over all agents.
    pub(super) fn patience(&self) -> Duration {
        self.read.iter().map(|agent| agent.patience()).max().unwrap_or_default()
    }

    /// Returns the agent that receives the callbacks of a route. `fields` are the settings of the route. Reports an
    /// error if the route does not name an agent although the configuration has several agents.
    pub(super) fn of_route(&self, fields: &mut Fields<'n>) -> Option<Arc<Agent>> {
        let stated = fields.optional("agent");
        let Some(entries) = &self.entries else {
            if let Some(at) = stated.filter(|_| !self.has_mistakes) {
                return at.error(
                    "the configuration has only one agent, and it has no name",
                    "remove it, or name the agents in the section `agents`",
                );
            }
            return self.read.first().map(Arc::clone);
        };
        match (stated, entries.as_slice()) {
            (Some(at), _) => {
                let name = at.text()?;
                let names: Vec<_> = entries.iter().map(|(name, _)| *name).collect();
                if !names.contains(&name) {
                    return at.error(format!("there is no agent {name}"), did_you_mean(name, &names));
                }
                self.read.iter().find(|agent| *agent.name == *name).map(Arc::clone)
            }
            (None, [_]) => self.read.first().map(Arc::clone),
            (None, _) if fields.has("agent") => None,
            (None, _) => {
                let names: Vec<_> = entries.iter().map(|(name, _)| *name).collect();
                let hint = format!("add `agent` with one of {}", names.join(", "));
                fields.at().error("the route does not name the agent that receives its callbacks", hint)
            }
        }
    }

    /// Reports a warning for each agent to which no route delivers callbacks.
    pub(super) fn warn_unused(&self, routes: &[Arc<Route>]) {
        for (name, at) in self.entries.iter().flatten() {
            if !routes.iter().any(|route| *route.agent.name == **name) {
                at.warn("no route delivers callbacks to this agent");
            }
        }
    }
}

/// Reads the settings of one agent.
fn agent(at: &Cursor<'_>, name: &str) -> Option<Agent> {
    let mut fields = at.fields()?;
    let address = fields.required("address").and_then(|at| agent_address(&at));
    let tls = fields.optional("tls").map(|at| tls(&at, address.as_ref()));
    let mut connect = Some(Duration::from_secs(1));
    let mut response = Some(Duration::from_secs(30));
    // Most servers close a connection after it has been idle for 5 s or longer. Callgate closes an idle connection
    // earlier. Otherwise Callgate could send a request over a connection that the agent is closing at the same time.
    let mut idle = Some(Duration::from_secs(4));
    if let Some(mut timeouts) = fields.optional("timeouts").and_then(|at| at.fields()) {
        connect = or_default(&mut timeouts, "connect", connect);
        response = or_default(&mut timeouts, "response", response);
        idle = or_default(&mut timeouts, "idle", idle);
        timeouts.finish();
    }
    let forwarded_headers = fields.optional("forwarded_headers").map_or(Some(true), |at| at.boolean());
    let wake = fields.optional("wake").map(|at| wake(&at));
    fields.finish();
    Some(Agent {
        name: name.into(),
        address: address?,
        tls: tls.map_or(Some(None), |read| read.map(Some))?,
        connect_timeout: connect?,
        response_timeout: response?,
        idle_timeout: idle?,
        forwarded_headers: forwarded_headers?,
        wake: wake.map_or(Some(None), |read| read.map(Some))?,
    })
}

/// Reads the setting `wake: {url, headers}` of an agent: the request that wakes the agent, for example by starting its
/// pods.
fn wake(at: &Cursor<'_>) -> Option<Wake> {
    let mut fields = at.fields()?;
    let url = fields.required("url").and_then(|at| {
        let text = at.text()?;
        match Url::parse(text) {
            Ok(_) => Some(text.into()),
            Err(_) => at.error(format!("`{text}` is not a URL"), "such as https://scaler.example.com/wake"),
        }
    });
    let headers = fields.optional("headers").map_or(Some(Vec::new()), |at| headers(&at));
    fields.finish();
    Some(Wake { url: url?, headers: headers? })
}

/// Reads the setting `tls` of an agent: how the agent's certificate is verified, and the certificate that Callgate
/// presents to the agent.
fn tls(at: &Cursor<'_>, address: Option<&AgentAddress>) -> Option<AgentTls> {
    let mut fields = at.fields()?;
    let authorities = fields.optional("authorities").map(|at| pem(&at, "CERTIFICATE"));
    let certificate = fields.optional("certificate").map(|at| pem(&at, "CERTIFICATE"));
    let key = fields.optional("key").map(|at| pem(&at, "PRIVATE KEY"));
    let name = fields.optional("name").map(|at| server_name(&at));
    fields.finish();
    let certificate = match (certificate, key) {
        (None, None) => None,
        (Some(certificate), Some(key)) => {
            Some(ClientCertificateFiles { certificate: certificate?, key: key? })
        }
        (Some(_), None) => return at.error("`certificate` needs a `key`", "add the private key"),
        (None, Some(_)) => return at.error("`key` needs a `certificate`", "add the client certificate"),
    };
    let Some(host) = address?.host() else {
        return at.error("the agent listens on a Unix socket, which needs no TLS", "remove `tls`");
    };
    let name = name.map_or_else(|| Some(host.into()), |name| name.map(Box::from))?;
    Some(AgentTls::new(authorities.map_or(Some(None), |read| read.map(Some))?, certificate, name))
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
