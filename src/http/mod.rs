//! The HTTP server and the HTTP client: requests from callers and the responses to them, and requests to the agent and
//! to providers.
//!
//! This module reads and writes HTTP/1 on every listener and to every upstream. [`crate::framing`] contains the
//! grammar. A head is validated byte by byte before any other code interprets it. pingora reads and writes HTTP/2.

mod body_memory;
mod buffered_io;
pub(crate) mod client;
pub(crate) mod deny;
mod http1_session;
pub(crate) mod lingering_close;
pub(crate) mod request_body;
pub(crate) mod request_head;
mod request_loop;
pub(crate) mod response;
mod response_head;
mod session;
mod timeouts;
mod tunnel;

pub use client::{ResponseBytes, read_response};

pub(crate) use body_memory::{BodyMemory, MemoryReservation};
pub(crate) use buffered_io::BufferedIo;
pub(crate) use deny::discard_unread_body;
pub(crate) use http1_session::Http1Session;
pub(crate) use request_head::{Accepted, HeadError, HeadRead};
pub(crate) use request_loop::{NextRequest, RequestLoop};
pub(crate) use response::RelayError;
pub(crate) use response_head::write_response_head;
pub(crate) use session::{
    Caller, Session, TRACEPARENT, head_of, is_ambiguous, send_continue_if_expected, set_traceparent,
};
pub(crate) use timeouts::{CLOSE_TIMEOUT, ReusableTimer, WRITE_TIMEOUT, with_timeout};
pub(crate) use tunnel::{TunnelBytes, relay_tunnel, relay_websocket};
