//! Compiled routes. This module contains only data. The gate contains the checks that use the data.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderName;

use super::edge::Edge;
use super::passed_headers::HeaderAllowlist;
use crate::agent::Agent;
use crate::body::content_coding::ContentCoding;
use crate::guard::Guard;
use crate::interaction::Follow;
use crate::json::Pointer;
use crate::path::Template;
use crate::request::write_line;
use crate::secret::Secret;
use crate::signature::{Proof, Verifier};
use crate::source::Allowlist;
use crate::time::Rate;
use crate::token::{Asserted, Asserter, CallbackVerifier, JwtVerifier};

/// An outside service that sends callbacks.
#[derive(Clone, Debug)]
pub struct Provider {
    /// The name of the provider in the configuration. The name is used as metric label and log field.
    pub name: Arc<str>,
    /// The name of the provider's preset in the configuration. `None` if the provider has no preset.
    pub preset: Option<&'static str>,
    /// The client addresses from which the provider's callbacks are accepted. `None` allows all addresses.
    pub allow: Option<Allowlist>,
    /// The content codings that Callgate decodes in bodies of this provider, before it verifies a signature. The agent
    /// then receives the decoded body.
    pub decode: Vec<ContentCoding>,
    /// Whether the provider reads the body of the response to its callbacks. Only the agent can write this body, so the
    /// callbacks cannot be stored in the inbox.
    pub reads_answer: bool,
    /// The verifier of the provider's signatures. `None` if the provider does not sign.
    pub verifier: Option<Verifier>,
    /// The beginning of the URLs that this provider calls, if it differs from the setting `public_url` for all
    /// providers. Signatures that cover the URL are verified with this value.
    pub public_url: Option<Box<str>>,
    /// The path of the public document that lists the URLs of the provider's routes. `None` if this document is not
    /// served.
    pub published: Option<Box<str>>,
}

/// A location in a request that can contain a token.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Carrier {
    /// The header `Authorization: Bearer`.
    Bearer,
    /// The header with this name.
    Header(HeaderName),
    /// The path segment that matches the capture `{callback_token}`.
    Path,
    /// A query parameter, by its name.
    Query(Box<str>),
}

/// The kind of token that a route requires.
#[derive(Clone, Debug)]
pub enum TokenRule {
    /// A callback token, which is bound to this route and to the captures of the path.
    Callback {
        /// The locations in the request that can contain the token. Exactly one of them must contain it.
        carriers: Vec<Carrier>,
        /// The verifier of callback tokens.
        verifier: Arc<CallbackVerifier>,
    },
    /// A JWT from an issuer other than Callgate.
    Jwt {
        /// The locations in the request that can contain the JWT. Exactly one of them must contain it.
        carriers: Vec<Carrier>,
        /// The verifier of JWTs.
        verifier: Box<JwtVerifier>,
    },
    /// A static token. It must equal one of the secrets.
    Static {
        /// The locations in the request that can contain the token. Exactly one of them must contain it.
        carriers: Vec<Carrier>,
        /// The accepted secrets.
        secrets: Vec<Secret>,
    },
}

impl TokenRule {
    /// Returns the names of the headers that can contain this token. These headers never reach the agent.
    pub fn headers(&self) -> impl Iterator<Item = &HeaderName> {
        self.carriers().iter().filter_map(Carrier::header)
    }

    /// Returns the names of the query parameters that can contain this token.
    pub fn parameters(&self) -> impl Iterator<Item = &str> {
        self.carriers().iter().filter_map(|carrier| match carrier {
            Carrier::Query(name) => Some(&**name),
            _ => None,
        })
    }

    /// Returns the locations in the request that can contain this token.
    pub fn carriers(&self) -> &[Carrier] {
        match self {
            Self::Callback { carriers, .. } | Self::Jwt { carriers, .. } | Self::Static { carriers, .. } => {
                carriers
            }
        }
    }
}

/// Formats the location of a token for error messages.
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

/// The settings for the agent's answers to questions of the provider.
#[derive(Clone, Debug)]
pub struct Actions {
    /// The location of the action endpoint (the URL for answers) in the JSON body of a callback.
    pub pointer: Pointer,
    /// The hosts that are allowed in the action endpoint.
    pub guard: Guard,
    /// Whether Callgate replaces the action endpoint by a local URL in the body for the agent.
    pub rewrite: bool,
    /// The headers that Callgate adds to the agent's answer, including the provider's credentials.
    pub headers: Vec<(HeaderName, Secret)>,
    /// The signature scheme and the keys with which Callgate signs the agent's answers. `None` if answers are not
    /// signed.
    pub signer: Option<Verifier>,
    /// The timeout for connecting to the action endpoint.
    pub connect_timeout: Duration,
    /// The timeout for the head of the provider's response, and for each read of the response body.
    pub response_timeout: Duration,
}

/// What Callgate does with the query of a callback.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum QueryRule {
    /// The query is removed before the agent receives the callback.
    Drop,
    /// The agent receives the query of the callback without the token.
    Pass,
}

/// The way in which the agent receives the callbacks of a route.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Deliver {
    /// Callgate stores the callback in the inbox, and then delivers it.
    Inbox,
    /// Callgate delivers the callback while the caller waits. The caller receives the response of the agent.
    Now,
    /// Callgate stores the callback in the inbox, and the agent pulls it.
    Pull,
}

