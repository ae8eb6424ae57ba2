//! The hosts that a request to the forward proxy names, against a second reading that shares no code with the first.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::{Arc, LazyLock};

use callgate::egress::{ForwardProxy, check_same_origin, target_origin, tunnel_target};
use callgate::guard::Url;
use callgate::policy::Policy;
use http::header::HOST;
use http::{HeaderMap, HeaderValue, Method};

use super::read;

/// The intercepted hosts, with their ports.
const INTERCEPTED: [(&str, u16); 2] = [("api.example.com", 443), ("api.example.com", 8443)];
const PORTS: [u16; 2] = [443, 9443];

static CONFIG: LazyLock<(Policy, Arc<ForwardProxy>)> = LazyLock::new(|| {
    let config = read(
        "public_url: https://agent.example.com
listen:
  ingress: [ { address: 127.0.0.1:0 } ]
  egress: { address: 127.0.0.1:0, proxy: { others: tunnel, ports: [443, 9443], bundle: /nonexistent } }
agent: { address: 127.0.0.1:1 }
routes: [ { name: r, path: /r, open: true, forward: /in } ]
egress:
  - { name: one, path: /one, target: \"https://api.example.com/one\", proxied: true }
  - { name: two, path: /two, target: \"https://api.example.com:8443/two\", proxied: true }
",
    )
    .expect("a configuration");
    let proxy = config.startup.egress.and_then(|listener| listener.proxy).expect("a forward proxy");
    (config.policy, proxy)
});

/// The lines of the input: the target of CONNECT, its `Host`, and the target and the `Host` of a request in the tunnel.
pub fn run(data: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(data) else { return false };
    let mut lines = text.split('\n');
    let mut next = || lines.next().unwrap_or_default();
    let (target, host, inner_target, inner_host) = (next(), next(), next(), next());
    // A head with other bytes in its target is denied before.
    if !target.bytes().chain(inner_target.bytes()).all(|b| b.is_ascii_graphic()) {
        return false;
    }
    absolute(inner_target);
    let Some(headers) = with_host(host) else { return false };
    let expected = authority(target);
    let Ok(url) = tunnel_target(target, &headers) else {
        let is_plain = expected.as_ref().is_some_and(|(name, _)| name.parse::<IpAddr>().is_err());
        assert!(!(is_plain && target.len() < 200 && host == target), "denied without reason: {target}");
        return false;
    };
    let expected = expected.unwrap_or_else(|| panic!("not a host with a port: {target}"));
    assert_eq!((url.host(), url.port()), (&*expected.0, expected.1), "{target}");
    assert_eq!(url.target(), "/");
    if !host.is_empty() {
        let named = authority(host).or_else(|| authority(&format!("{host}:{}", expected.1)));
        let named_by_default = authority(&format!("{host}:443"));
        assert!([named, named_by_default].contains(&Some(expected.clone())), "{target} with the Host {host}");
    }
    destination(&url, &expected);
    inside(&url, &expected, inner_target, inner_host);
    true
}

/// What the proxy does with the host: the configured hosts are intercepted, and private addresses are never reached.
fn destination(url: &Url, expected: &(String, u16)) {
    let (policy, proxy) = &*CONFIG;
    let is_configured = INTERCEPTED.iter().any(|(host, port)| (*host, *port) == (&*expected.0, expected.1));
    assert_eq!(policy.egress.names(url), is_configured, "{url}");
    if proxy.check_destination(url).is_ok() {
        assert!(PORTS.contains(&expected.1), "{url}");
    }
    if let Ok(address) = expected.0.parse::<IpAddr>() {
        assert_eq!(url.address(), Some(address));
        assert!(proxy.guard.judge(url, address).is_err() || is_public(address), "{address}");
    } else {
        assert_eq!(url.address(), None, "{url}");
    }
}

/// A request in the tunnel names the host of the tunnel, or is denied.
fn inside(url: &Url, expected: &(String, u16), target: &str, host: &str) {
    let Some(headers) = with_host(host) else { return };
    assert!(check_same_origin(&Method::CONNECT, target, &headers, url).is_err(), "a tunnel in a tunnel");
    if check_same_origin(&Method::GET, target, &headers, url).is_ok() {
        let named = authority(host).or_else(|| authority(&format!("{host}:443")));
        assert_eq!(named.as_ref(), Some(expected), "in the tunnel, the Host {host}");
        if let Some(of_target) = target.strip_prefix("https://") {
            let end = of_target.find(['/', '?']).unwrap_or(of_target.len());
            let named =
                authority(&of_target[..end]).or_else(|| authority(&format!("{}:443", &of_target[..end])));
            assert_eq!(named.as_ref(), Some(expected), "in the tunnel, the target {target}");
        }
        assert!(!target.starts_with("http://"), "a request without TLS in a tunnel with TLS: {target}");
    }
}

/// A target in absolute form names the host before its path.
fn absolute(target: &str) {
    let Ok(Some(url)) = target_origin(target) else { return };
    let (scheme, rest) = target.split_once("://").expect("a URL");
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let default = if scheme == "http" { 80 } else { 443 };
    let named = authority(&rest[..end]).or_else(|| authority(&format!("{}:{default}", &rest[..end])));
    assert_eq!(named, Some((url.host().to_owned(), url.port())), "{target}");
}

/// Headers with this `Host`, or without one. `None` if the value is not possible.
fn with_host(host: &str) -> Option<HeaderMap> {
    let mut headers = HeaderMap::new();
    if !host.is_empty() {
        headers.append(HOST, HeaderValue::from_str(host).ok()?);
    }
    Some(headers)
}

/// The second reading of `host:port`: a name of letters, digits, hyphens and underscores, four decimal numbers, or an IPv6
/// address in brackets.
fn authority(text: &str) -> Option<(String, u16)> {
    let at = text.rfind(':')?;
    let (host, port) = (&text[..at], &text[at + 1..]);
    if port.is_empty() || port.len() > 5 || port.chars().any(|c| !c.is_ascii_digit()) {
        return None;
    }
    let port = port.parse::<u32>().ok().filter(|port| (1..=65535).contains(port))?;
    let port = u16::try_from(port).ok()?;
    if host.starts_with('[') {
        let inner = host.strip_prefix('[')?.strip_suffix(']')?;
        return Some((inner.parse::<Ipv6Addr>().ok()?.to_string(), port));
    }
    let labels: Vec<_> = host.split('.').collect();
    let is_number = |label: &&str| label.parse::<u8>().is_ok_and(|number| number.to_string() == **label);
    if labels.len() == 4 && labels.iter().all(is_number) {
        return Some((host.parse::<Ipv4Addr>().ok()?.to_string(), port));
    }
    let last = labels.last()?;
    // Some readers take these for addresses.
    if last.chars().all(|c| c.is_ascii_digit()) || last.to_ascii_lowercase().starts_with("0x") {
        return None;
    }
    let is_label = |label: &&str| {
        !label.is_empty()
            && label.len() <= 63
            && label.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    (labels.iter().all(is_label) && host.len() <= 253).then(|| (host.to_ascii_lowercase(), port))
}

/// Reports whether an address is public, as far as the standard library knows.
fn is_public(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => {
            !(v4.is_private()
                || v4.is_loopback()
                || v4.is_link_local()
                || v4.is_unspecified()
                || v4.is_broadcast()
                || v4.is_multicast()
                || v4.is_documentation())
        }
        IpAddr::V6(v6) => {
            let [first, ..] = v6.segments();
            let is_local = (first & 0xfe00) == 0xfc00 || (first & 0xffc0) == 0xfe80;
            !(v6.is_loopback() || v6.is_unspecified() || v6.is_multicast() || is_local)
        }
    }
}
