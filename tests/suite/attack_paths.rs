//! Paths that have deceived gateways, sent to a route whose token is bound to one id. A permitted request must reach
//! the internal path of exactly this id, and its path must name the id in plain text.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::sync::Arc;
use std::sync::atomic::AtomicI64;

use callgate::clock::Clock;
use callgate::ingress::Decided;
use callgate::policy::{MintRequest, Policy};
use callgate::request::RequestHead;
use callgate::source::LOOPBACK;
use callgate::time::Timestamp;
use callgate::trail::Trail;
use http::HeaderMap;

use crate::harness::{ANSWER, Agent, Callgate, parse};

const NOW: Timestamp = Timestamp::from_unix_secs(1_767_225_600);
const ID: &str = "doc-7f3a";

/// Returns a configuration with one guarded route and one open route.
fn config(agent: &str) -> String {
    format!(
        "public_url: https://agent.example.com
listen: {{ ingress: [ {{ address: 127.0.0.1:0 }} ] }}
agent: {{ address: \"{agent}\" }}
limits: {{ idle_timeout: 2s }}
callback_tokens: {{ keys: [ {{ id: k, algorithm: HS256, secret: {{ env: TOKEN_KEY }} }} ] }}
routes:
  - {{ name: guarded, path: \"/webhooks/{{id}}\", token: {{ kind: callback }}, forward: \"/internal/{{id}}/status\" }}
  - {{ name: open, path: \"/open/{{id}}/x\", open: true, forward: \"/public/{{id}}\" }}
"
    )
}

fn token(policy: &Policy) -> String {
    let request = MintRequest { route: "guarded", parameters: &[("id", ID)], ttl: None, uses: None };
    policy.mint(&request, "int_1", NOW).unwrap().callback_token
}

// === The expected result, computed without the tested code ===

fn unreserved(b: u8) -> bool {
    b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b'~')
}

/// Decodes percent-encoded letters, digits, `-`, `_` and `~`, once. Returns `None` if another character is encoded; no
/// path of these routes needs one.
fn plain(path: &str) -> Option<String> {
    let mut out = String::new();
    let mut parts = path.split('%');
    out.push_str(parts.next()?);
    for part in parts {
        let hex = part.get(..2).filter(|hex| hex.bytes().all(|b| b.is_ascii_hexdigit()))?;
        let byte = u8::from_str_radix(hex, 16).ok()?;
        out.push(char::from(byte));
        if !unreserved(byte) || byte == b'.' {
            return None;
        }
        out.push_str(&part[2..]);
    }
    Some(out)
}

/// Returns the internal path that a target leads to, or `None` if the target must be denied.
fn expected(target: &str) -> Option<String> {
    let absolute = target.strip_prefix("http://").or_else(|| target.strip_prefix("https://"));
    let target = match absolute {
        Some(rest) => rest.find(['/', '?', '#']).map_or("/", |at| &rest[at..]),
        None => target,
    };
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    if path.len() > 12 * 1024 || !query.bytes().all(|b| b.is_ascii_graphic() && b != b'#') {
        return None;
    }
    let path = plain(path)?;
    if path == format!("/webhooks/{ID}") {
        return Some(format!("/internal/{ID}/status"));
    }
    let id = path.strip_prefix("/open/")?.strip_suffix("/x")?;
    let takes = (1..=255).contains(&id.len()) && id.bytes().all(unreserved) && id != "." && id != "..";
    takes.then(|| format!("/public/{id}"))
}

// === The attacks ===

/// Returns every line of the corpora, without repetition.
fn lines() -> Vec<String> {
    let mut lines = BTreeSet::new();
    for entry in fs::read_dir("tests/corpora/paths").unwrap() {
        let path = entry.unwrap().path();
        let bytes = fs::read(&path).unwrap();
        if path.extension().is_some_and(|extension| extension == "json") {
            lines.extend(serde_json::from_slice::<Vec<String>>(&bytes).unwrap());
        } else {
            let text = String::from_utf8_lossy(&bytes);
            lines.extend(text.lines().map(|line| line.replace("{FILE}", "internal/doc-2/status")));
        }
    }
    lines.into_iter().collect()
}

/// Returns a line in each position of the path where an attacker could put it.
fn positions(line: &str) -> [String; 10] {
    [
        line.to_owned(),
        format!("/{line}"),
        format!("/webhooks/{line}"),
        format!("/webhooks/{line}/{ID}"),
        format!("/webhooks/{ID}{line}"),
        format!("/webhooks/{ID}/{line}"),
        format!("/webhooks/doc-{line}7f3a"),
        format!("{line}/webhooks/{ID}"),
        format!("/open/{line}/x"),
        format!("/open/1/x?a={line}"),
    ]
}

fn encoded(text: &str, which: impl Fn(u8) -> bool) -> String {
    let byte = |b: u8| if which(b) { format!("%{b:02x}") } else { char::from(b).to_string() };
    text.bytes().map(byte).collect()
}

/// Returns a target in the encodings that have deceived decoders.
fn disguises(target: &str) -> [String; 14] {
    let once = encoded(target, |b| !b.is_ascii_alphanumeric() && b != b'/');
    let swapped =
        |c: char| if c.is_ascii_lowercase() { c.to_ascii_uppercase() } else { c.to_ascii_lowercase() };
    [
        encoded(target, |b| b != b'/'),
        encoded(target, |_| true),
        once.replace('%', "%25"),
        once.to_ascii_uppercase(),
        once,
        target.replace('.', "%c0%ae"),
        format!("/{}", target[target.starts_with('/').into()..].replace('/', "%c0%af")),
        format!("/{}", target[target.starts_with('/').into()..].replace('/', "%2F")),
        target.replace('/', "\\"),
        target.replace('/', "//"),
        format!("{target};v=1"),
        target.replace('/', "/;a=b/"),
        target.chars().map(swapped).collect(),
        target.replace('/', "/./"),
    ]
}

/// Characters and encodings that end a path early or start another line.
const PIECES: &[&str] = &[
    "\r\n",
    "\n",
    "\r",
    "\0",
    "%0d%0a",
    "%0a",
    "%00",
    "%250d%250a",
    " ",
    "\t",
    "%09",
    "%20",
    "#",
    "%23",
    ";",
    "%3b",
    "?",
    "%3f",
    "\u{85}",
    "\u{2028}",
    "%e2%80%a8",
    "%u002e",
    "\u{ff0e}",
    "\u{2215}",
    "%ef%bc%8f",
    "\u{7f}",
    "%7f",
    "%ff",
    "%c0%80",
    "*",
    "..",
    "%2e%2e",
    "%252e",
    ".",
    "/",
    "//",
    "/.",
    "/..",
    "\\..\\",
    "..;",
    "/..;/",
    "~",
    "\u{0}.json",
];

/// Returns paths with each piece appended, prepended and inserted.
fn injections() -> Vec<String> {
    let places = PIECES.iter().flat_map(|piece| {
        [
            format!("/webhooks/{ID}{piece}"),
            format!("/webhooks/{ID}{piece}x"),
            format!("/webhooks/{piece}{ID}"),
            format!("/webhooks/doc-2{piece}{ID}"),
            format!("/webhooks/doc-2/{piece}/{ID}"),
            format!("/webhooks{piece}/{ID}"),
            format!("{piece}/webhooks/{ID}"),
            format!("/{piece}webhooks/{ID}"),
            format!("/webhooks/{ID}?{piece}"),
            format!("/webhooks/{ID}{piece} HTTP/1.1{piece}X-A: b"),
            format!("/open/{piece}/x"),
            format!("/open/1{piece}/x"),
        ]
    });
    places.collect()
}

/// Returns valid spellings of the guarded path and of open paths. All of them must be permitted.
fn controls() -> Vec<String> {
    let mut targets = Vec::new();
    let right = format!("/webhooks/{ID}");
    for at in (1..right.len()).filter(|at| *at != 9) {
        let byte = right.as_bytes()[at];
        targets.push(format!("{}%{byte:02x}{}", &right[..at], &right[at + 1..]));
        targets.push(format!("{}%{byte:02X}{}", &right[..at], &right[at + 1..]));
    }
    targets.push(encoded(&right, |b| b != b'/'));
    for query in ["", "?", "?a=b", "?a=/../..", "?a=%00", "?a=%2e%2e%2f", "?/webhooks/doc-2", "?a;b"] {
        targets.push(format!("{right}{query}"));
        targets.push(format!("/open/1/x{query}"));
    }
    targets.push(format!("http://agent.example.com{right}"));
    for id in ["1", "~", "...", "a..b", "-", "_", "x.json", ID] {
        targets.push(format!("/open/{id}/x"));
    }
    targets
}

/// Returns all targets, without repetition.
fn targets() -> Vec<String> {
    let mut all: BTreeSet<String> = controls().into_iter().collect();
    for injection in injections() {
        all.extend(disguises(&injection));
        all.insert(injection);
    }
    for (i, line) in lines().iter().enumerate() {
        let positions = positions(line);
        // Each line is encoded in every way in one position. The position changes from line to line.
        all.extend(disguises(&positions[i % positions.len()]));
        all.extend(positions);
    }
    for id in
        ["doc-2", "doc-7f3", "doc-7f3aa", "DOC-7F3A", "doc-7f3a.", ".doc-7f3a", "doc_7f3a", "", ".", ".."]
    {
        all.insert(format!("/webhooks/{id}"));
        all.insert(format!("/webhooks/{ID}/../{id}"));
        all.extend(disguises(&format!("/webhooks/{id}")));
    }
    all.into_iter().collect()
}

fn headers(token: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert("authorization", format!("Bearer {token}").parse().unwrap());
    headers
}

#[test]
fn no_path_reaches_what_its_token_is_not_for() {
    let policy = parse(&config("127.0.0.1:1")).policy;
    let headers = headers(&token(&policy));
    let targets = targets();
    let (mut permitted, mut wrong) = (0, Vec::new());
    for target in &targets {
        let head = RequestHead::new("POST", target, &headers, LOOPBACK);
        let mut trail = Trail::verbose();
        let decided = policy
            .ingress
            .decide_head(&head, NOW, &mut trail)
            .and_then(|admitted| admitted.decide_body(&head, b"", &mut trail));
        let forwarded = match &decided {
            Ok(Decided::Callback(verified)) => verified.target().split('?').next().map(str::to_owned),
            _ => None,
        };
        permitted += usize::from(forwarded.is_some());
        if forwarded != expected(target) {
            wrong.push(format!("{target:?} goes to {forwarded:?}, not {:?}", expected(target)));
        }
    }
    println!("{} paths: {permitted} permitted, {} wrong", targets.len(), wrong.len());
    assert!(wrong.is_empty(), "{} wrong, such as {:#?}", wrong.len(), &wrong[..wrong.len().min(20)]);
    assert!(targets.len() >= 20_000 && permitted >= controls().len(), "{permitted}");
    assert!(controls().iter().all(|target| expected(target).is_some()), "a control that is none");
}

/// Returns every n-th target, so that the sample is the same in every run, and all valid targets.
fn sample() -> Vec<String> {
    let targets = targets();
    let step = targets.len() / 1_450;
    let mut sample: Vec<_> = targets.into_iter().step_by(step).collect();
    sample.extend(controls());
    sample
}

/// Returns the status of the first response, or 0 if the connection ends without one.
fn status(callgate: &Callgate, target: &str, token: &str) -> u16 {
    let mut stream = callgate.connect();
    let head = format!(
        "POST {target} HTTP/1.1\r\nHost: agent.example.com\r\nAuthorization: Bearer {token}\r\n\
         Content-Length: 0\r\nConnection: close\r\n\r\n"
    );
    // A server that denies a request early may close the connection while the client is still writing.
    let _ = stream.write_all(head.as_bytes());
    let mut answer = Vec::new();
    let mut buffer = [0; 4096];
    while let Ok(n @ 1..) = stream.read(&mut buffer) {
        answer.extend_from_slice(&buffer[..n]);
    }
    std::str::from_utf8(&answer).ok().and_then(|text| text.get(9..12)?.parse().ok()).unwrap_or(0)
}

#[test]
fn no_path_reaches_another_place_at_the_agent() {
    let agent = Agent::start(ANSWER);
    let text = config(&agent.address.to_string());
    let token = token(&parse(&text).policy);
    let callgate = Callgate::start(&text, Clock::Set(Arc::new(AtomicI64::new(NOW.unix_ms()))));
    let mut reached = Vec::new();
    let sample = sample();
    for target in &sample {
        let status = status(&callgate, target, &token);
        // Over a socket, a target with a host that differs from the Host header is denied. The core does not compare
        // them.
        let elsewhere = target.starts_with("http") && !target.starts_with("http://agent.example.com/");
        match expected(target).filter(|_| !elsewhere) {
            // The HTTP parser allows fewer characters in a query than the core does.
            Some(_) if status == 400 && target.contains(['"', '<', '>', '\\', '^', '`', '{', '|', '}']) => {}
            Some(path) => {
                assert_eq!(status, 200, "{target:?}");
                reached.push(path);
            }
            // A space or a line end ends the target on the request line. The part before it may be a valid target; the
            // agent must then receive the path of this part.
            None if status == 200 => {
                let first = target.split([' ', '\r', '\n']).next().unwrap();
                reached.push(expected(first).unwrap_or_else(|| panic!("{target:?} was let through")));
            }
            None => assert!((400..500).contains(&status), "{status} for {target:?}"),
        }
    }
    let seen: Vec<_> =
        agent.received().iter().map(|r| r.target().split('?').next().unwrap().to_owned()).collect();
    println!("{} paths over a socket: {} reached the agent", sample.len(), seen.len());
    assert_eq!(seen, reached, "the agent saw other requests than those that were let through");
    assert!(sample.len() >= 1_500 && reached.len() >= controls().len());
}
