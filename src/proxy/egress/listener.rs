//! The egress listener: accepts connections of the agent, performs the TLS handshake, applies the limits, and records
//! each request. As a forward proxy, the listener also intercepts connections and opens tunnels.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::BytesMut;
use pingora::protocols::Stream;
use pingora::server::ShutdownWatch;
use tokio::net::{TcpListener, TcpStream};

use super::agent_exchange::AgentExchange;
use super::context::EgressContext;
use super::proxied::{self, Accepted, Asked, Connected, Origin};
use super::request_log::{ExchangeEnd, RequestDetails, record_exchange};
use crate::clock::instant;
use crate::denial::Refusal;
use crate::egress::ForwardProxy;
use crate::guard::Url;
use crate::http::{
    BufferedIo, Caller, HeadError, NextRequest, RequestLoop, Session, WRITE_TIMEOUT, deny, set_traceparent,
    with_timeout,
};
use crate::policy::Policy;
use crate::proxy::listen::accept;
use crate::proxy::runtime::{InFlight, boxed_future};

/// Accepts connections to the egress listener until the process stops.
pub(crate) async fn run(context: Arc<EgressContext>, listener: TcpListener, mut stopping: ShutdownWatch) {
    while let Some((stream, peer)) = accept::next(&listener, &mut stopping).await {
        let new = context.new_connections.begin();
        tokio::spawn(serve_connection(Arc::clone(&context), stream, peer, stopping.clone(), new));
    }
}

/// Serves a connection to the egress listener until the connection is closed.
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
    let mut connection = Connection { caller, origin: None };
    let mut requests = RequestLoop::over(stream, stopping.clone());
    loop {
        let limits = || context.policy.load().limits;
        requests.accept_connect(connection.origin.is_some() || context.limits.forward_proxy().is_some());
        match requests.next(limits).await {
            Some(NextRequest::Request(session)) => {
                // Boxed, because otherwise the future of an idle connection would be as large as the future of a
                // request.
                match boxed_future(|| serve(&context, session, &connection, new.take(), &stopping)).await {
                    Next::Request(stream, leftover) => requests.take_back(stream, leftover),
                    Next::Intercepted(stream, origin) => {
                        connection = Connection { caller: caller.with_tls(true), origin: Some(origin) };
                        requests = RequestLoop::over(stream, stopping.clone());
                    }
                    Next::Closed => return,
                }
            }
            Some(NextRequest::HeadError(stream, error)) => {
                return Box::pin(deny_head(&context, stream, error)).await;
            }
            None => return,
        }
    }
}

/// A connection of the agent to the egress listener.
struct Connection {
    caller: Caller<'static>,
    /// The origin of all requests on the connection, if the forward proxy intercepts the connection.
    origin: Option<Origin>,
}

/// What happens with a connection after a request.
enum Next {
    /// Another request may follow. Contains the bytes that were read after the last request.
    Request(Stream, BytesMut),
    /// The connection is intercepted. All further requests on the connection are for this origin.
    Intercepted(Stream, Origin),
    /// The connection is closed.
    Closed,
}

/// Performs the TLS handshake if the listener has a certificate. Returns the connection when it is ready for HTTP, or
/// `None` if the handshake failed or took longer than `limits.head_deadline`.
async fn establish(context: &EgressContext, stream: TcpStream, peer: SocketAddr) -> Option<Stream> {
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

/// Serves one request to the egress listener.
async fn serve(
    context: &Arc<EgressContext>,
    mut session: Session,
    connection: &Connection,
    new: Option<InFlight>,
    stopping: &ShutdownWatch,
) -> Next {
    // The policy is loaded when the request arrives, not when the connection opens, because the connection may have
    // been idle for a long time.
    let policy = context.policy.load_full();
    let Some(in_flight) = context.drain.begin() else { return Next::Closed };
    drop(new);
    session.set_write_timeout(WRITE_TIMEOUT);
    let proxy = context.limits.forward_proxy();
    let asked = proxied::what(context, &session, connection.origin.as_ref(), proxy.as_deref());
    let received = Received { policy: &policy, caller: connection.caller, in_flight };
    match (asked, &proxy) {
        (Ok(Asked::Tunnel(url)), Some(proxy)) => {
            Box::pin(serve_connect(context, session, received, (proxy, url), stopping.clone())).await
        }
        (asked, _) => {
            let is_intercepted = connection.origin.is_some();
            let kept =
                serve_request(context, session, received, asked, (proxy.as_deref(), is_intercepted)).await;
            kept.map_or(Next::Closed, |(stream, leftover)| Next::Request(stream, leftover))
        }
    }
}

/// The policy, the caller and the in-flight counter for a request to the egress listener.
struct Received<'r> {
    policy: &'r Policy,
    caller: Caller<'static>,
    in_flight: InFlight,
}

