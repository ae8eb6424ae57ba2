//! HTTP/1 and HTTP/2 as Callgate speaks them: requests from callers and their responses, and requests to the agent and to
//! providers.
//!
//! HTTP/1 is read and written here, on every listener and towards every upstream, by the grammar of [`crate::framing`].
//! Heads are validated byte by byte before anything interprets them. pingora reads and writes HTTP/2.

pub(crate) mod body;
mod body_memory;
mod buffered_io;
pub(crate) mod client;
pub(crate) mod refuse;
pub(crate) mod request_head;
mod request_loop;
pub(crate) mod response;
mod server;
mod session;
mod timeouts;

pub(crate) use body_memory::{BodyMemory, Reserved};
pub(crate) use buffered_io::BufferedIo;
pub(crate) use request_head::{HeadError, HeadRead};
pub(crate) use request_loop::{Next, RequestLoop};
pub(crate) use response::Broken;
pub(crate) use server::{Http1, write_answer_head};
pub(crate) use session::{
    Caller, Session, TRACEPARENT, continue_if_expected, go_on_with, head_of, is_ambiguous,
};
pub(crate) use timeouts::{FAREWELL, ReusableTimer, WRITE_TIMEOUT, within};
