//! Forged client addresses. The expected client address is computed here with a second parser, which shares no code
//! with the tested one. Both must agree.

use std::net::IpAddr;

use callgate::policy::Policy;
use callgate::request::RequestHead;
use callgate::time::Timestamp;
use callgate::trail::Trail;
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::harness::parse;
use crate::seeds::fuzz::forwarded_oracle::{allowed, client, fold, forwarded_hops, hop, hops, trusted};

const NOW: Timestamp = Timestamp::from_unix_secs(1_767_225_600);

/// An address in the allowlist, which every attacker wants to appear as.
const GOOD: &str = "203.0.113.7";
/// The address of the attacker.
const EVIL: &str = "198.51.100.66";

fn policy(header: &str) -> Policy {
    let text = format!(
        "listen: {{ ingress: [ {{ address: 127.0.0.1:0 }} ] }}
agent: {{ address: 127.0.0.1:1 }}
client_address: {{ trusted_proxies: [10.0.0.0/8, \"fd00::/8\"], header: {header} }}
providers: {{ p: {{ allow: [203.0.113.0/24, \"2001:db8::/32\"] }} }}
routes: [ {{ name: r, path: \"/w/{{id}}\", provider: p, open: true, forward: \"/in/{{id}}\" }} ]
"
    );
    parse(&text).policy
}

// === Running the cases ===

#[derive(Default)]
struct Tally {
    cases: usize,
    admitted: usize,
    wrong: Vec<String>,
}

impl Tally {
    fn try_one(
        &mut self,
        policy: &Policy,
        header: &str,
        lines: &[String],
        peer: IpAddr,
        expected: Option<IpAddr>,
    ) {
        let mut headers = HeaderMap::new();
        for line in lines {
            let Ok(value) = HeaderValue::from_bytes(line.as_bytes()) else { return };
            headers.append(HeaderName::from_bytes(header.as_bytes()).unwrap(), value);
        }
        // Headers that are not configured must have no effect.
        for name in ["x-real-ip", "x-client-ip", "true-client-ip", "client-ip", "x-cluster-client-ip"] {
            headers.insert(name, HeaderValue::from_static(GOOD));
        }
        for name in
            ["forwarded", "x-forwarded-for", "cf-connecting-ip"].into_iter().filter(|name| *name != header)
        {
            headers.insert(name, HeaderValue::from_static("for=203.0.113.7"));
        }
        let head = RequestHead::new("POST", "/w/1", &headers, peer);
        let (admits, seen) = match policy.ingress.decide_head(&head, NOW, &mut Trail::verbose()) {
            Ok(admitted) => (true, admitted.into_seen().client),
            Err(denied) => (false, denied.seen.client),
        };
        self.cases += 1;
        self.admitted += usize::from(admits);
        if seen != expected || admits != expected.is_some_and(allowed) {
            self.wrong.push(format!(
                "{header}: {lines:?} from {peer}: {seen:?}, admitted: {admits}; it is {expected:?}"
            ));
        }
    }

    fn finish(self, what: &str, cases_min: usize, admitted_min: usize) {
        println!("{what}: {} cases, {} admitted, {} wrong", self.cases, self.admitted, self.wrong.len());
        assert!(self.wrong.is_empty(), "{:#?}", self.wrong);
        // If no request was admitted at all, the test proves nothing.
        assert!(self.cases >= cases_min && self.admitted >= admitted_min);
    }
}

fn peers() -> Vec<IpAddr> {
    let peers = ["10.0.0.1", "::ffff:10.0.0.1", "fd00::1", EVIL, "::ffff:198.51.100.66", "2001:db9::1", GOOD];
    peers.iter().map(|peer| peer.parse().unwrap()).collect()
}

/// Valid, invalid and almost valid ways to write one hop.
const ELEMENTS: &[&str] = &[
    "",
    " ",
    "\t",
    "unknown",
    "_hidden",
    "localhost",
    "null",
    "-",
    "*",
    "0",
    "1",
    "127.1",
    "2130706433",
    "3405803783",
    "0xcb.0x00.0x71.0x07",
    "0xcb007107",
    "0313.0.0161.07",
    "203.0.113",
    "203.0.113.",
    ".203.0.113.7",
    "203.0.113.7.",
    "203.0.113.7.8",
    "203.0.113.007",
    "0203.0.113.7",
    "203.00.113.7",
    "203.0.113.256",
    "203.0.113.-7",
    "203.0.113.+7",
    "+203.0.113.7",
    "203.0.113.7/32",
    "203.0.113.0/24",
    "203.0.113.7:",
    "203.0.113.7:0",
    "203.0.113.7:80",
    "203.0.113.7:65535",
    "203.0.113.7:65536",
    "203.0.113.7:080",
    "203.0.113.7:-1",
    "203.0.113.7:+80",
    "203.0.113.7:80:80",
    "203.0.113.7 80",
    "203.0.113.7 198.51.100.66",
    "203.0.113.7;198.51.100.66",
    "203.0.113.7|",
    "203.0.113.7%eth0",
    "203.0.113.7%00",
    "203.0.113.7\\",
    "'203.0.113.7'",
    "\"203.0.113.7\"",
    "\"203.0.113.7",
    "203.0.113.7\"",
    "(203.0.113.7)",
    "<203.0.113.7>",
    "[203.0.113.7]",
    "[203.0.113.7]:80",
    "203.0.113.7\t",
    "\t203.0.113.7",
    "203.0.113.7\u{a0}",
    "２０３.0.113.7",
    "203。0。113。7",
    "203.0.113.7\u{200b}",
    "2001:db8::7",
    "2001:DB8::7",
    "2001:0db8::7",
    "2001:db8:0::7",
    "2001:00db8::7",
    "2001:db8::00007",
    "2001:db8::7::",
    "2001:db8:::7",
    ":2001:db8::7",
    "2001:db8::7:",
    "[2001:db8::7]",
    "[2001:db8::7]:443",
    "[2001:db8::7]:",
    "[2001:db8::7]443",
    "[2001:db8::7",
    "2001:db8::7]",
    "[[2001:db8::7]]",
    "[2001:db8::7]:65536",
    "[2001:db8::7]:80:80",
    "2001:db8::7%eth0",
    "[2001:db8::7%eth0]",
    "[2001:db8::7%1]:443",
    "2001:db8::7%25eth0",
    "2001:db8::7/128",
    "2001:db8:0:0:0:0:0:7",
    "2001:db8:0:0:0:0:0:0:7",
    "2001:db8:0:0:0:0:7",
    "2001:db8::203.0.113.7",
    "2001:db8::203.0.113.07",
    "::ffff:203.0.113.7",
    "::FFFF:203.0.113.7",
    "::ffff:cb00:7107",
    "0:0:0:0:0:ffff:203.0.113.7",
    "0:0:0:0:0:ffff:cb00:7107",
    "[::ffff:203.0.113.7]",
    "[::ffff:203.0.113.7]:80",
    "::203.0.113.7",
    "::cb00:7107",
    "64:ff9b::203.0.113.7",
    "64:ff9b::cb00:7107",
    "2002:cb00:7107::",
    "::ffff:0:203.0.113.7",
    "::fffe:203.0.113.7",
    "::ffff:203.0.113.7%1",
    "::ffff:198.51.100.66",
    "::ffff:10.9.9.9",
    "[::ffff:10.9.9.9]:1",
    "10.9.9.9",
    "10.9.9.9:1",
    "010.9.9.9",
    "fd00::9",
    "[fd00::9]:1",
    "fd00::9%1",
    "::1",
    "127.0.0.1",
    "0.0.0.0",
    "255.255.255.255",
    "::",
    "203.0.113.7.nip.io",
    "http://203.0.113.7",
    "//203.0.113.7",
    "for=203.0.113.7",
    "203.0.113.7=",
    "=203.0.113.7",
    "203.0.113.7,",
    "203.0.113.7,,",
    ",203.0.113.7",
    "203.0.113.7, ,10.9.9.9",
    "203.0.113.7,10.9.9.9",
    "10.9.9.9,203.0.113.7",
];

fn elements() -> Vec<String> {
    let mut elements: Vec<String> = ELEMENTS.iter().map(|element| (*element).to_owned()).collect();
    elements.extend(
        [EVIL, GOOD, "203.0.113.0", "203.0.113.255", "203.0.112.255", "203.0.114.0"].map(str::to_owned),
    );
    elements.push("9".repeat(5000));
    elements.push(format!("{}{GOOD}", " ".repeat(500)));
    elements.push(vec!["10.0.0.2"; 500].join(","));
    elements
}

/// Returns lists of header lines that contain the element.
fn arrangements(element: &str) -> Vec<Vec<String>> {
    let line = |text: String| vec![text];
    vec![
        line(element.to_owned()),
        line(format!("{element}, {EVIL}")),
        line(format!("{EVIL}, {element}")),
        line(format!("{element}, 10.0.0.9")),
        line(format!("{GOOD}, {element}, 10.0.0.9,10.0.0.8")),
        line(format!("{element},{GOOD}")),
        line(format!("{GOOD} , {element}\t,\tfd00::2")),
        vec![GOOD.to_owned(), element.to_owned()],
        vec![element.to_owned(), EVIL.to_owned()],
        vec![element.to_owned(), "10.0.0.9".to_owned()],
        vec![format!("{EVIL}, {GOOD}"), element.to_owned(), "10.0.0.9".to_owned()],
    ]
}

#[test]
fn no_list_of_hops_makes_somebody_else_of_a_caller() {
    let policy = policy("x-forwarded-for");
    let mut tally = Tally::default();
    for peer in peers() {
        tally.try_one(&policy, "x-forwarded-for", &[], peer, Some(fold(peer)));
        for element in elements() {
            for lines in arrangements(&element) {
                let expected = client(peer, hops(&lines).into_iter());
                tally.try_one(&policy, "x-forwarded-for", &lines, peer, expected);
            }
        }
    }
    tally.finish("x-forwarded-for", 600, 100);
}

#[test]
fn no_forwarded_header_makes_somebody_else_of_a_caller() {
    let policy = policy("forwarded");
    let mut tally = Tally::default();
    for peer in peers() {
        for element in elements() {
            for pair in [
                format!("for={element}"),
                format!("For=\"{element}\""),
                format!("by=10.0.0.1;FOR=\"{element}\";proto=https"),
                format!("for={element};for={GOOD}"),
                format!("for=\"{EVIL}\";host=\"a,for={element};b=\";proto=http"),
                format!("for={EVIL};x=\"\\\",for={element}\""),
                format!("for ={element}"),
                format!("host=for={element}"),
                element.clone(),
            ] {
                for lines in [
                    vec![pair.clone()],
                    vec![format!("{pair}, for={EVIL}")],
                    vec![format!("for={GOOD}, {pair}, for=10.0.0.9")],
                    vec![format!("for={GOOD}"), pair.clone()],
                ] {
                    let hops = forwarded_hops(&lines);
                    tally.try_one(&policy, "forwarded", &lines, peer, client(peer, hops.into_iter()));
                }
            }
        }
    }
    tally.finish("forwarded", 600, 100);
}

#[test]
fn no_single_address_header_makes_somebody_else_of_a_caller() {
    let policy = policy("cf-connecting-ip");
    let mut tally = Tally::default();
    for peer in peers() {
        for element in elements() {
            for lines in
                [vec![element.clone()], vec![element.clone(), GOOD.to_owned()], vec![GOOD.to_owned(); 2]]
            {
                let expected = match lines.as_slice() {
                    _ if !trusted(fold(peer)) => Some(fold(peer)),
                    [line] => hop(line),
                    _ => None,
                };
                tally.try_one(&policy, "cf-connecting-ip", &lines, peer, expected);
            }
        }
    }
    tally.finish("cf-connecting-ip", 600, 50);
}
