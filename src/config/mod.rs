//! Compiles a configuration. The input is YAML. The result is the startup settings and a policy, or a list of all
//! mistakes. Each mistake has its path, its line and a hint. No default value grants access.

mod agent;
mod consistency;
mod egress;
mod env;
mod inbox;
mod include;
mod listen;
mod outbound;
mod provider;
mod redis;
mod repeated;
mod restart_only;
mod route;
mod secrets;
mod store;
mod traces;
mod yaml;

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::ingress::{Edge, FetchedData, Ingress, Mode, Provider, Route};
use crate::policy::Policy;
use crate::replica::Replicas;
use crate::source::ClientAddress;
use yaml::{Cursor, Fields, Node, Reader, parse_yaml};

pub use egress::{ACTIONS, CALLBACKS};
pub use env::Surroundings;
pub use include::ReadIncluded;
pub use listen::{
    AdminListener, CertificateFiles, ClientAuthorities, EgressListener, Listener, ReplicaListener,
    Resumption, Tls,
};
pub use provider::{
    Addresses, CallbackConvention, EDGES, Evidence, PRESETS, Preset, PresetDefinition, TokenReturn, preset,
};
pub use redis::{RedisLogin, RedisMode, RedisSettings, RedisTls};
pub use restart_only::{AccessLog, RestartSetting, Startup};
pub use secrets::LoadedSecret;
pub use store::{StoreSettings, Unknown};
pub use traces::TraceSettings;
#[cfg(feature = "proxy")]
pub(crate) use yaml::Step;
pub use yaml::{
    AcceptedKeys, CHANGE_ME, ConfigError, ERRORS_MAX, Outline, Position, Sources, check_depth, from_yaml,
    has_alias, to_yaml,
};

/// A compiled configuration without mistakes.
#[derive(Debug)]
pub struct Config {
    /// The settings that Callgate applies when the process starts.
    pub startup: Startup,
    /// The compiled rules by which Callgate decides about requests.
    pub policy: Policy,
    /// The warnings of the configuration. A warning is about a setting that is allowed, but that the operator should
    /// check.
    pub warnings: Vec<String>,
    /// The secrets that the configuration refers to, without their values.
    pub secrets: Vec<LoadedSecret>,
    /// The environment variables that the configuration uses as ordinary texts. The key is the name of the variable.
    /// The value is the beginning of the SHA-256 hash of the variable's value. Variables with secrets are not
    /// included.
    pub environment: BTreeMap<String, String>,
    /// The texts of all files of the configuration. A mistake that is noticed after the compilation is reported with
    /// its position in these texts.
    pub sources: Sources,
}

impl Config {
    /// Compiles a configuration. The paths in the key `include` are relative to the current folder.
    ///
    /// # Errors
    /// Returns all mistakes, in the order of the file. If there are more than [`ERRORS_MAX`] mistakes, the last entry
    /// reports how many were omitted.
    pub fn parse(text: &str, surroundings: &Surroundings<'_>) -> Result<Self, Vec<ConfigError>> {
        Self::parse_with(text, surroundings, surroundings.file)
    }

    /// Compiles a configuration. The function `include` reads the files that the key `include` names.
    ///
    /// # Errors
    /// Returns the same mistakes as [`Self::parse`].
    pub fn parse_with(
        text: &str,
        surroundings: &Surroundings<'_>,
        include: &ReadIncluded<'_>,
    ) -> Result<Self, Vec<ConfigError>> {
        let failed = |message: &str| vec![ConfigError::of_file(None, message.to_owned())];
        if text.len() > include::CONFIG_BYTES_MAX {
            return Err(failed("the configuration is larger than 4 MiB"));
        }
        let tree = parse_yaml(None, text).map_err(|error| vec![error])?;
        let (tree, sources) = include::with_included(tree, text, surroundings, include)?;
        let reader = Reader::new(surroundings).with_variables_of(&tree);
        let compiled = compile(&Cursor::root(&reader, &tree));
        let secrets = reader.loaded_secrets();
        let environment = reader
            .used_variables()
            .into_iter()
            .map(|(name, value)| (name, restart_only::digest(&value)))
            .collect();
        let warnings = reader.finish(&sources)?;
        match compiled {
            Some((startup, policy)) => Ok(Self { startup, policy, warnings, secrets, environment, sources }),
            None => Err(failed("the configuration could not be compiled")),
        }
    }
}

/// The JSON Schema of the configuration, written in YAML. Editors use the schema for completion and checks.
pub const SCHEMA: &str = include_str!("schema.yaml");

/// Returns the keys that each mapping of this configuration may have. Tests compare these keys with the JSON Schema.
pub fn accepted_keys(text: &str, surroundings: &Surroundings<'_>) -> Vec<AcceptedKeys> {
    let Ok(tree) = Node::parse(text) else { return Vec::new() };
    let reader = Reader::new(surroundings).with_variables_of(&tree);
    let _ = compile(&Cursor::root(&reader, &tree));
    reader.into_accepted_keys()
}

