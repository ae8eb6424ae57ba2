//! The HTTP client for providers. Resolves the host of a URL and connects to exactly the address that the guard
//! checked, directly or through the outbound proxy. Verifies TLS with the trusted roots, pools idle connections, and
//! does not follow redirects.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use pingora::tls::{
    ClientConfig, RootCertStore, ServerName, TlsConnector, load_platform_certs_incl_env_into_store,
};
use sha2::{Digest, Sha256};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::outbound::{Progress, TlsFailure, Unreachable, Way, open};
use super::own_addresses::OwnAddresses;
use super::resolver::Resolver;
use crate::agent::Agent;
use crate::clock::instant;
use crate::denial::Denial;
use crate::guard::{Guard, Refused, Scheme, Url};
use crate::http::client::{
    Connection, ConnectionPool, Message, Records, ResponseFault, StreamFault, Upload, Upstream,
    UpstreamResponse, attempt_order, connect_first, exchange, exchange_streamed,
};
use crate::outbound::OutboundProxy;
use crate::proxy::pem_files;

/// The maximum idle time of a pooled connection to a provider.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// The maximum number of hosts for which the last connected address is stored.
const HOSTS_MAX: usize = 256;

/// The HTTP client for providers, with its connection pool. A reload that changes the trusted roots or the outbound
/// proxy creates a new client with an empty pool.
pub(crate) struct Providers {
    tls: Option<TrustedRoots>,
    /// The outbound proxy. `None` if every connection is direct.
    proxy: Option<OutboundProxy>,
    pool: ConnectionPool<Target>,
    resolver: Resolver,
    own_addresses: OwnAddresses,
    /// For each host with several addresses, the address of the last successful connection. The next attempt begins
    /// with this address.
    connected: Mutex<HashMap<Box<str>, SocketAddr>>,
}

/// A TLS connector, and the digest of the authorities that the connector trusts.
struct TrustedRoots {
    connector: TlsConnector,
    /// The SHA-256 of the trusted authorities.
    digest: [u8; 32],
}

/// The pool key of a connection to a provider: how the connection reaches the provider, and the host name for which the
/// certificate was verified.
#[derive(Clone, Eq, Hash, PartialEq)]
struct Target {
    way: Way,
    /// The host name for which the certificate was verified. `None` without TLS.
    name: Option<Box<str>>,
}

/// The checks for every address of a host that the configuration does not name. The host comes from a callback or from
/// a request to the forward proxy.
#[derive(Clone, Copy)]
pub(crate) struct Guarded<'g> {
    pub(crate) guard: &'g Guard,
    /// The agents. No address of the host may be the address of an agent.
    pub(crate) agents: &'g [Arc<Agent>],
}

/// The timeouts for a request to a provider.
#[derive(Clone, Copy)]
pub(crate) struct Timeouts {
    /// Timeout for connecting to the provider, including name resolution and the TLS handshake.
    pub(crate) connect: Duration,
    /// Timeout for the head of the provider's response, and for each read of the response body.
    pub(crate) response: Duration,
}

/// The reason why a request to a provider has no valid response.
#[derive(Clone, Debug)]
pub(crate) enum SendError {
    /// The agent did not send a valid body. The provider may have received a part of the request.
    Body(Denial),
    /// No connection to the provider could be opened.
    Unreachable(Unreachable),
    /// The provider sent no response or an invalid response.
    ResponseFault(ResponseFault),
    /// The guard denied an address of the provider.
    Guarded(Refused),
}

/// The response of a provider, and the pool to which the connection can be returned.
pub(crate) struct ProviderResponse {
    pub(crate) response: UpstreamResponse,
    pub(crate) origin: Origin,
}

/// The pool to which a provider's connection can be returned, and the key of the connection in the pool.
pub(crate) struct Origin {
    target: Target,
    providers: Arc<Providers>,
}

impl Origin {
    /// Puts a connection back into the pool of idle connections. The caller must have read the response on the
    /// connection completely.
    pub(crate) fn reuse(&self, connection: Connection) {
        self.providers.pool.keep(self.target.clone(), connection, IDLE_TIMEOUT, instant());
    }
}

impl Providers {
    /// Creates a client without trusted roots, which cannot connect to any provider.
    pub(crate) fn none() -> Self {
        Self {
            tls: None,
            proxy: None,
            pool: ConnectionPool::default(),
            resolver: Resolver::default(),
            own_addresses: OwnAddresses::default(),
            connected: Mutex::default(),
        }
    }

    /// Sets the bound addresses of Callgate's own listeners.
    pub(crate) fn with_own_addresses(self, own_addresses: OwnAddresses) -> Self {
        Self { own_addresses, ..self }
    }

