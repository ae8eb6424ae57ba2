//! The server's side of HTTP/1: a request whose head has been judged by its bytes, its body as it comes, and an answer
//! that leaves in as few writes as it can.

use std::io::{self, Write};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use http::header::{CONTENT_LENGTH, DATE, HeaderName, HeaderValue, TRANSFER_ENCODING};
use http::{HeaderMap, Method, StatusCode, Version};
use pingora::http::ResponseHeader;
use pingora::protocols::Stream;
use pingora::protocols::http::date::get_cached_date;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::timeouts::within;
use crate::framing::{Framing, Head};
use crate::request::{lasts, write_line};

/// What is read of a body at once where no room was made for it, in bytes.
const PIECE_BYTES: usize = 16 << 10;
/// What is read of a body of chunks at once, in bytes.
const CHUNKS_BYTES: usize = 8 << 10;
/// What is looked at of it where there is no room left: it may be the end.
const LAST_CHUNK_BYTES: usize = 512;
/// Up to this size a piece of an answer is copied behind what waits to leave, which costs less than another write.
const GATHERED_BYTES_MAX: usize = 16 << 10;
/// Space reserved for an answer's head and a small body.
const ANSWER_BYTES: usize = 512;
/// A rest of a body up to this size is read to its end, so that the connection can be kept.
pub(crate) const DRAIN_BYTES_MAX: u64 = 64 << 10;
/// How long that may take.
pub(crate) const DRAIN_DEADLINE: Duration = Duration::from_secs(2);

/// The head of a request.
#[derive(Debug)]
pub(crate) struct RequestLines {
    pub(crate) method: Method,
    /// As it was sent; visible ASCII.
    target: Bytes,
    pub(crate) version: Version,
    pub(crate) headers: HeaderMap,
    framing: Framing,
}

impl RequestLines {
    /// Takes apart a head that was judged: `bytes` is all of it, and nothing more. `None` where it says something that
    /// the judge should not have let through.
    pub(crate) fn parse(head: &Head, mut bytes: Bytes) -> Option<Self> {
        bytes.advance(head.begins_at());
        let line = line(&mut bytes)?;
        let method_ends = memchr::memchr(b' ', &line)?;
        let target_ends = memchr::memrchr(b' ', &line)?;
        let method = Method::from_bytes(line.get(..method_ends)?).ok()?;
        let target = (method_ends < target_ends).then(|| line.slice(method_ends + 1..target_ends))?;
        let version = if head.is_http_1_1() { Version::HTTP_11 } else { Version::HTTP_10 };
        let mut headers = HeaderMap::with_capacity(head.header_lines());
        loop {
            let line = self::line(&mut bytes)?;
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

/// Takes the next line, without its end.
fn line(bytes: &mut Bytes) -> Option<Bytes> {
    let end = memchr::memchr(b'\n', bytes)?;
    let line = bytes.slice(..end.checked_sub(1)?);
    bytes.advance(end + 1);
    Some(line)
}

/// Writes the head of an answer; `keep`: another request may follow on its connection.
pub(crate) fn write_answer_head<'l>(
    out: &mut Vec<u8>,
    status: u16,
    lines: impl IntoIterator<Item = (&'l str, &'l [u8])>,
    keep: bool,
) {
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(itoa::Buffer::new().format(status).as_bytes());
    out.push(b' ');
    let reason = StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason());
    out.extend_from_slice(reason.unwrap_or_default().as_bytes());
    out.extend_from_slice(b"\r\n");
    let mut has_date = false;
    for (name, value) in lines {
        has_date |= name == DATE.as_str();
        write_line(out, name, value);
    }
    // Of an origin server with a clock (RFC 9110 section 6.6.1).
    if !has_date {
        write_line(out, "date", get_cached_date().as_bytes());
    }
    write_line(out, "connection", if keep { b"keep-alive" } else { b"close" });
    out.extend_from_slice(b"\r\n");
}

/// How the body of an answer is written.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Answering {
    /// In chunks.
    Chunks,
    /// Up to the end of the connection.
    Close,
    /// So many bytes are still to come.
    Length(u64),
    /// Not at all: it has none, or is not begun.
    Nothing,
}