/// Compiles all sections of a configuration. Reads every section, even if another section has a mistake, so that one
/// run finds all mistakes.
fn compile(root: &Cursor<'_>) -> Option<(Startup, Policy)> {
    let mut fields = include::fields(root)?;
    let public_url = public_url(&mut fields);
    let mut startup = restart_only::startup(&mut fields);
    let roots = fields.optional("trusted_roots").map(|at| listen::trusted_roots(&at));
    let proxy = fields.optional("outbound_proxy").map(|at| outbound::proxy(&at));
    let client_address = client_address(&mut fields);
    let agents = agent::agents(&mut fields);
    let (replicas, has_replicas) = replicas(&mut fields, &agents, startup.as_mut());
    let (limits, inbox) = (listen::limits(fields.optional("limits")), inbox::inbox(fields.optional("inbox")));
    let explain_denials = fields.optional("explain_denials").map_or(Some(false), |at| at.boolean());
    let (url, stated_url) = (public_url.clone().flatten(), public_url.as_ref().map(Option::as_deref));
    let tokens = callback_tokens(&mut fields, stated_url, has_replicas);
    let token_keys = tokens.as_ref().and_then(|tokens| tokens.as_ref());
    let asserter = fields.optional("assertion").map(|at| route::assertion(&at, stated_url, token_keys));
    let providers = providers(&mut fields, public_url.is_some());
    let egress_at = fields.optional("egress");
    let known = route::References {
        agents: &agents,
        conventions: &egress::conventions(egress_at.as_ref()),
        mode: fields.optional("mode").and_then(|at| route::mode(&at)).unwrap_or(Mode::Enforce),
        passed_headers: route::passed_headers(fields.optional("headers"), None).flatten(),
        asserter: asserter.as_ref().and_then(|asserter| asserter.as_ref()),
        asserter_failed: fields.has("assertion"),
        has_replicas,
        providers: providers.as_deref().unwrap_or_default(),
        tokens: token_keys,
        tokens_failed: fields.has("callback_tokens"),
        providers_failed: providers.is_none(),
    };
    let routes = fields.required("routes").and_then(|at| route::routes(&at, &known));
    let egress = egress::egress(egress_at.clone(), routes.as_deref());
    let fetching = provider::fetching(fields.optional("fetch"));
    fields.finish();
    consistency::Sections {
        agents: &agents,
        startup: startup.as_ref(),
        routes: routes.as_deref().unwrap_or_default(),
        egress: egress_at.as_ref(),
        rules: egress.as_ref(),
        minting: token_keys.map(|tokens| &tokens.minting),
        limits: limits.as_ref(),
        inbox: inbox.as_deref(),
    }
    .check(root);
    let policy = Policy {
        ingress: ingress(root, routes?, edge(url, client_address?))?,
        agents: agents.all()?,
        egress: egress?,
        explain_denials: explain_denials?,
        feeds: root.feeds(),
        fetching: fetching?,
        inbox: inbox?,
        limits: limits?,
        minting: tokens.map_or(Some(None), |read| read.map(|tokens| Some(tokens.minting)))?,
        outbound_proxy: proxy.map_or(Some(None), |read| read.map(Some))?,
        providers: providers?,
        replicas: replicas?,
        trusted_roots: roots.map_or(Some(None), |read| read.map(Some))?,
    };
    Some((startup?, policy))
}

fn public_url(fields: &mut Fields<'_>) -> Option<Option<String>> {
    let has_tokens = fields.has("callback_tokens");
    fields.optional("public_url").map(|at| at.public_url(has_tokens))
}

fn client_address(fields: &mut Fields<'_>) -> Option<Option<ClientAddress>> {
    fields.optional("client_address").map_or(Some(None), |at| listen::client_address(&at).map(Some))
}

fn callback_tokens(
    fields: &mut Fields<'_>,
    public_url: Option<Option<&str>>,
    has_replicas: bool,
) -> Option<Option<route::CallbackTokens>> {
    fields.optional("callback_tokens").map(|at| route::callback_tokens(&at, public_url, has_replicas))
}

fn ingress(root: &Cursor<'_>, routes: Vec<Arc<Route>>, edge: Edge) -> Option<Ingress> {
    let documents = provider::documents(root, &routes)?;
    Some(Ingress::new(routes, edge).with_documents(documents))
}

/// Reads the configuration section `replicas`, and stores the replica listener in `startup`. Returns the settings of
/// the replicas, and true if each replica has its own ledger. `startup` is `None` if its settings have a mistake. The
/// second value is then false, so that this mistake does not cause a second error.
fn replicas(
    fields: &mut Fields<'_>,
    agents: &agent::Agents<'_>,
    startup: Option<&mut Startup>,
) -> (Option<Option<Arc<Replicas>>>, bool) {
    let Some(at) = fields.optional("replicas") else { return (Some(None), false) };
    let are_separate = startup.as_ref().is_some_and(|startup| startup.store.redis.is_none());
    let section = listen::replicas(&at, agents.patience()).map(|section| {
        if let Some(startup) = startup {
            startup.replicas = Some(section.listener);
        }
        Some(Arc::new(section.settings))
    });
    (section, are_separate)
}

/// Returns the settings that all routes share: the public URL and the rule for client addresses.
fn edge(public_url: Option<String>, client_address: Option<ClientAddress>) -> Edge {
    Edge {
        authority: public_url.as_deref().map(authority).unwrap_or_default().into(),
        client_address,
        fetched_data: FetchedData::default(),
        public_url: public_url.unwrap_or_default().into(),
    }
}

/// Returns the authority (host and port) of a URL.
fn authority(url: &str) -> String {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    rest.split_once('/').map_or(rest, |(authority, _)| authority).to_owned()
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
mod every_mistake;
#[cfg(test)]
mod test_environment;
#[cfg(test)]
mod tests;
