//! How the end of a message body is found.

use super::chunks::Chunks;

/// How the end of a body is found (RFC 9112 section 6.3), and how much of the body is left.
#[derive(Clone, Copy, Debug)]
pub enum Framing {
    /// Chunked transfer coding.
    Chunks(Chunks),
    /// The body ends when the connection closes. Responses only.
    Close,
    /// `Content-Length`. Contains the number of bytes that are left.
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
