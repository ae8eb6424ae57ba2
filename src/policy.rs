//! The policy: everything a request is decided by, compiled and immutable. A request sees one policy from
//! its first byte to its log line; a reload replaces the whole of it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::egress::Egress;
use crate::feed::FeedId;
use crate::ingress::{Carrier, Ingress, Outside, Provider, Route, TokenRule};
use crate::interaction::pairs;
use crate::path::{TOKEN_CAPTURE, with_parameter};
use crate::signature::Verifier;
use crate::source::Selection;
use crate::time::{Rate, Timestamp};
use crate::token::{Grant, Minter};

/// The compiled rules.
#[derive(Clone, Debug)]
pub struct Policy {
    /// Where permitted callbacks go.
    pub agent: Agent,
    /// Where the agent's own requests go, and what callbacks they get.
    pub egress: Egress,
    /// Whether callers are told the reason of a denial.
    pub explain_denials: bool,
    /// What is fetched, each by its number.
    pub feeds: Vec<Feed>,
    /// How it is fetched.
    pub fetching: Fetching,
    /// The routes and their gates.
    pub ingress: Ingress,
    /// Limits that are not a route's own.
    pub limits: Limits,
    /// How callback tokens are made; `None`: no `callback_tokens` are configured.
    pub minting: Option<Minting>,
    /// The providers, in the order of the configuration.
    pub providers: Vec<Arc<Provider>>,
    /// Who is believed about the names of providers; `None`: the platform's authorities.
    pub trusted_roots: Option<TrustedRoots>,
}

/// The certificates of authorities that providers are believed by.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct TrustedRoots {
    /// PEM.
    pub path: Box<str>,
    /// The SHA-256 of the file: another content is another set of authorities.
    pub digest: [u8; 32],
}

/// Something that is fetched.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Feed {
    /// Where it is: https, `file:` and an absolute path, or plain HTTP on this host.
    pub url: Box<str>,
    /// What it is.
    pub kind: FeedKind,
}

impl Feed {
    /// The address without its query, which may hold a key: for metrics and the log.
    pub fn label(&self) -> &str {
        self.url.split('?').next().unwrap_or_default()
    }
}

/// What is fetched.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum FeedKind {
    /// A list of addresses, and which texts of the document they are.
    Addresses(Selection),
    /// Public keys.
    Keys,
    /// A secret that a handshake hands over: a file that we write.
    Secret,
}

/// How things are fetched.
#[derive(Clone, Debug)]
pub struct Fetching {
    /// The folder in which what was fetched is kept over restarts; `None`: nowhere.
    pub cache: Option<Box<str>>,
    /// How often.
    pub every: Duration,
    /// How old keys may get that could not be fetched anew. Lists of addresses stay.
    pub stale_ok: Duration,
    /// How long one fetch may take.
    pub timeout: Duration,
}

/// The agent service.
#[derive(Clone, Debug)]
pub struct Agent {
    /// Where it listens.
    pub address: AgentAddress,
    /// How long a connection may take.
    pub connect_timeout: Duration,
    /// How long the head of the answer, and each further piece of it, may take.
    pub response_timeout: Duration,
    /// How long an idle connection is kept; shorter than what servers usually keep theirs.
    pub idle_timeout: Duration,
}

/// Where the agent listens.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum AgentAddress {
    /// `host:port`.
    Tcp(Box<str>),
    /// The path of a Unix socket.
    Unix(Box<str>),
}

impl fmt::Display for AgentAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => f.write_str(address),
            Self::Unix(path) => write!(f, "unix:{path}"),
        }
    }
}

