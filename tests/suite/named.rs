//! Certificates whose URL is in the message. Anybody can send a URL that does not exist, and this must not delay
//! genuine messages. Fetched certificates survive restarts and reloads as long as messages may name them.

use std::io::{Read, Write};
use std::net::{IpAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use callgate::clock::Clock;
use callgate::request::RequestHead;
use callgate::signature::{KeySet, Keyring, SignatureContext};
use data_encoding::{BASE64, HEXLOWER};
use sha2::{Digest, Sha256};

use crate::egress::certificates;
use crate::harness::{ANSWER, Agent, Callgate, Response, eventually, open_config, parse, read_request};

/// The behavior of the provider's host when a certificate does not exist: it answers 404, or never answers.
#[derive(Clone, Copy, Debug)]
enum Nothing {
    AtOnce,
    Never,
}

/// The provider's host. It has every certificate whose name contains `real`, and records the requests.
struct Host {
    front: Callgate,
    folder: tempfile::TempDir,
    asked: Arc<Mutex<Vec<String>>>,
    down: Arc<AtomicBool>,
}

impl Host {
    fn start(nothing: Nothing) -> Self {
        let folder = tempfile::tempdir().unwrap();
        certificates(folder.path());
        let make = "req -x509 -newkey rsa:2048 -nodes -days 9999 -subj /CN=p -keyout p.key -out p.crt";
        openssl(folder.path(), make);
        std::fs::write(folder.path().join("content"), "{}").unwrap();
        openssl(folder.path(), "dgst -sha256 -sign p.key -out signature content");
        let pem = std::fs::read_to_string(folder.path().join("p.crt")).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (asked, down) = (Arc::<Mutex<Vec<String>>>::default(), Arc::<AtomicBool>::default());
        let (asks, is_down) = (Arc::clone(&asked), Arc::clone(&down));
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (asks, is_down, pem) = (Arc::clone(&asks), Arc::clone(&is_down), pem.clone());
                std::thread::spawn(move || serve(stream, nothing, &pem, &asks, &is_down));
            }
        });
        let file = |name: &str| folder.path().join(name).display().to_string();
        let tls = format!("tls: {{ certificate: {}, key: {} }}", file("tls.crt"), file("tls.key"));
        let text = open_config(&address)
            .replace("address: 127.0.0.1:0 } ]", &format!("address: 127.0.0.1:0, {tls} }} ]"))
            .replace("response: 1s", "response: 1h");
        Self { front: Callgate::start(&text, Clock::System), folder, asked, down }
    }

    fn url(&self, name: &str) -> String {
        format!("https://localhost:{}/open/{name}", self.front.ingress.port())
    }

    /// Returns a provider whose messages may name certificates below `path`.
    fn provider(&self, path: &str) -> String {
        let host = format!("localhost:{}", self.front.ingress.port());
        format!(
            "{{ signature: {{ scheme: asymmetric, algorithm: rsa-pkcs1-sha256, header: x-sig, content: \"{{body}}\", \
             encoding: base64, keys: {{ certificate: {{ header: x-cert, hosts: [\"{host}\"], path: {path} }} }}, \
             secrets: [ {{ env: STATIC }} ] }} }}"
        )
    }

    /// Returns a configuration with the routes `/p` and `/q`, each with its own provider.
    fn config(&self, agent: &Agent, paths: [&str; 2], fetch: &str) -> String {
        format!(
            "listen: {{ ingress: [ {{ address: 127.0.0.1:0 }} ], admin: {{ address: 127.0.0.1:0 }} }}
agent: {{ address: \"{}\" }}
explain_denials: true
trusted_roots: {}
fetch: {{ every: 1h{fetch} }}
providers: {{ p: {}, q: {} }}
routes:
  - {{ name: p, path: /p, provider: p, forward: /in, duplicates: deliver }}
  - {{ name: q, path: /q, provider: q, forward: /in, duplicates: deliver }}
",
            agent.address,
            self.folder.path().join("ca.crt").display(),
            self.provider(paths[0]),
            self.provider(paths[1]),
        )
    }

    /// Returns a genuine callback that names this certificate.
    fn callback(&self, path: &str, name: &str) -> String {
        let signature = BASE64.encode(&std::fs::read(self.folder.path().join("signature")).unwrap());
        request(path, &signature, &self.url(name))
    }

    /// Returns a forged callback that names this certificate.
    fn made_up(&self, path: &str, name: &str) -> String {
        request(path, "AQI=", &self.url(name))
    }

    fn asked_for(&self, name: &str) -> usize {
        self.asked.lock().unwrap().iter().filter(|path| path.ends_with(name)).count()
    }
}

fn openssl(folder: &Path, args: &str) {
    let out = Command::new("openssl").current_dir(folder).args(args.split(' ')).output().unwrap();
    assert!(out.status.success(), "{args}: {}", String::from_utf8_lossy(&out.stderr));
}

fn request(path: &str, signature: &str, url: &str) -> String {
    format!(
        "POST {path} HTTP/1.1\r\nhost: h\r\nx-sig: {signature}\r\nx-cert: {url}\r\ncontent-length: 2\r\n\r\n{{}}"
    )
}

/// Serves one connection of the provider's host.
fn serve(
    mut stream: TcpStream,
    nothing: Nothing,
    pem: &str,
    asked: &Mutex<Vec<String>>,
    down: &AtomicBool,
) -> Option<()> {
    let mut bytes = Vec::new();
    loop {
        let path = read_request(&mut stream, &mut bytes)?.target().to_owned();
        let exists = path.contains("real") && !down.load(Ordering::SeqCst);
        asked.lock().unwrap().push(path);
        let answer = match (exists, nothing) {
            (true, _) => format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{pem}", pem.len()),
            (false, Nothing::AtOnce) => "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n".to_owned(),
            // Waits until the client closes the connection.
            (false, Nothing::Never) => return stream.read(&mut [0]).ok().map(|_| ()),
        };
        stream.write_all(answer.as_bytes()).ok()?;
    }
}

fn ask(stream: &mut TcpStream, request: &str) -> u16 {
    stream.write_all(request.as_bytes()).unwrap();
    Response::read(stream).status
}

fn from(callgate: &Callgate, peer: [u8; 4], request: &str) -> u16 {
    ask(&mut callgate.connect_from(IpAddr::from(peer)), request)
}

/// Returns the number of certificate fetches with this outcome.
fn fetched(callgate: &Callgate, outcome: &str) -> u32 {
    let series = format!("callgate_feed_fetches_total{{feed=\"certificate\",outcome=\"{outcome}\"}} ");
    let page = callgate.metrics();
    page.lines().find_map(|line| line.strip_prefix(&series)).map_or(0, |count| count.parse().unwrap())
}

/// A flood of messages that name certificates which do not exist, each name `times` times. It runs at full speed until
/// it is dropped.
struct Flood {
    over: Arc<AtomicBool>,
    threads: Vec<std::thread::JoinHandle<()>>,
    sent: Arc<AtomicU32>,
}

impl Flood {
    fn begin(callgate: &Callgate, host: &Host, path: &str, times: u32, peers: &[[u8; 4]]) -> Self {
        static FLOODS: AtomicU32 = AtomicU32::new(0);
        let flood = FLOODS.fetch_add(1, Ordering::Relaxed);
        let (over, sent) = (Arc::<AtomicBool>::default(), Arc::<AtomicU32>::default());
        let begin = |peer: &[u8; 4]| {
            let mut stream = callgate.connect_from(IpAddr::from(*peer));
            let (over, sent) = (Arc::clone(&over), Arc::clone(&sent));
            let (before, after) = {
                let request = host.made_up(path, "NAME");
                let (before, after) = request.split_once("NAME").unwrap();
                (before.to_owned(), after.to_owned())
            };
            std::thread::spawn(move || {
                while !over.load(Ordering::Relaxed) {
                    let name = sent.fetch_add(1, Ordering::Relaxed) / times;
                    // The next message is sent after the response to this one was read.
                    assert_eq!(ask(&mut stream, &format!("{before}none-{flood}-{name}{after}")), 503);
                }
            })
        };
        let threads = peers.iter().map(begin).collect();
        Self { over, threads, sent }
    }

    /// Waits until the flood has filled the queue.
    fn wait(&self) {
        let seen = self.sent.load(Ordering::Relaxed);
        eventually(|| (self.sent.load(Ordering::Relaxed) > seen + 500).then_some(()));
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        self.threads.drain(..).for_each(|thread| thread.join().unwrap());
    }
}

/// Verifies that a genuine callback is accepted during a flood. The provider sends it twice, and then its certificate
/// is fetched.
fn is_accepted(callgate: &Callgate, host: &Host, flood: &Flood, peer: [u8; 4], name: &str) {
    let (callback, before) = (host.callback("/p", name), fetched(callgate, "ok"));
    flood.wait();
    assert_eq!(from(callgate, peer, &callback), 503);
    flood.wait();
    from(callgate, peer, &callback);
    eventually(|| (fetched(callgate, "ok") > before).then_some(()));
    flood.wait();
    assert_eq!(from(callgate, peer, &callback), 200, "{name}");
    assert_eq!(host.asked_for(name), 1);
}

#[test]
fn made_up_names_do_not_keep_a_certificate_from_being_fetched() {
    let agent = Agent::start(ANSWER);
    for nothing in [Nothing::AtOnce, Nothing::Never] {
        let host = Host::start(nothing);
        let callgate =
            Callgate::start(&host.config(&agent, ["/open/", "/open/"], ", timeout: 5s"), Clock::System);
        // The flood comes from one connection, and from many. The provider calls from the same address, and from
        // another one.
        let one: &[[u8; 4]] = &[[127, 0, 0, 1]];
        let many: Vec<_> = (1..=6).map(|i| [127, 0, i, 1]).collect();
        for (i, peers) in [one, &many].into_iter().enumerate() {
            let flood = Flood::begin(&callgate, &host, "/p", 1, peers);
            is_accepted(&callgate, &host, &flood, [127, 0, 0, 1], &format!("real-{i}-same"));
            is_accepted(&callgate, &host, &flood, [127, 0, 99, 1], &format!("real-{i}-other"));
        }
        // The flood repeats each name.
        let flood = Flood::begin(&callgate, &host, "/p", 5, one);
        is_accepted(&callgate, &host, &flood, [127, 0, 99, 1], "real-again");
    }
}

#[test]
fn a_fetch_that_failed_once_is_retried_during_a_flood() {
    let (agent, host) = (Agent::start(ANSWER), Host::start(Nothing::AtOnce));
    let callgate = Callgate::start(&host.config(&agent, ["/open/", "/open/"], ""), Clock::System);
    let callback = host.callback("/p", "real");
    host.down.store(true, Ordering::SeqCst);
    assert_eq!(from(&callgate, [127, 0, 99, 1], &callback), 503);
    assert_eq!(from(&callgate, [127, 0, 99, 1], &callback), 503);
    eventually(|| (fetched(&callgate, "failed") == 1).then_some(()));
    host.down.store(false, Ordering::SeqCst);
    let flood = Flood::begin(&callgate, &host, "/p", 1, &[[127, 0, 0, 1], [127, 0, 1, 1]]);
    // The provider sends no further message. The flood never leaves the queue empty.
    eventually(|| (fetched(&callgate, "ok") == 1).then_some(()));
    flood.wait();
    assert_eq!(from(&callgate, [127, 0, 99, 1], &callback), 200);
}

#[test]
fn one_providers_flood_takes_no_room_of_another() {
    let (agent, host) = (Agent::start(ANSWER), Host::start(Nothing::Never));
    let callgate = Callgate::start(&host.config(&agent, ["/open/n", "/open/"], ""), Clock::System);
    let peers: Vec<_> = (1..=6).map(|i| [127, 0, i, 1]).collect();
    let flood = Flood::begin(&callgate, &host, "/p", 3, &peers);
    flood.wait();
    let callback = host.callback("/q", "real");
    assert_eq!(from(&callgate, [127, 0, 0, 1], &callback), 503);
    eventually(|| (fetched(&callgate, "ok") == 1).then_some(()));
    assert_eq!(from(&callgate, [127, 0, 0, 1], &callback), 200);
}

#[test]
fn the_providers_host_is_asked_at_a_bounded_rate() {
    let (agent, host) = (Agent::start(ANSWER), Host::start(Nothing::AtOnce));
    let callgate = Callgate::start(&host.config(&agent, ["/open/", "/open/"], ""), Clock::System);
    let began = callgate::clock::instant();
    let flood = Flood::begin(&callgate, &host, "/p", 2, &[[127, 0, 0, 1], [127, 0, 1, 1]]);
    eventually(|| (fetched(&callgate, "failed") >= 10).then_some(()));
    drop(flood);
    // At most eight fetches at once, and then two per second.
    let most = 9 + 2 * usize::try_from(began.elapsed().as_secs() + 1).unwrap();
    assert!(host.asked.lock().unwrap().len() <= most, "{:?}", host.asked.lock().unwrap());
}

/// Returns the files of the cached certificates.
fn kept(cache: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(cache.join("certificates")) else { return Vec::new() };
    entries.map(|entry| entry.unwrap().path()).collect()
}

/// Sends a callback until its certificate is fetched.
fn bring(callgate: &Callgate, host: &Host, path: &str, name: &str) {
    let callback = host.callback(path, name);
    eventually(|| (from(callgate, [127, 0, 0, 1], &callback) == 200).then_some(()));
}

#[test]
fn a_certificate_that_was_fetched_outlives_a_restart() {
    let (agent, host) = (Agent::start(ANSWER), Host::start(Nothing::AtOnce));
    let cache = tempfile::tempdir().unwrap();
    let fetch = format!(", stale_ok: 24h, cache: {}", cache.path().display());
    let text = host.config(&agent, ["/open/real-p", "/open/real-q"], &fetch);
    let callgate = Callgate::start(&text, Clock::System);
    bring(&callgate, &host, "/p", "real-p1");
    bring(&callgate, &host, "/q", "real-q1");
    drop(callgate);
    host.down.store(true, Ordering::SeqCst);
    let send = |callgate: &Callgate, path: &str, name: &str| {
        from(callgate, [127, 0, 0, 1], &host.callback(path, name))
    };
    // A cache file for a URL that no message may name, and an incomplete file.
    let evil = "https://localhost/open/real-p1";
    let of = HEXLOWER.encode(&Sha256::digest(evil));
    let pem = std::fs::read_to_string(host.folder.path().join("p.crt")).unwrap();
    std::fs::write(cache.path().join("certificates").join(&of[..32]), format!("{evil}\n{pem}")).unwrap();
    std::fs::write(cache.path().join("certificates").join(format!("{}.new", &of[..32])), "").unwrap();
    let again = Callgate::start(&text, Clock::System);
    assert_eq!((send(&again, "/p", "real-p1"), send(&again, "/q", "real-q1")), (200, 200));
    assert_eq!(send(&again, "/p", "real-p2"), 503);
    assert_eq!(kept(cache.path()).len(), 2);
    drop(again);
    // A certificate that is too old is not used.
    let written = std::fs::metadata(&kept(cache.path())[0]).unwrap().modified().unwrap();
    let of = HEXLOWER.encode(&Sha256::digest(host.url("real-q1")));
    let old = std::fs::File::options().write(true).open(cache.path().join("certificates").join(&of[..32]));
    old.unwrap().set_modified(written - Duration::from_secs(25 * 3600)).unwrap();
    let stale = Callgate::start(&text, Clock::System);
    assert_eq!((send(&stale, "/p", "real-p1"), send(&stale, "/q", "real-q1")), (200, 503));
    assert_eq!(kept(cache.path()).len(), 1);
    drop(stale);
    // A certificate that the current configuration does not allow is removed.
    let other = host.config(&agent, ["/open/real-q", "/open/real-q"], &fetch);
    drop(Callgate::start(&other, Clock::System));
    assert!(kept(cache.path()).is_empty());
    let back = Callgate::start(&text, Clock::System);
    assert_eq!(send(&back, "/p", "real-p1"), 503);
}

#[test]
fn a_certificate_that_was_fetched_outlives_a_reload_that_still_allows_it() {
    let cache = tempfile::tempdir().unwrap();
    // Without a cache, the certificates are in memory only.
    for cached in [true, false] {
        let (agent, host) = (Agent::start(ANSWER), Host::start(Nothing::AtOnce));
        let fetch = if cached { format!(", cache: {}", cache.path().display()) } else { String::new() };
        let both = host.config(&agent, ["/open/real-p", "/open/real-q"], &fetch);
        let callgate = Callgate::start(&both, Clock::System);
        bring(&callgate, &host, "/p", "real-p1");
        bring(&callgate, &host, "/q", "real-q1");
        host.down.store(true, Ordering::SeqCst);
        let send = |path: &str, name: &str| from(&callgate, [127, 0, 0, 1], &host.callback(path, name));
        // The provider gets another name. The certificate is kept, because a message may still name it.
        callgate.reload(&both.replace("p: {", "r: {").replace("provider: p,", "provider: r,")).unwrap();
        assert_eq!((send("/p", "real-p1"), send("/q", "real-q1")), (200, 200), "cached: {cached}");
        assert_eq!((host.asked_for("real-p1"), host.asked_for("real-q1")), (1, 1), "cached: {cached}");
        callgate.reload(&host.config(&agent, ["/open/other", "/open/real-q"], &fetch)).unwrap();
        assert_eq!((send("/p", "real-p1"), send("/q", "real-q1")), (401, 200), "cached: {cached}");
        if cached {
            eventually(|| (kept(cache.path()).len() == 1).then_some(()));
        }
        callgate.reload(&both).unwrap();
        assert_eq!((send("/p", "real-p1"), send("/q", "real-q1")), (503, 200), "cached: {cached}");
    }
}

#[test]
fn only_a_genuine_message_makes_a_certificate_one_that_stays() {
    let host = Host::start(Nothing::AtOnce);
    let config = parse(&host.config(&Agent::start(ANSWER), ["/open/", "/open/"], ""));
    let verifier = config.policy.provider("p").unwrap().verifier.as_ref().unwrap();
    let set = KeySet::parse(&std::fs::read(host.folder.path().join("p.crt")).unwrap()).unwrap();
    let mut keyring = Keyring::default();
    keyring.put_certificate(&host.url("real"), set);
    let signature = BASE64.encode(&std::fs::read(host.folder.path().join("signature")).unwrap());
    for (signature, genuine) in [("AQI=", false), (&signature, true)] {
        let mut headers = http::HeaderMap::new();
        headers.insert("x-sig", signature.parse().unwrap());
        headers.insert("x-cert", host.url("real").parse().unwrap());
        let head = RequestHead {
            method: "POST",
            target: "/p",
            headers: &headers,
            peer: IpAddr::from([127, 0, 0, 1]),
            body_bytes_declared: Some(2),
            certificate: None,
            is_tls: true,
        };
        let signed =
            SignatureContext { keyring: &keyring, ..SignatureContext::new(head, "", Clock::System.now()) };
        let presented = verifier.verify_head(&signed).unwrap();
        assert_eq!(verifier.verify_body(&presented, &signed, b"{}").is_ok(), genuine);
        assert_eq!(keyring.certificate(&host.url("real")).unwrap().has_proved_itself(), genuine);
    }
}
