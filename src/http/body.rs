//! Reading a body whole: bounded in size, in time, in slowness, and in the memory that all of them share.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::time::timeout;

use super::body_memory::Reserved;
use super::session::Session;
use super::timeouts::Pace;
use crate::denial::Denial;
use crate::policy::Limits;

/// Space reserved in advance, in bytes. A caller that declares more must send it first.
const FIRST_ROOM_BYTES: usize = 64 << 10;
/// What is set aside at first for a body, in bytes.
const STEP_BYTES: u64 = 16 << 10;

/// What a body may take: bytes, time, and memory that it shares with others.
pub(crate) struct BodyLimits<'r> {
    pub(crate) bytes_max: u64,
    pub(crate) deadline: Duration,
    pub(crate) limits: &'r Limits,
    pub(crate) reserved: &'r mut Reserved,
}

/// Reads the body.
///
/// # Errors
/// `body_too_large` as soon as it is, `overloaded` before anything is read for which there is no memory,
/// `body_timeout`, `body_incomplete`.
pub(crate) async fn read(
    session: &mut Session,
    declared: Option<u64>,
    room: BodyLimits<'_>,
) -> Result<Bytes, Denial> {
    if session.has_no_body() {
        return Ok(Bytes::new());
    }
    let BodyLimits { bytes_max, deadline, limits, reserved } = room;
    // What is said to come must find room, or is not begun; it takes room as it comes, so that nobody holds any by
    // words alone.
    let most = declared.unwrap_or(bytes_max).min(bytes_max);
    if !reserved.fits(declared.unwrap_or(0).min(bytes_max)) || !reserved.at_least(STEP_BYTES.min(most)) {
        return Err(Denial::Overloaded);
    }
    let mut pace = Pace::new(limits, deadline);
    let Some(first) = step(&mut pace, 0, session.read_body()).await? else { return Ok(Bytes::new()) };
    let complete = declared == Some(first.len() as u64) || session.is_body_done();
    if complete {
        return if first.len() as u64 > bytes_max { Err(Denial::BodyTooLarge) } else { Ok(first) };
    }
    let mut body = BytesMut::from(first);
    loop {
        let bytes = body.len();
        if bytes as u64 > bytes_max {
            return Err(Denial::BodyTooLarge);
        }
        let grows = bytes >= body.capacity();
        let room = if grows { room_for(bytes, most) } else { body.capacity() };
        // What a library made more room for than can come is never touched.
        if !reserved.at_least((room as u64).min(most.max(bytes as u64))) {
            return Err(Denial::Overloaded);
        }
        if grows && room > body.capacity() {
            let mut larger = BytesMut::with_capacity(room);
            larger.extend_from_slice(&body);
            body = larger;
        }
        if step(&mut pace, bytes as u64, session.read_body_into(&mut body)).await? == 0 {
            return Ok(body.freeze());
        }
    }
}

/// How much room a body takes of which this much has come: four times as much, or all that can come.
fn room_for(bytes: usize, most: u64) -> usize {
    let most = usize::try_from(most).unwrap_or(usize::MAX);
    bytes.saturating_mul(4).max(FIRST_ROOM_BYTES).min(most).max(bytes)
}

async fn step<T>(
    pace: &mut Pace<'_>,
    bytes: u64,
    read: impl Future<Output = std::io::Result<T>>,
) -> Result<T, Denial> {
    match pace.step(bytes, read).await {
        Some(read) => read.map_err(|_| Denial::BodyIncomplete),
        None => Err(Denial::BodyTimeout),
    }
}

/// Throws away a body that was refused, so that the answer is not lost in a reset: at most this many bytes
/// and this long.
pub(crate) async fn discard(session: &mut Session, bytes_max: usize, deadline: Duration) {
    let mut left = bytes_max;
    let _ = timeout(deadline, async {
        while let Ok(Some(piece)) = session.read_body().await {
            match left.checked_sub(piece.len()) {
                Some(rest) => left = rest,
                None => return,
            }
        }
    })
    .await;
}
