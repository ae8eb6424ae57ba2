//! Reads the requests of one HTTP/1 connection, one after the other, until the caller closes the connection or the
//! listener stops. The egress listener and the admin listener use this module.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::BytesMut;
use pingora::protocols::Stream;
use pingora::server::ShutdownWatch;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::buffered_io::BufferedIo;
use super::http1_session::Http1Session;
use super::request_head::{self, Accepted, HeadError, HeadRead};
use super::session::Session;
use super::timeouts::{CLOSE_TIMEOUT, ReusableTimer, with_timeout};
use crate::policy::Limits;

/// A connection over which requests arrive one after the other, and its state between two requests.
pub(crate) struct RequestLoop {
    accepted: Accepted,
    timer: ReusableTimer,
    stopping: ShutdownWatch,
    /// The connection, and the bytes that were read after the last request. The field is `None` while a request is
    /// being processed. The bytes are `None` before the first request.
    idle: Option<(Stream, Option<BytesMut>)>,
}

/// The next request of a connection, or a head that must be denied.
pub(crate) enum NextRequest {
    Request(Session),
    /// An invalid head. The caller of [`RequestLoop::next`] must write a denial and close the connection.
    HeadError(Stream, HeadError),
}

impl RequestLoop {
    /// Creates the loop for a TCP connection without TLS.
    pub(crate) fn new(stream: TcpStream, peer: SocketAddr, stopping: ShutdownWatch) -> Self {
        Self::over(Box::new(BufferedIo::new(stream, peer)), stopping)
    }

    /// Creates the loop for a connection. If the connection uses TLS, its handshake must be complete.
    pub(crate) fn over(stream: Stream, stopping: ShutdownWatch) -> Self {
        Self {
            accepted: Accepted::default(),
            timer: ReusableTimer::default(),
            stopping,
            idle: Some((stream, None)),
        }
    }

    /// Sets whether requests with the method CONNECT are accepted.
    pub(crate) fn accept_connect(&mut self, accept: bool) {
        self.accepted.connect = accept;
    }

    /// Takes back the connection after a request. `leftover` contains the bytes that were read after this request.
    pub(crate) fn take_back(&mut self, stream: Stream, leftover: BytesMut) {
        self.idle = Some((stream, Some(leftover)));
    }

    /// Waits for the next request. Closes the connection and returns `None` if there will be no further request.
    ///
    /// When the listener stops, an idle connection is closed immediately. A connection with a request in progress is
    /// closed after this request.
    pub(crate) async fn next(&mut self, limits: impl Fn() -> Limits) -> Option<NextRequest> {
        let (mut stream, leftover) = self.idle.take()?;
        let received = match leftover {
            None => request_head::read_first(&mut stream, self.accepted, &mut self.timer, &limits()).await,
            Some(mut leftover) => {
                let idle = limits().idle_timeout;
                match self.must_close(&mut stream, &mut leftover, idle).await {
                    true => HeadRead::Closed,
                    false => {
                        request_head::read_next(
                            &mut stream,
                            leftover,
                            self.accepted,
                            idle,
                            &mut self.timer,
                            limits,
                        )
                        .await
                    }
                }
            }
        };
        match received {
            HeadRead::Request(request, leftover) => {
                let mut http1 = Http1Session::new(stream, request, leftover);
                if *self.stopping.borrow() {
                    http1.close_after_response();
                }
                // The session is boxed, so that it does not enlarge the future of an idle connection.
                Some(NextRequest::Request(Session::Http1(Box::new(http1))))
            }
            HeadRead::HeadError(error) => Some(NextRequest::HeadError(stream, error)),
            HeadRead::Http2Preface(_) | HeadRead::Closed => {
                with_timeout(CLOSE_TIMEOUT, stream.shutdown()).await;
                None
            }
        }
    }

    /// Waits until data arrives, the listener stops, or the idle timeout expires. Returns true if the connection must
    /// be closed. Returns false if data has arrived, because a request that has begun to arrive is not interrupted. On
    /// a TLS connection, appends the arrived data to `leftover`.
    async fn must_close(&mut self, stream: &mut Stream, leftover: &mut BytesMut, idle: Duration) -> bool {
        if !leftover.is_empty() {
            return false;
        }
        let stopping = &mut self.stopping;
        let stops_first = async {
            tokio::select! {
                biased;
                is_open = wait_for_data(stream, leftover) => !is_open,
                _ = stopping.changed() => true,
            }
        };
        self.timer.with_timeout(idle, stops_first).await.unwrap_or(true)
    }
}

/// Waits until a connection has data to read, and returns true. On a TLS connection, appends the first data to
/// `leftover`, and returns false if the caller has closed the connection. This function is cancel-safe.
async fn wait_for_data(stream: &mut Stream, leftover: &mut BytesMut) -> bool {
    if let Some(io) = (**stream).as_any().downcast_ref::<BufferedIo>() {
        io.wait_for_data().await;
        return true;
    }
    // Data on a TLS connection may belong to the TLS protocol instead of a request. Only a read can distinguish the
    // two. The read buffer is small, so that an idle connection needs little memory. It has space for the empty line
    // that some clients send after a body.
    leftover.reserve(2);
    matches!(stream.read_buf(leftover).await, Ok(1..))
}
