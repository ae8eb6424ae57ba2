//! Who is calling: the client address, and the networks it may come from.

mod client;
mod networks;

use std::net::{IpAddr, Ipv4Addr};

pub use client::{AddressHeader, ClientAddress, SourceFault};
pub use networks::{NetworkFault, Networks, parse_network};

/// The address that counts as nobody's, for requests made up by `explain`.
pub const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
