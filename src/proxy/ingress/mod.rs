//! The ingress listeners: connections, requests, delivery to the agent, and notices to the agent about callbacks that
//! did not arrive.

mod agents;
mod caller_rate_limits;
mod connection;
mod context;
mod deliver;
mod exchange;
mod http2_connection;
mod inbox;
mod notice_queue;
mod notices;
mod replica_listener;

pub use agents::check_agent;
pub(crate) use agents::{Agents, PreparedAgents};
pub(crate) use caller_rate_limits::RateLimits;
pub(crate) use connection::serve;
pub(crate) use context::{IngressContext, IngressDrain};
pub(crate) use inbox::{Deliveries, run as run_deliveries};
pub(crate) use notices::{Notices, run as run_notices};
pub(crate) use replica_listener::ReplicaListener;
