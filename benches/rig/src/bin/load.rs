//! A load generator: `load ADDRESS [--NAME VALUE]...`. Prints one line of JSON with statuses, seconds, and latencies in
//! microseconds.
//!
//! The options are `protocol` (h1, tls, h2), `kind` (see `requests`), `size` (of the body, in bytes), `requests`,
//! `connections`, `interactions` (number of documents), `first` (number of the first event and document), `from`
//! (source addresses, 256 in turn), `ca` (PEM), `rate` (requests per second), `shape` (of the body, see `requests`),
//! `streams` (parallel streams on an HTTP/2 connection), `reconnect` (1: each request has a connection of its own) and
//! `resume` (0: no TLS session is resumed).
//!
//! With `rate`, requests are sent at fixed times. A late response does not delay other requests, and the latency is
//! measured from the scheduled time. Without `rate`, each connection sends the next request after a response.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use callgate_rig::requests::{Callback, HOST, Kind, Shape, callback};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::mpsc;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Number of parallel streams on an HTTP/2 connection, if the option does not say otherwise.
const STREAMS: u64 = 4;

struct Options(HashMap<String, String>);

impl Options {
    fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    fn number(&self, name: &str, default: u64) -> u64 {
        self.text(name).map_or(default, |text| text.parse().expect("a number"))
    }
}

struct Job {
    address: SocketAddr,
    from: Option<IpAddr>,
    tls: Option<TlsConnector>,
    requests: Vec<Prepared>,
    done: RefCell<Done>,
    /// Whether each request has a connection of its own.
    reconnects: bool,
}

enum Prepared {
    Raw(Vec<u8>),
    Two(http::Request<()>, Bytes),
}

#[derive(Default)]
struct Done {
    statuses: BTreeMap<u16, usize>,
    nanos: Vec<u64>,
}

/// The request to send, and the time at which it was due.
type Due = (usize, Instant);

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let args: Vec<_> = std::env::args().skip(1).collect();
    let pairs =
        args[1..].chunks(2).map(|pair| (pair[0].trim_start_matches("--").to_owned(), pair[1].clone()));
    let options = Options(pairs.collect());
    let protocol = options.text("protocol").unwrap_or("h1").to_owned();
    let (total, connections) = (options.number("requests", 1000), options.number("connections", 16) as usize);
    let job = Rc::new(Job {
        address: args[0].parse().expect("an address"),
        from: options.text("from").map(|from| from.parse().expect("an address")),
        tls: (protocol != "h1")
            .then(|| tls(options.text("ca").expect("ca"), &protocol, options.number("resume", 1) == 1)),
        requests: prepared(&options, &protocol, total),
        done: RefCell::default(),
        reconnects: options.number("reconnect", 0) == 1,
    });
    let streams = options.number("streams", STREAMS) as usize;
    // In a closed loop, a free connection takes the next request. In an open loop, requests are queued when they are
    // due.
    let (send, receive) = mpsc::unbounded_channel::<Due>();
    let receive = Rc::new(tokio::sync::Mutex::new(receive));
    let local = tokio::task::LocalSet::new();
    let rate = options.number("rate", 0);
    let began = Instant::now();
    local
        .run_until(async {
            if protocol == "h2" {
                for _ in 0..connections.div_ceil(streams) {
                    let sender = two(&job).await;
                    for _ in 0..streams {
                        let (job, receive, sender) = (Rc::clone(&job), Rc::clone(&receive), sender.clone());
                        tokio::task::spawn_local(
                            async move { drive_two(&job, &receive, sender, rate > 0).await },
                        );
                    }
                }
            } else {
                for _ in 0..connections {
                    let (job, receive) = (Rc::clone(&job), Rc::clone(&receive));
                    tokio::task::spawn_local(async move { drive(&job, &receive, rate > 0).await });
                }
            }
            feed(send, total as usize, rate).await;
        })
        .await;
    local.await;
    report(&job, began.elapsed());
}

