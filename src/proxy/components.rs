//! The components of a running server, each with the handles that it needs.

use std::net::SocketAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;

use super::egress::{EgressContext, EgressLimits, Providers};
use super::ingress::{Agents, IngressContext, IngressDrain, Notices, PreparedAgents, RateLimits};
use super::listen::{Admission, ConnectionLimits, ListenerConfig, LogThrottle, expiry};
use super::pem_files;
use super::runtime::{Clocks, Drain, Recorder, RequestIds};
use super::upkeep::Upkeep;
use crate::agent::Agent;
use crate::clock::{Clock, LedgerClock};
use crate::config::{ACTIONS, EgressListener, Startup};
use crate::fetch::Fetcher;
use crate::http::BodyMemory;
use crate::observe::{AccessLogger, Metrics, Recent, Traces};
use crate::policy::Policy;
use crate::source::reachable;
use crate::store::Store;

/// The parts of a server that are created before the server starts.
pub struct Options {
    /// The wall clock for decisions.
    pub clock: Clock,
    /// The clock for the deadlines of interactions.
    pub ledger_clock: Arc<LedgerClock>,
    /// The metrics.
    pub metrics: Arc<Metrics>,
    /// The ledger.
    pub store: Arc<Store>,
    /// The access log. `None` disables it.
    pub access_log: Option<AccessLogger>,
    /// The exporter of trace spans. `None` disables tracing.
    pub traces: Option<Traces>,
    /// The recent requests for the admin page. `None` if there is no admin page.
    pub recent: Option<Arc<Recent>>,
}

/// The components of a running server.
pub(super) struct Components {
    pub(super) admission: Arc<Admission>,
    pub(super) egress: Arc<EgressContext>,
    pub(super) ingress: Arc<IngressContext>,
    pub(super) notices: Arc<Notices>,
}

impl Components {
    /// Creates the components. `egress_address` is the bound address of the egress listener, if there is one.
    pub(super) fn new(
        startup: &Startup,
        policy: Arc<ArcSwap<Policy>>,
        options: Options,
        egress_address: Option<SocketAddr>,
        (providers, agents): (Providers, Agents),
        fetcher: Fetcher,
    ) -> Self {
        let clocks = Clocks { wall: options.clock, ledger: options.ledger_clock };
        let recorder = Arc::new(Recorder {
            clock: clocks.wall.clone(),
            metrics: options.metrics,
            access_log: options.access_log,
            traces: options.traces,
            recent: options.recent,
            request_ids: RequestIds::new(),
        });
        let (store, agents) = (options.store, Arc::new(agents));
        let log_throttle = Arc::<LogThrottle>::default();
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
            limits: EgressLimits::new(startup.egress.clone()),
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
        };
        let ingress = IngressContext {
            policy,
            clocks,
            recorder,
            store,
            agents,
            fetcher,
            rate_limits: RateLimits::default(),
            body_memory: BodyMemory::default(),
            actions_url: egress_address.map(actions_url).unwrap_or_default(),
            drain: IngressDrain::default(),
        };
        let components = Self {
            admission: Arc::new(admission),
            egress: Arc::new(egress),
            ingress: Arc::new(ingress),
            notices: Arc::new(notices),
        };
        components.raise_file_limit(&components.ingress.policy.load());
        components
    }

    /// Raises the limit of open files to the number that the policy and the egress listener require.
    fn raise_file_limit(&self, policy: &Policy) {
        self.admission
            .limits
            .raise_file_limit(policy.limits.connections_max, self.egress.limits.connections_max());
    }

    /// Replaces the policy, the settings of the egress listener and, if `providers` is `Some`, the client for
    /// providers. Requests in flight keep the policy and the settings with which they began.
    pub(super) fn install(
        &self,
        policy: &Policy,
        providers: Option<Providers>,
        agents: PreparedAgents,
        egress: Option<Arc<EgressListener>>,
    ) {
        if let Some(providers) = providers {
            self.egress.providers.store(Arc::new(providers));
        }
        self.ingress.policy.rcu(|old| policy.carrying_on(old));
        self.ingress.agents.install(agents);
        self.egress.limits.settings.store(egress);
        self.raise_file_limit(policy);
    }

    /// Creates the upkeep task of these components.
    pub(super) fn upkeep(&self) -> Upkeep {
        Upkeep {
            agents: Arc::clone(&self.ingress.agents),
            body_memory: self.ingress.body_memory.clone(),
            connection_limits: Arc::clone(&self.admission.limits),
            metrics: Arc::clone(&self.ingress.recorder.metrics),
            providers: Arc::clone(&self.egress.providers),
        }
    }

    /// Updates the metrics of certificates and of routes in observe mode.
    pub(super) fn report(&self, listeners: &[Arc<ArcSwap<ListenerConfig>>]) {
        let metrics = &self.ingress.recorder.metrics;
        let loaded: Vec<_> = listeners.iter().map(|config| config.load_full()).collect();
        let expiries = loaded.iter().filter_map(|config| config.tls.as_ref()).flat_map(|tls| &tls.expiries);
        let policy = self.ingress.policy.load();
        let agents = policy.agents.iter().filter_map(|agent| client_certificate_expiry(agent));
        metrics.certificates(expiries.map(|(file, expiry)| (&**file, *expiry)).chain(agents));
        policy.agents.iter().for_each(|agent| metrics.expect_agent(&agent.name));
        metrics.routes_streaming(policy.ingress.routes().iter().filter(|route| route.stream).count());
        metrics.routes_observing(policy.ingress.routes().iter().filter(|route| route.observes()).count());
    }

    /// Returns how many requests and notices are in flight.
    pub(super) fn in_flight(&self) -> usize {
        self.ingress.drain.requests.count() + self.notices.drain.count() + self.egress.drain.count()
    }
}

/// Returns the prefix of the local URLs to which the agent sends its answers to questions.
fn actions_url(egress: SocketAddr) -> Box<str> {
    format!("http://{}/{ACTIONS}/", reachable(egress)).into()
}

/// Returns the path and the expiry time, in Unix seconds, of the certificate that Callgate presents to an agent. The
/// file was checked when the agent's client was created.
fn client_certificate_expiry(agent: &Agent) -> Option<(&str, i64)> {
    let file = &agent.tls.as_ref()?.certificate.as_ref()?.certificate;
    let chain = pem_files::certificates_in(&file.path, file.content.expose()).ok()?;
    Some((&file.path, expiry(chain.first()?)?))
}