/// Limits that are not a route's own.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// From the end of the head to the end of the body.
    pub body_deadline: Duration,
    /// Most bytes of all bodies that are held at one time.
    pub body_memory_bytes_max: u64,
    /// How slow a body may come and an answer may be taken, in bytes per second, after a start of
    /// [`Limits::SLOW_START`].
    pub bytes_per_second_min: u64,
    /// Most connections at one time.
    pub connections_max: usize,
    /// Most of them from one address; of IPv6, from one network of 64 bits.
    pub connections_per_address_max: usize,
    /// Largest head of a request, in bytes.
    pub head_bytes_max: usize,
    /// From the first byte of a request, or from the beginning of its connection, to the end of its head; and how
    /// long what comes before a connection's first request may take.
    pub head_deadline: Duration,
    /// Most header lines of a request.
    pub headers_max: usize,
    /// How long a connection that has served a request may wait for its next one.
    pub idle_timeout: Duration,
    /// Most requests from one address; of IPv6, from one network of 64 bits. `None`: any number.
    pub rate_per_address: Option<Rate>,
    /// Most requests at one time on one connection of HTTP/2.
    pub streams_max: u32,
}

impl Limits {
    /// How long a body or an answer may take however slow it is.
    pub const SLOW_START: Duration = Duration::from_secs(5);

    /// How long something may have taken of which this many bytes have come or gone.
    pub fn time_for(&self, bytes: u64) -> Duration {
        Self::SLOW_START
            + Duration::from_millis(bytes.saturating_mul(1000) / self.bytes_per_second_min.max(1))
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            body_deadline: Duration::from_secs(30),
            body_memory_bytes_max: 64 << 20,
            bytes_per_second_min: 1 << 10,
            connections_max: 20_000,
            connections_per_address_max: 16_000,
            head_bytes_max: 32 << 10,
            head_deadline: Duration::from_secs(10),
            headers_max: 100,
            idle_timeout: Duration::from_secs(60),
            rate_per_address: None,
            streams_max: 100,
        }
    }
}

/// How callback tokens are made.
#[derive(Clone, Debug)]
pub struct Minting {
    /// The key that mints.
    pub minter: Minter,
    /// How long a token lives unless asked otherwise.
    pub ttl: Duration,
}

/// What is to be minted.
#[derive(Clone, Copy, Debug)]
pub struct MintRequest<'a> {
    /// The route the callback comes in by.
    pub route: &'a str,
    /// A value for each of its captures.
    pub parameters: &'a [(&'a str, &'a str)],
    /// How long the token lives; `None`: as the configuration says.
    pub ttl: Option<Duration>,
    /// How many callbacks it is good for; `None`: any number.
    pub uses: Option<u32>,
}

/// A minted callback.
#[derive(Clone)]
pub struct Minted {
    /// The route it comes in by.
    pub route: Arc<Route>,
    /// `name=value`, `&` between them.
    pub captures: Box<str>,
    /// When it was made.
    pub issued: Timestamp,
    /// How many callbacks it is good for; `None`: any number.
    pub uses: Option<u32>,
    /// The interaction.
    pub interaction: String,
    /// Where the provider calls back.
    pub callback_url: String,
    /// The token that guards it; rides in the URL where the route says so.
    pub callback_token: String,
    /// When it ends.
    pub expires: Timestamp,
}

/// Why nothing was minted.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum MintFault {
    /// The token cannot be made by this build.
    Cryptography,
    /// A parameter that is not a capture of the route.
    Extra(String),
    /// A capture without a value, or with one that a path segment cannot have.
    Parameter(String),
    /// The route does not take tokens minted here.
    NotMintable,
    /// No such route.
    Route,
    /// A lifetime of nothing, or beyond a year.
    Ttl,
    /// No use at all.
    Uses,
}

impl fmt::Display for MintFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cryptography => write!(f, "the token could not be made"),
            Self::Extra(name) => write!(f, "the route has no capture {name}"),
            Self::Parameter(name) => {
                write!(f, "the capture {name} needs a value of 1 to 255 characters of [A-Za-z0-9._~-]")
            }
            Self::NotMintable => write!(f, "the route takes no token of kind callback"),
            Self::Route => write!(f, "no such route"),
            Self::Ttl => write!(f, "the lifetime must be between 1s and 366d"),
            Self::Uses => write!(f, "the uses must be at least 1"),
        }
    }
}

