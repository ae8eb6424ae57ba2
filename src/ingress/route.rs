//! Compiled routes. This module contains only data. The checks that use the data are in the gate.

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
    /// The name of the preset that the provider uses, if it uses one.
    pub preset: Option<&'static str>,
    /// The addresses from which the provider's callbacks are accepted. `None` allows all addresses.
    pub allow: Option<Allowlist>,
    /// The content codings of the provider's bodies that Callgate decodes before it verifies a signature. The agent then
    /// receives the decoded body.
    pub decode: Vec<ContentCoding>,
    /// Whether the provider reads the answer to its callbacks, so that only the agent can answer them.
    pub reads_answer: bool,
    /// Verifies the signatures of the provider. `None` if the provider does not sign.
    pub verifier: Option<Verifier>,
    /// The beginning of the URLs that this provider calls, if it differs from `public_url`. Signatures that cover the URL
    /// are verified with it.
    pub public_url: Option<Box<str>>,
    /// The path of the public document that lists the URLs of the provider's routes. `None` if there is no such
    /// document.
    pub published: Option<Box<str>>,
}

/// A part of a request that can contain a token.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Carrier {
    /// The header `Authorization: Bearer`.
    Bearer,
    /// Another header.
    Header(HeaderName),
    /// The path segment `{callback_token}`.
    Path,
    /// A query parameter.
    Query(Box<str>),
}

/// The token that a route requires.
#[derive(Clone, Debug)]
pub enum TokenRule {
    /// A callback token, which is bound to this route and its captures.
    Callback {
        /// The parts of the request that can contain the token. Exactly one of them must contain it.
        carriers: Vec<Carrier>,
        /// Verifies the token.
        verifier: Arc<CallbackVerifier>,
    },
    /// A JWT of another issuer.
    Jwt {
        /// The parts of the request that can contain the token. Exactly one of them must contain it.
        carriers: Vec<Carrier>,
        /// Verifies the token.
        verifier: Box<JwtVerifier>,
    },
    /// A text that must equal one of the secrets.
    Static {
        /// The parts of the request that can contain the text. Exactly one of them must contain it.
        carriers: Vec<Carrier>,
        /// The accepted secrets.
        secrets: Vec<Secret>,
    },
}

impl TokenRule {
    /// Returns the headers that can contain this token. They never reach the agent.
    pub fn headers(&self) -> impl Iterator<Item = &HeaderName> {
        self.carriers().iter().filter_map(Carrier::header)
    }

    /// Returns the query parameters that can contain this token.
    pub fn parameters(&self) -> impl Iterator<Item = &str> {
        self.carriers().iter().filter_map(|carrier| match carrier {
            Carrier::Query(name) => Some(&**name),
            _ => None,
        })
    }

    /// Returns the parts of the request that can contain this token.
    pub fn carriers(&self) -> &[Carrier] {
        match self {
            Self::Callback { carriers, .. } | Self::Jwt { carriers, .. } | Self::Static { carriers, .. } => {
                carriers
            }
        }
    }
}

/// Formats the carrier for error messages.
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

/// How the agent answers questions of the provider.
#[derive(Clone, Debug)]
pub struct Actions {
    /// The member of the body that contains the URL of the action endpoint.
    pub pointer: Pointer,
    /// The hosts that are allowed for the action endpoint.
    pub guard: Guard,
    /// Whether the agent receives a local URL instead of the action endpoint.
    pub rewrite: bool,
    /// Headers that Callgate adds to the answer, including the provider's credentials.
    pub headers: Vec<(HeaderName, Secret)>,
    /// Signs the answers. `None` if answers are not signed.
    pub signer: Option<Verifier>,
    /// Timeout for connecting to the action endpoint.
    pub connect_timeout: Duration,
    /// Timeout for the head of the provider's response, and for each further read of its body.
    pub response_timeout: Duration,
}

/// What happens to the query of a callback.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum QueryRule {
    /// The query is removed.
    Drop,
    /// The agent receives the query without the token.
    Pass,
}

/// How the agent receives the callbacks of a route.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Deliver {
    /// The callback is kept, and Callgate delivers it.
    Inbox,
    /// The callback is delivered at once, and the caller receives the answer of the agent.
    Now,
    /// The callback is kept, and the agent asks for it.
    Pull,
}

impl Deliver {
    /// Returns the word of the configuration.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Inbox => "inbox",
            Self::Now => "now",
            Self::Pull => "pull",
        }
    }

    /// Reports whether callbacks are kept in the inbox.
    pub fn keeps(self) -> bool {
        self != Self::Now
    }
}

