//! The client address of a request, and the networks from which a provider's requests are accepted.

mod client_address;
mod networks;
mod published_lists;

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

pub use client_address::{AddressHeader, ClientAddress, SourceFault};
pub use networks::{NetworkFault, Networks, parse_network};
pub use published_lists::{Allowlist, ListUnavailable, Lists, Selection};

/// Appends an IP address as text. An address is written to every log line and into every request to the agent. IPv4
/// addresses are therefore formatted by separate code, which is faster than `Display`.
pub fn write_address(out: &mut Vec<u8>, address: IpAddr) {
    match address {
        IpAddr::V4(v4) => {
            for (i, octet) in v4.octets().into_iter().enumerate() {
                if i > 0 {
                    out.push(b'.');
                }
                out.extend_from_slice(itoa::Buffer::new().format(octet).as_bytes());
            }
        }
        // Writing to a vector cannot fail.
        IpAddr::V6(v6) => drop(write!(out, "{v6}")),
    }
}

/// The IPv4 loopback address. `callgate explain` uses it if the request does not specify the address of the peer.
pub const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// Returns the address at which a listener can be reached from this host. An unspecified address is replaced by the
/// loopback address.
pub fn reachable(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        let loopback: IpAddr =
            if address.is_ipv4() { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() };
        address.set_ip(loopback);
    }
    address
}
