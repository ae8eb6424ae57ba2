//! Connections to providers: resolved by us, dialled at the very address that was judged, with TLS by the platform's
//! roots, kept between requests. Redirects are not followed, since nobody here follows them.

use std::net::SocketAddr;
use std::time::Duration;

use pingora::connectors::{ConnectorOptions, TransportConnector};
use pingora::protocols::Stream;
use pingora::tls::{
    RootCertStore, install_default_crypto_provider, load_ca_file_into_store,
    load_platform_certs_incl_env_into_store,
};
use pingora::upstreams::peer::{HttpPeer, Peer};
use tokio::net::lookup_host;
use tokio::time::timeout;

use super::http1_client::{Answer, Fault, Message, exchange};
use crate::guard::{Guard, Refused, Scheme, Url, classify};
use crate::policy::AgentAddress;

/// Most idle connections kept.
const IDLE_MAX: usize = 128;
/// How long an idle connection is kept.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// Most addresses of one name that are tried.
const ADDRESSES_MAX: usize = 4;

/// The way to providers.
pub(super) struct Providers {
    connector: Option<TransportConnector>,
    /// The addresses that are listened on here.
    own: Vec<SocketAddr>,
}

/// What judges the addresses of a host that came from outside.
#[derive(Clone, Copy)]
pub(super) struct Guarded<'g> {
    pub(super) guard: &'g Guard,
    /// Whose address is nobody else's to name.
    pub(super) agent: &'g AgentAddress,
}

/// How long a provider may take.
#[derive(Clone, Copy)]
pub(super) struct Patience {
    /// For a connection, name look-up and TLS included.
    pub(super) connect: Duration,
    /// For the head of the answer, and for each further piece of it.
    pub(super) response: Duration,
}

/// Why a provider gives no answer.
#[derive(Clone, Copy, Debug)]
pub(super) enum Failed {
    /// It could not be had, or did not answer.
    Fault(Fault),
    /// Its address may not be dialled.
    Guarded(Refused),
}

/// An answer of a provider.
pub(super) struct Answered {
    pub(super) answer: Answer,
    /// By which its connection is known.
    key: u64,
}

impl Providers {
    /// Nothing goes out.
    pub(super) fn none() -> Self {
        Self { connector: None, own: Vec::new() }
    }

    /// Whether anything can go out.
    pub(super) fn are_reachable(&self) -> bool {
        self.connector.is_some()
    }

    /// The same, where these addresses are listened on.
    pub(super) fn beside(self, own: Vec<SocketAddr>) -> Self {
        Self { own, ..self }
    }

    /// A way out that believes the authorities in this file; `None`: the platform's.
    ///
    /// # Errors
    /// What is wrong with them, in words: pingora would end the process.
    pub(super) fn new(roots: Option<&str>) -> Result<Self, String> {
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
        let mut options = ConnectorOptions::new(IDLE_MAX);
        options.ca_file = roots.map(str::to_owned);
        Ok(Self { connector: Some(TransportConnector::new(Some(options))), own: Vec::new() })
    }

    /// Sends a message and reads the head of the answer. With a guard, every address of the host must be one that may
    /// be dialled.
    pub(super) async fn send(
        &self,
        url: &Url,
        guarded: Option<Guarded<'_>>,
        message: Message,
        patience: Patience,
    ) -> Result<Answered, Failed> {
        let connected = timeout(patience.connect, self.connect(url, guarded)).await;
        let (stream, key) = connected.unwrap_or(Err(Failed::Fault(Fault::Unreachable)))?;
        let answer = exchange(stream.into(), message, patience.response).await.map_err(Failed::Fault)?;
        Ok(Answered { answer, key })
    }

    async fn connect(&self, url: &Url, guarded: Option<Guarded<'_>>) -> Result<(Stream, u64), Failed> {
        let unreachable = Failed::Fault(Fault::Unreachable);
        let connector = self.connector.as_ref().ok_or(unreachable)?;
        let addresses = resolve(url).await.map_err(|_| unreachable)?;
        if let Some(guarded) = guarded {
            for address in &addresses {
                guarded.guard.judge(url, address.ip()).map_err(Failed::Guarded)?;
                if self.own.iter().any(|own| is_same(*own, *address)) || is_agent(guarded.agent, *address) {
                    return Err(Failed::Guarded(Refused::Own));
                }
            }
        }
        for address in addresses.into_iter().take(ADDRESSES_MAX) {
            // An address, not a name: nothing is resolved a second time.
            let peer = HttpPeer::new(address, url.scheme() == Scheme::Https, url.host().to_owned());
            if let Ok((stream, _)) = connector.get_stream(&peer).await {
                return Ok((stream, peer.reuse_hash()));
            }
        }
        Err(unreachable)
    }

    /// Gives the connection of an answer that was read to its end back, if it can be used again.
    pub(super) fn finish(&self, answered: Answered) {
        if let (Some(connector), Some(connection)) = (&self.connector, answered.answer.into_connection()) {
            connector.release_stream(connection.stream, answered.key, Some(IDLE_TIMEOUT));
        }
    }
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
