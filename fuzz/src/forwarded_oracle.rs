//! Who is calling, told without the code under test: readers of addresses and of lists of hops, by hand.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

fn decimal(text: &str, max: u32) -> Option<u32> {
    let plain = !text.is_empty() && text.len() <= 5 && text.bytes().all(|b| b.is_ascii_digit());
    let number = plain.then(|| text.bytes().fold(0, |n, b| n * 10 + u32::from(b - b'0')))?;
    (number <= max && (text == "0" || !text.starts_with('0'))).then_some(number)
}

fn v4(text: &str) -> Option<Ipv4Addr> {
    let octets: Vec<u8> =
        text.split('.').map(|part| decimal(part, 255).map(|n| n as u8)).collect::<Option<_>>()?;
    <[u8; 4]>::try_from(octets).ok().map(Ipv4Addr::from)
}

/// RFC 4291 section 2.2, all three forms.
fn v6(text: &str) -> Option<Ipv6Addr> {
    fn groups(text: &str) -> Option<Vec<u16>> {
        if text.is_empty() {
            return Some(Vec::new());
        }
        let parts: Vec<_> = text.split(':').collect();
        let mut groups = Vec::new();
        for (i, part) in parts.iter().enumerate() {
            if i + 1 == parts.len() && part.contains('.') {
                let [a, b, c, d] = v4(part)?.octets();
                groups.extend([u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])]);
            } else {
                let hex = (1..=4).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_hexdigit());
                groups.push(u16::from_str_radix(part, 16).ok().filter(|_| hex)?);
            }
        }
        Some(groups)
    }
    let (head, tail) = match text.split_once("::") {
        Some((_, tail)) if tail.contains("::") => return None,
        // An embedded IPv4 address stands at the end, not before the gap.
        Some((head, _)) if head.contains('.') => return None,
        Some((head, tail)) => (groups(head)?, Some(groups(tail)?)),
        None => (groups(text)?, None),
    };
    let mut all = [0_u16; 8];
    match &tail {
        None if head.len() != 8 => return None,
        Some(tail) if head.len() + tail.len() > 7 => return None,
        _ => all[..head.len()].copy_from_slice(&head),
    }
    if let Some(tail) = tail {
        all[8 - tail.len()..].copy_from_slice(&tail);
    }
    Some(Ipv6Addr::from(all))
}

pub fn fold(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V6(v6) if v6.segments()[..6] == [0, 0, 0, 0, 0, 0xffff] => {
            let [.., a, b, c, d] = v6.octets();
            IpAddr::V4(Ipv4Addr::new(a, b, c, d))
        }
        other => other,
    }
}

/// An address, with brackets and a port or without.
pub fn hop(text: &str) -> Option<IpAddr> {
    let port = |text: &str| -> bool {
        !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) && text.parse::<u16>().is_ok()
    };
    let address = if let Some(rest) = text.strip_prefix('[') {
        let (inside, behind) = rest.split_once(']')?;
        if !(behind.is_empty() || behind.strip_prefix(':').is_some_and(port)) {
            return None;
        }
        IpAddr::V6(v6(inside)?)
    } else if text.contains('.') && text.matches(':').count() == 1 {
        let (address, behind) = text.split_once(':')?;
        IpAddr::V4(v4(address).filter(|_| port(behind))?)
    } else {
        v4(text).map(IpAddr::V4).or_else(|| v6(text).map(IpAddr::V6))?
    };
    Some(fold(address))
}

pub fn trusted(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.octets()[0] == 10,
        IpAddr::V6(v6) => v6.octets()[0] == 0xfd,
    }
}

pub fn allowed(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.octets()[..3] == [203, 0, 113],
        IpAddr::V6(v6) => v6.segments()[..2] == [0x2001, 0xdb8],
    }
}

/// The client of a list of hops, each an address or unreadable, nearest last.
pub fn client(peer: IpAddr, hops: impl DoubleEndedIterator<Item = Option<IpAddr>>) -> Option<IpAddr> {
    let mut client = fold(peer);
    for hop in hops.rev() {
        if !trusted(client) {
            break;
        }
        client = hop?;
    }
    Some(client)
}

/// The hops of a list, in order, over all its lines.
pub fn hops(lines: &[String]) -> Vec<Option<IpAddr>> {
    let elements = lines.iter().flat_map(|line| {
        let text = line.chars().all(|c| c == '\t' || (' '..='~').contains(&c));
        // A quote that is never closed hides everything; one that is closed hides the commas in it.
        let parts = if text { list_elements(line, ',') } else { None };
        parts.unwrap_or_else(|| vec![String::from("unreadable")])
    });
    elements.map(|element| hop(element.trim_matches([' ', '\t']))).collect()
}

/// Splits outside of quoted strings, by hand.
fn list_elements(line: &str, separator: char) -> Option<Vec<String>> {
    let mut elements = vec![String::new()];
    let mut chars = line.chars();
    let mut quoted = false;
    while let Some(c) = chars.next() {
        if c == separator && !quoted {
            elements.push(String::new());
            continue;
        }
        let last = elements.last_mut()?;
        last.push(c);
        match c {
            '"' => quoted = !quoted,
            '\\' if quoted => last.extend(chars.next()),
            _ => {}
        }
    }
    (!quoted).then_some(elements)
}

/// The address of one element of `Forwarded` (RFC 7239): one `for`, IPv6 in quotes and brackets.
fn forwarded_hop(element: &str) -> Option<IpAddr> {
    let pairs = list_elements(element, ';')?;
    let mut found = None;
    for pair in &pairs {
        let Some((name, value)) = pair.trim_matches([' ', '\t']).split_once('=') else { continue };
        if name.eq_ignore_ascii_case("for") && found.replace(value.to_owned()).is_some() {
            return None;
        }
    }
    let value = found?;
    match value.strip_prefix('"') {
        Some(rest) => hop(rest.strip_suffix('"').filter(|text| !text.contains(['"', '\\']))?),
        None => hop(&value).filter(IpAddr::is_ipv4),
    }
}

/// The hops of `Forwarded`, in order, over all its lines.
pub fn forwarded_hops(lines: &[String]) -> Vec<Option<IpAddr>> {
    let read = |line: &String| match list_elements(line, ',') {
        Some(elements) if line.chars().all(|c| c == '\t' || (' '..='~').contains(&c)) => {
            elements.iter().map(|element| forwarded_hop(element.trim_matches([' ', '\t']))).collect()
        }
        _ => vec![None],
    };
    lines.iter().flat_map(read).collect()
}
