//! The header of the PROXY protocol (versions 1 and 2), by which a balancer says whom it passes on. It is read from
//! trusted peers alone, and from those it must come.
//!
//! <https://www.haproxy.org/download/3.2/doc/proxy-protocol.txt>

use std::net::SocketAddr;

use bytes::{Buf, BytesMut};
use ppp::{HeaderResult, PartialResult, v1, v2};
use tokio::io::AsyncReadExt;

use crate::http::BufferedIo;

/// Longest header that is read, in bytes: what a balancer says besides the addresses is at most a few hundred.
const HEADER_BYTES_MAX: usize = 4 << 10;
/// Longest header of version 1, in bytes.
const TEXT_BYTES_MAX: usize = 107;

/// Reads the header and returns who is passed on; `peer` itself where it says that it speaks for itself. What was read
/// behind the header is put back.
pub(crate) async fn read(wire: &mut BufferedIo, peer: SocketAddr) -> Option<SocketAddr> {
    let mut bytes = BytesMut::with_capacity(512);
    loop {
        if wire.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
        // A text is parsed once it is whole: the parser takes some beginnings for mistakes.
        let is_text = bytes.first() == Some(&b'P');
        if is_text && !bytes.windows(2).any(|end| end == b"\r\n") {
            if bytes.len() > TEXT_BYTES_MAX {
                return None;
            }
            continue;
        }
        let parsed = HeaderResult::parse(&bytes);
        if parsed.is_complete() {
            let (client, length) = who(parsed, peer)?;
            bytes.advance(length);
            if !bytes.is_empty() {
                wire.unread(bytes.freeze());
            }
            return Some(client);
        }
        if is_text || bytes.len() >= HEADER_BYTES_MAX {
            return None;
        }
    }
}

/// Whom a whole header passes on, and how long it is; `None` where it is none.
fn who(parsed: HeaderResult<'_>, peer: SocketAddr) -> Option<(SocketAddr, usize)> {
    match parsed {
        HeaderResult::V1(header) => {
            let header = header.ok()?;
            let client = match header.addresses {
                v1::Addresses::Tcp4(tcp) => (tcp.source_address, tcp.source_port).into(),
                v1::Addresses::Tcp6(tcp) => (tcp.source_address, tcp.source_port).into(),
                v1::Addresses::Unknown => peer,
            };
            Some((client, header.header.len()))
        }
        HeaderResult::V2(header) => {
            let header = header.ok()?;
            let client = match (header.command, &header.addresses) {
                // A balancer that looks whether we are there speaks for itself.
                (v2::Command::Local, _) => peer,
                (v2::Command::Proxy, v2::Addresses::IPv4(ip)) => (ip.source_address, ip.source_port).into(),
                (v2::Command::Proxy, v2::Addresses::IPv6(ip)) => (ip.source_address, ip.source_port).into(),
                (v2::Command::Proxy, v2::Addresses::Unspecified) => peer,
                (v2::Command::Proxy, v2::Addresses::Unix(_)) => return None,
            };
            Some((client, header.len()))
        }
    }
}
