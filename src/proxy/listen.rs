//! Listening: addresses are bound here, so that a taken port is an error in words and port 0 can be asked
//! for.

use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use socket2::SockRef;

/// How long what has arrived at a closed door is let in.
const LAST_ACCEPTS: Duration = Duration::from_millis(20);

/// A bound address that nobody accepts on yet.
#[derive(Debug)]
pub(super) struct Bound {
    pub(super) address: SocketAddr,
    listener: TcpListener,
}

/// The means to let nobody else in at an address while those who stand there already are.
#[derive(Debug)]
pub(super) struct Door(TcpListener);

impl Door {
    /// Connections that come from here on wait unaccepted, but for one; the ones that came before are accepted as
    /// ever. Closing the socket at once would reset them, though their callers were told that they are connected.
    pub(super) fn close(&self) {
        // On a socket that listens already this changes the length of its queue, and nothing else.
        let _ = SockRef::from(&self.0).listen(0);
    }
}

/// Lets in who stands at a door already, and gives the addresses up.
pub(super) async fn close(doors: Vec<Door>, grace: Duration) {
    if !grace.is_zero() {
        doors.iter().for_each(Door::close);
        tokio::time::sleep(LAST_ACCEPTS).await;
    }
}

impl Bound {
    /// Its socket.
    pub(super) fn into_listener(self) -> TcpListener {
        self.listener
    }

    /// Its door. To be dropped when nobody accepts any more: it keeps the address.
    pub(super) fn door(&self) -> Option<Door> {
        self.listener.try_clone().ok().map(Door)
    }
}

/// Binds an address.
pub(super) fn bind(address: SocketAddr) -> std::io::Result<Bound> {
    let listener = TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    Ok(Bound { address: listener.local_addr()?, listener })
}
