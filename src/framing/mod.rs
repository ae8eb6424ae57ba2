//! The strict grammar of HTTP/1 messages: heads and chunked bodies. This module works on bytes and does no I/O. A
//! message that two parsers could interpret differently is an error and is never repaired. Otherwise Callgate and a
//! proxy before or after it could interpret the message differently (request smuggling).

mod bytes;
mod chunks;
#[allow(clippy::module_inception, reason = "the type of this name is what the folder is about")]
mod framing;
mod head;
mod header_name;
mod trailers;

pub use chunks::{ChunkFault, Chunks};
pub use framing::Framing;
pub use head::{Head, HeadFault, is_authority};
pub use header_name::{is_callgate_header, is_same_header};
pub use trailers::Trailers;
