//! Binds listeners. Binding is separate from accepting, so that an occupied port is an error at start, and so that the
//! port chosen for port 0 is known.

use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

#[cfg(target_os = "linux")]
use socket2::SockFilter;
use socket2::{Domain, Protocol, SockRef, Socket, Type};

/// The maximum number of connections that wait until Callgate accepts them. The kernel uses `net.core.somaxconn` if that
/// is smaller.
const BACKLOG: i32 = 4096;
/// The time for which a stopping listener waits for TCP handshakes in progress. A handshake needs one round trip to the
/// caller.
const LAST_ACCEPTS: Duration = Duration::from_millis(200);

/// A bound listener that does not accept connections yet.
#[derive(Debug)]
pub(crate) struct BoundListener {
    pub(crate) address: SocketAddr,
    listener: TcpListener,
}

/// The accept queue of a listening socket. After [`AcceptQueue::close`], pending connections can still be accepted, but
/// new connections are held back.
#[derive(Debug)]
pub(crate) struct AcceptQueue(TcpListener);

impl AcceptQueue {
    /// Holds back new connections. Until the socket is closed, connections in the queue can still be accepted, and TCP
    /// handshakes in progress can complete. Closing the socket resets every connection in the queue, even if its caller
    /// is already connected.
    pub(crate) fn close(&self) {
        let socket = SockRef::from(&self.0);
        #[cfg(target_os = "linux")]
        if socket.attach_filter(&without_new_connections()).is_ok() {
            return;
        }
        // On a listening socket, `listen` changes only the length of the accept queue. With the length 0, the kernel
        // still queues one new connection.
        let _ = socket.listen(0);
    }
}

/// Returns a socket filter that drops the first segment of each new connection. The caller's kernel sends the segment
/// again later, after this socket is closed.
#[cfg(target_os = "linux")]
fn without_new_connections() -> [SockFilter; 5] {
    const LOAD_BYTE: u16 = 0x30;
    const AND: u16 = 0x54;
    const JUMP_IF_EQUAL: u16 = 0x15;
    const RETURN: u16 = 0x06;
    /// The offset of the flags in a TCP header.
    const FLAGS_AT: u32 = 13;
    const SYN: u32 = 0x02;
    const ACK: u32 = 0x10;
    [
        SockFilter::new(LOAD_BYTE, 0, 0, FLAGS_AT),
        SockFilter::new(AND, 0, 0, SYN | ACK),
        SockFilter::new(JUMP_IF_EQUAL, 0, 1, SYN),
        SockFilter::new(RETURN, 0, 0, 0),
        SockFilter::new(RETURN, 0, 0, u32::MAX),
    ]
}

/// Holds back new connections, waits for TCP handshakes in progress, and drops the accept queues. The wait takes
/// `time_left` or 200 ms, whichever is shorter. 200 ms are enough for callers with a shorter round trip.
pub(crate) async fn close(queues: Vec<AcceptQueue>, time_left: Duration) {
    if !queues.is_empty() && !time_left.is_zero() {
        queues.iter().for_each(AcceptQueue::close);
        tokio::time::sleep(LAST_ACCEPTS.min(time_left)).await;
    }
}

impl BoundListener {
    /// Returns the listening socket.
    pub(crate) fn into_listener(self) -> TcpListener {
        self.listener
    }

    /// Returns the accept queue of the listener. The address stays bound until the queue is dropped.
    pub(crate) fn queue(&self) -> Option<AcceptQueue> {
        self.listener.try_clone().ok().map(AcceptQueue)
    }
}

/// Binds a listener. Accepted connections inherit `TCP_NODELAY` from it, on Linux and on macOS. Nagle's algorithm would
/// otherwise delay a small response until the caller has acknowledged the previous one.
pub(crate) fn bind(address: SocketAddr) -> std::io::Result<BoundListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_tcp_nodelay(true)?;
    socket.bind(&address.into())?;
    socket.set_nonblocking(true)?;
    socket.listen(BACKLOG)?;
    let listener = TcpListener::from(socket);
    Ok(BoundListener { address: listener.local_addr()?, listener })
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;

    use super::*;

    #[test]
    fn an_accepted_connection_sends_small_responses_without_delay() {
        let bound = bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let _peer = TcpStream::connect(bound.address).unwrap();
        let listener = bound.into_listener();
        listener.set_nonblocking(false).unwrap();
        let (accepted, _) = listener.accept().unwrap();
        assert!(accepted.nodelay().unwrap());
    }
}
