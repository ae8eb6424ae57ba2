//! The server: binds the listeners, serves requests, installs new configurations, and stops.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use arc_swap::ArcSwap;
use pingora::server::ShutdownWatch;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::addresses::{Addresses, StartError};
use super::components::{Components, Options};
use super::egress::{Authority, EgressSettings, OwnAddresses, Providers, listener};
use super::ingress::{self, Agents, PreparedAgents};
use super::listen::{AcceptQueue, BoundListener, ListenerConfig, TicketKeys, accept, close};
use super::replicas::run_discovery;
use super::runtime::Drain;
use super::upkeep::close_files;
use crate::clock::instant;
use crate::config::{Startup, StoreSettings};
use crate::fetch::{Fetcher, with_cached};
use crate::policy::Policy;
use crate::time::Timestamp;

/// A running server.
pub struct Server {
    /// The bound addresses of the ingress listeners, in the order of the configuration.
    pub ingress: Vec<SocketAddr>,
    /// The bound address of the egress listener. `None` if there is no egress listener.
    pub egress: Option<SocketAddr>,
    /// The bound address of the admin listener. `None` if there is no admin listener.
    pub admin: Option<SocketAddr>,
    /// The bound address of the replica listener. `None` if there is no replica listener.
    pub replicas: Option<SocketAddr>,
    listeners: Vec<Arc<ArcSwap<ListenerConfig>>>,
    replica_config: Option<Arc<ArcSwap<ListenerConfig>>>,
    /// The random keys of TLS session tickets. A reload does not replace these keys.
    ticket_keys: Arc<TicketKeys>,
    /// The bound addresses of all listeners. An agent's answer to a question must not be sent to one of these
    /// addresses.
    own_addresses: OwnAddresses,
    ingress_queues: Vec<AcceptQueue>,
    egress_queues: Vec<AcceptQueue>,
    stop_ingress: watch::Sender<bool>,
    stop_egress: watch::Sender<bool>,
    stop_admin: watch::Sender<bool>,
    stop_replicas: watch::Sender<bool>,
    /// The tasks that accept ingress connections. Each task ends by itself after its listener has stopped.
    accept_callbacks: Vec<JoinHandle<()>>,
    /// The task that accepts egress connections. The task ends by itself after its listener has stopped.
    accept_requests: Option<JoinHandle<()>>,
    /// The task of the admin listener. After the listener has stopped, the task ends when all its requests have a
    /// response.
    admin_task: Option<JoinHandle<()>>,
    components: Components,
    tasks: Vec<JoinHandle<()>>,
}

/// A new configuration whose files have been read, to be activated by [`Server::install`].
pub struct Prepared {
    agents: PreparedAgents,
    egress_listener: Option<EgressSettings>,
    listeners: Vec<ListenerConfig>,
    replica_listener: Option<ListenerConfig>,
    providers: Option<Providers>,
    policy: Policy,
    store: StoreSettings,
}

