//! The server: binds, serves, stops.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use pingora::tls::install_default_crypto_provider;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::accept::{self, Entrance};
use super::clock::{Clock, LedgerClock, instant};
use super::exchange::Shared;
use super::listen::{Bound, Door, bind, close};
use super::plain::{self, PlainRequest, PlainResponse};
use super::provider::Providers;
use super::rates::Rates;
use super::refusals::Refusals;
use super::session::RequestIds;
use super::slots::BodyMemory;
use super::traffic::Traffic;
use super::{agent::Pool, egress_server, overdue};
use crate::config::{ACTIONS, EgressListener, Startup};
use crate::fetch::{Fetcher, with_cached};
use crate::observe::{AccessLogger, Metrics, Recent, Traces};
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
    /// Where spans go; `None`: nowhere.
    pub traces: Option<Traces>,
    /// Where the last requests are kept for the admin page; `None`: there is none.
    pub recent: Option<Arc<Recent>>,
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
    entrances: Vec<Arc<ArcSwap<Entrance>>>,
    /// Every address that is listened on.
    own: Vec<SocketAddr>,
    doors: Vec<Door>,
    egress_door: Vec<Door>,
    stop: watch::Sender<bool>,
    stop_egress: watch::Sender<bool>,
    stop_admin: watch::Sender<bool>,
    shared: Arc<Shared>,
    tasks: Vec<JoinHandle<()>>,
}

/// Another configuration, ready to be served by.
pub struct Prepared {
    egress_listener: Option<Arc<EgressListener>>,
    entrances: Vec<Entrance>,
    providers: Option<Providers>,
    policy: Policy,
}

