//! Connections to the agent, kept alive between callbacks.

use std::time::Instant;

use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

use super::http1_client::Connection;
use super::idle_pool::IdlePool;
use super::upstream::Upstream;
use crate::denial::Denial;
use crate::policy::{Agent, AgentAddress};

/// The idle connections, by the address they lead to.
pub(super) type Pool = IdlePool<AgentAddress>;

/// Returns a connection that is ready to be written to: the one used last, or a new one.
///
/// # Errors
/// `agent_unreachable`; nothing was sent.
pub(super) async fn connection(pool: &Pool, agent: &Agent, now: Instant) -> Result<Connection, Denial> {
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
pub(super) fn keep(pool: &Pool, agent: &Agent, connection: Connection, now: Instant) {
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
