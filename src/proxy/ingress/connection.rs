//! One connection: its requests one after the other (HTTP/1), or at once (HTTP/2).

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::BytesMut;
use pingora::protocols::http::ServerSession;
use pingora::protocols::http::v2::server::{H2Accept, H2Options, HttpSession, default_h2_options, handshake};
use pingora::protocols::{ALPN, Digest, Stream};
use pingora::server::ShutdownWatch;
use tokio::sync::Notify;

use super::context::IngressContext;
use super::exchange;
use crate::denial::Denial;
use crate::http::{
    BufferedIo, FAREWELL, HeadRead, Http1, Reserved, ReusableTimer, Session, request_head, within,
};
use crate::policy::Limits;
use crate::proxy::listen::ConnInfo;

/// Most requests of one connection of HTTP/2 that are none: whoever sends more has a reason.
const MALFORMED_MAX: usize = 32;
/// How much of an answer waits for a caller of HTTP/2 that does not read it, in bytes.
const SEND_BUFFER_BYTES: usize = 64 << 10;
/// Most streams of one connection that end in an error of the caller's.
const ERROR_RESETS_MAX: usize = 64;
/// How many times as many streams there may be as are open: one that was reset, or has its answer, goes on for a while.
const CROWD: usize = 2;
/// What a header line takes besides its text, in bytes.
const LINE_BYTES: usize = 128;

/// Serves a connection until it ends.
pub(crate) async fn serve(
    context: Arc<IngressContext>,
    stream: Stream,
    link: ConnInfo,
    stopping: ShutdownWatch,
) {
    let link = Arc::new(link);
    if agreed_on_http2(&stream) {
        return Box::pin(http2(context, stream, link, stopping)).await;
    }
    if let Some(stream) = http1(&context, stream, &link).await {
        Box::pin(http2(context, stream, link, stopping)).await;
    }
}

/// Serves one request after the other. Hands the connection back when it begins as HTTP/2 does.
async fn http1(context: &Arc<IngressContext>, mut stream: Stream, link: &ConnInfo) -> Option<Stream> {
    let plain = stream.get_ssl_digest().is_none();
    // What was read behind the last request; `None` before the first.
    let (mut behind, mut alarm) = (None, ReusableTimer::default());
    loop {
        let limits = || context.policy.load().limits;
        let came = match behind.take() {
            None => request_head::first(&mut stream, plain, &mut alarm, &limits()).await,
            Some(behind) => {
                request_head::next(&mut stream, behind, limits().idle_timeout, &mut alarm, limits).await
            }
        };
        // A connection whose settings a reload has withdrawn ends here. A caller that connects again is judged anew.
        if matches!(came, HeadRead::Request(..)) && !link.holds() {
            return None;
        }
        let session = match came {
            HeadRead::Request(request, behind) => Http1::new(stream, request, behind),
            HeadRead::Preface(bytes) => return put_back(stream, bytes),
            HeadRead::HeadError(unusable) => {
                Box::pin(exchange::refuse_head(context, stream, link, unusable)).await;
                return None;
            }
            HeadRead::Nothing => {
                within(FAREWELL, stream.shutdown()).await;
                return None;
            }
        };
        // Boxed: an idle connection should not carry the room of an exchange.
        let session = Session::Http1(Box::new(session));
        let (back, read) = Box::pin(exchange::serve(context, session, link)).await?;
        (stream, behind) = (back, Some(read));
    }
}

fn put_back(stream: Stream, bytes: BytesMut) -> Option<Stream> {
    let mut wire = stream.into_any().downcast::<BufferedIo>().ok()?;
    wire.unread(bytes.freeze());
    Some(wire)
}

/// The requests that are under way on a connection of HTTP/2.
#[derive(Default)]
struct Streams {
    count: AtomicUsize,
    ended: Notify,
}

/// One of them. Over when dropped.
struct InFlight(Arc<Streams>);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.count.fetch_sub(1, Ordering::SeqCst);
        self.0.ended.notify_one();
    }
}

impl Streams {
    fn begin(self: &Arc<Self>) -> InFlight {
        self.count.fetch_add(1, Ordering::SeqCst);
        InFlight(Arc::clone(self))
    }

