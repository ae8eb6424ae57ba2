//! Opens TCP connections to providers, directly or as a tunnel through the outbound proxy. Defines the reasons why no
//! connection could be opened.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::net::TcpStream;

use super::resolver::Resolver;
use crate::denial::Denial;
use crate::guard::Url;
use crate::http::client::{attempt_order, connect_first, open_tunnel};
use crate::outbound::OutboundProxy;

/// How a connection reaches a provider: directly, or through a tunnel of the outbound proxy. An idle connection is
/// reused only for a request that takes the same way.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(super) enum Way {
    /// A direct connection to this address.
    Direct(SocketAddr),
    /// A tunnel through the outbound proxy to this target, as `host:port` or `address:port`.
    Tunnel(Box<str>),
}

impl Way {
    /// Returns a tunnel to the host name of `url` if the outbound proxy serves the URL. The proxy then resolves the
    /// host name. Returns `None` if Callgate must resolve the host name itself.
    pub(super) fn by_name(proxy: Option<&OutboundProxy>, url: &Url) -> Option<Self> {
        proxy.filter(|proxy| proxy.serves(url, None)).map(|_| Self::Tunnel(target(url).into()))
    }

    /// Returns how a connection reaches `address`, which is a resolved address of the host of `url`: through a tunnel
    /// if the outbound proxy serves this address, and otherwise directly.
    pub(super) fn to_address(proxy: Option<&OutboundProxy>, url: &Url, address: SocketAddr) -> Self {
        match proxy {
            Some(proxy) if proxy.serves(url, Some(address.ip())) => Self::Tunnel(address.to_string().into()),
            _ => Self::Direct(address),
        }
    }
}

/// Returns `host:port` of a URL. The port is present even if it is the default port of the scheme.
fn target(url: &Url) -> String {
    match url.address() {
        Some(IpAddr::V6(address)) => format!("[{address}]:{}", url.port()),
        _ => format!("{}:{}", url.host(), url.port()),
    }
}

/// Whether an attempt to connect is waiting for the outbound proxy. After a timeout, this flag shows which of two
/// servers did not respond: the outbound proxy or the provider.
#[derive(Default)]
pub(super) struct Progress(AtomicBool);

impl Progress {
    /// Returns [`Unreachable::ProxyTimeout`] if the outbound proxy did not respond, and [`Unreachable::Timeout`] if the
    /// provider did not respond.
    pub(super) fn timed_out(&self) -> Unreachable {
        if self.0.load(Ordering::Relaxed) { Unreachable::ProxyTimeout } else { Unreachable::Timeout }
    }
}

/// The reason why no connection to a provider could be opened. No part of the request was sent.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Unreachable {
    /// The host name could not be resolved. Contains the error of the operating system.
    Name(Box<str>),
    /// No address accepted a TCP connection. Contains the error of the last attempt.
    Connect(Box<str>),
    /// The TLS handshake failed. Contains the error.
    Tls(Box<str>),
    /// The timeout for connecting passed before a connection was open.
    Timeout,
    /// Callgate has no trusted certificate authorities.
    NoRoots,
    /// The outbound proxy did not open a tunnel. Contains the reason.
    Proxy(Box<str>),
    /// The timeout for connecting passed before the outbound proxy opened a tunnel.
    ProxyTimeout,
}

impl Unreachable {
    /// Returns the denial that the agent receives if a provider is unreachable for this reason.
    pub(crate) const fn denial(&self) -> Denial {
        match self {
            Self::Proxy(_) => Denial::OutboundProxyFailed,
            Self::ProxyTimeout => Denial::OutboundProxyTimeout,
            Self::Name(_) | Self::Connect(_) | Self::Tls(_) | Self::Timeout | Self::NoRoots => {
                Denial::ProviderUnreachable
            }
        }
    }
}

impl fmt::Display for Unreachable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(error) => write!(f, "the name of the provider's host could not be resolved: {error}"),
            Self::Connect(error) => write!(f, "the provider's host did not accept a TCP connection: {error}"),
            Self::Tls(error) => write!(f, "the TLS handshake with the provider's host failed: {error}"),
            Self::Timeout => f.write_str(
                "no connection to the provider's host was open within `timeouts.connect`: a firewall may drop packets, \
                 or the name server does not answer",
            ),
            Self::NoRoots => f.write_str("no trusted roots are loaded, so that TLS cannot be verified"),
            Self::Proxy(error) => write!(f, "the outbound proxy did not open a tunnel to the provider: {error}"),
            Self::ProxyTimeout => f.write_str(
                "the outbound proxy did not open a tunnel to the provider within `timeouts.connect`: the proxy does \
                 not answer, or it cannot reach the provider",
            ),
        }
    }
}

/// A failed TLS handshake with a provider, as the source of an [`io::Error`].
#[derive(Debug)]
pub(super) struct TlsFailure(pub(super) io::Error);

impl fmt::Display for TlsFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for TlsFailure {}

impl From<io::Error> for Unreachable {
    /// Returns the reason for a failed attempt to connect to a provider.
    fn from(error: io::Error) -> Self {
        let inner = error.get_ref();
        if let Some(failure) = inner.and_then(|inner| inner.downcast_ref::<TlsFailure>()) {
            return Self::Tls(failure.to_string().into());
        }
        match inner.and_then(|inner| inner.downcast_ref::<ProxyFailure>()) {
            Some(failure) => Self::Proxy(failure.to_string().into()),
            None => Self::Connect(error.to_string().into()),
        }
    }
}

/// A failure to open a tunnel through the outbound proxy, as the source of an [`io::Error`]. Contains the reason.
#[derive(Debug)]
pub(super) struct ProxyFailure(Box<str>);

impl fmt::Display for ProxyFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ProxyFailure {}

fn failure(reason: impl fmt::Display) -> io::Error {
    io::Error::other(ProxyFailure(reason.to_string().into()))
}

/// Opens a TCP connection to a provider, directly or through a tunnel.
pub(super) async fn open(
    way: &Way,
    proxy: Option<&OutboundProxy>,
    resolver: &Resolver,
    progress: &Progress,
) -> io::Result<TcpStream> {
    let stream = match (way, proxy) {
        (Way::Direct(address), _) => TcpStream::connect(address).await?,
        (Way::Tunnel(target), Some(proxy)) => {
            progress.0.store(true, Ordering::Relaxed);
            let opened = tunnel(target, proxy, resolver).await;
            progress.0.store(false, Ordering::Relaxed);
            opened?
        }
        (Way::Tunnel(_), None) => return Err(failure("it is not configured")),
    };
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Opens a tunnel through the outbound proxy to `target`, which is `host:port`.
async fn tunnel(target: &str, proxy: &OutboundProxy, resolver: &Resolver) -> io::Result<TcpStream> {
    let unresolved = |error| failure(format_args!("its name could not be resolved: {error}"));
    let addresses = resolver.resolve(proxy.url()).await.map_err(unresolved)?;
    let connected = connect_first(&attempt_order(&addresses, None), TcpStream::connect).await;
    let refused = |error| failure(format_args!("it did not accept a TCP connection: {error}"));
    let (_, mut stream) = connected.map_err(refused)?;
    stream.set_nodelay(true)?;
    open_tunnel(&mut stream, &proxy.connect_request(target)).await.map_err(failure)?;
    Ok(stream)
}