    /// Reports whether a connection to `address` could reach a listener of Callgate.
    pub(super) fn is_listener(&self, address: SocketAddr) -> bool {
        self.own_addresses.contains(address, &[])
    }

    /// Reports whether a listener of Callgate has this port.
    pub(super) fn listens_on(&self, port: u16) -> bool {
        self.own_addresses.has_port(port)
    }

    /// Sets the outbound proxy.
    pub(crate) fn with_proxy(self, proxy: Option<OutboundProxy>) -> Self {
        Self { proxy, ..self }
    }

    /// Reports whether two clients trust the same authorities and use the same outbound proxy.
    pub(crate) fn has_same_settings(&self, others: &Self) -> bool {
        let digest = |providers: &Self| providers.tls.as_ref().map(|roots| roots.digest);
        let same_proxy = match (&self.proxy, &others.proxy) {
            (None, None) => true,
            (Some(ours), Some(theirs)) => ours.is_same(theirs),
            _ => false,
        };
        digest(self) == digest(others) && same_proxy
    }

    /// Creates a client that trusts the authorities in the PEM file `roots`, or the authorities of the platform if
    /// `roots` is `None`.
    ///
    /// # Errors
    /// Returns a message for the operator if the authorities cannot be read.
    pub(crate) fn new(roots: Option<&str>) -> Result<Self, String> {
        crate::tls_crypto::install();
        let store = match roots {
            Some(path) => pem_files::authorities(path),
            None => {
                let mut store = RootCertStore::empty();
                let loaded = load_platform_certs_incl_env_into_store(&mut store);
                loaded.map(|()| store).map_err(|error| error.to_string())
            }
        };
        let store = store.map_err(|error| format!("the trusted roots cannot be used: {error}"))?;
        if store.is_empty() {
            log::warn!(
                "no trusted roots, so that no provider can be reached with TLS; install ca-certificates, or set `trusted_roots`"
            );
        }
        let digest = digest(&store);
        let mut config = ClientConfig::builder().with_root_certificates(store).with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let roots = TrustedRoots { connector: TlsConnector::from(Arc::new(config)), digest };
        Ok(Self { tls: Some(roots), ..Self::none() })
    }

    /// Sends a request to a provider and reads the head of the response. With `guarded`, every address of the host must
    /// pass the guard.
    ///
    /// # Errors
    /// Returns a [`SendError`] if no connection was opened or no valid response arrived.
    pub(crate) async fn send(
        self: Arc<Self>,
        url: &Url,
        guarded: Option<Guarded<'_>>,
        message: Message,
        timeouts: Timeouts,
    ) -> Result<ProviderResponse, SendError> {
        let (connection, target) = self.connect_in_time(url, guarded, timeouts.connect).await?;
        let response =
            exchange(connection, message, timeouts.response).await.map_err(SendError::ResponseFault)?;
        Ok(ProviderResponse { response, origin: Origin { target, providers: self } })
    }

    /// Sends a request to a provider while the body arrives from the agent, and reads the head of the response. Returns
    /// `None` if the agent closed its connection.
    pub(crate) async fn send_streamed(
        self: Arc<Self>,
        url: &Url,
        guarded: Option<Guarded<'_>>,
        head: Vec<u8>,
        upload: &mut Upload<'_>,
        expects_body: bool,
        timeouts: Timeouts,
    ) -> Result<Option<ProviderResponse>, SendError> {
        let (connection, target) = self.connect_in_time(url, guarded, timeouts.connect).await?;
        let response = exchange_streamed(connection, head, upload, expects_body, timeouts.response).await;
        let response = response.map_err(|fault| match fault {
            StreamFault::Body(denial) => SendError::Body(denial),
            StreamFault::Response(fault) => SendError::ResponseFault(fault),
        })?;
        let origin = Origin { target, providers: self };
        Ok(response.map(|response| ProviderResponse { response, origin }))
    }

    async fn connect_in_time(
        &self,
        url: &Url,
        guarded: Option<Guarded<'_>>,
        deadline: Duration,
    ) -> Result<(Connection, Target), SendError> {
        let progress = Progress::default();
        let connected = timeout(deadline, self.connect(url, guarded, &progress)).await;
        connected.unwrap_or_else(|_| Err(SendError::Unreachable(progress.timed_out())))
    }

    /// Opens a TCP connection to the host and the port of `url` for a tunnel. Resolves the host name once, and checks
    /// every address before connecting.
    pub(super) async fn open_tunnel(
        &self,
        url: &Url,
        guarded: Guarded<'_>,
        deadline: Duration,
    ) -> Result<TcpStream, SendError> {
        let (progress, proxy) = (Progress::default(), self.proxy.as_ref());
        let opened = timeout(deadline, async {
            let addresses = self.resolve(url, Some(guarded)).await?;
            let order = attempt_order(&addresses, None);
            let opened = connect_first(&order, |address| {
                let (way, progress) = (Way::to_address(proxy, url, address), &progress);
                async move { open(&way, proxy, &self.resolver, progress).await }
            });
            let (_, stream) = opened.await.map_err(|error| SendError::Unreachable(error.into()))?;
            Ok(stream)
        });
        opened.await.unwrap_or_else(|_| Err(SendError::Unreachable(progress.timed_out())))
    }

