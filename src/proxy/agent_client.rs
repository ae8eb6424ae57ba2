//! The HTTP client for one agent: its TLS settings, its pool of idle connections, and its share of the limits.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use pingora::tls::{
    ClientConfig, RootCertStore, ServerName, TlsConnector, load_platform_certs_incl_env_into_store,
};
use tokio::net::{TcpStream, UnixStream, lookup_host};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::agent::{Agent, AgentAddress, AgentTls, ONLY_AGENT};
use crate::denial::Denial;
use crate::http::BodyMemory;
use crate::http::client::{Connection, ConnectionPool, Records, Upstream, attempt_order, connect_first};
use crate::proxy::listen::LogThrottle;
use crate::proxy::pem_files;

/// The maximum number of concurrent DNS lookups of one agent's host.
const LOOKUPS_MAX: usize = 16;

/// The HTTP client for one agent. A reload that changes the agent's address or TLS settings creates a new client.
pub(crate) struct AgentClient {
    pub(crate) agent: Arc<Agent>,
    transport: Transport,
    /// The idle connections. Each agent has its own pool, so that a busy agent does not displace the idle connections
    /// to another agent.
    pool: ConnectionPool<()>,
    pub(crate) share: Arc<AgentShare>,
    log_throttle: LogThrottle,
}

/// How a connection to the agent is opened.
enum Transport {
    Plain,
    Tls(TlsConnector, ServerName<'static>),
    /// The TLS settings cannot be used. Contains the reason.
    Unusable(Box<str>),
}

/// The limited resources that one agent uses: memory for bodies, requests in progress, and DNS lookups. If a reload
/// replaces the HTTP client of the agent, the new client uses the same share.
pub(crate) struct AgentShare {
    /// The memory for the bodies of this agent's requests.
    pub(crate) body_memory: BodyMemory,
    /// The number of requests to the agent in progress. Each request holds a [`RequestSlot`].
    requests: AtomicUsize,
    /// Limits the concurrent DNS lookups of the agent's host.
    lookups: Arc<Semaphore>,
}

impl Default for AgentShare {
    fn default() -> Self {
        Self {
            body_memory: BodyMemory::default(),
            requests: AtomicUsize::new(0),
            lookups: Arc::new(Semaphore::new(LOOKUPS_MAX)),
        }
    }
}

/// Counts one request to an agent as in progress until this value is dropped.
pub(crate) struct RequestSlot(Arc<AgentShare>);

impl Drop for RequestSlot {
    fn drop(&mut self) {
        self.0.requests.fetch_sub(1, Ordering::SeqCst);
    }
}

impl AgentShare {
    /// Counts a new request to the agent until the returned slot is dropped. Returns `None` if `max` requests to the
    /// agent are already in progress.
    pub(crate) fn slot(self: &Arc<Self>, max: usize) -> Option<RequestSlot> {
        let more = |requests: usize| (requests < max).then_some(requests + 1);
        self.requests.fetch_update(Ordering::SeqCst, Ordering::SeqCst, more).ok()?;
        Some(RequestSlot(Arc::clone(self)))
    }
}

impl AgentClient {
    /// Creates an HTTP client without open connections.
    ///
    /// # Errors
    /// Returns a message for the operator if the TLS settings cannot be used.
    pub(crate) fn new(agent: Arc<Agent>, share: Arc<AgentShare>) -> Result<Self, String> {
        let transport = match &agent.tls {
            None => Transport::Plain,
            Some(tls) => {
                let (connector, name) =
                    tls_connector(tls).map_err(|error| format!("agent {}: {error}", agent.name))?;
                Transport::Tls(connector, name)
            }
        };
        Ok(Self::with(agent, share, transport))
    }

    /// Creates the HTTP client of an agent whose TLS settings cannot be used. Each attempt to connect returns `error`.
    pub(crate) fn unusable(agent: Arc<Agent>, share: Arc<AgentShare>, error: String) -> Self {
        Self::with(agent, share, Transport::Unusable(error.into()))
    }

    fn with(agent: Arc<Agent>, share: Arc<AgentShare>, transport: Transport) -> Self {
        let (pool, log_throttle) = (ConnectionPool::default(), LogThrottle::default());
        Self { agent, transport, pool, share, log_throttle }
    }

    /// Returns an idle connection to the agent, or opens a new one. The timeouts come from `agent`, because a reload
    /// can change the timeouts without replacing the client.
    ///
    /// # Errors
    /// Returns `agent_unreachable` if no connection can be opened. In this case, no part of a request was sent.
    pub(crate) async fn connection(&self, agent: &Agent, now: Instant) -> Result<Connection, Denial> {
        if let Some(connection) = self.pooled(now) {
            return Ok(connection);
        }
        let (kind, error) = match self.open(agent).await {
            Ok(connection) => return Ok(connection),
            Err(failed) => failed,
        };
        if self.log_throttle.should_log(kind, now) {
            let name = match *agent.name == *ONLY_AGENT {
                true => String::new(),
                false => format!(" {}", agent.name),
            };
            log::warn!("cannot connect to the agent{name} at {}: {error}", agent.address);
        }
        Err(Denial::AgentUnreachable)
    }

