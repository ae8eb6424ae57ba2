//! Request desync: whatever is sent, what the agent gets is what one strict reader reads, framed anew. Cases are
//! what smugglers and parsers' authors collected (`tests/corpora/desync`).

mod cases;
mod h2;
mod run;
mod strict;
mod verdict;

use std::collections::BTreeMap;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};

use callgate::clock::Clock;

use crate::harness::{Callgate, open_config};
use cases::Case;
use run::{ByteAgent, Delivered, Heard};
use strict::{End, read};
use verdict::{Verdict, dirt, verdict};

fn config(agent: SocketAddr) -> String {
    // The agent sees the path that was asked for, so that the same agent serves a gateway that changes nothing.
    let config = open_config(&agent.to_string()).replace("forward: /in/", "forward: /open/");
    let config = config.replace("limits: { ", "limits: { idle_timeout: 2s, head_deadline: 1s, ");
    // A route whose document is answered without a look at the body.
    let published = "callback_tokens: { ttl: 2h, keys: [ { id: k1, algorithm: HS256, secret: { env: TOKEN_KEY } } ] }
public_url: https://agent.example.com
providers: { p: { preset: mcp-events, secrets: derived, well_known: publish } }
routes:
  - { name: mcp, path: \"/mcp/{id}\", provider: p, token: { kind: callback, from: [query] }, forward: \"/mcp/{id}\" }
";
    let config = config.replace(
        "admin: { address: 127.0.0.1:0 }",
        "admin: { address: 127.0.0.1:0 }, egress: { address: 127.0.0.1:0, hosts: [h] }",
    );
    // The provider is the same agent, and sees the same path.
    let rule = format!(
        "egress:
  - {{ name: open, path: \"/open/{{id}}\", target: \"http://{agent}/open/{{id}}\", methods: [POST, GET, HEAD, PUT], body_max: 2MiB, timeouts: {{ connect: 1s, response: 1s }} }}
"
    );
    config.replace("routes:\n", published) + &rule
}

/// Every listener that speaks HTTP/1, and whether what it takes is delivered to the agent.
fn listeners(callgate: &Callgate) -> [(&'static str, SocketAddr, bool); 3] {
    [
        ("ingress", callgate.ingress, true),
        ("egress", callgate.egress.unwrap(), true),
        ("admin", callgate.admin.unwrap(), false),
    ]
}

#[test]
fn what_is_delivered_has_one_reading() {
    let cases = cases::all();
    assert!(cases.len() >= 2_400, "{} cases", cases.len());
    let agent = ByteAgent::start();
    let callgate = Callgate::start(&config(agent.address), Clock::System);
    for (name, address, delivers) in listeners(&callgate) {
        agent.forget();
        agent.passes_on(name == "egress");
        // The admin listener answers nothing before it has read the body: what waits for its answer waits in vain.
        // And the client takes the length of an answer to HEAD for a body that comes.
        let waits = |case: &Case| {
            let early = read(&case.bytes).end == End::Incomplete || case.bytes.starts_with(b"HEAD ");
            !case.later.is_empty() && early
        };
        let cases: Vec<_> = cases.iter().filter(|case| delivers || !waits(case)).collect();
        let began = callgate::clock::instant();
        let (heard, strays) = run::run(address, &agent, &cases);
        let took = began.elapsed();
        let mut counts = BTreeMap::<&str, usize>::new();
        let mut bad = Vec::new();
        for (case, heard) in cases.iter().copied().zip(&heard) {
            let reading = read(&case.stream());
            let verdict = verdict(&reading, heard);
            let class = verdict.class();
            *counts.entry(class).or_default() += 1;
            if !matches!(class, "accepted" | "refused" | "closed") {
                let sent = String::from_utf8_lossy(&case.bytes);
                bad.push(format!("{}\n  sent {sent:.300?}\n  {verdict:?}", case.name));
            }
        }
        println!("{name}: {} cases in {took:?}: {counts:?}", cases.len());
        assert!(bad.is_empty(), "{name}: {} cases, among them\n{}", bad.len(), bad.join("\n"));
        assert!(strays.is_empty(), "{name}: delivered without a case: {strays:?}");
        let accepted = counts.get("accepted").is_some_and(|count| *count > 100);
        assert!(accepted == delivers && counts["refused"] > 2_000, "{name}: {counts:?}");
    }
}

/// What is sound must go through, or the rest would prove nothing.
#[test]
fn what_has_one_reading_is_delivered() {
    let agent = ByteAgent::start();
    let callgate = Callgate::start(&config(agent.address), Clock::System);
    let cases = cases::all();
    let sound = [
        "ps:te:vanilla te alone",
        "ps:te:nospace1 te alone",
        "ps:te:multiCase te alone",
        "ps:te:vanilla kept te",
        "ps:te:contentEnc cl.te",
        "ps:cl:CL-pad cl",
        "trailers",
        "leading zeros of a chunk size",
        "length and a body beyond it",
        "llhttp:sample:Extended Characters routed",
    ];
    let cases: Vec<_> = cases.iter().filter(|case| sound.contains(&&*case.name)).collect();
    assert_eq!(cases.len(), sound.len());
    for (name, address, _) in listeners(&callgate).into_iter().filter(|(_, _, delivers)| *delivers) {
        agent.forget();
        agent.passes_on(name == "egress");
        let (heard, _) = run::run(address, &agent, &cases);
        for (case, heard) in cases.iter().zip(&heard) {
            assert_eq!(verdict(&read(&case.stream()), heard), Verdict::Accepted, "{name}: {}", case.name);
        }
    }
}

// === Whether a smuggler would be seen ===

/// A gateway that passes every byte on and reads none.
fn naive_gateway(agent: SocketAddr) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for mut caller in listener.incoming().map_while(Result::ok) {
            let mut upstream = TcpStream::connect(agent).unwrap();
            let (mut from, mut to) = (caller.try_clone().unwrap(), upstream.try_clone().unwrap());
            std::thread::spawn(move || {
                let _ = std::io::copy(&mut from, &mut to);
                let _ = to.shutdown(Shutdown::Write);
            });
            std::thread::spawn(move || {
                let _ = std::io::copy(&mut upstream, &mut caller);
                let _ = caller.shutdown(Shutdown::Write);
            });
        }
    });
    address
}

#[test]
fn a_gateway_that_reads_nothing_is_found_out() {
    let agent = ByteAgent::start();
    let gateway = naive_gateway(agent.address);
    let all = cases::all();
    let cases: Vec<_> = all.iter().filter(|case| case.name.starts_with("ps:te:")).step_by(5).collect();
    let (heard, _) = run::run(gateway, &agent, &cases);
    let mut counts = BTreeMap::<&str, usize>::new();
    for (case, heard) in cases.iter().zip(&heard) {
        *counts.entry(verdict(&read(&case.stream()), heard).class()).or_default() += 1;
    }
    println!("{} cases: {counts:?}", cases.len());
    assert!(counts["hard"] > 50 && counts["dirty"] > 50, "{counts:?}");
}

#[test]
fn the_verdict_knows_a_smuggled_request() {
    let stream =
        b"POST /open/x-a HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\nbodyGET /open/x-m HTTP/1.1\r\n\r\n";
    let reading = read(stream);
    let one = |target: &str, more: &str, body: &str| Delivered {
        head: format!("POST {target} HTTP/1.1\r\nhost: h\r\n{more}content-length: {}", body.len())
            .into_bytes(),
        body: body.as_bytes().to_vec(),
        passed_on: false,
        is_whole: true,
    };
    let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok".as_slice();
    let of = |delivered: Vec<Delivered>, answers: &[u8]| {
        verdict(&reading, &Heard { answers: answers.to_vec(), delivered, hangs: false }).class()
    };
    let sound = || one("/open/x-a", "", "body");
    assert_eq!(of(vec![sound()], answer), "accepted");
    assert_eq!(of(vec![], answer), "refused");
    assert_eq!(of(vec![], b""), "closed");
    assert_eq!(of(vec![sound(), one("/open/x-m", "", "")], answer), "hard");
    assert_eq!(of(vec![one("/open/x-m", "", ""), sound()], answer), "hard");
    assert_eq!(of(vec![sound(), sound()], answer), "hard", "delivered twice");
    assert_eq!(of(vec![one("/open/x-a", "", "bod")], answer), "hard", "its body cut short");
    assert_eq!(of(vec![one("/open/x-a", "transfer-encoding: chunked\r\n", "body")], answer), "dirty");
    assert_eq!(of(vec![one("/open/x-a", "content.length: 3\r\n", "body")], answer), "dirty");
    assert_eq!(of(vec![one("/open/x-a", "content-length: 4\r\n", "body")], answer), "dirty");
    assert_eq!(of(vec![one("/open/x-a", "x: a\0b\r\n", "body")], answer), "dirty");
    assert_eq!(of(vec![one("/open/x-a", "x: a\nb: c\r\n", "body")], answer), "dirty");
    assert_eq!(of(vec![sound()], &answer.repeat(3)), "hard", "more answers than requests");
    assert_eq!(of(vec![sound()], &[answer, b"x"].concat()), "hard", "no answer");
    let hangs = Heard { answers: answer.to_vec(), delivered: vec![sound()], hangs: true };
    assert_eq!(verdict(&reading, &hangs), Verdict::Stall);
    assert_eq!(dirt(&sound()), None);
    // The same for a body that is passed on while it arrives.
    let passed_on = |framing: &str, body: &str, is_whole| Delivered {
        head: format!("POST /open/x-a HTTP/1.1\r\nhost: h\r\n{framing}").into_bytes(),
        body: body.as_bytes().to_vec(),
        passed_on: true,
        is_whole,
    };
    let chunked = "transfer-encoding: chunked";
    assert_eq!(of(vec![passed_on(chunked, "body", true)], answer), "accepted");
    assert_eq!(of(vec![passed_on("content-length: 4", "body", true)], answer), "accepted");
    assert_eq!(of(vec![passed_on(chunked, "bod", true)], answer), "hard");
    let both = "content-length: 4\r\ntransfer-encoding: chunked";
    assert_eq!(of(vec![passed_on(both, "body", true)], answer), "dirty");
    assert_eq!(of(vec![passed_on("transfer-encoding: x", "body", true)], answer), "dirty");
    assert_eq!(of(vec![passed_on(chunked, "bod", false)], answer), "hard", "a part of a whole request");
    let broken = read(b"POST /open/x-a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbod");
    let of_broken = |delivered: Vec<Delivered>, answers: &[u8]| {
        verdict(&broken, &Heard { answers: answers.to_vec(), delivered, hangs: false }).class()
    };
    let refused = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n";
    assert_eq!(of_broken(vec![passed_on(chunked, "4\r\nbod", false)], refused), "refused");
    assert_eq!(of_broken(vec![passed_on(chunked, "4\r\nbod", false)], answer), "hard");
    assert_eq!(of_broken(vec![passed_on(chunked, "bod", true)], refused), "hard");
}

/// The reader against the verdicts of llhttp's authors: what they refuse it refuses, but for what is no matter of
/// framing; what they take it takes, but for what HTTP/1.1 has no room for.
#[test]
fn the_strict_reader_agrees_with_llhttp() {
    let no_framing = [
        "Data after `Connection: close`",
        "Expected space after method",
        "Invalid character in chunk extensions",
        "Invalid method for HTTP/x.x request",
        "Pause on CONNECT/Upgrade",
    ];
    let no_room = [
        "a request line that is not three words",
        "a target that is none",
        "another version",
        "not one host",
    ];
    let corpus = cases::corpus("llhttp.json");
    for item in corpus["items"].as_array().unwrap().iter().filter(|item| item["type"] == "request") {
        let raw = data_encoding::HEXLOWER.decode(item["raw_hex"].as_str().unwrap().as_bytes()).unwrap();
        // llhttp asks for no host.
        let end = read(&cases::hosted(&raw)).end;
        match (item["verdict"].as_str().unwrap(), &end) {
            ("error", End::Clean | End::Closed) => {
                assert!(no_framing.contains(&item["reason"].as_str().unwrap()), "{item}");
            }
            ("ok", End::Refused(why)) => assert!(no_room.contains(why), "{why}: {item}"),
            _ => {}
        }
    }
}