/// Queues the requests: all at once, or each when it is due.
async fn feed(send: mpsc::UnboundedSender<Due>, total: usize, rate: u64) {
    if rate == 0 {
        let now = Instant::now();
        for i in 0..total {
            let _ = send.send((i, now));
        }
        return;
    }
    let timer = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK).expect("a timer");
    // The replacement of this function is unsafe. The timer owns its descriptor, so the deprecated function is sound.
    #[allow(deprecated)]
    let timer = AsyncFd::new(timer).expect("a timer");
    // Connections are opened at the same time.
    let began = Instant::now() + Duration::from_millis(200);
    for i in 0..total {
        let due = began + Duration::from_nanos(i as u64 * 1_000_000_000 / rate);
        let wait = due.saturating_duration_since(Instant::now());
        if !wait.is_zero() {
            let value = Timespec { tv_sec: wait.as_secs() as i64, tv_nsec: i64::from(wait.subsec_nanos()) };
            let once = Itimerspec { it_interval: Timespec { tv_sec: 0, tv_nsec: 0 }, it_value: value };
            timerfd_settime(timer.get_ref(), TimerfdTimerFlags::empty(), &once).expect("a timer");
            timer.readable().await.expect("a timer").clear_ready();
        }
        let _ = send.send((i, due));
    }
}

fn prepared(options: &Options, protocol: &str, total: u64) -> Vec<Prepared> {
    let kind = Kind::named(options.text("kind").unwrap_or("good")).expect("a kind");
    let (size, first) = (options.number("size", 200) as usize, options.number("first", 0));
    let interactions = options.number("interactions", total.div_ceil(10)).max(1);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock").as_secs();
    let shape = Shape::named(options.text("shape").unwrap_or("findings")).expect("a shape");
    let one = |i| callback((kind, shape), first + i, first + i % interactions, size, now);
    match protocol {
        "h2" => (0..total).map(|i| two_of(one(i))).collect(),
        _ => (0..total).map(|i| Prepared::Raw(one(i).raw())).collect(),
    }
}

fn two_of(callback: Callback) -> Prepared {
    let mut request = http::Request::post(format!("https://{HOST}{}", callback.path));
    for (name, value) in callback.headers {
        request = request.header(name, value);
    }
    let request = request.header("content-length", callback.body.len()).body(()).expect("a request");
    Prepared::Two(request, callback.body.into())
}

fn tls(authority: &str, protocol: &str, resumes: bool) -> TlsConnector {
    let pem = std::fs::read(authority).expect("the authority");
    let mut roots = rustls::RootCertStore::empty();
    for certificate in rustls_pemfile::certs(&mut pem.as_slice()) {
        let certificate: CertificateDer<'_> = certificate.expect("a certificate");
        roots.add(certificate).expect("an authority");
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let mut config = config.expect("versions").with_root_certificates(roots).with_no_client_auth();
    if !resumes {
        config.resumption = rustls::client::Resumption::disabled();
    }
    config.alpn_protocols = vec![if protocol == "h2" { b"h2".to_vec() } else { b"http/1.1".to_vec() }];
    TlsConnector::from(Arc::new(config))
}

async fn connect(job: &Job) -> TcpStream {
    let socket =
        if job.address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }.expect("a socket");
    if let Some(mut from) = job.from {
        // One source address has too few ports for a peer that closes each connection after a denial.
        static TURN: AtomicU8 = AtomicU8::new(0);
        if let IpAddr::V4(v4) = &mut from {
            let [a, b, c, _] = v4.octets();
            *v4 = Ipv4Addr::new(a, b, c, TURN.fetch_add(1, Ordering::Relaxed));
        }
        socket.bind((from, 0).into()).expect("a source address");
    }
    let stream = socket.connect(job.address).await.expect("connect");
    stream.set_nodelay(true).expect("nodelay");
    stream
}

async fn connect_tls(job: &Job, connector: &TlsConnector) -> TlsStream<TcpStream> {
    let name = ServerName::try_from(HOST).expect("a name");
    connector.connect(name, connect(job).await).await.expect("a handshake")
}

trait Stream: AsyncRead + AsyncWrite + Unpin {}
impl<S: AsyncRead + AsyncWrite + Unpin> Stream for S {}

