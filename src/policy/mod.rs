//! The policy: the compiled, immutable rules. A request uses one policy from its first byte to its log line. A
//! configuration reload replaces the whole policy.

mod limits;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::agent::Agent;
use crate::egress::Egress;
use crate::feed::FeedId;
use crate::inbox::InboxSettings;
use crate::ingress::{Carrier, FetchedData, Ingress, Provider, Route, TokenRule};
use crate::interaction::pairs;
use crate::outbound::{OutboundProxy, TrustedRoots};
use crate::path::{TOKEN_CAPTURE, with_parameter};
use crate::replica::Replicas;
use crate::signature::Verifier;
use crate::source::Selection;
use crate::time::Timestamp;
use crate::token::{Grant, MintedToken, Minter};

pub use limits::Limits;

/// The compiled, immutable configuration by which Callgate decides about requests, including fetched data.
#[derive(Clone, Debug)]
pub struct Policy {
    /// The agents that Callgate serves, in the order of the configuration.
    pub agents: Vec<Arc<Agent>>,
    /// The egress rules for the agent's own requests.
    pub egress: Egress,
    /// Whether the responses to denied requests contain the reason for the denial.
    pub explain_denials: bool,
    /// The documents that Callgate fetches. The index of a feed in this list is its [`FeedId`].
    pub feeds: Vec<Feed>,
    /// The settings for fetching the feeds.
    pub fetching: Fetching,
    /// The settings of the inbox, which stores callbacks until the agent has received them.
    pub inbox: Arc<InboxSettings>,
    /// The routes for callbacks, with their checks.
    pub ingress: Ingress,
    /// The limits that apply to all routes.
    pub limits: Limits,
    /// The key and the default lifetime of new callback tokens. `None` if the section `callback_tokens` is not
    /// configured.
    pub minting: Option<Minting>,
    /// The forward proxy that Callgate uses for connections to providers and for fetches. `None` if Callgate connects
    /// directly.
    pub outbound_proxy: Option<OutboundProxy>,
    /// The providers, in the order of the configuration.
    pub providers: Vec<Arc<Provider>>,
    /// The settings for the other Callgate processes of this installation. `None` if there is only one process.
    pub replicas: Option<Arc<Replicas>>,
    /// The certificate authorities for TLS connections to providers. If it is `None`, Callgate trusts the authorities
    /// of the operating system.
    pub trusted_roots: Option<TrustedRoots>,
}

/// A document that Callgate fetches: a key set, an address list, or a stored secret.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Feed {
    /// The URL of the document. It is an `https:` URL, a `file:` URL with an absolute path, or a plain HTTP URL of this
    /// host.
    pub url: Box<str>,
    /// The kind of the document.
    pub kind: FeedKind,
}

impl Feed {
    /// Returns the URL without its query, for metrics and the log. The query may contain a secret.
    pub fn label(&self) -> &str {
        self.url.split('?').next().unwrap_or_default()
    }
}

/// The kind of a document that Callgate fetches.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum FeedKind {
    /// A list of IP networks. The selection describes the locations of the networks in the document.
    Addresses(Selection),
    /// A set of public keys.
    Keys,
    /// A secret that a provider sent in a handshake. Callgate has stored the secret in a file, and reads the secret
    /// from this file.
    Secret,
}

/// The settings for fetching documents (feeds).
#[derive(Clone, Debug)]
pub struct Fetching {
    /// The folder in which fetched documents are stored, so that they survive a restart. If it is `None`, fetched
    /// documents are not stored.
    pub cache: Option<Box<str>>,
    /// The time between two fetches of the same document.
    pub every: Duration,
    /// The maximum time for which fetched keys stay in use while all attempts to fetch them again fail. Address lists
    /// stay in use without a time limit.
    pub stale_ok: Duration,
    /// The timeout for one fetch.
    pub timeout: Duration,
    /// Whether Callgate is ready only after it has fetched every key set and address list once.
    pub required: bool,
}

