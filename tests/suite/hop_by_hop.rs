//! Headers that concern one connection only (RFC 9110 section 7.6.1) are not passed on, in either direction and on either
//! side. These are the well-known ones, and those that a `Connection` header lists.

use std::io::Write;

use callgate::clock::Clock;

use crate::harness::{Agent, Callgate, Response};

/// Header lines, of which only `x-end-to-end` is passed on.
const LINES: &str = "connection: x-listed, keep-alive\r\nconnection: X-Listed-Too\r\nx-listed: hop\r\nx-listed-too: hop\r\n\
                     keep-alive: timeout=5\r\nproxy-connection: hop\r\nte: trailers\r\ntrailer: x\r\nx-end-to-end: yes\r\n";
const DROPPED: [&str; 6] = ["x-listed", "x-listed-too", "keep-alive", "proxy-connection", "te", "trailer"];

fn answer() -> Vec<u8> {
    format!("HTTP/1.1 200 OK\r\n{LINES}proxy-authenticate: Basic\r\ncontent-length: 2\r\n\r\nok").into_bytes()
}

fn request(path: &str) -> Vec<u8> {
    let line = format!("POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-length: 2\r\n");
    format!("{line}{LINES}proxy-authorization: Basic eDp5\r\n\r\n{{}}").into_bytes()
}

/// Asserts that a head has the end-to-end header and no other one of [`LINES`].
fn passed(head: &str, side: &str) {
    // The egress accepts trailers itself, and says so on its own connection to the provider.
    let head = head.replace("\r\nte: trailers", "");
    let lines = || head.lines().filter_map(|line| line.split_once(':'));
    assert!(lines().any(|(name, _)| name == "x-end-to-end"), "{side}: {head}");
    for (name, value) in lines() {
        let of_one_hop = DROPPED.contains(&name) || name.starts_with("proxy-auth");
        assert!(!of_one_hop, "{side}: {name}");
        assert!(!value.contains("hop") && !value.contains("listed"), "{side}: {name}: {value}");
    }
}

#[test]
fn headers_of_one_connection_are_not_passed_on() {
    let (agent, provider) = (Agent::start(&answer()), Agent::start(&answer()));
    let text = format!(
        "listen: {{ ingress: [ {{ address: 127.0.0.1:0 }} ], egress: {{ address: 127.0.0.1:0 }}, admin: {{ address: 127.0.0.1:0 }} }}
agent: {{ address: \"{}\" }}
routes: [ {{ name: r, path: /r, open: true, forward: /in }} ]
egress: [ {{ name: e, path: /e, target: \"http://{}/e\" }} ]
",
        agent.address, provider.address
    );
    let callgate = Callgate::start(&text, Clock::System);
    for (side, address, path, upstream) in
        [("ingress", callgate.ingress, "/r", &agent), ("egress", callgate.egress.unwrap(), "/e", &provider)]
    {
        let mut stream = std::net::TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(crate::harness::PATIENCE)).unwrap();
        stream.write_all(&request(path)).unwrap();
        let response = Response::read(&mut stream);
        assert_eq!((response.status, response.text()), (200, "ok".to_owned()), "{side}");
        passed(&response.head, &format!("{side}, response"));
        passed(&upstream.wait_for(1)[0].head, &format!("{side}, request"));
    }
}
