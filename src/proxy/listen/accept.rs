//! From a socket to a connection that speaks HTTP: room for it, who it is from, TLS. What does not come that far is
//! counted, and closed without a word.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use pingora::protocols::{Ssl, Stream};
use pingora::server::ShutdownWatch;
use tokio::net::{TcpListener, TcpStream};

use super::conn_info::{ConnInfo, ListenerConfig, Protection};
use super::connection_limits::{ConnectionLimits, ConnectionSlot};
use super::log_throttle::LogThrottle;
use super::proxy_protocol;
use super::tls::VerifiedCertificate;
use crate::clock::instant;
use crate::http::{BufferedIo, within};
use crate::observe::Metrics;
use crate::policy::{Limits, Policy};

/// How long nothing is accepted when the system has no socket left.
const NO_SOCKET: Duration = Duration::from_millis(100);

/// Why a connection does not come as far as a request.
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

/// What decides which connections are accepted.
pub(crate) struct Admission {
    pub(crate) policy: Arc<ArcSwap<Policy>>,
    pub(crate) limits: Arc<ConnectionLimits>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) log_throttle: Arc<LogThrottle>,
}

/// Accepts connections until it is told to stop, and hands those that speak HTTP to `serve`.
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

/// The next connection; `None`: it is told to stop.
pub(crate) async fn next(
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

/// Returns the connection once it speaks HTTP; `None` if it was closed.
async fn admit(
    admission: &Admission,
    config: Arc<ArcSwap<ListenerConfig>>,
    stream: TcpStream,
    peer: SocketAddr,
) -> Option<(Stream, ConnInfo)> {
    let limits = admission.policy.load().limits;
    let error = match admission.limits.take(limits.connections_max) {
        None => AcceptError::Full,
        Some(slot) => {
            let begun = Box::pin(begin(admission, config, stream, peer, slot, &limits));
            match within(limits.head_deadline, begun).await {
                Some(Ok(connection)) => return Some(connection),
                Some(Err(error)) => error,
                None => AcceptError::Slow,
            }
        }
    };
    admission.metrics.connection_refused(error.name());
    if admission.log_throttle.is_first(error.name(), instant()) {
        log::warn!("a connection from {peer} was closed: {}; others like it are only counted", error.name());
    }
    None
}

/// Finds out whom a connection is from, and shakes hands.
async fn begin(
    admission: &Admission,
    config: Arc<ArcSwap<ListenerConfig>>,
    stream: TcpStream,
    peer: SocketAddr,
    mut slot: ConnectionSlot,
    limits: &Limits,
) -> Result<(Stream, ConnInfo), AcceptError> {
    let rules = config.load_full();
    // Small answers are not held back until the caller has acknowledged the one before.
    let _ = stream.set_nodelay(true);
    let mut wire = BufferedIo::new(stream, peer);
    let mut client = peer;
    if let Some(trusted) = &rules.proxied_by {
        if !trusted.contains(peer.ip()) {
            return Err(AcceptError::ProxyUntrusted);
        }
        client = proxy_protocol::read(&mut wire, peer).await.ok_or(AcceptError::ProxyHeader)?;
    }
    let address = client.ip();
    if !admission.policy.load().ingress.trusts(address)
        && !slot.count_for(address, limits.connections_per_address_max)
    {
        return Err(AcceptError::AddressFull);
    }
    let passed_on_by = rules.proxied_by.as_ref().map(|_| peer.ip());
    let link = |certificate, protection| ConnInfo {
        peer: address,
        certificate,
        passed_on_by,
        protection,
        config,
        _slot: slot,
    };
    let Some(tls) = &rules.tls else { return Ok((Box::new(wire), link(None, Protection::None))) };
    let stream = tls.acceptor.tls_handshake(wire).await.map_err(|error| {
        log::debug!("TLS with {peer}: {error}");
        AcceptError::Tls
    })?;
    let chain = stream.get_ssl().and_then(|ssl| ssl.peer_cert_chain_der());
    let shown =
        chain.zip(tls.clients.as_ref()).and_then(|(chain, clients)| VerifiedCertificate::new(chain, clients));
    let protection = Protection::of(&stream);
    Ok((Box::new(stream), link(shown, protection)))
}
