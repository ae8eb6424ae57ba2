//! Faults between the members of one installation: wrong settings, wrong clocks, lost answers and unusual requests.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::AtomicI64;
use std::time::Duration;

use callgate::clock::Clock;

use crate::harness::{ANSWER, Agent, Callgate, PATIENCE, Response, eventually, send_to};
use crate::replicas::{Member, config, kill, members};

/// An address that is free now.
fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

#[test]
fn a_member_in_its_own_list_is_not_another_member() {
    let (agent, address) = (Agent::start(ANSWER), free_address());
    // As in a StatefulSet: the headless Service resolves to the member's IP address, and the member advertises a name.
    let text = config(agent.address, &address.to_string(), &[address], "")
        .replace("advertise: 127.0.0.1", "advertise: localhost");
    let alone = Callgate::start(&text, Clock::System);
    std::thread::sleep(Duration::from_millis(600));
    let known = alone.admin_get("/members").json();
    assert_eq!(known["members"].as_array().unwrap().len(), 0, "{known}");
    assert!(alone.metrics().contains("\ncallgate_members 1\n"));
}

#[test]
fn a_revocation_is_complete_only_if_every_address_was_asked() {
    let [a] = members("");
    let (interaction, token) = a.mint("a");
    // This member has just started. It has not yet heard of the owner.
    let b = Member::start(&[&a], "");
    let path = format!("/callbacks/{interaction}");
    assert_eq!(b.callgate.admin_send("DELETE", &path, "").status, 204);
    assert_eq!(a.callback("a", &token, "{}").status, 410);
    // At one address of the list, nobody answers.
    let (agent, silent) = (Agent::start(ANSWER), free_address());
    let text = config(agent.address, "127.0.0.1:0", &[silent], "  gone_after: 2s");
    let c = Callgate::start(&text, Clock::System);
    let response = c.admin_send("DELETE", &path, "");
    assert_eq!(
        (response.status, response.json()["unreachable"][0].as_str()),
        (202, Some(&*silent.to_string()))
    );
    eventually(|| (c.admin_send("DELETE", &path, "").status == 204).then_some(()));
}

#[test]
fn a_member_whose_clock_is_wrong_is_not_gone() {
    let more = "  gone_after: 1s";
    let a = Member::start(&[], more);
    let agent = Agent::start(ANSWER);
    let wrong = Clock::System.now().plus(Duration::from_secs(45)).unix_ms();
    let text = config(agent.address, "127.0.0.1:0", &[a.address()], more);
    let b = Callgate::start(&text, Clock::Set(Arc::new(AtomicI64::new(wrong))));
    let (_, token) = a.mint("a");
    let began = callgate::clock::instant();
    while began.elapsed() < Duration::from_secs(4) {
        let response = send_as_provider(b.ingress, "a", &token);
        assert_eq!(response.status, 503, "{}", response.text());
        std::thread::sleep(Duration::from_millis(300));
    }
    assert!(agent.received().is_empty() && a.agent.received().is_empty());
}

fn send_as_provider(ingress: SocketAddr, id: &str, token: &str) -> Response {
    let token = format!("Bearer {token}");
    send_to(ingress, "POST", &format!("/jobs/{id}"), &[("authorization", &*token)], b"{}")
}

#[test]
fn two_members_that_share_a_ledger_that_was_handed_over_are_both_found() {
    // The youngest member has room for one interaction. The other one takes the rest.
    let mut a = Member::start(&[], "");
    let b = Member::start(&[&a], "");
    let c = Member::start(&[&a, &b], "store: { kind: memory, interactions_max: 1, unknown: refuse }");
    for member in [&a, &b, &c] {
        eventually(|| (member.present().len() == 2).then_some(()));
    }
    let minted: Vec<_> = (0..4).map(|number| a.mint(&format!("job{number}"))).collect();
    assert_eq!(a.callgate.stop_in_background().join().unwrap(), 0);
    for (number, (_, token)) in minted.iter().enumerate() {
        for member in [&b, &c] {
            let status = || member.callback(&format!("job{number}"), token, "{}").status;
            eventually(|| (status() == 200).then_some(()));
        }
    }
    assert_eq!((b.agent.received().len(), c.agent.received().len()), (6, 2));
    let received = [b.agent.received(), c.agent.received()].concat();
    assert!(received.iter().all(|one| one.header("callgate-owner").is_empty()));
}

