//! Reading a body whole: bounded, under one deadline that no trickle renews.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use pingora::protocols::http::ServerSession;
use tokio::time::timeout;

use crate::denial::Denial;

/// Room made in advance, at most; a caller that declares more must send it first.
const RESERVE_BYTES_MAX: usize = 64 << 10;

/// Reads the body.
///
/// # Errors
/// `body_too_large` as soon as it is, `body_timeout`, `body_incomplete`.
pub(super) async fn read(
    session: &mut ServerSession,
    declared: Option<u64>,
    bytes_max: u64,
    deadline: Duration,
) -> Result<Bytes, Denial> {
    if session.is_body_empty() {
        return Ok(Bytes::new());
    }
    let mut collected = pin!(collect(session, declared, bytes_max));
    // Most bodies came with their head: then no timer is needed.
    match poll_fn(|context| Poll::Ready(collected.as_mut().poll(context))).await {
        Poll::Ready(body) => body,
        Poll::Pending => timeout(deadline, collected).await.unwrap_or(Err(Denial::BodyTimeout)),
    }
}

async fn collect(
    session: &mut ServerSession,
    declared: Option<u64>,
    bytes_max: u64,
) -> Result<Bytes, Denial> {
    let Some(first) = piece(session).await? else { return Ok(Bytes::new()) };
    let complete = declared == Some(first.len() as u64) || session.is_body_done();
    if complete {
        return if first.len() as u64 > bytes_max { Err(Denial::BodyTooLarge) } else { Ok(first) };
    }
    let expected = declared.and_then(|bytes| usize::try_from(bytes).ok()).unwrap_or(0);
    let mut body = BytesMut::with_capacity(expected.clamp(first.len(), RESERVE_BYTES_MAX));
    let mut next = Some(first);
    while let Some(piece_read) = next {
        if (body.len() + piece_read.len()) as u64 > bytes_max {
            return Err(Denial::BodyTooLarge);
        }
        body.extend_from_slice(&piece_read);
        next = piece(session).await?;
    }
    Ok(body.freeze())
}

async fn piece(session: &mut ServerSession) -> Result<Option<Bytes>, Denial> {
    session.read_request_body().await.map_err(|_| Denial::BodyIncomplete)
}

/// Throws away a body that was refused, so that the answer is not lost in a reset: at most this many bytes
/// and this long.
pub(super) async fn discard(session: &mut ServerSession, bytes_max: usize, deadline: Duration) {
    let mut left = bytes_max;
    let _ = timeout(deadline, async {
        while let Ok(Some(piece)) = session.read_request_body().await {
            match left.checked_sub(piece.len()) {
                Some(rest) => left = rest,
                None => return,
            }
        }
    })
    .await;
}
