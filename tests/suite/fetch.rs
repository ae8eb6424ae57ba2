//! Fetched documents: key sets, address lists, certificates, and secrets from handshakes. While a document is
//! unavailable, callbacks receive 503. The last good document stays in use, and a restart keeps it.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::AtomicI64;

use callgate::clock::Clock;
use callgate::time::Timestamp;
use data_encoding::{BASE64, BASE64URL_NOPAD, HEXLOWER};

use crate::egress::certificates;
use crate::harness::{ANSWER, Agent, Callgate, Response, eventually, open_config, send_to};
use crate::process::Process;

const NOW: i64 = 1_767_225_600;

fn document(text: &str) -> Vec<u8> {
    let head = format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}", text.len());
    format!("{head}\r\n\r\n{text}").into_bytes()
}

const NOT_NOW: &[u8] = b"HTTP/1.1 503 Not Now\r\ncontent-length: 0\r\n\r\n";

/// A key pair that another library created, and its key set.
struct Signer {
    folder: tempfile::TempDir,
    jwks: String,
}

impl Signer {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        openssl(folder.path(), "genpkey -algorithm ed25519 -out key.pem");
        openssl(folder.path(), "pkey -in key.pem -pubout -outform DER -out public.der");
        let der = std::fs::read(folder.path().join("public.der")).unwrap();
        let x = BASE64URL_NOPAD.encode(&der[der.len() - 32..]);
        let jwks = format!(r#"{{"keys":[{{"kty":"OKP","crv":"Ed25519","kid":"k1","x":"{x}"}}]}}"#);
        Self { folder, jwks }
    }

    fn sign(&self, content: &[u8]) -> Vec<u8> {
        std::fs::write(self.folder.path().join("content"), content).unwrap();
        openssl(self.folder.path(), "pkeyutl -sign -inkey key.pem -rawin -in content -out signature");
        std::fs::read(self.folder.path().join("signature")).unwrap()
    }
}

fn openssl(folder: &Path, args: &str) {
    let out = Command::new("openssl").current_dir(folder).args(args.split(' ')).output().unwrap();
    assert!(out.status.success(), "{args}: {}", String::from_utf8_lossy(&out.stderr));
}

/// Starts a second Callgate that terminates TLS for the server of the documents.
fn front(folder: &Path, behind: &Agent) -> Callgate {
    let file = |name: &str| folder.join(name).display().to_string();
    let (certificate, key) = (file("tls.crt"), file("tls.key"));
    let tls = format!("address: 127.0.0.1:0, tls: {{ certificate: {certificate}, key: {key} }} }} ]");
    let text = open_config(&behind.address.to_string()).replace("address: 127.0.0.1:0 } ]", &tls);
    Callgate::start(&text, Clock::System)
}

fn clock() -> Clock {
    Clock::Set(Arc::new(AtomicI64::new(Timestamp::from_unix_secs(NOW).unix_ms())))
}