    /// Waits until none has been under way for this long.
    async fn idle(&self, long: Duration) {
        while self.count.load(Ordering::SeqCst) > 0 {
            self.ended.notified().await;
        }
        tokio::time::sleep(long).await;
    }
}

fn options(limits: &Limits) -> H2Options {
    let mut options = default_h2_options();
    options
        .max_concurrent_streams(limits.streams_max)
        .max_header_list_size(u32::try_from(limits.head_bytes_max).unwrap_or(u32::MAX))
        .max_local_error_reset_streams(Some(ERROR_RESETS_MAX))
        .max_send_buffer_size(SEND_BUFFER_BYTES);
    options
}

/// Space for a head of HTTP/2, which can unpack to a thousand times what was sent: what has more lines than it may, or
/// finds no room, is not begun.
fn room_for(context: &IngressContext, session: &HttpSession, limits: &Limits) -> Option<Reserved> {
    let headers = &session.req_header().headers;
    let bytes: usize =
        headers.iter().map(|(name, value)| name.as_str().len() + value.len() + LINE_BYTES).sum();
    let mut reserved = context.body_memory.reserve(limits.body_memory_bytes_max);
    let fits = headers.len() <= limits.headers_max && reserved.at_least(bytes as u64);
    if !fits {
        context.recorder.metrics.request("none", "none", "deny", Denial::HeadTooLarge.code(), 0);
    }
    fits.then_some(reserved)
}

async fn http2(
    context: Arc<IngressContext>,
    stream: Stream,
    link: Arc<ConnInfo>,
    mut stopping: ShutdownWatch,
) {
    let Some(_in_flight) = context.drain.http2.begin() else { return };
    let limits = context.policy.load().limits;
    let digest = Arc::new(Digest {
        ssl_digest: stream.get_ssl_digest(),
        socket_digest: stream.get_socket_digest(),
        ..Digest::default()
    });
    let shaken = within(limits.head_deadline, handshake(stream, Some(options(&limits)))).await;
    let Some(Ok(mut connection)) = shaken else { return };
    let streams = Arc::new(Streams::default());
    let (mut malformed, mut stopped, mut patience) = (0, *stopping.borrow(), limits.head_deadline);
    if stopped {
        connection.graceful_shutdown();
    }
    loop {
        // What comes is looked at even when nothing new is taken: the end of what has begun comes this way, too.
        let accepted = tokio::select! {
            accepted = HttpSession::from_h2_conn(&mut connection, Arc::clone(&digest)) => accepted,
            _ = stopping.changed(), if !stopped => {
                stopped = true;
                connection.graceful_shutdown();
                continue;
            }
            () = streams.idle(patience), if !stopped => return,
        };
        match accepted {
            Ok(Some(H2Accept::Session(mut session))) => {
                let now = context.policy.load().limits;
                let head = room_for(&context, &session, &now);
                let crowded = streams.count.load(Ordering::SeqCst) >= now.streams_max as usize * CROWD;
                let Some(head) = head.filter(|_| !crowded) else {
                    // Streams that were reset go on until the agent has answered: they count as long as that.
                    session.shutdown();
                    malformed += 1;
                    if malformed > MALFORMED_MAX {
                        return;
                    }
                    continue;
                };
                if !link.holds() {
                    session.shutdown();
                    connection.graceful_shutdown();
                    continue;
                }
                patience = now.idle_timeout;
                let (context, link, under_way) = (Arc::clone(&context), Arc::clone(&link), streams.begin());
                tokio::spawn(async move {
                    let _held = (under_way, head);
                    exchange::serve(&context, ServerSession::new_http2(session).into(), &link).await;
                });
            }
            Ok(Some(H2Accept::Rejected)) if malformed < MALFORMED_MAX => malformed += 1,
            Ok(Some(H2Accept::Rejected) | None) | Err(_) => return,
        }
    }
}

/// Whether HTTP/2 was agreed on in the handshake.
fn agreed_on_http2(stream: &Stream) -> bool {
    matches!(stream.selected_alpn_proto(), Some(ALPN::H2))
}
