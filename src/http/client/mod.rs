//! The HTTP/1 client: sends requests to the agent and to providers over pooled connections.

mod connection_pool;
mod exchange;
mod fault;
mod happy_eyeballs;
mod response_bytes;
mod response_head;
mod upstream;

pub(crate) use connection_pool::ConnectionPool;
pub(crate) use exchange::{Connection, Message, ReceivedHead, UpstreamResponse, exchange, response};
pub(crate) use fault::ResponseFault;
pub(crate) use happy_eyeballs::{attempt_order, connect_first};
pub use response_bytes::{ResponseBytes, read_response};
pub(crate) use response_head::read_final_head;
pub(crate) use upstream::{Records, Upstream};
