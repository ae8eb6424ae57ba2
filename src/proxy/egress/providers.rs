//! Connections to providers: resolved by us, dialled at the very address that was judged, with TLS by the platform's
//! roots, kept between requests. Redirects are not followed, since nobody here follows them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use pingora::tls::{
    ClientConfig, RootCertStore, ServerName, TlsConnector, install_default_crypto_provider,
    load_ca_file_into_store, load_platform_certs_incl_env_into_store,
};
use sha2::{Digest, Sha256};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;

use crate::clock::instant;
use crate::guard::{Guard, Refused, Scheme, Url, classify};
use crate::http::client::{
    Connection, ConnectionPool, Message, Records, ResponseFault, Upstream, UpstreamResponse, exchange,
};
use crate::policy::AgentAddress;

/// How long an idle connection is kept.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// Most addresses of one name that are tried.
const ADDRESSES_MAX: usize = 4;

/// The way to providers, and the connections that were made by it. Other trusted roots are another way with connections
/// of its own.
pub(crate) struct Providers {
    tls: Option<Trust>,
    idle: ConnectionPool<Target>,
    /// The addresses that are listened on here.
    own: Vec<SocketAddr>,
}

/// Who is believed.
struct Trust {
    connector: TlsConnector,
    /// What tells these authorities from others.
    digest: [u8; 32],
}

/// What a connection leads to.
#[derive(Clone, Eq, Hash, PartialEq)]
struct Target {
    address: SocketAddr,
    /// The name that its certificate was verified for; `None` without TLS.
    name: Option<Box<str>>,
}

/// What judges the addresses of a host that came from outside.
#[derive(Clone, Copy)]
pub(crate) struct Guarded<'g> {
    pub(crate) guard: &'g Guard,
    /// Whose address is nobody else's to name.
    pub(crate) agent: &'g AgentAddress,
}

/// How long a provider may take.
#[derive(Clone, Copy)]
pub(crate) struct Timeouts {
    /// For a connection, name look-up and TLS included.
    pub(crate) connect: Duration,
    /// For the head of the answer, and for each further piece of it.
    pub(crate) response: Duration,
}

/// Why a provider gives no answer.
#[derive(Clone, Copy, Debug)]
pub(crate) enum SendError {
    /// It could not be had, or did not answer.
    ResponseFault(ResponseFault),
    /// Its address may not be dialled.
    Guarded(Refused),
}

/// An answer of a provider.
pub(crate) struct ProviderResponse {
    pub(crate) answer: UpstreamResponse,
    target: Target,
    /// Whose connection it came on.
    providers: Arc<Providers>,
}

impl ProviderResponse {
    /// Gives the connection of an answer that was read to its end back to where it was made, if it can be used again.
    pub(crate) fn finish(self) {
        if let Some(connection) = self.answer.into_connection() {
            self.providers.idle.keep(self.target, connection, IDLE_TIMEOUT, instant());
        }
    }
}

impl Providers {
    /// Nothing goes out.
    pub(crate) fn none() -> Self {
        Self { tls: None, idle: ConnectionPool::default(), own: Vec::new() }
    }

    /// The same, where these addresses are listened on.
    pub(crate) fn with_own_addresses(self, own: Vec<SocketAddr>) -> Self {
        Self { own, ..self }
    }

    /// Whether these and others believe the same authorities.
    pub(crate) fn trust_the_same_as(&self, others: &Self) -> bool {
        let digest = |providers: &Self| providers.tls.as_ref().map(|trust| trust.digest);
        digest(self) == digest(others)
    }

    /// A way out that believes the authorities in this file; `None`: the platform's.
    ///
    /// # Errors
    /// What is wrong with them, in words.
    pub(crate) fn new(roots: Option<&str>) -> Result<Self, String> {
        install_default_crypto_provider();
        let mut store = RootCertStore::empty();
        let loaded = match roots {
            Some(path) => load_ca_file_into_store(path, &mut store),
            None => load_platform_certs_incl_env_into_store(&mut store),
        };
        loaded.map_err(|error| format!("the trusted roots cannot be used: {error}"))?;
        if store.is_empty() {
            log::warn!(
                "no trusted roots: no provider can be reached with TLS; install ca-certificates, or name `trusted_roots`"
            );
        }
        let digest = digest(&store);
        let mut config = ClientConfig::builder().with_root_certificates(store).with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let trust = Trust { connector: TlsConnector::from(Arc::new(config)), digest };
        Ok(Self { tls: Some(trust), ..Self::none() })
    }

