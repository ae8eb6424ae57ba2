//! The ingress: connections, exchanges, delivery to the agent, and notices to the agent about callbacks that did not
//! arrive.

mod agent_client;
mod agents;
mod callback_exchange;
mod connection;
mod context;
mod deliver;
mod http2_connection;
mod notice_queue;
mod notices;
mod rate_limits;
mod request_log;
mod respond_to_handshake;
mod stream_exchange;

pub use agents::check_agent;
pub(crate) use agents::{Agents, PreparedAgents};
pub(crate) use connection::serve;
pub(crate) use context::{IngressContext, IngressDrain};
pub(crate) use notices::{Notices, run as run_notices};
pub(crate) use rate_limits::RateLimits;
