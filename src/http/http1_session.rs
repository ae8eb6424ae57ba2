//! The HTTP/1 server for one request and its response: a request with a validated head, its body, and a response that
//! is written in as few system calls as possible.

use std::future::pending;
use std::io::{self, Write};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{HeaderMap, Method, StatusCode};
use pingora::http::ResponseHeader;
use pingora::protocols::Stream;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::request_head::RequestParts;
use super::response_head::write_response_head;
use super::timeouts::with_timeout;
use crate::framing::{Framing, Trailers};
use crate::replica::{Outcome, REPLICA, ResponseProof};
use crate::request::lasts;

/// The maximum size of one read of a body, in bytes, if the buffer for the body has no free capacity.
const BODY_READ_BYTES: usize = 16 << 10;
/// The size of one read of a chunked body, in bytes.
const CHUNKED_READ_BYTES: usize = 8 << 10;
/// The maximum size, in bytes, of the read with which Callgate waits for the caller to close the connection. If the
/// caller sends its next request instead, the read returns the beginning of this request.
const NEXT_REQUEST_BYTES: usize = 512;
/// The minimum number of bytes of a chunked body that are decoded at once. It applies even if the buffer for the body
/// is full, because the last chunk has no data and needs no space in the buffer.
const CHUNKED_READ_BYTES_MIN: usize = 512;
/// Response data of at most this size, in bytes, is copied into the write buffer. Up to this size, copying costs less
/// than another system call.
const COPY_BYTES_MAX: usize = 16 << 10;
/// The initial capacity of the write buffer, in bytes. It is sufficient for the head of a response and a small body.
const RESPONSE_BYTES: usize = 512;
/// The maximum number of bytes of an unread body that are discarded to reuse the connection.
pub(crate) const DRAIN_BYTES_MAX: u64 = 64 << 10;
/// The deadline for discarding an unread body, and for closing a connection.
pub(crate) const DRAIN_DEADLINE: Duration = Duration::from_secs(2);

/// Returns the same header line with a shorter lifetime, so that it can be chained with other lines.
fn shorter<'s, 'l: 's>(line: (&'l str, &'l [u8])) -> (&'s str, &'s [u8]) {
    line
}

/// The framing of the response body.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum ResponseFraming {
    /// The body has the chunked transfer coding.
    Chunks,
    /// The body ends at the end of the connection.
    Close,
    /// The body has a declared length (`Content-Length`). The field is the number of bytes that are not written yet.
    Length(u64),
    /// The response has no body, or has not begun.
    NoBody,
}

/// An HTTP/1 request, its connection, and the state of its response.
pub(crate) struct Http1Session {
    pub(super) stream: Stream,
    request: RequestParts,
    /// The bytes that were read but not consumed yet. They belong to the body or to the next request.
    pub(super) read_buffer: BytesMut,
    /// The framing of the part of the request body that was not read yet.
    body: Framing,
    /// The trailers of the request body. `None` if trailers are ignored.
    trailers: Option<Trailers>,
    /// Whether the connection can carry another request after this one.
    keep_alive: bool,
    /// Whether an unread body is discarded after the response, so that the connection can be reused.
    drain_body: bool,
    response_framing: ResponseFraming,
    /// The data for the response header `Callgate-Replica`. `None` unless another Callgate process sent the request.
    response_proof: Option<Box<ResponseProof>>,
    /// The bytes of the response that were not written to the connection yet.
    write_buffer: Vec<u8>,
    write_timeout: Duration,
}

impl Http1Session {
    /// Creates a session. `read_buffer` contains the bytes that were read after the head of the request.
    pub(crate) fn new(stream: Stream, request: RequestParts, read_buffer: BytesMut) -> Self {
        let keep_alive = lasts(request.version, &request.headers);
        let body = request.framing;
        Self {
            stream,
            request,
            read_buffer,
            body,
            trailers: None,
            keep_alive,
            drain_body: false,
            response_framing: ResponseFraming::NoBody,
            response_proof: None,
            write_buffer: Vec::new(),
            write_timeout: Duration::MAX,
        }
    }

    /// Returns the head of the request.
    pub(crate) fn request(&self) -> &RequestParts {
        &self.request
    }

