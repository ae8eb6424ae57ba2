//! Reads the heads of HTTP/1 requests. The size of a head and the time for reading it are limited. Each head is
//! validated byte by byte before it is parsed.

use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Version};
use pingora::protocols::Stream;
use tokio::io::AsyncReadExt;

use super::buffered_io::BufferedIo;
use super::timeouts::ReusableTimer;
use crate::denial::Denial;
use crate::framing::{Framing, Head, HeadFault};
use crate::policy::Limits;

/// The size of one read, in bytes. It is sufficient for most heads with a small body.
const READ_BYTES: usize = 8 << 10;
/// The connection preface of HTTP/2 (RFC 9113 section 3.4). The parser of HTTP/1 heads rejects it.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The parsed parts of the head of a request.
#[derive(Debug)]
pub(crate) struct RequestParts {
    pub(crate) method: Method,
    /// The request target as received. It contains only visible ASCII characters.
    pub(super) target: Bytes,
    pub(crate) version: Version,
    pub(crate) headers: HeaderMap,
    pub(super) framing: Framing,
}

impl RequestParts {
    /// Parses a complete head. `head` is the result of the validation, and `bytes` contains only the head. Returns
    /// `None` if a part of the head is invalid although the validation succeeded.
    pub(crate) fn parse(head: &Head, mut bytes: Bytes) -> Option<Self> {
        bytes.advance(head.begins_at());
        let line = take_line(&mut bytes)?;
        let method_ends = memchr::memchr(b' ', &line)?;
        let target_ends = memchr::memrchr(b' ', &line)?;
        let method = Method::from_bytes(line.get(..method_ends)?).ok()?;
        let target = (method_ends < target_ends).then(|| line.slice(method_ends + 1..target_ends))?;
        let version = if head.is_http_1_1() { Version::HTTP_11 } else { Version::HTTP_10 };
        let mut headers = HeaderMap::with_capacity(head.header_lines());
        loop {
            let line = take_line(&mut bytes)?;
            if line.is_empty() {
                break;
            }
            let colon = memchr::memchr(b':', &line)?;
            let name = HeaderName::from_bytes(line.get(..colon)?).ok()?;
            let value = line.get(colon + 1..)?.trim_ascii();
            let value = HeaderValue::from_maybe_shared(line.slice_ref(value)).ok()?;
            headers.try_append(name, value).ok()?;
        }
        Some(Self { method, target, version, headers, framing: head.framing() })
    }
}

/// Removes the next line from `bytes` and returns the line without its CRLF.
fn take_line(bytes: &mut Bytes) -> Option<Bytes> {
    let end = memchr::memchr(b'\n', bytes)?;
    let line = bytes.slice(..end.checked_sub(1)?);
    bytes.advance(end + 1);
    Some(line)
}

/// The result of waiting for the next request head on a connection.
pub(crate) enum HeadRead {
    /// A valid head, and the bytes that were read after the head.
    Request(RequestParts, BytesMut),
    /// The connection preface of HTTP/2, and the bytes that were read after the preface.
    Http2Preface(BytesMut),
    /// There is no request, because the connection was idle for too long or the caller closed it.
    Closed,
    /// The head is malformed, too large or too slow.
    HeadError(HeadError),
}

/// The error for a head that Callgate denies before it is parsed.
pub(crate) struct HeadError {
    pub(crate) denial: Denial,
    /// The reason for the denial, as a text for the log.
    pub(crate) detail: &'static str,
    /// Whether the request has the method HEAD, so that the response must not have a body.
    pub(crate) is_head_request: bool,
}

/// Whether a connection accepts HTTP/2 and the method CONNECT.
#[derive(Clone, Copy, Default)]
pub(crate) struct Accepted {
    /// Whether the connection may begin with the HTTP/2 preface.
    pub(crate) http2: bool,
    /// Whether requests with the method CONNECT are accepted.
    pub(crate) connect: bool,
}

impl Accepted {
    fn head(self) -> Head {
        if self.connect { Head::accepting_connect() } else { Head::default() }
    }
}

/// Reads the first request head of a connection within `limits.head_deadline`.
pub(crate) async fn read_first(
    stream: &mut Stream,
    accepted: Accepted,
    timer: &mut ReusableTimer,
    limits: &Limits,
) -> HeadRead {
    let mut reader =
        HeadReader { stream, bytes: BytesMut::new(), head: accepted.head(), allow_http2: accepted.http2 };
    match timer.with_timeout(limits.head_deadline, reader.read_head(limits)).await {
        Some(received) => received,
        None => reader.timed_out(),
    }
}