/// The settings for minting callback tokens.
#[derive(Clone, Debug)]
pub struct Minting {
    /// The minter of callback tokens, with its key.
    pub minter: Minter,
    /// The default lifetime of a callback token.
    pub ttl: Duration,
}

/// The parameters for minting a callback URL and its token.
#[derive(Clone, Copy, Debug)]
pub struct MintRequest<'a> {
    /// The name of the route that receives the callback.
    pub route: &'a str,
    /// The names and values of the captures in the path of the route.
    pub parameters: &'a [(&'a str, &'a str)],
    /// The lifetime of the token. If it is `None`, the default lifetime of the configuration applies.
    pub ttl: Option<Duration>,
    /// The number of callbacks that the token allows. `None` means any number.
    pub uses: Option<u32>,
}

/// A minted callback: its URL, its token, and the data of its interaction.
#[derive(Clone)]
pub struct Minted {
    /// The route that receives the callback.
    pub route: Arc<Route>,
    /// The path captures as text: `name=value`, separated by `&`.
    pub captures: Box<str>,
    /// The time at which the callback token was minted.
    pub issued: Timestamp,
    /// The number of callbacks that the token allows. `None` means any number.
    pub uses: Option<u32>,
    /// The id of the interaction.
    pub interaction: String,
    /// The callback URL, which the provider calls.
    pub callback_url: String,
    /// The callback token. The callback URL also contains the token if the route reads the token from the URL.
    pub callback_token: String,
    /// The time at which the callback token expires.
    pub expires: Timestamp,
}

/// The reason why a callback cannot be minted.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum MintFault {
    /// The cryptography library failed.
    Cryptography,
    /// The route has no path capture with this name.
    Extra(String),
    /// The path capture with this name has no value, several values, or an invalid value.
    Parameter(String),
    /// The route accepts no callback tokens, or the section `callback_tokens` is not configured.
    NotMintable,
    /// The route does not exist.
    Route,
    /// The lifetime is shorter than one second or longer than [`TTL_MAX`].
    Ttl,
    /// The number of uses is zero.
    Uses,
}

impl fmt::Display for MintFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cryptography => write!(f, "the token could not be minted"),
            Self::Extra(name) => write!(f, "the route has no capture {name}"),
            Self::Parameter(name) => write!(
                f,
                "the capture {name} needs a value of 1 to 255 characters of [A-Za-z0-9._~-]; a remainder needs the end of a canonical path of up to 1 KiB"
            ),
            Self::NotMintable => write!(f, "the route accepts no token of kind callback"),
            Self::Route => write!(f, "no such route"),
            Self::Ttl => write!(f, "the lifetime must be between 1s and 366d"),
            Self::Uses => write!(f, "the number of uses must be at least 1"),
        }
    }
}

/// The maximum lifetime of a callback token.
pub const TTL_MAX: Duration = Duration::from_secs(366 * 86_400);

impl Policy {
    /// Returns the number by which this policy identifies a feed (a fetched document). Returns `None` if the policy
    /// does not contain the feed.
    pub fn feed(&self, feed: &Feed) -> Option<FeedId> {
        self.feeds.iter().position(|known| known == feed).map(FeedId)
    }

    /// Returns a copy of this policy that also contains fetched documents of the policy `old`. Copies only the
    /// documents that this policy needs. Callgate uses a copied document until it has fetched the document again.
    #[must_use]
    pub fn carrying_on(&self, old: &Self) -> Self {
        let mut outside = self.ingress.edge().fetched_data.clone();
        let had = &old.ingress.edge().fetched_data;
        outside.keyring.take_certificates(&had.keyring, |url| self.may_be_named(url));
        for (id, feed) in self.feeds.iter().enumerate().map(|(i, feed)| (FeedId(i), feed)) {
            // A secret that a provider sent in a handshake is stored in a file. The new policy has already read this
            // file, so the secret is not copied from the old policy.
            let Some(before) = old.feed(feed).filter(|_| feed.kind != FeedKind::Secret) else { continue };
            let known = outside.keyring.set(id).is_some() || outside.lists.get(id).is_some();
            // The new policy has already read this local file, so its content is not copied from the old policy.
            if known && feed.url.starts_with("file:") {
                continue;
            }
            outside.keyring.take(id, &had.keyring, before);
            outside.lists.take(id, &had.lists, before);
        }
        self.with_fetched_data(outside)
    }