/// The addresses of a server, bound.
struct Addresses {
    ingress: Vec<Bound>,
    egress: Option<Bound>,
    admin: Option<Bound>,
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
        install_default_crypto_provider();
        let providers = providers(startup, &policy.load())?;
        let (fetcher, work) = Fetcher::new(&policy, &options.metrics).map_err(StartError::Fetch)?;
        // Every certificate is tried before the first address is bound.
        let entrances: Vec<_> = entrances(startup)
            .map_err(StartError::Tls)?
            .into_iter()
            .map(|entrance| Arc::new(ArcSwap::from_pointee(entrance)))
            .collect();
        let addresses = Addresses::bind(startup)?;
        let own = addresses.own();
        let providers = providers.beside(own.clone());
        let shared = Arc::new(shared(startup, policy, options, &addresses, providers, fetcher));
        shared
            .slots
            .provide(shared.policy.load().limits.connections_max, shared.egress_listener.connections_max());
        let (stop, stopping) = watch::channel(false);
        let (stop_egress, egress_stopping) = watch::channel(false);
        let doors = addresses.ingress.iter().filter_map(Bound::door).collect();
        let egress_door = addresses.egress.iter().filter_map(Bound::door).collect();
        let ingress = addresses.ingress.iter().map(|bound| bound.address).collect();
        let egress = addresses.egress.as_ref().map(|bound| bound.address);
        let admin_address = addresses.admin.as_ref().map(|bound| bound.address);
        let accepting = |(bound, entrance): (Bound, &Arc<ArcSwap<Entrance>>)| {
            let (shared, entrance) = (Arc::clone(&shared), Arc::clone(entrance));
            Ok(tokio::spawn(accept::run(shared, entrance, listening(bound)?, stopping.clone())))
        };
        let ears = addresses.ingress.into_iter().zip(&entrances).map(accepting);
        let mut tasks = ears.collect::<Result<Vec<_>, StartError>>()?;
        if let Some(bound) = addresses.egress {
            let listener = listening(bound)?;
            tasks.push(tokio::spawn(egress_server::run(Arc::clone(&shared), listener, egress_stopping)));
        }
        tasks.push(tokio::spawn(overdue::run(Arc::clone(&shared))));
        tasks.push(tokio::spawn(work.run()));
        // The admin listener goes on until the last exchange has ended: readiness is asked for there.
        let (stop_admin, admin_stopping) = watch::channel(false);
        if let Some(bound) = addresses.admin {
            let listener = listening(bound)?;
            tasks.push(tokio::spawn(plain::serve(listener, admin, admin_stopping)));
        }
        tell(&shared, &entrances);
        Ok(Self {
            entrances,
            own,
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

    /// Makes ready what serving by another configuration needs: everything that can fail, and that takes a while.
    /// `startup` is known to differ in nothing that only a restart changes.
    pub fn preparing(
        &self,
        startup: Startup,
        policy: Policy,
    ) -> impl FnOnce() -> Result<Prepared, String> + Send + 'static {
        let shared = Arc::clone(&self.shared);
        move || {
            let entrances = entrances(&startup)?;
            let providers = providers(&startup, &policy).map_err(|error| error.to_string())?;
            let providers = (!providers.trust_the_same_as(&shared.providers.load())).then_some(providers);
            let egress_listener = startup.egress.map(Arc::new);
            Ok(Prepared { egress_listener, entrances, providers, policy: with_cached(policy)? })
        }
    }

    /// Serves by another configuration from here on. Requests that are under way end by the one they began with.
    pub fn install(&self, prepared: Prepared) {
        let (shared, Prepared { egress_listener, entrances, providers, policy }) = (&self.shared, prepared);
        if let Some(providers) = providers {
            shared.providers.store(Arc::new(providers.beside(self.own.clone())));
        }
        // The rules first: a route that asks for more than its listener gives refuses.
        let before = shared.policy.rcu(|old| policy.carrying_on(old));
        if before.agent.address != policy.agent.address {
            shared.pool.renew();
        }
        shared.egress_listener.settings.store(egress_listener);
        shared.slots.provide(policy.limits.connections_max, shared.egress_listener.connections_max());
        for (place, entrance) in self.entrances.iter().zip(entrances) {
            place.store(Arc::new(entrance));
        }
        tell(shared, &self.entrances);
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
        let last = Arc::clone(shared);
        let closed = tokio::task::spawn_blocking(move || {
            last.store.close();
            last.traces.iter().for_each(Traces::stop);
        });
        if timeout(STORE_CLOSES, closed).await.is_err() {
            log::error!("the ledger's file could not be closed in time");
        }
        shared.ingress.count() + shared.notices.count() + shared.egress.count()
    }
}

/// What all exchanges share, with nothing under way.
fn shared(
    startup: &Startup,
    policy: Arc<ArcSwap<Policy>>,
    options: Options,
    addresses: &Addresses,
    providers: Providers,
    fetcher: Fetcher,
) -> Shared {
    Shared {
        policy,
        pool: Pool::default(),
        ledger_clock: options.ledger_clock,
        clock: options.clock,
        metrics: options.metrics,
        store: options.store,
        actions_url: addresses.egress.as_ref().map(actions_url).unwrap_or_default(),
        egress_listener: egress_server::Listener::new(startup.egress.clone()),
        providers: ArcSwap::from_pointee(providers),
        fetcher,
        access_log: options.access_log,
        traces: options.traces,
        recent: options.recent,
        request_ids: RequestIds::new(),
        slots: Arc::default(),
        body_memory: BodyMemory::default(),
        rates: Rates::default(),
        refusals: Refusals::default(),
        ingress: Traffic::default(),
        egress: Traffic::default(),
        notices: Traffic::default(),
        http2: Traffic::default(),
        leaving: AtomicBool::new(false),
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

/// What the agent's local URL of an action endpoint begins with.
fn actions_url(bound: &Bound) -> Box<str> {
    format!("http://{}/{ACTIONS}/", reachable(bound.address)).into()
}

fn bind_named(address: SocketAddr) -> Result<Bound, StartError> {
    bind(address).map_err(|error| StartError::Bind(address, error))
}

/// How connections begin at each listener.
fn entrances(startup: &Startup) -> Result<Vec<Entrance>, String> {
    startup.ingress.iter().map(Entrance::new).collect()
}

/// Tells of what is served by: certificates, and routes that only observe.
fn tell(shared: &Shared, entrances: &[Arc<ArcSwap<Entrance>>]) {
    let loaded: Vec<_> = entrances.iter().map(|entrance| entrance.load_full()).collect();
    let ends = loaded.iter().filter_map(|entrance| entrance.tls.as_ref()).flat_map(|tls| &tls.ends);
    shared.metrics.certificates(ends.map(|(file, end)| (&**file, *end)));
    let policy = shared.policy.load();
    shared.metrics.routes_observing(policy.ingress.routes().iter().filter(|route| route.observes()).count());
}

fn listening(bound: Bound) -> Result<TcpListener, StartError> {
    let address = bound.address;
    TcpListener::from_std(bound.into_listener()).map_err(|error| StartError::Bind(address, error))
}

/// Longest wait, once no exchange begins any more, for one that had just begun.
const LAST_EXCHANGES: Duration = Duration::from_secs(1);

/// Longest wait for a disk, once everything that is acknowledged is on it.
const STORE_CLOSES: Duration = Duration::from_secs(5);