    /// Returns an idle connection to the agent, if there is one.
    pub(crate) fn pooled(&self, now: Instant) -> Option<Connection> {
        self.pool.take(&(), now)
    }

    /// Opens a new connection to the agent.
    ///
    /// # Errors
    /// Returns the cause (`failed` or `timeout`) and an explanation. In this case, no part of a request was sent.
    pub(crate) async fn open(&self, agent: &Agent) -> Result<Connection, (&'static str, String)> {
        let generation = self.pool.generation();
        match timeout(agent.connect_timeout, self.connect()).await {
            Ok(Ok(stream)) => Ok(Connection::new(stream, generation)),
            Ok(Err(error)) => Err(("failed", error.to_string())),
            Err(_) => Err(("timeout", "no connection was open within `timeouts.connect`".to_owned())),
        }
    }

    /// Returns the agent of this client.
    pub(crate) fn agent(&self) -> &Arc<Agent> {
        &self.agent
    }

    /// Puts a connection back into the pool of idle connections. The caller must have read the response on the
    /// connection completely.
    pub(crate) fn keep(&self, idle_timeout: Duration, connection: Connection, now: Instant) {
        self.pool.keep((), connection, idle_timeout, now);
    }

    /// Closes all idle connections to the agent. Connections in use are closed after their response.
    pub(crate) fn close(&self) {
        self.pool.invalidate();
    }

    /// Closes connections to the agent that have been idle for longer than the idle timeout.
    pub(crate) fn sweep(&self, now: Instant) {
        self.pool.sweep(now);
    }

    /// Opens a connection to the agent. The stream is unbuffered, because a callback is sent in one write, and
    /// responses are read into their own buffer.
    async fn connect(&self) -> io::Result<Upstream> {
        match &self.agent.address {
            AgentAddress::Tcp(address) => {
                let order = attempt_order(&self.resolve(address).await?, None);
                let (_, stream) = connect_first(&order, |address| self.transport.dial(address)).await?;
                Ok(stream)
            }
            AgentAddress::Unix(path) => Ok(Upstream::Unix(UnixStream::connect(&**path).await?)),
        }
    }
}

impl AgentClient {
    /// Returns the addresses of the agent's host. A DNS lookup occupies a thread until the name server responds, even
    /// after the timeout for connecting. The number of lookups is limited, so that the lookups for one agent do not
    /// occupy all threads.
    async fn resolve(&self, address: &str) -> io::Result<Vec<SocketAddr>> {
        if let Ok(address) = address.parse() {
            return Ok(vec![address]);
        }
        let lookups = Arc::clone(&self.share.lookups);
        let permit = lookups.acquire_owned().await.map_err(io::Error::other)?;
        let address = address.to_owned();
        let lookup = tokio::spawn(async move {
            let found = lookup_host(address).await.map(Iterator::collect);
            drop(permit);
            found
        });
        lookup.await.map_err(io::Error::other)?
    }
}

impl Transport {
    async fn dial(&self, address: SocketAddr) -> io::Result<Upstream> {
        if let Self::Unusable(error) = self {
            return Err(io::Error::other(error.to_string()));
        }
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        match self {
            Self::Tls(connector, name) => {
                let connected = connector.connect(name.clone(), Records::new(stream)).await;
                let failed =
                    |error: io::Error| io::Error::other(format!("the TLS handshake failed: {error}"));
                Ok(Upstream::Tls(Box::new(connected.map_err(failed)?)))
            }
            Self::Plain | Self::Unusable(_) => Ok(Upstream::Tcp(stream)),
        }
    }
}

/// Creates the TLS connector for an agent. Also returns the name that the agent's certificate must have.
fn tls_connector(tls: &AgentTls) -> Result<(TlsConnector, ServerName<'static>), String> {
    crate::tls_crypto::install();
    let roots = match &tls.authorities {
        Some(file) => pem_files::authorities_in(&file.path, file.content.expose())?,
        None => {
            let mut store = RootCertStore::empty();
            load_platform_certs_incl_env_into_store(&mut store).map_err(|error| error.to_string())?;
            store
        }
    };
    let builder = ClientConfig::builder().with_root_certificates(roots);
    let mut config = match &tls.certificate {
        None => builder.with_no_client_auth(),
        Some(files) => {
            let (certificate, key) = (&files.certificate, &files.key);
            let chain = pem_files::certificates_in(&certificate.path, certificate.content.expose())?;
            let private = pem_files::private_key_in(&key.path, key.content.expose())?;
            builder
                .with_client_auth_cert(chain, private)
                .map_err(|error| format!("{} does not go with {}: {error}", key.path, certificate.path))?
        }
    };
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let name = ServerName::try_from(tls.name.to_string())
        .map_err(|_| format!("`{}` is not a name that a certificate can have", tls.name))?;
    Ok((TlsConnector::from(Arc::new(config)), name))
}
