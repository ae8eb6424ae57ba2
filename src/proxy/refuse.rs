//! Refusing: the answer, and what becomes of a body that nobody will read.

use std::time::Duration;

use http::Method;
use http::header::EXPECT;
use pingora::protocols::http::ServerSession;

use super::{answer, body};
use crate::denial::Denial;

/// A refused body up to this size is read to its end, so that the connection can be kept.
const DRAIN_BYTES_MAX: u64 = 64 << 10;
/// How long the rest of a refused body may take.
const DRAIN_DEADLINE: Duration = Duration::from_secs(2);
/// How much of a larger refused body is thrown away before the connection is closed.
const LINGER_BYTES_MAX: usize = 2 << 20;

/// How a refusal ended.
#[derive(Clone, Copy)]
pub(super) struct Refused {
    /// Whether the caller could be told.
    pub(super) told: bool,
    /// Whether the connection is in a state to take another request.
    pub(super) reusable: bool,
}

/// Answers with a denial, and sees to the body that nobody will read: a short one is read to its end, so that the
/// connection stays usable, any other one ends the connection. `declared` is the length of the body, where the head
/// says it; `methods` are the ones that are allowed, for whoever used another.
pub(super) async fn refuse(
    session: &mut ServerSession,
    denial: Denial,
    declared: Option<u64>,
    methods: &[Method],
    request_id: &str,
    explain: bool,
) -> Refused {
    let unread = !session.is_body_done();
    let expects = session.get_header(EXPECT).is_some();
    let short = declared.is_some_and(|bytes| bytes <= DRAIN_BYTES_MAX);
    let broken = matches!(denial, Denial::BodyIncomplete | Denial::BodyTimeout);
    // Where a body broke, nobody knows where the next request begins, whatever the parser says.
    let keep = !broken && (!unread || (short && !expects));
    if let ServerSession::H1(h1) = session {
        h1.set_close_on_response_before_downstream_finish(!keep);
        h1.set_total_drain_timeout(Some(DRAIN_DEADLINE));
    }
    if !keep {
        session.set_keepalive(None);
    }
    let told = answer::deny(session, denial, methods, request_id, explain).await;
    // A stream that is let go of with its body unread is reset right behind the answer, and some callers (curl 7.88
    // among them) then take the answer for lost. On HTTP/1.1 a short body is drained with the connection.
    let linger = !keep || session.is_http2();
    if unread && linger && !expects && !broken {
        body::discard(session, LINGER_BYTES_MAX, DRAIN_DEADLINE).await;
    }
    Refused { told, reusable: told && (keep || session.is_http2()) }
}
