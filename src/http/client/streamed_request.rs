//! Sends a request to the agent or a provider while its body still arrives from the caller, and reads the response. The
//! body is not stored, so its size does not depend on the available memory.

use std::io::Write;
use std::pin::pin;
use std::time::Duration;

use http::header::EXPECT;
use tokio::io::{AsyncWrite, AsyncWriteExt};

use super::exchange::{Connection, ReceivedHead, UpstreamResponse};
use super::fault::ResponseFault;
use super::response_head::read_final_head;
use super::upstream::Upstream;
use crate::denial::Denial;
use crate::http::session::{Session, send_continue_if_expected};
use crate::http::timeouts::{TransferTimer, poll_once, with_timeout};
use crate::policy::Limits;

/// A part of the body with at most this size, in bytes, is copied into the write buffer. A larger part is written
/// separately.
const COPIED_MAX: usize = 16 << 10;

/// A request body that is sent while it still arrives from the caller, and the limits of this body.
pub(crate) struct Upload<'s> {
    pub(crate) session: &'s mut Session,
    /// The length in bytes that the head of the request declares. If it is `None`, the body is sent with the chunked
    /// transfer coding.
    pub(crate) length: Option<u64>,
    /// The maximum size of the body, in bytes.
    pub(crate) bytes_max: u64,
    /// The limits for the caller. They contain the minimum transfer rate of the body, and `body_deadline`, which limits
    /// each pause in the body.
    pub(crate) limits: &'s Limits,
    /// The maximum time for receiving and sending the whole body.
    pub(crate) deadline: Duration,
    /// A function that returns true for the names of trailers that must not be sent.
    pub(crate) skip_trailer: &'s (dyn Fn(&str) -> bool + Send + Sync),
    /// The number of bytes of the body that have arrived.
    pub(crate) bytes: u64,
}

/// The reason why there is no response to a streamed request.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum StreamFault {
    /// The caller did not send a valid body, so the request to the agent or the provider is incomplete.
    Body(Denial),
    /// The agent or the provider did not send a valid response.
    Response(ResponseFault),
}

/// The reason why a request could not be sent completely.
enum SendFault {
    Body(Denial),
    /// The agent or the provider closed the connection.
    Closed,
    /// The agent or the provider did not read the request in time.
    Timeout,
}

/// Sends a request and reads the head of the response. `timeout` limits each write, the time between the end of the
/// request and the head of the response, and later each read of the response body. `expects_body` is true if the
/// response can have a body.
///
/// A response may arrive before the whole request was sent. If its status is 2xx, the rest of the request is sent
/// before the response is returned. Otherwise the response is returned immediately.
///
/// Returns `None` if the caller closes its connection while Callgate waits for the response.
///
/// # Errors
/// Returns [`StreamFault`] if there is no response. The agent or the provider may have received the request.
pub(crate) async fn exchange_streamed(
    mut connection: Connection,
    head: Vec<u8>,
    upload: &mut Upload<'_>,
    expects_body: bool,
    timeout: Duration,
) -> Result<Option<UpstreamResponse>, StreamFault> {
    let received = send_and_receive(&mut connection.stream, head, upload, timeout).await?;
    let Some(received) = received else { return Ok(None) };
    let response = received.into_response(connection, true, expects_body, timeout);
    response.map(Some).map_err(StreamFault::Response)
}

async fn send_and_receive(
    stream: &mut Upstream,
    head: Vec<u8>,
    upload: &mut Upload<'_>,
    timeout: Duration,
) -> Result<Option<ReceivedHead>, StreamFault> {
    let (mut reader, mut writer) = tokio::io::split(stream);
    let mut response = pin!(read_final_head(&mut reader, false));
    let mut early = None;
    let sent = {
        let mut send = pin!(upload.send(&mut writer, head, timeout));
        // The write is polled first, so that a response to the complete request is not mistaken for an early response.
        let sent = tokio::select! {
            biased;
            sent = &mut send => Some(sent),
            head = &mut response => {
                early = Some(head.map_err(StreamFault::Response)?);
                None
            }
        };
        let is_accepted = early.as_ref().is_some_and(|(head, _)| head.status.is_success());
        if sent.is_none() && is_accepted { Some(send.await) } else { sent }
    };
    let is_sent = match sent {
        Some(Err(SendFault::Body(denial))) => return Err(StreamFault::Body(denial)),
        Some(Err(SendFault::Timeout)) => return Err(StreamFault::Response(ResponseFault::Timeout)),
        Some(Ok(())) => true,
        // The response is read nevertheless, because the agent or the provider may have sent it before closing the
        // connection.
        Some(Err(SendFault::Closed)) | None => false,
    };
    let received = match early {
        Some(early) => Ok(early),
        None => match upload.session.unless_closed(with_timeout(timeout, response)).await {
            Some(received) => received.unwrap_or(Err(ResponseFault::Timeout)),
            None => return Ok(None),
        },
    };
    let (head, read) = received.map_err(StreamFault::Response)?;
    Ok(Some(ReceivedHead { head, read, is_sent }))
}

