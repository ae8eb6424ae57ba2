//! Binds listeners. Binding is separate from accepting, so that an occupied port is a start error and the port chosen
//! for port 0 is known.

use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use socket2::SockRef;

/// Time for which pending connections are still accepted, after new connections are held back.
const LAST_ACCEPTS: Duration = Duration::from_millis(20);

/// A bound listener that does not accept yet.
#[derive(Debug)]
pub(crate) struct BoundListener {
    pub(crate) address: SocketAddr,
    listener: TcpListener,
}

/// The accept queue of a listening socket. Shortening it holds back new connections, while the pending ones are still
/// accepted.
#[derive(Debug)]
pub(crate) struct AcceptQueue(TcpListener);

impl AcceptQueue {
    /// Holds back new connections, except for one, which the kernel still queues. Connections that are already in the
    /// queue are accepted. Closing the socket would reset these connections although their callers are already
    /// connected.
    pub(crate) fn close(&self) {
        // On a listening socket, `listen` changes only the length of the accept queue.
        let _ = SockRef::from(&self.0).listen(0);
    }
}

/// Accepts the pending connections, then drops the queues. Does not wait if `grace` is zero.
pub(crate) async fn close(queues: Vec<AcceptQueue>, grace: Duration) {
    if !grace.is_zero() {
        queues.iter().for_each(AcceptQueue::close);
        tokio::time::sleep(LAST_ACCEPTS).await;
    }
}

impl BoundListener {
    /// Returns the socket.
    pub(crate) fn into_listener(self) -> TcpListener {
        self.listener
    }

    /// Returns the accept queue. It keeps the address bound until it is dropped.
    pub(crate) fn queue(&self) -> Option<AcceptQueue> {
        self.listener.try_clone().ok().map(AcceptQueue)
    }
}

pub(crate) fn bind(address: SocketAddr) -> std::io::Result<BoundListener> {
    let listener = TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    Ok(BoundListener { address: listener.local_addr()?, listener })
}