#[test]
fn what_a_killed_member_had_taken_over_is_not_adopted_by_another_heir() {
    let refuse = "  gone: refuse\n  gone_after: 1s\n";
    let mut a = Member::start(&[], refuse);
    let b = Member::start(&[&a], refuse);
    let d = Member::start(&[&a, &b], &format!("  group: other\n{refuse}"));
    let c = Member::start(&[&a, &b, &d], &format!("{refuse}store: {{ kind: memory, interactions_max: 1 }}"));
    for member in [&a, &b, &c, &d] {
        eventually(|| (member.present().len() == 3).then_some(()));
    }
    let minted: Vec<_> = (0..4).map(|number| a.mint(&format!("job{number}"))).collect();
    assert_eq!(a.callgate.stop_in_background().join().unwrap(), 0);
    kill(b);
    for member in [&c, &d] {
        let mut statuses = Vec::new();
        for (number, (_, token)) in minted.iter().enumerate() {
            let status = || member.callback(&format!("job{number}"), token, "{}").status;
            statuses.push(eventually(|| Some(status()).filter(|status| *status != 503)));
        }
        statuses.sort_unstable();
        assert_eq!(statuses, [200, 410, 410, 410]);
    }
    assert_eq!((c.agent.received().len(), d.agent.received().len()), (2, 0));
}

#[test]
fn another_process_at_the_address_does_not_hide_who_has_taken_over() {
    let mut a = Member::start(&[], "");
    let b = Member::start(&[&a], "");
    let c = Member::start(&[&a, &b], "");
    for member in [&a, &b, &c] {
        eventually(|| (member.present().len() == 2).then_some(()));
    }
    let (_, token) = a.mint("a");
    let address = a.address();
    assert_eq!(a.callgate.stop_in_background().join().unwrap(), 0);
    // The next process at the address introduces itself before `b` has heard that `c` has taken over.
    let agent = Agent::start(ANSWER);
    let next =
        Callgate::start(&config(agent.address, &address.to_string(), &[b.address()], ""), Clock::System);
    eventually(|| (next.admin_get("/members").text().contains("present")).then_some(()));
    eventually(|| (b.callback("a", &token, "{}").status == 200).then_some(()));
    assert_eq!((b.agent.received().len(), c.agent.received().len(), agent.received().len()), (0, 1, 0));
    assert!(c.agent.received()[0].header("callgate-owner").is_empty());
}

#[test]
fn a_member_that_comes_back_with_its_ledger_at_another_address_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let store = format!("store: {{ kind: file, path: {}/ledger }}", folder.path().display());
    let b = Member::start(&[], "");
    let a = Member::start(&[&b], &store);
    eventually(|| (b.present().len() == 1).then_some(()));
    let (interaction, token) = a.mint("a");
    let (first, _) = kill(a);
    let a = Member::start(&[&b], &store);
    eventually(|| (b.callback("a", &token, "{}").status == 200).then_some(()));
    assert_eq!((a.agent.received().len(), first.received().len(), b.agent.received().len()), (1, 0, 0));
    assert_eq!(b.state(&interaction).unwrap()["member"], a.address().to_string());
}

#[test]
fn only_revocations_are_handed_over_too() {
    let [mut a, b] = members("");
    let (interaction, _) = b.mint("a");
    assert_eq!(a.callgate.admin_send("DELETE", &format!("/callbacks/{interaction}"), "").status, 204);
    let c = Member::start(&[&a, &b], "");
    eventually(|| (a.present().len() == 2).then_some(()));
    assert_eq!(a.callgate.stop_in_background().join().unwrap(), 0);
    let held = c.callgate.admin_get("/callbacks?state=revoked&limit=5").json();
    assert_eq!(held["interactions"].as_array().unwrap().len(), 1, "{held}");
    let own = c.callgate.admin_get("/members").json();
    assert_eq!(own["own"]["inherits"].as_array().unwrap().len(), 1, "{own}");
}

/// Sends a request with a raw head and body. Returns the status of the last response.
fn send_raw(ingress: SocketAddr, request: &[u8]) -> u16 {
    let mut stream = TcpStream::connect(ingress).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(request).unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let last = answer.rsplit("HTTP/1.1 ").next().unwrap();
    last[..3].parse().unwrap()
}

