//! What a route is made of, compiled: plain data that the gate runs over.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderName;

use crate::guard::Guard;
use crate::interaction::Follow;
use crate::json::Pointer;
use crate::path::Template;
use crate::request::write_line;
use crate::secret::Secret;
use crate::signature::Verifier;
use crate::source::Allowlist;
use crate::time::Rate;
use crate::token::{Asserted, Asserter, CallbackVerifier, JwtVerifier};

/// An outside service that calls back.
#[derive(Clone, Debug)]
pub struct Provider {
    /// Its name in the configuration: metric label and log field.
    pub name: Arc<str>,
    /// The preset it is made of.
    pub preset: Option<&'static str>,
    /// Where its callbacks may come from; `None`: anywhere.
    pub allow: Option<Allowlist>,
    /// How it signs; `None`: it does not.
    pub verifier: Option<Verifier>,
    /// The document in which the addresses of its routes are published; `None`: they are not.
    pub published: Option<Box<str>>,
}

/// Where a token travels.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Carrier {
    /// `Authorization: Bearer`.
    Bearer,
    /// A header of its own.
    Header(HeaderName),
    /// The path segment `{callback_token}`.
    Path,
    /// A query parameter.
    Query(Box<str>),
}

/// Which token a route asks for.
#[derive(Clone, Debug)]
pub enum TokenRule {
    /// One minted here, bound to this route and its captures.
    Callback {
        /// Where it may travel; exactly one of them carries it.
        carriers: Vec<Carrier>,
        /// The keys.
        verifier: Arc<CallbackVerifier>,
    },
    /// A JWT that somebody else issues.
    Jwt {
        /// Where it may travel; exactly one of them carries it.
        carriers: Vec<Carrier>,
        /// The keys and what it must say.
        verifier: Box<JwtVerifier>,
    },
    /// A header that equals one of the secrets.
    Static {
        /// The header.
        header: HeaderName,
        /// The secrets, any of them.
        secrets: Vec<Secret>,
    },
}

impl TokenRule {
    /// The headers in which this token travels, which therefore never reach the agent.
    pub fn headers(&self) -> impl Iterator<Item = &HeaderName> {
        let (carriers, header) = match self {
            Self::Callback { carriers, .. } | Self::Jwt { carriers, .. } => (carriers.as_slice(), None),
            Self::Static { header, .. } => (&[] as &[Carrier], Some(header)),
        };
        carriers.iter().filter_map(Carrier::header).chain(header)
    }

    /// The query parameters in which this token travels.
    pub fn parameters(&self) -> impl Iterator<Item = &str> {
        let carriers = match self {
            Self::Callback { carriers, .. } | Self::Jwt { carriers, .. } => carriers.as_slice(),
            Self::Static { .. } => &[],
        };
        carriers.iter().filter_map(|carrier| match carrier {
            Carrier::Query(name) => Some(&**name),
            _ => None,
        })
    }
}

/// In words, for people.
impl std::fmt::Display for Carrier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Bearer => write!(f, "the bearer header"),
            Self::Header(name) => write!(f, "the header {name}"),
            Self::Path => write!(f, "the path"),
            Self::Query(name) => write!(f, "the query parameter {name}"),
        }
    }
}

impl Carrier {
    fn header(&self) -> Option<&HeaderName> {
        match self {
            Self::Bearer => Some(&http::header::AUTHORIZATION),
            Self::Header(name) => Some(name),
            Self::Path | Self::Query(_) => None,
        }
    }
}

/// How questions are answered: the action endpoint a callback brings, and what the answer is sent with.
#[derive(Clone, Debug)]
pub struct Actions {
    /// Where the endpoint's URL stands in the body of a callback.
    pub pointer: Pointer,
    /// The hosts it may be at.
    pub guard: Guard,
    /// The agent is given a local URL in its place.
    pub rewrite: bool,
    /// Headers the answer is sent with, credentials of the provider among them.
    pub headers: Vec<(HeaderName, Secret)>,
    /// How the answer is signed; `None`: it is not.
    pub signer: Option<Verifier>,
    /// How long a connection may take, and how long the head of the answer and each further piece of it.
    pub connect_timeout: Duration,
    /// As said.
    pub response_timeout: Duration,
}

/// What becomes of the query.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum QueryRule {
    /// The agent sees none of it.
    Drop,
    /// The agent sees it without the token.
    Pass,
}

/// Whether a denial holds.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Mode {
    /// It does.
    Enforce,
    /// It is counted and logged, and the request is delivered all the same.
    Observe,
}

/// Which client certificates a route takes.
#[derive(Clone, Debug)]
pub struct CertificateRule {
    /// One of these is among its names; empty: any certificate that the listener's authorities issued.
    pub names: Vec<Box<str>>,
}

/// A route: external path, checks, internal path.
#[derive(Clone, Debug)]
pub struct Route {
    /// Its name: metric label, log field, and what tokens are bound to.
    pub name: Arc<str>,
    /// The external path.
    pub path: Template,
    /// The methods it takes.
    pub methods: Vec<http::Method>,
    /// Who calls, and how that is known.
    pub provider: Option<Arc<Provider>>,
    /// The token it asks for.
    pub token: Option<TokenRule>,
    /// The internal path, built from the captures.
    pub forward: Template,
    /// What becomes of the query.
    pub query: QueryRule,
    /// Largest body, in bytes.
    pub body_bytes_max: u64,
    /// Whether an event that was delivered is not delivered again.
    pub tells_duplicates: bool,
    /// How interactions are followed.
    pub follow: Follow,
    /// The internal path at which the agent is told that nothing came.
    pub notify: Option<Template>,
    /// How questions are answered; `None`: they are not.
    pub actions: Option<Actions>,
    /// Whether a denial holds, or is only counted.
    pub mode: Mode,
    /// Which client certificates it takes; `None`: it asks for none.
    pub certificate: Option<CertificateRule>,
    /// How many callbacks it lets through; `None`: any number.
    pub rate: Option<Rate>,
    /// What signs the assertion that the agent gets with each message; `None`: it gets none.
    pub asserter: Option<Arc<Asserter>>,
}

impl Route {
    /// Whether nothing is denied.
    pub fn observes(&self) -> bool {
        self.mode == Mode::Observe
    }

    /// How its provider signs.
    pub fn verifier(&self) -> Option<&Verifier> {
        self.provider.as_ref().and_then(|provider| provider.verifier.as_ref())
    }

    /// Writes the header with the assertion for a message to the agent, where the route has one.
    pub(super) fn assert(&self, message: &Asserted<'_>, out: &mut Vec<u8>) {
        let provider = self.provider.as_ref().map(|provider| &*provider.name);
        let assertion =
            self.asserter.as_ref().and_then(|asserter| asserter.assert(&self.name, provider, message));
        if let Some(assertion) = assertion {
            write_line(out, "callgate-assertion", assertion.as_bytes());
        }
    }

    /// The provider's name; `none` without one.
    pub fn provider_name(&self) -> &str {
        self.provider.as_ref().map_or("none", |provider| &provider.name)
    }
}
