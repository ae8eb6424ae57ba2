//! Schemes that the operator describes, over sockets: where secrets in the query go, the memory of decoded bodies, and the
//! methods of several routes with the same path.

use std::io::Write;

use callgate::clock::Clock;
use callgate::request::RequestHead;
use callgate::time::Timestamp;
use callgate::trail::Trail;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::HeaderMap;

use crate::environment::parse;
use crate::harness::{ANSWER, Agent, Callgate, Response};

const LOOPBACK: std::net::IpAddr = std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

/// The secret `a static secret`, as it may stand in a query.
const SPELLINGS: [&str; 3] = ["a static secret", "a%20static%20secret", "%61%20static%20secret"];

fn config(agent: &str) -> String {
    format!(
        "public_url: https://agent.example.com
explain_denials: true
listen: {{ ingress: [ {{ address: 127.0.0.1:0 }} ], admin: {{ address: 127.0.0.1:0 }} }}
agent: {{ address: \"{agent}\" }}
limits: {{ body_memory_max: 1MiB }}
providers:
  camera: {{ signature: {{ scheme: token, signature_at: {{ query: key }}, secrets: [ {{ env: STATIC }} ] }} }}
  signer: {{ signature: {{ scheme: hmac, algorithm: sha256, header: x-sig, content: \"{{url}}|{{body}}\", encoding: hex, secrets: [ {{ env: HMAC_SECRET }} ] }} }}
  coded: {{ decode: [gzip] }}
routes:
  - {{ name: static, path: /static, token: {{ kind: static, from: {{ query: key }}, secrets: [ {{ env: STATIC }} ] }}, forward: /in/static }}
  - {{ name: camera, path: /camera, provider: camera, forward: /in/camera }}
  - {{ name: signer, path: /signer, provider: signer, token: {{ kind: static, from: {{ query: key }}, secrets: [ {{ env: STATIC }} ] }}, forward: /in/signer }}
  - {{ name: coded, path: /coded, provider: coded, token: {{ kind: static, header: x-key, secrets: [ {{ env: STATIC }} ] }}, forward: /in/coded, body_max: 1MiB }}
  - {{ name: read, path: /static, methods: [GET, HEAD], open: true, forward: /in/read }}
"
    )
}

fn is_clean(what: &str, text: &str) {
    for secret in SPELLINGS.into_iter().chain(["static+secret"]) {
        assert!(!text.contains(secret), "{what} contains {secret}: {text}");
    }
}

#[test]
fn a_secret_in_the_query_appears_nowhere() {
    let agent = Agent::start(ANSWER);
    let callgate = Callgate::start(&config(&agent.address.to_string()), Clock::System);
    let mut expected = 0;
    for path in ["/static", "/camera"] {
        for (query, accepted) in [
            ("a=1&key=a%20static%20secret&b=2", true),
            ("%6Bey=%61%20static%20secret&a=1", true),
            ("key=a%20static%20secret%20", false),
            ("key=a%20static%20secret&key=a%20static%20secret", false),
            ("Key=a%20static%20secret", false),
        ] {
            let request = format!(
                "POST {path}?{query} HTTP/1.1\r\nHost: h\r\nX-Original-Uri: /x\r\nContent-Length: 1\r\n\r\nx"
            );
            let response: Response = callgate.send(request.as_bytes());
            assert_eq!(response.status == 200, accepted, "{path}?{query}: {}", response.text());
            is_clean("the response", &response.text());
            for line in callgate.log() {
                is_clean("the log", &line.to_string());
            }
            expected += usize::from(accepted);
        }
    }
    let received = agent.received();
    assert_eq!(received.len(), expected);
    for request in received {
        is_clean("the request to the agent", &request.head);
        assert!(
            request.target().contains("a=1") && !request.target().contains("ey="),
            "{}",
            request.target()
        );
    }
    is_clean("the metrics", &callgate.metrics());
    for path in ["/ui/api/recent", "/ui/api/status", "/callbacks"] {
        is_clean(path, &callgate.admin_get(path).text());
    }
}

#[test]
fn explain_hides_a_secret_in_a_signed_url() {
    let config = parse(&config("127.0.0.1:1"));
    let now = Timestamp::from_unix_secs(1_767_225_600);
    for query in ["key=a%20static%20secret", "a=1&%6Bey=%61%20static%20secret"] {
        let target = format!("/signer?{query}");
        let mut headers = HeaderMap::new();
        headers.insert("x-sig", "00".repeat(32).parse().unwrap());
        let head = RequestHead::new("POST", &target, &headers, LOOPBACK);
        let mut trail = Trail::verbose();
        let admitted = config.policy.ingress.decide_head(&head, now, &mut trail).unwrap();
        assert!(admitted.decide_body(&head, b"{}", &mut trail).is_err());
        let details: Vec<_> = trail.details().map(|(_, detail)| detail.to_owned()).collect();
        let last = details.last().unwrap();
        assert!(last.contains("URL https://agent.example.com/signer?") && last.contains("[token]"), "{last}");
        is_clean("the trail", &details.join("\n"));
    }
}

#[test]
fn decoded_bodies_share_the_memory_of_all_bodies() {
    let agent = Agent::start(ANSWER);
    let callgate = Callgate::start(&config(&agent.address.to_string()), Clock::System);
    let send = |decoded_bytes: usize| {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        // Some bytes vary, so that the ratio of the sizes is allowed.
        let byte = |i: usize| if i % 500 < 4 { (i.wrapping_mul(2_654_435_761) >> 13) as u8 } else { b'0' };
        encoder.write_all(&(0..decoded_bytes).map(byte).collect::<Vec<_>>()).unwrap();
        let body = encoder.finish().unwrap();
        let mut request = format!(
            "POST /coded HTTP/1.1\r\nHost: h\r\nX-Key: a static secret\r\nContent-Encoding: gzip\r\nContent-Length: {}\r\n\r\n",
            body.len()
        )
        .into_bytes();
        request.extend_from_slice(&body);
        callgate.send(&request)
    };
    assert_eq!(send(500_000).status, 200);
    let received = agent.received().remove(0);
    assert_eq!((received.body.len(), received.header("content-encoding")), (500_000, vec![]));
    // The decoded body would fit into `body_max`, but not into the memory next to the received body.
    let refused = send(1 << 20);
    assert_eq!((refused.status, refused.json()["reason"].as_str()), (503, Some("overloaded")));
    assert_eq!(refused.header("retry-after"), Some("5"));
    let bomb = send(64 << 20);
    assert!([413, 503].contains(&bomb.status), "{}", bomb.text());
    assert_eq!(send(500_000).status, 200);
    assert_eq!(agent.received().len(), 2);
}

#[test]
fn a_denied_method_lists_the_methods_of_all_routes_with_the_path() {
    let agent = Agent::start(ANSWER);
    let callgate = Callgate::start(&config(&agent.address.to_string()), Clock::System);
    let response = callgate.send(b"DELETE /static HTTP/1.1\r\nHost: h\r\n\r\n");
    assert_eq!((response.status, response.header("allow")), (405, Some("post, get, head")));
    assert_eq!(callgate.send(b"GET /static HTTP/1.1\r\nHost: h\r\n\r\n").status, 200);
    assert_eq!(agent.received()[0].target(), "/in/read");
}