    /// Sends a message and reads the head of the answer. With a guard, every address of the host must be one that may
    /// be dialled.
    pub(crate) async fn send(
        self: Arc<Self>,
        url: &Url,
        guarded: Option<Guarded<'_>>,
        message: Message,
        patience: Timeouts,
    ) -> Result<ProviderResponse, SendError> {
        let connected = timeout(patience.connect, self.connect(url, guarded)).await;
        let (connection, target) =
            connected.unwrap_or(Err(SendError::ResponseFault(ResponseFault::Unreachable)))?;
        let answer =
            exchange(connection, message, patience.response).await.map_err(SendError::ResponseFault)?;
        Ok(ProviderResponse { answer, target, providers: self })
    }

    async fn connect(
        &self,
        url: &Url,
        guarded: Option<Guarded<'_>>,
    ) -> Result<(Connection, Target), SendError> {
        let unreachable = SendError::ResponseFault(ResponseFault::Unreachable);
        let trust = self.tls.as_ref().ok_or(unreachable)?;
        let addresses = resolve(url).await.map_err(|_| unreachable)?;
        if let Some(guarded) = guarded {
            for address in &addresses {
                guarded.guard.judge(url, address.ip()).map_err(SendError::Guarded)?;
                if self.own.iter().any(|own| is_same(*own, *address)) || is_agent(guarded.agent, *address) {
                    return Err(SendError::Guarded(Refused::Own));
                }
            }
        }
        let name = (url.scheme() == Scheme::Https).then(|| url.host());
        for address in addresses.into_iter().take(ADDRESSES_MAX) {
            // An address, not a name: nothing is resolved a second time.
            let target = Target { address, name: name.map(Box::from) };
            if let Some(connection) = self.idle.take(&target, instant()) {
                return Ok((connection, target));
            }
            let generation = self.idle.generation();
            if let Ok(stream) = trust.dial(address, name).await {
                return Ok((Connection::new(stream, generation), target));
            }
        }
        Err(unreachable)
    }

    /// Closes the idle connections whose time is over.
    pub(crate) fn sweep(&self) {
        self.idle.sweep(instant());
    }
}

impl Trust {
    /// Connects to an address, with TLS if its certificate is to be valid for a name.
    async fn dial(&self, address: SocketAddr, name: Option<&str>) -> std::io::Result<Upstream> {
        // A name that no certificate can have is not connected to without one.
        let name = name.map(|name| ServerName::try_from(name.to_owned())).transpose();
        let name = name.map_err(std::io::Error::other)?;
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        match name {
            None => Ok(Upstream::Tcp(stream)),
            Some(name) => {
                let stream = self.connector.connect(name, Records::new(stream)).await?;
                Ok(Upstream::Tls(Box::new(stream)))
            }
        }
    }
}

/// The SHA-256 of the authorities, in whatever order they were read.
fn digest(store: &RootCertStore) -> [u8; 32] {
    let mut roots: Vec<[u8; 32]> = store
        .roots
        .iter()
        .map(|root| {
            let constraints = root.name_constraints.as_ref().map(|der| der.as_ref()).unwrap_or_default();
            let parts = [root.subject.as_ref(), root.subject_public_key_info.as_ref(), constraints];
            let mut hash = Sha256::new();
            for part in parts {
                hash.update(part.len().to_be_bytes());
                hash.update(part);
            }
            hash.finalize().into()
        })
        .collect();
    roots.sort_unstable();
    roots.dedup();
    Sha256::digest(roots.concat()).into()
}

/// Whether `address` leads to what listens on `own`.
fn is_same(own: SocketAddr, address: SocketAddr) -> bool {
    let (own_ip, ip) = (own.ip().to_canonical(), address.ip().to_canonical());
    let everywhere = own_ip.is_unspecified() && classify(ip).is_some();
    let host = own_ip == ip || (own_ip.is_loopback() && ip.is_loopback()) || everywhere;
    host && own.port() == address.port()
}

fn is_agent(agent: &AgentAddress, address: SocketAddr) -> bool {
    let AgentAddress::Tcp(text) = agent else { return false };
    match text.parse() {
        Ok(own) => is_same(own, address),
        // A name: whatever is not public and has its port may be it.
        Err(_) => text.rsplit_once(':').is_some_and(|(_, port)| {
            port.parse() == Ok(address.port()) && classify(address.ip().to_canonical()).is_some()
        }),
    }
}

async fn resolve(url: &Url) -> std::io::Result<Vec<SocketAddr>> {
    if let Some(address) = url.address() {
        return Ok(vec![SocketAddr::new(address, url.port())]);
    }
    let found: Vec<_> = lookup_host((url.host(), url.port())).await?.collect();
    if found.is_empty() { Err(std::io::Error::other("the name has no address")) } else { Ok(found) }
}