    /// Returns the addresses of the host of `url`. With `guarded`, every address must pass the guard.
    async fn resolve(&self, url: &Url, guarded: Option<Guarded<'_>>) -> Result<Vec<SocketAddr>, SendError> {
        let resolved = self.resolver.resolve(url).await;
        let unresolved =
            |error: std::io::Error| SendError::Unreachable(Unreachable::Name(error.to_string().into()));
        let addresses = resolved.map_err(unresolved)?;
        if let Some(guarded) = guarded {
            for address in &addresses {
                guarded.guard.judge(url, address.ip()).map_err(SendError::Guarded)?;
                if self.own_addresses.contains(*address, guarded.agents) {
                    return Err(SendError::Guarded(Refused::Own));
                }
            }
        }
        Ok(addresses)
    }

    async fn connect(
        &self,
        url: &Url,
        guarded: Option<Guarded<'_>>,
        progress: &Progress,
    ) -> Result<(Connection, Target), SendError> {
        let roots = self.tls.as_ref().ok_or(SendError::Unreachable(Unreachable::NoRoots))?;
        let name = (url.scheme() == Scheme::Https).then(|| url.host());
        let proxy = self.proxy.as_ref();
        // With a guard, Callgate resolves the host name itself, because the proxy could resolve the name to an address
        // that was not checked.
        if let (None, Some(way)) = (guarded, Way::by_name(proxy, url)) {
            let target = Target { way, name: name.map(Box::from) };
            if let Some(connection) = self.pool.take(&target, instant()) {
                return Ok((connection, target));
            }
            let generation = self.pool.generation();
            let dialled = self.dial(roots, &target, progress).await;
            let stream = dialled.map_err(|error| SendError::Unreachable(error.into()))?;
            return Ok((Connection::new(stream, generation), target));
        }
        let addresses = self.resolve(url, guarded).await?;
        let key = url.authority();
        let preferred = self.connected.lock().get(&*key).copied();
        let order = attempt_order(&addresses, preferred);
        // The pool is keyed by address, so that a reused connection always leads to an address that was checked above.
        let target =
            |address| Target { way: Way::to_address(proxy, url, address), name: name.map(Box::from) };
        for target in order.iter().map(|address| target(*address)) {
            if let Some(connection) = self.pool.take(&target, instant()) {
                return Ok((connection, target));
            }
        }
        let generation = self.pool.generation();
        let dialled = connect_first(&order, |address| {
            let target = target(address);
            async move { self.dial(roots, &target, progress).await }
        });
        let (address, stream) = dialled.await.map_err(|error| SendError::Unreachable(error.into()))?;
        if addresses.len() > 1 {
            self.remember(&key, address);
        }
        Ok((Connection::new(stream, generation), target(address)))
    }

    /// Stores which address of a host accepted a connection.
    fn remember(&self, host: &str, address: SocketAddr) {
        let mut connected = self.connected.lock();
        if connected.len() >= HOSTS_MAX && !connected.contains_key(host) {
            connected.clear();
        }
        connected.insert(host.into(), address);
    }

    /// Closes pooled connections that have been idle for longer than the idle timeout.
    pub(crate) fn sweep(&self) {
        self.pool.sweep(instant());
    }

    /// Connects to a provider. If `target` has a host name, performs a TLS handshake and verifies the certificate for
    /// this name.
    async fn dial(
        &self,
        roots: &TrustedRoots,
        target: &Target,
        progress: &Progress,
    ) -> std::io::Result<Upstream> {
        // An invalid host name is an error. Falling back to plain TCP would omit the verification.
        let name = target.name.as_ref().map(|name| ServerName::try_from(name.to_string())).transpose();
        let name = name.map_err(std::io::Error::other)?;
        let stream = open(&target.way, self.proxy.as_ref(), &self.resolver, progress).await?;
        match name {
            None => Ok(Upstream::Tcp(stream)),
            Some(name) => {
                let connected = roots.connector.connect(name, Records::new(stream)).await;
                let stream = connected.map_err(|error| std::io::Error::other(TlsFailure(error)))?;
                Ok(Upstream::Tls(Box::new(stream)))
            }
        }
    }
}

/// Returns the SHA-256 of the trusted authorities, independent of their order.
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

#[cfg(test)]
#[path = "provider_client_tests.rs"]
mod tests;
