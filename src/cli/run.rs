//! `callgate run`: starts all parts of Callgate and serves until a signal stops it.
//!
//! [`serve`] connects the parts and starts the listeners. The `reload` module replaces the configuration later.

use std::io::Write;
use std::num::NonZero;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::read::Read;
use super::reload::Reloader;
use super::{ConfigArg, EXIT_UNAVAILABLE, EXIT_USAGE, counted};
use crate::admin::Admin;
use crate::admin::{self, AdminResponse};
use crate::clock::{Clock, LedgerClock, instant};
use crate::config::{AccessLog, Config, Startup};
use crate::observe::{AccessLogger, ConfigState, Metrics, Recent, Traces, install_logger};
use crate::policy::{AgentAddress, Policy};
use crate::proxy::{Options, Server, StartError};
use crate::store::Store;

/// Maximum number of worker threads if the configuration does not set `threads`.
const THREADS_DEFAULT_MAX: usize = 2;

/// A running server, its readiness flag, and the parts that a reload replaces.
pub struct Serving {
    /// The server.
    pub server: Server,
    ready: Arc<AtomicBool>,
    admin: Option<Arc<Admin>>,
    startup: Startup,
}

impl Serving {
    /// Applies another configuration, completely or not at all. Returns its warnings.
    ///
    /// # Errors
    /// Returns the reason as text if the configuration cannot be applied. The old one then stays in use.
    pub async fn apply(&self, config: Config) -> Result<Vec<String>, String> {
        let Config { startup, policy, warnings } = config;
        let differences = self.startup.differences(&startup);
        if !differences.is_empty() {
            return Err(format!(
                "{0} can be changed only by a restart: restart, or undo the change of {0}. No part of the new \
                 configuration was applied",
                differences.join(", ")
            ));
        }
        let prepare = self.server.preparing(startup.clone(), policy);
        let prepared = tokio::task::spawn_blocking(prepare).await.map_err(|error| error.to_string())??;
        self.server.install(prepared);
        if let (Some(admin), Some(listener)) = (&self.admin, startup.admin) {
            admin.recent.resize(listener.recent);
            admin.listener.store(Arc::new(listener));
        }
        Ok(warnings)
    }

    /// Stops the server. It reports "not ready" but still accepts requests for `delay`, then accepts no more, and waits
    /// up to `grace` for the running exchanges. Returns the number of exchanges that were cut off.
    pub async fn stop(self, delay: Duration, grace: Duration) -> usize {
        self.ready.store(false, Ordering::Relaxed);
        self.server.stop(delay, grace).await
    }
}

/// Starts the store, the listeners and the traces of a configuration. Must be called within a tokio runtime.
///
/// # Errors
/// Returns a [`StartError`] if one of them cannot start. No listener stays bound then.
pub fn serve(
    config: Config,
    clock: Clock,
    log: Option<AccessLogger>,
    metrics: Arc<Metrics>,
    state: Arc<ConfigState>,
) -> Result<Serving, StartError> {
    let ready = Arc::new(AtomicBool::new(true));
    let store =
        Store::start(&config.startup.store, Arc::clone(&metrics), instant).map_err(StartError::Store)?;
    let store = Arc::new(store);
    let policy = Arc::new(ArcSwap::from_pointee(config.policy));
    let listener = config.startup.admin.clone();
    let ledger_clock = Arc::new(LedgerClock::new(clock.clone()));
    let admin = listener.map(|listener| {
        Arc::new(Admin {
            metrics: Arc::clone(&metrics),
            ready: Arc::clone(&ready),
            store: Arc::clone(&store),
            policy: Arc::clone(&policy),
            clock: clock.clone(),
            ledger_clock: Arc::clone(&ledger_clock),
            config: state,
            recent: Arc::new(Recent::new(listener.recent, clock.now())),
            listener: ArcSwap::from_pointee(listener),
        })
    });
    let answering = admin.clone();
    let traces = config.startup.traces.as_ref().map(|to| Traces::start(to, Arc::clone(&metrics)));
    let traces = traces.transpose().map_err(StartError::Fetch)?;
    let recent = admin.as_ref().map(|admin| Arc::clone(&admin.recent));
    let options = Options { clock, ledger_clock, metrics, store, access_log: log, recent, traces };
    let respond = move |request| {
        let admin = answering.clone();
        async move {
            match admin {
                Some(admin) => admin.respond(request).await,
                None => AdminResponse::not_found(),
            }
        }
    };
    let serve_admin = |listener, stopping| admin::serve(listener, respond, stopping);
    let server = Server::start(&config.startup, policy, options, serve_admin)?;
    Ok(Serving { server, ready, admin, startup: config.startup })
}

