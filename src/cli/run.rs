//! `callgate run`: serve until asked to stop.

use std::io::Write;
use std::num::NonZero;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::signal::unix::{SignalKind, signal};

use super::{ConfigArg, EXIT_UNAVAILABLE, EXIT_USAGE, counted};
use crate::admin::Admin;
use crate::config::{AccessLog, Config, Startup};
use crate::observe::{AccessLogger, Metrics, install_logger};
use crate::proxy::{Clock, LedgerClock, Options, PlainResponse, Server, StartError, instant};
use crate::store::Store;

/// Most worker threads taken without being told.
const THREADS_DEFAULT_MAX: usize = 2;

/// A server and the switch for its readiness.
pub struct Serving {
    /// The server.
    pub server: Server,
    ready: Arc<AtomicBool>,
}

impl Serving {
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
            listener,
        })
    });
    let options = Options { clock, ledger_clock, metrics, store, access_log: log };
    let respond = move |request| {
        let admin = admin.clone();
        async move {
            match admin {
                Some(admin) => admin.respond(request).await,
                None => PlainResponse::not_found(),
            }
        }
    };
    let server = Server::start(&config.startup, policy, options, respond)?;
    Ok(Serving { server, ready })
}

pub(super) fn run(args: &ConfigArg) -> u8 {
    install_logger();
    let config = match args.load() {
        Ok(config) => config,
        Err(code) => return code,
    };
    for warning in &config.warnings {
        log::warn!("{warning}");
    }
    match runtime(threads(&config.startup)) {
        Ok(runtime) => {
            let code = runtime.block_on(until_stopped(config));
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

async fn until_stopped(config: Config) -> u8 {
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
    let routes = config.policy.ingress.routes().len();
    let rules = config.policy.egress.rules().len();
    let agent = config.policy.agent.address.clone();
    let shutdown = (config.startup.shutdown_delay, config.startup.shutdown_grace);
    let (Ok(metrics), Ok(mut terminate), Ok(mut interrupt)) =
        (Metrics::new(), signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        log::error!("metrics or signals could not be set up");
        return EXIT_UNAVAILABLE;
    };
    let serving = match serve(config, Clock::System, log, Arc::new(metrics)) {
        Ok(serving) => serving,
        Err(error) => {
            log::error!("{error}");
            return if matches!(error, StartError::Tls(_)) { EXIT_USAGE } else { EXIT_UNAVAILABLE };
        }
    };
    for address in &serving.server.ingress {
        log::info!("ingress on {address}: {} to the agent at {agent}", counted(routes, "route"));
    }
    if let Some(address) = serving.server.egress {
        log::info!("egress on {address}: {}", counted(rules, "rule"));
    }
    if let Some(address) = serving.server.admin {
        log::info!("admin on {address}");
    }
    let (delay, grace) = tokio::select! {
        _ = terminate.recv() => shutdown,
        _ = interrupt.recv() => (Duration::ZERO, Duration::ZERO),
    };
    log::info!("stopping");
    // Whoever interrupts a stop does not want to wait for the rest of it.
    tokio::select! {
        left = serving.stop(delay, grace) => if left > 0 {
            log::warn!("{left} exchanges were cut off");
        },
        _ = interrupt.recv() => log::warn!("interrupted: exchanges that had not ended are cut off"),
    }
    let _ = std::io::stdout().flush();
    0
}
