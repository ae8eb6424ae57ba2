//! The server: binds, serves, stops.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use async_trait::async_trait;
use pingora::apps::{HttpServerApp, HttpServerOptions, ReusedHttpStream, ServerApp};
use pingora::listeners::tls::TlsSettings;
use pingora::protocols::Stream;
use pingora::protocols::http::ServerSession;
use pingora::server::ShutdownWatch;
use pingora::services::Service as _;
use pingora::services::listening::Service;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::clock::Clock;
use super::exchange::{self, RequestIds, Shared};
use super::listen::{Bound, bind, endpoints};
use super::plain::{PlainApp, PlainRequest, PlainResponse};
use super::{agent::Pool, tls};
use crate::config::Startup;
use crate::observe::{AccessLogger, Metrics};
use crate::policy::Policy;

/// What a server runs with besides its configuration.
pub struct Options {
    /// The clock decisions are made by.
    pub clock: Clock,
    /// The metrics to count in.
    pub metrics: Arc<Metrics>,
    /// Where access-log lines go; `None`: nowhere.
    pub access_log: Option<AccessLogger>,
}

/// Why a server does not start. Nothing is left bound.
#[derive(Debug)]
pub enum StartError {
    /// An address cannot be listened on.
    Bind(SocketAddr, std::io::Error),
    /// A certificate or key cannot be used.
    Tls(String),
}

impl std::fmt::Display for StartError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Bind(address, error) => write!(f, "cannot listen on {address}: {error}"),
            Self::Tls(message) => f.write_str(message),
        }
    }
}

/// A running server.
pub struct Server {
    /// Where callbacks come in, ports resolved, in the order of the configuration.
    pub ingress: Vec<SocketAddr>,
    /// Where metrics and health are served.
    pub admin: Option<SocketAddr>,
    stop: watch::Sender<bool>,
    shared: Arc<Shared>,
    services: Vec<JoinHandle<()>>,
}

impl Server {
    /// Binds every listener of `startup`, then serves. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// [`StartError`]; nothing is left bound.
    pub fn start(
        startup: &Startup,
        policy: Arc<ArcSwap<Policy>>,
        options: Options,
        admin: impl Fn(&PlainRequest) -> PlainResponse + Send + Sync + 'static,
    ) -> Result<Self, StartError> {
        let mut ingress = Vec::new();
        for listener in &startup.ingress {
            let settings = listener.tls.as_ref().map(tls::settings).transpose().map_err(StartError::Tls)?;
            ingress.push((bind_named(listener.address)?, settings));
        }
        let admin_bound = startup.admin.map(bind_named).transpose()?;
        let shared = Arc::new(Shared {
            policy,
            pool: Pool::default(),
            clock: options.clock,
            metrics: options.metrics,
            access_log: options.access_log,
            request_ids: RequestIds::new(),
            in_flight: AtomicUsize::new(0),
        });
        let (stop, stopping) = watch::channel(false);
        let addresses = ingress.iter().map(|(bound, _)| bound.address).collect();
        let admin_address = admin_bound.as_ref().map(|bound| bound.address);
        let app = IngressApp::new(&shared);
        let mut services = vec![run(app, ingress, stopping.clone())];
        services
            .extend(admin_bound.map(|bound| run(PlainApp { respond: admin }, vec![(bound, None)], stopping)));
        Ok(Self { ingress: addresses, admin: admin_address, stop, shared, services })
    }

    /// Stops accepting, lets running exchanges end for as long as `grace`, and returns how many were left.
    pub async fn stop(self, grace: Duration) -> usize {
        let _ = self.stop.send(true);
        let drained = async {
            while self.shared.in_flight.load(Ordering::Relaxed) > 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let _ = timeout(grace, drained).await;
        for service in &self.services {
            service.abort();
        }
        self.shared.in_flight.load(Ordering::Relaxed)
    }
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
    http1: Arc<Protocol>,
    http2: Arc<Protocol>,
}

/// Longest wait for the first bytes of a connection.
const FIRST_BYTES_TIMEOUT: Duration = Duration::from_secs(60);

impl IngressApp {
    fn new(shared: &Arc<Shared>) -> Self {
        let mut h2c = HttpServerOptions::default();
        h2c.h2c = true;
        Self {
            http1: Arc::new(Protocol { shared: Arc::clone(shared), options: None }),
            http2: Arc::new(Protocol { shared: Arc::clone(shared), options: Some(h2c) }),
        }
    }
}

#[async_trait]
impl ServerApp for IngressApp {
    async fn process_new(self: &Arc<Self>, mut stream: Stream, shutdown: &ShutdownWatch) -> Option<Stream> {
        // With TLS the protocol was agreed on in the handshake.
        if stream.get_ssl_digest().is_some() {
            return self.http1.process_new(stream, shutdown).await;
        }
        // No method begins with the HTTP/2 preface's first bytes, and no request is shorter than they are.
        let mut first = [0; 3];
        let peeked = timeout(FIRST_BYTES_TIMEOUT, stream.try_peek(&mut first)).await;
        match peeked {
            Ok(Ok(true)) if first == *b"PRI" => self.http2.process_new(stream, shutdown).await,
            Ok(Ok(_)) => self.http1.process_new(stream, shutdown).await,
            Ok(Err(_)) | Err(_) => None,
        }
    }
}

struct Protocol {
    shared: Arc<Shared>,
    options: Option<HttpServerOptions>,
}

#[async_trait]
impl HttpServerApp for Protocol {
    async fn process_new_http(
        self: &Arc<Self>,
        session: ServerSession,
        shutdown: &ShutdownWatch,
    ) -> Option<ReusedHttpStream> {
        let stopping = *shutdown.borrow();
        exchange::serve(&self.shared, session, stopping).await
    }

    fn server_options(&self) -> Option<&HttpServerOptions> {
        self.options.as_ref()
    }
}
