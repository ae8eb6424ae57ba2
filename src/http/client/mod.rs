//! The client's side of HTTP/1: one request, one response, over connections that are kept between requests.

mod connection_pool;
mod exchange;
mod fault;
mod response_head;
mod upstream;

pub(crate) use connection_pool::ConnectionPool;
pub(crate) use exchange::{Connection, Message, UpstreamResponse, exchange};
pub(crate) use fault::ResponseFault;
pub(crate) use upstream::{Records, Upstream};