    /// Reports whether at least one provider may send messages that refer to a signing certificate at this URL.
    pub fn may_be_named(&self, url: &str) -> bool {
        self.verifiers().any(|verifier| verifier.may_name(url))
    }

    /// Returns the signature verifiers of all providers that sign.
    pub fn verifiers(&self) -> impl Iterator<Item = &Verifier> {
        self.providers.iter().filter_map(|provider| provider.verifier.as_ref())
    }

    /// Returns the names of the routes whose interactions can end only at their deadline. On these routes, no status of
    /// a callback is final, and no egress rule limits the number of callbacks.
    pub fn routes_that_only_expire(&self) -> impl Iterator<Item = &str> {
        let counts = |route: &Route| {
            let injections = self.egress.rules().iter().filter_map(|rule| rule.inject.as_ref());
            injections.filter(|inject| inject.route == route.name).any(|inject| inject.uses.is_some())
        };
        let routes = self.ingress.routes().iter().filter(|route| {
            let has_interactions =
                matches!(route.token, Some(TokenRule::Callback { .. })) || route.follow.matching.is_some();
            let ends = !route.follow.done.is_empty() || !route.follow.failed.is_empty();
            has_interactions && !ends
        });
        routes.filter(move |route| !counts(route)).map(|route| &*route.name)
    }

    /// Returns the key sets and address lists that were never fetched successfully.
    pub fn missing_feeds(&self) -> impl Iterator<Item = &Feed> {
        let data = &self.ingress.edge().fetched_data;
        let is_missing = move |(at, feed): &(usize, &Feed)| match feed.kind {
            FeedKind::Addresses(_) => data.lists.get(FeedId(*at)).is_none(),
            FeedKind::Keys => data.keyring.set(FeedId(*at)).is_none(),
            FeedKind::Secret => false,
        };
        self.feeds.iter().enumerate().filter(is_missing).map(|(_, feed)| feed)
    }

    /// Reports whether a key set or an address list was never fetched successfully. `label` is the URL of the document
    /// without its query.
    pub fn lacks(&self, label: &str) -> bool {
        self.missing_feeds().any(|missing| missing.label() == label)
    }

    /// Returns a copy of this policy with `outside` as its fetched keys and address lists.
    #[must_use]
    pub fn with_fetched_data(&self, outside: FetchedData) -> Self {
        Self { ingress: self.ingress.with_fetched_data(outside), ..self.clone() }
    }

    /// Returns the route with this name.
    pub fn route(&self, name: &str) -> Option<&Arc<Route>> {
        self.ingress.routes().iter().find(|route| *route.name == *name)
    }

    /// Returns the provider with this name.
    pub fn provider(&self, name: &str) -> Option<&Arc<Provider>> {
        self.providers.iter().find(|provider| *provider.name == *name)
    }