/// Serves a request other than CONNECT. If another request may follow, returns the connection and the bytes that were
/// read after the request.
async fn serve_request(
    context: &EgressContext,
    mut session: Session,
    Received { policy, caller, in_flight }: Received<'_>,
    asked: Result<Asked, Refusal>,
    (proxy, is_intercepted): (Option<&ForwardProxy>, bool),
) -> Option<(Stream, BytesMut)> {
    let began = instant();
    let request_id = context.recorder.request_ids.next();
    let span = context.recorder.begin_span(&session, "request");
    set_traceparent(&mut session, span.as_ref());
    let origin = match &asked {
        Ok(Asked::Url(url)) => Some(url),
        _ => None,
    };
    let is_other = origin.is_some_and(|url| !policy.egress.names(url));
    let guard = proxy.filter(|_| is_other).map(|proxy| &proxy.guard);
    let exchange = AgentExchange::new(context, policy, &mut session, caller, &request_id);
    let mut exchange = AgentExchange { origin, guard, ..exchange };
    let end = match &asked {
        Err(refusal) => exchange.deny(refusal.clone(), &[]).await,
        Ok(Asked::Url(url)) => {
            let check = |url: &_| proxied::check_other(proxy, is_intercepted, url);
            Box::pin(exchange.run_by_url(url, check)).await
        }
        Ok(_) => exchange.run().await,
    };
    let details = exchange.details;
    record_exchange(context, session.method().as_str(), &request_id, &details, &end, began, span);
    let connection = session.end(end.reusable).await;
    drop(in_flight);
    connection
}

/// Serves a CONNECT request to the forward proxy.
async fn serve_connect(
    context: &EgressContext,
    mut session: Session,
    Received { policy, caller, in_flight }: Received<'_>,
    (proxy, url): (&ForwardProxy, Url),
    stopping: ShutdownWatch,
) -> Next {
    let began = instant();
    let request_id = context.recorder.request_ids.next();
    let mut exchange = AgentExchange::new(context, policy, &mut session, caller, &request_id);
    let connected = exchange.connect(proxy, &url).await;
    let end = match &connected {
        Ok(_) => None,
        Err(refusal) => Some(exchange.deny(refusal.clone(), &[]).await),
    };
    let details = exchange.details;
    if let Some(end) = end {
        record_exchange(context, "CONNECT", &request_id, &details, &end, began, None);
        let kept = session.end(end.reusable).await;
        return kept.map_or(Next::Closed, |(stream, leftover)| Next::Request(stream, leftover));
    }
    let request = Accepted { session, request_id, began, details };
    match connected {
        Ok(Connected::Tunnelled(upstream, slot)) => {
            request.relay(context, (upstream, slot), proxy.idle, stopping).await;
            Next::Closed
        }
        Ok(Connected::Intercepted) => {
            // Each request on the intercepted connection is counted separately.
            drop(in_flight);
            let intercepted = request.intercept(context, url).await;
            intercepted.map_or(Next::Closed, |(stream, origin)| Next::Intercepted(stream, origin))
        }
        Err(_) => Next::Closed,
    }
}

/// Denies an invalid request head and closes the connection, because after a framing error the rest of the stream is
/// untrusted.
async fn deny_head(context: &EgressContext, stream: Stream, error: HeadError) {
    let Some(_in_flight) = context.drain.begin() else { return };
    let began = instant();
    let request_id = context.recorder.request_ids.next();
    let HeadError { denial, detail, is_head_request } = error;
    let was_written = deny::deny_head(stream, denial, is_head_request, &request_id, true).await;
    let status = if was_written { denial.status() } else { 0 };
    let details = RequestDetails { detail: Some(detail.to_owned()), ..RequestDetails::default() };
    let end = ExchangeEnd { outcome: Err(denial), status, reusable: false };
    record_exchange(context, "-", &request_id, &details, &end, began, None);
}
