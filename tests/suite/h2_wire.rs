//! HTTP/2 frames, written and read byte by byte, so that what no library would send can be sent.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const PRIORITY: u8 = 2;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PUSH_PROMISE: u8 = 5;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;

pub const END_STREAM: u8 = 1;
pub const ACK: u8 = 1;
pub const END_HEADERS: u8 = 4;
pub const PADDED: u8 = 8;
pub const WITH_PRIORITY: u8 = 0x20;

pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// Settings by their numbers.
pub fn settings(pairs: &[(u16, u32)]) -> Vec<u8> {
    let payload: Vec<u8> =
        pairs.iter().flat_map(|(id, value)| [&id.to_be_bytes()[..], &value.to_be_bytes()].concat()).collect();
    frame(SETTINGS, 0, 0, &payload)
}

pub fn window_update(stream: u32, increment: u32) -> Vec<u8> {
    frame(WINDOW_UPDATE, 0, stream, &increment.to_be_bytes())
}

pub fn reset(stream: u32, code: u32) -> Vec<u8> {
    frame(RST_STREAM, 0, stream, &code.to_be_bytes())
}

/// A header block in which every field is a literal that enters no table and is not compressed.
pub fn block(fields: &[(&[u8], &[u8])]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        string(&mut block, name);
        string(&mut block, value);
    }
    block
}

fn string(block: &mut Vec<u8>, text: &[u8]) {
    // RFC 7541 section 5.1, with a prefix of seven bits.
    let mut length = text.len();
    if length < 127 {
        block.push(u8::try_from(length).unwrap());
    } else {
        block.push(127);
        length -= 127;
        while length >= 128 {
            block.push(u8::try_from(length % 128 + 128).unwrap());
            length /= 128;
        }
        block.push(u8::try_from(length).unwrap());
    }
    block.extend_from_slice(text);
}

/// What a connection brings.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Event {
    Frame {
        kind: u8,
        flags: u8,
        stream: u32,
        payload: Vec<u8>,
    },
    /// The end of the connection, in whatever way.
    Closed,
    Nothing,
}

impl Event {
    pub fn is(&self, wanted: u8) -> bool {
        matches!(self, Self::Frame { kind, .. } if *kind == wanted)
    }

    /// The error code of GOAWAY or RST_STREAM.
    pub fn code(&self) -> Option<u32> {
        let Self::Frame { kind, payload, .. } = self else { return None };
        let at = match *kind {
            RST_STREAM => 0,
            GOAWAY => 4,
            _ => return None,
        };
        Some(u32::from_be_bytes(payload.get(at..at + 4)?.try_into().unwrap()))
    }

    pub fn has(&self, flag: u8) -> bool {
        matches!(self, Self::Frame { flags, .. } if flags & flag != 0)
    }

    /// The status of an answer's first header block; later ones may refer to the dynamic table.
    pub fn status(&self) -> Option<u16> {
        let Self::Frame { kind: HEADERS, payload, .. } = self else { return None };
        match payload.as_slice() {
            // RFC 7541 appendix A: the statuses that are indexed.
            [index @ 0x88..=0x8e, ..] => {
                Some([200, 204, 206, 304, 400, 404, 500][usize::from(*index - 0x88)])
            }
            [0x08 | 0x48, length, digits @ ..] => {
                let digits = digits.get(..usize::from(length & 0x7f))?;
                let text = if length & 0x80 == 0 { digits.to_vec() } else { huffman_digits(digits) };
                String::from_utf8(text).ok()?.parse().ok()
            }
            _ => None,
        }
    }
}

/// RFC 7541 appendix B, digits alone: 0 to 2 in five bits, 3 to 9 in six.
fn huffman_digits(bytes: &[u8]) -> Vec<u8> {
    let bits: Vec<u8> = bytes.iter().flat_map(|byte| (0..8).rev().map(move |i| byte >> i & 1)).collect();
    let number = |bits: &[u8]| bits.iter().fold(0, |number, bit| number << 1 | bit);
    let (mut text, mut rest) = (Vec::new(), bits.as_slice());
    while rest.len() >= 5 {
        let short = number(&rest[..5]);
        if short <= 2 {
            text.push(b'0' + short);
            rest = &rest[5..];
            continue;
        }
        match rest.get(..6).map(number) {
            Some(long @ 0b01_1001..=0b01_1111) => text.push(b'3' + long - 0b01_1001),
            _ => break,
        }
        rest = &rest[6..];
    }
    text
}

pub struct Wire {
    stream: TcpStream,
    bytes: Vec<u8>,
    /// What the other end announced.
    pub settings: Vec<(u16, u32)>,
}

impl Wire {
    /// A connection on which nothing has been said.
    pub fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_write_timeout(Some(Duration::from_secs(2))).unwrap();
        Self { stream, bytes: Vec::new(), settings: Vec::new() }
    }

    /// A connection on which both ends have sent and acknowledged settings.
    pub fn open(address: SocketAddr, patience: Duration) -> Self {
        Self::open_with(address, &[], patience)
    }

    pub fn open_with(address: SocketAddr, own: &[(u16, u32)], patience: Duration) -> Self {
        let mut wire = Self::connect(address);
        wire.send(&[PREFACE, &settings(own)].concat());
        let (mut announced, mut acknowledged) = (false, false);
        while !(announced && acknowledged) {
            match wire.next(patience) {
                Event::Frame { kind: SETTINGS, flags, .. } if flags & ACK != 0 => acknowledged = true,
                Event::Frame { kind: SETTINGS, payload, .. } => {
                    announced = true;
                    let pair = |pair: &[u8]| {
                        (
                            u16::from_be_bytes(pair[..2].try_into().unwrap()),
                            u32::from_be_bytes(pair[2..].try_into().unwrap()),
                        )
                    };
                    wire.settings = payload.chunks_exact(6).map(pair).collect();
                    wire.send(&frame(SETTINGS, ACK, 0, &[]));
                }
                Event::Frame { .. } => {}
                end => panic!("no settings: {end:?}"),
            }
        }
        wire
    }

    /// Sends, and tells whether that was possible: the other end may have had enough.
    pub fn send(&mut self, bytes: &[u8]) -> bool {
        self.try_send(bytes).is_ok()
    }

    pub fn try_send(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// The next thing that comes within `patience`.
    pub fn next(&mut self, patience: Duration) -> Event {
        let until: Instant = callgate::clock::instant() + patience;
        loop {
            if let Some(event) = self.whole_frame() {
                return event;
            }
            let left = until.saturating_duration_since(callgate::clock::instant());
            if left.is_zero() {
                return Event::Nothing;
            }
            self.stream.set_read_timeout(Some(left)).unwrap();
            let mut buffer = [0; 16 << 10];
            match self.stream.read(&mut buffer) {
                Ok(n) if n > 0 => self.bytes.extend_from_slice(&buffer[..n]),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    return Event::Nothing;
                }
                _ => return Event::Closed,
            }
        }
    }

    fn whole_frame(&mut self) -> Option<Event> {
        let head: [u8; 9] = self.bytes.get(..9)?.try_into().unwrap();
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let payload = self.bytes.get(9..9 + length)?.to_vec();
        self.bytes.drain(..9 + length);
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]) & 0x7fff_ffff;
        Some(Event::Frame { kind: head[3], flags: head[4], stream, payload })
    }
}
