//! Whole decisions on raw requests: what is allowed had the token, or the MAC of its body, in it.

use std::sync::LazyLock;

use callgate::ingress::Decided;
use callgate::policy::{MintRequest, Policy};
use callgate::request::RequestHead;
use callgate::source::LOOPBACK;
use callgate::trail::Trail;
use data_encoding::HEXLOWER;
use hmac::{Hmac, Mac};
use http::{HeaderMap, HeaderName, HeaderValue};
use sha2::Sha256;

use super::{KEY, NOW, read};

const ID: &str = "doc-1";

static POLICY: LazyLock<Policy> = LazyLock::new(|| {
    let text = "public_url: https://agent.example.com
listen: { ingress: [ { address: 127.0.0.1:0 } ] }
agent: { address: 127.0.0.1:1 }
callback_tokens: { keys: [ { id: k, algorithm: HS256, secret: { env: KEY } } ] }
client_address: { trusted_proxies: [127.0.0.1], header: forwarded }
providers:
  github: { preset: github, secrets: [ { env: KEY } ] }
  near: { allow: [203.0.113.0/24] }
routes:
  - { name: bearer, path: \"/bearer/{id}\", token: { kind: callback }, forward: \"/in/bearer/{id}\" }
  - { name: query, path: \"/query/{id}\", token: { kind: callback, from: [query] }, forward: \"/in/query/{id}\" }
  - { name: path, path: \"/path/{id}/{callback_token}\", token: { kind: callback, from: [path] }, forward: \"/in/path/{id}\" }
  - { name: static, path: \"/static/{id}\", token: { kind: static, header: x-secret, secrets: [ { env: KEY } ] }, forward: \"/in/static/{id}\" }
  - { name: signed, path: \"/signed/{id}\", provider: github, forward: \"/in/signed/{id}\" }
  - { name: near, path: \"/near/{id}\", provider: near, open: true, forward: \"/in/near/{id}\" }
";
    read(text).expect("a configuration").policy
});

/// The tokens there are: one for each route that takes one, for one id.
static TOKENS: LazyLock<[(&str, String); 3]> = LazyLock::new(|| {
    ["bearer", "query", "path"].map(|route| {
        let request = MintRequest { route, parameters: &[("id", ID)], ttl: None, uses: None };
        (route, POLICY.mint(&request, "int_1", NOW).expect("a token").callback_token)
    })
});

/// The input is a request message; `$bearer`, `$query`, `$path`, `$key` and `$mac` in its head stand for the tokens,
/// the static secret, and the MAC of the body.
pub fn run(data: &[u8]) -> bool {
    let Some(at) = data.windows(4).position(|window| window == b"\r\n\r\n") else { return false };
    let (head, body) = data.split_at(at + 4);
    let Ok(head) = std::str::from_utf8(head) else { return false };
    let mut head = head.replace("$key", KEY).replace("$mac", &mac(body));
    for (route, token) in TOKENS.iter() {
        head = head.replace(&format!("${route}"), token);
    }
    let mut lines = [httparse::EMPTY_HEADER; 64];
    let mut request = httparse::Request::new(&mut lines);
    if !matches!(request.parse(head.as_bytes()), Ok(httparse::Status::Complete(_))) {
        return false;
    }
    let mut headers = HeaderMap::new();
    for line in request.headers.iter() {
        let (Ok(name), Ok(value)) =
            (HeaderName::from_bytes(line.name.as_bytes()), HeaderValue::from_bytes(line.value))
        else {
            return false;
        };
        headers.append(name, value);
    }
    let (method, target) = (request.method.expect("complete"), request.path.expect("complete"));
    decide(&RequestHead::new(method, target, &headers, LOOPBACK), body)
}

fn mac(body: &[u8]) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(KEY.as_bytes()).expect("a key");
    mac.update(body);
    HEXLOWER.encode(&mac.finalize().into_bytes())
}

fn decide(head: &RequestHead<'_>, body: &[u8]) -> bool {
    let mut trail = Trail::verbose();
    let decided = POLICY
        .ingress
        .decide_head(head, NOW, &mut trail)
        .and_then(|admitted| admitted.decide_body(head, body, &mut trail));
    let Ok(decided) = decided else { return false };
    let Decided::Callback(verified) = decided else { panic!("none of these has a handshake") };
    let path = verified.target().split('?').next().expect("a path");
    let route = &*verified.route().name;
    let id = path.strip_prefix(&format!("/in/{route}/")).expect("the route's own internal path");
    assert!(!id.contains('/') && id != "." && id != "..", "{path}");
    let only = |name: &str| {
        let mut values = head.headers.get_all(name).iter();
        let value = values.next().filter(|_| values.next().is_none());
        value.and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned()
    };
    let token = |route: &str| {
        TOKENS.iter().find(|(name, _)| *name == route).map(|(_, token)| token.as_str()).expect("a token")
    };
    match route {
        "bearer" => assert!(id == ID && only("authorization").ends_with(token(route))),
        "query" => {
            assert!(id == ID && !verified.target().contains(token(route)), "{}", verified.target());
            let decoded = percent_decoded(head.raw_query().unwrap_or_default());
            assert!(decoded.contains(token(route)), "{decoded}");
        }
        "path" => {
            let decoded = percent_decoded(head.raw_path());
            assert!(id == ID && decoded == format!("/path/{ID}/{}", token(route)), "{decoded}");
        }
        "static" => assert_eq!(only("x-secret"), KEY),
        "signed" => assert_eq!(only("x-hub-signature-256"), format!("sha256={}", mac(body))),
        "near" => assert!(only_text(head, "forwarded").contains("203.0.113."), "from anywhere"),
        _ => panic!("{route}"),
    }
    true
}

fn only_text(head: &RequestHead<'_>, name: &str) -> String {
    head.headers.get_all(name).iter().filter_map(|value| value.to_str().ok()).collect::<Vec<_>>().join(",")
}

fn percent_decoded(text: &str) -> String {
    let mut out = Vec::new();
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        let mut ahead = bytes.clone();
        let hex = [ahead.next(), ahead.next()].map(|b| b.and_then(|b| char::from(b).to_digit(16)));
        match (byte, hex) {
            (b'%', [Some(high), Some(low)]) => {
                out.push((high * 16 + low) as u8);
                bytes = ahead;
            }
            _ => out.push(byte),
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}
