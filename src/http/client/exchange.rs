//! The HTTP/1 client for one request and its response: sends a request over an established connection to the agent or a
//! provider, and reads the response. A request is never sent a second time.

use std::io::ErrorKind;
use std::pin::pin;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use http::header::CONTENT_LENGTH;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::fault::ResponseFault;
use super::response_head::{ResponseHead, framing, read_final_head};
use super::upstream::Upstream;
use crate::framing::{Framing, Trailers};
use crate::http::timeouts::{ReusableTimer, poll_once};
use crate::request::lasts;

/// A request body of at most this size, in bytes, is copied into the buffer of the head. For such a small body, copying
/// costs less than writing from two buffers.
const ONE_BUFFER_BYTES_MAX: usize = 16 << 10;
/// The maximum size of one read of a response body, in bytes.
const READ_BYTES: usize = 32 << 10;

/// A complete HTTP/1.1 request in wire format.
pub(crate) struct Message {
    /// The head of the request, including the empty line. A small body follows in the same buffer.
    head: Bytes,
    /// The body, if it is too large for the buffer of the head. Otherwise empty, because that buffer has the body.
    body: Bytes,
    /// Whether the request has a body.
    has_body: bool,
    /// Whether the response can have a body. False for the method HEAD.
    expects_body: bool,
    /// Whether the request asks for a protocol upgrade, so that the response can have status 101.
    is_upgrade: bool,
}

impl Message {
    /// Creates a request from a complete head and a body. The buffers are prepared before a connection is chosen, so
    /// that the request can be written immediately after the check of an idle connection. Unexpected bytes that arrive
    /// between the check and the write would be mistaken for the response.
    pub(crate) fn new(mut head: Vec<u8>, body: Bytes, expects_body: bool) -> Self {
        let has_body = !body.is_empty();
        if body.len() > ONE_BUFFER_BYTES_MAX {
            return Self { head: head.into(), body, has_body, expects_body, is_upgrade: false };
        }
        head.extend_from_slice(&body);
        Self { head: head.into(), body: Bytes::new(), has_body, expects_body, is_upgrade: false }
    }

    /// Sets whether the request asks for a protocol upgrade.
    pub(crate) fn with_upgrade(self, is_upgrade: bool) -> Self {
        Self { is_upgrade, ..self }
    }
}

/// A connection to the agent or a provider, with a timer for its timeouts.
pub(crate) struct Connection {
    pub(crate) stream: Upstream,
    /// The generation of the connection pool at the time when the connection was opened.
    pub(crate) generation: u64,
    timer: ReusableTimer,
}

impl Connection {
    pub(crate) fn new(stream: Upstream, generation: u64) -> Self {
        Self { stream, generation, timer: ReusableTimer::default() }
    }
}

/// A response from the agent or a provider. Its head was read, and its body may still be unread.
pub(crate) struct UpstreamResponse {
    /// The connection to the agent or the provider. `None` after it was taken for reuse.
    connection: Option<Connection>,
    status: StatusCode,
    headers: HeaderMap,
    /// The framing of the part of the body that was not read yet.
    body: Framing,
    /// The bytes that were received from the connection, but not consumed yet.
    read: Bytes,
    /// The trailers of the body. `None` if trailers are ignored.
    trailers: Option<Trailers>,
    /// Whether the connection is reusable after the body has been read.
    keep_alive: bool,
    timeout: Duration,
}

/// Sends a request and reads the head of the response. `timeout` limits the time until the head has arrived, and later
/// the time of each read of the body.
///
/// A response may arrive before the whole request was sent, because a peer that denies a large body does not have to
/// read the body. After such an early response, the connection is closed. An early response with status 2xx or 101 is
/// an error.
///
/// # Errors
/// Returns a [`ResponseFault`] if there is no valid response. After any fault except `Unreachable`, the peer may have
/// received the request.
pub(crate) async fn exchange(
    mut connection: Connection,
    message: Message,
    timeout: Duration,
) -> Result<UpstreamResponse, ResponseFault> {
    let Message { has_body, expects_body, .. } = message;
    let Connection { stream, timer, .. } = &mut connection;
    let received = timer.with_timeout(timeout, send_and_receive(stream, message)).await;
    let received = received.unwrap_or(Err(ResponseFault::Timeout))?;
    received.into_response(connection, has_body, expects_body, timeout)
}

/// The head of a response, and whether the whole request had been sent when the head arrived.
pub(super) struct ReceivedHead {
    pub(super) head: ResponseHead,
    /// The bytes that were read after the head.
    pub(super) read: Bytes,
    /// Whether the whole request had been sent when the head arrived.
    pub(super) is_sent: bool,
}