    /// Returns the headers of the request for modification.
    pub(crate) fn headers_mut(&mut self) -> &mut HeaderMap {
        &mut self.request.headers
    }

    /// Returns the request target as received.
    pub(crate) fn target(&self) -> &str {
        std::str::from_utf8(&self.request.target).unwrap_or_default()
    }

    /// Adds the header `Callgate-Replica`, which proves the origin of the response. Must be called before `write_head`.
    pub(crate) fn prove(&mut self, proof: ResponseProof) {
        self.response_proof = Some(Box::new(proof));
    }

    /// Sets the [`Outcome`] in the header `Callgate-Replica`. Has no effect if the response does not have this header.
    pub(crate) fn set_outcome(&mut self, outcome: Outcome) {
        self.response_proof = self.response_proof.take().map(|proof| Box::new(proof.with_outcome(outcome)));
    }

    /// Makes this session close the connection after the response.
    pub(crate) fn close_after_response(&mut self) {
        self.keep_alive = false;
    }

    /// Makes this session discard an unread body after the response, instead of closing the connection.
    pub(crate) fn drain_after_response(&mut self) {
        self.drain_body = true;
    }

    /// Enables storing the trailers of the request body. Must be called before the body is read.
    pub(crate) fn keep_trailers(&mut self) {
        self.trailers = Some(Trailers::default());
    }

    /// Returns the trailers of the request body that were read so far.
    pub(crate) fn trailers(&self) -> Option<&Trailers> {
        self.trailers.as_ref()
    }

    /// Returns the connection and the bytes after the request. Afterwards, the session cannot read a body any more.
    pub(super) fn take_io(&mut self) -> (&mut Stream, BytesMut) {
        (self.body, self.keep_alive) = (Framing::Length(0), false);
        (&mut self.stream, std::mem::take(&mut self.read_buffer))
    }

    /// Sets the timeout for each write of the response.
    pub(crate) fn set_write_timeout(&mut self, timeout: Duration) {
        self.write_timeout = timeout;
    }

    /// Reports whether the whole request body has been read.
    pub(crate) fn is_body_done(&self) -> bool {
        self.body.is_done()
    }

    /// Reads the next part of the request body. Returns `None` at the end of the body.
    ///
    /// # Errors
    /// Returns an error if the connection ended before the end of the body, or if the framing is invalid.
    pub(crate) async fn read_body(&mut self) -> io::Result<Option<Bytes>> {
        if self.body.is_done() {
            return Ok(None);
        }
        if let Framing::Length(left) = &mut self.body
            && !self.read_buffer.is_empty()
        {
            let available = usize::try_from(*left).unwrap_or(usize::MAX).min(self.read_buffer.len());
            *left -= available as u64;
            return Ok(Some(self.read_buffer.split_to(available).freeze()));
        }
        let mut data = BytesMut::new();
        self.read_body_into(&mut data).await?;
        Ok((!data.is_empty()).then(|| data.freeze()))
    }

