//! From YAML as written to a startup and a policy, or to every mistake at once, each with its path, line
//! and a hint. Nothing that decides about access has a default that opens it.

mod assertion;
mod callback;
mod egress;
mod feeds;
mod fields;
mod interaction;
mod keys;
mod limits;
mod listen;
mod node;
mod peek;
mod presets;
mod proof;
mod provider;
mod reader;
mod route;
mod scheme;
mod secrets;
mod shake;
mod store;
mod tls;
mod token;
mod traces;
mod well_known;
mod words;

use std::sync::Arc;
use std::time::Duration;

use crate::egress::Egress;
use crate::ingress::{Edge, Ingress, Mode, Outside, Provider, Route};
use crate::policy::{Agent, AgentAddress, Limits, Policy};
use crate::source::{AddressHeader, Allowlist, ClientAddress, Networks};
use crate::time::format_duration;
use fields::Fields;
use node::Node;
use reader::{Cursor, Reader};
use words::{did_you_mean, shown};

pub use callback::{Callback, TokenBack};
pub use egress::ACTIONS;
pub use listen::{AccessLog, AdminListener, EgressListener, Listener, Startup};
pub use node::Place;
pub use presets::{Addresses, EDGES, Entry, Evidence, PRESETS, Preset, preset};
pub use reader::{Asked, CHANGE_ME, ConfigError, Surroundings};
pub use store::{StoreSettings, Unknown};
pub use tls::{CertificateFiles, ClientAuthorities, Tls};
pub use traces::TraceSettings;

/// Largest configuration, in bytes.
const CONFIG_BYTES_MAX: usize = 4 * 1024 * 1024;

/// A configuration that compiles.
#[derive(Debug)]
pub struct Config {
    /// What only a restart changes.
    pub startup: Startup,
    /// The compiled rules.
    pub policy: Policy,
    /// What is allowed, but worth a line at start.
    pub warnings: Vec<String>,
}

impl Config {
    /// Compiles a configuration.
    ///
    /// # Errors
    /// Every mistake in it, in the order of the file.
    pub fn parse(text: &str, surroundings: &Surroundings<'_>) -> Result<Self, Vec<ConfigError>> {
        let failed = |message: String, place| {
            vec![ConfigError { path: String::new(), place, message, hint: String::new() }]
        };
        if text.len() > CONFIG_BYTES_MAX {
            return Err(failed("the configuration is larger than 4 MiB".to_owned(), None));
        }
        let tree = Node::parse(text).map_err(|(message, place)| failed(message, place))?;
        let reader = Reader::new(surroundings);
        let compiled = compile(&reader.root(&tree));
        let warnings = reader.finish(text)?;
        match compiled {
            Some((startup, policy)) => Ok(Self { startup, policy, warnings }),
            None => Err(failed("the configuration could not be compiled".to_owned(), None)),
        }
    }
}

/// The configuration language as JSON Schema, in YAML: for editors.
pub const SCHEMA: &str = include_str!("schema.yaml");

/// Which keys a configuration may have in each of its mappings: what the compiler asks for, for holding the schema to
/// it.
pub fn keys_asked(text: &str, surroundings: &Surroundings<'_>) -> Vec<Asked> {
    let Ok(tree) = Node::parse(text) else { return Vec::new() };
    let reader = Reader::new(surroundings);
    let _ = compile(&reader.root(&tree));
    reader.asked.into_inner()
}

