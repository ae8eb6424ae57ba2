//! The client's side of HTTP/1, towards the agent and towards providers: one message out, one answer back, over a
//! connection that is already there. A message is never sent a second time.

use std::pin::pin;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use http::header::CONTENT_LENGTH;
use http::{HeaderMap, StatusCode};
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::fault::ResponseFault;
use super::response_head::{ResponseHead, final_head, framing};
use super::upstream::Upstream;
use crate::framing::Framing;
use crate::http::timeouts::{ReusableTimer, at_once};
use crate::request::lasts;

/// Up to this size the body is copied behind the head, which costs less than a second buffer in the write.
const ONE_BUFFER_BYTES_MAX: usize = 16 << 10;
/// What is read of a body at once, at most, in bytes.
const PIECE_BYTES: usize = 32 << 10;

/// A finished message.
pub(crate) struct Message {
    /// The HTTP/1.1 head, blank line included.
    pub(crate) head: Vec<u8>,
    /// The body.
    pub(crate) body: Bytes,
    /// Whether the answer may have a body: not to HEAD.
    pub(crate) expects_body: bool,
}

/// A connection to whoever answers, and its timer.
pub(crate) struct Connection {
    pub(crate) stream: Upstream,
    /// The generation of the pool when the connection was made.
    pub(crate) generation: u64,
    alarm: ReusableTimer,
}

impl Connection {
    pub(crate) fn new(stream: Upstream, generation: u64) -> Self {
        Self { stream, generation, alarm: ReusableTimer::default() }
    }
}

/// An answer: its head is read, its body is still to come.
pub(crate) struct UpstreamResponse {
    connection: Connection,
    status: StatusCode,
    headers: HeaderMap,
    /// What is still to come of the body.
    body: Framing,
    /// What was read and not taken.
    read: Bytes,
    /// Whether the connection can be used again once the body is read to its end.
    keep: bool,
    patience: Duration,
}

/// Sends a message and reads the head of the answer, which, like each further piece, may take `patience`.
///
/// An answer may come before the message was sent to its end: a peer that refuses a large body need not read it. Such an
/// answer ends its connection, and it counts only if it reports a failure.
pub(crate) async fn exchange(
    mut connection: Connection,
    message: Message,
    patience: Duration,
) -> Result<UpstreamResponse, ResponseFault> {
    let expects_body = message.expects_body;
    let Connection { stream, alarm, .. } = &mut connection;
    let answered = alarm.within(patience, converse(stream, message)).await;
    let Conversation { head, read, is_sent } = answered.unwrap_or(Err(ResponseFault::Timeout))?;
    if !is_sent && head.status.is_success() {
        return Err(ResponseFault::Early);
    }
    let (body, length, unambiguous) = framing(&head, expects_body)?;
    let ResponseHead { status, version, mut headers } = head;
    let lasts = lasts(version, &headers) && !matches!(body, Framing::Close);
    // Whoever sends a body behind an answer to HEAD all the same does so when nobody looks.
    let keep = lasts && unambiguous && expects_body && is_sent;
    // A length that was said more than once is passed on once, and one that does not count is not.
    match length {
        Some(length) => drop(headers.insert(CONTENT_LENGTH, length.into())),
        None => drop(headers.remove(CONTENT_LENGTH)),
    }
    Ok(UpstreamResponse { connection, status, headers, body, read, keep, patience })
}

/// The head of an answer, and how far the message had been sent when it came.
struct Conversation {
    head: ResponseHead,
    /// What was read behind the head.
    read: Bytes,
    /// Whether the whole message was sent.
    is_sent: bool,
}

/// Writes the message and reads the head of the answer: one after the other if the message can be written without
/// waiting, else at the same time. A failed write is followed by a look at what came back.
async fn converse(stream: &mut Upstream, message: Message) -> Result<Conversation, ResponseFault> {
    let Message { mut head, body, .. } = message;
    let behind = if body.len() <= ONE_BUFFER_BYTES_MAX {
        head.extend_from_slice(&body);
        Bytes::new()
    } else {
        body
    };
    let mut rest = Bytes::from(head).chain(behind);
    let sent = at_once(pin!(send(stream, &mut rest)).as_mut()).await;
    if let Some(sent) = sent {
        let (head, read) = final_head(stream).await?;
        return Ok(Conversation { head, read, is_sent: sent.is_ok() });
    }
    // Boxed: most messages need no such room.
    Box::pin(converse_both_ways(stream, rest)).await
}