    /// Reads the next part of the request body and appends it to `body`, up to the capacity of `body`. Reserves
    /// capacity if there is none. Returns the number of appended bytes, which is 0 at the end of the body.
    ///
    /// # Errors
    /// Returns an error if the connection ended before the end of the body, or if the framing is invalid.
    pub(crate) async fn read_body_into(&mut self, body: &mut BytesMut) -> io::Result<usize> {
        match &mut self.body {
            Framing::Length(0) => Ok(0),
            Framing::Length(left) => {
                let wanted = usize::try_from(*left).unwrap_or(usize::MAX);
                let available = wanted.min(self.read_buffer.len());
                let received = if available > 0 {
                    body.extend_from_slice(&self.read_buffer.split_to(available));
                    available
                } else {
                    if body.capacity() == body.len() {
                        body.reserve(wanted.min(BODY_READ_BYTES));
                    }
                    // Does not read beyond the end of the body, because the next bytes belong to the next request.
                    let free_capacity = body.capacity() - body.len();
                    (&mut self.stream).take(wanted.min(free_capacity) as u64).read_buf(body).await?
                };
                *left -= received as u64;
                if received == 0 { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(received) }
            }
            Framing::Chunks(chunks) => {
                let before = body.len();
                while body.len() == before && !chunks.is_done() {
                    if self.read_buffer.is_empty() {
                        self.read_buffer.reserve(CHUNKED_READ_BYTES);
                        if self.stream.read_buf(&mut self.read_buffer).await? == 0 {
                            return Err(io::ErrorKind::UnexpectedEof.into());
                        }
                    }
                    // Decodes only as many bytes as fit into the free capacity of `body`, because memory is reserved
                    // only for this capacity.
                    let free_capacity = (body.capacity() - body.len()).max(CHUNKED_READ_BYTES_MIN);
                    let next = self.read_buffer.get(..free_capacity).unwrap_or(&self.read_buffer);
                    let trailers = &mut self.trailers;
                    let keep = |b| trailers.iter_mut().for_each(|trailers| trailers.push(b));
                    let read = chunks.read_with_trailers(next, |data| body.extend_from_slice(data), keep);
                    let is_too_large = self.trailers.as_ref().is_some_and(Trailers::is_too_large);
                    let Some(taken) = read.ok().filter(|_| !is_too_large) else {
                        // After a framing error, the rest of the byte stream must not be interpreted.
                        self.body = Framing::Close;
                        return Err(io::ErrorKind::InvalidData.into());
                    };
                    self.read_buffer.advance(taken);
                }
                Ok(body.len() - before)
            }
            // A request never begins with this framing. The code above sets it after a framing error in the body.
            Framing::Close => Err(io::ErrorKind::InvalidData.into()),
        }
    }

    /// Waits until the caller closes the connection or its sending direction. Never returns if the request body or
    /// other bytes of the caller are unread, because the end of the connection comes after these bytes.
    pub(crate) async fn closed(&mut self) {
        while self.body.is_done() && self.read_buffer.is_empty() {
            self.read_buffer.reserve(NEXT_REQUEST_BYTES);
            if !matches!(self.stream.read_buf(&mut self.read_buffer).await, Ok(1..)) {
                return;
            }
        }
        pending().await
    }

    /// Writes the interim response `100 Continue` (RFC 9110 section 10.1.1).
    pub(crate) async fn write_continue(&mut self) -> io::Result<()> {
        self.write_buffer.extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n");
        self.flush_buffer().await
    }