pub(super) fn run(args: &ConfigArg) -> u8 {
    install_logger();
    let mut read = Read::new(args);
    let config = match std::mem::replace(&mut read.config, Err(Vec::new())) {
        Ok(config) => config,
        Err(errors) => {
            args.print_errors(&errors);
            return EXIT_USAGE;
        }
    };
    for warning in &config.warnings {
        log::warn!("{warning}");
    }
    match runtime(threads(&config.startup)) {
        Ok(runtime) => {
            let code = runtime.block_on(until_stopped(args, &read, config));
            runtime.shutdown_timeout(Duration::from_millis(100));
            code
        }
        Err(error) => {
            log::error!("cannot start the worker threads: {error}");
            EXIT_UNAVAILABLE
        }
    }
}

/// Creates the tokio runtime. One thread needs no work stealing, and the single-threaded scheduler costs less.
fn runtime(threads: usize) -> std::io::Result<tokio::runtime::Runtime> {
    match threads {
        1 => tokio::runtime::Builder::new_current_thread().enable_all().build(),
        _ => tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build(),
    }
}

fn threads(startup: &Startup) -> usize {
    let processors = || std::thread::available_parallelism().map_or(1, NonZero::get);
    startup.threads.unwrap_or_else(|| processors().min(THREADS_DEFAULT_MAX))
}

/// The facts about a configuration that are logged when Callgate starts to serve.
struct Served {
    routes: String,
    rules: String,
    agent: AgentAddress,
}

impl Served {
    fn new(policy: &Policy) -> Self {
        Self {
            routes: counted(policy.ingress.routes().len(), "route"),
            rules: counted(policy.egress.rules().len(), "rule"),
            agent: policy.agent.address.clone(),
        }
    }
}

fn announce(server: &Server, Served { routes, rules, agent }: &Served) {
    for address in &server.ingress {
        log::info!("ingress on {address}: {routes} to the agent at {agent}");
    }
    if let Some(address) = server.egress {
        log::info!("egress on {address}: {rules}");
    }
    if let Some(address) = server.admin {
        log::info!("admin on {address}");
    }
}

/// The signals that the process handles.
struct Signals {
    hangup: Signal,
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            hangup: signal(SignalKind::hangup())?,
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }
}

async fn until_stopped(args: &ConfigArg, read: &Read, config: Config) -> u8 {
    let log = match config.startup.access_log {
        AccessLog::Off => None,
        AccessLog::Stdout => match AccessLogger::start(std::io::stdout()) {
            Ok(log) => Some(log),
            Err(error) => {
                log::error!("cannot start the access log: {error}");
                return EXIT_UNAVAILABLE;
            }
        },
    };
    let served = Served::new(&config.policy);
    let shutdown = (config.startup.shutdown_delay, config.startup.shutdown_grace);
    let watches = config.startup.watches;
    let (Ok(metrics), Ok(mut signals)) = (Metrics::new(), Signals::new()) else {
        log::error!("cannot set up the metrics or the signal handlers");
        return EXIT_UNAVAILABLE;
    };
    let (metrics, now) = (Arc::new(metrics), Clock::System.now());
    let state = Arc::new(ConfigState::new(&read.text, now));
    metrics.config_taken(1, now.unix_secs());
    let mut reloader = Reloader::new(args.clone(), read, Arc::clone(&state), Arc::clone(&metrics));
    let serving = match serve(config, Clock::System, log, metrics, state) {
        Ok(serving) => serving,
        Err(error) => {
            log::error!("{error}");
            return if matches!(error, StartError::Tls(_)) { EXIT_USAGE } else { EXIT_UNAVAILABLE };
        }
    };
    announce(&serving.server, &served);
    // Reading files can block for long, so the stop signals are awaited at the same time as the reloads.
    let (delay, grace) = tokio::select! {
        _ = signals.terminate.recv() => shutdown,
        _ = signals.interrupt.recv() => (Duration::ZERO, Duration::ZERO),
        () = reloader.run(&serving, &mut signals.hangup, watches) => shutdown,
    };
    log::info!("stopping");
    // A SIGINT while stopping ends the grace period at once.
    tokio::select! {
        left = serving.stop(delay, grace) => if left > 0 {
            log::warn!("{left} exchanges were cut off");
        },
        _ = signals.interrupt.recv() => log::warn!("interrupted: the running exchanges were cut off"),
    }
    let _ = std::io::stdout().flush();
    0
}
