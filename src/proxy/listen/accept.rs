//! Accepts ingress connections: checks the limits, reads the PROXY protocol header, and performs the TLS handshake. A
//! connection that fails before its first request is counted and closed without a response.
//!
//! When a listener stops, the connections that the kernel has already accepted are still served.

use std::io::ErrorKind::Interrupted;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use pingora::protocols::{Ssl, Stream};
use pingora::server::ShutdownWatch;
use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};

use super::conn_info::{ConnInfo, ListenerConfig, NewConnection, TlsVersion};
use super::connection_limits::{ConnectionLimits, ConnectionSlot};
use super::log_throttle::LogThrottle;
use super::proxy_protocol;
use super::tls::VerifiedCertificate;
use crate::clock::instant;
use crate::http::{BufferedIo, with_timeout};
use crate::observe::Metrics;
use crate::policy::{Limits, Policy};
use crate::proxy::runtime::Drain;

/// The pause before the next attempt to accept a connection, if the process has no free file descriptor.
const RETRY_DELAY: Duration = Duration::from_millis(100);

/// The reason why a connection was closed before its first request.
#[derive(Clone, Copy, Debug)]
enum AcceptError {
    AddressFull,
    Full,
    ProxyHeader,
    ProxyUntrusted,
    Slow,
    Tls,
}

impl AcceptError {
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

/// The components that are needed to accept connections.
pub(crate) struct Admission {
    pub(crate) policy: Arc<ArcSwap<Policy>>,
    pub(crate) limits: Arc<ConnectionLimits>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) log_throttle: Arc<LogThrottle>,
    /// Counts the accepted connections on which no request has begun yet.
    pub(crate) new_connections: Drain,
}

impl Admission {
    /// Returns the same components for another listener, with separate connection limits. Connections to one listener
    /// then do not use up the limits of the other listener.
    pub(crate) fn apart(&self) -> Self {
        Self {
            policy: Arc::clone(&self.policy),
            limits: Arc::default(),
            metrics: Arc::clone(&self.metrics),
            log_throttle: Arc::clone(&self.log_throttle),
            new_connections: Drain::default(),
        }
    }
}

/// Accepts connections until the listener stops. Passes each connection to `serve` as soon as the connection is ready
/// for HTTP.
pub(crate) async fn run<S, F>(
    admission: Arc<Admission>,
    config: Arc<ArcSwap<ListenerConfig>>,
    listener: TcpListener,
    mut stopping: ShutdownWatch,
    serve: S,
) where
    S: Fn(Stream, ConnInfo) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = ()> + Send,
{
    while let Some((stream, peer)) = next(&listener, &mut stopping).await {
        let (admission, config, serve) = (Arc::clone(&admission), Arc::clone(&config), serve.clone());
        let new = NewConnection::begin(&admission.new_connections);
        tokio::spawn(async move {
            if let Some((stream, info)) = admit(&admission, config, stream, peer, new).await {
                serve(stream, info).await;
            }
        });
    }
}

/// Returns the next connection of a listener. After `stopping` has become true, returns the pending connections and
/// then `None`.
pub(crate) async fn next(
    listener: &TcpListener,
    stopping: &mut ShutdownWatch,
) -> Option<(TcpStream, SocketAddr)> {
    let mut has_logged = false;
    loop {
        if *stopping.borrow() {
            return next_pending(listener);
        }
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            changed = stopping.changed() => {
                if changed.is_err() {
                    return None;
                }
                continue;
            }
        };
        match accepted {
            Ok(connection) => return Some(connection),
            // The caller closed the connection before Callgate accepted it, which is not an error of Callgate.
            Err(error) if is_caller_error(&error) => {}
            Err(error) => {
                if !std::mem::replace(&mut has_logged, true) {
                    log::error!(
                        "no connection can be accepted: {error}; raise the limit of open files, or lower `limits.connections_max`"
                    );
                }
                tokio::time::sleep(RETRY_DELAY).await;
            }
        }
    }
}

