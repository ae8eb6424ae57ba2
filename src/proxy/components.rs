//! The components of a running server, each with references to the components that it uses.

use std::net::SocketAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;

use super::egress::{EgressContext, EgressLimits, EgressSettings, Providers};
use super::ingress::{
    Agents, Deliveries, IngressContext, IngressDrain, Notices, PreparedAgents, RateLimits, ReplicaListener,
};
use super::listen::{Admission, ConnectionLimits, ListenerConfig, LogThrottle, TlsConfig, expiry};
use super::pem_files;
use super::replicas::{CallbacksApi, Replication};
use super::runtime::{Clocks, Drain, Recorder, RequestIds};
use super::upkeep::Upkeep;
use crate::agent::Agent;
use crate::clock::{Clock, LedgerClock};
use crate::config::ACTIONS;
use crate::fetch::Fetcher;
use crate::guard::Url;
use crate::http::BodyMemory;
use crate::ingress::Route;
use crate::observe::capture::Captures;
use crate::observe::{AccessLogger, Metrics, Recent, Traces};
use crate::policy::Policy;
use crate::source::reachable;
use crate::store::Store;

/// The parts of a server that are created before the server starts.
pub struct Options {
    /// The wall clock for decisions, such as whether a token is expired.
    pub clock: Clock,
    /// The clock for the deadlines of interactions.
    pub ledger_clock: Arc<LedgerClock>,
    /// The metrics.
    pub metrics: Arc<Metrics>,
    /// The ledger.
    pub store: Arc<Store>,
    /// The connections to the other replicas, and the function that responds to requests of other replicas about
    /// interactions. `None` without the section `replicas`.
    pub replication: Option<(Arc<Replication>, CallbacksApi)>,
    /// The access log. `None` if the access log is disabled.
    pub access_log: Option<AccessLogger>,
    /// The exporter of trace spans. `None` if tracing is disabled.
    pub traces: Option<Traces>,
    /// The recent requests for the admin page. `None` if there is no admin page.
    pub recent: Option<Arc<Recent>>,
    /// The captured requests: denied requests that are stored for an operator.
    pub captures: Arc<Captures>,
}

impl Options {
    /// Converts the options into the recorder of requests. Also returns the connections to the other replicas, with the
    /// function that responds to requests of other replicas.
    fn into_recorder(self) -> (Arc<Recorder>, Option<(Arc<Replication>, CallbacksApi)>) {
        let recorder = Recorder {
            clock: self.clock,
            metrics: self.metrics,
            access_log: self.access_log,
            traces: self.traces,
            recent: self.recent,
            captures: self.captures,
            request_ids: RequestIds::new(),
        };
        (Arc::new(recorder), self.replication)
    }
}

/// The components of a running server.
pub(super) struct Components {
    pub(super) admission: Arc<Admission>,
    pub(super) egress: Arc<EgressContext>,
    pub(super) ingress: Arc<IngressContext>,
    pub(super) notices: Arc<Notices>,
    pub(super) deliveries: Arc<Deliveries>,
    /// The replica listener. `None` without the section `replicas`.
    pub(super) replicas: Option<Arc<ReplicaListener>>,
}

impl Components {
    /// Creates the components. `egress` contains the settings and the bound address of the egress listener, or `None`
    /// without an egress listener.
    pub(super) fn new(
        egress: Option<(EgressSettings, SocketAddr)>,
        policy: Arc<ArcSwap<Policy>>,
        options: Options,
        (providers, agents): (Providers, Agents),
        fetcher: Fetcher,
    ) -> Self {
        let address = egress.as_ref().map(|(_, address)| *address);
        let actions_url =
            egress.as_ref().map(|(settings, at)| actions_url(settings, *at)).unwrap_or_default();
        let clocks = Clocks { wall: options.clock.clone(), ledger: Arc::clone(&options.ledger_clock) };
        let (store, agents) = (Arc::clone(&options.store), Arc::new(agents));
        let (recorder, replication) = options.into_recorder();
        let log_throttle = Arc::<LogThrottle>::default();
        let other_members = replication.as_ref().map(|(replication, _)| Arc::clone(replication));
        let admission = Admission {
            policy: Arc::clone(&policy),
            limits: Arc::<ConnectionLimits>::default(),
            metrics: Arc::clone(&recorder.metrics),
            log_throttle: Arc::clone(&log_throttle),
            new_connections: Drain::default(),
        };
        let egress = EgressContext {
            policy: Arc::clone(&policy),
            clocks: clocks.clone(),
            recorder: Arc::clone(&recorder),
            store: Arc::clone(&store),
            providers: Arc::new(ArcSwap::from_pointee(providers)),
            limits: EgressLimits::new(egress.map(|(settings, _)| settings), address),
            log_throttle,
            drain: Drain::default(),
            new_connections: Drain::default(),
        };
        let notices = Notices {
            policy: Arc::clone(&policy),
            clocks: clocks.clone(),
            recorder: Arc::clone(&recorder),
            store: Arc::clone(&store),
            agents: Arc::clone(&agents),
            drain: Drain::default(),
            replication: other_members.clone(),
        };
        let deliveries = Deliveries::new(
            Arc::clone(&policy),
            clocks.clone(),
            Arc::clone(&recorder),
            Arc::clone(&store),
            (Arc::clone(&agents), Arc::clone(&egress.providers)),
        );
        let ingress = IngressContext {
            policy,
            clocks,
            recorder,
            store,
            agents,
            replication: other_members,
            fetcher,
            rate_limits: RateLimits::default(),
            body_memory: BodyMemory::default(),
            actions_url,
            drain: IngressDrain::default(),
        };
        let ingress = Arc::new(ingress);
        let replicas = replication
            .map(|(replication, callbacks)| Arc::new(ReplicaListener::new(&ingress, replication, callbacks)));
        let (admission, egress, notices) = (Arc::new(admission), Arc::new(egress), Arc::new(notices));
        Self { admission, egress, ingress, notices, deliveries: Arc::new(deliveries), replicas }.begun()
    }

