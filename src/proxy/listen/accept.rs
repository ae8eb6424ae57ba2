//! Accepts ingress connections: checks the limits, reads the PROXY protocol header, and performs the TLS handshake. A
//! connection that fails before its first request is counted and closed without a response.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use pingora::protocols::{Ssl, Stream};
use pingora::server::ShutdownWatch;
use tokio::net::{TcpListener, TcpStream};

use super::conn_info::{ConnInfo, ListenerConfig, TlsVersion};
use super::connection_limits::{ConnectionLimits, ConnectionSlot};
use super::log_throttle::LogThrottle;
use super::proxy_protocol;
use super::tls::VerifiedCertificate;
use crate::clock::instant;
use crate::http::{BufferedIo, with_timeout};
use crate::observe::Metrics;
use crate::policy::{Limits, Policy};

/// Pause before the next attempt when the process has no free file descriptor.
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

/// The handles that are needed to accept connections.
pub(crate) struct Admission {
    pub(crate) policy: Arc<ArcSwap<Policy>>,
    pub(crate) limits: Arc<ConnectionLimits>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) log_throttle: Arc<LogThrottle>,
}

/// Accepts connections until `stopping` changes, and passes the accepted ones to `serve`.
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
        tokio::spawn(async move {
            if let Some((stream, info)) = admit(&admission, config, stream, peer).await {
                serve(stream, info).await;
            }
        });
    }
}

/// Returns the next connection, or `None` when `stopping` changes.
pub(crate) async fn next(
    listener: &TcpListener,
    stopping: &mut ShutdownWatch,
) -> Option<(TcpStream, SocketAddr)> {
    let mut has_logged = false;
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stopping.changed() => return None,
        };
        match accepted {
            Ok(connection) => return Some(connection),
            // The caller closed the connection before it was accepted. This is not an error of Callgate.
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

fn is_caller_error(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{ConnectionAborted, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionReset)
}

/// Returns the connection when it is ready for HTTP, or `None` if it was closed.
async fn admit(
    admission: &Admission,
    config: Arc<ArcSwap<ListenerConfig>>,
    stream: TcpStream,
    peer: SocketAddr,
) -> Option<(Stream, ConnInfo)> {
    let limits = admission.policy.load().limits;
    let error = match admission.limits.acquire(limits.connections_max) {
        None => AcceptError::Full,
        Some(slot) => {
            let established = Box::pin(establish(admission, config, stream, peer, slot, &limits));
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

/// Determines the caller's address and performs the TLS handshake.
async fn establish(
    admission: &Admission,
    config: Arc<ArcSwap<ListenerConfig>>,
    stream: TcpStream,
    peer: SocketAddr,
    mut slot: ConnectionSlot,
    limits: &Limits,
) -> Result<(Stream, ConnInfo), AcceptError> {
    let rules = config.load_full();
    // Nagle's algorithm would delay a small response until the caller has acknowledged the previous one.
    let _ = stream.set_nodelay(true);
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
        _slot: slot,
    };
    let Some(tls) = &rules.tls else { return Ok((Box::new(io), conn_info(None, TlsVersion::None))) };
    let stream = tls.acceptor.tls_handshake(io).await.map_err(|error| {
        log::debug!("TLS with {peer}: {error}");
        AcceptError::Tls
    })?;
    let chain = stream.get_ssl().and_then(|ssl| ssl.peer_cert_chain_der());
    let certificate =
        chain.zip(tls.clients.as_ref()).and_then(|(chain, clients)| VerifiedCertificate::new(chain, clients));
    let tls_version = TlsVersion::of(&stream);
    Ok((Box::new(stream), conn_info(certificate, tls_version)))
}
