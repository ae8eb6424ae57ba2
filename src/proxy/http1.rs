//! One message out, one answer back, over a connection that is there: to the agent and to providers alike. A
//! message is one write, and it is never sent a second time.

use std::time::Duration;

use bytes::{Buf, Bytes};
use http::header::TRANSFER_ENCODING;
use pingora::ErrorType;
use pingora::http::ResponseHeader;
use pingora::protocols::Stream;
use pingora::protocols::http::v1::client::HttpSession;
use tokio::io::AsyncWriteExt;
use tokio::time::timeout;

use crate::denial::Denial;

/// Up to this size the body is copied behind the head, which costs less than a second buffer in the write.
const ONE_BUFFER_BYTES_MAX: usize = 16 << 10;

/// A finished message.
pub(super) struct Message {
    /// The HTTP/1.1 head, blank line included.
    pub(super) head: Vec<u8>,
    /// The body.
    pub(super) body: Bytes,
    /// Whether the answer may have a body: not to HEAD.
    pub(super) expects_body: bool,
}

/// Why there is no whole answer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Fault {
    /// It is not HTTP/1.1.
    Garbled,
    /// The connection ended; the message may have arrived.
    Reset,
    /// It took too long; the message may have arrived.
    Timeout,
    /// There is no connection; nothing was sent.
    Unreachable,
}

impl Fault {
    /// The reason, when it is the agent's.
    pub(super) const fn of_agent(self) -> Denial {
        match self {
            Self::Garbled => Denial::AgentGarbled,
            Self::Reset => Denial::AgentReset,
            Self::Timeout => Denial::AgentTimeout,
            Self::Unreachable => Denial::AgentUnreachable,
        }
    }

    /// The reason, when it is a provider's.
    pub(super) const fn of_provider(self) -> Denial {
        match self {
            Self::Garbled => Denial::ProviderGarbled,
            Self::Reset => Denial::ProviderReset,
            Self::Timeout => Denial::ProviderTimeout,
            Self::Unreachable => Denial::ProviderUnreachable,
        }
    }
}

/// An answer: its head is read, its body is still to come.
pub(super) struct Answer {
    session: HttpSession,
    has_body: bool,
}

/// Sends a message and reads the head of the answer, which, like each further piece, may take `patience`.
pub(super) async fn exchange(stream: Stream, message: Message, patience: Duration) -> Result<Answer, Fault> {
    let has_body = message.expects_body;
    let answered = timeout(patience, converse(stream, message)).await;
    let mut session = answered.unwrap_or(Err(Fault::Timeout))?;
    session.read_timeout = Some(patience);
    Ok(Answer { session, has_body })
}

/// Writes the message and reads the head of the answer. A peer may answer and close before it has read everything;
/// such an answer still counts, so a failed write is followed by a look at what came back.
async fn converse(mut stream: Stream, message: Message) -> Result<HttpSession, Fault> {
    let _ = send(&mut stream, message).await;
    let mut session = HttpSession::new(stream);
    final_head(&mut session).await?;
    if session.resp_header().is_some_and(is_coded) { Err(Fault::Garbled) } else { Ok(session) }
}

/// Whether the body has a transfer coding besides `chunked`, which nobody here can undo.
fn is_coded(head: &ResponseHeader) -> bool {
    let mut codings = head.headers.get_all(TRANSFER_ENCODING).iter();
    codings.any(|value| !value.as_bytes().trim_ascii().eq_ignore_ascii_case(b"chunked"))
}

async fn send(stream: &mut Stream, message: Message) -> std::io::Result<()> {
    let Message { mut head, body, .. } = message;
    if body.len() <= ONE_BUFFER_BYTES_MAX {
        head.extend_from_slice(&body);
        stream.write_all(&head).await?;
    } else {
        stream.write_all_buf(&mut Bytes::from(head).chain(body)).await?;
    }
    stream.flush().await
}

/// Reads heads until one is final. A switch of protocols was never asked for.
async fn final_head(session: &mut HttpSession) -> Result<(), Fault> {
    loop {
        session.read_response().await.map_err(|error| fault(error.etype()))?;
        match session.get_status().map(|status| status.as_u16()) {
            Some(200..=599) => return Ok(()),
            Some(100 | 102..=199) => {}
            _ => return Err(Fault::Garbled),
        }
    }
}

fn fault(error: &ErrorType) -> Fault {
    match error {
        ErrorType::ReadTimedout => Fault::Timeout,
        ErrorType::InvalidHTTPHeader => Fault::Garbled,
        _ => Fault::Reset,
    }
}

impl Answer {
    /// The head.
    pub(super) fn head(&self) -> Option<&ResponseHeader> {
        self.session.resp_header()
    }

    /// The status; 0 without one.
    pub(super) fn status(&self) -> u16 {
        self.head().map_or(0, |head| head.status.as_u16())
    }

    /// Whether the peer took the message.
    pub(super) fn is_success(&self) -> bool {
        (200..300).contains(&self.status())
    }

    /// The next piece of the body; `None` at its end.
    pub(super) async fn piece(&mut self) -> Result<Option<Bytes>, Fault> {
        if !self.has_body {
            return Ok(None);
        }
        self.session.read_body_bytes().await.map_err(|error| fault(error.etype()))
    }

    /// Reads what is left of the body, as long as it is not more than this many bytes.
    pub(super) async fn gather(&mut self, bytes_max: usize) -> Result<Vec<Bytes>, Fault> {
        let mut pieces = Vec::new();
        let mut bytes = 0;
        while bytes <= bytes_max
            && let Some(piece) = self.piece().await?
        {
            bytes += piece.len();
            pieces.push(piece);
            if self.is_complete() {
                break;
            }
        }
        Ok(pieces)
    }

    /// Whether the last piece was the last.
    pub(super) fn is_complete(&mut self) -> bool {
        !self.has_body || self.session.is_body_done()
    }

    /// The connection, if it can be used again: its answer was read to its end.
    pub(super) async fn into_connection(mut self) -> Option<Stream> {
        if !self.has_body {
            return None;
        }
        self.session.respect_keepalive();
        self.session.reuse().await
    }
}
