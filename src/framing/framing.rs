//! The ways to find the end of a message body.

use super::chunks::Chunks;

/// The way in which the end of a body is found (RFC 9112 section 6.3), and how much of the body was read.
#[derive(Clone, Copy, Debug)]
pub enum Framing {
    /// The body has the chunked transfer coding.
    Chunks(Chunks),
    /// The body ends when the connection closes. Only a response can have such a body.
    Close,
    /// `Content-Length` contains the length. The field is the number of bytes that are left.
    Length(u64),
}

impl Framing {
    /// Reports whether the whole body has been read. Always false for [`Framing::Close`], because only the end of the
    /// connection ends such a body.
    pub fn is_done(&self) -> bool {
        match self {
            Self::Chunks(chunks) => chunks.is_done(),
            Self::Close => false,
            Self::Length(left) => *left == 0,
        }
    }
}
