//! Passes bytes in both directions after a connection was switched to the protocol WebSocket (RFC 9110 section 7.8).

use std::io;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::Notify;

use super::client::{ResponseFault, UpstreamResponse};
use super::response::RelayError;
use super::session::Session;
use super::timeouts::with_timeout;
use crate::request::{HOP_BY_HOP, headers_of_one_hop, is_websocket, write_line};

/// Size of the buffer for one direction, in bytes.
const BUFFER_BYTES: usize = 16 << 10;

/// Relays a `101 Switching Protocols`, and then the bytes of both sides, until both sides have closed their direction,
/// one side fails, or nothing is read from and written to either side for `idle`.
///
/// # Errors
/// Returns [`RelayError::Upstream`] before anything is written, if the response does not switch to WebSocket, and
/// [`RelayError::Caller`] if the caller has closed the connection before the response was written.
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

    let progress = Notify::new();
    let (mut from_caller, mut to_caller) = tokio::io::split(caller);
    let (mut from_upstream, mut to_upstream) = tokio::io::split(&mut upstream);
    let both = async {
        tokio::try_join!(
            pass(after_request.freeze(), &mut from_caller, &mut to_upstream, &progress),
            pass(after_head, &mut from_upstream, &mut to_caller, &progress),
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

/// Returns the head of the response to the caller.
fn head(response: &UpstreamResponse) -> Vec<u8> {
    let mut head =
        b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n".to_vec();
    let listed = headers_of_one_hop(response.headers());
    for (name, value) in response.headers() {
        // A 101 has no body and no trailers, so it has no exceptions.
        if !HOP_BY_HOP.contains(name) && !listed.contains(name) {
            write_line(&mut head, name.as_str(), value.as_bytes());
        }
    }
    head.extend_from_slice(b"\r\n");
    head
}

/// Passes `first` and then all bytes of `from` to `to`, until `from` ends. Reports each read and each write to
/// `progress`.
async fn pass(
    first: Bytes,
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
    progress: &Notify,
) -> io::Result<()> {
    if !first.is_empty() {
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
        to.write_all(buffer.get(..bytes).unwrap_or_default()).await?;
        to.flush().await?;
        progress.notify_one();
    }
}
