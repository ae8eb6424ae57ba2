//! The admin page: the data that it receives, the data that it does not receive, and who may request them.

use std::io::Write;
use std::net::TcpStream;

use callgate::clock::Clock;
use callgate::interaction::State;
use callgate::observe::{Metrics, Values};
use serde_json::{Value, json};

use crate::harness::{ANSWER, Agent, Callgate, PATIENCE, Response, eventually, open_config, send_to};
use crate::ledger;
use crate::tls::{authority, issued};

/// Returns the origin of the page.
fn ours(callgate: &Callgate) -> String {
    format!("http://{}", callgate.admin.unwrap())
}

/// Returns a configuration with more settings on its admin listener.
fn with(more: &str) -> String {
    let admin = "admin: { address: 127.0.0.1:0 }";
    let text = open_config("127.0.0.1:1");
    assert!(text.contains(admin));
    text.replace(admin, &format!("admin: {{ address: 127.0.0.1:0, {more} }}"))
}

/// Sends a request to the admin listener with only these headers.
fn ask(callgate: &Callgate, method: &str, path: &str, headers: &[(&str, &str)]) -> Response {
    let mut stream = TcpStream::connect(callgate.admin.unwrap()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let lines: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    stream.write_all(format!("{method} {path} HTTP/1.1\r\n{lines}\r\n").as_bytes()).unwrap();
    Response::read(&mut stream)
}

fn recent(callgate: &Callgate, query: &str) -> Value {
    let answer = callgate.admin_get(&format!("/ui/api/recent{query}"));
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()
}

#[test]
fn what_came_in_is_told_as_the_log_tells_it() {
    let agent = Agent::start(ANSWER);
    let watch = "
  - name: watched
    path: /watched/{id}
    mode: observe
    token: { kind: static, header: x-key, secrets: [ { env: STATIC } ] }
    forward: /watched/{id}
";
    let config = open_config(&agent.address.to_string()) + watch;
    let callgate = Callgate::start(&config, Clock::System);
    let mut lines = Vec::new();
    let mut send = |request: &[u8]| {
        callgate.send(request);
        // Waits for the log line of each request, so that the rows are in the order of the requests.
        lines.append(&mut callgate.log());
    };
    send(b"GET /open/x?callback_token=eyJsecret&code=hunter2 HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer eyJother\r\nCookie: hunter2\r\n\r\n");
    send(b"DELETE /open/x HTTP/1.1\r\nHost: h\r\nX-Key: hunter2\r\n\r\n");
    send(b"POST /watched/x HTTP/1.1\r\nHost: h\r\nX-Key: hunter2\r\nContent-Length: 7\r\n\r\nhunter2");
    send(b"GET /nope/eyJhbGciOiJIUzI1NiJ9.e30.sig/x HTTP/1.1\r\nHost: h\r\n\r\n");
    send(b"GET /bad path HTTP/1.1\r\nHost: hunter2\r\n\r\n");
    agent.answers(b"");
    send(b"GET /open/gone HTTP/1.1\r\nHost: h\r\n\r\n");
    let told = recent(&callgate, "");
    let rows = told["rows"].as_array().unwrap();
    assert_eq!(rows.len(), 6, "{told}");
    for (row, line) in rows.iter().zip(&lines) {
        for field in
            ["time", "request_id", "route", "provider", "verdict", "reason", "status", "method", "path"]
        {
            assert_eq!(row[field], line[field], "{field}");
        }
        for field in ["client", "body_bytes", "duration_us", "deliver_us"] {
            assert_eq!(row[field], line[field], "{field}");
        }
        assert_eq!(row["detail"].as_str().unwrap(), line["detail"].as_str().unwrap_or_default());
        let checks: Vec<_> = row["trail"].as_array().unwrap().iter().map(|step| &step[0]).collect();
        assert_eq!(checks.len(), line["trail_ns"].as_object().unwrap().len());
    }
    let reasons: Vec<_> = rows.iter().map(|row| [&row["verdict"], &row["reason"]]).collect();
    assert_eq!(
        json!(reasons),
        json!([
            ["allow", "ok"],
            ["deny", "method_not_allowed"],
            ["observe", "token_mismatch"],
            ["deny", "route_unknown"],
            ["deny", "request_malformed"],
            ["fail", "agent_reset"]
        ])
    );
    assert_eq!(rows[1]["trail"][2], json!(["method", "deny", "method_not_allowed", rows[1]["trail"][2][3]]));
    assert_eq!(
        (&rows[2]["observed"], &rows[3]["path"]),
        (&json!(["token_mismatch"]), &json!("/nope/[redacted]/x"))
    );
    for secret in ["eyJ", "hunter2", "callback_token"] {
        assert!(!told.to_string().contains(secret), "{secret}: {told}");
    }
}

#[test]
fn the_ring_is_bounded_and_told_in_pieces() {
    let callgate = Callgate::start(&with("recent: 3"), Clock::System);
    for number in 0..5 {
        callgate.send(format!("GET /nope/{number} HTTP/1.1\r\nHost: h\r\n\r\n").as_bytes());
        callgate.log();
    }
    let paths = |told: &Value| -> Vec<String> {
        told["rows"].as_array().unwrap().iter().map(|row| row["path"].as_str().unwrap().to_owned()).collect()
    };
    let all = recent(&callgate, "");
    assert_eq!(
        (paths(&all).join(" "), &all["last"], &all["max"]),
        ("/nope/2 /nope/3 /nope/4".into(), &json!(5), &json!(3))
    );
    assert_eq!(paths(&recent(&callgate, "?after=4")), ["/nope/4"]);
    for beyond in [5, 6, u64::MAX - 1, u64::MAX] {
        assert!(paths(&recent(&callgate, &format!("?after={beyond}"))).is_empty(), "{beyond}");
    }
    let some = recent(&callgate, "?after=0&limit=2");
    assert_eq!((paths(&some).len(), &some["more"]), (2, &json!(true)));
    for query in ["?after=x", "?limit=0", "?limit=1001", "?after=1&after=2"] {
        assert_eq!(callgate.admin_get(&format!("/ui/api/recent{query}")).status, 400, "{query}");
    }
    // A reload can reduce the number of kept requests.
    callgate.reload(&with("recent: 1")).unwrap();
    assert_eq!(paths(&recent(&callgate, "")), ["/nope/4"]);
}

#[test]
fn nothing_is_kept_where_nothing_is_to_be() {
    let callgate = Callgate::start(&with("recent: 0"), Clock::System);
    callgate.send(b"GET /nope HTTP/1.1\r\nHost: h\r\n\r\n");
    callgate.log();
    assert_eq!(recent(&callgate, "")["rows"], json!([]));
    assert_eq!(callgate.admin_get("/").status, 200);
}

#[test]
fn the_page_is_one_document_that_lets_nothing_else_in() {
    let callgate = Callgate::start(&open_config("127.0.0.1:1"), Clock::System);
    for path in ["/", "/ui", "/ui/"] {
        let page = callgate.admin_get(path);
        assert_eq!(
            (page.status, page.header("content-type")),
            (200, Some("text/html; charset=utf-8")),
            "{path}"
        );
        assert!(page.body.len() < 76_000, "{}", page.body.len());
        let policy = page.header("content-security-policy").unwrap();
        for part in [
            "default-src 'none'",
            "script-src 'sha256-",
            "style-src 'sha256-",
            "connect-src 'self'",
            "frame-ancestors 'none'",
        ] {
            assert!(policy.contains(part), "{policy}");
        }
        assert!(!policy.contains("unsafe"), "{policy}");
        let text = page.text();
        assert!(
            !text.contains("://")
                && !text.contains("innerHTML")
                && !text.contains("/*style*/")
                && !text.contains("/*script*/")
        );
    }
    for path in [
        "/",
        "/ui/api/recent",
        "/ui/api/state",
        "/ui/api/reasons",
        "/ui/api/interactions",
        "/ui/api/members",
        "/ui/api/nope",
    ] {
        let answer = callgate.admin_get(path);
        for (name, value) in [
            ("x-content-type-options", "nosniff"),
            ("referrer-policy", "no-referrer"),
            ("cross-origin-resource-policy", "same-origin"),
            ("cache-control", "no-store"),
        ] {
            assert_eq!(answer.header(name), Some(value), "{path}");
        }
        assert!(answer.header("content-security-policy").unwrap().contains("default-src 'none'"), "{path}");
        assert!(!answer.head.contains("access-control"), "{path}");
    }
    assert_eq!(callgate.admin_get("/ui/api/nope").status, 404);
    assert_eq!(callgate.admin_send("POST", "/", "").status, 405);
    assert_eq!(callgate.admin_send("POST", "/ui/api/recent", "").header("allow"), Some("get, head"));
    assert_eq!(callgate.admin_send("GET", "/ui/api/interactions/x", "").status, 405);
    assert_eq!(callgate.admin_get("/ui/api/reasons").json()["token_missing"]["status"], 401);
}

/// Paths that are served only under an allowed host name.
const PATHS: [&str; 9] = [
    "/",
    "/ui",
    "/ui/api/recent",
    "/ui/api/state",
    "/ui/api/interactions",
    "/ui/api/members",
    "/ui/api/reasons",
    "/metrics",
    "/readyz?verbose",
];

#[test]
fn other_names_and_other_pages_get_nothing() {
    let callgate = Callgate::start(&with("hosts: [gate.example]"), Clock::System);
    let address = callgate.admin.unwrap().to_string();
    let own = ours(&callgate);
    for path in PATHS {
        for host in [
            "evil.example",
            "evil.example:9901",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "svc.evil.example",
            "cluster.local.example",
        ] {
            let answer = ask(&callgate, "GET", path, &[("host", host)]);
            assert!(matches!(answer.status, 400 | 403), "{path} {host}: {}", answer.status);
            let text = answer.text();
            assert!(
                !["<html", "callgate_", "ready"].iter().any(|told| text.contains(told)),
                "{path} {host}: {text}"
            );
        }
        for host in [&*address, "localhost:9901", "gate.example", "[::1]:9901"] {
            assert_eq!(ask(&callgate, "GET", path, &[("host", host)]).status, 200, "{path} {host}");
        }
    }
    for path in PATHS.iter().filter(|path| path.starts_with("/ui/api")) {
        for (name, value) in [
            ("origin", "http://evil.example"),
            ("origin", "null"),
            ("origin", "http://localhost"),
            ("sec-fetch-site", "cross-site"),
            ("sec-fetch-site", "same-site"),
        ] {
            let answer = ask(&callgate, "GET", path, &[("host", &address), (name, value)]);
            assert_eq!(answer.status, 403, "{path} {name} {value}");
        }
        let page = [("host", &*address), ("sec-fetch-site", "same-origin"), ("origin", &*own)];
        assert_eq!(ask(&callgate, "GET", path, &page).status, 200, "{path}");
    }
    // A link from another site to the page itself works.
    let link = [("host", &*address), ("sec-fetch-site", "cross-site")];
    assert_eq!(ask(&callgate, "GET", "/", &link).status, 200);
}

#[test]
fn names_of_a_local_network_are_enough_for_counts_alone() {
    let callgate = Callgate::start(&with("hosts: [gate.example]"), Clock::System);
    let address = callgate.admin.unwrap().to_string();
    // Names of a local network, which anybody who controls its DNS can have.
    for host in ["callgate:9901", "a.agents.svc", "a.svc.cluster.local:9901", "gate.internal"] {
        for path in PATHS {
            let wanted = if matches!(path, "/metrics" | "/readyz?verbose") { 200 } else { 403 };
            assert_eq!(ask(&callgate, "GET", path, &[("host", host)]).status, wanted, "{path} {host}");
        }
        assert_eq!(ask(&callgate, "GET", "/callbacks", &[("host", host)]).status, 403, "{host}");
    }
    for site in ["same-origin", "same-site", "cross-site", "anything"] {
        let page = [("host", &*address), ("sec-fetch-site", site)];
        assert_eq!(ask(&callgate, "GET", "/callbacks", &page).status, 403, "{site}");
    }
    // A kubelet or a load balancer may use any host name for the health checks.
    for path in ["/livez", "/readyz"] {
        assert_eq!(ask(&callgate, "GET", path, &[("host", "evil.example")]).status, 200, "{path}");
    }
}

#[test]
fn pages_and_other_names_get_nothing_of_probes_and_scrapes() {
    let callgate = Callgate::start(&with("hosts: [gate.example]"), Clock::System);
    let (address, own) = (callgate.admin.unwrap().to_string(), ours(&callgate));
    let paths =
        ["/livez", "/readyz", "/readyz?verbose", "/metrics", "/nothing", "/callbacks", "/ui/api/state"];
    for path in paths {
        for (name, value) in [
            ("origin", "http://evil.example"),
            ("origin", "null"),
            ("sec-fetch-site", "cross-site"),
            ("sec-fetch-site", "same-site"),
        ] {
            for method in ["GET", "HEAD", "OPTIONS"] {
                let mut stream = TcpStream::connect(&address).unwrap();
                stream.set_read_timeout(Some(PATIENCE)).unwrap();
                let head = format!("host: {address}\r\nconnection: close\r\n{name}: {value}");
                stream.write_all(format!("{method} {path} HTTP/1.1\r\n{head}\r\n\r\n").as_bytes()).unwrap();
                let mut answer = String::new();
                std::io::Read::read_to_string(&mut stream, &mut answer).unwrap();
                assert!(answer.starts_with("HTTP/1.1 403 "), "{method} {path} {name} {value}: {answer}");
            }
        }
        for name in ["origin", "sec-fetch-site"] {
            let twice = [("host", &*address), (name, "none"), (name, "none")];
            assert_eq!(ask(&callgate, "GET", path, &twice).status, 403, "{path} {name} twice");
        }
    }
    let page = [("host", &*address), ("sec-fetch-site", "same-origin"), ("origin", &*own)];
    assert_eq!(ask(&callgate, "GET", "/metrics", &page).status, 200, "a link of our page");
    let typed = [("host", &*address), ("sec-fetch-site", "none")];
    assert_eq!(ask(&callgate, "GET", "/metrics", &typed).status, 200);
    for path in ["/nothing", "/metrics", "/readyz?verbose"] {
        assert_eq!(ask(&callgate, "GET", path, &[("host", "evil.example")]).status, 403, "{path}");
    }
    assert_eq!(ask(&callgate, "GET", "/nothing", &[("host", "a.agents.svc")]).status, 404);
    assert_eq!(ask(&callgate, "DELETE", "/livez", &[("host", "localhost")]).status, 405);
}

#[test]
fn the_api_needs_the_token_where_there_is_one() {
    let callgate = Callgate::start(&with("token: { env: API_KEY_AND_SECRET }"), Clock::System);
    let token = "Bearer APIkey:a secret of thirty-two bytes, more";
    assert_eq!(callgate.admin_get("/").status, 200, "the page is no secret");
    for path in
        ["/ui/api/recent", "/ui/api/state", "/ui/api/interactions", "/ui/api/members", "/ui/api/reasons"]
    {
        assert_eq!(callgate.admin_get(path).status, 401, "{path}");
        let wrong = [("host", "localhost"), ("authorization", "Bearer APIkey")];
        assert_eq!(ask(&callgate, "GET", path, &wrong).status, 401, "{path}");
        let right = [("host", "localhost"), ("authorization", token)];
        assert_eq!(ask(&callgate, "GET", path, &right).status, 200, "{path}");
    }
}

/// Returns a Callgate with one open interaction, its agent, and the path at which the page revokes the interaction.
fn with_interaction(actions: &str) -> (Callgate, Agent, String) {
    let agent = Agent::start(ANSWER);
    let text = ledger::config(&agent.address.to_string(), "{ kind: memory }");
    let text = text
        .replace("admin: { address: 127.0.0.1:0 }", &format!("admin: {{ address: 127.0.0.1:0{actions} }}"));
    let callgate = Callgate::start(&text, Clock::System);
    let minted = callgate.admin_send("POST", "/callbacks", r#"{"route":"doc","params":{"id":"a"}}"#).json();
    let path = format!("/ui/api/interactions/{}", minted["interaction"].as_str().unwrap());
    (callgate, agent, path)
}

fn state_of(callgate: &Callgate) -> Value {
    callgate.admin_get("/ui/api/interactions?state=all").json()["interactions"][0]["state"].clone()
}

#[test]
fn the_page_only_reads_unless_told_otherwise() {
    let (callgate, _agent, path) = with_interaction("");
    let (own, host) = (ours(&callgate), callgate.admin.unwrap().to_string());
    let page = [
        ("host", &*host),
        ("origin", &*own),
        ("sec-fetch-site", "same-origin"),
        ("callgate-action", "revoke"),
    ];
    assert_eq!(ask(&callgate, "DELETE", &path, &page).status, 403);
    assert_eq!(
        (state_of(&callgate), callgate.admin_get("/ui/api/state").json()["actions"].clone()),
        (json!("open"), json!(false))
    );
}

#[test]
fn only_the_page_itself_acts() {
    let (callgate, _agent, path) = with_interaction(", actions: true");
    let (own, host) = (ours(&callgate), callgate.admin.unwrap().to_string());
    let right = [
        ("host", &*host),
        ("origin", &*own),
        ("sec-fetch-site", "same-origin"),
        ("callgate-action", "revoke"),
    ];
    for (name, value) in [
        ("host", "localhost"),
        ("origin", "http://evil.example"),
        ("origin", "null"),
        ("sec-fetch-site", "cross-site"),
        ("sec-fetch-site", "none"),
        ("callgate-action", "mint"),
    ] {
        let mut wrong = right;
        wrong.iter_mut().filter(|header| header.0 == name).for_each(|header| header.1 = value);
        assert_eq!(ask(&callgate, "DELETE", &path, &wrong).status, 403, "{name}: {value}");
    }
    for missing in ["origin", "callgate-action"] {
        let some: Vec<_> = right.into_iter().filter(|header| header.0 != missing).collect();
        assert_eq!(ask(&callgate, "DELETE", &path, &some).status, 403, "{missing}");
    }
    for method in ["POST", "GET", "PUT"] {
        assert_eq!(send_to(callgate.admin.unwrap(), method, &path, &[], b"").status, 405);
    }
    assert_eq!(state_of(&callgate), "open");
    assert_eq!(ask(&callgate, "DELETE", &path, &right).status, 204);
    assert_eq!(state_of(&callgate), "revoked");
    assert_eq!(ask(&callgate, "DELETE", "/ui/api/interactions/nope", &right).status, 404);
    assert_eq!(callgate.admin_get("/ui/api/interactions").json()["interactions"], json!([]));
}

#[test]
fn interactions_come_in_pages_and_without_their_tokens() {
    let (callgate, _agent, _) = with_interaction("");
    for _ in 0..2 {
        callgate.admin_send("POST", "/callbacks", r#"{"route":"doc","params":{"id":"b"}}"#);
    }
    let get = |query: &str| callgate.admin_get(&format!("/ui/api/interactions{query}")).json();
    let first = get("?limit=2");
    assert_eq!(first["interactions"].as_array().unwrap().len(), 2);
    let second = get(&format!("?limit=2&after={}", first["next"].as_str().unwrap()));
    assert_eq!((second["interactions"].as_array().unwrap().len(), &second["next"]), (1, &Value::Null));
    assert_eq!(get("?route=nope")["interactions"], json!([]));
    assert_eq!(get("?state=done")["interactions"], json!([]));
    for query in ["?state=nope", "?limit=0", "?limit=1001"] {
        assert_eq!(callgate.admin_get(&format!("/ui/api/interactions{query}")).status, 400, "{query}");
    }
    assert!(!first.to_string().contains("eyJ"));
    let names: Vec<_> = first["interactions"][0].as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(
        names.join(" "),
        "captures created_at deadline_at deliveries interaction last_event_at open progress provider route state status undelivered"
    );
    // Without the section `replicas`, there is nothing about members.
    assert_eq!(callgate.admin_get("/ui/api/members").json(), json!({ "own": null, "members": [] }));
    assert_eq!(callgate.admin_get("/ui/api/state").json()["member"], Value::Null);
    assert!(first.get("unreachable").is_none());
}

#[test]
fn the_state_tells_what_is_fetched_and_when_certificates_end() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    authority(at, "ca");
    issued(at, "ca", "one", "DNS:one.example");
    std::fs::write(at.join("list"), "203.0.113.0/24\n198.51.100.0/24\n").unwrap();
    let file = |name: &str| at.join(name).display().to_string();
    let tls = format!(
        "address: 127.0.0.1:0, tls: {{ certificate: {}, key: {} }} }}",
        file("one.crt"),
        file("one.key")
    );
    let fetched = format!(
        "[ {{ url: \"file:{}\" }}, {{ url: \"http://127.0.0.1:1/list?key=hunter2\" }} ]",
        file("list")
    );
    let config = open_config("127.0.0.1:1").replacen("address: 127.0.0.1:0 }", &tls, 1).replacen(
        "open: true",
        "provider: p\n    mode: observe",
        1,
    ) + &format!(
        "providers: {{ p: {{ preset: gitlab, secrets: [ {{ env: STATIC }} ], allow: {fetched} }} }}\n"
    );
    let callgate = Callgate::start(&config, Clock::System);
    let state = eventually(|| {
        let state = callgate.admin_get("/ui/api/state").json();
        state["feeds"][0]["age_seconds"].is_number().then_some(state)
    });
    assert_eq!((&state["feeds"][0]["count"], &state["feeds"][0]["kind"]), (&json!(2), &json!("addresses")));
    assert_eq!(
        state["feeds"][1],
        json!({ "label": "http://127.0.0.1:1/list", "kind": "addresses", "count": null, "age_seconds": null })
    );
    assert_eq!(
        (&state["routes"][0]["observes"], &state["providers"][0]["networks"]),
        (&json!(true), &json!(2))
    );
    assert!(state["certificates"][0]["file"].as_str().unwrap().ends_with("one.crt"), "{state}");
    assert!(state["certificates"][0]["ends"].as_str().unwrap().starts_with("20"), "{state}");
    assert!(!state.to_string().contains("hunter2"), "{state}");
}

#[test]
fn the_state_tells_routes_providers_and_configuration_and_no_secret() {
    let (callgate, _agent, _) = with_interaction("");
    let state = callgate.admin_get("/ui/api/state").json();
    let route = &state["routes"][0];
    assert_eq!(
        (&route["name"], &route["observes"], &route["signed"]),
        (&json!("doc"), &json!(false), &json!(true))
    );
    assert_eq!((&route["path"], &route["headers"]), (&json!("/doc/{id}"), &json!(["authorization"])));
    assert_eq!(
        (&state["providers"][0]["preset"], &state["providers"][0]["networks"]),
        (&json!("standard-webhooks"), &Value::Null)
    );
    assert_eq!((&state["config"]["generation"], &state["ready"]), (&json!(1), &json!(true)));
    assert_eq!((&state["interactions"], &state["certificates"]), (&json!(1), &json!([])));
    for secret in ["whsec", "AQIDBAUG", "0123456789abcdef0123456789abcdef"] {
        assert!(!state.to_string().contains(secret), "{state}");
    }
}

/// The admin listener may be open to a cluster, and it shares sockets and memory with the ingress listeners.
#[test]
fn what_the_admin_listener_takes_is_bounded() {
    let agent = Agent::start(ANSWER);
    let callgate = Callgate::start(&open_config(&agent.address.to_string()), Clock::System);
    let begin = |bytes: &[u8]| {
        let mut stream = TcpStream::connect(callgate.admin.unwrap()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(bytes).unwrap();
        stream
    };
    // Incomplete bodies may use 4 MiB. A connection beyond this limit is closed.
    let mut body = b"POST /callbacks HTTP/1.1\r\nhost: localhost\r\ncontent-length: 65500\r\n\r\n".to_vec();
    body.resize(body.len() + 40_000, b' ');
    let mut all: Vec<_> = (0..200).map(|_| begin(&body)).collect();
    eventually(|| {
        all.iter_mut().any(|stream| {
            stream.set_nonblocking(true).unwrap();
            !matches!(std::io::Read::read(stream, &mut [0]), Err(error) if error.kind() == std::io::ErrorKind::WouldBlock)
        }).then_some(())
    });
    all.clear();
    // The same holds for more than 256 connections from this host.
    let mut all = Vec::new();
    eventually(|| {
        all.extend((0..256).map(|_| begin(b"G")));
        let mut one = begin(b"GET /livez HTTP/1.1\r\nhost: h\r\n\r\n");
        (std::io::Read::read(&mut one, &mut [0]).unwrap_or(0) == 0).then_some(())
    });
    assert_eq!(callgate.send(b"GET /open/x HTTP/1.1\r\nHost: h\r\n\r\n").status, 200, "callbacks go on");
    all.clear();
    eventually(|| {
        let mut one = begin(b"GET /livez HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n");
        let mut answer = Vec::new();
        let _ = std::io::Read::read_to_end(&mut one, &mut answer);
        answer.starts_with(b"HTTP/1.1 200 ").then_some(())
    });
    // The client receives a response if its body is incomplete.
    let mut short = begin(b"POST /callbacks HTTP/1.1\r\nhost: localhost\r\ncontent-length: 9\r\n\r\n{");
    short.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(Response::read(&mut short).status, 400);
    let long = format!("GET /livez HTTP/1.1\r\nhost: h\r\nx: {}\r\n\r\n", "a".repeat(20_000));
    assert_eq!(Response::read(&mut begin(long.as_bytes())).status, 431);
    assert_eq!(Response::read(&mut begin(b"GET /livez HTTP/1.1\r\nhost: a b\r\n\r\n")).status, 400);
}

/// Returns the values of the options in a list of the page.
fn offered(id: &str) -> Vec<String> {
    let page = std::fs::read_to_string("src/admin/page.html").unwrap();
    let list =
        page.split(&format!("<select id=\"{id}\">")).nth(1).unwrap().split("</select>").next().unwrap();
    let options = list.split("<option").skip(1).map(|option| {
        let (head, text) = option.split_once('>').unwrap();
        let value = head.split("value=\"").nth(1).map(|rest| rest.split('"').next().unwrap());
        value.unwrap_or_else(|| text.trim_end_matches("</option>")).to_owned()
    });
    options.collect()
}

#[test]
fn the_page_offers_every_state_and_every_verdict() {
    // `open` selects every interaction that is not over.
    let mut states = vec!["all".to_owned()];
    states.extend(State::ALL.map(|state| state.name().to_owned()));
    states.sort();
    let mut shown = offered("state");
    shown.sort();
    assert_eq!(shown, states);

    let metrics = Metrics::new().unwrap();
    let requests =
        metrics.described().iter().find(|one| one.name == "callgate_ingress_requests_total").unwrap();
    let verdict = requests.labels.iter().find(|label| label.name == "verdict").unwrap();
    let Values::Closed(verdicts) = &verdict.values else { panic!("verdicts are known") };
    let mut verdicts: Vec<_> = verdicts.iter().map(ToString::to_string).chain([String::new()]).collect();
    verdicts.sort();
    let mut shown = offered("verdict");
    shown.sort();
    assert_eq!(shown, verdicts);
}