impl Server {
    /// Binds every listener of `startup` and serves. Calls `admin` with the admin listener and a shutdown watch. The
    /// future that `admin` returns must serve the listener until the watch changes. Must be called within a tokio
    /// runtime.
    ///
    /// # Errors
    /// Returns a [`StartError`] if the server cannot start. No address stays bound.
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
        crate::tls_crypto::install();
        let providers = providers(startup, &policy.load())?;
        let agents = Agents::new(&policy.load().agents).map_err(StartError::Tls)?;
        let (fetcher, fetch_task) = Fetcher::new(&policy, &options.metrics).map_err(StartError::Component)?;
        // Certificates are checked before the first address is bound.
        let ticket_keys = TicketKeys::new(options.clock.clone());
        let listeners = first_listener_configs(startup, &ticket_keys)?;
        let egress_settings = first_egress_settings(startup, &policy.load(), &options)?;
        let replica_listener = replica_config(startup).map_err(StartError::Tls)?;
        let addresses = Addresses::bind(startup)?;
        egress_settings.iter().try_for_each(EgressSettings::publish).map_err(StartError::Tls)?;
        let own_addresses = addresses.own_addresses();
        let providers = providers.with_own_addresses(own_addresses.clone());
        let egress_address = addresses.egress.as_ref().map(|bound| bound.address);
        let components = Components::new(
            egress_settings.zip(egress_address),
            policy,
            options,
            (providers, agents),
            fetcher,
        );
        let (stop_ingress, ingress_stopping) = watch::channel(false);
        let (stop_egress, egress_stopping) = watch::channel(false);
        // The admin listener stops last, because readiness probes need a response until the last request has ended.
        let (stop_admin, admin_stopping) = watch::channel(false);
        let (stop_replicas, replicas_stopping) = watch::channel(false);
        let mut server = Self {
            ingress: addresses.ingress.iter().map(|bound| bound.address).collect(),
            egress: egress_address,
            admin: addresses.admin.as_ref().map(|bound| bound.address),
            replicas: addresses.replicas.as_ref().map(|bound| bound.address),
            own_addresses,
            ingress_queues: addresses.ingress.iter().filter_map(BoundListener::queue).collect(),
            egress_queues: addresses.egress.iter().filter_map(BoundListener::queue).collect(),
            stop_ingress,
            stop_egress,
            stop_admin,
            stop_replicas,
            replica_config: replica_listener.map(|config| Arc::new(ArcSwap::from_pointee(config))),
            accept_callbacks: Vec::new(),
            accept_requests: None,
            admin_task: None,
            tasks: Vec::new(),
            components,
            listeners,
            ticket_keys,
        };
        server.accept_callbacks(addresses.ingress, &ingress_stopping)?;
        if let Some(bound) = addresses.egress {
            let egress = Arc::clone(&server.components.egress);
            let run = listener::run(egress, listening(bound)?, egress_stopping);
            server.accept_requests = Some(tokio::spawn(run));
        }
        if let Some(bound) = addresses.admin {
            server.admin_task = Some(tokio::spawn(admin(listening(bound)?, admin_stopping)));
        }
        server.accept_members(addresses.replicas, &replicas_stopping)?;
        server.spawn_tasks();
        server.spawn(fetch_task.run());
        server.components.report(&server.listeners);
        Ok(server)
    }

    fn spawn_tasks(&mut self) {
        self.spawn(ingress::run_notices(Arc::clone(&self.components.notices)));
        self.spawn(ingress::run_deliveries(Arc::clone(&self.components.deliveries)));
        self.spawn(self.components.upkeep().run());
    }

    fn spawn(&mut self, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.push(tokio::spawn(task));
    }

    /// Starts accepting connections on the ingress listeners.
    fn accept_callbacks(
        &mut self,
        bound: Vec<BoundListener>,
        stopping: &ShutdownWatch,
    ) -> Result<(), StartError> {
        for (bound, config) in bound.into_iter().zip(self.listeners.clone()) {
            let (ingress, watch) = (Arc::clone(&self.components.ingress), stopping.clone());
            let serve = move |stream, info| ingress::serve(Arc::clone(&ingress), stream, info, watch.clone());
            let admission = Arc::clone(&self.components.admission);
            let run = accept::run(admission, config, listening(bound)?, stopping.clone(), serve);
            self.accept_callbacks.push(tokio::spawn(run));
        }
        Ok(())
    }

    /// Starts accepting connections of other replicas, and starts to discover the other replicas.
    fn accept_members(
        &mut self,
        bound: Option<BoundListener>,
        stopping: &ShutdownWatch,
    ) -> Result<(), StartError> {
        let (Some(bound), Some(replicas), Some(config)) =
            (bound, self.components.replicas.clone(), self.replica_config.clone())
        else {
            return Ok(());
        };
        replicas.replication.listens_on(bound.address.port());
        self.spawn(run_discovery(Arc::clone(&replicas.replication)));
        let watch = stopping.clone();
        let serve = move |stream, info| Arc::clone(&replicas).serve(stream, info, watch.clone());
        // Other replicas have a separate connection limit, so that callers at the ingress listeners cannot use up this
        // limit.
        let admission = Arc::new(self.components.admission.apart());
        self.spawn(accept::run(admission, config, listening(bound)?, stopping.clone(), serve));
        Ok(())
    }

    /// Returns a function that prepares a new configuration. The function reads files, so it must run outside the async
    /// workers. The caller must check that the new configuration changes only settings that a reload may change.
    pub fn preparing(
        &self,
        startup: Startup,
        policy: Policy,
    ) -> impl FnOnce() -> Result<Prepared, String> + Send + 'static {
        let (current, own_addresses) =
            (Arc::clone(&self.components.egress.providers), self.own_addresses.clone());
        let agents = Arc::clone(&self.components.ingress.agents);
        let egress = Arc::clone(&self.components.egress);
        let ticket_keys = Arc::clone(&self.ticket_keys);
        move || {
            let listeners = listener_configs(&startup, &ticket_keys)?;
            let providers = providers(&startup, &policy).map_err(|error| error.to_string())?;
            let providers = (!providers.has_same_settings(&current.load()))
                .then(|| providers.with_own_addresses(own_addresses));
            let current = egress.limits.authority.load_full();
            let egress_listener = egress_settings(&startup, &policy, current, egress.clocks.wall.now())?;
            let agents = agents.prepare(&policy.agents)?;
            let replica_listener = replica_config(&startup)?;
            let policy = with_cached(policy)?;
            egress_listener.iter().try_for_each(EgressSettings::publish)?;
            let store = startup.store;
            Ok(Prepared { agents, egress_listener, listeners, replica_listener, providers, policy, store })
        }
    }

    /// Installs a new configuration. Requests in flight retain the configuration with which they began.
    pub fn install(&self, prepared: Prepared) {
        let Prepared { agents, egress_listener, listeners, replica_listener, providers, policy, store } =
            prepared;
        self.components.ingress.store.log_in_again(&store);
        // The policy is installed before the listeners. In between, a route that requires client certificates denies
        // callbacks from listeners that do not verify client certificates yet.
        self.components.install(&policy, providers, agents, egress_listener);
        for (current, config) in self.listeners.iter().zip(listeners) {
            current.store(Arc::new(config));
        }
        if let (Some(current), Some(config)) = (&self.replica_config, replica_listener) {
            current.store(Arc::new(config));
        }
        self.components.report(&self.listeners);
    }

    /// Stops the server gracefully and returns the number of requests that were cut off.
    ///
    /// During `delay`, Callgate still accepts connections, but closes each HTTP/1 ingress connection after its next
    /// response, so that callers connect elsewhere. Then Callgate stops accepting connections, waits up to `grace` for
    /// requests in flight, and closes the ledger. The egress listener serves the agent until the callbacks have ended.
    pub async fn stop(self, delay: Duration, grace: Duration) -> usize {
        let Components { ingress, egress, notices, deliveries, .. } = &self.components;
        ingress.drain.close_connections.store(true, Ordering::Relaxed);
        let replication = self.components.replicas.as_ref().map(|replicas| &replicas.replication);
        replication.into_iter().for_each(|replication| replication.stopping());
        tokio::time::sleep(delay).await;
        let deadline = instant() + grace;
        let shortest_wait = grace.min(LAST_EXCHANGES_WAIT);
        let time_left = || deadline.saturating_duration_since(instant()).max(shortest_wait);
        notices.drain.close();
        deliveries.drain.close();
        ingress.store.inbox().stop();
        close(self.ingress_queues, time_left()).await;
        let _ = self.stop_ingress.send(true);
        let new_connections = &self.components.admission.new_connections;
        serve_new_connections(self.accept_callbacks, new_connections, shortest_wait).await;
        // Other replicas must also stop forwarding callbacks, because otherwise a request might always be in flight.
        replication.into_iter().for_each(|replication| replication.leaving());
        let _ = timeout(time_left(), ingress.drain.requests.wait_until_empty()).await;
        // From now on, new requests on kept-alive connections are denied. Callgate still waits for requests in flight.
        ingress.drain.requests.close();
        let callbacks = async {
            tokio::join!(
                ingress.drain.requests.wait_until_empty(),
                notices.drain.wait_until_empty(),
                deliveries.drain.wait_until_empty(),
                ingress.drain.http2.wait_until_empty()
            )
        };
        let _ = timeout(time_left(), callbacks).await;
        close(self.egress_queues, time_left()).await;
        let _ = self.stop_egress.send(true);
        serve_new_connections(self.accept_requests, &egress.new_connections, shortest_wait).await;
        let _ = timeout(time_left(), egress.drain.wait_until_empty()).await;
        egress.drain.close();
        let _ = timeout(time_left(), egress.drain.wait_until_empty()).await;
        // The ledger does not change any more, so it can be moved to another replica.
        if let Some(replication) = replication {
            replication.leave().await;
        }
        ingress.store.leave_shared().await;
        let _ = self.stop_replicas.send(true);
        for task in &self.tasks {
            task.abort();
        }
        let _ = self.stop_admin.send(true);
        if let Some(admin) = self.admin_task {
            let _ = timeout(shortest_wait, admin).await;
        }
        close_files(ingress).await;
        self.components.in_flight()
    }
}

