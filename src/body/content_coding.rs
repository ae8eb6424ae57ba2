//! Content codings of request bodies (RFC 9110 section 8.4.1): gzip, deflate and br. Decoding is limited, because a small
//! body can become a very large one.

use std::fmt;
use std::io::Read;

use brotli_decompressor::Decompressor;
use flate2::bufread::{MultiGzDecoder, ZlibDecoder};
use http::header::CONTENT_ENCODING;

use crate::request::{RequestHead, Single};

/// Size of the buffer through which bytes are decoded. At most this many bytes are decoded beyond a limit.
const CHUNK_BYTES: usize = 16 << 10;
/// Maximum ratio of the decoded size to the encoded size. Decoding costs CPU before the signature is verified. Without
/// this limit, a few bytes could decode to the maximum size of a body.
const RATIO_MAX: u64 = 256;
/// Size up to which the ratio is not limited, in bytes.
const FREE_BYTES: u64 = 64 << 10;

/// A content coding that Callgate can decode.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ContentCoding {
    /// `br`, the Brotli format (RFC 7932).
    Brotli,
    /// `deflate`, which is the zlib format (RFC 1950).
    Deflate,
    /// `gzip` (RFC 1952).
    Gzip,
}

/// The reason why a body was not decoded.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum DecodeError {
    /// The body is not in the format of its coding, is incomplete, or has bytes after its end.
    Malformed,
    /// There is not enough memory for all bodies.
    NoMemory,
    /// The decoded body has more bytes than this limit: `bytes_max`, or the limit of the ratio if that is smaller.
    TooLarge(u64),
}

impl fmt::Display for ContentCoding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.name())
    }
}

impl ContentCoding {
    /// Returns the name of the coding.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Brotli => "br",
            Self::Deflate => "deflate",
            Self::Gzip => "gzip",
        }
    }

    /// Returns the coding of a request's body. Returns `None` if the body has no coding, several codings or an unknown
    /// one.
    pub fn of(head: &RequestHead<'_>) -> Option<Self> {
        let Single::One(value) = head.single(&CONTENT_ENCODING) else { return None };
        match value.to_str().ok()?.trim().to_ascii_lowercase().as_str() {
            "br" => Some(Self::Brotli),
            "deflate" => Some(Self::Deflate),
            "gzip" | "x-gzip" => Some(Self::Gzip),
            _ => None,
        }
    }

    /// Decodes a body. The decoded body has at most `bytes_max` bytes. Above 64 KiB, it also has at most 256 times as many
    /// bytes as `body`. `grow` reserves memory: it receives the number of bytes that decoding needs so far, and returns
    /// false if there is not enough memory.
    ///
    /// # Errors
    /// [`DecodeError`]. Decoding stops as soon as the limit is exceeded.
    pub fn decode(
        self,
        body: &[u8],
        bytes_max: u64,
        grow: &mut dyn FnMut(u64) -> bool,
    ) -> Result<Vec<u8>, DecodeError> {
        let bytes_max = bytes_max.min(RATIO_MAX.saturating_mul(body.len() as u64).max(FREE_BYTES));
        let (decoded, rest) = match self {
            Self::Brotli => {
                let mut decoder = Decompressor::new(body, CHUNK_BYTES);
                let decoded = read(&mut decoder, bytes_max, grow)?;
                // If the decoder has already read bytes after the end of the stream, it reports them at the next read.
                decoder.read(&mut [0]).map_err(|_| DecodeError::Malformed)?;
                (decoded, decoder.into_inner())
            }
            Self::Deflate => {
                let mut decoder = ZlibDecoder::new(body);
                (read(&mut decoder, bytes_max, grow)?, decoder.into_inner())
            }
            Self::Gzip => {
                let mut decoder = MultiGzDecoder::new(body);
                (read(&mut decoder, bytes_max, grow)?, decoder.into_inner())
            }
        };
        if rest.is_empty() { Ok(decoded) } else { Err(DecodeError::Malformed) }
    }
}

