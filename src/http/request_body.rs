//! Reads whole request bodies. Limits the size, the total time and the transfer rate of each body, and the total memory
//! of all bodies.

use std::time::Duration;

use bytes::{Bytes, BytesMut};

use super::body_memory::MemoryReservation;
use super::session::Session;
use super::timeouts::TransferTimer;
use crate::denial::Denial;
use crate::policy::Limits;

/// The initial capacity, in bytes, of the buffer for a body that does not arrive in one read. A larger `Content-Length`
/// does not increase it, so that a header alone cannot cause a large allocation.
const FIRST_CAPACITY_BYTES: usize = 64 << 10;
/// The amount of memory that is reserved before the first read of a body, in bytes.
const FIRST_RESERVATION_BYTES: u64 = 16 << 10;

/// The limits for reading one request body.
pub(crate) struct BodyLimits<'r> {
    pub(crate) bytes_max: u64,
    pub(crate) deadline: Duration,
    pub(crate) limits: &'r Limits,
    pub(crate) reservation: &'r mut MemoryReservation,
}

/// Reads the whole request body. `declared` is the value of `Content-Length`, in bytes.
///
/// # Errors
/// - `body_too_large`: the body exceeds `bytes_max`. Reading stops immediately.
/// - `overloaded`: the memory for all bodies is used up.
/// - `body_timeout`: the body is too slow or exceeds the deadline.
/// - `body_incomplete`: the connection ended before the end of the body, or the framing is invalid.
pub(crate) async fn read(
    session: &mut Session,
    declared: Option<u64>,
    body_limits: BodyLimits<'_>,
) -> Result<Bytes, Denial> {
    if session.has_no_body() {
        return Ok(Bytes::new());
    }
    let BodyLimits { bytes_max, deadline, limits, reservation } = body_limits;
    // Reading does not begin if the declared size exceeds the free memory for bodies. Memory is reserved only as the
    // body arrives, so that a caller cannot reserve memory with a header alone.
    let max_total = declared.unwrap_or(bytes_max).min(bytes_max);
    if !reservation.would_fit(declared.unwrap_or(0).min(bytes_max))
        || !reservation.grow_to(FIRST_RESERVATION_BYTES.min(max_total))
    {
        return Err(Denial::Overloaded);
    }
    let mut timer = TransferTimer::new(limits, deadline);
    let Some(first) = timed_read(&mut timer, 0, session.read_body()).await? else { return Ok(Bytes::new()) };
    let is_complete = declared == Some(first.len() as u64) || session.is_body_done();
    if is_complete {
        return if first.len() as u64 > bytes_max { Err(Denial::BodyTooLarge) } else { Ok(first) };
    }
    let mut body = BytesMut::from(first);
    loop {
        let received = body.len();
        if received as u64 > bytes_max {
            return Err(Denial::BodyTooLarge);
        }
        let is_full = received >= body.capacity();
        let capacity = if is_full { next_capacity(received, max_total) } else { body.capacity() };
        // `BytesMut` may allocate more than `max_total`. The surplus is never written to, so it is not reserved.
        if !reservation.grow_to((capacity as u64).min(max_total.max(received as u64))) {
            return Err(Denial::Overloaded);
        }
        if is_full && capacity > body.capacity() {
            let mut larger = BytesMut::with_capacity(capacity);
            larger.extend_from_slice(&body);
            body = larger;
        }
        if timed_read(&mut timer, received as u64, session.read_body_into(&mut body)).await? == 0 {
            return Ok(body.freeze());
        }
    }
}

/// Returns the next capacity of the buffer for a body. The capacity is four times `received`, the number of bytes that
/// have arrived, but at least [`FIRST_CAPACITY_BYTES`] and at most the maximum size of the body.
fn next_capacity(received: usize, max_total: u64) -> usize {
    let max_total = usize::try_from(max_total).unwrap_or(usize::MAX);
    received.saturating_mul(4).max(FIRST_CAPACITY_BYTES).min(max_total).max(received)
}

async fn timed_read<T>(
    timer: &mut TransferTimer<'_>,
    received: u64,
    read: impl Future<Output = std::io::Result<T>>,
) -> Result<T, Denial> {
    match timer.step(received, read).await {
        Some(read) => read.map_err(|_| Denial::BodyIncomplete),
        None => Err(Denial::BodyTimeout),
    }
}
