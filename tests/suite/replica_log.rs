//! The lines of the logs about several members: which member, which interaction, and why. They contain no token and no
//! secret.

use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use callgate::clock::Clock;
use callgate::replica::{Incarnation, Proof, Prover, Vouched};
use callgate::secret::Secret;
use serde_json::Value;

use crate::environment::env;
use crate::event_log;
use crate::harness::{ANSWER, Agent, Callgate, PATIENCE, Response, eventually};
use crate::replicas::{config, kill, members};

/// Waits for a line of the event log that contains all texts.
fn line(texts: &[&str]) -> String {
    eventually(|| {
        let lines = event_log::lines(texts[0]);
        lines.into_iter().find(|line| texts.iter().all(|text| line.contains(text)))
    })
}

/// Checks that neither log contains a token or a secret.
fn nothing_secret(access_log: &[Value], tokens: &[&str]) {
    let text = format!("{access_log:?}\n{}", event_log::all());
    let secrets = [env("TOKEN_KEY").unwrap()];
    for secret in tokens.iter().copied().chain(secrets.iter().map(String::as_str)) {
        assert!(!text.contains(secret), "{text}");
        // Parts of a token must not appear, either.
        for part in secret.split('.').filter(|part| part.len() > 40) {
            assert!(!text.contains(part), "{text}");
        }
    }
}

#[test]
fn a_callback_that_is_handed_over_names_both_members() {
    event_log::record();
    let [a, b] = members("");
    let (interaction, token) = a.mint("a");
    assert_eq!(b.callback("a", &token, "{}").status, 200);
    let (sent, received) = (b.callgate.logged(1).remove(0), a.callgate.logged(1).remove(0));
    assert_eq!((&sent["reason"], &received["reason"]), (&"handed_over".into(), &"ok".into()));
    assert_eq!(sent["member"], a.address().to_string());
    assert_eq!(received["from_member"], b.address().to_string());
    assert!(sent.get("from_member").is_none() && received.get("member").is_none());
    for log in [&sent, &received] {
        assert_eq!((&log["interaction"], &log["verdict"]), (&interaction.as_str().into(), &"allow".into()));
    }
    let row = b.callgate.admin_get("/ui/api/recent").json()["rows"][0].clone();
    assert_eq!((&row["member"], &row["from_member"]), (&sent["member"], &"".into()));
    // The owner's denial is in both logs. The log of the owner has the reason.
    a.callgate.admin_send("DELETE", &format!("/callbacks/{interaction}"), "");
    eventually(|| (b.callback("a", &token, "{}").status == 410).then_some(()));
    nothing_secret(&[sent, received], &[&token]);
    // A callback without another member has none of the fields.
    let (_, own) = b.mint("b");
    assert_eq!(b.callback("b", &own, "{}").status, 200);
    let lines =
        eventually(|| Some(b.callgate.log()).filter(|lines| lines.iter().any(|line| line["reason"] == "ok")));
    let own = lines.iter().find(|line| line["reason"] == "ok").unwrap();
    assert!(own.get("member").is_none() && own.get("from_member").is_none(), "{own}");
}

#[test]
fn a_member_that_stops_says_who_has_its_interactions() {
    event_log::record();
    let [mut a, b] = members("");
    let (_, token) = a.mint("a");
    let (own, other) = (a.address().to_string(), b.address().to_string());
    assert!(line(&[&own, "is present"]).starts_with("info: "));
    assert_eq!(a.callgate.stop_in_background().join().unwrap(), 0);
    let said = line(&[&other, "handed over 1 interactions"]);
    assert_eq!(said, format!("info: handed over 1 interactions to {other}"));
    assert!(line(&[&own, "takes over the interactions of"]).starts_with("info: "));
    assert!(b.callgate.metrics().contains("\ncallgate_ledger_taken_over_total 1\n"));
    nothing_secret(&[], &[&token]);
}

#[test]
fn interactions_that_nobody_takes_are_named() {
    event_log::record();
    let [mut a] = members("  group: lonely-one");
    let (first, token) = a.mint("a");
    let (second, _) = a.mint("b");
    assert_eq!(a.callgate.stop_in_background().join().unwrap(), 0);
    let said = line(&["lonely-one", "2 interactions were not handed over"]);
    assert!(said.starts_with("error: ") && said.contains(&first) && said.contains(&second), "{said}");
    assert!(!said.contains("others"), "{said}");
    nothing_secret(&[], &[&token]);
    let [mut many] = members("  group: lonely-two");
    (0..25).for_each(|number| drop(many.mint(&format!("m{number}"))));
    assert_eq!(many.callgate.stop_in_background().join().unwrap(), 0);
    let said = line(&["lonely-two", "25 interactions were not handed over"]);
    assert!(said.matches("int_").count() == 20 && said.ends_with(", and others"), "{said}");
}

