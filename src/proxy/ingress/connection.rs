//! Serves one connection to an ingress listener: HTTP/1 requests one after the other in this module, and HTTP/2 in
//! `http2_connection`.

use std::sync::Arc;

use bytes::BytesMut;
use pingora::protocols::{ALPN, Stream};
use pingora::server::ShutdownWatch;

use super::context::IngressContext;
use super::exchange::{self, Origin};
use super::http2_connection;
use crate::http::{
    Accepted, BufferedIo, CLOSE_TIMEOUT, HeadRead, Http1Session, ReusableTimer, Session, request_head,
    with_timeout,
};
use crate::proxy::listen::ConnInfo;
use crate::proxy::runtime::boxed_future;

/// Serves a connection to an ingress listener until the connection is closed.
pub(crate) async fn serve(
    context: Arc<IngressContext>,
    stream: Stream,
    conn: ConnInfo,
    stopping: ShutdownWatch,
) {
    let conn = Arc::new(conn);
    if has_negotiated_http2(&stream) {
        return Box::pin(http2_connection::serve(context, stream, conn, stopping)).await;
    }
    if let Some(stream) = http1(&context, stream, &conn).await {
        Box::pin(http2_connection::serve(context, stream, conn, stopping)).await;
    }
}

/// Serves HTTP/1 requests one after the other. If the connection begins with the HTTP/2 preface, returns the
/// connection, from which the preface can be read again.
async fn http1(context: &Arc<IngressContext>, mut stream: Stream, conn: &ConnInfo) -> Option<Stream> {
    let accepted = Accepted { http2: stream.get_ssl_digest().is_none(), connect: false };
    // `leftover` contains the bytes that were read after the last request. Before the first request, `leftover` is
    // `None`.
    let (mut leftover, mut timer) = (None, ReusableTimer::default());
    loop {
        let limits = || context.policy.load().limits;
        let received = match leftover.take() {
            None => request_head::read_first(&mut stream, accepted, &mut timer, &limits()).await,
            Some(leftover) => {
                request_head::read_next(
                    &mut stream,
                    leftover,
                    accepted,
                    limits().idle_timeout,
                    &mut timer,
                    limits,
                )
                .await
            }
        };
        // A reload may have removed the settings under which the connection was accepted. The connection is then
        // closed, and the caller can connect again under the new settings.
        let is_allowed = || conn.is_still_allowed(&context.clocks.wall);
        if matches!(received, HeadRead::Request(..)) && !is_allowed() {
            return None;
        }
        let session = match received {
            HeadRead::Request(request, leftover) => Http1Session::new(stream, request, leftover),
            HeadRead::Http2Preface(bytes) => return rewind(stream, bytes),
            HeadRead::HeadError(error) => {
                Box::pin(exchange::deny_head(context, stream, conn, error)).await;
                return None;
            }
            HeadRead::Closed => {
                with_timeout(CLOSE_TIMEOUT, stream.shutdown()).await;
                return None;
            }
        };
        // The future is boxed, because otherwise the future of an idle connection would be larger.
        let session = Session::Http1(Box::new(session));
        let served = boxed_future(|| exchange::serve(context, session, Origin::Connection(conn)));
        let (back, read) = served.await?;
        (stream, leftover) = (back, Some(read));
    }
}

fn rewind(stream: Stream, bytes: BytesMut) -> Option<Stream> {
    let mut io = stream.into_any().downcast::<BufferedIo>().ok()?;
    io.rewind(bytes.freeze());
    Some(io)
}

/// Reports whether the TLS handshake selected HTTP/2 (ALPN).
fn has_negotiated_http2(stream: &Stream) -> bool {
    matches!(stream.selected_alpn_proto(), Some(ALPN::H2))
}
