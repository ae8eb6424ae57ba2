//! One message out, one answer back, over a connection that is there: to the agent and to providers alike. A
//! message is one write, and it is never sent a second time.

use std::mem::MaybeUninit;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Version};
use httparse::Status;
use pingora::protocols::Stream;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::patience::Alarm;
use crate::denial::Denial;
use crate::framing::{Chunks, Framing};
use crate::request::lasts;

/// Up to this size the body is copied behind the head, which costs less than a second buffer in the write.
const ONE_BUFFER_BYTES_MAX: usize = 16 << 10;
/// Room for the head of an answer, and a small body behind it, in bytes.
const READ_BYTES: usize = 4 << 10;
/// Longest head of an answer, in bytes.
const HEAD_BYTES_MAX: usize = 64 << 10;
/// Most heads before the one that counts (RFC 9110 section 15.2).
const INTERIM_MAX: usize = 32;
/// Most header lines of an answer.
const HEADERS_MAX: usize = 256;
/// What is read of a body at once, at most, in bytes.
const PIECE_BYTES: usize = 32 << 10;

/// A finished message.
pub(super) struct Message {
    /// The HTTP/1.1 head, blank line included.
    pub(super) head: Vec<u8>,
    /// The body.
    pub(super) body: Bytes,
    /// Whether the answer may have a body: not to HEAD.
    pub(super) expects_body: bool,
}

/// Why there is no whole answer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Fault {
    /// It is not HTTP/1.1.
    Garbled,
    /// The connection ended; the message may have arrived.
    Reset,
    /// It took too long; the message may have arrived.
    Timeout,
    /// There is no connection; nothing was sent.
    Unreachable,
}

impl Fault {
    /// The reason, when it is the agent's.
    pub(super) const fn of_agent(self) -> Denial {
        match self {
            Self::Garbled => Denial::AgentGarbled,
            Self::Reset => Denial::AgentReset,
            Self::Timeout => Denial::AgentTimeout,
            Self::Unreachable => Denial::AgentUnreachable,
        }
    }

    /// The reason, when it is a provider's.
    pub(super) const fn of_provider(self) -> Denial {
        match self {
            Self::Garbled => Denial::ProviderGarbled,
            Self::Reset => Denial::ProviderReset,
            Self::Timeout => Denial::ProviderTimeout,
            Self::Unreachable => Denial::ProviderUnreachable,
        }
    }
}

/// A connection to whoever answers, and its timer.
pub(super) struct Connection {
    pub(super) stream: Stream,
    alarm: Alarm,
}

impl From<Stream> for Connection {
    fn from(stream: Stream) -> Self {
        Self { stream, alarm: Alarm::default() }
    }
}

/// An answer: its head is read, its body is still to come.
pub(super) struct Answer {
    connection: Connection,
    status: StatusCode,
    headers: HeaderMap,
    /// What is still to come of the body.
    body: Framing,
    /// What was read and not taken.
    read: Bytes,
    /// Whether the connection can be used again once the body is read to its end.
    keep: bool,
    patience: Duration,
}

/// Sends a message and reads the head of the answer, which, like each further piece, may take `patience`.
pub(super) async fn exchange(
    mut connection: Connection,
    message: Message,
    patience: Duration,
) -> Result<Answer, Fault> {
    let expects_body = message.expects_body;
    let Connection { stream, alarm } = &mut connection;
    let answered = alarm.within(patience, converse(stream, message)).await;
    let (head, read) = answered.unwrap_or(Err(Fault::Timeout))?;
    let (body, length, unambiguous) = framing(&head, expects_body)?;
    let AnswerLines { status, version, mut headers } = head;
    let lasts = lasts(version, &headers) && !matches!(body, Framing::Close);
    // Whoever sends a body behind an answer to HEAD all the same does so when nobody looks.
    let keep = lasts && unambiguous && expects_body;
    // A length that was said more than once is passed on once, and one that does not count is not.
    match length {
        Some(length) => drop(headers.insert(CONTENT_LENGTH, length.into())),
        None => drop(headers.remove(CONTENT_LENGTH)),
    }
    Ok(Answer { connection, status, headers, body, read, keep, patience })
}

