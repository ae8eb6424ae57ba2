//! Reading the head of a request, whole: bounded in size and time, and refused by its bytes before it is parsed.

use bytes::{Buf, BytesMut};
use pingora::protocols::Stream;
use tokio::io::AsyncReadExt;

use super::patience::within;
use super::wire::Wire;
use crate::denial::Denial;
use crate::framing::{Chunks, Head, HeadFault};
use crate::policy::Limits;

/// Room for a head, and for a small body behind it.
const READ_BYTES: usize = 4 << 10;
/// How a connection of HTTP/2 begins (RFC 9113 section 3.4); no method begins with these bytes.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// What came first on a connection, or next.
pub(super) enum Came {
    /// A head, what was read behind it, and, of a body of chunks, where that ends.
    Head(BytesMut, Option<Chunks>),
    /// The beginning of HTTP/2.
    Preface(BytesMut),
    /// Nothing: the connection idled for too long, or has ended.
    Nothing,
    /// Something that is no head, or not in time; whether an answer to it would have no body.
    Unusable(Denial, bool),
}

/// Reads the next head. `first`: nothing came on the connection so far, and where it is `plain` it may begin HTTP/2.
pub(super) async fn read(stream: &mut Stream, first: bool, plain: bool, limits: &Limits) -> Came {
    let patience = if first { limits.head_deadline } else { limits.idle_timeout };
    let first = first && plain;
    let mut bytes = BytesMut::new();
    match within(patience, more(stream, &mut bytes)).await {
        Some(Ok(1..)) => {}
        _ => return Came::Nothing,
    }
    let mut head = Head::default();
    if let Some(came) = look(&mut bytes, &mut head, first, limits) {
        return came;
    }
    match within(limits.head_deadline, rest(stream, &mut bytes, &mut head, first, limits)).await {
        Some(came) => came,
        None if PREFACE.starts_with(&bytes) => Came::Nothing,
        None => unusable(Denial::HeadTimeout, &bytes),
    }
}

/// Reads on until it can be told what it is.
async fn rest(
    stream: &mut Stream,
    bytes: &mut BytesMut,
    head: &mut Head,
    first: bool,
    limits: &Limits,
) -> Came {
    loop {
        match more(stream, bytes).await {
            Ok(1..) => {}
            // A caller that is gone in the middle of a head is not there to be told.
            Ok(0) | Err(_) => return Came::Nothing,
        }
        if let Some(came) = look(bytes, head, first, limits) {
            return came;
        }
    }
}

/// What it is, if that can be told.
fn look(bytes: &mut BytesMut, head: &mut Head, first: bool, limits: &Limits) -> Option<Came> {
    if first && PREFACE.starts_with(bytes.get(..PREFACE.len()).unwrap_or(bytes)) {
        return (bytes.len() >= PREFACE.len()).then(|| Came::Preface(std::mem::take(bytes)));
    }
    // One empty line before a request is left over from something else (RFC 9112 section 2.2).
    if bytes.starts_with(b"\r\n") && !head.begun() {
        bytes.advance(2);
    }
    let found = match head.read(bytes, limits.headers_max) {
        Ok(Some(length)) if length <= limits.head_bytes_max => length,
        Ok(None) if bytes.len() < limits.head_bytes_max => return None,
        Ok(_) => return Some(unusable(Denial::HeadTooLarge, bytes)),
        Err(fault) => return Some(unusable(denial(fault), bytes)),
    };
    let mut chunks = head.has_chunks().then(Chunks::default);
    if let (Some(chunks), Some(body)) = (&mut chunks, bytes.get(found..))
        && chunks.read(body).is_err()
    {
        return Some(unusable(Denial::RequestMalformed, bytes));
    }
    Some(Came::Head(std::mem::take(bytes), chunks))
}

fn unusable(denial: Denial, bytes: &[u8]) -> Came {
    Came::Unusable(denial, bytes.starts_with(b"HEAD "))
}

const fn denial(fault: HeadFault) -> Denial {
    match fault {
        HeadFault::Malformed(_) => Denial::RequestMalformed,
        HeadFault::TooLarge => Denial::HeadTooLarge,
    }
}

/// Reads what is there. On a plain connection the room for it is made once there is something: an idle one has none.
async fn more(stream: &mut Stream, bytes: &mut BytesMut) -> std::io::Result<usize> {
    if bytes.is_empty()
        && let Some(wire) = (**stream).as_any().downcast_ref::<Wire>()
    {
        wire.readable().await?;
    }
    bytes.reserve(READ_BYTES);
    stream.read_buf(bytes).await
}
