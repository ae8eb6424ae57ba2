//! Parses a response from bytes instead of a connection, for fuzzing and tests.

use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};

use http::{HeaderMap, StatusCode};
use tokio::io::{AsyncRead, ReadBuf};

use super::response_head::{framing, read_final_head};
use crate::framing::Framing;

/// A response that [`read_response`] has parsed from a byte string.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ResponseBytes {
    /// The status code.
    pub status: StatusCode,
    /// The headers, as received.
    pub headers: HeaderMap,
    /// The body, without chunk framing. If the byte string ends before the end of the body, this is only the beginning
    /// of the body.
    pub body: Vec<u8>,
    /// Whether the byte string contains the whole body. Always true for a body without chunks and without
    /// `Content-Length`, because this body extends to the end of the byte string.
    pub is_complete: bool,
    /// Whether the framing was unambiguous. After a response with ambiguous framing, Callgate does not reuse the
    /// connection.
    pub is_unambiguous: bool,
    /// The number of bytes that follow the end of the response body.
    pub rest: usize,
}

/// Parses the response at the beginning of `bytes`. Simulates reads of at most `step` bytes each. `expects_body` must
/// be false for responses to HEAD. Returns `None` if there is no valid head, or if the chunked coding of the body is
/// malformed.
pub fn read_response(bytes: &[u8], step: usize, expects_body: bool) -> Option<ResponseBytes> {
    let mut pieces = Pieces { rest: bytes, step: step.max(1) };
    let read = match pin!(read_final_head(&mut pieces, false)).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(read) => read,
        // Reading from `Pieces` never waits.
        Poll::Pending => return None,
    };
    let (head, read) = read.ok()?;
    let after_head = [&read[..], pieces.rest].concat();
    let (mut framing, _, is_unambiguous) = framing(&head, expects_body).ok()?;
    let mut body = Vec::new();
    let taken = match &mut framing {
        Framing::Close => {
            body.extend_from_slice(&after_head);
            after_head.len()
        }
        Framing::Length(length) => {
            let available = usize::try_from(*length).unwrap_or(usize::MAX).min(after_head.len());
            body.extend_from_slice(after_head.get(..available)?);
            *length -= available as u64;
            available
        }
        Framing::Chunks(chunks) => {
            let mut taken = 0;
            for piece in after_head.chunks(step.max(1)) {
                taken += chunks.read(piece, |data| body.extend_from_slice(data)).ok()?;
                if chunks.is_done() {
                    break;
                }
            }
            taken
        }
    };
    let is_complete = matches!(framing, Framing::Close) || framing.is_done();
    let rest = after_head.len() - taken;
    Some(ResponseBytes {
        status: head.status,
        headers: head.headers,
        body,
        is_complete,
        is_unambiguous,
        rest,
    })
}

/// A stream over a byte slice. Each read returns at most `step` bytes.
struct Pieces<'b> {
    rest: &'b [u8],
    step: usize,
}

impl AsyncRead for Pieces<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let length = self.step.min(self.rest.len()).min(buffer.remaining());
        if let Some((piece, rest)) = self.rest.split_at_checked(length) {
            buffer.put_slice(piece);
            self.rest = rest;
        }
        Poll::Ready(Ok(()))
    }
}