/// Longest lifetime of a token.
pub const TTL_MAX: Duration = Duration::from_secs(366 * 86_400);

impl Policy {
    /// The number of something that is fetched; `None`: it is not.
    pub fn feed(&self, feed: &Feed) -> Option<FeedId> {
        self.feeds.iter().position(|known| known == feed).map(FeedId)
    }

    /// The same policy with what an older one has fetched of the same things.
    #[must_use]
    pub fn carrying_on(&self, old: &Self) -> Self {
        let mut outside = self.ingress.edge().outside.clone();
        let had = &old.ingress.edge().outside;
        outside.keyring.take_certificates(&had.keyring, |url| self.may_be_named(url));
        for (id, feed) in self.feeds.iter().enumerate().map(|(i, feed)| (FeedId(i), feed)) {
            // A secret that was handed over is in a file of ours: it is what that says now.
            let Some(before) = old.feed(feed).filter(|_| feed.kind != FeedKind::Secret) else { continue };
            let known = outside.keyring.set(id).is_some() || outside.lists.get(id).is_some();
            // A file on this host is as it is now.
            if known && feed.url.starts_with("file:") {
                continue;
            }
            outside.keyring.take(id, &had.keyring, before);
            outside.lists.take(id, &had.lists, before);
        }
        self.with_outside(outside)
    }

    /// Whether a message of any provider may name the certificate at this address.
    pub fn may_be_named(&self, url: &str) -> bool {
        self.verifiers().any(|verifier| verifier.may_name(url))
    }

    /// How the providers sign that sign.
    pub fn verifiers(&self) -> impl Iterator<Item = &Verifier> {
        self.providers.iter().filter_map(|provider| provider.verifier.as_ref())
    }

    /// The same policy with other things fetched.
    #[must_use]
    pub fn with_outside(&self, outside: Outside) -> Self {
        Self { ingress: self.ingress.with_outside(outside), ..self.clone() }
    }

    /// The route of this name.
    pub fn route(&self, name: &str) -> Option<&Arc<Route>> {
        self.ingress.routes().iter().find(|route| *route.name == *name)
    }

    /// The provider of this name.
    pub fn provider(&self, name: &str) -> Option<&Arc<Provider>> {
        self.providers.iter().find(|provider| *provider.name == *name)
    }

    /// Makes a callback URL and its token for one interaction of a route.
    ///
    /// # Errors
    /// [`MintFault`].
    pub fn mint(
        &self,
        request: &MintRequest<'_>,
        interaction: &str,
        now: Timestamp,
    ) -> Result<Minted, MintFault> {
        let MintRequest { parameters, uses, .. } = *request;
        let route = self.route(request.route).ok_or(MintFault::Route)?;
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
        let grant =
            Grant { route: &route.name, interaction, captures: &captures, issued: now, expires, uses };
        let token = minting.minter.mint(&grant).ok_or(MintFault::Cryptography)?;
        let path = route.path.fill(|name| match name {
            TOKEN_CAPTURE => Some(&token),
            _ => captures.iter().find(|(n, _)| *n == name).map(|(_, value)| *value),
        });
        let path = path.ok_or_else(|| MintFault::Parameter(TOKEN_CAPTURE.to_owned()))?;
        let mut url = format!("{}{path}", self.ingress.edge().public_url);
        // The first carrier is the one new tokens ride in; the others are still believed.
        if let Some(Carrier::Query(name)) = carriers.first() {
            url = with_parameter(&url, name, &token);
        }
        Ok(Minted {
            route: Arc::clone(route),
            captures: pairs(captures.iter().copied()),
            issued: now,
            uses,
            interaction: interaction.to_owned(),
            callback_url: url,
            callback_token: token,
            expires,
        })
    }
}

/// One usable value for each capture of the route, and nothing else.
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
                (Some(value), None) if crate::path::is_capturable(name, value) => Ok((name, value)),
                _ => Err(MintFault::Parameter(name.to_owned())),
            }
        })
        .collect()
}
