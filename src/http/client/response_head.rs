//! Reads the head of an HTTP/1 response, and determines the framing of its body.

use std::mem::MaybeUninit;

use bytes::{Buf, Bytes, BytesMut};
use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Version};
use httparse::Status;
use tokio::io::{AsyncRead, AsyncReadExt};

use super::fault::ResponseFault;
use crate::framing::{Chunks, Framing};

/// The initial capacity of the read buffer, in bytes. It is sufficient for a head and a small body.
const READ_BYTES: usize = 4 << 10;
/// The maximum size of the head of a response, in bytes.
const HEAD_BYTES_MAX: usize = 64 << 10;
/// The maximum number of interim (1xx) responses before the final response (RFC 9110 section 15.2).
const INTERIM_MAX: usize = 32;
/// The maximum number of header lines in a response.
const HEADERS_MAX: usize = 256;

/// The parsed head of a response.
pub(crate) struct ResponseHead {
    pub(crate) status: StatusCode,
    pub(crate) version: Version,
    pub(crate) headers: HeaderMap,
}

/// Skips interim (1xx) responses and reads the head of the final response. Returns the head and the bytes that were
/// read after it. `is_upgrade` is true if the request asked for a protocol upgrade. In this case, `101 Switching
/// Protocols` is the final response. Otherwise status 101 is an error.
pub(crate) async fn read_final_head(
    stream: &mut (impl AsyncRead + Unpin),
    is_upgrade: bool,
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
        // The bytes of the first read are always parsed, so that a response that is not HTTP fails without waiting.
        // After each later read, the bytes are parsed only if an empty line has arrived. A head that arrives in many
        // small parts is therefore not parsed again for each part.
        if before > 0 && !has_empty_line(bytes.get(before.saturating_sub(2)..).unwrap_or_default()) {
            continue;
        }
        let mut unparsed = bytes.freeze();
        while let Some((head, length)) = parse(&unparsed)? {
            unparsed.advance(length);
            match head.status.as_u16() {
                // The last read may have returned a head that is longer than the limit.
                _ if length > HEAD_BYTES_MAX => return Err(ResponseFault::Garbled),
                101 if is_upgrade => return Ok((head, unparsed)),
                200..=599 => return Ok((head, unparsed)),
                100 | 102..=199 if interim < INTERIM_MAX => interim += 1,
                _ => return Err(ResponseFault::Garbled),
            }
        }
        bytes = unparsed.try_into_mut().unwrap_or_else(|unparsed| BytesMut::from(&unparsed[..]));
    }
}

/// Reports whether the bytes contain an empty line.
fn has_empty_line(bytes: &[u8]) -> bool {
    let rest = |at: usize| bytes.get(at + 1..).unwrap_or_default();
    memchr::memchr_iter(b'\n', bytes).any(|at| matches!(rest(at), [b'\n', ..] | [b'\r', b'\n', ..]))
}

/// Parses a head. Returns the head and its length in bytes, or `None` if the head is incomplete. Accepts obsolete forms
/// that servers still send. Callgate does not relay these forms, because it serializes the headers again. A bare LF is
/// an error.
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
    // A bare LF is an error. The program that wrote the response may have copied this LF into a header value. The rest
    // of the value would then be read as another header, which could change the end of the response.
    if memchr::memchr_iter(b'\n', bytes.get(..length).unwrap_or_default()).any(|at| !follows_cr(bytes, at)) {
        return Err(ResponseFault::Garbled);
    }
    let status =
        StatusCode::from_u16(response.code.unwrap_or_default()).map_err(|_| ResponseFault::Garbled)?;
    let version = if response.version == Some(1) { Version::HTTP_11 } else { Version::HTTP_10 };
    let mut headers = HeaderMap::with_capacity(response.headers.len());
    for line in response.headers.iter() {
        let name = HeaderName::from_bytes(line.name.as_bytes()).map_err(|_| ResponseFault::Garbled)?;
        let value = match memchr::memchr2(b'\r', b'\n', line.value) {
            None => HeaderValue::from_maybe_shared(bytes.slice_ref(line.value)),
            // Replaces the line breaks of a folded value by spaces (RFC 9112 section 5.2).
            Some(_) => HeaderValue::from_maybe_shared(unfolded(line.value)),
        };
        headers
            .try_append(name, value.map_err(|_| ResponseFault::Garbled)?)
            .map_err(|_| ResponseFault::Garbled)?;
    }
    Ok(Some((ResponseHead { status, version, headers }, length)))
}

/// Reports whether the byte before `at` is a CR.
fn follows_cr(bytes: &[u8], at: usize) -> bool {
    at.checked_sub(1).and_then(|before| bytes.get(before)) == Some(&b'\r')
}

fn unfolded(value: &[u8]) -> Bytes {
    value.iter().map(|b| if matches!(b, b'\r' | b'\n') { b' ' } else { *b }).collect()
}

/// Returns the framing of the body (RFC 9112 section 6.3), the declared length in bytes, and whether the framing is
/// unambiguous. After a response with ambiguous framing, the connection must not be reused.
pub(crate) fn framing(
    head: &ResponseHead,
    expects_body: bool,
) -> Result<(Framing, Option<u64>, bool), ResponseFault> {
    let mut codings = head.headers.get_all(TRANSFER_ENCODING).iter();
    let coding = codings.next().map(|value| value.as_bytes().trim_ascii());
    // Callgate supports no transfer coding other than `chunked`.
    if codings.next().is_some() || coding.is_some_and(|coding| !coding.eq_ignore_ascii_case(b"chunked")) {
        return Err(ResponseFault::Garbled);
    }
    let length = if coding.is_some() { None } else { length(&head.headers)? };
    let has_no_body = matches!(
        head.status,
        StatusCode::SWITCHING_PROTOCOLS | StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED
    );
    // A response with status 101, 204 or 304 must not have a body. If the peer declares a body nevertheless, it may
    // also send the body.
    let contradicts = has_no_body && (coding.is_some() || length.is_some_and(|length| length > 0));
    let unambiguous = !contradicts
        && (coding.is_none()
            || (head.version == Version::HTTP_11 && !head.headers.contains_key(CONTENT_LENGTH)));
    let framing = match (expects_body && !has_no_body, coding, length) {
        (false, ..) => Framing::Length(0),
        (true, Some(_), _) => Framing::Chunks(Chunks::of_an_answer()),
        (true, None, Some(length)) => Framing::Length(length),
        (true, None, None) => Framing::Close,
    };
    Ok((framing, length, unambiguous))
}

/// Parses `Content-Length`. Several equal values are accepted (RFC 9110 section 8.6).
fn length(headers: &HeaderMap) -> Result<Option<u64>, ResponseFault> {
    let mut length = None;
    for value in headers.get_all(CONTENT_LENGTH) {
        for value in value.to_str().map_err(|_| ResponseFault::Garbled)?.split(',') {
            let value = value.trim();
            let digits = !value.is_empty() && value.bytes().all(|b| b.is_ascii_digit());
            let value: u64 = value.parse().ok().filter(|_| digits).ok_or(ResponseFault::Garbled)?;
            if length.replace(value).is_some_and(|before| before != value) {
                return Err(ResponseFault::Garbled);
            }
        }
    }
    Ok(length)
}