    /// Raises the limit of open files and applies the current policy to the inbox.
    fn begun(self) -> Self {
        let policy = self.ingress.policy.load_full();
        self.raise_file_limit(&policy);
        self.deliveries.install(&policy);
        self
    }

    /// Raises the limit of open files to the number that the policy and the egress listener require.
    fn raise_file_limit(&self, policy: &Policy) {
        self.admission
            .limits
            .raise_file_limit(policy.limits.connections_max, self.egress.limits.connections_max());
    }

    /// Replaces the policy, the HTTP clients for agents, and the settings of the egress listener. If `providers` is
    /// `Some`, also replaces the HTTP client for providers. Requests in flight retain the policy and the settings with
    /// which they began.
    pub(super) fn install(
        &self,
        policy: &Policy,
        providers: Option<Providers>,
        agents: PreparedAgents,
        egress: Option<EgressSettings>,
    ) {
        if let Some(providers) = providers {
            self.egress.providers.store(Arc::new(providers));
        }
        self.ingress.policy.rcu(|old| policy.carrying_on(old));
        self.ingress.agents.install(agents);
        self.deliveries.install(policy);
        self.egress.limits.install(egress);
        self.raise_file_limit(policy);
    }

    /// Creates the upkeep task for these components.
    pub(super) fn upkeep(&self) -> Upkeep {
        Upkeep {
            agents: Arc::clone(&self.ingress.agents),
            body_memory: self.ingress.body_memory.clone(),
            connection_limits: Arc::clone(&self.admission.limits),
            metrics: Arc::clone(&self.ingress.recorder.metrics),
            providers: Arc::clone(&self.egress.providers),
        }
    }

    /// Updates the metrics that depend on the configuration: the expiry times of certificates, the names of agents and
    /// routes, the numbers of routes with `stream: true` and of routes in observe mode, and the routes whose
    /// interactions can only expire.
    pub(super) fn report(&self, listeners: &[Arc<ArcSwap<ListenerConfig>>]) {
        let metrics = &self.ingress.recorder.metrics;
        let loaded: Vec<_> = listeners.iter().map(|config| config.load_full()).collect();
        let egress = self.egress.limits.tls.load_full();
        let tls = loaded.iter().filter_map(|config| config.tls.as_ref()).chain(egress.as_deref());
        let expiries = tls.flat_map(|tls| &tls.expiries);
        let policy = self.ingress.policy.load();
        let agents = policy.agents.iter().filter_map(|agent| client_certificate_expiry(agent));
        let authority = self.egress.limits.authority.load_full();
        let agents = agents.chain(authority.iter().map(|authority| authority.expiry()));
        metrics.certificates(expiries.map(|(file, expiry)| (&**file, *expiry)).chain(agents));
        policy.agents.iter().for_each(|agent| metrics.expect_agent(&agent.name));
        policy.ingress.routes().iter().for_each(|route| metrics.expect_route(&route.name));
        metrics.routes_streaming(policy.ingress.routes().iter().filter(|route| route.stream).count());
        metrics.routes_observing(policy.ingress.routes().iter().filter(|route| route.observes()).count());
        metrics.routes_only_expire(policy.routes_that_only_expire());
        let rewrites = |route: &Arc<Route>| route.actions.as_ref().is_some_and(|actions| actions.rewrite);
        if let Some(tls) = egress
            && policy.ingress.routes().iter().any(rewrites)
        {
            self.warn_about_local_urls(&tls);
        }
    }

    /// Warns if the certificate of the egress listener does not contain the IP address of the URLs at which the agent
    /// answers questions. At these URLs, the agent cannot verify the certificate.
    fn warn_about_local_urls(&self, tls: &TlsConfig) {
        let url = &self.ingress.actions_url;
        let address = Url::parse(url).ok().and_then(|url| url.address());
        if let Some(address) = address.filter(|address| !tls.addresses.contains(address)) {
            log::warn!(
                "the certificate of `listen.egress.tls` does not contain the IP address {address}: the agent cannot verify it at the local URLs for answers, which begin with {url} (`actions.rewrite`)"
            );
        }
    }

    /// Returns the number of requests and deliveries in flight.
    pub(super) fn in_flight(&self) -> usize {
        let to_agent = self.notices.drain.count() + self.deliveries.drain.count();
        self.ingress.drain.requests.count() + to_agent + self.egress.drain.count()
    }
}

/// Returns the URL prefix at which the agent answers questions of providers.
fn actions_url(settings: &EgressSettings, egress: SocketAddr) -> Box<str> {
    let scheme = if settings.has_tls() { "https" } else { "http" };
    format!("{scheme}://{}/{ACTIONS}/", reachable(egress)).into()
}

/// Returns the path and the expiry time, in Unix seconds, of the client certificate that Callgate presents to an agent.
/// Returns `None` if Callgate presents no certificate.
fn client_certificate_expiry(agent: &Agent) -> Option<(&str, i64)> {
    let file = &agent.tls.as_ref()?.certificate.as_ref()?.certificate;
    let chain = pem_files::certificates_in(&file.path, file.content.expose()).ok()?;
    Some((&file.path, expiry(chain.first()?)?))
}