async fn drive(job: &Job, queue: &tokio::sync::Mutex<mpsc::UnboundedReceiver<Due>>, open: bool) {
    let mut kept: Option<Box<dyn Stream>> = None;
    let mut buffer = vec![0; 16 << 10];
    loop {
        if kept.is_none() {
            kept = Some(match &job.tls {
                Some(connector) => Box::new(connect_tls(job, connector).await),
                None => Box::new(connect(job).await),
            });
        }
        let Some((index, due)) = queue.lock().await.recv().await else { return };
        let began = if open { due } else { Instant::now() };
        let Some(connection) = &mut kept else { return };
        let Prepared::Raw(raw) = &job.requests[index] else { return };
        // A denial may arrive, and the connection may close, before the whole body is sent.
        let sent = connection.write_all(raw).await.and(connection.flush().await);
        let (status, keep) = answer(connection, &mut buffer).await.unwrap_or((0, false));
        if !keep || sent.is_err() || job.reconnects {
            kept = None;
        }
        job.count(status, began);
    }
}

async fn two(job: &Rc<Job>) -> h2::client::SendRequest<Bytes> {
    let stream = connect_tls(job, job.tls.as_ref().expect("tls")).await;
    let (sender, connection) = h2::client::handshake(stream).await.expect("HTTP/2");
    tokio::task::spawn_local(connection);
    sender
}

async fn drive_two(
    job: &Rc<Job>,
    queue: &tokio::sync::Mutex<mpsc::UnboundedReceiver<Due>>,
    sender: h2::client::SendRequest<Bytes>,
    open: bool,
) {
    let mut sender = sender;
    loop {
        let Some((index, due)) = queue.lock().await.recv().await else { return };
        let began = if open { due } else { Instant::now() };
        let Prepared::Two(request, body) = &job.requests[index] else { return };
        let exchanged = async {
            sender = sender.clone().ready().await?;
            let (response, mut stream) = sender.send_request(request.clone(), false)?;
            stream.send_data(body.clone(), true)?;
            let mut response = response.await?;
            while let Some(piece) = response.body_mut().data().await {
                let length = piece?.len();
                let _ = response.body_mut().flow_control().release_capacity(length);
            }
            Ok::<_, h2::Error>(response.status().as_u16())
        };
        match exchanged.await {
            Ok(status) => job.count(status, began),
            Err(_) => {
                job.count(0, began);
                sender = two(job).await;
            }
        }
    }
}

impl Job {
    fn count(&self, status: u16, began: Instant) {
        let mut done = self.done.borrow_mut();
        *done.statuses.entry(status).or_default() += 1;
        done.nanos.push(began.elapsed().as_nanos() as u64);
    }
}

/// Returns the status, and whether the connection stays open. Returns `None` if there is no response.
async fn answer(stream: &mut dyn Stream, buffer: &mut [u8]) -> Option<(u16, bool)> {
    let mut filled = 0;
    loop {
        match stream.read(&mut buffer[filled..]).await {
            Ok(n) if n > 0 => filled += n,
            _ => return None,
        }
        if let Some(at) = buffer[..filled].windows(4).position(|w| w == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&buffer[..at]).to_ascii_lowercase();
            let value =
                |name| head.lines().find_map(|line| line.strip_prefix(name)).map(|v| v.trim().to_owned());
            let chunked = value("transfer-encoding:").is_some();
            let length = value("content-length:").map_or(0, |v| v.parse().expect("length"));
            let whole = |filled: usize, buffer: &[u8]| match chunked {
                true => buffer[..filled].ends_with(b"0\r\n\r\n"),
                false => filled >= at + 4 + length,
            };
            while !whole(filled, buffer) {
                match stream.read(&mut buffer[filled..]).await {
                    Ok(n) if n > 0 => filled += n,
                    _ => return None,
                }
            }
            let close = value("connection:").is_some_and(|v| v == "close");
            return Some((head[9..12].parse().expect("status"), !close));
        }
    }
}

fn report(job: &Job, elapsed: Duration) {
    let mut done = job.done.borrow_mut();
    done.nanos.sort_unstable();
    let at = |q: f64| done.nanos[((done.nanos.len() - 1) as f64 * q) as usize] as f64 / 1000.0;
    let statuses: Vec<_> =
        done.statuses.iter().map(|(status, count)| format!("\"{status}\": {count}")).collect();
    println!(
        "{{\"statuses\": {{{}}}, \"seconds\": {:.4}, \"p50\": {:.0}, \"p99\": {:.0}, \"p999\": {:.0}, \"max\": {:.0}}}",
        statuses.join(", "),
        elapsed.as_secs_f64(),
        at(0.5),
        at(0.99),
        at(0.999),
        at(1.0),
    );
}
