//! The server: binds, serves, stops.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use async_trait::async_trait;
use pingora::apps::{HttpServerApp, HttpServerOptions, ReusedHttpStream, ServerApp};
use pingora::listeners::tls::TlsSettings;
use pingora::protocols::http::ServerSession;
use pingora::protocols::{ALPN, Stream};
use pingora::server::ShutdownWatch;
use pingora::services::Service as _;
use pingora::services::listening::Service;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::clock::{Clock, LedgerClock, instant};
use super::exchange::{self, Shared};
use super::fetch::Fetcher;
use super::listen::{Bound, Door, bind, endpoints};
use super::plain::{PlainApp, PlainRequest, PlainResponse};
use super::provider::Providers;
use super::session::RequestIds;
use super::traffic::Traffic;
use super::{agent::Pool, egress, overdue, tls};
use crate::config::{ACTIONS, Listener, Startup};
use crate::observe::{AccessLogger, Metrics};
use crate::policy::Policy;
use crate::source::reachable;
use crate::store::{Store, StoreError};

/// What a server runs with besides its configuration.
pub struct Options {
    /// The clock decisions are made by.
    pub clock: Clock,
    /// The clock of the ledger.
    pub ledger_clock: Arc<LedgerClock>,
    /// The metrics to count in.
    pub metrics: Arc<Metrics>,
    /// The ledger.
    pub store: Arc<Store>,
    /// Where access-log lines go; `None`: nowhere.
    pub access_log: Option<AccessLogger>,
}

/// Why a server does not start. Nothing is left bound.
#[derive(Debug)]
pub enum StartError {
    /// An address cannot be listened on.
    Bind(SocketAddr, std::io::Error),
    /// What is fetched cannot be fetched or kept.
    Fetch(String),
    /// The ledger's file cannot be used.
    Store(StoreError),
    /// A certificate, a key or the trusted roots cannot be used.
    Tls(String),
}

impl std::fmt::Display for StartError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Bind(address, error) => write!(f, "cannot listen on {address}: {error}"),
            Self::Store(error) => error.fmt(f),
            Self::Fetch(message) | Self::Tls(message) => f.write_str(message),
        }
    }
}

/// A running server.
pub struct Server {
    /// Where callbacks come in, ports resolved, in the order of the configuration.
    pub ingress: Vec<SocketAddr>,
    /// Where the agent's own requests come in.
    pub egress: Option<SocketAddr>,
    /// Where metrics, health and the callbacks API are served.
    pub admin: Option<SocketAddr>,
    doors: Vec<Door>,
    egress_door: Vec<Door>,
    stop: watch::Sender<bool>,
    stop_egress: watch::Sender<bool>,
    stop_admin: watch::Sender<bool>,
    shared: Arc<Shared>,
    tasks: Vec<JoinHandle<()>>,
}

/// The addresses of a server, bound.
struct Addresses {
    ingress: Vec<(Bound, Option<TlsSettings>)>,
    egress: Option<Bound>,
    admin: Option<Bound>,
}

impl Addresses {
    fn bind(startup: &Startup) -> Result<Self, StartError> {
        // Every certificate is tried before the first address is bound.
        let settings = |listener: &Listener| listener.tls.as_ref().map(tls::settings).transpose();
        let settings: Vec<_> =
            startup.ingress.iter().map(settings).collect::<Result<_, _>>().map_err(StartError::Tls)?;
        let bound: Vec<_> =
            startup.ingress.iter().map(|listener| bind_named(listener.address)).collect::<Result<_, _>>()?;
        Ok(Self {
            ingress: bound.into_iter().zip(settings).collect(),
            egress: startup.egress.map(bind_named).transpose()?,
            admin: startup.admin.as_ref().map(|admin| bind_named(admin.address)).transpose()?,
        })
    }
}

impl Addresses {
    /// All of them, ports resolved.
    fn own(&self) -> Vec<SocketAddr> {
        let ingress = self.ingress.iter().map(|(bound, _)| bound.address);
        let others = self.egress.iter().chain(&self.admin).map(|bound| bound.address);
        ingress.chain(others).collect()
    }
}