    /// Writes the head of the response to the write buffer. The head is sent together with the first part of the body.
    ///
    /// If the request body is unread and will not be discarded, the connection is closed after the response, because
    /// the beginning of the next request is unknown.
    pub(crate) fn write_head(&mut self, header: &ResponseHeader) {
        let status = header.status;
        let has_no_body = self.request.method == Method::HEAD
            || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        let length = || header.headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok();
        self.response_framing = match (has_no_body, header.headers.contains_key(TRANSFER_ENCODING)) {
            (true, _) => ResponseFraming::NoBody,
            (false, true) => ResponseFraming::Chunks,
            (false, false) => length().map_or(ResponseFraming::Close, ResponseFraming::Length),
        };
        let lines = header.headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes()));
        self.begin_response(status.as_u16(), lines);
    }

    /// Writes the head of the response to the write buffer. The field `response_framing` must already be set.
    fn begin_response<'l>(&mut self, status: u16, lines: impl Iterator<Item = (&'l str, &'l [u8])>) {
        self.keep_alive &=
            self.response_framing != ResponseFraming::Close && (self.drain_body || self.body.is_done());
        self.write_buffer.reserve(RESPONSE_BYTES);
        let proof = self.response_proof.as_ref().and_then(|proof| proof.header(status));
        let name = REPLICA;
        let proof = proof.iter().map(|proof| (name.as_str(), proof.as_bytes()));
        let lines = lines.map(shorter).chain(proof);
        write_response_head(&mut self.write_buffer, status, lines, self.keep_alive);
    }

    /// Writes a complete response with a body. `lines` are its headers, including `Content-Length`.
    pub(super) async fn respond<'l>(
        &mut self,
        status: u16,
        lines: impl Iterator<Item = (&'l str, &'l [u8])>,
        body: &[u8],
    ) -> io::Result<()> {
        self.response_framing = ResponseFraming::NoBody;
        self.begin_response(status, lines);
        if self.request.method != Method::HEAD {
            self.write_buffer.extend_from_slice(body);
        }
        self.flush_buffer().await
    }

    /// Sends the buffered head of the response immediately, although no part of the body is available yet.
    pub(crate) async fn flush_head(&mut self) -> io::Result<()> {
        if self.write_buffer.is_empty() { Ok(()) } else { self.flush_buffer().await }
    }

    /// Ends the response body. A chunked body ends with `trailers`, one per line with CRLF. Any other body ends without
    /// trailers.
    pub(crate) async fn end_with_trailers(&mut self, trailers: &[u8]) -> io::Result<()> {
        if self.response_framing != ResponseFraming::Chunks {
            return self.write_body(&[], true).await;
        }
        for part in [b"0\r\n", trailers, b"\r\n"] {
            self.write_buffer.extend_from_slice(part);
        }
        self.flush_buffer().await
    }

    /// Writes a part of the response body. `end` is true for the last part. If the response has no body, only its head
    /// is written.
    ///
    /// # Errors
    /// Returns an error if the caller closed the connection or was too slow, or if the data does not match
    /// `Content-Length`.
    pub(crate) async fn write_body(&mut self, data: &[u8], end: bool) -> io::Result<()> {
        let is_chunked = match &mut self.response_framing {
            ResponseFraming::NoBody => return self.flush_buffer().await,
            ResponseFraming::Chunks => true,
            ResponseFraming::Close => false,
            ResponseFraming::Length(left) => {
                let rest = left.checked_sub(data.len() as u64).filter(|rest| !end || *rest == 0);
                *left = rest.ok_or(io::ErrorKind::InvalidData)?;
                false
            }
        };
        if is_chunked && !data.is_empty() {
            // Writing to a vector cannot fail.
            let _ = write!(self.write_buffer, "{:x}\r\n", data.len());
        }
        if data.len() <= COPY_BYTES_MAX {
            self.write_buffer.extend_from_slice(data);
        } else {
            self.flush_buffer().await?;
            let written = with_timeout(self.write_timeout, self.stream.write_all(data)).await;
            written.unwrap_or(Err(io::ErrorKind::TimedOut.into()))?;
        }
        if is_chunked && !data.is_empty() {
            self.write_buffer.extend_from_slice(b"\r\n");
        }
        if is_chunked && end {
            self.write_buffer.extend_from_slice(b"0\r\n\r\n");
        }
        self.flush_buffer().await
    }

    /// Writes the buffered bytes to the connection. If the write fails, the bytes are dropped.
    async fn flush_buffer(&mut self) -> io::Result<()> {
        let write_buffer = std::mem::take(&mut self.write_buffer);
        let write = async {
            self.stream.write_all(&write_buffer).await?;
            self.stream.flush().await
        };
        with_timeout(self.write_timeout, write).await.unwrap_or(Err(io::ErrorKind::TimedOut.into()))
    }

    /// Ends the session. If another request may follow, returns the connection and the bytes that were read after the
    /// request. Otherwise closes the connection and returns `None`.
    pub(crate) async fn finish(mut self: Box<Self>) -> Option<(Stream, BytesMut)> {
        if !self.keep_alive || !with_timeout(DRAIN_DEADLINE, self.drain()).await.unwrap_or(false) {
            self.shutdown().await;
            return None;
        }
        // An idle connection needs no buffer.
        let leftover = if self.read_buffer.is_empty() { BytesMut::new() } else { self.read_buffer };
        Some((self.stream, leftover))
    }

    /// Reads and discards the rest of the request body. Returns false if the rest is too large or invalid.
    async fn drain(&mut self) -> bool {
        let mut left = DRAIN_BYTES_MAX;
        while !self.body.is_done() {
            match self.read_body().await {
                Ok(Some(data)) if data.len() as u64 <= left => left -= data.len() as u64,
                Ok(None) => {}
                Ok(Some(_)) | Err(_) => return false,
            }
        }
        true
    }

    /// Closes the connection.
    pub(crate) async fn shutdown(&mut self) {
        // If the response has no body, its head may still be in the buffer.
        if !self.write_buffer.is_empty() {
            let _ = self.flush_buffer().await;
        }
        // Errors and timeouts are ignored, because the connection is dropped next.
        let _ = with_timeout(DRAIN_DEADLINE, self.stream.shutdown()).await;
    }
}
