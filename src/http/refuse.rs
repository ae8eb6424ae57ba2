//! Refusing: the answer, and what becomes of a body that nobody will read.

use http::Method;
use http::header::EXPECT;
use pingora::protocols::Stream;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use super::body;
use super::response;
use super::server::{DRAIN_BYTES_MAX, DRAIN_DEADLINE, write_answer_head};
use super::session::Session;
use crate::denial::Denial;

/// How much of a larger refused body is thrown away before the connection is closed.
const LINGER_BYTES_MAX: usize = 2 << 20;

/// How much of it at once.
const LINGER_PIECE_BYTES: usize = 16 << 10;

/// How a refusal ended.
#[derive(Clone, Copy)]
pub(crate) struct Refused {
    /// Whether the caller could be told.
    pub(crate) told: bool,
    /// Whether the connection is in a state to take another request.
    pub(crate) reusable: bool,
}

/// Answers a head that is none with a denial, and closes the connection once what is on its way was thrown away: a
/// reset would take the answer with it. Returns whether the caller could be told.
pub(crate) async fn refuse_head(
    mut stream: Stream,
    denial: Denial,
    bodiless: bool,
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
    write_answer_head(&mut written, denial.status(), lines, false);
    if !bodiless {
        written.extend_from_slice(&problem);
    }
    let tell = async {
        stream.write_all(&written).await?;
        stream.flush().await
    };
    let told = matches!(timeout(DRAIN_DEADLINE, tell).await, Ok(Ok(())));
    if told {
        let _ = timeout(DRAIN_DEADLINE, linger(&mut stream)).await;
    }
    told
}

/// Closes the sending side, and discards what the caller still sends until it closes, too.
pub(crate) async fn linger(stream: &mut Stream) {
    let _ = AsyncWriteExt::shutdown(stream).await;
    let (mut piece, mut left) = (vec![0; LINGER_PIECE_BYTES], LINGER_BYTES_MAX);
    while let Ok(bytes @ 1..) = stream.read(&mut piece).await {
        match left.checked_sub(bytes) {
            Some(rest) => left = rest,
            None => return,
        }
    }
}

/// Answers with a denial, and sees to the body that nobody will read: a short one is read to its end, so that the
/// connection stays usable, any other one ends the connection. `declared` is the length of the body, where the head
/// says it; `methods` are the ones that are allowed, for whoever used another.
pub(crate) async fn refuse(
    session: &mut Session,
    denial: Denial,
    declared: Option<u64>,
    methods: &[Method],
    request_id: &str,
    explain: bool,
) -> Refused {
    let unread = !session.is_body_done();
    let expects = session.headers().contains_key(EXPECT);
    let short = declared.is_some_and(|bytes| bytes <= DRAIN_BYTES_MAX);
    let broken = matches!(denial, Denial::BodyIncomplete | Denial::BodyTimeout);
    // Where a body broke, nobody knows where the next request begins, whatever the parser says.
    let keep = !broken && (!unread || (short && !expects));
    session.refuses(keep, DRAIN_DEADLINE);
    let told = response::deny(session, denial, methods, request_id, explain).await;
    // A stream that is let go of with its body unread is reset right behind the answer, and some callers (curl 7.88
    // among them) then take the answer for lost. On HTTP/1.1 a short body is drained with the connection.
    let linger = !keep || session.is_http2();
    if unread && linger && !expects && !broken {
        body::discard(session, LINGER_BYTES_MAX, DRAIN_DEADLINE).await;
    }
    Refused { told, reusable: told && (keep || session.is_http2()) }
}
