//! The content codings of request bodies (RFC 9110 section 8.4.1): gzip, deflate and br. The size of a decoded body is
//! limited, because a small body can decode to a very large body.

use std::fmt;
use std::io::{self, BufRead, Read};

use brotli_decompressor::Decompressor;
use flate2::bufread::{MultiGzDecoder, ZlibDecoder};
use http::header::CONTENT_ENCODING;

use crate::request::{RequestHead, Single};

/// The size of the buffer for decoded bytes. It is also the maximum number of bytes that are decoded beyond the size
/// limit of a body.
const CHUNK_BYTES: usize = 16 << 10;
/// The maximum number of bytes of the encoded body that one step reads. An encoded body can have many bytes that decode
/// to nothing, such as empty gzip members.
const STEP_INPUT_BYTES: usize = 32 << 10;
/// The number of decoded bytes after which a decoding step ends.
const STEP_OUTPUT_BYTES: usize = 256 << 10;
/// The maximum ratio of the decoded size to the encoded size. Decoding costs CPU time before the signature is verified.
/// Without this limit, a few bytes could decode to the maximum size of a body.
const RATIO_MAX: u64 = 256;
/// The size of a decoded body up to which the ratio is not limited, in bytes.
const FREE_BYTES: u64 = 64 << 10;

/// A content coding of request bodies that Callgate can decode.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ContentCoding {
    /// `br`, the Brotli format (RFC 7932).
    Brotli,
    /// `deflate`, which is the zlib format (RFC 1950).
    Deflate,
    /// `gzip` (RFC 1952).
    Gzip,
}

/// The reason why a body could not be decoded.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum DecodeError {
    /// The body is not in the format of its content coding, is incomplete, or has bytes after its end.
    Malformed,
    /// The memory for all bodies is used up.
    NoMemory,
    /// The decoded body is larger than this number of bytes. The number is the smaller one of `bytes_max` and the limit
    /// that follows from the maximum ratio.
    TooLarge(u64),
}

impl fmt::Display for ContentCoding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.name())
    }
}

impl ContentCoding {
    /// Returns the name of the content coding.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Brotli => "br",
            Self::Deflate => "deflate",
            Self::Gzip => "gzip",
        }
    }

    /// Returns the content coding of a request body. Returns `None` if the body has no coding, several codings or an
    /// unknown coding.
    pub fn of(head: &RequestHead<'_>) -> Option<Self> {
        let Single::One(value) = head.single(&CONTENT_ENCODING) else { return None };
        match value.to_str().ok()?.trim().to_ascii_lowercase().as_str() {
            "br" => Some(Self::Brotli),
            "deflate" => Some(Self::Deflate),
            "gzip" | "x-gzip" => Some(Self::Gzip),
            _ => None,
        }
    }

    /// Decodes a whole body with a [`BodyDecoder`].
    ///
    /// # Errors
    /// Returns a [`DecodeError`] if the body cannot be decoded. Decoding stops as soon as a limit is exceeded.
    pub fn decode(
        self,
        body: &[u8],
        bytes_max: u64,
        grow: &mut dyn FnMut(u64) -> bool,
    ) -> Result<Vec<u8>, DecodeError> {
        let mut decoder = BodyDecoder::new(self, body, bytes_max);
        while !decoder.step(grow)? {}
        Ok(decoder.decoded)
    }
}

/// The unread part of the encoded body. A decoder reads at most `budget` bytes in one step.
struct Input<'b> {
    rest: &'b [u8],
    budget: usize,
}

impl BufRead for Input<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.budget == 0 && !self.rest.is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(self.rest.get(..self.budget).unwrap_or(self.rest))
    }

    fn consume(&mut self, bytes: usize) {
        self.rest = self.rest.get(bytes..).unwrap_or_default();
        self.budget = self.budget.saturating_sub(bytes);
    }
}

impl Read for Input<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let count = self.fill_buf()?.read(out)?;
        self.consume(count);
        Ok(count)
    }
}

/// The decoder of one of the content codings.
enum Decoder<'b> {
    Brotli(Box<Decompressor<Input<'b>>>),
    Deflate(ZlibDecoder<Input<'b>>),
    Gzip(MultiGzDecoder<Input<'b>>),
}

impl<'b> Decoder<'b> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Brotli(decoder) => decoder.read(out),
            Self::Deflate(decoder) => decoder.read(out),
            Self::Gzip(decoder) => decoder.read(out),
        }
    }

    fn input(&mut self) -> &mut Input<'b> {
        match self {
            Self::Brotli(decoder) => decoder.get_mut(),
            Self::Deflate(decoder) => decoder.get_mut(),
            Self::Gzip(decoder) => decoder.get_mut(),
        }
    }

    /// Reports whether the encoded body has no bytes after the end of its compressed stream.
    fn is_at_end(&mut self) -> bool {
        // If the Brotli decoder has already read bytes after the end of the stream, its next read returns an error.
        let is_read = match self {
            Self::Brotli(decoder) => decoder.read(&mut [0]).is_ok(),
            Self::Deflate(_) | Self::Gzip(_) => true,
        };
        is_read && self.input().rest.is_empty()
    }
}

/// Decodes a body in steps. A step takes about a millisecond, so that the caller can do other work between two steps.
pub struct BodyDecoder<'b> {
    coding: ContentCoding,
    decoder: Decoder<'b>,
    decoded: Vec<u8>,
    chunk: Vec<u8>,
    bytes_max: usize,
}

