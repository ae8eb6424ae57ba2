//! How a connection to a provider is opened: directly, or as a tunnel through the outbound proxy.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::net::TcpStream;

use super::resolver::Resolver;
use crate::guard::Url;
use crate::http::client::{attempt_order, connect_first, open_tunnel};
use crate::outbound::OutboundProxy;

/// The way to a provider. A kept connection is reused only for the same way.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(super) enum Way {
    /// A connection to this address.
    Direct(SocketAddr),
    /// A tunnel through the outbound proxy to this target, `host:port` or `address:port`.
    Tunnel(Box<str>),
}

impl Way {
    /// Returns the way to the host of `url` by its name, if the proxy resolves the name.
    pub(super) fn by_name(proxy: Option<&OutboundProxy>, url: &Url) -> Option<Self> {
        proxy.filter(|proxy| proxy.serves(url, None)).map(|_| Self::Tunnel(target(url).into()))
    }

    /// Returns the way to `address`, which is an address of the host of `url`.
    pub(super) fn to_address(proxy: Option<&OutboundProxy>, url: &Url, address: SocketAddr) -> Self {
        match proxy {
            Some(proxy) if proxy.serves(url, Some(address.ip())) => Self::Tunnel(address.to_string().into()),
            _ => Self::Direct(address),
        }
    }
}

/// Returns `host:port` of a URL, with the port also if it is the default port of the scheme.
fn target(url: &Url) -> String {
    match url.address() {
        Some(IpAddr::V6(address)) => format!("[{address}]:{}", url.port()),
        _ => format!("{}:{}", url.host(), url.port()),
    }
}

/// Whether an attempt to connect waits for the outbound proxy. If the attempt times out, this shows who did not answer.
#[derive(Default)]
pub(super) struct Progress(AtomicBool);

impl Progress {
    pub(super) fn waits_for_proxy(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// A fault of the outbound proxy, as the source of an [`io::Error`].
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

/// Opens a TCP stream that leads to the provider.
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

/// Opens a tunnel to `target`.
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
