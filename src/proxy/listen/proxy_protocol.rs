//! Reads the header of the PROXY protocol (versions 1 and 2), in which a load balancer sends the address of its client.
//! Trusted peers must send the header. A header from any other peer is not accepted.
//!
//! <https://www.haproxy.org/download/3.2/doc/proxy-protocol.txt>

use std::net::SocketAddr;

use bytes::{Buf, BytesMut};
use ppp::{HeaderResult, PartialResult, v1, v2};
use tokio::io::AsyncReadExt;

use crate::http::BufferedIo;

/// The maximum size of a PROXY protocol header, in bytes. Addresses and the common extensions need a few hundred bytes.
const HEADER_BYTES_MAX: usize = 4 << 10;
/// The maximum size of a PROXY protocol header of version 1, in bytes.
const V1_HEADER_BYTES_MAX: usize = 107;

/// Reads the PROXY protocol header and returns the address of the client. Returns `peer` if the load balancer opened
/// the connection for itself, for example for a health check. Returns `None` if the header is malformed or the
/// connection ends. Bytes after the header can be read from `io` again.
pub(crate) async fn read(io: &mut BufferedIo, peer: SocketAddr) -> Option<SocketAddr> {
    let mut bytes = BytesMut::with_capacity(512);
    loop {
        if io.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
        // A header of version 1 is parsed only when it is complete, because the parser reports some incomplete headers
        // as malformed.
        let is_text = bytes.first() == Some(&b'P');
        if is_text && !bytes.windows(2).any(|end| end == b"\r\n") {
            if bytes.len() > V1_HEADER_BYTES_MAX {
                return None;
            }
            continue;
        }
        let parsed = HeaderResult::parse(&bytes);
        if parsed.is_complete() {
            let (client, length) = client_address(parsed, peer)?;
            bytes.advance(length);
            if !bytes.is_empty() {
                io.rewind(bytes.freeze());
            }
            return Some(client);
        }
        if is_text || bytes.len() >= HEADER_BYTES_MAX {
            return None;
        }
    }
}

/// Returns the client address in a complete PROXY protocol header, and the length of the header in bytes. Returns
/// `None` if the header is malformed.
fn client_address(parsed: HeaderResult<'_>, peer: SocketAddr) -> Option<(SocketAddr, usize)> {
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
                // The load balancer opened the connection for itself, for example for a health check.
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
