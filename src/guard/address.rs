//! Classifies IP addresses as public or special. Special addresses are the addresses in the IANA special-purpose
//! registries, IPv6 addresses that contain an IPv4 address, and the addresses of the metadata services of cloud
//! providers. Some metadata services have public addresses.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The class of an IP address that is not public. The variants are sorted alphabetically.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum AddressClass {
    /// Carrier-grade NAT: `100.64.0.0/10` (RFC 6598).
    CarrierNat,
    /// An IPv6 address that contains an IPv4 address: mapped, compatible, translated, or ISATAP.
    Embedded,
    /// Link-local addresses: `169.254.0.0/16` and `fe80::/10`.
    LinkLocal,
    /// Loopback addresses: `127.0.0.0/8` and `::1`.
    Loopback,
    /// The address of the metadata service of a cloud provider.
    Metadata,
    /// Multicast addresses: `224.0.0.0/4` and `ff00::/8`.
    Multicast,
    /// NAT64 addresses: `64:ff9b::/96` and `64:ff9b:1::/48` (RFC 6052, RFC 8215).
    Nat64,
    /// Addresses of private networks (RFC 1918), unique local addresses (RFC 4193) and site-local addresses.
    Private,
    /// An address that is reserved for documentation, benchmarks, protocols, or future use.
    Reserved,
    /// 6to4 addresses: `2002::/16` (RFC 3056).
    SixToFour,
    /// Teredo addresses: `2001::/32` (RFC 4380).
    Teredo,
    /// Unspecified addresses: `0.0.0.0/8` and `::`.
    Unspecified,
}

impl AddressClass {
    /// All classes of addresses that are not public, sorted alphabetically.
    pub const ALL: &'static [Self] = &[
        Self::CarrierNat,
        Self::Embedded,
        Self::LinkLocal,
        Self::Loopback,
        Self::Metadata,
        Self::Multicast,
        Self::Nat64,
        Self::Private,
        Self::Reserved,
        Self::SixToFour,
        Self::Teredo,
        Self::Unspecified,
    ];

    /// Returns the stable snake_case name of the class. Metric labels and log fields contain this name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::CarrierNat => "carrier_nat",
            Self::Embedded => "embedded",
            Self::LinkLocal => "link_local",
            Self::Loopback => "loopback",
            Self::Metadata => "metadata",
            Self::Multicast => "multicast",
            Self::Nat64 => "nat64",
            Self::Private => "private",
            Self::Reserved => "reserved",
            Self::SixToFour => "six_to_four",
            Self::Teredo => "teredo",
            Self::Unspecified => "unspecified",
        }
    }
}

/// Returns the class of an IP address that is not public, or `None` if the address is public.
pub fn classify(address: IpAddr) -> Option<AddressClass> {
    match address {
        IpAddr::V4(address) => classify_v4(address),
        IpAddr::V6(address) => classify_v6(address),
    }
}

/// The IPv4 addresses of the metadata services of cloud providers. Most providers use the first address. The other
/// addresses belong to Azure, Alibaba Cloud and Oracle Cloud, in this order.
const METADATA: [Ipv4Addr; 4] = [
    Ipv4Addr::new(169, 254, 169, 254),
    Ipv4Addr::new(168, 63, 129, 16),
    Ipv4Addr::new(100, 100, 100, 200),
    Ipv4Addr::new(192, 0, 0, 192),
];

fn classify_v4(address: Ipv4Addr) -> Option<AddressClass> {
    use AddressClass as C;
    if METADATA.contains(&address) {
        return Some(C::Metadata);
    }
    match address.octets() {
        [0, ..] => Some(C::Unspecified),
        [10, ..] | [172, 16..=31, ..] | [192, 168, ..] => Some(C::Private),
        [100, 64..=127, ..] => Some(C::CarrierNat),
        [127, ..] => Some(C::Loopback),
        [169, 254, ..] => Some(C::LinkLocal),
        // Ranges for protocol assignments, documentation, 6to4 relays, AS112, AMT and benchmarks.
        [192, 0, 0 | 2, _] | [192, 88, 99, _] | [192, 31, 196, _] | [192, 52, 193, _] | [192, 175, 48, _] => {
            Some(C::Reserved)
        }
        [198, 18 | 19, ..] | [198, 51, 100, _] | [203, 0, 113, _] => Some(C::Reserved),
        [224..=239, ..] => Some(C::Multicast),
        [240..=255, ..] => Some(C::Reserved),
        _ => None,
    }
}

fn classify_v6(address: Ipv6Addr) -> Option<AddressClass> {
    use AddressClass as C;
    match address.segments() {
        [0, 0, 0, 0, 0, 0, 0, 0] => Some(C::Unspecified),
        [0, 0, 0, 0, 0, 0, 0, 1] => Some(C::Loopback),
        // IPv4-compatible, IPv4-mapped and IPv4-translated addresses (RFC 4291, RFC 7915). These addresses are denied
        // even if the IPv4 address in them is public. A provider can write the plain IPv4 address instead.
        [0, 0, 0, 0, 0, ..] | [0, 0, 0, 0, 0xffff, 0, ..] => Some(C::Embedded),
        [0x64, 0xff9b, 0, 0, 0, 0, ..] | [0x64, 0xff9b, 1, ..] => Some(C::Nat64),
        [0x2002, ..] => Some(C::SixToFour),
        [0x2001, 0, ..] => Some(C::Teredo),
        // Ranges for protocol assignments, benchmarks, ORCHID and documentation.
        [0x2001, 0x1..=0x1ff, ..] | [0x2001, 0xdb8, ..] | [0x3fff, 0..=0xfff, ..] => Some(C::Reserved),
        // An interface address that contains an IPv4 address (ISATAP, RFC 5214).
        [_, _, _, _, 0 | 0x200, 0x5efe, ..] => Some(C::Embedded),
        [0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254] | [0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254] => Some(C::Metadata),
        [0xfc00..=0xfdff, ..] => Some(C::Private),
        [0xfe80..=0xfebf, ..] => Some(C::LinkLocal),
        [0xfec0..=0xfeff, ..] => Some(C::Private),
        [0xff00..=0xffff, ..] => Some(C::Multicast),
        // IANA assigns global unicast addresses only from 2000::/3.
        [0x2000..=0x3fff, ..] => None,
        _ => Some(C::Reserved),
    }
}