fn config(agent: &Agent, provider: &str, more: &str) -> String {
    format!(
        "public_url: https://agent.example.com
listen: {{ ingress: [ {{ address: 127.0.0.1:0 }} ], admin: {{ address: 127.0.0.1:0 }} }}
agent: {{ address: \"{}\" }}
explain_denials: true
providers: {{ p: {{ {provider} }} }}
routes: [ {{ name: r, path: /hook, provider: p, forward: /in, duplicates: deliver }} ]
{more}
",
        agent.address
    )
}

/// Sends a callback as fal does.
fn send_as_fal(callgate: &Callgate, signer: &Signer) -> Response {
    let hash = "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a";
    let signature = HEXLOWER.encode(&signer.sign(format!("r1\nu1\n{NOW}\n{hash}").as_bytes()));
    let now = NOW.to_string();
    let headers = [
        ("x-fal-webhook-request-id", "r1"),
        ("x-fal-webhook-user-id", "u1"),
        ("x-fal-webhook-timestamp", now.as_str()),
        ("x-fal-webhook-signature", signature.as_str()),
    ];
    send_to(callgate.ingress, "POST", "/hook", &headers, b"{}")
}

/// Returns the status and the reason of a denial.
fn why(response: &Response) -> (u16, String) {
    let reason = if response.status < 400 {
        String::new()
    } else {
        response.json()["reason"].as_str().unwrap().to_owned()
    };
    (response.status, reason)
}

#[test]
fn keys_are_fetched_kept_and_let_go_of() {
    let (signer, agent, elsewhere) = (Signer::new(), Agent::start(ANSWER), Agent::start(NOT_NOW));
    let cache = tempfile::tempdir().unwrap();
    let fetch = |stale_ok: &str| {
        let cache = cache.path().display();
        format!("fetch: {{ every: 200ms, timeout: 2s, stale_ok: {stale_ok}, cache: {cache} }}")
    };
    let provider = format!("preset: fal, keys: {{ url: \"http://{}/jwks\" }}", elsewhere.address);
    let text = config(&agent, &provider, &fetch("1h"));
    let callgate = Callgate::start(&text, clock());
    elsewhere.wait_for(1);
    let waiting = send_as_fal(&callgate, &signer);
    assert_eq!((waiting.status, waiting.header("retry-after")), (503, Some("5")));
    assert_eq!(why(&waiting).1, "keys_unavailable");
    // A document that is not a key set has no effect.
    elsewhere.answers(&document("<html>"));
    elsewhere.wait_for(elsewhere.received().len() + 1);
    assert_eq!(send_as_fal(&callgate, &signer).status, 503);
    elsewhere.answers(&document(&signer.jwks));
    eventually(|| (send_as_fal(&callgate, &signer).status == 200).then_some(()));
    // The provider has removed the key from the key set.
    elsewhere.answers(&document(&Signer::new().jwks));
    eventually(|| (send_as_fal(&callgate, &signer).status == 401).then_some(()));
    elsewhere.answers(&document(&signer.jwks));
    eventually(|| (send_as_fal(&callgate, &signer).status == 200).then_some(()));
    let page = callgate.metrics();
    assert!(page.contains("callgate_feed_age_seconds{feed=\"http://"), "{page}");
    assert!(page.contains("outcome=\"failed\"} ") && page.contains("outcome=\"ok\"} "), "{page}");
    drop(callgate);
    // After a restart, the cached keys are available at once, even if the provider is down.
    elsewhere.answers(NOT_NOW);
    let again = Callgate::start(&text, clock());
    assert_eq!(send_as_fal(&again, &signer).status, 200);
    // A reload keeps the keys as well.
    again.reload(&text.replace("name: r,", "name: s,")).unwrap();
    assert_eq!(send_as_fal(&again, &signer).status, 200);
    drop(again);
    // Keys that are older than `stale_ok` are not used.
    let text = config(&agent, &provider, &fetch("1s"));
    let stale = Callgate::start(&text, clock());
    eventually(|| (send_as_fal(&stale, &signer).status == 503).then_some(()));
}

#[test]
fn readiness_can_wait_for_the_first_fetch() {
    let (signer, agent, elsewhere) = (Signer::new(), Agent::start(ANSWER), Agent::start(NOT_NOW));
    let lists = Agent::start(NOT_NOW);
    let allow = format!("allow: [ {{ url: \"http://{}/meta\", pointers: [/hooks] }} ]", lists.address);
    let keys = format!("preset: fal, keys: {{ url: \"http://{}/jwks\" }}", elsewhere.address);
    let fetch = |required: bool| format!("fetch: {{ every: 200ms, timeout: 2s, required: {required} }}");
    let text = config(&agent, &format!("{keys}, {allow}"), &fetch(true));
    let callgate = Callgate::start(&text, clock());
    let ready = callgate.admin_get("/readyz");
    assert_eq!(ready.status, 503);
    assert!(ready.text().contains("fetch.required"), "{}", ready.text());
    assert_eq!(callgate.admin_get("/livez").status, 200);
    elsewhere.answers(&document(&signer.jwks));
    eventually(|| callgate.metrics().contains("outcome=\"ok\"} 2").then_some(()));
    assert_eq!(callgate.admin_get("/readyz").status, 503, "the list is missing");
    lists.answers(&document(r#"{"hooks": ["127.0.0.0/8"]}"#));
    eventually(|| (callgate.admin_get("/readyz").status == 200).then_some(()));
    // A reload that needs another list does not make Callgate unready.
    lists.answers(NOT_NOW);
    callgate.reload(&text.replace("/meta", "/other")).unwrap();
    assert_eq!(callgate.admin_get("/readyz").status, 200);
    let patient = Callgate::start(&config(&agent, &format!("{keys}, {allow}"), &fetch(false)), clock());
    assert_eq!(patient.admin_get("/readyz").status, 200);
}

#[test]
fn keys_come_over_tls_that_is_verified_and_redirects_are_not_followed() {
    let folder = tempfile::tempdir().unwrap();
    certificates(folder.path());
    let (signer, agent, elsewhere) = (Signer::new(), Agent::start(ANSWER), Agent::start(NOT_NOW));
    elsewhere.answers(&document(&signer.jwks));
    let file = |name: &str| folder.path().join(name).display().to_string();
    let front = front(folder.path(), &elsewhere);
    let url = format!("https://localhost:{}/open/keys", front.ingress.port());
    let provider = format!("preset: fal, keys: {{ url: \"{url}\" }}");
    let more =
        |roots: &str| format!("trusted_roots: {}\nfetch: {{ every: 200ms, timeout: 2s }}", file(roots));
    openssl(
        folder.path(),
        "req -x509 -newkey rsa:2048 -nodes -days 1 -subj /CN=other -keyout o.key -out other.crt",
    );
    let distrusting = Callgate::start(&config(&agent, &provider, &more("other.crt")), clock());
    eventually(|| distrusting.metrics().contains("outcome=\"failed\"} 2").then_some(()));
    assert_eq!(send_as_fal(&distrusting, &signer).status, 503);
    assert!(elsewhere.received().is_empty());
    let trusting = Callgate::start(&config(&agent, &provider, &more("ca.crt")), clock());
    eventually(|| (send_as_fal(&trusting, &signer).status == 200).then_some(()));
    drop(trusting);
    let moved = format!(
        "HTTP/1.1 302 Moved\r\nlocation: http://{}/x\r\ncontent-length: 0\r\n\r\n",
        elsewhere.address
    );
    elsewhere.answers(moved.as_bytes());
    let seen = elsewhere.received().len();
    let led = Callgate::start(&config(&agent, &provider, &more("ca.crt")), clock());
    elsewhere.wait_for(seen + 2);
    assert!(elsewhere.received()[seen..].iter().all(|request| request.target() == "/in/keys"));
    assert_eq!(send_as_fal(&led, &signer).status, 503);
}

#[test]
fn published_addresses_follow_the_publisher() {
    let (agent, elsewhere) = (Agent::start(ANSWER), Agent::start(NOT_NOW));
    let cache = tempfile::tempdir().unwrap();
    let allow = format!("allow: [ {{ url: \"http://{}/meta\", pointers: [/hooks] }} ]", elsewhere.address);
    let provider = format!("preset: gitlab, secrets: [ {{ env: STATIC }} ], {allow}");
    let fetch = format!("fetch: {{ every: 200ms, cache: {} }}", cache.path().display());
    let text = config(&agent, &provider, &fetch);
    let callgate = Callgate::start(&text, clock());
    let send = |callgate: &Callgate| {
        send_to(callgate.ingress, "POST", "/hook", &[("x-gitlab-token", "a static secret")], b"{}").status
    };
    let waiting = send_to(callgate.ingress, "POST", "/hook", &[("x-gitlab-token", "a static secret")], b"{}");
    assert_eq!(why(&waiting), (503, "list_unavailable".to_owned()));
    elsewhere.answers(&document(r#"{"hooks": ["127.0.0.0/8"]}"#));
    eventually(|| (send(&callgate) == 200).then_some(()));
    // A list is not applied if it is malformed, empty, or contains all addresses.
    for bad in ["{", r#"{"hooks": []}"#, r#"{"hooks": ["0.0.0.0/0"]}"#, r#"{"web": ["10.0.0.0/8"]}"#] {
        elsewhere.answers(&document(bad));
        elsewhere.wait_for(elsewhere.received().len() + 2);
        assert_eq!(send(&callgate), 200, "{bad}");
    }
    elsewhere.answers(&document(r#"{"hooks": ["10.0.0.0/8"]}"#));
    eventually(|| (send(&callgate) == 403).then_some(()));
    drop(callgate);
    elsewhere.answers(NOT_NOW);
    let again = Callgate::start(&text, clock());
    assert_eq!(send(&again), 403);
}

/// Runs `callgate explain` on a request that comes from `peer`. Returns its text and its JSON.
fn explain(folder: &Path, config: &str, headers: &str, peer: &str) -> (String, serde_json::Value) {
    let (file, request) = (folder.join("callgate.yaml"), folder.join("request.http"));
    std::fs::write(&file, config).unwrap();
    let head = format!("POST /hook HTTP/1.1\r\nhost: h\r\n{headers}content-length: 2\r\n\r\n{{}}");
    std::fs::write(&request, head).unwrap();
    let run = |more: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_callgate"));
        command.arg("explain").arg("-c").arg(&file).arg("--request").arg(&request).args([
            "--peer",
            peer,
            "--at",
            "2026-01-01T00:00:00Z",
        ]);
        String::from_utf8(command.args(more).env("STATIC", "a static secret").output().unwrap().stdout)
            .unwrap()
    };
    let json = run(&["--json"]);
    (run(&[]), serde_json::from_str(&json).unwrap_or_else(|_| panic!("{json}")))
}

/// Returns the result of a check in the JSON of `explain`.
fn outcome<'j>(json: &'j serde_json::Value, check: &str) -> &'j str {
    let steps = json["trail"].as_array().unwrap();
    steps.iter().find(|step| step["check"] == check).unwrap()["outcome"].as_str().unwrap()
}

#[test]
fn what_was_never_fetched_is_reported_and_explain_does_not_judge_by_it() {
    let (agent, lists) = (Agent::start(ANSWER), Agent::start(NOT_NOW));
    let (folder, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let url = format!("http://{}/meta", lists.address);
    let gitlab = "preset: gitlab, secrets: [ { env: STATIC } ]";
    let fetch = format!("fetch: {{ every: 200ms, cache: {} }}", cache.path().display());
    let fal = format!("preset: fal, keys: {{ url: \"{url}\" }}");
    let text = config(
        &agent,
        &format!("{gitlab}, allow: [ {{ url: \"{url}?secret=s\", pointers: [/hooks] }} ]"),
        &fetch,
    );
    let token = "x-gitlab-token: a static secret\r\n";
    let signed = format!(
        "x-fal-webhook-request-id: r1\r\nx-fal-webhook-user-id: u1\r\nx-fal-webhook-timestamp: {NOW}\r\nx-fal-webhook-signature: {}\r\n",
        "00".repeat(64)
    );
    let keys = (config(&agent, &fal, &fetch), signed, "signature", "keys_unavailable");
    let list = (text.clone(), token.to_owned(), "address", "list_unavailable");
    for (text, headers, check, reason) in [list, keys] {
        let (said, json) = explain(folder.path(), &text, &headers, "127.0.0.1");
        assert!(said.contains("cannot be judged here") && said.contains(&url), "{said}");
        assert!(!said.contains("DENY") && !said.contains("secret=s"), "{said}");
        assert!(said.contains(&format!("no copy in `fetch.cache` ({})", cache.path().display())), "{said}");
        assert_eq!((&json["verdict"], &json["reason"]), (&"fail".into(), &reason.into()), "{json}");
        assert_eq!((outcome(&json, check), &json["not_fetched"]), ("unknown", &serde_json::json!([url])));
    }
    // The running Callgate that captured the request had the list.
    let captured = "callgate-captured: time=2026-01-01T00:00:00Z; peer=127.0.0.1; reason=token_missing\r\n";
    let checks = "callgate-captured-checks: address=pass\r\n";
    let (_, json) = explain(folder.path(), &text, &format!("{captured}{checks}"), "127.0.0.1");
    assert_eq!((outcome(&json, "address"), &json["not_fetched"]), ("pass", &serde_json::json!([])), "{json}");
    let (said, json) = explain(folder.path(), &text, captured, "127.0.0.1");
    assert_eq!(
        (outcome(&json, "address"), &json["not_fetched"]),
        ("unknown", &serde_json::json!([url])),
        "{said}"
    );

    let process = Process::start_with(tempfile::tempdir().unwrap(), &text, &[("STATIC", "a static secret")]);
    let admin = |path: &str| send_to(process.admin, "GET", path, &[], b"").text();
    eventually(|| {
        admin("/metrics").contains(&format!("callgate_feed_available{{feed=\"{url}\"}} 0")).then_some(())
    });
    assert!(admin("/readyz?verbose").contains(&format!("\"not_fetched\": [\n    \"{url}\"\n  ]")));
    lists.answers(&document(r#"{"hooks": ["192.0.2.0/24"]}"#));
    eventually(|| {
        admin("/metrics").contains(&format!("callgate_feed_available{{feed=\"{url}\"}} 1")).then_some(())
    });
    assert!(admin("/readyz?verbose").contains("\"not_fetched\": []"));
    // Now there is a copy.
    let (said, json) = explain(folder.path(), &text, token, "127.0.0.1");
    assert_eq!(
        (&json["reason"], outcome(&json, "address")),
        (&"address_not_allowed".into(), "deny"),
        "{said}"
    );
    assert_eq!(explain(folder.path(), &text, token, "192.0.2.1").1["verdict"], "allow");
}

/// Tests that key sets, address lists and certificates may begin with a byte order mark, fetched or in a file.
#[test]
fn a_fetched_document_may_begin_with_a_byte_order_mark() {
    let (signer, agent) = (Signer::new(), Agent::start(ANSWER));
    let (keys, lists) = (Agent::start(NOT_NOW), Agent::start(NOT_NOW));
    let list = r#"{"hooks": ["127.0.0.0/8"]}"#;
    keys.answers(&document(&format!("\u{feff}{}", signer.jwks)));
    lists.answers(&document(&format!("\u{feff}{list}")));
    let (key_file, list_file) = (signer.folder.path().join("jwks"), signer.folder.path().join("list"));
    std::fs::write(&key_file, format!("\u{feff}{}", signer.jwks)).unwrap();
    std::fs::write(&list_file, format!("\u{feff}{list}")).unwrap();
    for (keys, list) in [
        (format!("http://{}/jwks", keys.address), format!("http://{}/meta", lists.address)),
        (format!("file:{}", key_file.display()), format!("file:{}", list_file.display())),
    ] {
        let source =
            format!("keys: {{ url: \"{keys}\" }}, allow: [ {{ url: \"{list}\", pointers: [/hooks] }} ]");
        let text = config(&agent, &format!("preset: fal, {source}"), "fetch: { every: 200ms }");
        let callgate = Callgate::start(&text, clock());
        eventually(|| (send_as_fal(&callgate, &signer).status == 200).then_some(()));
    }
}

/// A reload keeps the fetched documents that the new configuration also uses. There is no cache that could have them.
#[test]
fn what_was_fetched_outlives_a_reload_without_a_cache() {
    let (signer, agent) = (Signer::new(), Agent::start(ANSWER));
    let (keys, lists) = (Agent::start(NOT_NOW), Agent::start(NOT_NOW));
    keys.answers(&document(&signer.jwks));
    lists.answers(&document(r#"{"hooks": ["127.0.0.0/8"]}"#));
    let allow = format!("allow: [ {{ url: \"http://{}/meta\", pointers: [/hooks] }} ]", lists.address);
    let source = format!("keys: {{ url: \"http://{}/jwks\" }}", keys.address);
    let text = config(&agent, &format!("preset: fal, {source}, {allow}"), "fetch: { every: 1h }");
    let callgate = Callgate::start(&text, clock());
    eventually(|| (send_as_fal(&callgate, &signer).status == 200).then_some(()));
    [&keys, &lists].iter().for_each(|host| host.answers(NOT_NOW));
    for renamed in ["name: s,", "name: t,"] {
        callgate.reload(&text.replace("name: r,", renamed)).unwrap();
        assert_eq!(why(&send_as_fal(&callgate, &signer)), (200, String::new()));
    }
    // The keys are those of their URL, and so is the list.
    callgate.reload(&text.replace("/jwks", "/other")).unwrap();
    assert_eq!(why(&send_as_fal(&callgate, &signer)), (503, "keys_unavailable".to_owned()));
    callgate.reload(&text.replace("/meta", "/other")).unwrap();
    assert_eq!(why(&send_as_fal(&callgate, &signer)).0, 503);
}

#[test]
fn an_edge_is_trusted_by_the_list_it_publishes() {
    let agent = Agent::start(ANSWER);
    let folder = tempfile::tempdir().unwrap();
    let list = folder.path().join("allowed");
    std::fs::write(&list, "# ours\n203.0.113.0/24\n").unwrap();
    let allow = format!("allow: [ {{ url: \"file:{}\" }} ]", list.display());
    let provider = format!("preset: gitlab, secrets: [ {{ env: STATIC }} ], {allow}");
    let edge = "client_address: { edge: cloudflare, trusted_proxies: [127.0.0.0/8] }\nfetch: { every: 200ms, timeout: 1s }";
    let callgate = Callgate::start(&config(&agent, &provider, edge), clock());
    let send = |address: &str| {
        let headers = [("x-gitlab-token", "a static secret"), ("cf-connecting-ip", address)];
        send_to(callgate.ingress, "POST", "/hook", &headers, b"{}").status
    };
    eventually(|| (send("203.0.113.9") == 200).then_some(()));
    assert_eq!(send("203.0.114.9"), 403);
}

#[test]
fn a_certificate_that_a_message_names_is_fetched_if_it_may_be_named() {
    let folder = tempfile::tempdir().unwrap();
    certificates(folder.path());
    let (agent, elsewhere) = (Agent::start(ANSWER), Agent::start(NOT_NOW));
    let file = |name: &str| folder.path().join(name).display().to_string();
    openssl(
        folder.path(),
        "req -x509 -newkey rsa:2048 -nodes -days 9999 -subj /CN=p -keyout p.key -out p.crt",
    );
    let pem = std::fs::read_to_string(folder.path().join("p.crt")).unwrap();
    elsewhere.answers(&document(&pem));
    let front = front(folder.path(), &elsewhere);
    let host = format!("localhost:{}", front.ingress.port());
    let provider = format!(
        "signature: {{ scheme: asymmetric, algorithm: rsa-pkcs1-sha256, header: x-sig, content: \"{{secret}}|{{body}}\", \
         encoding: base64, keys: {{ certificate: {{ header: x-cert, hosts: [\"{host}\"], path: /open/ }} }}, \
         secrets: [ {{ env: STATIC }} ] }}"
    );
    let more = format!("trusted_roots: {}\nfetch: {{ every: 200ms }}", file("ca.crt"));
    // The certificate becomes valid now, later than the fixed time of the other tests.
    let callgate = Callgate::start(&config(&agent, &provider, &more), Clock::System);
    std::fs::write(folder.path().join("content"), "a static secret|{}").unwrap();
    openssl(folder.path(), "dgst -sha256 -sign p.key -out signature content");
    let signature = BASE64.encode(&std::fs::read(folder.path().join("signature")).unwrap());
    let send = |url: &str, body: &[u8]| {
        why(&send_to(callgate.ingress, "POST", "/hook", &[("x-sig", &signature), ("x-cert", url)], body))
    };
    let url = format!("https://{host}/open/cert");
    assert_eq!(send(&url, b"{}"), (503, "keys_unavailable".to_owned()));
    eventually(|| (send(&url, b"{}").0 == 200).then_some(()));
    assert_eq!(send(&url, b"{ }").0, 401);
    let fetched = elsewhere.received().len();
    for bad in
        ["https://localhost/open/cert", "https://evil.example/open/cert", &format!("http://{host}/open/c")]
    {
        assert_eq!(send(bad, b"{}"), (401, "signature_key_unknown".to_owned()), "{bad}");
    }
    assert_eq!(elsewhere.received().len(), fetched);
}

#[test]
fn a_secret_that_is_handed_over_is_kept_and_only_the_first_time() {
    let agent = Agent::start(ANSWER);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("deep/asana");
    let provider =
        format!("preset: asana, registration: {{ file: {} }}, allow: [127.0.0.0/8]", path.display());
    let text = config(&agent, &provider, "");
    let callgate = Callgate::start(&text, clock());
    let signed = |callgate: &Callgate| {
        // HMAC-SHA256 of `{}` with the secret below.
        let signature = hmac(b"b537207f20cbfa02357cf448134da559", b"{}");
        send_to(callgate.ingress, "POST", "/hook", &[("x-hook-signature", &signature)], b"{}").status
    };
    let shake = |callgate: &Callgate, secret: &str| {
        send_to(callgate.ingress, "POST", "/hook", &[("x-hook-secret", secret)], b"{}")
    };
    assert_eq!(signed(&callgate), 503);
    let answer = shake(&callgate, "b537207f20cbfa02357cf448134da559");
    assert_eq!(
        (answer.status, answer.header("x-hook-secret")),
        (200, Some("b537207f20cbfa02357cf448134da559"))
    );
    assert_eq!(signed(&callgate), 200);
    assert_eq!(shake(&callgate, "another secret of somebody else's").status, 401);
    assert_eq!(signed(&callgate), 200);
    assert!(!callgate.log().iter().any(|line| line.to_string().contains("b537207f20cb")));
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&path).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    drop(callgate);
    let again = Callgate::start(&text, clock());
    assert_eq!(signed(&again), 200);
    assert_eq!(agent.received().len(), 3);
}

fn hmac(key: &[u8], message: &[u8]) -> String {
    use hmac::{Hmac, Mac};
    let mut mac = Hmac::<sha2::Sha256>::new_from_slice(key).unwrap();
    mac.update(message);
    HEXLOWER.encode(&mac.finalize().into_bytes())
}
