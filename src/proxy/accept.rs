//! From a socket to a connection that speaks HTTP: room for it, who it is from, TLS. What does not come that far is
//! counted, and closed without a word.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use pingora::protocols::{ALPN, Ssl, Stream};
use pingora::server::ShutdownWatch;
use tokio::net::{TcpListener, TcpStream};

use super::clock::instant;
use super::connection;
use super::exchange::Shared;
use super::patience::within;
use super::proxied;
use super::slots::Slot;
use super::tls::{self, Ready, Shown};
use super::wire::Wire;
use crate::config;
use crate::policy::Limits;
use crate::request::ClientCertificate;
use crate::source::Networks;

/// How long nothing is accepted when the system has no socket left.
const NO_SOCKET: Duration = Duration::from_millis(100);

/// How connections begin at a listener; a reload replaces it.
pub(super) struct Entrance {
    pub(super) tls: Option<Ready>,
    proxied_by: Option<Networks>,
}

impl Entrance {
    /// Reads the files of a listener.
    ///
    /// # Errors
    /// What is wrong with them, in words.
    pub(super) fn new(listener: &config::Listener) -> Result<Self, String> {
        let tls = listener.tls.as_ref().map(tls::ready).transpose()?;
        Ok(Self { tls, proxied_by: listener.proxied_by.clone() })
    }
}

/// What is known of a connection.
pub(super) struct Link {
    /// Who is at the other end, or whom a trusted balancer says it passes on.
    pub(super) peer: IpAddr,
    certificate: Option<Shown>,
    /// The balancer that says so.
    passed_on_by: Option<IpAddr>,
    /// How the connection is protected.
    protection: Protection,
    entrance: Arc<ArcSwap<Entrance>>,
    /// Its room, for as long as it lasts.
    _slot: Slot,
}

/// How a connection is protected.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Protection {
    None,
    Tls1_2,
    Tls1_3,
}

impl Protection {
    /// Returns that of a stream whose handshake, if it has one, is over.
    fn of(stream: &impl Ssl) -> Self {
        match stream.get_ssl_digest() {
            None => Self::None,
            // rustls writes `TLSv1_3`, other libraries `TLSv1.3`.
            Some(digest) if digest.version.ends_with('3') => Self::Tls1_3,
            Some(_) => Self::Tls1_2,
        }
    }
}

impl Link {
    /// Whether the connection could still be made as it was: its balancer is trusted, its client is believed where
    /// nobody gets in without, and the listener accepts its version of TLS.
    pub(super) fn holds(&self) -> bool {
        let entrance = self.entrance.load();
        let protected = match (self.protection, &entrance.tls) {
            (Protection::None, None) | (Protection::Tls1_3, Some(_)) => true,
            (Protection::Tls1_2, Some(tls)) => tls.has_1_2,
            (Protection::None, Some(_)) | (Protection::Tls1_2 | Protection::Tls1_3, None) => false,
        };
        let trusted = match (self.passed_on_by, &entrance.proxied_by) {
            (Some(balancer), Some(trusted)) => trusted.contains(balancer),
            (None, None) => true,
            _ => false,
        };
        let required = entrance.tls.as_ref().and_then(|tls| tls.clients.as_ref()).is_some_and(|c| c.required);
        protected && trusted && (!required || self.certificate().is_some())
    }

    /// What the caller proved to be, as long as those who vouch for it are believed.
    pub(super) fn certificate(&self) -> Option<&ClientCertificate> {
        let shown = self.certificate.as_ref()?;
        let entrance = self.entrance.load();
        let clients = entrance.tls.as_ref().and_then(|tls| tls.clients.as_ref())?;
        clients.believe(shown).then_some(&shown.certificate)
    }
}

/// Why a connection does not come as far as a request.
#[derive(Clone, Copy, Debug)]
enum Turned {
    AddressFull,
    Full,
    ProxyHeader,
    ProxyUntrusted,
    Slow,
    Tls,
}

impl Turned {
    const fn name(self) -> &'static str {
        match self {
            Self::AddressFull => "address_full",
            Self::Full => "full",
            Self::ProxyHeader => "proxy_header",
            Self::ProxyUntrusted => "proxy_untrusted",
            Self::Slow => "slow",
            Self::Tls => "tls",
        }
    }
}

