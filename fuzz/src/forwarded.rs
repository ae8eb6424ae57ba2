//! The client address, against a second reading of the same headers that shares no code with the first.

use std::net::IpAddr;
use std::sync::LazyLock;

use callgate::source::{AddressHeader, Allowlist, ClientAddress, Lists, Networks, parse_network};
use http::{HeaderMap, HeaderName, HeaderValue};

use super::forwarded_oracle as oracle;

const HEADERS: [&str; 3] = ["x-forwarded-for", "forwarded", "cf-connecting-ip"];

static RULES: LazyLock<Vec<ClientAddress>> = LazyLock::new(|| {
    let rule = |name: &str| ClientAddress {
        trusted_proxies: Allowlist {
            fixed: Networks::new(
                ["10.0.0.0/8", "fd00::/8"].map(|net| parse_network(net).expect("a network")),
            ),
            feeds: Vec::new(),
        },
        header: AddressHeader::from_name(HeaderName::from_bytes(name.as_bytes()).expect("a name")),
    };
    HEADERS.map(rule).into()
});

/// A byte that says which header, and lines with its values. The peer is a trusted proxy.
pub fn run(data: &[u8]) -> bool {
    let Some((which, rest)) = data.split_first() else { return false };
    let which = usize::from(*which) % HEADERS.len();
    let mut headers = HeaderMap::new();
    let mut lines = Vec::new();
    for line in rest.split(|b| *b == b'\n') {
        let (Ok(value), Ok(text)) = (HeaderValue::from_bytes(line), std::str::from_utf8(line)) else {
            return false;
        };
        headers.append(HEADERS[which], value);
        lines.push(text.to_owned());
        network(text);
    }
    let untrusted: IpAddr = "198.51.100.66".parse().expect("an address");
    let rule = &RULES[which];
    assert_eq!(
        rule.resolve(untrusted, &headers, &Lists::default()),
        Ok(untrusted),
        "believed without reason"
    );
    let peer: IpAddr = "10.0.0.1".parse().expect("an address");
    let expected = match HEADERS[which] {
        "x-forwarded-for" => oracle::client(peer, oracle::hops(&lines).into_iter()),
        "forwarded" => oracle::client(peer, oracle::forwarded_hops(&lines).into_iter()),
        _ if lines.len() == 1 => oracle::hop(&lines[0]),
        _ => None,
    };
    assert_eq!(rule.resolve(peer, &headers, &Lists::default()).ok(), expected, "{lines:?}");
    expected.is_some_and(|client| client != peer)
}

fn network(text: &str) {
    let Ok(network) = parse_network(text) else { return };
    assert_eq!(parse_network(&network.to_string()), Ok(network));
    let set = Networks::new([network]);
    // An IPv4-mapped address is the IPv4 address: a wide IPv6 network around it does not have it.
    for address in [network.network(), network.broadcast()] {
        let has = address.is_ipv6() == oracle::fold(address).is_ipv6() || network.prefix_len() >= 96;
        assert_eq!(set.contains(address), has, "{text}");
    }
    assert_eq!(set.len(), 1);
    // The set says of an address what the second reader says of the list that the tests use.
    let listed =
        Networks::new(["203.0.113.0/24", "2001:db8::/32"].map(|net| parse_network(net).expect("a network")));
    assert_eq!(listed.contains(network.addr()), oracle::allowed(oracle::fold(network.addr())), "{text}");
}
