//! An HTTP/2 client that writes and reads single frames, so that tests can send frames that no library would send.

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

/// Returns a SETTINGS frame with these settings, each a number and a value.
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

/// Returns a header block in which every field is a literal without indexing and without Huffman coding (RFC 7541
/// section 6.2.2).
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
    // An integer with a prefix of seven bits (RFC 7541 section 5.1).
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

/// An event on a connection.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Event {
    Frame {
        kind: u8,
        flags: u8,
        stream: u32,
        payload: Vec<u8>,
    },
    /// The connection was closed or reset.
    Closed,
    Nothing,
}

impl Event {
    pub fn is(&self, wanted: u8) -> bool {
        matches!(self, Self::Frame { kind, .. } if *kind == wanted)
    }

    /// Returns the error code of a GOAWAY or RST_STREAM frame.
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

    /// Returns the status in the first header block of a response. Later blocks can refer to the dynamic table.
    pub fn status(&self) -> Option<u16> {
        let Self::Frame { kind: HEADERS, payload, .. } = self else { return None };
        match payload.as_slice() {
            // Status codes in the static table (RFC 7541 appendix A).
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

/// Decodes digits in Huffman code (RFC 7541 appendix B): 0 to 2 have five bits, 3 to 9 have six.
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
    /// The settings that the server announced.
    pub settings: Vec<(u16, u32)>,
}

impl Wire {
    /// Opens a connection without sending anything.
    pub fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_write_timeout(Some(Duration::from_secs(2))).unwrap();
        Self { stream, bytes: Vec::new(), settings: Vec::new() }
    }

    /// Opens a connection and exchanges the settings of both ends.
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

    /// Sends bytes. Returns `false` if the server has closed the connection.
    pub fn send(&mut self, bytes: &[u8]) -> bool {
        self.try_send(bytes).is_ok()
    }

    pub fn try_send(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// Returns the next event. Returns `Event::Nothing` if none arrives within `patience`.
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
