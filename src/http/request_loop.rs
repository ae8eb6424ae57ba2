//! The requests of one connection to a listener for this host (the egress, the admin listener), one after the other, until
//! either side ends it or the listener stops.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::BytesMut;
use pingora::protocols::Stream;
use pingora::server::ShutdownWatch;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::buffered_io::BufferedIo;
use super::request_head::{self, HeadError, HeadRead};
use super::server::Http1;
use super::session::Session;
use super::timeouts::{FAREWELL, ReusableTimer, within};
use crate::policy::Limits;

/// A connection between two requests.
pub(crate) struct RequestLoop {
    alarm: ReusableTimer,
    stopping: ShutdownWatch,
    /// The connection, and what was read behind the last request; `None` of it before the first one. `None` of both while
    /// a request is under way.
    idle: Option<(Stream, Option<BytesMut>)>,
}

/// What came next.
pub(crate) enum Next {
    /// A request.
    Request(Session),
    /// Something that is no head. The connection is to be closed behind the answer.
    HeadError(Stream, HeadError),
}

impl RequestLoop {
    pub(crate) fn new(stream: TcpStream, peer: SocketAddr, stopping: ShutdownWatch) -> Self {
        // Small answers are not held back until the caller has acknowledged the one before.
        let _ = stream.set_nodelay(true);
        Self {
            alarm: ReusableTimer::default(),
            stopping,
            idle: Some((Box::new(BufferedIo::new(stream, peer)), None)),
        }
    }

    /// Takes back the connection of a request that has ended, with what was read behind it.
    pub(crate) fn take_back(&mut self, stream: Stream, behind: BytesMut) {
        self.idle = Some((stream, Some(behind)));
    }

    /// Waits for the next request. `None` when there is none: the connection is closed. Of a listener that stops, the
    /// request is the last one of its connection, and a connection that waits for one is closed.
    pub(crate) async fn next(&mut self, limits: impl Fn() -> Limits) -> Option<Next> {
        let (mut stream, behind) = self.idle.take()?;
        let came = match behind {
            None => request_head::first(&mut stream, false, &mut self.alarm, &limits()).await,
            Some(behind) => {
                let idle = limits().idle_timeout;
                match self.is_over(&stream, &behind, idle).await {
                    true => HeadRead::Nothing,
                    false => request_head::next(&mut stream, behind, idle, &mut self.alarm, limits).await,
                }
            }
        };
        match came {
            HeadRead::Request(request, behind) => {
                let mut http1 = Http1::new(stream, request, behind);
                if *self.stopping.borrow() {
                    http1.close_behind();
                }
                // Boxed: an idle connection should not carry the room of a request.
                Some(Next::Request(Session::Http1(Box::new(http1))))
            }
            HeadRead::HeadError(unusable) => Some(Next::HeadError(stream, unusable)),
            HeadRead::Preface(_) | HeadRead::Nothing => {
                within(FAREWELL, stream.shutdown()).await;
                None
            }
        }
    }

    /// Whether the listener stops, or the time to wait ends, before anything more of a request is there. What has begun to
    /// come is not broken off.
    async fn is_over(&mut self, stream: &Stream, behind: &BytesMut, idle: Duration) -> bool {
        let Some(wire) = (**stream).as_any().downcast_ref::<BufferedIo>() else { return false };
        if !behind.is_empty() {
            return false;
        }
        let stopping = &mut self.stopping;
        let stops = async {
            tokio::select! {
                biased;
                () = wire.something_came() => false,
                _ = stopping.changed() => true,
            }
        };
        self.alarm.within(idle, stops).await.unwrap_or(true)
    }
}
