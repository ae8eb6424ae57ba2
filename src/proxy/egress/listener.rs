//! The egress listener: accepts connections of the agent, performs the TLS handshake, applies the limits, and records
//! each request.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::BytesMut;
use pingora::protocols::Stream;
use pingora::server::ShutdownWatch;
use tokio::net::{TcpListener, TcpStream};

use super::agent_exchange::AgentExchange;
use super::context::EgressContext;
use super::request_log::{ExchangeEnd, RequestDetails, record_exchange};
use crate::clock::instant;
use crate::http::{
    BufferedIo, Caller, HeadError, NextRequest, RequestLoop, Session, WRITE_TIMEOUT, deny, set_traceparent,
    with_timeout,
};
use crate::proxy::listen::accept;
use crate::proxy::runtime::InFlight;

/// Accepts connections until the listener stops.
pub(crate) async fn run(context: Arc<EgressContext>, listener: TcpListener, mut stopping: ShutdownWatch) {
    while let Some((stream, peer)) = accept::next(&listener, &mut stopping).await {
        let new = context.new_connections.begin();
        tokio::spawn(serve_connection(Arc::clone(&context), stream, peer, stopping.clone(), new));
    }
}

/// Serves a connection until it is closed.
async fn serve_connection(
    context: Arc<EgressContext>,
    stream: TcpStream,
    peer: SocketAddr,
    stopping: ShutdownWatch,
    // Counts the connection as new until its first request has begun.
    mut new: Option<InFlight>,
) {
    let listener = &context.limits;
    let connections_max = listener.connections_max();
    let Some(_slot) = listener.connections.acquire(connections_max) else {
        if context.log_throttle.should_log("egress_full", instant()) {
            log::warn!(
                "closed an egress connection from {peer}: {connections_max} connections are open (`listen.egress.connections_max`); further connections that are closed for this reason are not logged for a minute"
            );
        }
        return;
    };
    let Some(stream) = establish(&context, stream, peer).await else { return };
    let caller = Caller::at(peer.ip()).with_tls(stream.get_ssl_digest().is_some());
    let mut requests = RequestLoop::over(stream, stopping);
    loop {
        let limits = || context.policy.load().limits;
        match requests.next(limits).await {
            Some(NextRequest::Request(session)) => {
                // Boxed, so that the future of an idle connection is not as large as the future of an exchange.
                match Box::pin(serve(&context, session, caller, new.take())).await {
                    Some((stream, leftover)) => requests.take_back(stream, leftover),
                    None => return,
                }
            }
            Some(NextRequest::HeadError(stream, error)) => {
                return Box::pin(deny_head(&context, stream, error)).await;
            }
            None => return,
        }
    }
}

/// Performs the TLS handshake, if the listener has a certificate. Returns the connection when it is ready for HTTP, or
/// `None` if the handshake failed or took longer than `limits.head_deadline`.
async fn establish(context: &EgressContext, stream: TcpStream, peer: SocketAddr) -> Option<Stream> {
    // Nagle's algorithm would delay a small response until the caller has acknowledged the previous one.
    let _ = stream.set_nodelay(true);
    let io = BufferedIo::new(stream, peer);
    let Some(tls) = context.limits.tls.load_full() else { return Some(Box::new(io)) };
    let deadline = context.policy.load().limits.head_deadline;
    let reason = match Box::pin(with_timeout(deadline, tls.acceptor.tls_handshake(io))).await {
        Some(Ok(stream)) => return Some(Box::new(stream)),
        Some(Err(error)) => error.to_string(),
        None => "it took longer than `limits.head_deadline`".to_owned(),
    };
    if context.log_throttle.should_log("egress_tls", instant()) {
        log::warn!(
            "closed an egress connection from {peer}: the TLS handshake failed: {reason}; a client with an `http` URL, or one that does not trust the certificate, can be the cause; further connections that are closed for this reason are not logged for a minute"
        );
    }
    None
}

/// Serves a request. Returns the connection, and the bytes that were read after the request, if another request may
/// follow.
async fn serve(
    context: &EgressContext,
    mut session: Session,
    caller: Caller<'static>,
    new: Option<InFlight>,
) -> Option<(Stream, BytesMut)> {
    // The policy is loaded when the request arrives, not when the connection opens, because the connection may have
    // been idle for a long time.
    let policy = context.policy.load_full();
    let in_flight = context.drain.begin()?;
    drop(new);
    let began = instant();
    let request_id = context.recorder.request_ids.next();
    session.set_write_timeout(WRITE_TIMEOUT);
    let span = context.recorder.begin_span(&session, "request");
    set_traceparent(&mut session, span.as_ref());
    let mut exchange = AgentExchange {
        context,
        policy: &policy,
        session: &mut session,
        caller,
        request_id: &request_id,
        memory: context.limits.reserve(),
        details: RequestDetails::default(),
    };
    let end = exchange.run().await;
    let details = exchange.details;
    record_exchange(context, Some(&session), &request_id, &details, &end, began, span);
    let connection = session.end(end.reusable).await;
    drop(in_flight);
    connection
}

/// Denies an invalid head and closes the connection: after a framing error, the rest of the stream is untrusted.
async fn deny_head(context: &EgressContext, stream: Stream, error: HeadError) {
    let Some(_in_flight) = context.drain.begin() else { return };
    let began = instant();
    let request_id = context.recorder.request_ids.next();
    let HeadError { denial, detail, is_head_request } = error;
    let was_written = deny::deny_head(stream, denial, is_head_request, &request_id, true).await;
    let status = if was_written { denial.status() } else { 0 };
    let details = RequestDetails { detail: Some(detail.to_owned()), ..RequestDetails::default() };
    let end = ExchangeEnd { outcome: Err(denial), status, reusable: false };
    record_exchange(context, None, &request_id, &details, &end, began, None);
}