async fn converse_both_ways(
    stream: &mut Upstream,
    mut rest: impl Buf,
) -> Result<Conversation, ResponseFault> {
    let (mut reader, mut writer) = tokio::io::split(stream);
    let mut answer = pin!(final_head(&mut reader));
    let sent = tokio::select! {
        biased;
        early = &mut answer => {
            let (head, read) = early?;
            return Ok(Conversation { head, read, is_sent: false });
        }
        sent = send(&mut writer, &mut rest) => sent,
    };
    let (head, read) = answer.await?;
    Ok(Conversation { head, read, is_sent: sent.is_ok() })
}

/// Writes what is left of a message. Can be dropped and begun again.
async fn send(stream: &mut (impl AsyncWrite + Unpin), rest: &mut impl Buf) -> std::io::Result<()> {
    stream.write_all_buf(rest).await?;
    stream.flush().await
}

impl UpstreamResponse {
    /// The headers.
    pub(crate) fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    /// The status.
    pub(crate) fn status(&self) -> StatusCode {
        self.status
    }

    /// Whether the peer took the message.
    pub(crate) fn is_success(&self) -> bool {
        self.status.is_success()
    }

    /// The next piece of the body; `None` at its end.
    pub(crate) async fn piece(&mut self) -> Result<Option<Bytes>, ResponseFault> {
        while !self.body.is_done() {
            if self.read.is_empty() {
                let came = self.more().await.ok_or(ResponseFault::Timeout)?;
                if came.map_err(|_| ResponseFault::Reset)? == 0 {
                    let is_end = matches!(self.body, Framing::Close);
                    self.is_over();
                    return if is_end { Ok(None) } else { Err(ResponseFault::Reset) };
                }
            }
            match &mut self.body {
                Framing::Close => return Ok(Some(std::mem::take(&mut self.read))),
                Framing::Length(left) => {
                    let here = usize::try_from(*left).unwrap_or(usize::MAX).min(self.read.len());
                    *left -= here as u64;
                    return Ok(Some(self.read.split_to(here)));
                }
                Framing::Chunks(chunks) => {
                    let mut data = BytesMut::new();
                    let Ok(taken) = chunks.read(&self.read, |bytes| data.extend_from_slice(bytes)) else {
                        self.is_over();
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

    /// Nothing more is read of this connection.
    fn is_over(&mut self) {
        (self.body, self.keep) = (Framing::Length(0), false);
    }

    /// Reads on, for as long as that may take, and returns how many bytes came.
    async fn more(&mut self) -> Option<std::io::Result<usize>> {
        let room = match self.body {
            Framing::Length(left) => usize::try_from(left).unwrap_or(usize::MAX).min(PIECE_BYTES),
            Framing::Chunks(_) | Framing::Close => PIECE_BYTES,
        };
        let mut read = BytesMut::with_capacity(room);
        let Connection { stream, alarm, .. } = &mut self.connection;
        let came = alarm.within(self.patience, stream.read_buf(&mut read)).await;
        self.read = read.freeze();
        came
    }

    /// Reads what is left of the body, as long as it is not more than this many bytes.
    pub(crate) async fn gather(&mut self, bytes_max: usize) -> Result<Bytes, ResponseFault> {
        // Copied: a piece of one byte would hold the room of many.
        let mut gathered = BytesMut::new();
        while gathered.len() <= bytes_max
            && let Some(piece) = self.piece().await?
        {
            gathered.extend_from_slice(&piece);
        }
        Ok(gathered.freeze())
    }

    /// Whether the last piece was the last.
    pub(crate) fn is_complete(&self) -> bool {
        self.body.is_done()
    }

    /// The connection, if it can be used again: its answer was read to its end, and nothing came behind it.
    pub(crate) fn into_connection(self) -> Option<Connection> {
        (self.keep && self.body.is_done() && self.read.is_empty()).then_some(self.connection)
    }
}