/// Writes the message and reads the head of the answer. A peer may answer and close before it has read everything;
/// such an answer still counts, so a failed write is followed by a look at what came back.
async fn converse(stream: &mut Stream, message: Message) -> Result<(AnswerLines, Bytes), Fault> {
    let _ = send(stream, message).await;
    final_head(stream).await
}

async fn send(stream: &mut Stream, message: Message) -> std::io::Result<()> {
    let Message { mut head, body, .. } = message;
    if body.len() <= ONE_BUFFER_BYTES_MAX {
        head.extend_from_slice(&body);
        stream.write_all(&head).await?;
    } else {
        stream.write_all_buf(&mut Bytes::from(head).chain(body)).await?;
    }
    stream.flush().await
}

/// The head of an answer.
struct AnswerLines {
    status: StatusCode,
    version: Version,
    headers: HeaderMap,
}

/// Reads heads until one is final, and what came behind it. A switch of protocols was never asked for.
async fn final_head(stream: &mut Stream) -> Result<(AnswerLines, Bytes), Fault> {
    let (mut bytes, mut interim) = (BytesMut::with_capacity(READ_BYTES), 0);
    loop {
        if bytes.len() > HEAD_BYTES_MAX {
            return Err(Fault::Garbled);
        }
        bytes.reserve(READ_BYTES / 2);
        let before = bytes.len();
        if stream.read_buf(&mut bytes).await.map_err(|_| Fault::Reset)? == 0 {
            return Err(Fault::Reset);
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
                _ if length > HEAD_BYTES_MAX => return Err(Fault::Garbled),
                200..=599 => return Ok((head, whole)),
                100 | 102..=199 if interim < INTERIM_MAX => interim += 1,
                _ => return Err(Fault::Garbled),
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
fn parse(bytes: &Bytes) -> Result<Option<(AnswerLines, usize)>, Fault> {
    let mut lines = [const { MaybeUninit::uninit() }; HEADERS_MAX];
    let mut response = httparse::Response::new(&mut []);
    let mut parser = httparse::ParserConfig::default();
    parser.allow_spaces_after_header_name_in_responses(true);
    parser.allow_obsolete_multiline_headers_in_responses(true);
    let parsed = parser.parse_response_with_uninit_headers(&mut response, bytes, &mut lines);
    let length = match parsed.map_err(|_| Fault::Garbled)? {
        Status::Complete(length) => length,
        Status::Partial => return Ok(None),
    };
    let status = StatusCode::from_u16(response.code.unwrap_or_default()).map_err(|_| Fault::Garbled)?;
    let version = if response.version == Some(1) { Version::HTTP_11 } else { Version::HTTP_10 };
    let mut headers = HeaderMap::with_capacity(response.headers.len());
    for line in response.headers.iter() {
        let name = HeaderName::from_bytes(line.name.as_bytes()).map_err(|_| Fault::Garbled)?;
        let value = match memchr::memchr2(b'\r', b'\n', line.value) {
            None => HeaderValue::from_maybe_shared(bytes.slice_ref(line.value)),
            // A value of several lines is one of several words (RFC 9112 section 5.2).
            Some(_) => HeaderValue::from_maybe_shared(unfolded(line.value)),
        };
        headers.try_append(name, value.map_err(|_| Fault::Garbled)?).map_err(|_| Fault::Garbled)?;
    }
    Ok(Some((AnswerLines { status, version, headers }, length)))
}

fn unfolded(value: &[u8]) -> Bytes {
    value.iter().map(|b| if matches!(b, b'\r' | b'\n') { b' ' } else { *b }).collect()
}

/// How the end of the body is found (RFC 9112 section 6.3), the length that is said, and whether there is one way to find
/// that end: an answer that could be read in another way is the last one of its connection.
fn framing(head: &AnswerLines, expects_body: bool) -> Result<(Framing, Option<u64>, bool), Fault> {
    let mut codings = head.headers.get_all(TRANSFER_ENCODING).iter();
    let coding = codings.next().map(|value| value.as_bytes().trim_ascii());
    // A transfer coding besides `chunked` is one that nobody here can undo.
    if codings.next().is_some() || coding.is_some_and(|coding| !coding.eq_ignore_ascii_case(b"chunked")) {
        return Err(Fault::Garbled);
    }
    let length = if coding.is_some() { None } else { length(&head.headers)? };
    let bodiless = matches!(head.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    let unambiguous =
        coding.is_none() || (head.version == Version::HTTP_11 && !head.headers.contains_key(CONTENT_LENGTH));
    let framing = match (expects_body && !bodiless, coding, length) {
        (false, ..) => Framing::Length(0),
        (true, Some(_), _) => Framing::Chunks(Chunks::of_an_answer()),
        (true, None, Some(length)) => Framing::Length(length),
        (true, None, None) => Framing::Close,
    };
    Ok((framing, length, unambiguous))
}

/// The one length that is said, however often (RFC 9110 section 8.6).
fn length(headers: &HeaderMap) -> Result<Option<u64>, Fault> {
    let mut length = None;
    for value in headers.get_all(CONTENT_LENGTH) {
        for said in value.to_str().map_err(|_| Fault::Garbled)?.split(',') {
            let said = said.trim();
            let digits = !said.is_empty() && said.bytes().all(|b| b.is_ascii_digit());
            let said: u64 = said.parse().ok().filter(|_| digits).ok_or(Fault::Garbled)?;
            if length.replace(said).is_some_and(|before| before != said) {
                return Err(Fault::Garbled);
            }
        }
    }
    Ok(length)
}

impl Answer {
    /// The headers.
    pub(super) fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    /// The status.
    pub(super) fn status(&self) -> StatusCode {
        self.status
    }

    /// Whether the peer took the message.
    pub(super) fn is_success(&self) -> bool {
        self.status.is_success()
    }

    /// The next piece of the body; `None` at its end.
    pub(super) async fn piece(&mut self) -> Result<Option<Bytes>, Fault> {
        while !self.body.is_done() {
            if self.read.is_empty() {
                let came = self.more().await.ok_or(Fault::Timeout)?;
                if came.map_err(|_| Fault::Reset)? == 0 {
                    let is_end = matches!(self.body, Framing::Close);
                    self.is_over();
                    return if is_end { Ok(None) } else { Err(Fault::Reset) };
                }
            }
            match &mut self.body {
                Framing::Close => return Ok(Some(std::mem::take(&mut self.read))),
                Framing::Length(left) => {
                    let here = usize::try_from(*left).unwrap_or(usize::MAX).min(self.read.len());
                    *left -= here as u64;
                    return Ok(Some(self.read.split_to(here)));
                }
                Framing::Chunks(chunks) => {
                    let mut data = BytesMut::new();
                    let Ok(taken) = chunks.read(&self.read, |bytes| data.extend_from_slice(bytes)) else {
                        self.is_over();
                        return Err(Fault::Garbled);
                    };
                    self.read.advance(taken);
                    if !data.is_empty() {
                        return Ok(Some(data.freeze()));
                    }
                }
            }
        }
        Ok(None)
    }

    /// Nothing more is read of this connection.
    fn is_over(&mut self) {
        (self.body, self.keep) = (Framing::Length(0), false);
    }

    /// Reads on, for as long as that may take, and returns how many bytes came.
    async fn more(&mut self) -> Option<std::io::Result<usize>> {
        let room = match self.body {
            Framing::Length(left) => usize::try_from(left).unwrap_or(usize::MAX).min(PIECE_BYTES),
            Framing::Chunks(_) | Framing::Close => PIECE_BYTES,
        };
        let mut read = BytesMut::with_capacity(room);
        let Connection { stream, alarm } = &mut self.connection;
        let came = alarm.within(self.patience, stream.read_buf(&mut read)).await;
        self.read = read.freeze();
        came
    }

    /// Reads what is left of the body, as long as it is not more than this many bytes.
    pub(super) async fn gather(&mut self, bytes_max: usize) -> Result<Bytes, Fault> {
        // Copied: a piece of one byte would hold the room of many.
        let mut gathered = BytesMut::new();
        while gathered.len() <= bytes_max
            && let Some(piece) = self.piece().await?
        {
            gathered.extend_from_slice(&piece);
        }
        Ok(gathered.freeze())
    }

    /// Whether the last piece was the last.
    pub(super) fn is_complete(&self) -> bool {
        self.body.is_done()
    }

    /// The connection, if it can be used again: its answer was read to its end, and nothing came behind it.
    pub(super) fn into_connection(self) -> Option<Connection> {
        (self.keep && self.body.is_done() && self.read.is_empty()).then_some(self.connection)
    }
}
