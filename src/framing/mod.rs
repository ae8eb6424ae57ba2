//! What the bytes of an HTTP/1 request must be before they are taken apart, and how the end of a body is found. What two
//! readers could take for two different things is refused here: what is ambiguous to somebody before or behind us is not
//! repaired.

mod chunks;
mod head;

pub use chunks::{ChunkFault, Chunks};
pub use head::{Head, HeadFault};

/// How the end of a body is found (RFC 9112 section 6.3), and how much of it is still to come.
#[derive(Clone, Copy, Debug)]
pub enum Framing {
    /// By its chunks.
    Chunks(Chunks),
    /// By the end of the connection: answers alone.
    Close,
    /// By counting: this many bytes are still to come.
    Length(u64),
}

impl Framing {
    /// Whether nothing is still to come.
    pub fn is_done(&self) -> bool {
        match self {
            Self::Chunks(chunks) => chunks.is_done(),
            Self::Close => false,
            Self::Length(left) => *left == 0,
        }
    }
}

/// A character of a method, of a header's name (RFC 9110 section 5.6.2).
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

/// Whether a byte has no place in a header's value (RFC 9110 section 5.5).
const fn is_control(b: u8) -> bool {
    (b < b' ' && b != b'\t') || b == 0x7f
}