/// Waits until the pending connections are accepted, and then until their first requests have begun. Each wait ends
/// after `wait` at the latest.
async fn serve_new_connections(
    accepting: impl IntoIterator<Item = JoinHandle<()>>,
    new_connections: &Drain,
    wait: Duration,
) {
    for task in accepting {
        let abort = task.abort_handle();
        if timeout(wait, task).await.is_err() {
            abort.abort();
        }
    }
    let _ = timeout(wait, new_connections.wait_until_empty()).await;
}

/// Creates the HTTP client for providers. Reads the trusted roots only if the configuration has egress rules,
/// questions, a forward proxy or `agent.wake`, because reading the roots takes time and memory.
fn providers(startup: &Startup, policy: &Policy) -> Result<Providers, StartError> {
    let wakes = policy.agents.iter().any(|agent| agent.wake.is_some());
    if startup.egress.is_none() && !wakes {
        return Ok(Providers::none());
    }
    let actions = policy.ingress.routes().iter().any(|route| route.actions.is_some());
    let is_proxy = startup.egress.as_ref().is_some_and(|egress| egress.proxy.is_some());
    if policy.egress.rules().is_empty() && !actions && !is_proxy && !wakes {
        return Ok(Providers::none());
    }
    let providers = Providers::new(policy.trusted_roots.as_ref().map(|roots| &*roots.path));
    Ok(providers.map_err(StartError::Tls)?.with_proxy(policy.outbound_proxy.clone()))
}

