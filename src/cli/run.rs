//! `callgate run`: serve until asked to stop.

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

/// Most worker threads taken without being told.
const THREADS_DEFAULT_MAX: usize = 2;

/// A server, the switch for its readiness, and what a reload replaces.
pub struct Serving {
    /// The server.
    pub server: Server,
    ready: Arc<AtomicBool>,
    admin: Option<Arc<Admin>>,
    startup: Startup,
}

impl Serving {
    /// Serves by another configuration from here on: all of it, or the old one. Returns what is worth a line.
    ///
    /// # Errors
    /// Why it cannot be taken, in words.
    pub async fn apply(&self, config: Config) -> Result<Vec<String>, String> {
        let Config { startup, policy, warnings } = config;
        let differences = self.startup.differences(&startup);
        if !differences.is_empty() {
            return Err(format!(
                "only a restart changes {0}: restart, or put {0} back; nothing else of this file was taken",
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

    /// Says "not ready", goes on for `delay`, lets running exchanges end for as long as `grace`, and returns how many
    /// were cut off.
    pub async fn stop(self, delay: Duration, grace: Duration) -> usize {
        self.ready.store(false, Ordering::Relaxed);
        self.server.stop(delay, grace).await
    }
}

/// Starts everything a configuration asks for. Must be called within a tokio runtime.
///
/// # Errors
/// [`StartError`]; nothing is left bound.
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
            log::error!("no threads: {error}");
            EXIT_UNAVAILABLE
        }
    }
}

/// With one thread there is nobody to steal work from, and a scheduler that knows it is cheaper.
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

/// What is said of a configuration when it begins to be served.
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

/// What the process is asked from outside.
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
                log::error!("no access log: {error}");
                return EXIT_UNAVAILABLE;
            }
        },
    };
    let served = Served::new(&config.policy);
    let shutdown = (config.startup.shutdown_delay, config.startup.shutdown_grace);
    let watches = config.startup.watches;
    let (Ok(metrics), Ok(mut signals)) = (Metrics::new(), Signals::new()) else {
        log::error!("metrics or signals could not be set up");
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
    // Files may take as long as they like: who asks to stop is heard meanwhile.
    let (delay, grace) = tokio::select! {
        _ = signals.terminate.recv() => shutdown,
        _ = signals.interrupt.recv() => (Duration::ZERO, Duration::ZERO),
        () = reloader.run(&serving, &mut signals.hangup, watches) => shutdown,
    };
    log::info!("stopping");
    // Whoever interrupts a stop does not want to wait for the rest of it.
    tokio::select! {
        left = serving.stop(delay, grace) => if left > 0 {
            log::warn!("{left} exchanges were cut off");
        },
        _ = signals.interrupt.recv() => log::warn!("interrupted: exchanges that had not ended are cut off"),
    }
    let _ = std::io::stdout().flush();
    0
}