impl Upload<'_> {
    /// Sends the head of the request and the whole body.
    async fn send(
        &mut self,
        writer: &mut (impl AsyncWrite + Unpin),
        head: Vec<u8>,
        timeout: Duration,
    ) -> Result<(), SendFault> {
        self.session.keep_trailers();
        let mut timer = TransferTimer::new(self.limits, self.deadline);
        let mut buffer = head;
        // If the beginning of the body has already arrived, it is sent together with the head. Nothing else happens
        // before the head is written, because unexpected bytes that arrive after the check of an idle connection would
        // be mistaken for the response.
        let waits = self.session.headers().contains_key(EXPECT);
        let mut first = if waits { None } else { poll_once(pin!(self.session.read_body())).await };
        if first.is_none() {
            write(writer, &mut buffer, (b"", b""), timeout).await?;
            send_continue_if_expected(self.session).await;
        }
        loop {
            let read = match first.take() {
                Some(read) => Some(read),
                None => {
                    let next = timer.step(self.bytes, self.session.read_body());
                    with_timeout(self.limits.body_deadline, next).await.flatten()
                }
            };
            let read = read.ok_or(SendFault::Body(Denial::BodyTimeout))?;
            let Some(data) = read.map_err(|_| SendFault::Body(Denial::BodyIncomplete))? else {
                return self.end(writer, buffer, timeout).await;
            };
            self.bytes += data.len() as u64;
            if self.bytes > self.bytes_max {
                return Err(SendFault::Body(Denial::BodyTooLarge));
            }
            // An empty DATA frame of HTTP/2 is skipped, because it does not end the body. An empty chunk would end the
            // body.
            if data.is_empty() {
                continue;
            }
            if self.length.is_none() {
                // Writing to a vector cannot fail.
                let _ = write!(buffer, "{:x}\r\n", data.len());
            }
            // The line ending of a chunk is sent together with the chunk, because a receiver may wait for it.
            let end: &[u8] = if self.length.is_none() { b"\r\n" } else { b"" };
            write(writer, &mut buffer, (&data, end), timeout).await?;
        }
    }

    /// Sends the rest of the buffer. For a chunked body, also sends the last chunk and the trailers.
    async fn end(
        &mut self,
        writer: &mut (impl AsyncWrite + Unpin),
        mut buffer: Vec<u8>,
        timeout: Duration,
    ) -> Result<(), SendFault> {
        if self.length.is_some_and(|length| length != self.bytes) {
            return Err(SendFault::Body(Denial::BodyIncomplete));
        }
        if self.length.is_none() {
            let trailers = self.session.trailers().map(|trailers| trailers.sendable(self.skip_trailer));
            for part in [b"0\r\n", trailers.unwrap_or_default().as_slice(), b"\r\n"] {
                buffer.extend_from_slice(part);
            }
        }
        write(writer, &mut buffer, (b"", b""), timeout).await
    }
}

/// Writes the buffer, then the data, and then `end`, the line ending of a chunk. Clears the buffer.
async fn write(
    writer: &mut (impl AsyncWrite + Unpin),
    buffer: &mut Vec<u8>,
    (data, end): (&[u8], &[u8]),
    timeout: Duration,
) -> Result<(), SendFault> {
    let is_copied = data.len() <= COPIED_MAX;
    if is_copied {
        buffer.extend_from_slice(data);
        buffer.extend_from_slice(end);
    }
    let written = with_timeout(timeout, async {
        writer.write_all(buffer).await?;
        if !is_copied {
            writer.write_all(data).await?;
            writer.write_all(end).await?;
        }
        writer.flush().await
    });
    let written = written.await;
    buffer.clear();
    match written {
        Some(Ok(())) => Ok(()),
        Some(Err(_)) => Err(SendFault::Closed),
        None => Err(SendFault::Timeout),
    }
}