impl Server {
    /// Binds every listener of `startup`, then serves. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// [`StartError`]; nothing is left bound.
    pub fn start<F, A>(
        startup: &Startup,
        policy: Arc<ArcSwap<Policy>>,
        options: Options,
        admin: F,
    ) -> Result<Self, StartError>
    where
        F: Fn(PlainRequest) -> A + Send + Sync + 'static,
        A: Future<Output = PlainResponse> + Send + 'static,
    {
        let providers = providers(startup, &policy.load())?;
        let (fetcher, work) = Fetcher::new(&policy, startup.trusted_roots.as_deref(), &options.metrics)
            .map_err(StartError::Fetch)?;
        let addresses = Addresses::bind(startup)?;
        let shared = Arc::new(Shared {
            policy,
            pool: Pool::default(),
            ledger_clock: options.ledger_clock,
            clock: options.clock,
            metrics: options.metrics,
            store: options.store,
            actions_url: addresses.egress.as_ref().map(actions_url).unwrap_or_default(),
            providers: providers.beside(addresses.own()),
            fetcher,
            access_log: options.access_log,
            request_ids: RequestIds::new(),
            ingress: Traffic::default(),
            egress: Traffic::default(),
            notices: Traffic::default(),
            http2: Traffic::default(),
            leaving: AtomicBool::new(false),
        });
        let (stop, stopping) = watch::channel(false);
        let (stop_egress, egress_stopping) = watch::channel(false);
        let doors = addresses.ingress.iter().filter_map(|(bound, _)| bound.door()).collect();
        let egress_door = addresses.egress.iter().filter_map(Bound::door).collect();
        let ingress = addresses.ingress.iter().map(|(bound, _)| bound.address).collect();
        let egress = addresses.egress.as_ref().map(|bound| bound.address);
        let admin_address = addresses.admin.as_ref().map(|bound| bound.address);
        let mut tasks = vec![run(IngressApp::new(&shared), addresses.ingress, stopping)];
        tasks.extend(addresses.egress.map(|bound| {
            let app = EgressApp { shared: Arc::clone(&shared), options: HttpServerOptions::default() };
            run(app, vec![(bound, None)], egress_stopping)
        }));
        tasks.push(tokio::spawn(overdue::run(Arc::clone(&shared))));
        tasks.push(tokio::spawn(work.run()));
        // The admin listener goes on until the last exchange has ended: readiness is asked for there.
        let (stop_admin, admin_stopping) = watch::channel(false);
        let admin = addresses
            .admin
            .map(|bound| run(PlainApp { respond: admin }, vec![(bound, None)], admin_stopping));
        tasks.extend(admin);
        Ok(Self {
            ingress,
            egress,
            admin: admin_address,
            doors,
            egress_door,
            stop,
            stop_egress,
            stop_admin,
            shared,
            tasks,
        })
    }

    /// Goes on for `delay` with each answer the last one of its connection, so that callers learn to go elsewhere;
    /// then stops accepting, lets running exchanges end for as long as `grace`, writes what is left of the ledger,
    /// and returns how many exchanges were left. The agent's own requests are taken until callbacks have ended.
    pub async fn stop(self, delay: Duration, grace: Duration) -> usize {
        let shared = &self.shared;
        shared.leaving.store(true, Ordering::Relaxed);
        tokio::time::sleep(delay).await;
        let until = instant() + grace;
        let last = grace.min(LAST_EXCHANGES);
        let left = || until.saturating_duration_since(instant()).max(last);
        shared.notices.close();
        close(self.doors, grace).await;
        let _ = self.stop.send(true);
        let _ = timeout(left(), shared.ingress.ended()).await;
        // From here on a request on a kept connection is not begun; one that slipped in before is waited for.
        shared.ingress.close();
        let callbacks =
            async { tokio::join!(shared.ingress.ended(), shared.notices.ended(), shared.http2.ended()) };
        let _ = timeout(left(), callbacks).await;
        close(self.egress_door, grace).await;
        let _ = self.stop_egress.send(true);
        let _ = timeout(left(), shared.egress.ended()).await;
        shared.egress.close();
        let _ = timeout(left(), shared.egress.ended()).await;
        for task in &self.tasks {
            task.abort();
        }
        let _ = self.stop_admin.send(true);
        let store = Arc::clone(&shared.store);
        let closed = tokio::task::spawn_blocking(move || store.close());
        if timeout(STORE_CLOSES, closed).await.is_err() {
            log::error!("the ledger's file could not be closed in time");
        }
        shared.ingress.count() + shared.notices.count() + shared.egress.count()
    }
}

/// Lets in who stands at a door already, and gives the addresses up.
async fn close(doors: Vec<Door>, grace: Duration) {
    if !grace.is_zero() {
        doors.iter().for_each(Door::close);
        tokio::time::sleep(LAST_ACCEPTS).await;
    }
}

/// The way to providers, where anything goes there: the platform's roots take memory and time to read.
fn providers(startup: &Startup, policy: &Policy) -> Result<Providers, StartError> {
    if startup.egress.is_none() {
        return Ok(Providers::none());
    }
    let actions = policy.ingress.routes().iter().any(|route| route.actions.is_some());
    if policy.egress.rules().is_empty() && !actions {
        return Ok(Providers::none());
    }
    Providers::new(startup.trusted_roots.as_deref()).map_err(StartError::Tls)
}

