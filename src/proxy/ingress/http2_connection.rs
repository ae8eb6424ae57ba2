//! Serves the requests of one HTTP/2 connection concurrently. Closes a connection that is idle or that sends too many
//! malformed requests.

use std::sync::Arc;
use std::time::Duration;

use pingora::protocols::http::ServerSession;
use pingora::protocols::http::v2::server::{H2Accept, H2Options, HttpSession, default_h2_options, handshake};
use pingora::protocols::{Digest, Stream};
use pingora::server::ShutdownWatch;

use super::context::IngressContext;
use super::exchange::{self, Origin};
use crate::denial::Denial;
use crate::http::{MemoryReservation, with_timeout};
use crate::policy::Limits;
use crate::proxy::listen::ConnInfo;
use crate::proxy::runtime::Drain;

/// The maximum number of malformed requests on one HTTP/2 connection. The next malformed request closes the connection.
const MALFORMED_MAX: usize = 32;
/// The maximum amount of unsent response data per HTTP/2 connection, in bytes.
const SEND_BUFFER_BYTES: usize = 64 << 10;
/// The maximum number of streams per HTTP/2 connection that Callgate resets because of protocol errors of the caller.
const ERROR_RESETS_MAX: usize = 64;
/// The maximum number of requests in flight per HTTP/2 connection, as a multiple of `streams_max`. More requests than
/// open streams are possible, because the request of a reset stream continues until the agent has responded.
const EXCHANGES_PER_STREAM: usize = 2;
/// The HTTP/2 error code `REFUSED_STREAM`: the request was not processed, so the client may send it again (RFC 9113
/// section 8.7).
const REFUSED_STREAM: u32 = 7;
/// The HTTP/2 error code `ENHANCE_YOUR_CALM` (RFC 9113 section 7), for a stream whose head is too large. The client
/// must not send the request again, because the result would be the same.
const ENHANCE_YOUR_CALM: u32 = 11;
/// The memory that each header line needs in addition to its text, in bytes.
const HEADER_LINE_BYTES: usize = 128;

/// Waits until the connection has no request in flight, and then waits for `duration`.
async fn idle(exchanges: &Drain, duration: Duration) {
    exchanges.wait_until_empty().await;
    tokio::time::sleep(duration).await;
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

/// Reserves memory for an HTTP/2 request head. HPACK can compress a head to a thousandth of its size, so the
/// reservation uses the decompressed size.
///
/// # Errors
/// Returns the HTTP/2 error code for the stream if the head has too many lines or the memory is used up.
fn reserve_head_memory(
    context: &IngressContext,
    session: &HttpSession,
    limits: &Limits,
) -> Result<MemoryReservation, u32> {
    let headers = &session.req_header().headers;
    let bytes: usize =
        headers.iter().map(|(name, value)| name.as_str().len() + value.len() + HEADER_LINE_BYTES).sum();
    let mut reservation = context.body_memory.reserve(limits.body_memory_bytes_max);
    let code = match headers.len() <= limits.headers_max {
        true if reservation.grow_to(bytes as u64) => return Ok(reservation),
        true => REFUSED_STREAM,
        false => ENHANCE_YOUR_CALM,
    };
    context.recorder.metrics.request("none", "none", "deny", Denial::HeadTooLarge.code(), 0);
    Err(code)
}

/// Serves the requests of an HTTP/2 connection concurrently until the connection is closed.
pub(super) async fn serve(
    context: Arc<IngressContext>,
    stream: Stream,
    conn: Arc<ConnInfo>,
    mut stopping: ShutdownWatch,
) {
    let Some(_in_flight) = context.drain.http2.begin() else { return };
    let limits = context.policy.load().limits;
    let digest = Arc::new(Digest {
        ssl_digest: stream.get_ssl_digest(),
        socket_digest: stream.get_socket_digest(),
        ..Digest::default()
    });
    let accepted = with_timeout(limits.head_deadline, handshake(stream, Some(options(&limits)))).await;
    let Some(Ok(mut connection)) = accepted else { return };
    let exchanges = Drain::default();
    let (mut malformed, mut stopped, mut idle_timeout) = (0, *stopping.borrow(), limits.head_deadline);
    if stopped {
        connection.graceful_shutdown();
    }
    loop {
        // The connection is polled even while it shuts down, because polling also completes the streams in flight.
        let accepted = tokio::select! {
            accepted = HttpSession::from_h2_conn(&mut connection, Arc::clone(&digest)) => accepted,
            _ = stopping.changed(), if !stopped => {
                stopped = true;
                connection.graceful_shutdown();
                continue;
            }
            () = idle(&exchanges, idle_timeout), if !stopped => return,
        };
        match accepted {
            Ok(Some(H2Accept::Session(mut session))) => {
                let now = context.policy.load().limits;
                let head = reserve_head_memory(&context, &session, &now);
                // Requests of reset streams are counted, too, until the agent has responded.
                let too_many = exchanges.count() >= now.streams_max as usize * EXCHANGES_PER_STREAM;
                let head = match head {
                    Ok(head) if !too_many => head,
                    refused => {
                        session.shutdown_with_reason(refused.err().unwrap_or(REFUSED_STREAM).into());
                        malformed += 1;
                        if malformed > MALFORMED_MAX {
                            return;
                        }
                        continue;
                    }
                };
                if !conn.is_still_allowed(&context.clocks.wall) {
                    session.shutdown_with_reason(REFUSED_STREAM.into());
                    connection.graceful_shutdown();
                    continue;
                }
                idle_timeout = now.idle_timeout;
                let (context, conn) = (Arc::clone(&context), Arc::clone(&conn));
                let guards = (exchanges.begin(), head);
                tokio::spawn(async move {
                    let _guards = guards;
                    let session = ServerSession::new_http2(session).into();
                    exchange::serve(&context, session, Origin::Connection(&conn)).await;
                });
            }
            Ok(Some(H2Accept::Rejected)) if malformed < MALFORMED_MAX => malformed += 1,
            Ok(Some(H2Accept::Rejected) | None) | Err(_) => return,
        }
    }
}
