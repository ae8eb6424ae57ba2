//! Connections to the agent, kept alive between callbacks.

use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use parking_lot::Mutex;
use pingora::protocols::Stream;
use pingora::protocols::l4::stream::Stream as L4Stream;
use tokio::io::{AsyncRead, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

use super::http1_client::Connection;
use crate::denial::Denial;
use crate::policy::{Agent, AgentAddress};

/// Most idle connections kept.
const IDLE_MAX: usize = 128;

struct Idle {
    connection: Connection,
    address: AgentAddress,
    since: Instant,
}

/// The idle connections.
#[derive(Default)]
pub(super) struct Pool {
    idle: Mutex<Vec<Idle>>,
}

impl Pool {
    /// A connection that is ready to be written to: the one used last, or a new one.
    ///
    /// # Errors
    /// `agent_unreachable`; nothing was sent.
    pub(super) async fn connection(&self, agent: &Agent, now: Instant) -> Result<Connection, Denial> {
        while let Some(mut idle) = self.take() {
            let young = now.saturating_duration_since(idle.since) < agent.idle_timeout;
            if young && idle.address == agent.address && is_quiet(&mut idle.connection.stream) {
                return Ok(idle.connection);
            }
        }
        match timeout(agent.connect_timeout, connect(&agent.address)).await {
            Ok(Ok(stream)) => Ok(stream.into()),
            Ok(Err(_)) | Err(_) => Err(Denial::AgentUnreachable),
        }
    }

    fn take(&self) -> Option<Idle> {
        self.idle.lock().pop()
    }

    /// Keeps a connection whose last answer was read to its end.
    pub(super) fn keep(&self, agent: &Agent, connection: Connection, now: Instant) {
        let idle = Idle { connection, address: agent.address.clone(), since: now };
        let mut connections = self.idle.lock();
        if connections.len() >= IDLE_MAX {
            connections.remove(0);
        }
        connections.push(idle);
    }
}

/// Whether nothing came on an idle connection: bytes or its end would mean that the agent is done with it.
fn is_quiet(stream: &mut Stream) -> bool {
    let mut byte = [0; 1];
    let mut buffer = ReadBuf::new(&mut byte);
    let mut context = Context::from_waker(Waker::noop());
    matches!(Pin::new(stream).poll_read(&mut context, &mut buffer), Poll::Pending)
}

/// The streams are unbuffered: a callback is one write, and the reader of the answer has its own buffer.
async fn connect(address: &AgentAddress) -> std::io::Result<Stream> {
    match address {
        AgentAddress::Tcp(address) => {
            let stream = TcpStream::connect(&**address).await?;
            stream.set_nodelay(true)?;
            Ok(Box::new(L4Stream::from(stream)))
        }
        AgentAddress::Unix(path) => Ok(Box::new(L4Stream::from(UnixStream::connect(&**path).await?))),
    }
}