impl ReceivedHead {
    /// Determines the framing of the body and returns the response. `has_body` is true if the request had a body, and
    /// `expects_body` is true if the response can have a body.
    pub(super) fn into_response(
        self,
        connection: Connection,
        has_body: bool,
        expects_body: bool,
        timeout: Duration,
    ) -> Result<UpstreamResponse, ResponseFault> {
        let Self { head, read, is_sent } = self;
        let is_http = head.status != StatusCode::SWITCHING_PROTOCOLS;
        if !is_sent && (head.status.is_success() || !is_http) {
            return Err(ResponseFault::Early);
        }
        let (body, length, unambiguous) = framing(&head, expects_body)?;
        let ResponseHead { status, version, mut headers } = head;
        let is_persistent = lasts(version, &headers) && !matches!(body, Framing::Close);
        // After HEAD, the connection is not reused, because the peer may send a body by mistake. The connection is also
        // not reused after a response other than 2xx to a request with a body. The body may have been written although
        // the peer has not read it. The peer could then read the body as the next request.
        let body_may_be_unread = has_body && !status.is_success();
        let keep_alive =
            is_persistent && unambiguous && expects_body && is_sent && !body_may_be_unread && is_http;
        // The equal values of several `Content-Length` headers are relayed as one value. If a transfer coding overrides
        // `Content-Length`, the header is removed.
        match length {
            Some(length) => drop(headers.insert(CONTENT_LENGTH, length.into())),
            None => drop(headers.remove(CONTENT_LENGTH)),
        }
        let connection = Some(connection);
        Ok(UpstreamResponse { connection, status, headers, body, read, trailers: None, keep_alive, timeout })
    }
}

/// Writes the request and reads the head of the response. If the request cannot be written without waiting, writing and
/// reading run concurrently. A response is also read after a failed write, because the peer may have responded before
/// it closed the connection.
async fn send_and_receive(stream: &mut Upstream, message: Message) -> Result<ReceivedHead, ResponseFault> {
    let is_upgrade = message.is_upgrade;
    let mut rest = message.head.chain(message.body);
    let sent = poll_once(pin!(send(stream, &mut rest)).as_mut()).await;
    if let Some(sent) = sent {
        let (head, read) = read_final_head(stream, is_upgrade).await?;
        return Ok(ReceivedHead { head, read, is_sent: sent.is_ok() });
    }
    // This future is boxed, because few requests need it.
    Box::pin(send_and_receive_concurrently(stream, rest, is_upgrade)).await
}

async fn send_and_receive_concurrently(
    stream: &mut Upstream,
    mut rest: impl Buf,
    is_upgrade: bool,
) -> Result<ReceivedHead, ResponseFault> {
    let (mut reader, mut writer) = tokio::io::split(stream);
    let mut response = pin!(read_final_head(&mut reader, is_upgrade));
    let sent = tokio::select! {
        biased;
        early = &mut response => {
            let (head, read) = early?;
            return Ok(ReceivedHead { head, read, is_sent: false });
        }
        sent = send(&mut writer, &mut rest) => sent,
    };
    let (head, read) = response.await?;
    Ok(ReceivedHead { head, read, is_sent: sent.is_ok() })
}

/// Writes the rest of a request. This function is cancel-safe, because `rest` advances with each write.
async fn send(stream: &mut (impl AsyncWrite + Unpin), rest: &mut impl Buf) -> std::io::Result<()> {
    while rest.has_remaining() {
        // One buffer is written without a list of buffers, because such a list costs the kernel more time.
        let is_one_buffer = rest.chunk().len() == rest.remaining();
        let written = match is_one_buffer {
            true => stream.write(rest.chunk()).await.inspect(|written| rest.advance(*written)),
            false => stream.write_buf(rest).await,
        };
        if written.as_ref().is_err_and(|error| error.kind() == ErrorKind::Interrupted) {
            continue;
        }
        if written? == 0 {
            return Err(ErrorKind::WriteZero.into());
        }
    }
    stream.flush().await
}

impl UpstreamResponse {
    /// Removes each header whose name satisfies `condition`.
    pub(crate) fn remove_headers(&mut self, condition: impl Fn(&HeaderName) -> bool) {
        let names: Vec<_> = self.headers.keys().filter(|name| condition(name)).cloned().collect();
        for name in names {
            self.headers.remove(name);
        }
    }

    /// Replaces all values of a header. `None` removes the header.
    pub(crate) fn set_header(&mut self, name: &HeaderName, value: Option<&str>) {
        self.headers.remove(name);
        if let Some(value) = value.and_then(|value| HeaderValue::from_str(value).ok()) {
            self.headers.insert(name.clone(), value);
        }
    }

    /// Replaces each value of the header `name` by the result of `replacement`. If the result is `None`, the value
    /// stays.
    pub(crate) fn replace_values(
        &mut self,
        name: &HeaderName,
        replacement: impl Fn(&HeaderValue) -> Option<HeaderValue>,
    ) {
        for (_, value) in self.headers.iter_mut().filter(|(other, _)| *other == name) {
            if let Some(replaced) = replacement(value) {
                *value = replaced;
            }
        }
    }

    /// Returns the headers of the response.
    pub(crate) fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    /// Returns the status of the response.
    pub(crate) fn status(&self) -> StatusCode {
        self.status
    }

    /// Reports whether the status is 2xx.
    pub(crate) fn is_success(&self) -> bool {
        self.status.is_success()
    }