/// Reads every section, whatever became of the others, so that all mistakes are found in one go.
fn compile(root: &Cursor<'_>) -> Option<(Startup, Policy)> {
    let mut fields = root.fields()?;
    let public_url = fields.optional("public_url").map(|at| public_url(&at));
    let startup = listen::startup(&mut fields);
    let client_address = fields.optional("client_address").map(|at| client_address(&at));
    let roots = fields.optional("trusted_roots").map(|at| tls::trusted_roots(&at));
    let agent = fields.required("agent").and_then(|at| agent(&at));
    let limits = limits::limits(fields.optional("limits"));
    let explain_denials = fields.optional("explain_denials").map_or(Some(false), |at| at.boolean());
    let url = public_url.clone().flatten();
    let stated_url = public_url.as_ref().map(Option::as_deref);
    let tokens = fields.optional("callback_tokens").map(|at| token::callback_tokens(&at, stated_url));
    let token_keys = tokens.as_ref().and_then(|tokens| tokens.as_ref());
    let asserter = fields.optional("assertion").map(|at| assertion::assertion(&at, stated_url, token_keys));
    let providers = providers(&mut fields, public_url.is_some());
    let egress_at = fields.optional("egress");
    let asked = egress::asked(egress_at.as_ref());
    let mode = fields.optional("mode").map_or(Some(Mode::Enforce), |at| route::mode(&at));
    let known = route::Known {
        asked: &asked,
        mode: mode.unwrap_or(Mode::Enforce),
        asserter: asserter.as_ref().and_then(|asserter| asserter.as_ref()),
        asserter_failed: fields.has("assertion"),
        providers: providers.as_deref().unwrap_or_default(),
        tokens: token_keys,
        // A section with mistakes in it is there all the same: its absence is not reported on top.
        tokens_failed: fields.has("callback_tokens"),
        providers_failed: providers.is_none(),
    };
    let routes = fields.required("routes").and_then(|at| route::routes(&at, &known));
    let egress = egress::egress(egress_at.clone(), routes.as_deref());
    let fetching = feeds::fetching(fields.optional("fetch"));
    fields.finish();
    if let Some(startup) = &startup {
        listens(root, startup, routes.as_deref().unwrap_or_default(), egress_at.as_ref(), egress.as_ref());
    }
    if let (Some(routes), Some(tokens)) = (&routes, token_keys) {
        warn_of_short_tokens(root, routes, tokens.minting.ttl);
    }

    mode?;
    let (agent, limits) = (agent?, limits?);
    fit(root, routes.as_deref().unwrap_or_default(), startup.as_ref(), &limits);
    let documents = well_known::documents(root, routes.as_deref().unwrap_or_default())?;
    let edge = Edge {
        authority: url.as_deref().map_or_else(|| agent_authority(&agent), authority).into(),
        client_address: client_address.map_or(Some(None), |read| read.map(Some))?,
        outside: Outside::default(),
        public_url: url.unwrap_or_default().into(),
    };
    let policy = Policy {
        egress: egress?,
        explain_denials: explain_denials?,
        feeds: root.feeds(),
        fetching: fetching?,
        ingress: Ingress::new(routes?, edge).with_documents(documents),
        limits,
        minting: tokens.map_or(Some(None), |read| read.map(|tokens| Some(tokens.minting)))?,
        providers: providers?,
        trusted_roots: roots.map_or(Some(None), |read| read.map(Some))?,
        agent,
    };
    Some((startup?, policy))
}

/// Whatever the agent is to send, somebody has to listen for, and has to have room for.
fn listens(
    root: &Cursor<'_>,
    startup: &Startup,
    routes: &[Arc<Route>],
    egress: Option<&Cursor<'_>>,
    compiled: Option<&Egress>,
) {
    if let Some(listener) = &startup.egress {
        let rules = compiled.into_iter().flat_map(Egress::rules);
        for rule in rules.filter(|rule| rule.body_bytes_max > listener.body_memory_bytes_max) {
            let message =
                format!("the rule {} allows bodies larger than `listen.egress.body_memory_max`", rule.name);
            let _: Option<()> = root.error(message, "none of them could ever be sent");
        }
        return;
    }
    if let Some(at) = egress {
        let _: Option<()> = at.error("nothing listens for the agent's requests", "add `listen.egress`");
    } else if let Some(route) = routes.iter().find(|route| route.actions.is_some()) {
        let message =
            format!("nothing listens for the agent's answers to the questions of the route {}", route.name);
        let _: Option<()> = root.error(message, "add `listen.egress`");
    }
}

/// What no request could ever have is a mistake; what is only counted is said aloud.
fn fit(root: &Cursor<'_>, routes: &[Arc<Route>], startup: Option<&Startup>, limits: &Limits) {
    let asks = |listener: &Listener| listener.tls.as_ref().is_some_and(|tls| tls.clients.is_some());
    let authorities = startup.into_iter().flat_map(|startup| &startup.ingress);
    let mut authorities: Vec<_> =
        authorities.filter_map(|listener| Some(&*listener.tls.as_ref()?.clients.as_ref()?.file)).collect();
    authorities.sort_unstable();
    authorities.dedup();
    if authorities.len() > 1 && routes.iter().any(|route| route.certificate.is_some()) {
        root.warn("listeners believe different authorities: a route's `client_certificate` takes one of any of them");
    }
    for route in routes {
        let name = &route.name;
        if route.body_bytes_max > limits.body_memory_bytes_max {
            let message = format!("the route {name} allows bodies larger than `limits.body_memory_max`");
            let _: Option<()> = root.error(message, "none of them could ever come in");
        }
        if route.certificate.is_some() && startup.is_some_and(|startup| !startup.ingress.iter().any(asks)) {
            let message = format!("the route {name} asks for client certificates, but no listener does");
            let _: Option<()> = root.error(message, "add `client_certificates` to the `tls` of a listener");
        }
        if route.observes() {
            root.warn(&format!("the route {name} only observes: NOTHING is refused on it, whoever calls"));
        }
    }
}

/// A deadline behind the end of the token is never reached.
fn warn_of_short_tokens(root: &Cursor<'_>, routes: &[Arc<Route>], ttl: Duration) {
    for route in routes.iter().filter(|route| route.follow.deadline.is_some_and(|deadline| deadline > ttl)) {
        root.warn(&format!(
            "the route {} has a deadline beyond the {} that its tokens live: they end first",
            route.name,
            format_duration(ttl)
        ));
    }
}