/// Reads the certificate files of each ingress listener.
fn listener_configs(startup: &Startup, keys: &Arc<TicketKeys>) -> Result<Vec<ListenerConfig>, String> {
    startup.ingress.iter().map(|listener| ListenerConfig::new(listener, keys)).collect()
}

/// Calls [`listener_configs`] at the start of the server. Wraps each result so that a reload can replace it. Converts
/// the error to a [`StartError`].
fn first_listener_configs(
    startup: &Startup,
    keys: &Arc<TicketKeys>,
) -> Result<Vec<Arc<ArcSwap<ListenerConfig>>>, StartError> {
    let configs = listener_configs(startup, keys).map_err(StartError::Tls)?;
    Ok(configs.into_iter().map(|config| Arc::new(ArcSwap::from_pointee(config))).collect())
}

/// Reads the certificate files of the replica listener.
fn replica_config(startup: &Startup) -> Result<Option<ListenerConfig>, String> {
    startup.replicas.as_ref().map(|one| ListenerConfig::for_members(&one.listener)).transpose()
}

/// Reads the certificate files of the egress listener. `authority` is the current authority of the forward proxy.
fn egress_settings(
    startup: &Startup,
    policy: &Policy,
    authority: Option<Arc<Authority>>,
    now: Timestamp,
) -> Result<Option<EgressSettings>, String> {
    let load = |listener| EgressSettings::load(listener, &policy.egress, authority, now);
    startup.egress.as_ref().map(load).transpose()
}

/// Calls [`egress_settings`] at the start of the server, when there is no certificate authority yet. Converts the error
/// to a [`StartError`].
fn first_egress_settings(
    startup: &Startup,
    policy: &Policy,
    options: &Options,
) -> Result<Option<EgressSettings>, StartError> {
    egress_settings(startup, policy, None, options.clock.now()).map_err(StartError::Tls)
}

fn listening(bound: BoundListener) -> Result<TcpListener, StartError> {
    let address = bound.address;
    TcpListener::from_std(bound.into_listener()).map_err(|error| StartError::Bind(address, error))
}

/// The minimum time that a stopping server waits for requests that began just before the listeners closed, unless
/// `grace` is shorter.
const LAST_EXCHANGES_WAIT: Duration = Duration::from_secs(1);