    /// Reads the next part of the response body. Returns `None` at the end of the body.
    pub(crate) async fn read_body(&mut self) -> Result<Option<Bytes>, ResponseFault> {
        while !self.body.is_done() {
            if self.read.is_empty() {
                let received = self.read_more().await.ok_or(ResponseFault::Timeout)?;
                if received.map_err(|_| ResponseFault::Reset)? == 0 {
                    let is_end = matches!(self.body, Framing::Close);
                    self.abandon_body();
                    return if is_end { Ok(None) } else { Err(ResponseFault::Reset) };
                }
            }
            match &mut self.body {
                Framing::Close => return Ok(Some(std::mem::take(&mut self.read))),
                Framing::Length(left) => {
                    let available = usize::try_from(*left).unwrap_or(usize::MAX).min(self.read.len());
                    *left -= available as u64;
                    return Ok(Some(self.read.split_to(available)));
                }
                Framing::Chunks(chunks) => {
                    let mut data = BytesMut::new();
                    let trailers = &mut self.trailers;
                    let keep = |b| trailers.iter_mut().for_each(|trailers| trailers.push(b));
                    let read =
                        chunks.read_with_trailers(&self.read, |bytes| data.extend_from_slice(bytes), keep);
                    let is_too_large = self.trailers.as_ref().is_some_and(Trailers::is_too_large);
                    let Some(taken) = read.ok().filter(|_| !is_too_large) else {
                        self.abandon_body();
                        return Err(ResponseFault::Garbled);
                    };
                    self.read.advance(taken);
                    if !data.is_empty() {
                        return Ok(Some(data.freeze()));
                    }
                }
            }
        }
        Ok(None)
    }

    /// Ends the body, although its end was not received. The connection is not reused.
    fn abandon_body(&mut self) {
        (self.body, self.keep_alive) = (Framing::Length(0), false);
    }

    /// Reads more bytes from the connection. Returns the number of bytes, or `None` on a timeout.
    async fn read_more(&mut self) -> Option<std::io::Result<usize>> {
        let capacity = match self.body {
            Framing::Length(left) => usize::try_from(left).unwrap_or(usize::MAX).min(READ_BYTES),
            Framing::Chunks(_) | Framing::Close => READ_BYTES,
        };
        // After the connection was taken, there is nothing left to read.
        let Some(Connection { stream, timer, .. }) = &mut self.connection else { return Some(Ok(0)) };
        let mut read = BytesMut::with_capacity(capacity);
        let received = timer.with_timeout(self.timeout, stream.read_buf(&mut read)).await;
        self.read = read.freeze();
        received
    }

    /// Reads the body to its end, or until more than `bytes_max` bytes were read. Returns the bytes that were read.
    pub(crate) async fn read_up_to(&mut self, bytes_max: usize) -> Result<Bytes, ResponseFault> {
        // The data is copied, because a slice of one byte would prevent the release of its whole read buffer.
        let mut body = BytesMut::new();
        while body.len() <= bytes_max
            && let Some(data) = self.read_body().await?
        {
            body.extend_from_slice(&data);
        }
        Ok(body.freeze())
    }

    /// Enables storing the trailers of the response body. Must be called before the body is read.
    pub(crate) fn keep_trailers(&mut self) {
        self.trailers = Some(Trailers::default());
    }

    /// Reports whether this response stores the trailers of its body.
    pub(crate) fn keeps_trailers(&self) -> bool {
        self.trailers.is_some()
    }

    /// Returns the trailers that may be relayed, one per line with CRLF. They are complete only at the end of the body.
    pub(crate) fn trailers(&self) -> Vec<u8> {
        self.trailers.as_ref().map_or_else(Vec::new, |trailers| trailers.sendable(|_| false))
    }

    /// Removes each trailer whose name satisfies `is_removed`.
    pub(crate) fn remove_trailers(&mut self, is_removed: impl Fn(&str) -> bool) {
        if let Some(trailers) = &mut self.trailers {
            trailers.remove(is_removed);
        }
    }

    /// Returns the connection after a response with status 101, and the bytes that were read after the head of the
    /// response. Returns `None` for any other status.
    pub(crate) fn into_upgraded(self) -> Option<(Upstream, Bytes)> {
        let connection = self.connection.filter(|_| self.status == StatusCode::SWITCHING_PROTOCOLS)?;
        Some((connection.stream, self.read))
    }

    /// Reports whether the whole response body has been read.
    pub(crate) fn is_complete(&self) -> bool {
        self.body.is_done()
    }

    /// Takes the connection. Returns `None` if the connection is not reusable. It is reusable if the peer keeps it
    /// open, the response was read to its end, and no bytes followed.
    pub(crate) fn take_connection(&mut self) -> Option<Connection> {
        let is_reusable = self.keep_alive && self.body.is_done() && self.read.is_empty();
        if is_reusable { self.connection.take() } else { None }
    }
}

#[cfg(test)]
#[path = "exchange_tests.rs"]
mod tests;
