//! The strict grammar of HTTP/1 messages: heads and chunked bodies. It works on bytes and does no I/O. A message that
//! two parsers could understand differently is an error and is never repaired, because a proxy before or after
//! Callgate may understand it in the other way (request smuggling).

mod chunks;
mod head;

pub use chunks::{ChunkFault, Chunks};
pub use head::{Head, HeadFault};

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
    /// Reports whether the whole body has been read. Always false for [`Framing::Close`].
    pub fn is_done(&self) -> bool {
        match self {
            Self::Chunks(chunks) => chunks.is_done(),
            Self::Close => false,
            Self::Length(left) => *left == 0,
        }
    }
}

/// Reports whether a byte is allowed in a method or a header name: `tchar` of RFC 9110 section 5.6.2.
const fn is_token(b: u8) -> bool {
    matches!(
        b,
        b'!' | b'#'
            | b'$'
            | b'%'
            | b'&'
            | b'\''
            | b'*'
            | b'+'
            | b'-'
            | b'.'
            | b'^'
            | b'_'
            | b'`'
            | b'|'
            | b'~'
    ) || b.is_ascii_alphanumeric()
}

/// Reports whether a byte is a control character that is not allowed in a header value (RFC 9110 section 5.5).
const fn is_control(b: u8) -> bool {
    (b < b' ' && b != b'\t') || b == 0x7f
}
