//! Relays bytes in both directions: after an upgrade to WebSocket (RFC 9110 section 7.8), and after a CONNECT request.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use pingora::protocols::Stream;
use pingora::server::ShutdownWatch;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Notify;

use super::client::{ResponseFault, UpstreamResponse};
use super::response::RelayError;
use super::session::Session;
use super::timeouts::with_timeout;
use crate::request::{HOP_BY_HOP, headers_of_one_hop, is_websocket, write_line};

/// The size of the buffer for one direction of a tunnel, in bytes.
const BUFFER_BYTES: usize = 16 << 10;
/// The maximum time for which a tunnel may be idle while the listener stops.
const STOPPING_IDLE: Duration = Duration::from_secs(1);

/// The number of bytes that a tunnel has relayed in each direction.
#[derive(Default)]
pub(crate) struct TunnelBytes {
    /// The number of bytes from the caller to the host at the other end.
    pub(crate) sent: AtomicU64,
    /// The number of bytes to the caller from the host at the other end.
    pub(crate) received: AtomicU64,
}

/// Relays the bytes of a tunnel in both directions. Ends when both sides have closed their direction, when one side
/// fails, or when no byte was read or written for `idle`. After `stopping` has changed, the idle time is limited to
/// [`STOPPING_IDLE`]. `after_request` contains the bytes of the caller that were already read.
pub(crate) async fn relay_tunnel(
    caller: Stream,
    after_request: Bytes,
    upstream: TcpStream,
    idle: Duration,
    stopping: &mut ShutdownWatch,
    bytes: &TunnelBytes,
) {
    let progress = Notify::new();
    let (mut from_caller, mut to_caller) = tokio::io::split(caller);
    let (mut from_upstream, mut to_upstream) = upstream.into_split();
    let both = async {
        tokio::try_join!(
            pass(after_request, &mut from_caller, &mut to_upstream, &progress, &bytes.sent),
            pass(Bytes::new(), &mut from_upstream, &mut to_caller, &progress, &bytes.received),
        )
    };
    let mut both = std::pin::pin!(both);
    loop {
        let is_stopping = *stopping.borrow();
        let idle = if is_stopping { idle.min(STOPPING_IDLE) } else { idle };
        tokio::select! {
            _ = &mut both => return,
            progressed = with_timeout(idle, progress.notified()) => {
                if progressed.is_none() {
                    return;
                }
            }
            changed = stopping.changed(), if !is_stopping => {
                // The sender of the stop signal was dropped, so the server does not exist any more.
                if changed.is_err() {
                    return;
                }
            }
        }
    }
}

/// Relays a `101 Switching Protocols` response, and then the bytes of both sides. Ends when both sides have closed
/// their direction, when one side fails, or when no byte was read or written for `idle`.
///
/// # Errors
/// Returns [`RelayError::Upstream`] if the response does not switch to WebSocket. In this case nothing was written.
/// Returns [`RelayError::Caller`] if the head of the response cannot be written to the caller.
pub(crate) async fn relay_websocket(
    session: &mut Session,
    response: UpstreamResponse,
    idle: Duration,
) -> Result<(), RelayError> {
    let garbled = || RelayError::Upstream(ResponseFault::Garbled);
    let (Session::Http1(http1), true) = (session, is_websocket(response.headers())) else {
        return Err(garbled());
    };
    let head = head(&response);
    let (mut upstream, after_head) = response.into_upgraded().ok_or_else(garbled)?;
    let (caller, after_request) = http1.take_io();
    let started = with_timeout(idle, async {
        caller.write_all(&head).await?;
        caller.flush().await
    });
    started.await.and_then(Result::ok).ok_or(RelayError::Caller)?;

    let (progress, bytes) = (Notify::new(), TunnelBytes::default());
    let (mut from_caller, mut to_caller) = tokio::io::split(caller);
    let (mut from_upstream, mut to_upstream) = tokio::io::split(&mut upstream);
    let both = async {
        tokio::try_join!(
            pass(after_request.freeze(), &mut from_caller, &mut to_upstream, &progress, &bytes.sent),
            pass(after_head, &mut from_upstream, &mut to_caller, &progress, &bytes.received),
        )
    };
    let mut both = std::pin::pin!(both);
    loop {
        tokio::select! {
            _ = &mut both => return Ok(()),
            progressed = with_timeout(idle, progress.notified()) => {
                if progressed.is_none() {
                    return Ok(());
                }
            }
        }
    }
}

/// Returns the serialized head of the `101 Switching Protocols` response to the caller.
fn head(response: &UpstreamResponse) -> Vec<u8> {
    let mut head =
        b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n".to_vec();
    let listed = headers_of_one_hop(response.headers());
    for (name, value) in response.headers() {
        // A response with status 101 has no body and no trailers, so no hop-by-hop header needs an exception.
        if !HOP_BY_HOP.contains(name) && !listed.contains(name) {
            write_line(&mut head, name.as_str(), value.as_bytes());
        }
    }
    head.extend_from_slice(b"\r\n");
    head
}

/// Writes `first` and then all bytes of `from` to `to`, until `from` ends. Notifies `progress` of each read and each
/// write, and adds the number of bytes to `count`.
async fn pass(
    first: Bytes,
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
    progress: &Notify,
    count: &AtomicU64,
) -> io::Result<()> {
    if !first.is_empty() {
        count.fetch_add(first.len() as u64, Ordering::Relaxed);
        to.write_all(&first).await?;
        to.flush().await?;
    }
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let bytes = from.read(&mut buffer).await?;
        progress.notify_one();
        if bytes == 0 {
            return to.shutdown().await;
        }
        count.fetch_add(bytes as u64, Ordering::Relaxed);
        to.write_all(buffer.get(..bytes).unwrap_or_default()).await?;
        to.flush().await?;
        progress.notify_one();
    }
}
