//! The ways to find the end of the body of an HTTP/1 message.

use super::chunks::Chunks;

/// The way to find the end of a message body (RFC 9112 section 6.3), and the progress of reading the body.
#[derive(Clone, Copy, Debug)]
pub enum Framing {
    /// The body has the chunked transfer coding. The field is the state of its parser.
    Chunks(Chunks),
    /// The body ends when the connection is closed. Only a response can have this framing.
    Close,
    /// The body has a declared length (`Content-Length`). The field is the number of bytes that were not read yet.
    Length(u64),
}

impl Framing {
    /// Reports whether the whole body was read. Always false for [`Framing::Close`], because this body ends only when
    /// the connection is closed.
    pub fn is_done(&self) -> bool {
        match self {
            Self::Chunks(chunks) => chunks.is_done(),
            Self::Close => false,
            Self::Length(left) => *left == 0,
        }
    }
}