impl Deliver {
    /// Returns the name of this value in the configuration.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Inbox => "inbox",
            Self::Now => "now",
            Self::Pull => "pull",
        }
    }

    /// Reports whether callbacks are stored in the inbox.
    pub fn keeps(self) -> bool {
        self != Self::Now
    }
}

/// What Callgate does with a request that fails a check.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Mode {
    /// The request is denied.
    Enforce,
    /// Observe mode: the denial is logged and counted, and the request is delivered nevertheless.
    Observe,
}

/// The client certificates that a route accepts.
#[derive(Clone, Debug)]
pub struct CertificateRule {
    /// The accepted names. A certificate must contain at least one of these names. If the list is empty, the route
    /// accepts every certificate from an authority that the listener trusts.
    pub names: Vec<Box<str>>,
}

/// A route: an external path, the checks for requests to this path, and an internal path at the agent.
#[derive(Clone, Debug)]
pub struct Route {
    /// The name of the route. The name is a metric label and a log field, and callback tokens are bound to it.
    pub name: Arc<str>,
    /// The agent that receives the callbacks and the notices of the route.
    pub agent: Arc<Agent>,
    /// The template of the external path.
    pub path: Template,
    /// The HTTP methods that the route accepts.
    pub methods: Vec<http::Method>,
    /// The HTTP methods that this route and the other routes with the same path accept. If a request has another
    /// method, the response lists these methods.
    pub path_methods: Vec<http::Method>,
    /// The provider that sends the callbacks, if the route has one.
    pub provider: Option<Arc<Provider>>,
    /// The kind of token that a callback must have. `None` if the route requires no token.
    pub token: Option<TokenRule>,
    /// The template of the internal path. It is filled with the captures of the external path.
    pub forward: Template,
    /// What Callgate does with the query of a callback.
    pub query: QueryRule,
    /// The headers of the caller that reach the agent. `None` means all headers except the headers that are always
    /// removed.
    pub passed_headers: Option<Arc<HeaderAllowlist>>,
    /// The maximum size of the body, in bytes.
    pub body_bytes_max: u64,
    /// Whether bodies are passed on while they arrive. Such a route has no callback token, no signature check and no
    /// interactions.
    pub stream: bool,
    /// Whether the ledger recognizes events that were already delivered, so that Callgate does not deliver them again.
    pub tells_duplicates: bool,
    /// The way in which the agent receives the callbacks of the route.
    pub deliver: Deliver,
    /// The rules for reading the state of an interaction from its callbacks.
    pub follow: Follow,
    /// The template of the internal path for notices. `None` if the agent receives no notices.
    pub notify: Option<Template>,
    /// The settings for answers to questions. `None` if the route does not support questions.
    pub actions: Option<Actions>,
    /// Whether requests that fail a check are denied, or delivered nevertheless.
    pub mode: Mode,
    /// The client certificates that the route accepts. `None` if it requires no certificate.
    pub certificate: Option<CertificateRule>,
    /// The rate limit for callbacks. `None` means that the rate is not limited.
    pub rate: Option<Rate>,
    /// The signer of assertions for the agent. `None` if requests to the agent contain no assertion.
    pub asserter: Option<Arc<Asserter>>,
}

impl Route {
    /// Reports whether the route is in observe mode.
    pub fn observes(&self) -> bool {
        self.mode == Mode::Observe
    }

    /// Returns the verifier of the provider's signatures. Returns `None` if the provider does not sign.
    pub fn verifier(&self) -> Option<&Verifier> {
        self.provider.as_ref().and_then(|provider| provider.verifier.as_ref())
    }

    /// Returns the beginning of the URLs of this route: the `public_url` of the provider, or the public URL for all
    /// providers if the provider has none.
    pub(super) fn public_url<'a>(&'a self, edge: &'a Edge) -> &'a str {
        let own = self.provider.as_ref().and_then(|provider| provider.public_url.as_deref());
        own.unwrap_or(&edge.public_url)
    }

    /// Returns the names of the query parameters that can contain a secret: the token of this route, or the shared
    /// secret or JWT of its provider. These parameters never reach the agent.
    pub fn secret_parameters(&self) -> impl Iterator<Item = &str> {
        let shared = self.verifier().and_then(|verifier| match &verifier.scheme().proof {
            Proof::SharedSecret(place) => place.parameter(),
            Proof::Jwt(jwt) => jwt.place.parameter(),
            _ => None,
        });
        self.token.iter().flat_map(TokenRule::parameters).chain(shared)
    }

    /// Writes the header `Callgate-Assertion` for a message to the agent. Writes nothing if the route has no asserter.
    pub(super) fn assert(&self, message: &Asserted<'_>, out: &mut Vec<u8>) {
        if let Some(assertion) = self.assertion(message) {
            write_line(out, "callgate-assertion", assertion.as_bytes());
        }
    }

    /// Returns the signed assertion for a message to the agent. Returns `None` if the route has no asserter.
    pub(super) fn assertion(&self, message: &Asserted<'_>) -> Option<String> {
        let provider = self.provider.as_ref().map(|provider| &*provider.name);
        self.asserter.as_ref().and_then(|asserter| asserter.assert(&self.name, provider, message))
    }

    /// Returns the provider's name, or `none` if the route has no provider.
    pub fn provider_name(&self) -> &str {
        self.provider.as_ref().map_or("none", |provider| &provider.name)
    }
}
