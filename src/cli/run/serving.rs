//! Connects the parts of Callgate: the ledger, the admin service and the server. Replaces the configuration of a
//! running server.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;

use crate::admin::{self, Admin, AdminRequest, AdminResponse, LocalInteractions};
use crate::clock::{Clock, LedgerClock, instant};
use crate::config::{Config, Startup};
use crate::observe::capture::Captures;
use crate::observe::{AccessLogger, ConfigState, Metrics, Recent, Traces};
use crate::policy::Policy;
use crate::proxy::{CallbacksApi, Options, Replication, Server, StartError};
use crate::replica::Owner;
use crate::store::{self, Store};

/// A running server, with its readiness flag and the parts that a reload replaces.
pub struct Serving {
    /// The server with its listeners.
    pub server: Server,
    ready: Arc<AtomicBool>,
    admin: Option<Arc<Admin>>,
    startup: Startup,
    replication: Option<Arc<Replication>>,
    store: Arc<Store>,
    policy: Arc<ArcSwap<Policy>>,
}

impl Serving {
    /// Applies a new configuration, completely or not at all. Returns its warnings.
    ///
    /// # Errors
    /// Returns the reason as text if the configuration cannot be applied. The current configuration then stays in use.
    pub async fn apply(&self, config: Config) -> Result<Vec<String>, String> {
        let Config { startup, policy, warnings, .. } = config;
        let differences = self.startup.differences(&startup);
        if !differences.is_empty() {
            return Err(format!(
                "{0} can be changed only by a restart: restart, or undo the change of {0}. No part of the new \
                 configuration was applied",
                differences.join(", ")
            ));
        }
        self.keeps_waiting_routes(&policy)?;
        let prepare = self.server.preparing(startup.clone(), own_member(policy, self.own()));
        let prepared = tokio::task::spawn_blocking(prepare).await.map_err(|error| error.to_string())??;
        self.server.install(prepared);
        if let (Some(admin), Some(listener)) = (&self.admin, startup.admin) {
            admin.recent.resize(listener.recent);
            admin.listener.store(Arc::new(listener));
        }
        Ok(warnings)
    }

    /// Returns an error if messages in the inbox wait for a route that the new policy has removed. Returns no error if
    /// the new policy drops the messages of removed routes.
    fn keeps_waiting_routes(&self, policy: &Policy) -> Result<(), String> {
        if policy.inbox.drops_removed_routes {
            return Ok(());
        }
        let current = self.policy.load();
        let waiting = self.store.inbox().waiting_routes();
        let is_removed = |name: &&Arc<str>| current.route(name).is_some() && policy.route(name).is_none();
        let removed: Vec<_> = waiting.iter().filter(is_removed).map(|name| &**name).collect();
        if removed.is_empty() {
            return Ok(());
        }
        Err(format!(
            "messages wait in the inbox for the removed route {}: keep it until they are delivered, or write \
             `inbox: {{ removed_routes: drop }}`. No part of the new configuration was applied",
            removed.join(", ")
        ))
    }

    fn own(&self) -> Option<Owner> {
        self.replication.as_ref().map(|replication| (*replication.own()).clone())
    }

    /// Stops the server. For `delay`, the server reports "not ready" but still accepts requests. Then it accepts no
    /// more requests, and waits up to `grace` until the running requests have their responses. Returns the number of
    /// requests that were cut off.
    pub async fn stop(self, delay: Duration, grace: Duration) -> usize {
        self.ready.store(false, Ordering::Relaxed);
        self.server.stop(delay, grace).await
    }
}

/// Starts the store, the listeners and the traces of a configuration. Must be called within a tokio runtime.
///
/// # Errors
/// Returns a [`StartError`] if the store, a listener or the traces cannot start. No listener stays bound then.
pub async fn serve(
    config: Config,
    clock: Clock,
    log: Option<AccessLogger>,
    metrics: Arc<Metrics>,
    state: Arc<ConfigState>,
) -> Result<Serving, StartError> {
    let ready = Arc::new(AtomicBool::new(true));
    let own = own_identity(&config)?;
    let settings = &config.startup.store;
    let store = Store::start_shared(settings, own.as_ref(), Arc::clone(&metrics), instant, clock.now()).await;
    let store = Arc::new(store.map_err(StartError::Store)?);
    let policy = Arc::new(ArcSwap::from_pointee(own_member(config.policy, own)));
    let replication = Replication::new(&policy, &clock, &store, &metrics).map(Arc::new);
    let listener = config.startup.admin.clone();
    let ledger_clock = Arc::new(LedgerClock::new(clock.clone()));
    let interactions = LocalInteractions {
        store: Arc::clone(&store),
        ledger_clock: Arc::clone(&ledger_clock),
        replication: replication.clone(),
    };
    let captures = Arc::<Captures>::default();
    let admin = listener.map(|listener| {
        Arc::new(Admin {
            fetched: AtomicBool::new(false),
            metrics: Arc::clone(&metrics),
            ready: Arc::clone(&ready),
            store: Arc::clone(&store),
            interactions: interactions.clone(),
            policy: Arc::clone(&policy),
            clock: clock.clone(),
            ledger_clock: Arc::clone(&ledger_clock),
            config: state,
            restart: config.startup.restart_settings(),
            recent: Arc::new(Recent::new(listener.recent, clock.now())),
            captures: Arc::clone(&captures),
            listener: ArcSwap::from_pointee(listener),
        })
    });
    let answering = admin.clone();
    let traces = config.startup.traces.as_ref().map(|to| Traces::start(to, Arc::clone(&metrics)));
    let traces = traces.transpose().map_err(StartError::Component)?;
    let recent = admin.as_ref().map(|admin| Arc::clone(&admin.recent));
    let callbacks: CallbacksApi =
        Arc::new(move |request| Box::pin(interactions.clone().answer_member(request)));
    let kept = (replication.clone(), Arc::clone(&store), Arc::clone(&policy));
    let replication = replication.map(|replication| (replication, callbacks));
    let options = Options {
        clock,
        ledger_clock,
        metrics,
        store,
        replication,
        access_log: log,
        recent,
        traces,
        captures,
    };
    let respond = move |request| respond(answering.clone(), request);
    let serve_admin = |listener, stopping| admin::serve(listener, respond, stopping);
    let server = Server::start(&config.startup, policy, options, serve_admin)?;
    let (replication, store, policy) = kept;
    Ok(Serving { server, ready, admin, startup: config.startup, replication, store, policy })
}

async fn respond(admin: Option<Arc<Admin>>, request: AdminRequest) -> AdminResponse {
    match admin {
        Some(admin) => admin.respond(request).await,
        None => AdminResponse::not_found(),
    }
}

/// Returns the policy with the identity `own` of this process in a group of replicas. Without `own` or without the
/// section `replicas`, the policy has no such identity.
fn own_member(policy: Policy, own: Option<Owner>) -> Policy {
    let replicas = policy.replicas.as_ref().zip(own).map(|(replicas, own)| Arc::new(replicas.of(own)));
    Policy { replicas, ..policy }
}

/// Returns the identity of this process in a group of replicas. Returns `None` without the section `replicas`.
fn own_identity(config: &Config) -> Result<Option<Owner>, StartError> {
    let Some(replicas) = &config.policy.replicas else { return Ok(None) };
    let incarnation = store::incarnation(config.startup.store.path.as_deref());
    let incarnation = incarnation.map_err(StartError::Component)?;
    Ok(Some(Owner { incarnation, address: replicas.advertise.clone() }))
}