/// What the agent's local URL of an action endpoint begins with.
fn actions_url(bound: &Bound) -> Box<str> {
    format!("http://{}/{ACTIONS}/", reachable(bound.address)).into()
}

fn bind_named(address: SocketAddr) -> Result<Bound, StartError> {
    bind(address).map_err(|error| StartError::Bind(address, error))
}

fn run<A: ServerApp + Send + Sync + 'static>(
    app: A,
    bound: Vec<(Bound, Option<TlsSettings>)>,
    stopping: ShutdownWatch,
) -> JoinHandle<()> {
    let (sockets, listeners) = endpoints(bound);
    let mut service = Service::new("callgate".to_owned(), app);
    for listener in listeners {
        service.add_listener(listener);
    }
    tokio::spawn(async move { service.start_service(Some(sockets), stopping, 1).await })
}

/// The ingress on a connection: tells HTTP/2 with prior knowledge from HTTP/1.1 on plain listeners, and
/// leaves everything else to the protocol's server.
struct IngressApp {
    shared: Arc<Shared>,
    http1: Arc<Protocol>,
    http2: Arc<Protocol>,
    idle_timeout: Duration,
}

/// Longest wait, once no exchange begins any more, for one that had just begun.
const LAST_EXCHANGES: Duration = Duration::from_secs(1);

/// Longest wait for a disk, once everything that is acknowledged is on it.
const STORE_CLOSES: Duration = Duration::from_secs(5);

/// How long what has arrived at a closed door is let in.
const LAST_ACCEPTS: Duration = Duration::from_millis(20);

/// The connection preface of HTTP/2 (RFC 9113 section 3.4).
const PREFACE_BYTES: usize = 24;

impl IngressApp {
    fn new(shared: &Arc<Shared>) -> Self {
        let idle_timeout = shared.policy.load().limits.idle_timeout;
        let protocol = |h2c| {
            let mut options = HttpServerOptions::default();
            options.h2c = h2c;
            options.h2_idle_timeout = Some(idle_timeout);
            Arc::new(Protocol { shared: Arc::clone(shared), options })
        };
        Self { shared: Arc::clone(shared), http1: protocol(false), http2: protocol(true), idle_timeout }
    }

    /// Whether a plain connection begins as HTTP/2 does; `None` when it does not begin at all. Three bytes
    /// tell: no method begins with them, and no request is shorter.
    async fn begins_as_http2(&self, stream: &mut Stream) -> Option<bool> {
        let mut first = [0; 3];
        let peeked = timeout(self.idle_timeout, stream.try_peek(&mut first)).await;
        match peeked {
            Ok(Ok(true)) if first == *b"PRI" => {
                // pingora waits for the whole preface without a limit of time, so it is waited for here.
                let mut preface = [0; PREFACE_BYTES];
                let whole = timeout(self.idle_timeout, stream.try_peek(&mut preface)).await;
                matches!(whole, Ok(Ok(true))).then_some(true)
            }
            Ok(Ok(_)) => Some(false),
            Ok(Err(_)) | Err(_) => None,
        }
    }
}

#[async_trait]
impl ServerApp for IngressApp {
    async fn process_new(self: &Arc<Self>, mut stream: Stream, shutdown: &ShutdownWatch) -> Option<Stream> {
        // With TLS the protocol was agreed on in the handshake.
        let agreed = stream.get_ssl_digest().is_some();
        let http2 = match agreed {
            true => matches!(stream.selected_alpn_proto(), Some(ALPN::H2)),
            false => self.begins_as_http2(&mut stream).await?,
        };
        let _under_way = if http2 { Some(self.shared.http2.begin()?) } else { None };
        let protocol = if http2 && !agreed { &self.http2 } else { &self.http1 };
        protocol.process_new(stream, shutdown).await
    }
}

struct Protocol {
    shared: Arc<Shared>,
    options: HttpServerOptions,
}

#[async_trait]
impl HttpServerApp for Protocol {
    async fn process_new_http(
        self: &Arc<Self>,
        session: ServerSession,
        _: &ShutdownWatch,
    ) -> Option<ReusedHttpStream> {
        exchange::serve(&self.shared, session).await
    }

    fn server_options(&self) -> Option<&HttpServerOptions> {
        Some(&self.options)
    }
}

/// The egress: HTTP/1.1 from the agent.
struct EgressApp {
    shared: Arc<Shared>,
    options: HttpServerOptions,
}

#[async_trait]
impl HttpServerApp for EgressApp {
    async fn process_new_http(
        self: &Arc<Self>,
        session: ServerSession,
        shutdown: &ShutdownWatch,
    ) -> Option<ReusedHttpStream> {
        egress::serve(&self.shared, session, shutdown).await
    }

    fn server_options(&self) -> Option<&HttpServerOptions> {
        Some(&self.options)
    }
}