/// What happens to a request that a check denies.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Mode {
    /// The request is denied.
    Enforce,
    /// Observe mode: the denial is logged and counted, and the request is delivered.
    Observe,
}

/// The client certificates that a route accepts.
#[derive(Clone, Debug)]
pub struct CertificateRule {
    /// The accepted names. The certificate must have one of them. If the list is empty, every certificate that one of
    /// the listener's authorities issued is accepted.
    pub names: Vec<Box<str>>,
}

/// A route: an external path, the checks for requests to it, and an internal path.
#[derive(Clone, Debug)]
pub struct Route {
    /// The name of the route. It is used as metric label and log field, and callback tokens are bound to it.
    pub name: Arc<str>,
    /// The agent that receives the callbacks and the notices of the route.
    pub agent: Arc<Agent>,
    /// The external path.
    pub path: Template,
    /// The methods that the route accepts.
    pub methods: Vec<http::Method>,
    /// The methods that this route and all routes with the same path accept. A denial of the method lists them.
    pub path_methods: Vec<http::Method>,
    /// The provider that sends the callbacks.
    pub provider: Option<Arc<Provider>>,
    /// The token that a callback must have.
    pub token: Option<TokenRule>,
    /// The template of the internal path. It is filled with the captures of the external path.
    pub forward: Template,
    /// What happens to the query.
    pub query: QueryRule,
    /// The headers of the caller that reach the agent. `None` means all headers except those that are always removed.
    pub passed_headers: Option<Arc<HeaderAllowlist>>,
    /// Maximum size of the body, in bytes.
    pub body_bytes_max: u64,
    /// Whether requests are passed on while they arrive. Such a route has no callback token, no signature and no
    /// interactions.
    pub stream: bool,
    /// Whether events that were already delivered are recognized and not delivered again.
    pub tells_duplicates: bool,
    /// How the agent receives the callbacks.
    pub deliver: Deliver,
    /// How the states of interactions are read from callbacks.
    pub follow: Follow,
    /// The internal path for notices. `None` if the agent receives no notices.
    pub notify: Option<Template>,
    /// How questions are answered. `None` if the route does not support questions.
    pub actions: Option<Actions>,
    /// Whether denials are enforced or only logged.
    pub mode: Mode,
    /// The client certificates that the route accepts. `None` if it requires no certificate.
    pub certificate: Option<CertificateRule>,
    /// The rate limit for callbacks. `None` allows any number.
    pub rate: Option<Rate>,
    /// Signs the assertions for the agent. `None` if messages to the agent contain no assertion.
    pub asserter: Option<Arc<Asserter>>,
}

impl Route {
    /// Reports whether the route is in observe mode.
    pub fn observes(&self) -> bool {
        self.mode == Mode::Observe
    }

    /// Returns the verifier of the provider's signatures.
    pub fn verifier(&self) -> Option<&Verifier> {
        self.provider.as_ref().and_then(|provider| provider.verifier.as_ref())
    }

    /// Returns the beginning of the URLs that the provider of this route calls.
    pub(super) fn public_url<'a>(&'a self, edge: &'a Edge) -> &'a str {
        let own = self.provider.as_ref().and_then(|provider| provider.public_url.as_deref());
        own.unwrap_or(&edge.public_url)
    }

    /// Returns the query parameters that can contain the token of this route, or the shared secret or JWT of its provider.
    /// They never reach the agent.
    pub fn secret_parameters(&self) -> impl Iterator<Item = &str> {
        let shared = self.verifier().and_then(|verifier| match &verifier.scheme().proof {
            Proof::SharedSecret(place) => place.parameter(),
            Proof::Jwt(jwt) => jwt.place.parameter(),
            _ => None,
        });
        self.token.iter().flat_map(TokenRule::parameters).chain(shared)
    }

    /// Writes the header with the assertion for a message to the agent. Writes nothing if the route has no asserter.
    pub(super) fn assert(&self, message: &Asserted<'_>, out: &mut Vec<u8>) {
        if let Some(assertion) = self.assertion(message) {
            write_line(out, "callgate-assertion", assertion.as_bytes());
        }
    }

    /// Returns the assertion for a message to the agent. Returns `None` if the route has no asserter.
    pub(super) fn assertion(&self, message: &Asserted<'_>) -> Option<String> {
        let provider = self.provider.as_ref().map(|provider| &*provider.name);
        self.asserter.as_ref().and_then(|asserter| asserter.assert(&self.name, provider, message))
    }

    /// Returns the provider's name, or `none` if the route has no provider.
    pub fn provider_name(&self) -> &str {
        self.provider.as_ref().map_or("none", |provider| &provider.name)
    }
}
