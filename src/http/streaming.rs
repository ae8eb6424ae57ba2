//! Sends a request to an upstream while its body arrives. The request is never in memory as a whole.

use std::io::Write;
use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncWrite, AsyncWriteExt};

use super::client::{Connection, ReceivedHead, ResponseFault, UpstreamResponse, read_final_head, response};
use super::session::Session;
use super::timeouts::{TransferTimer, with_timeout};
use crate::denial::Denial;
use crate::policy::Limits;

/// The head of a request whose body follows while it arrives.
pub(crate) struct StreamedRequest {
    /// The HTTP/1.1 head, including the empty line.
    pub(crate) head: Vec<u8>,
    pub(crate) body: StreamedBody,
    /// Whether the response can have a body. False for HEAD.
    pub(crate) expects_body: bool,
}

/// The framing of the body that follows the head.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum StreamedBody {
    /// There is no body.
    None,
    /// The body has this length in bytes.
    Length(u64),
    /// The body is sent in chunks.
    Chunks,
}

/// The limits for the body of the caller.
pub(crate) struct StreamLimits<'l> {
    pub(crate) bytes_max: u64,
    pub(crate) limits: &'l Limits,
    /// Maximum time for each write to the upstream, and for the head of the response after the whole request was sent.
    pub(crate) upstream_timeout: Duration,
}

/// The side on which passing on a request failed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum StreamError {
    /// The body of the caller is incomplete, too slow or too large.
    Caller(Denial),
    /// The upstream did not take the request or did not answer.
    Upstream(ResponseFault),
}

/// Sends a request while its body arrives, and reads the head of the response. Also returns the number of body bytes
/// that were received.
///
/// A response may arrive before the whole body was sent. The rest of the body is then not read. An early 2xx response
/// is an error, because the upstream has not received the whole request.
pub(crate) async fn exchange_streaming(
    session: &mut Session,
    mut connection: Connection,
    request: StreamedRequest,
    stream_limits: StreamLimits<'_>,
) -> (Result<UpstreamResponse, StreamError>, u64) {
    let (timeout, has_body) = (stream_limits.upstream_timeout, request.body != StreamedBody::None);
    let expects_body = request.expects_body;
    let mut body = CallerBody {
        session,
        timer: TransferTimer::new(stream_limits.limits, stream_limits.limits.body_deadline),
        received: 0,
        bytes_max: stream_limits.bytes_max,
    };
    let received = send_and_receive(&mut body, &mut connection, request, timeout).await;
    let bytes = body.received;
    let answered = received.and_then(|received| {
        response(connection, received, (has_body, expects_body), timeout).map_err(StreamError::Upstream)
    });
    (answered, bytes)
}

async fn send_and_receive(
    body: &mut CallerBody<'_>,
    connection: &mut Connection,
    request: StreamedRequest,
    timeout: Duration,
) -> Result<ReceivedHead, StreamError> {
    let (mut reader, mut writer) = tokio::io::split(&mut connection.stream);
    let mut response = pin!(read_final_head(&mut reader));
    let sent = {
        let sending = pin!(send(body, &mut writer, request, timeout));
        tokio::select! {
            biased;
            early = &mut response => {
                let (head, read) = early.map_err(StreamError::Upstream)?;
                return Ok(ReceivedHead { head, read, is_sent: false });
            }
            sent = sending => sent,
        }
    };
    let is_sent = match sent {
        Ok(()) => true,
        // The upstream may have responded before it closed the connection.
        Err(StreamError::Upstream(ResponseFault::Reset)) => false,
        Err(error) => return Err(error),
    };
    let received = with_timeout(timeout, response).await.unwrap_or(Err(ResponseFault::Timeout));
    let (head, read) = received.map_err(StreamError::Upstream)?;
    Ok(ReceivedHead { head, read, is_sent })
}

/// Writes the head, and then each part of the body when it arrives.
async fn send(
    body: &mut CallerBody<'_>,
    writer: &mut (impl AsyncWrite + Unpin),
    request: StreamedRequest,
    timeout: Duration,
) -> Result<(), StreamError> {
    let framing = request.body;
    write(writer, &request.head, timeout).await?;
    if framing == StreamedBody::None {
        return Ok(());
    }
    while let Some(data) = body.read().await.map_err(StreamError::Caller)? {
        match framing {
            StreamedBody::Chunks => write(writer, &chunk(&data), timeout).await?,
            _ => write(writer, &data, timeout).await?,
        }
    }
    match framing {
        StreamedBody::Length(declared) if declared != body.received => {
            Err(StreamError::Caller(Denial::BodyIncomplete))
        }
        StreamedBody::Chunks => write(writer, b"0\r\n\r\n", timeout).await,
        _ => Ok(()),
    }
}

async fn write(
    writer: &mut (impl AsyncWrite + Unpin),
    bytes: &[u8],
    timeout: Duration,
) -> Result<(), StreamError> {
    let write = async {
        writer.write_all(bytes).await?;
        writer.flush().await
    };
    match with_timeout(timeout, write).await {
        Some(Ok(())) => Ok(()),
        Some(Err(_)) => Err(StreamError::Upstream(ResponseFault::Reset)),
        None => Err(StreamError::Upstream(ResponseFault::Timeout)),
    }
}

/// Returns a part of a body as one chunk (RFC 9112 section 7.1).
fn chunk(data: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(data.len() + 20);
    // Writing to a vector cannot fail.
    let _ = write!(bytes, "{:x}\r\n", data.len());
    bytes.extend_from_slice(data);
    bytes.extend_from_slice(b"\r\n");
    bytes
}

/// The body of a caller, which is read part by part within the limits.
struct CallerBody<'s> {
    session: &'s mut Session,
    timer: TransferTimer<'s>,
    received: u64,
    bytes_max: u64,
}

impl CallerBody<'_> {
    /// Reads the next part, which is not empty. Returns `None` at the end of the body.
    async fn read(&mut self) -> Result<Option<Bytes>, Denial> {
        loop {
            let read = self.timer.step(self.received, self.session.read_body()).await;
            let data = match read {
                None => return Err(Denial::BodyTimeout),
                Some(Err(_)) => return Err(Denial::BodyIncomplete),
                Some(Ok(None)) => return Ok(None),
                Some(Ok(Some(data))) => data,
            };
            self.received += data.len() as u64;
            if self.received > self.bytes_max {
                return Err(Denial::BodyTooLarge);
            }
            // An empty DATA frame of HTTP/2 is not the end of the body, but an empty chunk would be.
            if !data.is_empty() {
                return Ok(Some(data));
            }
        }
    }
}