#[test]
fn an_adoption_names_the_interaction_and_its_owner() {
    event_log::record();
    let [a, b] = members("  gone_after: 1s");
    let (interaction, token) = a.mint("a");
    let (_agent, address) = kill(a);
    let address = address.to_string();
    eventually(|| (b.callback("a", &token, "{}").status == 200).then_some(()));
    let said = line(&[&interaction, "adopts"]);
    assert!(said.starts_with("warn: ") && said.contains(&address), "{said}");
    assert_eq!(b.callback("a", &token, "{}").status, 200);
    let lines = event_log::lines(&interaction);
    let adoptions = lines.iter().filter(|line| line.contains("adopts")).count();
    assert_eq!(adoptions, 1, "the second callback adopts nothing");
    assert!(line(&[&address, "is gone"]).starts_with("warn: "));
    let denied = b.callgate.log();
    let denied = denied.iter().find(|line| line["reason"] == "owner_unreachable").unwrap();
    assert!(denied["detail"].as_str().unwrap().starts_with(&address), "{denied}");
    nothing_secret(std::slice::from_ref(denied), &[&token]);
}

/// Sends a request to the replica listener from an address that no other test uses.
fn send_from(from: [u8; 4], to: SocketAddr, path: &str, header: &str, body: &str) -> Response {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from((Ipv4Addr::from(from), 0)).into()).unwrap();
    socket.connect(&to.into()).unwrap();
    let mut stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let length = body.len();
    write!(
        stream,
        "POST {path} HTTP/1.1\r\nhost: h\r\ncallgate-replica: {header}\r\ncontent-length: {length}\r\n\r\n{body}"
    )
    .unwrap();
    Response::read(&mut stream)
}

#[test]
fn every_cause_of_a_refused_proof_is_logged_and_counted() {
    event_log::record();
    let [a] = members("");
    let own = a.callgate.admin_get("/members").json();
    let own = Incarnation::parse(own["own"]["incarnation"].as_str().unwrap()).unwrap();
    let (now, other) = (Clock::System.now(), Incarnation::random().unwrap());
    let prover = Prover::new(&[Secret::new(env("TOKEN_KEY").unwrap().into_bytes())]);
    let stranger = Prover::new(&[Secret::new(b"another secret of at least 24 bytes".to_vec())]);
    let proof = |time| Proof::new(time, other, Some(own), None, b"{}").unwrap();
    let header = |prover: &Prover, proof: &Proof| prover.prove(proof, "POST", "/replica").unwrap();
    let good = header(&prover, &proof(now));
    let peer = [127, 0, 77, 1];
    let send = |header: &str, body: &str| send_from(peer, a.address(), "/replica", header, body).status;
    assert_eq!(send(&good, "{}"), 200);
    let cases = [
        (good.clone(), "{}", "was used before"),
        ("x".to_owned(), "{}", "no proof of a member"),
        (header(&stranger, &proof(now)), "{}", "none of `replicas.secrets`"),
        (header(&prover, &proof(now.minus(Duration::from_secs(40)))), "{}", "30 s older or newer"),
        (header(&prover, &proof(now)), "{ }", "the body is not the one"),
    ];
    for (header, body, why) in &cases {
        assert_eq!(send(header, body), 401);
        assert!(line(&["127.0.77.1", why]).starts_with("warn: denied a request of 127.0.77.1 "));
    }
    assert_eq!(send("x", "{}"), 401);
    assert_eq!(event_log::lines("127.0.77.1").len(), cases.len(), "a cause is logged once a minute");
    let metrics = a.callgate.metrics();
    assert!(metrics.contains("\ncallgate_replica_denied_total 6\n"), "{metrics}");
    // The body of a callback is checked later. Its line is in the access log.
    let (interaction, token) = a.mint("a");
    let client = Vouched { address: "127.0.0.1".parse().unwrap(), is_tls: false, certificate: None };
    let callback = Proof::new(now, other, Some(own), Some(client), b"{}").unwrap();
    let header = prover.prove(&callback, "POST", "/jobs/a").unwrap();
    let header = format!("{header}\r\nauthorization: Bearer {token}");
    assert_eq!(send_from(peer, a.address(), "/jobs/a", &header, "{ }").status, 401);
    let denied = a.callgate.logged(1).remove(0);
    assert_eq!((&denied["reason"], &denied["interaction"]), (&"replica_proof".into(), &interaction.into()));
    assert_eq!(denied["from_member"], format!("member {other}"));
    assert!(a.callgate.metrics().contains("\ncallgate_replica_denied_total 7\n"));
    nothing_secret(&[denied], &[&token]);
    let texts: Vec<_> =
        cases.iter().map(|(header, ..)| header.as_str()).filter(|text| text.len() > 1).collect();
    nothing_secret(&[], &texts);
}

#[test]
fn a_member_with_other_secrets_is_reported_on_both_sides() {
    event_log::record();
    let [a] = members("");
    let agent = Agent::start(ANSWER);
    let text = config(agent.address, "127.0.0.1:0", &[a.address()], "");
    let secrets = "secrets: [ { env: TOKEN_KEY } ]\n";
    assert!(text.contains(secrets));
    let other = text.replace(secrets, "secrets: [ { env: OLD_TOKEN_KEY } ]\n");
    let _other = Callgate::start(&other, Clock::System);
    let said = line(&[&a.address().to_string(), "`replicas.secrets` the same everywhere?"]);
    assert!(said.starts_with("warn: ") && said.contains(" is not asked as a member: "), "{said}");
    eventually(|| (!a.callgate.metrics().contains("\ncallgate_replica_denied_total 0\n")).then_some(()));
}