/// A request that came in, and the connection that it came on.
pub(crate) struct Http1 {
    stream: Stream,
    request: RequestLines,
    /// What was read and not taken: of the body, and of what comes behind it.
    read: BytesMut,
    /// What is still to come of the body.
    body: Framing,
    /// Whether another request may follow.
    keep: bool,
    /// Whether what is left of the body is read to its end behind the answer, so that the connection can be kept.
    drains: bool,
    answer: Answering,
    /// What waits to leave.
    waiting: Vec<u8>,
    write_timeout: Duration,
}

impl Http1 {
    /// `read`: what was read behind the head.
    pub(crate) fn new(stream: Stream, request: RequestLines, read: BytesMut) -> Self {
        let keep = lasts(request.version, &request.headers);
        let body = request.framing;
        Self {
            stream,
            request,
            read,
            body,
            keep,
            drains: false,
            answer: Answering::Nothing,
            waiting: Vec::new(),
            write_timeout: Duration::MAX,
        }
    }

    /// The head.
    pub(crate) fn request(&self) -> &RequestLines {
        &self.request
    }

    /// The headers, to be changed.
    pub(crate) fn headers_mut(&mut self) -> &mut HeaderMap {
        &mut self.request.headers
    }

    /// The target as it was sent.
    pub(crate) fn target(&self) -> &str {
        std::str::from_utf8(&self.request.target).unwrap_or_default()
    }

    /// The connection ends with this answer.
    pub(crate) fn close_behind(&mut self) {
        self.keep = false;
    }

    /// What is left of the body is not what the answer hangs on: it is read to its end behind it.
    pub(crate) fn drain_behind(&mut self) {
        self.drains = true;
    }

    /// How long each write may take.
    pub(crate) fn set_write_timeout(&mut self, patience: Duration) {
        self.write_timeout = patience;
    }

    /// Whether the body is read to its end.
    pub(crate) fn is_body_done(&self) -> bool {
        self.body.is_done()
    }

    /// The next piece of the body; `None` at its end.
    ///
    /// # Errors
    /// The connection ended before the body, or the body is not framed as it must be.
    pub(crate) async fn read_body(&mut self) -> io::Result<Option<Bytes>> {
        if self.body.is_done() {
            return Ok(None);
        }
        if let Framing::Length(left) = &mut self.body
            && !self.read.is_empty()
        {
            let here = usize::try_from(*left).unwrap_or(usize::MAX).min(self.read.len());
            *left -= here as u64;
            return Ok(Some(self.read.split_to(here).freeze()));
        }
        let mut piece = BytesMut::new();
        self.read_body_into(&mut piece).await?;
        Ok((!piece.is_empty()).then(|| piece.freeze()))
    }

    /// Reads the next piece of the body behind what is in `body`, into the room that is there, or is made. Returns how
    /// many bytes came: none at the end.
    ///
    /// # Errors
    /// As above.
    pub(crate) async fn read_body_into(&mut self, body: &mut BytesMut) -> io::Result<usize> {
        match &mut self.body {
            Framing::Length(0) => Ok(0),
            Framing::Length(left) => {
                let wanted = usize::try_from(*left).unwrap_or(usize::MAX);
                let here = wanted.min(self.read.len());
                let came = if here > 0 {
                    body.extend_from_slice(&self.read.split_to(here));
                    here
                } else {
                    if body.capacity() == body.len() {
                        body.reserve(wanted.min(PIECE_BYTES));
                    }
                    // Never more than the body: what is behind it is the next request's.
                    let room = body.capacity() - body.len();
                    (&mut self.stream).take(wanted.min(room) as u64).read_buf(body).await?
                };
                *left -= came as u64;
                if came == 0 { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(came) }
            }
            Framing::Chunks(chunks) => {
                let before = body.len();
                while body.len() == before && !chunks.is_done() {
                    if self.read.is_empty() {
                        self.read.reserve(CHUNKS_BYTES);
                        if self.stream.read_buf(&mut self.read).await? == 0 {
                            return Err(io::ErrorKind::UnexpectedEof.into());
                        }
                    }
                    // Not more than there is room for: who reads makes the room, and answers for it.
                    let room = (body.capacity() - body.len()).max(LAST_CHUNK_BYTES);
                    let next = self.read.get(..room).unwrap_or(&self.read);
                    let Ok(taken) = chunks.read(next, |data| body.extend_from_slice(data)) else {
                        // Nobody knows any more where anything begins.
                        self.body = Framing::Close;
                        return Err(io::ErrorKind::InvalidData.into());
                    };
                    self.read.advance(taken);
                }
                Ok(body.len() - before)
            }
            // No request is framed so; what is broken is left so.
            Framing::Close => Err(io::ErrorKind::InvalidData.into()),
        }
    }

