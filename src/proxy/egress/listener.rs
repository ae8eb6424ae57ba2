//! The egress listener: connections of the agent, room for them and for bodies, and one log line per request.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::BytesMut;
use pingora::protocols::Stream;
use pingora::server::ShutdownWatch;
use tokio::net::{TcpListener, TcpStream};

use super::context::EgressContext;
use super::exchange::AgentExchange;
use super::record::{ExchangeEnd, RequestDetails, record};
use crate::clock::instant;
use crate::http::{Caller, HeadError, Next, RequestLoop, Session, WRITE_TIMEOUT, go_on_with, refuse};
use crate::proxy::listen::accept;

/// Accepts until it is told to stop.
pub(crate) async fn run(context: Arc<EgressContext>, listener: TcpListener, mut stopping: ShutdownWatch) {
    while let Some((stream, peer)) = accept::next(&listener, &mut stopping).await {
        tokio::spawn(converse(Arc::clone(&context), stream, peer, stopping.clone()));
    }
}

/// Serves a connection until it ends.
async fn converse(context: Arc<EgressContext>, stream: TcpStream, peer: SocketAddr, stopping: ShutdownWatch) {
    let listener = &context.limits;
    let connections_max = listener.connections_max();
    let Some(_slot) = listener.slots.take(connections_max) else {
        if context.log_throttle.is_first("egress_full", instant()) {
            log::warn!(
                "a connection from {peer} to the egress was closed: there are {connections_max} (`listen.egress.connections_max`); others like it are closed without a word"
            );
        }
        return;
    };
    let mut requests = RequestLoop::new(stream, peer, stopping);
    loop {
        let limits = || context.policy.load().limits;
        match requests.next(limits).await {
            Some(Next::Request(session)) => {
                // Boxed: an idle connection should not carry the room of an exchange.
                match Box::pin(serve(&context, session, Caller::at(peer.ip()))).await {
                    Some((stream, behind)) => requests.take_back(stream, behind),
                    None => return,
                }
            }
            Some(Next::HeadError(stream, unusable)) => {
                return Box::pin(refuse_head(&context, stream, unusable)).await;
            }
            None => return,
        }
    }
}

/// Serves a request. Hands back the connection, with what was read behind the request, where another one may follow.
async fn serve(
    context: &EgressContext,
    mut session: Session,
    caller: Caller<'static>,
) -> Option<(Stream, BytesMut)> {
    // The policy of the moment in which there is a request: the connection may have waited for it for long.
    let policy = context.policy.load_full();
    let under_way = context.drain.begin()?;
    let began = instant();
    let request_id = context.recorder.request_ids.next();
    session.set_write_timeout(WRITE_TIMEOUT);
    let span = context.recorder.begin_span(&session, "request");
    go_on_with(&mut session, span.as_ref());
    let mut exchange = AgentExchange {
        context,
        policy: &policy,
        session: &mut session,
        caller,
        request_id: &request_id,
        memory: context.limits.reserve(),
        told: RequestDetails::default(),
    };
    let ended = exchange.run().await;
    let told = exchange.told;
    record(context, Some(&session), &request_id, &told, &ended, began, span);
    let kept = session.end(ended.reusable).await;
    drop(under_way);
    kept
}

/// Answers a head that is none, and closes the connection: nothing behind it can be trusted to be anything.
async fn refuse_head(context: &EgressContext, stream: Stream, unusable: HeadError) {
    let Some(_under_way) = context.drain.begin() else { return };
    let began = instant();
    let request_id = context.recorder.request_ids.next();
    let HeadError { denial, detail, bodiless } = unusable;
    let heard = refuse::refuse_head(stream, denial, bodiless, &request_id, true).await;
    let status = if heard { denial.status() } else { 0 };
    let told = RequestDetails { detail: Some(detail.to_owned()), ..RequestDetails::default() };
    let ended = ExchangeEnd { outcome: Err(denial), status, reusable: false };
    record(context, None, &request_id, &told, &ended, began, None);
}