fn public_url(at: &Cursor<'_>) -> Option<String> {
    let text = at.text()?;
    let hint = "such as https://agent.example.com, without a slash at the end";
    let Ok(uri) = text.parse::<http::Uri>() else {
        return at.error(format!("{} is not a URL", words::shown_url(text)), hint);
    };
    let web = matches!(uri.scheme_str(), Some("https" | "http"));
    let plain = !text.ends_with('/') && !text.contains(['?', '#', '@']);
    if !web || !plain || uri.host().is_none_or(str::is_empty) {
        return at.error(format!("{} is not the beginning of a public URL", words::shown_url(text)), hint);
    }
    if uri.scheme_str() == Some("http") {
        at.warn("callback tokens will travel over plain HTTP");
    }
    Some(text.to_owned())
}

/// The authority of a URL that is known to have one.
fn authority(url: &str) -> String {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    rest.split_once('/').map_or(rest, |(authority, _)| authority).to_owned()
}

fn agent_authority(agent: &Agent) -> String {
    match &agent.address {
        AgentAddress::Tcp(address) => address.to_string(),
        AgentAddress::Unix(_) => "localhost".to_owned(),
    }
}

/// `{trusted_proxies, header}`, or `{edge: NAME}` for an edge that is known, with proxies of one's own besides.
fn client_address(at: &Cursor<'_>) -> Option<ClientAddress> {
    let mut fields = at.fields()?;
    let edge = fields.optional("edge").map(|at| {
        let name = at.text()?;
        let known: Vec<_> = presets::EDGES.iter().map(|edge| edge.name).collect();
        match presets::edge(name) {
            Some(edge) => Some((at.clone(), edge)),
            None => at.error(format!("{} is no edge that is known", shown(name)), did_you_mean(name, &known)),
        }
    });
    let mut read = |key| fields.optional(key).map(|at| at.networks());
    let proxies = read("trusted_proxies");
    let header_at = fields.optional("header");
    let proxies_said = fields.has("trusted_proxies");
    fields.finish();
    let mut fixed = proxies.map_or(Some(Vec::new()), |read| read)?;
    let mut lists = Vec::new();
    let header = match (edge, header_at) {
        (None, Some(at)) if proxies_said => at.header_name()?,
        (None, None) => return at.error("`header` is missing", ""),
        (None, Some(_)) => return at.error("`trusted_proxies` is missing", ""),
        (Some(_), Some(at)) => return at.error("the edge has a header of its own", "take `header` out"),
        (Some(read), None) => {
            let (at, (header, addresses)) = read?;
            match addresses {
                Addresses::Feed(url, selection) => lists.push(at.feed(feeds::list(url, selection))),
                Addresses::Fixed(networks) => fixed.extend(networks.nets()),
            }
            header
        }
    };
    let fixed = Networks::new(fixed);
    if fixed.is_everything() {
        at.warn("every address is a trusted proxy: any caller can claim any address");
    }
    let trusted_proxies = Allowlist { fixed, feeds: lists };
    Some(ClientAddress { trusted_proxies, header: AddressHeader::from_name(header) })
}

fn agent(at: &Cursor<'_>) -> Option<Agent> {
    let mut fields = at.fields()?;
    let address = fields.required("address").and_then(|at| agent_address(&at));
    let mut connect = Some(Duration::from_secs(1));
    let mut response = Some(Duration::from_secs(30));
    // Most servers close an idle connection after 5 s or later; ours go first.
    let mut idle = Some(Duration::from_secs(4));
    if let Some(mut timeouts) = fields.optional("timeouts").and_then(|at| at.fields()) {
        connect = or_default(&mut timeouts, "connect", connect);
        response = or_default(&mut timeouts, "response", response);
        idle = or_default(&mut timeouts, "idle", idle);
        timeouts.finish();
    }
    fields.finish();
    Some(Agent {
        address: address?,
        connect_timeout: connect?,
        response_timeout: response?,
        idle_timeout: idle?,
    })
}

fn agent_address(at: &Cursor<'_>) -> Option<AgentAddress> {
    let text = at.text()?;
    let hint = "127.0.0.1:8000, or unix:/run/agent/agent.sock";
    if let Some(path) = text.strip_prefix("unix:") {
        return if path.starts_with('/') && path.len() < 100 {
            Some(AgentAddress::Unix(path.into()))
        } else {
            at.error("the path of a Unix socket is absolute and shorter than 100 bytes", hint)
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

fn providers(fields: &mut Fields<'_>, has_public_url: bool) -> Option<Vec<Arc<Provider>>> {
    let Some(at) = fields.optional("providers") else { return Some(Vec::new()) };
    let read: Vec<_> = at
        .named()?
        .into_iter()
        .map(|(name, at)| provider::provider(name, &at, has_public_url).map(Arc::new))
        .collect();
    read.into_iter().collect()
}

#[cfg(test)]
mod provider_tests;
#[cfg(test)]
mod tests;
