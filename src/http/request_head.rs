//! Reading the head of a request, whole: bounded in size and time, and refused by its bytes before it is parsed.

use std::time::Duration;

use bytes::BytesMut;
use pingora::protocols::Stream;
use tokio::io::AsyncReadExt;

use super::buffered_io::BufferedIo;
use super::server::RequestLines;
use super::timeouts::ReusableTimer;
use crate::denial::Denial;
use crate::framing::{Framing, Head, HeadFault};
use crate::policy::Limits;

/// Space for a head, and for a small body behind it.
const READ_BYTES: usize = 8 << 10;
/// How a connection of HTTP/2 begins (RFC 9113 section 3.4); no method begins with these bytes.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// What came first on a connection, or next.
pub(crate) enum HeadRead {
    /// A request, and what was read behind its head.
    Request(RequestLines, BytesMut),
    /// The beginning of HTTP/2.
    Preface(BytesMut),
    /// Nothing: the connection idled for too long, or has ended.
    Nothing,
    /// Something that is no head, or not in time.
    HeadError(HeadError),
}

/// A head that is none.
pub(crate) struct HeadError {
    pub(crate) denial: Denial,
    /// What is wrong with it.
    pub(crate) detail: &'static str,
    /// Whether an answer has no body: only the head of one was asked for.
    pub(crate) bodiless: bool,
}

/// Reads the first head, or the beginning of HTTP/2 where that `may_be`; all of it within one deadline.
pub(crate) async fn first(
    stream: &mut Stream,
    may_be_http2: bool,
    alarm: &mut ReusableTimer,
    limits: &Limits,
) -> HeadRead {
    let mut coming = Coming { stream, bytes: BytesMut::new(), head: Head::default(), may_be_http2 };
    match alarm.within(limits.head_deadline, coming.rest(limits)).await {
        Some(came) => came,
        None => coming.late(),
    }
}

/// Reads the next head, of which `behind` was read before. How long it may take is asked for once it begins: the
/// connection may have waited for long.
pub(crate) async fn next(
    stream: &mut Stream,
    behind: BytesMut,
    idle: Duration,
    alarm: &mut ReusableTimer,
    limits: impl Fn() -> Limits,
) -> HeadRead {
    // Some put an empty line behind a body (RFC 9112 section 2.2): the next request has not begun.
    let behind = if behind == b"\r\n"[..] { BytesMut::new() } else { behind };
    let waits = behind.is_empty();
    let mut coming = Coming { stream, bytes: behind, head: Head::default(), may_be_http2: false };
    if waits && !matches!(alarm.within(idle, coming.more()).await, Some(Ok(1..))) {
        return HeadRead::Nothing;
    }
    let limits = limits();
    if let Some(came) = coming.look(&limits) {
        return came;
    }
    match alarm.within(limits.head_deadline, coming.rest(&limits)).await {
        Some(came) => came,
        None => coming.late(),
    }
}

/// A head that is on its way.
struct Coming<'s> {
    stream: &'s mut Stream,
    bytes: BytesMut,
    head: Head,
    may_be_http2: bool,
}

impl Coming<'_> {
    /// Reads on until it can be told what it is.
    async fn rest(&mut self, limits: &Limits) -> HeadRead {
        loop {
            match self.more().await {
                Ok(1..) => {}
                // A caller that is gone in the middle of a head is not there to be told.
                Ok(0) | Err(_) => return HeadRead::Nothing,
            }
            if let Some(came) = self.look(limits) {
                return came;
            }
        }
    }

    /// Reads what is there. On a plain connection the room for it is made once there is something: an idle one has
    /// none.
    async fn more(&mut self) -> std::io::Result<usize> {
        if self.bytes.is_empty()
            && let Some(wire) = (**self.stream).as_any().downcast_ref::<BufferedIo>()
        {
            wire.readable().await?;
        }
        self.bytes.reserve(READ_BYTES);
        self.stream.read_buf(&mut self.bytes).await
    }

    /// What it is, if that can be told.
    fn look(&mut self, limits: &Limits) -> Option<HeadRead> {
        let bytes = &mut self.bytes;
        if self.may_be_http2 && PREFACE.starts_with(bytes.get(..PREFACE.len()).unwrap_or(bytes)) {
            return (bytes.len() >= PREFACE.len()).then(|| HeadRead::Preface(std::mem::take(bytes)));
        }
        let found = match self.head.read(bytes, limits.headers_max) {
            Ok(Some(length)) if length <= limits.head_bytes_max => length,
            Ok(None) if bytes.len() < limits.head_bytes_max => return None,
            Ok(_) => return Some(self.unusable(HeadFault::TooLarge)),
            Err(fault) => return Some(self.unusable(fault)),
        };
        let behind = bytes.split_off(found);
        if let Framing::Chunks(mut chunks) = self.head.framing()
            && chunks.read(&behind, |_| {}).is_err()
        {
            return Some(self.unusable(HeadFault::Malformed("the body is not made of chunks")));
        }
        match RequestLines::parse(&self.head, std::mem::take(bytes).freeze()) {
            Some(request) => Some(HeadRead::Request(request, behind)),
            None => Some(self.unusable(HeadFault::Malformed("the head cannot be taken apart"))),
        }
    }

    fn unusable(&self, fault: HeadFault) -> HeadRead {
        let (denial, detail) = match fault {
            HeadFault::Malformed(detail) => (Denial::RequestMalformed, detail),
            HeadFault::TooLarge => (Denial::HeadTooLarge, Denial::HeadTooLarge.help()),
        };
        HeadRead::HeadError(HeadError { denial, detail, bodiless: self.is_bodiless() })
    }

    /// Whether the answer has no body.
    fn is_bodiless(&self) -> bool {
        self.bytes.get(self.head.begins_at()..).is_some_and(|bytes| bytes.starts_with(b"HEAD "))
    }

    /// It did not come in time. Whoever sent nothing, or has only begun with HTTP/2, is not told.
    fn late(&self) -> HeadRead {
        if self.bytes.is_empty() || (self.may_be_http2 && PREFACE.starts_with(&self.bytes)) {
            return HeadRead::Nothing;
        }
        let (denial, bodiless) = (Denial::HeadTimeout, self.is_bodiless());
        HeadRead::HeadError(HeadError { denial, detail: denial.help(), bodiless })
    }
}
