//! Several members of one installation: each callback reaches the agent of the process that minted its token.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use callgate::clock::Clock;
use callgate::replica::{Incarnation, Proof, Prover, Vouched};
use callgate::secret::Secret;
use serde_json::Value;

use crate::environment::env;
use crate::harness::{ANSWER, Agent, Callgate, PATIENCE, Response, eventually, send_to};
use crate::process::binary;

/// One member with its agent.
pub struct Member {
    pub callgate: Callgate,
    pub agent: Agent,
}

/// Returns the configuration of a member. `discover` lists the addresses of other members.
pub fn config(agent: SocketAddr, address: &str, discover: &[SocketAddr], more: &str) -> String {
    let discover: Vec<_> = discover.iter().map(|address| format!("\"{address}\"")).collect();
    let discover =
        if discover.is_empty() { String::new() } else { format!("  discover: [{}]", discover.join(", ")) };
    format!(
        "public_url: https://agent.example.com
listen: {{ ingress: [ {{ address: 127.0.0.1:0 }} ], admin: {{ address: 127.0.0.1:0 }} }}
agent: {{ address: \"{agent}\", timeouts: {{ connect: 1s, response: 20s }} }}
callback_tokens: {{ ttl: 2h, keys: [ {{ id: k1, algorithm: HS256, secret: {{ env: TOKEN_KEY }} }} ] }}
shutdown: {{ delay: 0s, grace: 5s }}
replicas:
  address: {address}
  advertise: 127.0.0.1
  secrets: [ {{ env: TOKEN_KEY }} ]
  mint: true
  patience: 300ms
{discover}
{more}
routes:
  - {{ name: jobs, path: \"/jobs/{{id}}\", token: {{ kind: callback }}, forward: \"/in/{{id}}\", interaction: {{ status: /status, done: [done] }} }}
"
    )
}

impl Member {
    pub fn start(discover: &[&Self], more: &str) -> Self {
        let agent = Agent::start(ANSWER);
        let discover: Vec<_> = discover.iter().map(|member| member.address()).collect();
        let callgate = Callgate::start(&config(agent.address, "127.0.0.1:0", &discover, more), Clock::System);
        Self { callgate, agent }
    }

    pub fn address(&self) -> SocketAddr {
        self.callgate.replicas.unwrap()
    }

    /// Mints a callback. Returns the interaction and the token.
    pub fn mint(&self, id: &str) -> (String, String) {
        let wanted = format!(r#"{{"route":"jobs","params":{{"id":"{id}"}}}}"#);
        let minted = self.callgate.admin_send("POST", "/callbacks", &wanted);
        assert_eq!(minted.status, 201, "{}", minted.text());
        let minted = minted.json();
        let member = |name: &str| minted[name].as_str().unwrap().to_owned();
        (member("interaction"), member("callback_token"))
    }

    /// Sends a callback to the ingress listener of this member.
    pub fn callback(&self, id: &str, token: &str, body: &str) -> Response {
        let token = format!("Bearer {token}");
        let headers = [("authorization", &*token), ("content-type", "application/json"), ("x-own", "kept")];
        send_to(self.callgate.ingress, "POST", &format!("/jobs/{id}?a=b"), &headers, body.as_bytes())
    }

    pub fn state(&self, interaction: &str) -> Option<Value> {
        let response = self.callgate.admin_get(&format!("/callbacks/{interaction}"));
        (response.status == 200).then(|| response.json())
    }

    /// The members that this one regards as present, and their addresses.
    pub fn present(&self) -> Vec<String> {
        let members = self.callgate.admin_get("/members").json();
        let members = members["members"].as_array().unwrap().iter();
        let present = members.filter(|member| member["presence"] == "present");
        present.map(|member| member["address"].as_str().unwrap().to_owned()).collect()
    }
}

/// Starts members that know each other.
pub fn members<const N: usize>(more: &str) -> [Member; N] {
    let mut started: Vec<Member> = Vec::new();
    for _ in 0..N {
        let next = Member::start(&started.iter().collect::<Vec<_>>(), more);
        started.push(next);
    }
    for member in &started {
        eventually(|| (member.present().len() == N - 1).then_some(()));
    }
    started.try_into().ok().unwrap()
}

#[test]
fn a_callback_reaches_the_agent_of_the_member_that_minted_its_token() {
    let members: [Member; 3] = members("");
    for (number, owner) in members.iter().enumerate() {
        let id = format!("job{number}");
        let (interaction, token) = owner.mint(&id);
        for (round, member) in members.iter().enumerate() {
            let body = format!("{{\"status\":\"working\",\"round\":{round}}}");
            let response = member.callback(&id, &token, &body);
            assert_eq!((response.status, response.text().as_str()), (200, "hello"));
            assert!(response.header("callgate-replica").is_none(), "a provider learns nothing about members");
            let received = owner.agent.wait_for(round + 1);
            let last = received.last().unwrap();
            assert_eq!((last.target(), last.body.as_slice()), (&*format!("/in/{id}?a=b"), body.as_bytes()));
            assert_eq!(last.header("callgate-interaction"), [&*interaction]);
            assert_eq!(last.header("callgate-client-address"), ["127.0.0.1"]);
            assert_eq!((last.header("x-own"), last.header("callgate-replica").len()), (vec!["kept"], 0));
            assert!(last.header("callgate-owner").is_empty());
            assert!(last.header("authorization").is_empty());
        }
        assert_eq!(owner.agent.received().len(), 3);
    }
    for member in &members {
        let log = member.callgate.logged(5);
        let count = |reason: &str| log.iter().filter(|line| line["reason"] == reason).count();
        assert_eq!((count("ok"), count("handed_over")), (3, 2), "{log:?}");
    }
    let metrics = members[0].callgate.metrics();
    assert!(metrics.contains("callgate_replica_requests_total{outcome=\"answered\"} 2\n"), "{metrics}");
    assert!(metrics.contains("\ncallgate_members 3\n"), "{metrics}");
}

#[test]
fn a_token_does_not_show_the_address_of_its_owner() {
    let [member] = members("");
    let (_, token) = member.mint("a");
    let payload = token.split('.').nth(1).unwrap();
    let payload = data_encoding::BASE64URL_NOPAD.decode(payload.as_bytes()).unwrap();
    let claims: Value = serde_json::from_slice(&payload).unwrap();
    assert_eq!(claims["v"], 2);
    let own = data_encoding::BASE64URL_NOPAD.decode(claims["own"].as_str().unwrap().as_bytes()).unwrap();
    let port = member.address().port().to_string();
    assert!(
        !String::from_utf8_lossy(&own).contains(&port) && !String::from_utf8_lossy(&payload).contains(&port)
    );
}

#[test]
fn uses_and_duplicates_count_once_over_all_members() {
    let [a, b, c] = members("");
    let wanted = r#"{"route":"jobs","params":{"id":"a"},"uses":2}"#;
    let minted = a.callgate.admin_send("POST", "/callbacks", wanted).json();
    let token = minted["callback_token"].as_str().unwrap();
    let statuses: Vec<_> = [&b, &c, &a, &b].map(|member| member.callback("a", token, "{}").status).into();
    assert_eq!(statuses, [200, 200, 410, 410], "the owner's denial goes back unchanged");
    assert_eq!(a.agent.received().len(), 2);
    assert!(b.agent.received().is_empty() && c.agent.received().is_empty());
    let metrics = b.callgate.metrics();
    assert!(metrics.contains("callgate_replica_requests_total{outcome=\"refused\"} 1\n"), "{metrics}");
}

#[test]
fn a_denied_callback_is_not_handed_over() {
    let [a, b] = members("");
    let (_, token) = a.mint("a");
    assert_eq!(b.callback("other", &token, "{}").status, 401);
    assert_eq!(b.callback("a", &token[..token.len() - 2], "{}").status, 401);
    let metrics = b.callgate.metrics();
    assert!(metrics.contains("callgate_replica_requests_total{outcome=\"answered\"} 0\n"), "{metrics}");
}

#[test]
fn interactions_are_read_listed_and_revoked_through_every_member() {
    let [a, b, c] = members("");
    let (first, token) = a.mint("a");
    let (second, _) = b.mint("b");
    for member in [&a, &b, &c] {
        for (interaction, owner) in [(&first, &a), (&second, &b)] {
            let state = member.state(interaction).unwrap();
            assert_eq!(
                (state["state"].as_str(), state["member"].as_str()),
                (Some("open"), Some(&*owner.address().to_string()))
            );
        }
        let page = member.callgate.admin_get("/callbacks?limit=10").json();
        let listed: Vec<_> = page["interactions"]
            .as_array()
            .unwrap()
            .iter()
            .map(|one| one["interaction"].as_str().unwrap())
            .collect();
        let mut expected = [first.as_str(), second.as_str()];
        expected.sort_unstable();
        assert_eq!(listed, expected);
        assert!(page.get("unreachable").is_none());
    }
    assert_eq!(c.callgate.admin_send("DELETE", &format!("/callbacks/{first}"), "").status, 204);
    for member in [&a, &b, &c] {
        let response = member.callback("a", &token, "{}");
        assert_eq!(
            (response.status, member.state(&first).unwrap()["state"].as_str()),
            (410, Some("revoked"))
        );
    }
    assert!(a.agent.received().is_empty());
}

#[test]
fn a_member_that_cannot_be_reached_makes_a_revocation_incomplete() {
    let [a, b] = members("");
    let (first, _) = a.mint("a");
    let address = b.address().to_string();
    drop(b);
    let response = a.callgate.admin_send("DELETE", &format!("/callbacks/{first}"), "");
    assert_eq!((response.status, response.json()["unreachable"][0].as_str()), (202, Some(&*address)));
    assert_eq!(a.state(&first).unwrap()["state"], "revoked");
}

/// Stops a member as if its process was killed: its listeners close, and it hands nothing over.
pub fn kill(member: Member) -> (Agent, SocketAddr) {
    let address = member.address();
    member.callgate.kill();
    (member.agent, address)
}

#[test]
fn a_callback_waits_for_its_owner_and_is_adopted_when_the_owner_is_gone() {
    for (gone, status, did) in [("any", 200, "adopted"), ("refuse", 410, "refused"), ("retry", 503, "retry")]
    {
        let more = format!("  gone: {gone}\n  gone_after: 1s\nstore: {{ kind: memory, unknown: refuse }}");
        let [a, b] = members(&more);
        let (_, token) = a.mint("a");
        let (_agent, _) = kill(a);
        let first = b.callback("a", &token, "{}");
        assert_eq!((first.status, first.header("retry-after")), (503, Some("5")), "{gone}");
        assert_eq!(b.callgate.log()[0]["reason"], "owner_unreachable");
        let last = eventually(|| {
            Some(b.callback("a", &token, "{}")).filter(|response| {
                response.status != 503 || {
                    !b.callgate.metrics().contains("callgate_owner_gone_total{did=\"retry\"} 0\n")
                }
            })
        });
        assert_eq!(last.status, status, "{gone} {}", last.text());
        let reason = match gone {
            "any" => "ok",
            "refuse" => "owner_gone",
            _ => "owner_unreachable",
        };
        eventually(|| b.callgate.log().into_iter().find(|line| line["reason"] == reason));
        let metrics = b.callgate.metrics();
        assert!(metrics.contains(&format!("callgate_owner_gone_total{{did=\"{did}\"}} 1\n")), "{metrics}");
        let received = b.agent.received();
        assert_eq!(received.len(), usize::from(status == 200));
        assert!(received.iter().all(|one| one.header("callgate-owner") == ["gone"]));
    }
}

#[test]
fn another_process_at_the_address_of_the_owner_means_that_the_owner_is_gone() {
    let [a, b] = members("");
    let (_, token) = a.mint("a");
    let (agent, address) = kill(a);
    // The address was reused by another member.
    let text = config(agent.address, &address.to_string(), &[], "");
    let other = Callgate::start(&text, Clock::System);
    let response =
        eventually(|| Some(b.callback("a", &token, "{}")).filter(|response| response.status == 200));
    assert_eq!(response.text(), "hello");
    assert_eq!(b.agent.received()[0].header("callgate-owner"), ["gone"]);
    assert!(agent.received().is_empty(), "the other process receives nothing");
    drop(other);
}

#[test]
fn a_stranger_at_the_address_of_the_owner_receives_no_callback() {
    let [a, b] = members("");
    let (_, token) = a.mint("a");
    let (_agent, address) = kill(a);
    let stranger = TcpListener::bind(address).unwrap();
    std::thread::scope(|scope| {
        let heard = scope.spawn(|| {
            let mut heard = Vec::new();
            loop {
                let (mut stream, _) = stranger.accept().unwrap();
                stream.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
                let mut bytes = [0; 4096];
                let read = stream.read(&mut bytes).unwrap_or(0);
                let text = String::from_utf8_lossy(&bytes[..read]).into_owned();
                if text == "end" {
                    return heard;
                }
                heard.push(text);
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}");
            }
        });
        let response = b.callback("a", &token, "{\"secret\":1}");
        TcpStream::connect(address).unwrap().write_all(b"end").unwrap();
        assert_eq!(response.status, 503);
        let heard = heard.join().unwrap();
        assert!(!heard.is_empty(), "it was asked who it is");
        for text in heard {
            assert!(text.starts_with("POST /replica HTTP/1.1\r\n") && !text.contains("secret"), "{text}");
        }
    });
}

#[test]
fn a_member_that_stops_hands_its_ledger_over() {
    let [mut a, b, c] = members("store: { kind: memory, unknown: refuse }");
    let (open, token) = a.mint("a");
    let (ended, ended_token) = a.mint("b");
    let (revoked, revoked_token) = a.mint("c");
    assert_eq!(a.callback("a", &token, "{\"status\":\"working\"}").status, 200);
    assert_eq!(a.callback("b", &ended_token, "{\"status\":\"done\"}").status, 200);
    assert_eq!(a.callgate.admin_send("DELETE", &format!("/callbacks/{revoked}"), "").status, 204);
    assert_eq!(a.callgate.stop_in_background().join().unwrap(), 0);
    // One of the two others has the ledger. Each of them delivers to the agent of that one.
    let (heir, other) = if b.callgate.metrics().contains("callgate_interactions_open{route=\"jobs\"} 1\n") {
        (&b, &c)
    } else {
        (&c, &b)
    };
    // The callback does not wait for the member that has stopped.
    assert_eq!(other.callback("a", &token, "{\"status\":\"working\"}").status, 200);
    assert_eq!(heir.callback("a", &token, "{\"status\":\"done\"}").status, 200);
    assert_eq!((heir.agent.received().len(), other.agent.received().len()), (2, 0));
    assert!(heir.agent.received().iter().all(|one| one.header("callgate-owner").is_empty()));
    for (interaction, token, state) in
        [(&open, &token, "done"), (&ended, &ended_token, "done"), (&revoked, &revoked_token, "revoked")]
    {
        for member in [heir, other] {
            assert_eq!(member.state(interaction).unwrap()["state"], state);
            let id = if interaction == &open {
                "a"
            } else if interaction == &ended {
                "b"
            } else {
                "c"
            };
            assert_eq!(member.callback(id, token, "{}").status, 410);
        }
    }
}

#[test]
fn the_replica_listener_accepts_only_proven_requests() {
    let [a] = members("");
    for header in ["", "callgate-replica: v1;1;2;3;4;5;6;7\r\n", "callgate-replica: x\r\n"] {
        for target in ["/replica", "/jobs/a", "/replica/ledger"] {
            let mut stream = TcpStream::connect(a.address()).unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            write!(stream, "POST {target} HTTP/1.1\r\nhost: h\r\n{header}content-length: 2\r\n\r\n{{}}")
                .unwrap();
            let response = Response::read(&mut stream);
            assert_eq!(response.status, 401, "{header} {target}");
            assert!(response.text().contains("replica_proof"));
        }
    }
    let metrics = a.callgate.metrics();
    assert!(metrics.contains("\ncallgate_replica_denied_total 9\n"), "{metrics}");
    // On the other listeners, the header has no meaning and does not reach the agent.
    let (_, token) = a.mint("a");
    let token = format!("Bearer {token}");
    let headers = [("authorization", &*token), ("callgate-replica", "v1;x")];
    assert_eq!(send_to(a.callgate.ingress, "POST", "/jobs/a", &headers, b"{}").status, 200);
    assert!(a.agent.received()[0].header("callgate-replica").is_empty());
}

/// Sends a request to the replica listener with a proof of the test.
fn send_proven(address: SocketAddr, target: &str, proof: &Proof, body: &str) -> Response {
    let prover = Prover::new(&[Secret::new(env("TOKEN_KEY").unwrap().into_bytes())]);
    let header = prover.prove(proof, "POST", target).unwrap();
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let length = body.len();
    write!(
        stream,
        "POST {target} HTTP/1.1\r\nhost: h\r\ncallgate-replica: {header}\r\ncontent-length: {length}\r\n\r\n{body}"
    )
    .unwrap();
    Response::read(&mut stream)
}

#[test]
fn a_proof_holds_once_for_one_process_one_body_and_thirty_seconds() {
    let [a] = members("");
    let own = a.callgate.admin_get("/members").json();
    let own = Incarnation::parse(own["own"]["incarnation"].as_str().unwrap()).unwrap();
    let (now, other) = (Clock::System.now(), Incarnation::random().unwrap());
    let proof = |time, to, body: &str| Proof::new(time, other, Some(to), None, body.as_bytes()).unwrap();
    let good = proof(now, own, "{}");
    let send = |proof: &Proof, body: &str| send_proven(a.address(), "/replica", proof, body);
    let response = send(&good, "{}");
    assert_eq!(response.status, 200);
    assert_eq!(response.json()["incarnation"], own.to_string());
    let denied = |response: Response, status, reason: &str| {
        assert_eq!((response.status, response.json()["reason"].as_str()), (status, Some(reason)));
    };
    denied(send(&good, "{}"), 401, "replica_proof");
    denied(send(&proof(now, own, "{}"), "{ }"), 401, "replica_proof");
    denied(send(&proof(now.minus(Duration::from_secs(40)), own, "{}"), "{}"), 401, "replica_proof");
    denied(send(&proof(now.plus(Duration::from_secs(40)), own, "{}"), "{}"), 401, "replica_proof");
    denied(send(&proof(now, other, "{}"), "{}"), 421, "replica_mistaken");
    // A member cannot make another one pass a callback on without all checks.
    let client = Vouched { address: "127.0.0.1".parse().unwrap(), is_tls: false, certificate: None };
    let forged = Proof::new(now, other, Some(own), Some(client), b"{}").unwrap();
    assert_eq!(send_proven(a.address(), "/jobs/a", &forged, "{}").status, 401);
    assert_eq!(a.callgate.log()[0]["reason"], "token_missing");
}

#[test]
fn the_command_shows_the_members() {
    let [a, b] = members("");
    let admin = a.callgate.admin.unwrap().to_string();
    let out = std::process::Command::new(binary()).args(["members", "--admin", &admin]).output().unwrap();
    let text = String::from_utf8(out.stdout).unwrap();
    let lines: Vec<_> = text.lines().collect();
    assert_eq!((out.status.code(), lines.len()), (Some(0), 3), "{text}");
    assert!(lines[0].starts_with("ADDRESS ") && lines[1].contains(" this one "), "{text}");
    assert!(lines[1].contains(&a.address().to_string()), "{text}");
    assert!(lines[2].contains(&b.address().to_string()) && lines[2].contains(" present "), "{text}");
    let alone = Callgate::start(&crate::harness::open_config("127.0.0.1:1"), Clock::System);
    let admin = alone.admin.unwrap().to_string();
    let out = std::process::Command::new(binary()).args(["members", "--admin", &admin]).output().unwrap();
    assert_eq!((out.status.code(), out.stdout.len()), (Some(65), 0));
}

#[test]
fn the_page_shows_the_members_and_the_interactions_of_all() {
    let [a, b] = members("");
    let ids: Vec<_> =
        (0..2).flat_map(|number| [a.mint(&format!("a{number}")), b.mint(&format!("b{number}"))]).collect();
    assert_eq!(b.callback("a0", &ids[0].1, "{\"status\":\"done\"}").status, 200);
    let get = |path: &str| a.callgate.admin_get(&format!("/ui/api/{path}")).json();
    let listed = |page: &Value| -> Vec<(String, String, bool)> {
        let text = |one: &Value, name: &str| one[name].as_str().unwrap().to_owned();
        let found = page["interactions"].as_array().unwrap().iter();
        found.map(|one| (text(one, "interaction"), text(one, "member"), one["open"] == true)).collect()
    };
    let address = |member: &Member| member.address().to_string();
    let mut expected: Vec<_> = ids
        .iter()
        .enumerate()
        .map(|(at, (id, _))| (id.clone(), address(if at % 2 == 0 { &a } else { &b }), at != 0))
        .collect();
    expected.sort();
    assert_eq!(listed(&get("interactions?state=all")), expected);
    let open: Vec<_> = expected.iter().filter(|one| one.2).cloned().collect();
    assert_eq!(listed(&get("interactions")), open);
    assert_eq!(listed(&get("interactions?state=done")).len(), 1);
    assert_eq!(listed(&get("interactions?route=no%26state%3Ddone")), []);
    let first = get("interactions?limit=2");
    let rest = get(&format!("interactions?limit=2&after={}", first["next"].as_str().unwrap()));
    assert_eq!([listed(&first), listed(&rest)].concat(), open);
    assert!(first["interactions"][0].get("questions").is_none() && !first.to_string().contains("eyJ"));
    // The callbacks API can select them in the same way.
    let over = |query: &str| a.callgate.admin_get(&format!("/callbacks?{query}"));
    assert_eq!(over("over=false").json()["interactions"].as_array().unwrap().len(), 3);
    assert_eq!(over("over=true").json()["interactions"].as_array().unwrap().len(), 1);
    assert_eq!(over("over=maybe").status, 400);
    assert_eq!(get("members"), a.callgate.admin_get("/members").json());
    assert_eq!(get("state")["member"], address(&a));
    let gone = address(&b);
    kill(b);
    let page = eventually(|| Some(get("interactions")).filter(|page| page.get("unreachable").is_some()));
    assert_eq!((&page["unreachable"][0], listed(&page).len()), (&gone.into(), 1));
}