/// Reads the next request head of a kept-alive connection. `leftover` contains the bytes that were read after the
/// previous request.
///
/// Waits up to `idle` for the first byte. `limits` is called only when the head begins, because a configuration reload
/// may have replaced the limits during the wait.
pub(crate) async fn read_next(
    stream: &mut Stream,
    leftover: BytesMut,
    accepted: Accepted,
    idle: Duration,
    timer: &mut ReusableTimer,
    limits: impl Fn() -> Limits,
) -> HeadRead {
    // Some clients send an empty line after a body (RFC 9112 section 2.2). This line does not belong to the next
    // request.
    let leftover = if leftover == b"\r\n"[..] { BytesMut::new() } else { leftover };
    let is_waiting = leftover.is_empty();
    let mut reader = HeadReader { stream, bytes: leftover, head: accepted.head(), allow_http2: false };
    if is_waiting && !matches!(timer.with_timeout(idle, reader.read_more()).await, Some(Ok(1..))) {
        return HeadRead::Closed;
    }
    let limits = limits();
    if let Some(received) = reader.parse(&limits) {
        return received;
    }
    match timer.with_timeout(limits.head_deadline, reader.read_head(&limits)).await {
        Some(received) => received,
        None => reader.timed_out(),
    }
}

/// Reads one request head from a connection.
struct HeadReader<'s> {
    stream: &'s mut Stream,
    bytes: BytesMut,
    head: Head,
    allow_http2: bool,
}

impl HeadReader<'_> {
    /// Reads until the head is complete or is found to be invalid.
    async fn read_head(&mut self, limits: &Limits) -> HeadRead {
        loop {
            match self.read_more().await {
                Ok(1..) => {}
                // The caller closed the connection before the end of the head, so a response would not be received.
                Ok(0) | Err(_) => return HeadRead::Closed,
            }
            if let Some(received) = self.parse(limits) {
                return received;
            }
        }
    }

    /// Reads available bytes into the buffer and returns their number. On a connection without TLS, the buffer is
    /// allocated only when data is available, so that an idle connection needs no buffer.
    async fn read_more(&mut self) -> std::io::Result<usize> {
        if self.bytes.is_empty()
            && let Some(io) = (**self.stream).as_any().downcast_ref::<BufferedIo>()
        {
            io.readable().await?;
        }
        self.bytes.reserve(READ_BYTES);
        self.stream.read_buf(&mut self.bytes).await
    }

    /// Parses the bytes that were read so far. Returns `None` if the head is incomplete.
    fn parse(&mut self, limits: &Limits) -> Option<HeadRead> {
        let bytes = &mut self.bytes;
        if self.allow_http2 && PREFACE.starts_with(bytes.get(..PREFACE.len()).unwrap_or(bytes)) {
            return (bytes.len() >= PREFACE.len()).then(|| HeadRead::Http2Preface(std::mem::take(bytes)));
        }
        let head_length = match self.head.read(bytes, limits.headers_max) {
            Ok(Some(length)) if length <= limits.head_bytes_max => length,
            Ok(None) if bytes.len() < limits.head_bytes_max => return None,
            Ok(_) => return Some(self.head_error(HeadFault::TooLarge)),
            Err(fault) => return Some(self.head_error(fault)),
        };
        let leftover = bytes.split_off(head_length);
        if let Framing::Chunks(mut chunks) = self.head.framing()
            && chunks.read(&leftover, |_| {}).is_err()
        {
            return Some(self.head_error(HeadFault::Malformed("the chunked body is malformed")));
        }
        match RequestParts::parse(&self.head, std::mem::take(bytes).freeze()) {
            Some(request) => Some(HeadRead::Request(request, leftover)),
            None => Some(self.head_error(HeadFault::Malformed("the head cannot be parsed"))),
        }
    }

    fn head_error(&self, fault: HeadFault) -> HeadRead {
        let (denial, detail) = match fault {
            HeadFault::Malformed(detail) => (Denial::RequestMalformed, detail),
            HeadFault::TooLarge => (Denial::HeadTooLarge, Denial::HeadTooLarge.help()),
        };
        HeadRead::HeadError(HeadError { denial, detail, is_head_request: self.is_head_request() })
    }

    /// Reports whether the request has the method HEAD.
    fn is_head_request(&self) -> bool {
        self.bytes.get(self.head.begins_at()..).is_some_and(|bytes| bytes.starts_with(b"HEAD "))
    }

    /// Returns the result for a head that did not arrive in time. A caller that has sent nothing, or only a part of the
    /// HTTP/2 preface, gets no response.
    fn timed_out(&self) -> HeadRead {
        if self.bytes.is_empty() || (self.allow_http2 && PREFACE.starts_with(&self.bytes)) {
            return HeadRead::Closed;
        }
        let (denial, is_head_request) = (Denial::HeadTimeout, self.is_head_request());
        HeadRead::HeadError(HeadError { denial, detail: denial.help(), is_head_request })
    }
}
