//! CONNECT requests: decides whether a connection is intercepted, tunneled or refused, and relays the bytes of
//! tunnels.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use http::header::USER_AGENT;
use pingora::protocols::Stream;
use pingora::server::ShutdownWatch;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::exchange::Origin;
use super::handshake::intercept;
use crate::browser::once;
use crate::denial::{Denial, Refusal};
use crate::egress::{CONNECT_TIMEOUT, ForwardProxy};
use crate::guard::Url;
use crate::http::{Session, TunnelBytes, WRITE_TIMEOUT, relay_tunnel, with_timeout};
use crate::proxy::egress::agent_exchange::AgentExchange;
use crate::proxy::egress::context::EgressContext;
use crate::proxy::egress::provider_client::Guarded;
use crate::proxy::egress::request_log::{ExchangeEnd, RequestDetails, record_exchange};
use crate::proxy::listen::ConnectionSlot;

/// The rule name in the log for tunnels.
const TUNNEL: &str = "tunnel";

/// The successful response to a CONNECT request. The bytes after this response belong to the tunnel (RFC 9110 section
/// 9.3.6).
const ESTABLISHED: &[u8] = b"HTTP/1.1 200 Connection established\r\n\r\n";

/// What the forward proxy does with the connection of a CONNECT request.
pub(crate) enum Connected {
    /// Callgate performs the TLS handshake with the client, and serves the requests on the connection.
    Intercepted,
    /// Callgate relays bytes between the client and this connection to the host. The slot counts the tunnel as open.
    Tunnelled(TcpStream, ConnectionSlot),
}

impl AgentExchange<'_> {
    /// Decides whether the connection of a CONNECT request is intercepted or tunneled. For a tunnel, also connects to
    /// the host.
    ///
    /// # Errors
    /// Returns a [`Refusal`] if the host is not allowed or cannot be reached, or if too many tunnels are open.
    pub(crate) async fn connect(&mut self, proxy: &ForwardProxy, url: &Url) -> Result<Connected, Refusal> {
        self.details.rule = TUNNEL.into();
        self.details.host = Some(format!("{}:{}", url.host(), url.port()));
        if self.policy.egress.names(url) {
            return Ok(Connected::Intercepted);
        }
        proxy.check_destination(url)?;
        let slot = self.context.limits.tunnels.acquire(proxy.tunnels_max);
        let slot = slot.ok_or_else(|| Refusal::new(Denial::ProxyFull, Denial::ProxyFull.help()))?;
        let guarded = Guarded { guard: &proxy.guard, agents: &self.policy.agents };
        let providers = self.context.providers.load_full();
        let opened = self.session.unless_closed(providers.open_tunnel(url, guarded, CONNECT_TIMEOUT)).await;
        match opened {
            Some(Ok(stream)) => Ok(Connected::Tunnelled(stream, slot)),
            Some(Err(failed)) => Err(self.failed(failed)),
            None => Err(Refusal::new(Denial::BodyIncomplete, "the client closed the connection")),
        }
    }
}

/// An accepted CONNECT request.
pub(crate) struct Accepted {
    pub(crate) session: Session,
    pub(crate) request_id: String,
    pub(crate) began: Instant,
    pub(crate) details: RequestDetails,
}

impl Accepted {
    /// Relays bytes between the client and `upstream` until the tunnel ends, then records the tunnel.
    pub(crate) async fn relay(
        mut self,
        context: &EgressContext,
        (upstream, slot): (TcpStream, ConnectionSlot),
        idle: Duration,
        mut stopping: ShutdownWatch,
    ) {
        let Some((stream, leftover)) = establish(self.session).await else { return };
        let metrics = &context.recorder.metrics;
        metrics.tunnel_opened();
        let bytes = TunnelBytes::default();
        relay_tunnel(stream, leftover.freeze(), upstream, idle, &mut stopping, &bytes).await;
        drop(slot);
        let (sent, received) = (bytes.sent.load(Ordering::Relaxed), bytes.received.load(Ordering::Relaxed));
        metrics.tunnel_ended(sent, received);
        (self.details.body_bytes, self.details.received_bytes) = (sent, Some(received));
        let end = ExchangeEnd { outcome: Ok("ok"), status: 200, reusable: false };
        record_exchange(context, "CONNECT", &self.request_id, &self.details, &end, self.began, None);
    }

    /// Performs the TLS handshake with the client of an intercepted connection. Returns the connection and the origin
    /// of its requests, or `None` if the handshake failed.
    pub(crate) async fn intercept(self, context: &EgressContext, url: Url) -> Option<(Stream, Origin)> {
        let client = once(self.session.headers(), &USER_AGENT).unwrap_or_default().to_owned();
        let (stream, leftover) = establish(self.session).await?;
        intercept(context, stream, leftover, url, &client).await
    }
}

/// Writes the response to an accepted CONNECT request. Returns the connection and the bytes that were read after the
/// request, or `None` if the client has closed the connection.
async fn establish(session: Session) -> Option<(Stream, BytesMut)> {
    let (mut stream, leftover) = session.into_io()?;
    let written = with_timeout(WRITE_TIMEOUT, async {
        stream.write_all(ESTABLISHED).await?;
        stream.flush().await
    });
    written.await?.ok()?;
    Some((stream, leftover))
}
