//! The head of an answer: reading it, and finding the end of the body behind it.

use std::mem::MaybeUninit;

use bytes::{Buf, Bytes, BytesMut};
use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Version};
use httparse::Status;
use tokio::io::{AsyncRead, AsyncReadExt};

use super::fault::ResponseFault;
use crate::framing::{Chunks, Framing};

/// Space for the head of an answer, and a small body behind it, in bytes.
const READ_BYTES: usize = 4 << 10;
/// Longest head of an answer, in bytes.
const HEAD_BYTES_MAX: usize = 64 << 10;
/// Most heads before the one that counts (RFC 9110 section 15.2).
const INTERIM_MAX: usize = 32;
/// Most header lines of an answer.
const HEADERS_MAX: usize = 256;

/// The head of an answer.
pub(crate) struct ResponseHead {
    pub(crate) status: StatusCode,
    pub(crate) version: Version,
    pub(crate) headers: HeaderMap,
}

/// Reads heads until one is final, and what came behind it. A switch of protocols was never asked for.
pub(crate) async fn final_head(
    stream: &mut (impl AsyncRead + Unpin),
) -> Result<(ResponseHead, Bytes), ResponseFault> {
    let (mut bytes, mut interim) = (BytesMut::with_capacity(READ_BYTES), 0);
    loop {
        if bytes.len() > HEAD_BYTES_MAX {
            return Err(ResponseFault::Garbled);
        }
        bytes.reserve(READ_BYTES / 2);
        let before = bytes.len();
        if stream.read_buf(&mut bytes).await.map_err(|_| ResponseFault::Reset)? == 0 {
            return Err(ResponseFault::Reset);
        }
        // Gone over once, however slowly it comes; what begins as no answer does is told at once.
        if before > 0 && !has_empty_line(bytes.get(before.saturating_sub(2)..).unwrap_or_default()) {
            continue;
        }
        let mut whole = bytes.freeze();
        while let Some((head, length)) = parse(&whole)? {
            whole.advance(length);
            match head.status.as_u16() {
                // However much of it came at once.
                _ if length > HEAD_BYTES_MAX => return Err(ResponseFault::Garbled),
                200..=599 => return Ok((head, whole)),
                100 | 102..=199 if interim < INTERIM_MAX => interim += 1,
                _ => return Err(ResponseFault::Garbled),
            }
        }
        bytes = whole.try_into_mut().unwrap_or_else(|whole| BytesMut::from(&whole[..]));
    }
}

/// Whether a line ends here that has nothing in it.
fn has_empty_line(bytes: &[u8]) -> bool {
    let behind = |at: usize| bytes.get(at + 1..).unwrap_or_default();
    memchr::memchr_iter(b'\n', bytes).any(|at| matches!(behind(at), [b'\n', ..] | [b'\r', b'\n', ..]))
}

/// Takes a head apart, if it is whole, and says how long it is. Servers are forgiven what they have always been
/// forgiven; the headers are written anew.
fn parse(bytes: &Bytes) -> Result<Option<(ResponseHead, usize)>, ResponseFault> {
    let mut lines = [const { MaybeUninit::uninit() }; HEADERS_MAX];
    let mut response = httparse::Response::new(&mut []);
    let mut parser = httparse::ParserConfig::default();
    parser.allow_spaces_after_header_name_in_responses(true);
    parser.allow_obsolete_multiline_headers_in_responses(true);
    let parsed = parser.parse_response_with_uninit_headers(&mut response, bytes, &mut lines);
    let length = match parsed.map_err(|_| ResponseFault::Garbled)? {
        Status::Complete(length) => length,
        Status::Partial => return Ok(None),
    };
    let status =
        StatusCode::from_u16(response.code.unwrap_or_default()).map_err(|_| ResponseFault::Garbled)?;
    let version = if response.version == Some(1) { Version::HTTP_11 } else { Version::HTTP_10 };
    let mut headers = HeaderMap::with_capacity(response.headers.len());
    for line in response.headers.iter() {
        let name = HeaderName::from_bytes(line.name.as_bytes()).map_err(|_| ResponseFault::Garbled)?;
        let value = match memchr::memchr2(b'\r', b'\n', line.value) {
            None => HeaderValue::from_maybe_shared(bytes.slice_ref(line.value)),
            // A value of several lines is one of several words (RFC 9112 section 5.2).
            Some(_) => HeaderValue::from_maybe_shared(unfolded(line.value)),
        };
        headers
            .try_append(name, value.map_err(|_| ResponseFault::Garbled)?)
            .map_err(|_| ResponseFault::Garbled)?;
    }
    Ok(Some((ResponseHead { status, version, headers }, length)))
}

fn unfolded(value: &[u8]) -> Bytes {
    value.iter().map(|b| if matches!(b, b'\r' | b'\n') { b' ' } else { *b }).collect()
}

/// How the end of the body is found (RFC 9112 section 6.3), the length that is said, and whether there is one way to find
/// that end: an answer that could be read in another way is the last one of its connection.
pub(crate) fn framing(
    head: &ResponseHead,
    expects_body: bool,
) -> Result<(Framing, Option<u64>, bool), ResponseFault> {
    let mut codings = head.headers.get_all(TRANSFER_ENCODING).iter();
    let coding = codings.next().map(|value| value.as_bytes().trim_ascii());
    // A transfer coding besides `chunked` is one that nobody here can undo.
    if codings.next().is_some() || coding.is_some_and(|coding| !coding.eq_ignore_ascii_case(b"chunked")) {
        return Err(ResponseFault::Garbled);
    }
    let length = if coding.is_some() { None } else { length(&head.headers)? };
    let bodiless = matches!(head.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    // A peer that announces a body where there is none may send it all the same.
    let contradicts = bodiless && (coding.is_some() || length.is_some_and(|length| length > 0));
    let unambiguous = !contradicts
        && (coding.is_none()
            || (head.version == Version::HTTP_11 && !head.headers.contains_key(CONTENT_LENGTH)));
    let framing = match (expects_body && !bodiless, coding, length) {
        (false, ..) => Framing::Length(0),
        (true, Some(_), _) => Framing::Chunks(Chunks::of_an_answer()),
        (true, None, Some(length)) => Framing::Length(length),
        (true, None, None) => Framing::Close,
    };
    Ok((framing, length, unambiguous))
}

/// The one length that is said, however often (RFC 9110 section 8.6).
fn length(headers: &HeaderMap) -> Result<Option<u64>, ResponseFault> {
    let mut length = None;
    for value in headers.get_all(CONTENT_LENGTH) {
        for said in value.to_str().map_err(|_| ResponseFault::Garbled)?.split(',') {
            let said = said.trim();
            let digits = !said.is_empty() && said.bytes().all(|b| b.is_ascii_digit());
            let said: u64 = said.parse().ok().filter(|_| digits).ok_or(ResponseFault::Garbled)?;
            if length.replace(said).is_some_and(|before| before != said) {
                return Err(ResponseFault::Garbled);
            }
        }
    }
    Ok(length)
}