impl<'b> BodyDecoder<'b> {
    /// Creates a decoder for a body. The decoded body may have at most `bytes_max` bytes. If it has more than 64 KiB,
    /// it must also not be larger than 256 times the size of `body`.
    pub fn new(coding: ContentCoding, body: &'b [u8], bytes_max: u64) -> Self {
        let bytes_max = bytes_max.min(RATIO_MAX.saturating_mul(body.len() as u64).max(FREE_BYTES));
        let input = Input { rest: body, budget: 0 };
        let decoder = match coding {
            ContentCoding::Brotli => Decoder::Brotli(Box::new(Decompressor::new(input, CHUNK_BYTES))),
            ContentCoding::Deflate => Decoder::Deflate(ZlibDecoder::new(input)),
            ContentCoding::Gzip => Decoder::Gzip(MultiGzDecoder::new(input)),
        };
        let bytes_max = usize::try_from(bytes_max).unwrap_or(usize::MAX);
        Self { coding, decoder, decoded: Vec::new(), chunk: vec![0; CHUNK_BYTES], bytes_max }
    }

    /// Returns the content coding that this decoder decodes.
    pub fn coding(&self) -> ContentCoding {
        self.coding
    }

    /// Returns the decoded body.
    pub fn into_decoded(self) -> Vec<u8> {
        self.decoded
    }

    /// Decodes the next part of the body. Returns true if the whole body is decoded. `grow` reserves memory: its
    /// argument is the number of bytes that decoding needs so far, and it returns false if there is not enough memory.
    ///
    /// # Errors
    /// Returns a [`DecodeError`] if the body cannot be decoded. Decoding stops as soon as a limit is exceeded.
    pub fn step(&mut self, grow: &mut dyn FnMut(u64) -> bool) -> Result<bool, DecodeError> {
        self.decoder.input().budget = STEP_INPUT_BYTES;
        let end = self.decoded.len().saturating_add(STEP_OUTPUT_BYTES);
        while self.decoded.len() < end {
            let count = match self.decoder.read(&mut self.chunk) {
                Ok(0) if self.decoder.is_at_end() => return Ok(true),
                Ok(0) => return Err(DecodeError::Malformed),
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(_) => return Err(DecodeError::Malformed),
            };
            self.append(count, grow)?;
        }
        Ok(false)
    }

    /// Appends the first `count` bytes of the buffer to the decoded body.
    fn append(&mut self, count: usize, grow: &mut dyn FnMut(u64) -> bool) -> Result<(), DecodeError> {
        let needed = self.decoded.len().saturating_add(count);
        if needed > self.bytes_max {
            return Err(DecodeError::TooLarge(self.bytes_max as u64));
        }
        if needed > self.decoded.capacity() {
            let capacity = needed.saturating_mul(2).min(self.bytes_max);
            if !grow(capacity as u64) {
                return Err(DecodeError::NoMemory);
            }
            self.decoded.reserve_exact(capacity - self.decoded.len());
        }
        self.decoded.extend_from_slice(self.chunk.get(..count).unwrap_or_default());
        Ok(())
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

    /// The text `{"a":1}` in Brotli format.
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
        // The decoded body exceeds the maximum ratio, but not the maximum size. The error contains the limit that
        // follows from the ratio.
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
    fn a_step_is_short() {
        let text: Vec<u8> =
            (0..3_000_000_u32).flat_map(|i| (i.wrapping_mul(2_654_435_761) >> 20).to_le_bytes()).collect();
        let empty = gzip(b"").repeat(50_000);
        for (coding, body, expected) in [
            (ContentCoding::Gzip, gzip(&text), &text[..]),
            (ContentCoding::Deflate, zlib(&text), &text[..]),
            (ContentCoding::Gzip, empty, &[]),
            (ContentCoding::Gzip, gzip(b"a").repeat(50_000), &[b'a'; 50_000]),
        ] {
            let mut decoder = BodyDecoder::new(coding, &body, u64::MAX);
            let (mut rest, mut bytes, mut steps) = (body.len(), 0, 0);
            while !decoder.step(&mut |_| true).unwrap() {
                let (now_rest, now_bytes) = (decoder.decoder.input().rest.len(), decoder.decoded.len());
                assert!(rest - now_rest <= STEP_INPUT_BYTES, "{coding}: {rest} {now_rest}");
                assert!(
                    now_bytes - bytes <= STEP_OUTPUT_BYTES + CHUNK_BYTES,
                    "{coding}: {bytes} {now_bytes}"
                );
                (rest, bytes, steps) = (now_rest, now_bytes, steps + 1);
            }
            assert!(steps >= body.len() / STEP_INPUT_BYTES - 1, "{coding}: {steps} steps");
            assert!(decoder.into_decoded() == expected, "{coding}");
        }
    }

    #[test]
    fn a_decoder_continues_after_each_byte() {
        let text = b"{\"a\":1}";
        for (coding, body) in [
            (ContentCoding::Gzip, [gzip(&text[..3]), gzip(&text[3..])].concat()),
            (ContentCoding::Deflate, zlib(text)),
            (ContentCoding::Brotli, BROTLI.to_vec()),
        ] {
            let mut decoder = BodyDecoder::new(coding, &body, 100);
            let (mut decoded, mut waits) = (Vec::new(), 0);
            loop {
                match decoder.decoder.read(&mut decoder.chunk) {
                    Ok(0) => break,
                    Ok(count) => decoded.extend_from_slice(&decoder.chunk[..count]),
                    Err(error) => {
                        assert_eq!(error.kind(), io::ErrorKind::WouldBlock, "{coding}");
                        decoder.decoder.input().budget = 1;
                        waits += 1;
                    }
                }
            }
            assert!(decoder.decoder.is_at_end());
            assert_eq!((&decoded[..], waits), (&text[..], body.len()), "{coding}");
        }
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