fn read(
    decoder: &mut dyn Read,
    bytes_max: u64,
    grow: &mut dyn FnMut(u64) -> bool,
) -> Result<Vec<u8>, DecodeError> {
    let bytes_max = usize::try_from(bytes_max).unwrap_or(usize::MAX);
    let mut decoded = Vec::new();
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        let count = decoder.read(&mut chunk).map_err(|_| DecodeError::Malformed)?;
        let bytes = chunk.get(..count).unwrap_or_default();
        if bytes.is_empty() {
            return Ok(decoded);
        }
        let needed = decoded.len().saturating_add(count);
        if needed > bytes_max {
            return Err(DecodeError::TooLarge(bytes_max as u64));
        }
        if needed > decoded.capacity() {
            let capacity = needed.saturating_mul(2).min(bytes_max);
            if !grow(capacity as u64) {
                return Err(DecodeError::NoMemory);
            }
            decoded.reserve_exact(capacity - decoded.len());
        }
        decoded.extend_from_slice(bytes);
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::{GzEncoder, ZlibEncoder};

    use super::*;

    fn gzip(body: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(body).unwrap();
        encoder.finish().unwrap()
    }

    fn zlib(body: &[u8]) -> Vec<u8> {
        let mut encoder = ZlibEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(body).unwrap();
        encoder.finish().unwrap()
    }

    /// `{"a":1}` repeated once, in Brotli.
    const BROTLI: &[u8] = &[0x0b, 0x03, 0x80, b'{', b'"', b'a', b'"', b':', b'1', b'}', 0x03];

    fn decode(coding: ContentCoding, body: &[u8], max: u64) -> Result<Vec<u8>, DecodeError> {
        coding.decode(body, max, &mut |_| true)
    }

    #[test]
    fn bodies_are_decoded() {
        let text = b"{\"a\":1}".repeat(5000);
        assert_eq!(decode(ContentCoding::Gzip, &gzip(&text), 35_000).unwrap(), text);
        assert_eq!(decode(ContentCoding::Deflate, &zlib(&text), 35_000).unwrap(), text);
        assert_eq!(decode(ContentCoding::Gzip, &[gzip(b"a"), gzip(b"b")].concat(), 2).unwrap(), b"ab");
        assert_eq!(decode(ContentCoding::Brotli, BROTLI, 7).unwrap(), b"{\"a\":1}");
        assert_eq!(decode(ContentCoding::Gzip, &gzip(b""), 0).unwrap(), b"");
    }

    #[test]
    fn decoding_is_limited() {
        let bomb = gzip(&vec![0; 8 << 20]);
        assert!(bomb.len() < 10_000);
        let mut reserved = 0;
        let result = ContentCoding::Gzip.decode(&bomb, 100_000, &mut |bytes| {
            reserved = bytes;
            true
        });
        assert_eq!(result, Err(DecodeError::TooLarge(100_000)));
        assert!(reserved <= 100_000, "{reserved}");
        assert_eq!(decode(ContentCoding::Gzip, &gzip(b"ab"), 1), Err(DecodeError::TooLarge(1)));
        // The ratio is limited, too, although the maximum size is not exceeded. The error names the limit that applied.
        let of_ratio = 256 * bomb.len() as u64;
        assert_eq!(decode(ContentCoding::Gzip, &bomb, u64::MAX), Err(DecodeError::TooLarge(of_ratio)));
        let small = gzip(&[0; (64 << 10) + 1]);
        assert_eq!(decode(ContentCoding::Gzip, &small, u64::MAX), Err(DecodeError::TooLarge(64 << 10)));
        assert_eq!(decode(ContentCoding::Gzip, &gzip(&[0; 64 << 10]), u64::MAX).unwrap().len(), 64 << 10);
        assert_eq!(decode(ContentCoding::Brotli, BROTLI, 6), Err(DecodeError::TooLarge(6)));
        let refused = ContentCoding::Gzip.decode(&bomb, u64::MAX, &mut |bytes| bytes < 1 << 20);
        assert_eq!(refused, Err(DecodeError::NoMemory));
    }

    #[test]
    fn malformed_bodies_are_not_decoded() {
        for coding in [ContentCoding::Gzip, ContentCoding::Deflate, ContentCoding::Brotli] {
            let whole = match coding {
                ContentCoding::Gzip => gzip(b"a body"),
                ContentCoding::Deflate => zlib(b"a body"),
                ContentCoding::Brotli => BROTLI.to_vec(),
            };
            for end in 0..whole.len() {
                let cut = decode(coding, &whole[..end], 100);
                assert_eq!(cut, Err(DecodeError::Malformed), "{coding}: {end} bytes");
            }
            assert_eq!(
                decode(coding, b"{\"not\":\"encoded\"}", 100),
                Err(DecodeError::Malformed),
                "{coding}"
            );
        }
        for longer in [[gzip(b"a"), b"x".to_vec()].concat(), [gzip(b"a"), zlib(b"a")].concat()] {
            assert_eq!(decode(ContentCoding::Gzip, &longer, 100), Err(DecodeError::Malformed));
        }
        let longer = [zlib(b"a"), b"x".to_vec()].concat();
        assert_eq!(decode(ContentCoding::Deflate, &longer, 100), Err(DecodeError::Malformed));
        for more in [&b"x"[..], BROTLI, &[0; 40_000]] {
            let longer = [BROTLI, more].concat();
            let result = decode(ContentCoding::Brotli, &longer, 100);
            assert_eq!(result, Err(DecodeError::Malformed), "{} bytes more", more.len());
        }
    }
}
