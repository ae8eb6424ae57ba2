//! The server: binds, serves, stops.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use arc_swap::ArcSwap;
use pingora::server::ShutdownWatch;
use pingora::tls::install_default_crypto_provider;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::components::{Components, Options};
use super::egress::{Providers, listener};
use super::ingress::{self, IngressContext};
use super::listen::{AcceptQueue, BoundListener, ListenerConfig, accept, bind, close};
use crate::clock::instant;
use crate::config::{EgressListener, Startup};
use crate::fetch::{Fetcher, with_cached};
use crate::observe::Traces;
use crate::policy::Policy;
use crate::store::StoreError;

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
    listeners: Vec<Arc<ArcSwap<ListenerConfig>>>,
    /// Every address that is listened on.
    own: Vec<SocketAddr>,
    ingress_queues: Vec<AcceptQueue>,
    egress_queues: Vec<AcceptQueue>,
    stop_ingress: watch::Sender<bool>,
    stop_egress: watch::Sender<bool>,
    stop_admin: watch::Sender<bool>,
    components: Components,
    tasks: Vec<JoinHandle<()>>,
}

/// Another configuration, ready to be served by.
pub struct Prepared {
    egress_listener: Option<Arc<EgressListener>>,
    listeners: Vec<ListenerConfig>,
    providers: Option<Providers>,
    policy: Policy,
}

/// The addresses of a server, bound.
struct Addresses {
    ingress: Vec<BoundListener>,
    egress: Option<BoundListener>,
    admin: Option<BoundListener>,
}

impl Addresses {
    fn bind(startup: &Startup) -> Result<Self, StartError> {
        Ok(Self {
            ingress: startup
                .ingress
                .iter()
                .map(|listener| bind_named(listener.address))
                .collect::<Result<_, _>>()?,
            egress: startup.egress.as_ref().map(|egress| bind_named(egress.address)).transpose()?,
            admin: startup.admin.as_ref().map(|admin| bind_named(admin.address)).transpose()?,
        })
    }

    /// All of them, ports resolved.
    fn own(&self) -> Vec<SocketAddr> {
        self.ingress.iter().chain(&self.egress).chain(&self.admin).map(|bound| bound.address).collect()
    }
}

impl Server {
    /// Binds every listener of `startup`, then serves. `admin` serves the admin listener until it is told to stop. Must be
    /// called within a tokio runtime.
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
        F: FnOnce(TcpListener, ShutdownWatch) -> A,
        A: Future<Output = ()> + Send + 'static,
    {
        install_default_crypto_provider();
        let providers = providers(startup, &policy.load())?;
        let (fetcher, work) = Fetcher::new(&policy, &options.metrics).map_err(StartError::Fetch)?;
        // Every certificate is tried before the first address is bound.
        let listeners = listener_configs(startup).map_err(StartError::Tls)?;
        let listeners: Vec<_> =
            listeners.into_iter().map(|config| Arc::new(ArcSwap::from_pointee(config))).collect();
        let addresses = Addresses::bind(startup)?;
        let own = addresses.own();
        let providers = providers.with_own_addresses(own.clone());
        let egress_address = addresses.egress.as_ref().map(|bound| bound.address);
        let components = Components::new(startup, policy, options, egress_address, providers, fetcher);
        let (stop_ingress, ingress_stopping) = watch::channel(false);
        let (stop_egress, egress_stopping) = watch::channel(false);
        // The admin listener goes on until the last exchange has ended: readiness is asked for there.
        let (stop_admin, admin_stopping) = watch::channel(false);
        let mut server = Self {
            ingress: addresses.ingress.iter().map(|bound| bound.address).collect(),
            egress: egress_address,
            admin: addresses.admin.as_ref().map(|bound| bound.address),
            own,
            ingress_queues: addresses.ingress.iter().filter_map(BoundListener::queue).collect(),
            egress_queues: addresses.egress.iter().filter_map(BoundListener::queue).collect(),
            stop_ingress,
            stop_egress,
            stop_admin,
            tasks: Vec::new(),
            components,
            listeners,
        };
        server.accept_callbacks(addresses.ingress, &ingress_stopping)?;
        if let Some(bound) = addresses.egress {
            let egress = Arc::clone(&server.components.egress);
            server.spawn(listener::run(egress, listening(bound)?, egress_stopping));
        }
        if let Some(bound) = addresses.admin {
            server.spawn(admin(listening(bound)?, admin_stopping));
        }
        server.spawn(ingress::run_notices(Arc::clone(&server.components.notices)));
        server.spawn(server.components.upkeep().run());
        server.spawn(work.run());
        server.components.report(&server.listeners);
        Ok(server)
    }

    fn spawn(&mut self, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.push(tokio::spawn(task));
    }