#[test]
fn unusual_requests_reach_the_owner_as_they_reach_any_member() {
    let [a, b] = members("");
    let (_, token) = a.mint("a");
    // As many headers as `limits.headers_max` allows.
    let many: String = (0..97).map(|number| format!("x-{number}: y\r\n")).collect();
    let long = format!("x-long: {}\r\n", "z".repeat((32 << 10) - 700));
    let chunked = "transfer-encoding: chunked\r\n";
    let cases = [
        ("", "content-length: 2\r\n", "{}"),
        ("", "content-length: 0\r\n", ""),
        ("", chunked, "2\r\n{}\r\n0\r\n\r\n"),
        ("", chunked, "1\r\n{\r\n1;a=b\r\n}\r\n0\r\nx-trailer: t\r\n\r\n"),
        ("expect: 100-continue\r\n", "content-length: 2\r\n", "{}"),
        (
            "callgate-replica: v1;x\r\nCallgate_Replica: v1;x\r\ncallgate-owner: gone\r\n",
            chunked,
            "2\r\n{}\r\n0\r\n\r\n",
        ),
        (
            "connection: close, x-own, callgate-replica\r\nx-own: 1\r\nte: trailers\r\n",
            "content-length: 2\r\n",
            "{}",
        ),
        (&many, "content-length: 2\r\n", "{}"),
        (&long, "content-length: 2\r\n", "{}"),
    ];
    for (more, length, body) in cases {
        for target in ["/jobs/a", "http://h/jobs/a?x=%20"] {
            let request = format!(
                "POST {target} HTTP/1.1\r\nhost: h\r\nauthorization: Bearer {token}\r\n{more}{length}\r\n{body}"
            );
            let statuses = [&a, &b].map(|member| send_raw(member.callgate.ingress, request.as_bytes()));
            assert_eq!(statuses, [200, 200], "{more:.60} {length}");
        }
    }
    let received = a.agent.wait_for(4 * cases.len());
    assert!(b.agent.received().is_empty());
    for pair in received.chunks(2) {
        let head = |number: usize| {
            let mut lines: Vec<_> =
                pair[number].head.lines().filter(|line| !line.contains("traceparent")).collect();
            lines.sort_unstable();
            lines.join("\n")
        };
        assert_eq!((head(0), &pair[0].body), (head(1), &pair[1].body));
        assert!(!head(0).contains("replica") && !head(0).contains("callgate-owner"), "{}", head(0));
    }
}

#[test]
fn callers_cannot_keep_other_members_away() {
    let a = Member::start(&[], "limits: { connections_max: 4 }");
    let (_, token) = a.mint("a");
    // Somebody holds all connections that the ingress listener accepts.
    let (ingress, stop) = (a.callgate.ingress, std::sync::atomic::AtomicBool::new(false));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut held = Vec::new();
            while !stop.load(std::sync::atomic::Ordering::SeqCst) {
                held.extend((0..4).filter_map(|_| TcpStream::connect(ingress).ok()));
                std::thread::sleep(Duration::from_millis(20));
            }
        });
        eventually(|| (a.callgate.metrics().contains("reason=\"full\"")).then_some(()));
        let b = Member::start(&[&a], "");
        let is_known = || b.present().len() == 1;
        let found = (0..600).any(|_| {
            std::thread::sleep(Duration::from_millis(10));
            is_known()
        });
        stop.store(true, std::sync::atomic::Ordering::SeqCst);
        assert!(found, "the other members are kept away");
        assert_eq!(b.callback("a", &token, "{}").status, 200);
    });
}

#[test]
fn the_replica_listener_survives_garbage() {
    let [a] = members("");
    let cases: [&[u8]; 6] = [
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"POST /replica HTTP/1.1\r\nhost: h\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n{}",
        b"POST /replica HTTP/1.1\r\nhost: h\r\ncallgate-replica: a\r\ncallgate-replica: b\r\ncontent-length: 0\r\n\r\n",
        b"GET /replica HTTP/1.1\r\nhost: h\r\n\r\nGET /replica HTTP/1.1\r\nhost: h\r\n\r\n",
        b"POST /replica/ledger HTTP/1.1\r\nhost: h\r\ncontent-length: 99999999999\r\n\r\n",
    ];
    for case in cases {
        let mut stream = TcpStream::connect(a.address()).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(3))).unwrap();
        stream.write_all(case).unwrap();
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        let answer = String::from_utf8_lossy(&answer);
        assert!(!answer.contains(" 200 "), "{answer}");
        assert!(!answer.to_lowercase().contains("callgate-replica:"), "nothing is proven: {answer}");
    }
    let b = Member::start(&[&a], "");
    eventually(|| (b.present().len() == 1).then_some(()));
}

#[test]
fn secrets_are_rotated_without_a_failure() {
    let [a, b] = members("");
    let with = |member: &Member, secrets: &str| {
        let others: Vec<_> =
            [&a, &b].iter().map(|one| one.address()).filter(|one| *one != member.address()).collect();
        let discover = if std::ptr::eq(member, &raw const a) { Vec::new() } else { others };
        let text = config(member.agent.address, "127.0.0.1:0", &discover, "");
        text.replace("secrets: [ { env: TOKEN_KEY } ]", &format!("secrets: [ {secrets} ]"))
    };
    let (old, new) = ("{ env: TOKEN_KEY }", "{ env: OLD_TOKEN_KEY }");
    let ((_, token), ingress) = (a.mint("a"), b.callgate.ingress);
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let load = scope.spawn(|| {
            let mut statuses = Vec::new();
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                statuses.push(send_as_provider(ingress, "a", &token).status);
            }
            statuses
        });
        for secrets in [format!("{old}, {new}"), format!("{new}, {old}")] {
            for member in [&a, &b] {
                member.callgate.reload(&with(member, &secrets)).unwrap();
                std::thread::sleep(Duration::from_millis(100));
            }
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        let statuses = load.join().unwrap();
        assert!(statuses.len() > 10 && statuses.iter().all(|status| *status == 200), "{statuses:?}");
    });
}

