//! Connections to the agent, kept alive between callbacks.

use std::time::Instant;

use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

use crate::denial::Denial;
use crate::http::client::{Connection, ConnectionPool, Upstream};
use crate::policy::{Agent, AgentAddress};

/// The idle connections, by the address they lead to.
pub(crate) type AgentPool = ConnectionPool<AgentAddress>;

/// Returns a connection that is ready to be written to: the one used last, or a new one.
///
/// # Errors
/// `agent_unreachable`; nothing was sent.
pub(crate) async fn connection(pool: &AgentPool, agent: &Agent, now: Instant) -> Result<Connection, Denial> {
    if let Some(connection) = pool.take(&agent.address, now) {
        return Ok(connection);
    }
    let generation = pool.generation();
    match timeout(agent.connect_timeout, connect(&agent.address)).await {
        Ok(Ok(stream)) => Ok(Connection::new(stream, generation)),
        Ok(Err(_)) | Err(_) => Err(Denial::AgentUnreachable),
    }
}

/// Keeps a connection whose last answer was read to its end.
pub(crate) fn keep(pool: &AgentPool, agent: &Agent, connection: Connection, now: Instant) {
    pool.keep(agent.address.clone(), connection, agent.idle_timeout, now);
}

/// The streams are unbuffered: a callback is one write, and the reader of the answer has its own buffer.
async fn connect(address: &AgentAddress) -> std::io::Result<Upstream> {
    match address {
        AgentAddress::Tcp(address) => {
            let stream = TcpStream::connect(&**address).await?;
            stream.set_nodelay(true)?;
            Ok(Upstream::Tcp(stream))
        }
        AgentAddress::Unix(path) => Ok(Upstream::Unix(UnixStream::connect(&**path).await?)),
    }
}