    /// Accepts connections on the ingress listeners, each with its own settings.
    fn accept_callbacks(
        &mut self,
        bound: Vec<BoundListener>,
        stopping: &ShutdownWatch,
    ) -> Result<(), StartError> {
        for (bound, config) in bound.into_iter().zip(self.listeners.clone()) {
            let (ingress, watch) = (Arc::clone(&self.components.ingress), stopping.clone());
            let serve = move |stream, info| ingress::serve(Arc::clone(&ingress), stream, info, watch.clone());
            let admission = Arc::clone(&self.components.admission);
            self.spawn(accept::run(admission, config, listening(bound)?, stopping.clone(), serve));
        }
        Ok(())
    }

    /// Makes ready what serving by another configuration needs: everything that can fail, and that takes a while.
    /// `startup` is known to differ in nothing that only a restart changes.
    pub fn preparing(
        &self,
        startup: Startup,
        policy: Policy,
    ) -> impl FnOnce() -> Result<Prepared, String> + Send + 'static {
        let (current, own) = (Arc::clone(&self.components.egress.providers), self.own.clone());
        move || {
            let listeners = listener_configs(&startup)?;
            let providers = providers(&startup, &policy).map_err(|error| error.to_string())?;
            let providers =
                (!providers.trust_the_same_as(&current.load())).then(|| providers.with_own_addresses(own));
            let egress_listener = startup.egress.map(Arc::new);
            Ok(Prepared { egress_listener, listeners, providers, policy: with_cached(policy)? })
        }
    }

    /// Serves by another configuration from here on. Requests in flight end by the one that they began with.
    pub fn install(&self, prepared: Prepared) {
        let Prepared { egress_listener, listeners, providers, policy } = prepared;
        // The rules first: a route that requires more than its listener provides denies.
        self.components.install(&policy, providers, egress_listener);
        for (current, config) in self.listeners.iter().zip(listeners) {
            current.store(Arc::new(config));
        }
        self.components.report(&self.listeners);
    }

    /// Goes on for `delay` with each response the last one of its connection, so that callers learn to go elsewhere. Then
    /// stops accepting, lets running exchanges end for as long as `grace`, writes what is left of the ledger, and returns
    /// how many exchanges were cut off. The agent's own requests are taken until callbacks have ended.
    pub async fn stop(self, delay: Duration, grace: Duration) -> usize {
        let Components { ingress, egress, notices, .. } = &self.components;
        ingress.drain.leaving.store(true, Ordering::Relaxed);
        tokio::time::sleep(delay).await;
        let until = instant() + grace;
        let last = grace.min(LAST_EXCHANGES);
        let left = || until.saturating_duration_since(instant()).max(last);
        notices.drain.close();
        close(self.ingress_queues, grace).await;
        let _ = self.stop_ingress.send(true);
        let _ = timeout(left(), ingress.drain.requests.ended()).await;
        // From here on a request on a kept connection is not begun; one that slipped in before is waited for.
        ingress.drain.requests.close();
        let callbacks = async {
            tokio::join!(ingress.drain.requests.ended(), notices.drain.ended(), ingress.drain.http2.ended())
        };
        let _ = timeout(left(), callbacks).await;
        close(self.egress_queues, grace).await;
        let _ = self.stop_egress.send(true);
        let _ = timeout(left(), egress.drain.ended()).await;
        egress.drain.close();
        let _ = timeout(left(), egress.drain.ended()).await;
        for task in &self.tasks {
            task.abort();
        }
        let _ = self.stop_admin.send(true);
        close_files(ingress).await;
        self.components.in_flight()
    }
}

/// Closes the ledger's file, and exports the last spans.
async fn close_files(ingress: &IngressContext) {
    let (store, recorder) = (Arc::clone(&ingress.store), Arc::clone(&ingress.recorder));
    let closed = tokio::task::spawn_blocking(move || {
        store.close();
        recorder.traces.iter().for_each(Traces::stop);
    });
    if timeout(STORE_CLOSES, closed).await.is_err() {
        log::error!("the ledger's file could not be closed in time");
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
    Providers::new(policy.trusted_roots.as_ref().map(|roots| &*roots.path)).map_err(StartError::Tls)
}

fn bind_named(address: SocketAddr) -> Result<BoundListener, StartError> {
    bind(address).map_err(|error| StartError::Bind(address, error))
}

/// Reads the files of each ingress listener.
fn listener_configs(startup: &Startup) -> Result<Vec<ListenerConfig>, String> {
    startup.ingress.iter().map(ListenerConfig::new).collect()
}

fn listening(bound: BoundListener) -> Result<TcpListener, StartError> {
    let address = bound.address;
    TcpListener::from_std(bound.into_listener()).map_err(|error| StartError::Bind(address, error))
}

/// Longest wait, once no exchange begins any more, for one that had just begun.
const LAST_EXCHANGES: Duration = Duration::from_secs(1);

/// Longest wait for a disk, once everything that is acknowledged is on it.
const STORE_CLOSES: Duration = Duration::from_secs(5);