    /// Mints a callback URL and its token for one interaction of a route. `interaction` is the proposed id of the
    /// interaction. An opaque token determines the id of its interaction, which then differs from the proposed id. A
    /// route that finds interactions by the provider's id gets neither a URL nor a token.
    ///
    /// # Errors
    /// Returns a [`MintFault`] if the route does not exist, or if it does not accept the parameters.
    pub fn mint(
        &self,
        request: &MintRequest<'_>,
        interaction: &str,
        now: Timestamp,
    ) -> Result<Minted, MintFault> {
        let MintRequest { parameters, uses, .. } = *request;
        let route = self.route(request.route).ok_or(MintFault::Route)?;
        if route.follow.matching.is_some() {
            return Ok(without_token(route, uses, interaction, now));
        }
        let (Some(TokenRule::Callback { carriers, .. }), Some(minting)) = (&route.token, &self.minting)
        else {
            return Err(MintFault::NotMintable);
        };
        if uses == Some(0) {
            return Err(MintFault::Uses);
        }
        let ttl = request.ttl.unwrap_or(minting.ttl);
        if ttl < Duration::from_secs(1) || ttl > TTL_MAX {
            return Err(MintFault::Ttl);
        }
        let captures = bind(route, parameters)?;
        let expires = Timestamp::from_unix_secs(now.plus(ttl).unix_secs());
        let owner = match self.replicas.as_ref().and_then(|replicas| replicas.owner().zip(Some(replicas))) {
            None => None,
            Some((own, replicas)) => {
                Some(replicas.sealer.seal(own, interaction).ok_or(MintFault::Cryptography)?)
            }
        };
        let grant = Grant {
            route: &route.name,
            interaction,
            captures: &captures,
            issued: now,
            expires,
            uses,
            owner: owner.as_deref(),
        };
        let MintedToken { token, interaction } =
            minting.minter.mint(&grant).ok_or(MintFault::Cryptography)?;
        let path = route.path.fill(|name| match name {
            TOKEN_CAPTURE => Some(&token),
            _ => captures.iter().find(|(n, _)| *n == name).map(|(_, value)| *value),
        });
        let path = path.ok_or_else(|| MintFault::Parameter(TOKEN_CAPTURE.to_owned()))?;
        let mut url = format!("{}{path}", self.ingress.edge().public_url);
        // If the first location that the route accepts is a query parameter, the callback URL contains the token in
        // this parameter. The route also accepts the token in its other locations.
        if let Some(Carrier::Query(name)) = carriers.first() {
            url = with_parameter(&url, name, &token);
        }
        Ok(Minted {
            route: Arc::clone(route),
            captures: pairs(captures.iter().copied()),
            issued: now,
            uses,
            interaction,
            callback_url: url,
            callback_token: token,
            expires,
        })
    }
}

/// Returns an interaction without a callback URL and a token. Callgate finds this interaction by the provider's id in a
/// callback. The interaction expires at the deadline of the route.
fn without_token(route: &Arc<Route>, uses: Option<u32>, interaction: &str, now: Timestamp) -> Minted {
    Minted {
        route: Arc::clone(route),
        captures: Box::default(),
        issued: now,
        uses,
        interaction: interaction.to_owned(),
        callback_url: String::new(),
        callback_token: String::new(),
        expires: now.plus(route.follow.deadline.unwrap_or(TTL_MAX)),
    }
}

/// Returns the name and the value of each path capture of the route. The values come from `parameters`.
///
/// # Errors
/// Returns a [`MintFault`] if a value is missing, is invalid or occurs twice, or if a name in `parameters` is no path
/// capture of the route.
fn bind<'a>(
    route: &'a Route,
    parameters: &[(&'a str, &'a str)],
) -> Result<Vec<(&'a str, &'a str)>, MintFault> {
    if let Some((name, _)) =
        parameters.iter().find(|(name, _)| !route.path.has(name) || *name == TOKEN_CAPTURE)
    {
        return Err(MintFault::Extra((*name).to_owned()));
    }
    let names = route.path.names().filter(|name| *name != TOKEN_CAPTURE);
    names
        .map(|name| {
            let mut values = parameters.iter().filter(|(n, _)| *n == name).map(|(_, value)| *value);
            match (values.next(), values.next()) {
                (Some(value), None) if route.path.accepts(name, value) => Ok((name, value)),
                _ => Err(MintFault::Parameter(name.to_owned())),
            }
        })
        .collect()
}