    /// Tells a caller that waits for it to go on (RFC 9110 section 10.1.1).
    pub(crate) async fn write_continue(&mut self) -> io::Result<()> {
        self.waiting.extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n");
        self.leave().await
    }

    /// Begins the answer. It leaves with what comes first of its body. Where the body of the request was not read, another
    /// request does not follow: whoever waits to be told to go on may send that body, or not.
    pub(crate) fn write_head(&mut self, header: &ResponseHeader) {
        let status = header.status;
        let bodiless = self.request.method == Method::HEAD
            || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        let length = || header.headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok();
        self.answer = match (bodiless, header.headers.contains_key(TRANSFER_ENCODING)) {
            (true, _) => Answering::Nothing,
            (false, true) => Answering::Chunks,
            (false, false) => length().map_or(Answering::Close, Answering::Length),
        };
        self.keep &= self.answer != Answering::Close && (self.drains || self.body.is_done());
        self.waiting.reserve(ANSWER_BYTES);
        let lines = header.headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes()));
        write_answer_head(&mut self.waiting, status.as_u16(), lines, self.keep);
    }

    /// Writes a piece of the answer's body, the last one where this is its `end`. To whom gets no body, none is written.
    ///
    /// # Errors
    /// The caller is gone, or took too long; or the piece is more, or at the end less, than was said in the head.
    pub(crate) async fn write_body(&mut self, piece: &[u8], end: bool) -> io::Result<()> {
        let chunked = match &mut self.answer {
            Answering::Nothing => return self.leave().await,
            Answering::Chunks => true,
            Answering::Close => false,
            Answering::Length(left) => {
                let rest = left.checked_sub(piece.len() as u64).filter(|rest| !end || *rest == 0);
                *left = rest.ok_or(io::ErrorKind::InvalidData)?;
                false
            }
        };
        if chunked && !piece.is_empty() {
            // Writing to a vector cannot fail.
            let _ = write!(self.waiting, "{:x}\r\n", piece.len());
        }
        if piece.len() <= GATHERED_BYTES_MAX {
            self.waiting.extend_from_slice(piece);
        } else {
            self.leave().await?;
            let written = within(self.write_timeout, self.stream.write_all(piece)).await;
            written.unwrap_or(Err(io::ErrorKind::TimedOut.into()))?;
        }
        if chunked && !piece.is_empty() {
            self.waiting.extend_from_slice(b"\r\n");
        }
        if chunked && end {
            self.waiting.extend_from_slice(b"0\r\n\r\n");
        }
        self.leave().await
    }

    /// Writes what waits. What breaks off is not begun again.
    async fn leave(&mut self) -> io::Result<()> {
        let waiting = std::mem::take(&mut self.waiting);
        let write = async {
            self.stream.write_all(&waiting).await?;
            self.stream.flush().await
        };
        within(self.write_timeout, write).await.unwrap_or(Err(io::ErrorKind::TimedOut.into()))
    }

    /// Ends the exchange: hands back the connection, with what was read behind the request, if another one may follow,
    /// or closes it.
    pub(crate) async fn finish(mut self) -> Option<(Stream, BytesMut)> {
        if !self.keep || !within(DRAIN_DEADLINE, self.drain()).await.unwrap_or(false) {
            self.shutdown().await;
            return None;
        }
        // An idle connection holds no buffer.
        let behind = if self.read.is_empty() { BytesMut::new() } else { self.read };
        Some((self.stream, behind))
    }

    /// Reads what is left of the body, if that is not much.
    async fn drain(&mut self) -> bool {
        let mut left = DRAIN_BYTES_MAX;
        while !self.body.is_done() {
            match self.read_body().await {
                Ok(Some(piece)) if piece.len() as u64 <= left => left -= piece.len() as u64,
                Ok(None) => {}
                Ok(Some(_)) | Err(_) => return false,
            }
        }
        true
    }

    /// Closes the connection.
    pub(crate) async fn shutdown(&mut self) {
        // A head without a body waits for none.
        if !self.waiting.is_empty() {
            let _ = self.leave().await;
        }
        // A peer that is gone is told nothing, and one that does not listen is not waited for.
        let _ = within(DRAIN_DEADLINE, self.stream.shutdown()).await;
    }
}