/// Accepts until it is told to stop.
pub(super) async fn run(
    shared: Arc<Shared>,
    entrance: Arc<ArcSwap<Entrance>>,
    listener: TcpListener,
    mut stopping: ShutdownWatch,
) {
    while let Some((stream, peer)) = next(&listener, &mut stopping).await {
        let (shared, entrance, stopping) = (Arc::clone(&shared), Arc::clone(&entrance), stopping.clone());
        tokio::spawn(welcome(shared, entrance, stream, peer, stopping));
    }
}

/// The next connection; `None`: it is told to stop.
pub(super) async fn next(
    listener: &TcpListener,
    stopping: &mut ShutdownWatch,
) -> Option<(TcpStream, SocketAddr)> {
    let mut starved = false;
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stopping.changed() => return None,
        };
        match accepted {
            Ok(connection) => return Some(connection),
            // A caller that is gone before it was let in is nobody's fault.
            Err(error) if is_of_the_caller(&error) => {}
            Err(error) => {
                if !std::mem::replace(&mut starved, true) {
                    log::error!(
                        "no connection can be accepted: {error}; raise the limit of open files, or lower `limits.connections_max`"
                    );
                }
                tokio::time::sleep(NO_SOCKET).await;
            }
        }
    }
}

fn is_of_the_caller(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{ConnectionAborted, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionReset)
}

async fn welcome(
    shared: Arc<Shared>,
    entrance: Arc<ArcSwap<Entrance>>,
    stream: TcpStream,
    peer: SocketAddr,
    stopping: ShutdownWatch,
) {
    let limits = shared.policy.load().limits;
    let turned = match shared.slots.take(limits.connections_max) {
        None => Turned::Full,
        Some(slot) => {
            let begun = Box::pin(begin(&shared, entrance, stream, peer, slot, &limits));
            match within(limits.head_deadline, begun).await {
                Some(Ok((stream, link))) => return connection::serve(shared, stream, link, stopping).await,
                Some(Err(turned)) => turned,
                None => Turned::Slow,
            }
        }
    };
    shared.metrics.connection_refused(turned.name());
    if shared.refusals.is_first(turned.name(), instant()) {
        log::warn!("a connection from {peer} was closed: {}; others like it are only counted", turned.name());
    }
}

/// Finds out whom a connection is from, and shakes hands.
async fn begin(
    shared: &Shared,
    entrance: Arc<ArcSwap<Entrance>>,
    stream: TcpStream,
    peer: SocketAddr,
    mut slot: Slot,
    limits: &Limits,
) -> Result<(Stream, Link), Turned> {
    let rules = entrance.load_full();
    // Small answers are not held back until the caller has acknowledged the one before.
    let _ = stream.set_nodelay(true);
    let mut wire = Wire::new(stream, peer);
    let mut client = peer;
    if let Some(trusted) = &rules.proxied_by {
        if !trusted.contains(peer.ip()) {
            return Err(Turned::ProxyUntrusted);
        }
        client = proxied::read(&mut wire, peer).await.ok_or(Turned::ProxyHeader)?;
    }
    let address = client.ip();
    if !shared.policy.load().ingress.trusts(address)
        && !slot.count_for(address, limits.connections_per_address_max)
    {
        return Err(Turned::AddressFull);
    }
    let passed_on_by = rules.proxied_by.as_ref().map(|_| peer.ip());
    let link = |certificate, protection| Link {
        peer: address,
        certificate,
        passed_on_by,
        protection,
        entrance,
        _slot: slot,
    };
    let Some(tls) = &rules.tls else { return Ok((Box::new(wire), link(None, Protection::None))) };
    let stream = tls.acceptor.tls_handshake(wire).await.map_err(|error| {
        log::debug!("TLS with {peer}: {error}");
        Turned::Tls
    })?;
    let chain = stream.get_ssl().and_then(|ssl| ssl.peer_cert_chain_der());
    let shown = chain.zip(tls.clients.as_ref()).and_then(|(chain, clients)| Shown::new(chain, clients));
    let protection = Protection::of(&stream);
    Ok((Box::new(stream), link(shown, protection)))
}

/// Whether HTTP/2 was agreed on in the handshake.
pub(super) fn agreed_on_http2(stream: &Stream) -> bool {
    matches!(stream.selected_alpn_proto(), Some(ALPN::H2))
}
