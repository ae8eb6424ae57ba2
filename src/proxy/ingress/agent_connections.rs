//! The pool of connections to the agent.

use std::net::SocketAddr;
use std::time::Instant;

use tokio::net::{TcpStream, UnixStream, lookup_host};
use tokio::time::timeout;

use crate::denial::Denial;
use crate::http::client::{Connection, ConnectionPool, Upstream, attempt_order, connect_first};
use crate::policy::{Agent, AgentAddress};

/// The pool of idle connections to the agent. The key is the agent's address, which a reload may change.
pub(crate) type AgentPool = ConnectionPool<AgentAddress>;

/// Returns an idle connection to the agent, or opens a new one.
///
/// # Errors
/// Returns `agent_unreachable` if no connection can be opened. Nothing was sent then.
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

/// Returns a connection to the pool after its response was read completely.
pub(crate) fn keep(pool: &AgentPool, agent: &Agent, connection: Connection, now: Instant) {
    pool.keep(agent.address.clone(), connection, agent.idle_timeout, now);
}

/// Opens a connection. The stream is unbuffered: a callback is sent in one write, and responses are read into their own
/// buffer.
async fn connect(address: &AgentAddress) -> std::io::Result<Upstream> {
    match address {
        AgentAddress::Tcp(address) => {
            let addresses: Vec<_> = lookup_host(&**address).await?.collect();
            let (_, stream) =
                connect_first(&attempt_order(&addresses, None), TcpStream::connect::<SocketAddr>).await?;
            stream.set_nodelay(true)?;
            Ok(Upstream::Tcp(stream))
        }
        AgentAddress::Unix(path) => Ok(Upstream::Unix(UnixStream::connect(&**path).await?)),
    }
}
