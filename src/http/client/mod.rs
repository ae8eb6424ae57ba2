//! The HTTP/1 client: sends requests to the agent and to providers over pooled connections.

mod connection_pool;
mod exchange;
mod fault;
mod happy_eyeballs;
mod proxy_tunnel;
mod response_bytes;
mod response_head;
mod streamed_request;
mod upstream;

pub(crate) use connection_pool::ConnectionPool;
pub(crate) use exchange::{Connection, Message, UpstreamResponse, exchange};
pub(crate) use fault::ResponseFault;
pub(crate) use happy_eyeballs::{attempt_order, connect_first};
pub(crate) use proxy_tunnel::open_tunnel;
pub use response_bytes::{ResponseBytes, read_response};
pub(crate) use streamed_request::{StreamFault, Upload, exchange_streamed};
pub(crate) use upstream::{Records, Upstream};
