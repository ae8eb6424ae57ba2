//! The agents: the services that receive callbacks and notices.

mod tls;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderName;

use crate::secret::Secret;

pub use tls::{AgentTls, ClientCertificateFiles, Pem};

/// The name of the only agent of a configuration with the section `agent`. The section `agent` has no setting for a
/// name.
pub const ONLY_AGENT: &str = "agent";

/// The settings of an agent: a service that receives callbacks and notices.
#[derive(Clone, Debug)]
pub struct Agent {
    /// The name of the agent in the configuration. The name is used as metric label and log field.
    pub name: Arc<str>,
    /// The address at which the agent listens.
    pub address: AgentAddress,
    /// The settings for TLS. `None` if the agent serves plain HTTP.
    pub tls: Option<AgentTls>,
    /// Timeout for connecting to the agent, including the TLS handshake.
    pub connect_timeout: Duration,
    /// Timeout for the head of the agent's response, and for each read of the response body.
    pub response_timeout: Duration,
    /// How long Callgate retains an idle connection to the agent. The default is shorter than the usual keep-alive
    /// timeout of servers.
    pub idle_timeout: Duration,
    /// Whether requests to the agent have `X-Forwarded-*` headers.
    pub forwarded_headers: bool,
    /// The request that wakes the agent. Callgate sends the request if a callback waits and the agent does not respond.
    /// `None` if no such request is configured.
    pub wake: Option<Wake>,
}

/// The request that wakes an agent, for example by scaling the agent up.
#[derive(Clone, Debug)]
pub struct Wake {
    /// The URL of the wake request. The URL was validated when the configuration was read.
    pub url: Box<str>,
    /// The headers of the wake request, such as credentials.
    pub headers: Vec<(HeaderName, Secret)>,
}

impl Agent {
    /// Returns the value of the `Host` header of requests to the agent. Used if no public URL is configured.
    pub fn authority(&self) -> &str {
        match &self.address {
            AgentAddress::Tcp(address) => address,
            AgentAddress::Unix(_) => "localhost",
        }
    }

    /// Reports whether this agent can use the open connections to the agent `other`. Both must have the same name, the
    /// same address and the same TLS settings.
    pub fn shares_connections_with(&self, other: &Self) -> bool {
        let digest = |agent: &Self| agent.tls.as_ref().map(|tls| tls.digest);
        self.name == other.name && self.address == other.address && digest(self) == digest(other)
    }

    /// Returns the longest time that Callgate waits for the head of the agent's response, including the time to
    /// connect.
    pub fn patience(&self) -> Duration {
        self.connect_timeout + self.response_timeout
    }
}

/// The address at which the agent listens.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum AgentAddress {
    /// A TCP address, as `host:port`.
    Tcp(Box<str>),
    /// The path of a Unix socket.
    Unix(Box<str>),
}

impl AgentAddress {
    /// Returns the host without the port and without the brackets of an IPv6 address. Returns `None` for a Unix socket.
    pub fn host(&self) -> Option<&str> {
        let Self::Tcp(address) = self else { return None };
        let (host, _) = address.rsplit_once(':')?;
        Some(host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host))
    }
}

impl fmt::Display for AgentAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => f.write_str(address),
            Self::Unix(path) => write!(f, "unix:{path}"),
        }
    }
}
