//! Several agents: each receives exactly its callbacks and notices, and a slow or dead agent does not affect the
//! others. TLS towards an agent, with client certificates and replaced files.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use callgate::clock::Clock;
use serde_json::{Value, json};

use crate::harness::{
    ANSWER, Agent, Callgate, PATIENCE, Received, Response, eventually, open_config, send_to,
};
use crate::process::{Process, binary};
use crate::tls::{authority, issued};

/// Returns a configuration with the agents `planner` and `worker`. The routes `plan` and `plan-too` belong to the first
/// agent, and the route `work` to the second.
fn config(planner: &str, worker: &str, more: &str) -> String {
    let timeouts = "timeouts: { connect: 1s, response: 20s }";
    format!(
        "public_url: https://agent.example.com
listen: {{ ingress: [ {{ address: 127.0.0.1:0 }} ], egress: {{ address: 127.0.0.1:0 }}, admin: {{ address: 127.0.0.1:0 }} }}
agents:
  planner: {{ address: \"{planner}\", {timeouts} }}
  worker: {{ address: \"{worker}\", {timeouts}, forwarded_headers: false }}
callback_tokens: {{ ttl: 2h, keys: [ {{ id: k1, algorithm: HS256, secret: {{ env: TOKEN_KEY }} }} ] }}
{more}
routes:
  - {{ name: plan, agent: planner, path: \"/plan/{{id}}\", open: true, forward: \"/in/plan/{{id}}\" }}
  - {{ name: work, agent: worker, path: \"/work/{{id}}\", open: true, forward: \"/in/work/{{id}}\" }}
  - name: plan-too
    agent: planner
    path: /plan-too/{{id}}
    token: {{ kind: callback }}
    forward: /in/plan-too/{{id}}
    interaction: {{ status: /status, done: [done], deadline: 1s, notify: \"/overdue/{{id}}\" }}
  - name: work-too
    agent: worker
    path: /work-too/{{id}}
    token: {{ kind: callback }}
    forward: /in/work-too/{{id}}
    interaction: {{ status: /status, done: [done], deadline: 1s, notify: \"/overdue/{{id}}\" }}
"
    )
}

fn post(callgate: &Callgate, path: &str) -> Response {
    send_to(callgate.ingress, "POST", path, &[("x-forwarded-for", "192.0.2.1")], b"{}")
}

fn targets(agent: &Agent) -> Vec<String> {
    agent.received().iter().map(|request| request.target().to_owned()).collect()
}

/// Returns the value of a counter of requests to an agent.
fn requests(callgate: &Callgate, agent: &str, result: &str) -> u64 {
    let series = format!("callgate_agent_requests_total{{agent=\"{agent}\",result=\"{result}\"}} ");
    let metrics = callgate.metrics();
    let line = metrics.lines().find_map(|line| line.strip_prefix(&series));
    line.unwrap_or_else(|| panic!("no {series} in {metrics}")).parse().unwrap()
}

/// An address at which nothing listens.
fn nowhere() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// An agent that accepts connections and never answers.
fn silent() -> (SocketAddr, std::sync::mpsc::Receiver<TcpStream>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (sender, accepted) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        listener
            .incoming()
            .map_while(Result::ok)
            .take_while(|stream| {
                let kept = stream.try_clone().unwrap();
                sender.send(kept).is_ok()
            })
            .for_each(drop);
    });
    (address, accepted)
}

#[test]
fn callbacks_that_the_agent_answers_with_an_error_are_counted_by_route() {
    let (planner, worker) = (Agent::start(ANSWER), Agent::start(ANSWER));
    let text = config(&planner.address.to_string(), &worker.address.to_string(), "");
    let callgate = Callgate::start(&text, Clock::System);
    let rejected = |route: &str, count: u64| {
        let line = format!("callgate_deliver_rejected_total{{route=\"{route}\"}} {count}\n");
        assert!(callgate.metrics().contains(&line), "{line}: {}", callgate.metrics());
    };
    rejected("plan", 0);
    for status in ["500 Internal Server Error", "404 Not Found"] {
        planner.answers(format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n").as_bytes());
        assert_eq!(post(&callgate, "/plan/1").status.to_string(), status[..3]);
    }
    planner.answers(b"HTTP/1.1 204 No Content\r\n\r\n");
    assert_eq!(post(&callgate, "/plan/1").status, 204);
    assert_eq!(post(&callgate, "/work/1").status, 200);
    rejected("plan", 2);
    rejected("work", 0);
}

#[test]
fn each_agent_receives_exactly_its_callbacks_and_notices() {
    let (planner, worker) = (Agent::start(ANSWER), Agent::start(ANSWER));
    let text = config(&planner.address.to_string(), &worker.address.to_string(), "");
    let now = Arc::new(AtomicI64::new(1_767_225_600_000));
    let callgate = Callgate::start(&text, Clock::Set(Arc::clone(&now)));
    for path in ["/plan/1", "/work/1", "/plan/2", "/work/2", "/work/3"] {
        assert_eq!(post(&callgate, path).status, 200, "{path}");
    }
    for route in ["plan-too", "work-too"] {
        let wanted = json!({ "route": route, "params": { "id": route } }).to_string();
        assert_eq!(callgate.admin_send("POST", "/callbacks", &wanted).status, 201);
    }
    now.fetch_add(2000, Ordering::SeqCst);
    // The deadlines pass, and each agent receives the notice of its own interaction.
    let (planned, worked) = (planner.wait_for(3), worker.wait_for(4));
    assert_eq!(targets(&planner), ["/in/plan/1", "/in/plan/2", "/overdue/plan-too"]);
    assert_eq!(targets(&worker), ["/in/work/1", "/in/work/2", "/in/work/3", "/overdue/work-too"]);
    let header = |request: &Received, name: &str| request.header(name).join(",");
    for request in &planned {
        assert_eq!(header(request, "x-forwarded-host"), "agent.example.com", "{}", request.head);
    }
    for request in &worked {
        assert_eq!(header(request, "x-forwarded-host"), "", "{}", request.head);
        assert_eq!(header(request, "host"), "agent.example.com", "{}", request.head);
    }
    for (agent, count) in [("worker", 4), ("planner", 3)] {
        eventually(|| (requests(&callgate, agent, "accepted") == count).then_some(()));
    }
    for line in callgate.logged(5) {
        let agent = if line["route"] == "plan" { "planner" } else { "worker" };
        assert_eq!(line["agent"], agent, "{line}");
    }
}

#[test]
fn an_agent_that_is_down_does_not_affect_the_other() {
    let worker = Agent::start(ANSWER);
    let text = config(&nowhere().to_string(), &worker.address.to_string(), "");
    let callgate = Callgate::start(&text, Clock::System);
    for i in 0..5 {
        assert_eq!(post(&callgate, &format!("/plan/{i}")).status, 503);
        assert_eq!(post(&callgate, &format!("/work/{i}")).status, 200);
    }
    assert_eq!(callgate.admin_get("/readyz").status, 200, "the other agent is still served");
    assert_eq!((requests(&callgate, "planner", "agent_unreachable"), worker.connections()), (5, 1));
    assert_eq!(
        (requests(&callgate, "worker", "accepted"), requests(&callgate, "planner", "accepted")),
        (5, 0)
    );
}

/// Sends a callback with a body of this size and does not wait for the response.
fn begin(callgate: &Callgate, path: &str, bytes: usize) -> TcpStream {
    let mut stream = callgate.connect();
    write!(stream, "POST {path} HTTP/1.1\r\nhost: h\r\ncontent-length: {bytes}\r\n\r\n").unwrap();
    stream.write_all(&vec![b'x'; bytes]).unwrap();
    stream
}

#[test]
fn bodies_for_a_slow_agent_leave_memory_for_the_other() {
    let (slow, accepted) = silent();
    let worker = Agent::start(ANSWER);
    // Each agent has 2 MiB.
    let limits = "limits: { body_memory_max: 4MiB }";
    let callgate =
        Callgate::start(&config(&slow.to_string(), &worker.address.to_string(), limits), Clock::System);
    let mut waiting = Vec::new();
    for i in 0..2 {
        let caller = begin(&callgate, &format!("/plan/{i}"), 1 << 20);
        waiting.push((caller, accepted.recv_timeout(PATIENCE).unwrap()));
    }
    let refused = Response::read(&mut begin(&callgate, "/plan/more", 1 << 20));
    assert_eq!((refused.status, refused.header("retry-after").is_some()), (503, true));
    for i in 0..3 {
        assert_eq!(Response::read(&mut begin(&callgate, &format!("/work/{i}"), 1 << 20)).status, 200);
    }
    for line in callgate.logged(4) {
        assert_eq!(line["reason"], if line["route"] == "plan" { "overloaded" } else { "ok" }, "{line}");
    }
    drop(waiting);
}

#[test]
fn requests_to_a_slow_agent_leave_connections_for_the_other() {
    let (slow, accepted) = silent();
    let worker = Agent::start(ANSWER);
    // Each agent has four requests.
    let limits = "limits: { connections_max: 8 }";
    let callgate =
        Callgate::start(&config(&slow.to_string(), &worker.address.to_string(), limits), Clock::System);
    let mut waiting = Vec::new();
    let mut held = Vec::new();
    for i in 0..4 {
        waiting.push(begin(&callgate, &format!("/plan/{i}"), 2));
        held.push(accepted.recv_timeout(PATIENCE).unwrap());
    }
    assert_eq!(Response::read(&mut begin(&callgate, "/plan/more", 2)).status, 503);
    assert_eq!(Response::read(&mut begin(&callgate, "/work/1", 2)).status, 200);
    // Requests that have ended free their places.
    for (mut to_agent, mut caller) in held.into_iter().zip(waiting) {
        to_agent.write_all(ANSWER).unwrap();
        assert_eq!(Response::read(&mut caller).status, 200);
    }
    let mut again = begin(&callgate, "/plan/again", 2);
    accepted.recv_timeout(PATIENCE).map_or_else(
        |_| panic!("nothing was delivered"),
        |mut stream| {
            let _ = stream.read(&mut [0; 1024]).unwrap();
            stream.write_all(ANSWER).unwrap();
        },
    );
    assert_eq!(Response::read(&mut again).status, 200);
}

#[test]
fn a_reload_moves_a_route_to_another_agent() {
    let (planner, worker) = (Agent::start(ANSWER), Agent::start(ANSWER));
    let before = config(&planner.address.to_string(), &worker.address.to_string(), "");
    let now = Arc::new(AtomicI64::new(1_767_225_600_000));
    let callgate = Callgate::start(&before, Clock::Set(Arc::clone(&now)));
    assert_eq!(post(&callgate, "/plan/1").status, 200);
    assert_eq!(post(&callgate, "/work/1").status, 200);
    // The notice of an interaction that began before the reload follows the route.
    let wanted = json!({ "route": "work-too", "params": { "id": "w" } }).to_string();
    assert_eq!(callgate.admin_send("POST", "/callbacks", &wanted).status, 201);
    let after = before
        .replace("agent: worker, path", "agent: planner, path")
        .replace("agent: worker\n", "agent: planner\n");
    let after = after.replace("name: plan, agent: planner", "name: plan, agent: worker");
    callgate.reload(&after).unwrap();
    assert_eq!(post(&callgate, "/work/2").status, 200);
    assert_eq!(post(&callgate, "/plan/2").status, 200);
    // The deadline passes.
    now.fetch_add(2000, Ordering::SeqCst);
    planner.wait_for(3);
    assert_eq!(targets(&planner), ["/in/plan/1", "/in/work/2", "/overdue/w"]);
    assert_eq!(targets(&worker), ["/in/work/1", "/in/plan/2"]);
    assert_eq!((planner.connections(), worker.connections()), (1, 1), "the agents keep their connections");
    // An agent that gets another address receives new connections. The other agent keeps its connection.
    let moved = Agent::start(ANSWER);
    callgate.reload(&after.replace(&worker.address.to_string(), &moved.address.to_string())).unwrap();
    assert_eq!(post(&callgate, "/plan/3").status, 200);
    assert_eq!(post(&callgate, "/work/3").status, 200);
    assert_eq!(targets(&moved), ["/in/plan/3"]);
    assert_eq!((planner.connections(), worker.received().len()), (1, 2));
}

#[test]
fn a_request_in_progress_keeps_its_agent_across_a_reload() {
    let (former, new, worker) = (Agent::start(ANSWER), Agent::start(ANSWER), Agent::start(ANSWER));
    let text = |planner: &Agent| config(&planner.address.to_string(), &worker.address.to_string(), "");
    let callgate = Callgate::start(&text(&former), Clock::System);
    let mut caller = callgate.connect();
    let head = "POST /plan/1 HTTP/1.1\r\nhost: h\r\nexpect: 100-continue\r\ncontent-length: 2\r\n\r\n";
    caller.write_all(head.as_bytes()).unwrap();
    let mut interim = [0; 25];
    caller.read_exact(&mut interim).unwrap();
    callgate.reload(&text(&new)).unwrap();
    caller.write_all(b"{}").unwrap();
    assert_eq!(Response::read(&mut caller).status, 200);
    assert_eq!(post(&callgate, "/plan/2").status, 200);
    assert_eq!(
        (targets(&former), targets(&new)),
        (vec!["/in/plan/1".to_owned()], vec!["/in/plan/2".to_owned()])
    );
}

// === TLS ===

/// An agent behind a TLS server that requires a client certificate of the authority `clients`. The server is another
/// Callgate.
struct TlsAgent {
    agent: Agent,
    front: Callgate,
}

impl TlsAgent {
    fn config(at: &Path, agent: &Agent, certificate: &str, clients: &str) -> String {
        let file = |name: String| at.join(name).display().to_string();
        let tls = format!(
            "address: 127.0.0.1:0, tls: {{ certificate: {}, key: {}, client_certificates: {{ authorities: {}, required: true }} }} }}",
            file(format!("{certificate}.crt")),
            file(format!("{certificate}.key")),
            file(format!("{clients}.crt")),
        );
        open_config(&agent.address.to_string())
            .replacen("address: 127.0.0.1:0 }", &tls, 1)
            .replace("    open: true\n", "    open: true\n    client_certificate: required\n")
            .replace("/open/{id}", "/in/{id}")
    }

    fn start(at: &Path, certificate: &str, clients: &str) -> Self {
        let agent = Agent::start(ANSWER);
        let front = Callgate::start(&Self::config(at, &agent, certificate, clients), Clock::System);
        Self { agent, front }
    }
}

/// Creates the authority `servers` with a certificate `server` for `agent.internal`, and the authority `clients` with
/// the client certificate `client`.
fn certificates(at: &Path) {
    authority(at, "servers");
    issued(at, "servers", "server", "DNS:agent.internal");
    authority(at, "clients");
    issued(at, "clients", "client", "DNS:callgate.internal");
}

/// Returns a configuration with one agent and these TLS settings.
fn tls_config(agent: SocketAddr, tls: &str) -> String {
    open_config(&agent.to_string()).replacen("timeouts:", &format!("tls: {tls}, timeouts:"), 1)
}

fn settings(at: &Path, authorities: &str, certificate: &str, name: &str) -> String {
    let file = |name: &str, end: &str| at.join(format!("{name}.{end}")).display().to_string();
    let certificate = match certificate {
        "" => String::new(),
        some => format!(", certificate: {}, key: {}", file(some, "crt"), file(some, "key")),
    };
    format!("{{ authorities: {}{certificate}, name: {name} }}", file(authorities, "crt"))
}

#[test]
fn the_agent_and_callgate_verify_each_other() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    certificates(at);
    issued(at, "servers", "stranger", "DNS:callgate.internal");
    let tls_agent = TlsAgent::start(at, "server", "clients");
    let address = tls_agent.front.ingress;
    let callgate = Callgate::start(
        &tls_config(address, &settings(at, "servers", "client", "agent.internal")),
        Clock::System,
    );
    for i in 0..3 {
        assert_eq!(post(&callgate, &format!("/open/{i}")).text(), "hello");
    }
    assert_eq!(targets(&tls_agent.agent), ["/in/0", "/in/1", "/in/2"]);
    let metrics = callgate.metrics();
    let file = at.join("client.crt").display().to_string();
    let expiry = format!("callgate_certificate_expiry_timestamp_seconds{{certificate=\"{file}\"}}");
    assert!(metrics.contains(&expiry), "{metrics}");
    // The certificate of the agent is of another authority, or for another name. Nothing is sent.
    for (authorities, name) in
        [("clients", "agent.internal"), ("servers", "other.internal"), ("servers", "127.0.0.1")]
    {
        let text = tls_config(address, &settings(at, authorities, "client", name));
        let callgate = Callgate::start(&text, Clock::System);
        assert_eq!(post(&callgate, "/open/x").status, 503, "{authorities} {name}");
        assert_eq!(callgate.log()[0]["reason"], "agent_unreachable");
    }
    // The default is the platform's authorities, which do not know this agent.
    let text = tls_config(address, "{ name: agent.internal }");
    assert_eq!(post(&Callgate::start(&text, Clock::System), "/open/x").status, 503);
    // Without a certificate, or with one of another authority, the agent denies the connection.
    for certificate in ["", "stranger"] {
        let text = tls_config(address, &settings(at, "servers", certificate, "agent.internal"));
        let status = post(&Callgate::start(&text, Clock::System), "/open/x").status;
        assert!([502, 503].contains(&status), "{certificate:?}: {status}");
    }
    assert_eq!(tls_agent.agent.received().len(), 3);
    // An agent without TLS receives nothing either.
    let plain = Agent::start(ANSWER);
    let text = tls_config(plain.address, &settings(at, "servers", "client", "agent.internal"));
    let callgate = Callgate::start(&text, Clock::System);
    assert_eq!(post(&callgate, "/open/x").status, 503);
}

#[test]
fn the_name_of_the_certificate_is_the_host_of_the_address() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    certificates(at);
    issued(at, "servers", "local", "DNS:localhost");
    let tls_agent = TlsAgent::start(at, "local", "clients");
    let port = tls_agent.front.ingress.port();
    let tls = settings(at, "servers", "client", "x").replace(", name: x", "");
    for (host, status) in [("localhost", 200), ("127.0.0.1", 503)] {
        let text = tls_config(SocketAddr::from(([127, 0, 0, 1], port)), &tls).replacen(
            &format!("127.0.0.1:{port}"),
            &format!("{host}:{port}"),
            1,
        );
        assert_eq!(post(&Callgate::start(&text, Clock::System), "/open/x").status, status, "{host}");
    }
}

#[test]
fn replaced_certificate_files_are_used_without_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path().to_owned();
    certificates(&at);
    let tls_agent = TlsAgent::start(&at, "server", "clients");
    let files = settings(&at, "servers", "client", "agent.internal");
    let process = Process::start_in(folder, &tls_config(tls_agent.front.ingress, &files));
    let deliver = || send_to(process.ingress[0], "POST", "/open/x", &[], b"{}").status;
    assert_eq!(deliver(), 200);
    // The agent now trusts another authority only, and has a certificate of another authority.
    for name in ["servers", "clients"] {
        authority(&at, &format!("{name}-2"));
    }
    issued(&at, "servers-2", "server-2", "DNS:agent.internal");
    issued(&at, "clients-2", "client-2", "DNS:callgate.internal");
    let after = TlsAgent::config(&at, &tls_agent.agent, "server-2", "clients-2");
    tls_agent.front.reload(&after).unwrap();
    let generation =
        || send_to(process.admin, "GET", "/readyz?verbose", &[], b"").json()["config"]["generation"].clone();
    let before = generation();
    for (new, old) in
        [("servers-2.crt", "servers.crt"), ("client-2.key", "client.key"), ("client-2.crt", "client.crt")]
    {
        fs::copy(at.join(new), at.join(old)).unwrap();
    }
    eventually(|| (generation() != before).then_some(()));
    assert_eq!(deliver(), 200);
    // A key that does not go with the certificate is not applied. The last good configuration stays in use.
    fs::copy(at.join("servers.key"), at.join("client.key")).unwrap();
    let refused =
        || send_to(process.admin, "GET", "/readyz?verbose", &[], b"").json()["config"]["refused"].clone();
    let errors = eventually(|| refused().is_object().then(refused))["errors"].to_string();
    assert!(errors.contains("client.key does not go with"), "{errors}");
    assert_eq!(deliver(), 200);
}

// === The command line ===

#[test]
fn commands_name_the_agents() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    certificates(at);
    let run = |args: &[&str]| {
        let out = Command::new(binary())
            .args(args)
            .env("TOKEN_KEY", "the key of callback tokens")
            .output()
            .unwrap();
        (out.status.code().unwrap(), String::from_utf8([out.stdout, out.stderr].concat()).unwrap())
    };
    let path = at.join("callgate.yaml");
    let file = path.to_str().unwrap();
    let tls = settings(at, "servers", "client", "worker.internal");
    let text = config("unix:/run/planner", "127.0.0.1:1", "")
        .replace(", forwarded_headers", &format!(", tls: {tls}, forwarded_headers"));
    fs::write(&path, &text).unwrap();
    let (code, printed) = run(&["check", "-c", file, "--print", "--json"]);
    let shown: Value = serde_json::from_str(&printed).unwrap_or_else(|_| panic!("{code} {printed}"));
    let policy = &shown["policy"];
    assert_eq!(policy["agents"]["planner"]["address"], "unix:/run/planner");
    assert_eq!(policy["agents"]["worker"]["tls"]["name"], "worker.internal");
    assert_eq!(policy["routes"][1]["agent"], "worker");
    assert!(policy["agent"].is_null() && !printed.contains("PRIVATE KEY"), "{printed}");
    // The files are read below `--root`.
    let elsewhere = text.replace(&at.display().to_string(), "/nonexistent");
    fs::create_dir(at.join("nonexistent")).unwrap();
    for name in ["servers.crt", "client.crt", "client.key"] {
        fs::copy(at.join(name), at.join("nonexistent").join(name)).unwrap();
    }
    fs::write(&path, elsewhere).unwrap();
    assert_eq!(run(&["check", "-c", file]).0, 64);
    assert_eq!(run(&["check", "-c", file, "--root", at.to_str().unwrap()]).0, 0);
    // A key that does not go with the certificate.
    fs::write(&path, text.replace("client.key", "servers.key")).unwrap();
    let (code, printed) = run(&["check", "-c", file]);
    assert!(
        code == 64
            && printed.contains("line ")
            && printed.contains("agents.worker.tls: agent worker: ")
            && printed.contains("hint: ")
            && printed.contains("does not go with"),
        "{printed}"
    );
    let (code, printed) = run(&["run", "-c", file]);
    assert!(code == 64 && printed.contains("does not go with"), "{printed}");
    fs::write(&path, &text).unwrap();
    let request = at.join("request.http");
    fs::write(&request, "POST /work/1 HTTP/1.1\nHost: h\nContent-Length: 2\n\n{}").unwrap();
    let (code, printed) = run(&["explain", "-c", file, "--request", request.to_str().unwrap()]);
    assert!(code == 0 && printed.contains("forwarded to /in/work/1 of the agent worker"), "{printed}");
}

#[test]
fn an_agent_is_no_action_endpoint() {
    let (planner, worker) = (Agent::start(ANSWER), Agent::start(ANSWER));
    let text = config(&planner.address.to_string(), &worker.address.to_string(), "").replace(
        "forward: /in/plan-too/{id}\n",
        "forward: /in/plan-too/{id}\n    actions: { pointer: /answer_at, hosts: [127.0.0.1] }\n",
    );
    let callgate = Callgate::start(&text, Clock::System);
    let wanted = json!({ "route": "plan-too", "params": { "id": "q" } }).to_string();
    let minted = callgate.admin_send("POST", "/callbacks", &wanted).json();
    let bearer = format!("Bearer {}", minted["callback_token"].as_str().unwrap());
    let question = json!({ "answer_at": format!("http://{}/in/work/1", worker.address) }).to_string();
    let asked =
        send_to(callgate.ingress, "POST", "/plan-too/q", &[("authorization", &bearer)], question.as_bytes());
    assert_eq!(asked.status, 200, "{}", asked.text());
    let interaction = minted["interaction"].as_str().unwrap();
    let answered = callgate.agent_sends(&format!("/actions/{interaction}"), "{}");
    assert_eq!(answered.status, 403, "{}", answered.text());
    assert!(worker.received().is_empty());
    let metrics = callgate.metrics();
    assert!(metrics.contains("callgate_guard_refusals_total{class=\"own_address\"} 1\n"), "{metrics}");
}
