//! Reading a body whole: bounded in size, in time, in slowness, and in the memory that all of them share.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use pingora::protocols::http::ServerSession;
use tokio::time::timeout;

use super::patience::Pace;
use super::slots::Reserved;
use crate::denial::Denial;
use crate::policy::Limits;

/// Room made in advance, at most; a caller that declares more must send it first.
const RESERVE_BYTES_MAX: usize = 64 << 10;
/// What is set aside at first for a body, in bytes.
const STEP_BYTES: u64 = 16 << 10;

/// What a body may take: bytes, time, and memory that it shares with others.
pub(super) struct Room<'r> {
    pub(super) bytes_max: u64,
    pub(super) deadline: Duration,
    pub(super) limits: &'r Limits,
    pub(super) reserved: &'r mut Reserved,
}

/// Reads the body.
///
/// # Errors
/// `body_too_large` as soon as it is, `overloaded` before anything is read for which there is no memory,
/// `body_timeout`, `body_incomplete`.
pub(super) async fn read(
    session: &mut ServerSession,
    declared: Option<u64>,
    room: Room<'_>,
) -> Result<Bytes, Denial> {
    // On HTTP/2 a body may come where the head says that there is none.
    if session.is_body_empty() && !session.is_http2() {
        return Ok(Bytes::new());
    }
    let Room { bytes_max, deadline, limits, reserved } = room;
    // What is said to come must find room, or is not begun; it takes room as it comes, so that nobody holds any by
    // words alone.
    let most = declared.unwrap_or(bytes_max).min(bytes_max);
    if !reserved.fits(declared.unwrap_or(0).min(bytes_max)) || !reserved.at_least(STEP_BYTES.min(most)) {
        return Err(Denial::Overloaded);
    }
    let mut pace = Pace::new(limits, deadline);
    let Some(first) = piece(session, &mut pace, 0).await? else { return Ok(Bytes::new()) };
    let complete = declared == Some(first.len() as u64) || session.is_body_done();
    if complete {
        return if first.len() as u64 > bytes_max { Err(Denial::BodyTooLarge) } else { Ok(first) };
    }
    let expected = declared.and_then(|bytes| usize::try_from(bytes).ok()).unwrap_or(0);
    let mut body = BytesMut::with_capacity(expected.clamp(first.len(), RESERVE_BYTES_MAX));
    let mut next = Some(first);
    while let Some(piece_read) = next {
        let bytes = (body.len() + piece_read.len()) as u64;
        if bytes > bytes_max {
            return Err(Denial::BodyTooLarge);
        }
        // As much more is set aside as there was.
        if !reserved.at_least((bytes * 2).min(most).max(bytes)) {
            return Err(Denial::Overloaded);
        }
        body.extend_from_slice(&piece_read);
        next = piece(session, &mut pace, bytes).await?;
    }
    Ok(body.freeze())
}

async fn piece(
    session: &mut ServerSession,
    pace: &mut Pace<'_>,
    bytes: u64,
) -> Result<Option<Bytes>, Denial> {
    match pace.step(bytes, session.read_request_body()).await {
        Some(read) => read.map_err(|_| Denial::BodyIncomplete),
        None => Err(Denial::BodyTimeout),
    }
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