#[test]
fn the_owner_sees_the_same_client_as_the_member_that_received_the_callback() {
    let more = "client_address: { trusted_proxies: [127.0.0.0/8, 10.0.0.0/8], header: x-forwarded-for }";
    let [a, b] = members(more);
    let (_, token) = a.mint("a");
    let token = format!("Bearer {token}");
    let cases = [
        ("2001:db8::7", "2001:db8::7"),
        ("6.6.6.6, 192.0.2.1", "192.0.2.1"),
        ("192.0.2.1, 10.0.0.9", "192.0.2.1"),
        ("10.0.0.8, 10.0.0.9", "10.0.0.8"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
    ];
    for (number, (forwarded, client)) in cases.into_iter().enumerate() {
        for member in [&a, &b] {
            let headers = [("authorization", &*token), ("x-forwarded-for", forwarded)];
            let response = send_to(member.callgate.ingress, "POST", "/jobs/a", &headers, b"{}");
            assert_eq!(response.status, 200, "{forwarded}");
        }
        let received = a.agent.wait_for(2 * number + 2);
        for one in &received[2 * number..] {
            assert_eq!(one.header("callgate-client-address"), [client], "{forwarded}");
        }
    }
    assert!(b.agent.received().is_empty());
}

#[test]
fn the_response_of_the_owner_is_relayed_as_it_comes() {
    let [a, b] = members("");
    let (_, token) = a.mint("a");
    let answers: [(&[u8], Option<&str>); 5] = [
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n4\r\ndefg\r\n0\r\n\r\n", Some("abcdefg")),
        (b"HTTP/1.1 202 Accepted\r\ncallgate-replica: v1;moved;x;y\r\nx-own: kept\r\ncontent-length: 1\r\n\r\n1", Some("1")),
        (b"HTTP/1.1 422 No\r\ncontent-length: 2\r\n\r\nno", Some("no")),
        (b"HTTP/1.1 204 No Content\r\n\r\n", Some("")),
        // The response breaks off.
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\nzz\r\n", None),
    ];
    for (answer, body) in answers {
        a.agent.answers(answer);
        let heads = [&a, &b].map(|member| {
            let mut stream = TcpStream::connect(member.callgate.ingress).unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            write!(
                stream,
                "POST /jobs/a HTTP/1.1\r\nhost: h\r\nconnection: close\r\nauthorization: Bearer {token}\r\ncontent-length: 2\r\n\r\n{{}}"
            )
            .unwrap();
            let mut answer = String::new();
            let _ = stream.read_to_string(&mut answer);
            let mut lines: Vec<_> = answer.lines().filter(|line| !line.starts_with("date:")).collect();
            lines.sort_unstable();
            lines.join("\n")
        });
        assert_eq!(heads[0], heads[1]);
        assert!(!heads[1].contains("callgate-replica"), "{}", heads[1]);
        if let Some(body) = body {
            assert!(heads[1].contains(body), "{}", heads[1]);
        }
    }
}

#[test]
fn an_owner_that_answers_late_may_have_delivered_the_callback() {
    let [a, b] = members("  timeout: 500ms");
    let (_, token) = a.mint("a");
    let (listener, answered) =
        (TcpListener::bind("127.0.0.1:0").unwrap(), std::sync::atomic::AtomicBool::new(false));
    let slow = config(listener.local_addr().unwrap(), "127.0.0.1:0", &[], "  timeout: 500ms");
    a.callgate.reload(&slow).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let (mut stream, _) = listener.accept().unwrap();
            let mut bytes = Vec::new();
            let request = crate::harness::read_request(&mut stream, &mut bytes).unwrap();
            assert!(request.head.starts_with("POST /in/a"));
            while !answered.load(std::sync::atomic::Ordering::SeqCst) {
                std::thread::sleep(Duration::from_millis(5));
            }
            stream.write_all(ANSWER).unwrap();
            // Nothing more comes.
            assert!(crate::harness::read_request(&mut stream, &mut bytes).is_none());
        });
        let response = b.callback("a", &token, "{\"status\":\"done\"}");
        assert_eq!((response.status, response.header("retry-after")), (503, Some("5")));
        answered.store(true, std::sync::atomic::Ordering::SeqCst);
        // The interaction has ended with the first delivery, so that the retry is not delivered.
        eventually(|| (b.callback("a", &token, "{\"status\":\"done\"}").status == 410).then_some(()));
        drop(a);
    });
    assert!(b.agent.received().is_empty());
}
