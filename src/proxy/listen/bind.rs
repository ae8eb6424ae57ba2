//! Listening: addresses are bound here, so that a taken port is an error in words and port 0 can be asked
//! for.

use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use socket2::SockRef;

/// How long what has arrived at a closed door is let in.
const LAST_ACCEPTS: Duration = Duration::from_millis(20);

/// A bound address that nobody accepts on yet.
#[derive(Debug)]
pub(crate) struct BoundListener {
    pub(crate) address: SocketAddr,
    listener: TcpListener,
}

/// The means to let nobody else in at an address while those who stand there already are.
#[derive(Debug)]
pub(crate) struct AcceptQueue(TcpListener);

impl AcceptQueue {
    /// Connections that come from here on wait unaccepted, but for one; the ones that came before are accepted as
    /// ever. Closing the socket at once would reset them, though their callers were told that they are connected.
    pub(crate) fn close(&self) {
        // On a socket that listens already this changes the length of its queue, and nothing else.
        let _ = SockRef::from(&self.0).listen(0);
    }
}

/// Lets in who stands at a door already, and gives the addresses up.
pub(crate) async fn close(queues: Vec<AcceptQueue>, grace: Duration) {
    if !grace.is_zero() {
        queues.iter().for_each(AcceptQueue::close);
        tokio::time::sleep(LAST_ACCEPTS).await;
    }
}

impl BoundListener {
    /// Its socket.
    pub(crate) fn into_listener(self) -> TcpListener {
        self.listener
    }

    /// Its door. To be dropped when nobody accepts any more: it keeps the address.
    pub(crate) fn queue(&self) -> Option<AcceptQueue> {
        self.listener.try_clone().ok().map(AcceptQueue)
    }
}

/// Binds an address.
pub(crate) fn bind(address: SocketAddr) -> std::io::Result<BoundListener> {
    let listener = TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    Ok(BoundListener { address: listener.local_addr()?, listener })
}