/// Returns a connection that the kernel has already accepted. Asks the kernel directly, because tokio may not have
/// noticed the connection yet.
fn next_pending(listener: &TcpListener) -> Option<(TcpStream, SocketAddr)> {
    loop {
        match SockRef::from(listener).accept() {
            Ok((socket, peer)) => {
                let stream = std::net::TcpStream::from(socket);
                let stream = stream.set_nonblocking(true).and_then(|()| TcpStream::from_std(stream));
                if let (Ok(stream), Some(peer)) = (stream, peer.as_socket()) {
                    return Some((stream, peer));
                }
            }
            Err(error) if is_caller_error(&error) || error.kind() == Interrupted => {}
            Err(_) => return None,
        }
    }
}

fn is_caller_error(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{ConnectionAborted, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionReset)
}

/// Checks the limits and establishes an accepted connection. Returns the connection when it is ready for HTTP, or
/// `None` if the connection was closed.
async fn admit(
    admission: &Admission,
    config: Arc<ArcSwap<ListenerConfig>>,
    stream: TcpStream,
    peer: SocketAddr,
    new: NewConnection,
) -> Option<(Stream, ConnInfo)> {
    let limits = admission.policy.load().limits;
    let error = match admission.limits.acquire(limits.connections_max) {
        None => AcceptError::Full,
        Some(slot) => {
            let established = Box::pin(establish(admission, config, stream, peer, (slot, new), &limits));
            match with_timeout(limits.head_deadline, established).await {
                Some(Ok(connection)) => return Some(connection),
                Some(Err(error)) => error,
                None => AcceptError::Slow,
            }
        }
    };
    admission.metrics.connection_refused(error.name());
    if admission.log_throttle.should_log(error.name(), instant()) {
        log::warn!(
            "closed a connection from {peer}: {}; further connections that are closed for this reason are counted, but not logged for a minute",
            error.name()
        );
    }
    None
}

/// Determines the caller's address from the PROXY protocol header if required, and performs the TLS handshake.
async fn establish(
    admission: &Admission,
    config: Arc<ArcSwap<ListenerConfig>>,
    stream: TcpStream,
    peer: SocketAddr,
    (mut slot, new): (ConnectionSlot, NewConnection),
    limits: &Limits,
) -> Result<(Stream, ConnInfo), AcceptError> {
    let rules = config.load_full();
    let mut io = BufferedIo::new(stream, peer);
    let mut client = peer;
    if let Some(trusted) = &rules.proxied_by {
        if !trusted.contains(peer.ip()) {
            return Err(AcceptError::ProxyUntrusted);
        }
        client = proxy_protocol::read(&mut io, peer).await.ok_or(AcceptError::ProxyHeader)?;
    }
    let address = client.ip();
    if !admission.policy.load().ingress.trusts(address)
        && !slot.count_address(address, limits.connections_per_address_max)
    {
        return Err(AcceptError::AddressFull);
    }
    let load_balancer = rules.proxied_by.as_ref().map(|_| peer.ip());
    let conn_info = |certificate, tls_version| ConnInfo {
        peer: address,
        certificate,
        load_balancer,
        tls_version,
        config,
        new,
        _slot: slot,
    };
    let Some(tls) = &rules.tls else { return Ok((Box::new(io), conn_info(None, TlsVersion::None))) };
    let stream = tls.acceptor.tls_handshake(io).await.map_err(|error| {
        log::debug!("TLS with {peer}: {error}");
        AcceptError::Tls
    })?;
    let chain = stream.get_ssl().and_then(|ssl| ssl.peer_cert_chain_der());
    let certificate = chain.filter(|_| tls.clients.is_some()).and_then(VerifiedCertificate::new);
    let tls_version = TlsVersion::of(&stream);
    Ok((Box::new(stream), conn_info(certificate, tls_version)))
}
