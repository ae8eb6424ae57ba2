//! Writes denials, and discards the unread body of a denied request.

use http::Method;
use http::header::EXPECT;
use pingora::protocols::Stream;
use tokio::io::AsyncWriteExt;
use tokio::time::timeout;

use super::http1_session::{DRAIN_BYTES_MAX, DRAIN_DEADLINE};
use super::lingering_close;
use super::response;
use super::response_head::write_response_head;
use super::session::Session;
use crate::denial::Denial;

/// The result of writing a denial to the caller.
#[derive(Clone, Copy)]
pub(crate) struct DenialResult {
    /// Whether the response was written.
    pub(crate) was_written: bool,
    /// Whether the connection can carry another request.
    pub(crate) reusable: bool,
}

/// Writes a denial for a malformed head and closes the connection. Discards the bytes that the caller still sends,
/// because unread bytes would cause a TCP reset that destroys the response. Returns whether the response was written.
/// If `is_head_request` is true, the response has no body (RFC 9110 section 9.3.2).
pub(crate) async fn deny_head(
    mut stream: Stream,
    denial: Denial,
    is_head_request: bool,
    request_id: &str,
    explain: bool,
) -> bool {
    let problem = response::problem(denial, request_id, explain);
    let length = problem.len().to_string();
    let lines = [
        ("content-type", b"application/problem+json".as_slice()),
        ("content-length", length.as_bytes()),
        ("cache-control", b"no-store"),
    ];
    let mut written = Vec::new();
    write_response_head(&mut written, denial.status(), lines, false);
    if !is_head_request {
        written.extend_from_slice(&problem);
    }
    let write = async {
        stream.write_all(&written).await?;
        stream.flush().await
    };
    let was_written = matches!(timeout(DRAIN_DEADLINE, write).await, Ok(Ok(())));
    if was_written {
        let _ = timeout(DRAIN_DEADLINE, lingering_close::close(&mut stream)).await;
    }
    was_written
}

/// Discards the request body that is still unread after the response was written. Otherwise a TCP reset (or on HTTP/2,
/// a reset of the stream) could destroy the response before the caller reads it.
pub(crate) async fn discard_unread_body(session: &mut Session) {
    if !session.is_body_done() {
        session.close_after_response();
        lingering_close::discard_body(session, DRAIN_DEADLINE).await;
    }
}

/// Writes a denial and handles the unread request body. On HTTP/1, a short unread body is read to its end, so that the
/// connection stays usable. The connection is closed if the unread body is long, has no declared length, or was
/// announced with `Expect`.
///
/// `declared` is the declared length of the body, in bytes. `methods` are the allowed methods. A response with status
/// 405 lists them in `Allow`.
pub(crate) async fn deny(
    session: &mut Session,
    denial: Denial,
    declared: Option<u64>,
    methods: &[Method],
    request_id: &str,
    explain: bool,
) -> DenialResult {
    let has_unread_body = !session.is_body_done();
    let expects_continue = session.headers().contains_key(EXPECT);
    let is_short = declared.is_some_and(|bytes| bytes <= DRAIN_BYTES_MAX);
    let is_truncated = matches!(denial, Denial::BodyIncomplete | Denial::BodyTimeout);
    // After an error in the body, the position of the next request is unknown, even if the parser reports the body as
    // complete.
    let keep_alive = !is_truncated && (!has_unread_body || (is_short && !expects_continue));
    session.prepare_denial(keep_alive, DRAIN_DEADLINE);
    let was_written = response::write_denial(session, denial, methods, request_id, explain).await;
    // If an HTTP/2 stream ends while its request body is unread, pingora resets the stream directly after the response.
    // Some callers (for example curl 7.88) then discard the response. The body is therefore read before the stream
    // ends. On HTTP/1.1, a short body is read at the end of the session.
    let linger = !keep_alive || session.is_http2();
    if has_unread_body && linger && !expects_continue && !is_truncated {
        lingering_close::discard_body(session, DRAIN_DEADLINE).await;
    }
    DenialResult { was_written, reusable: was_written && (keep_alive || session.is_http2()) }
}
