//! `callgate run`: starts all parts of Callgate and serves until a signal stops it.
//!
//! [`serve`] connects the parts and starts the listeners. `reload.rs` replaces the configuration later.

mod dev;
mod reload;
mod serving;

use std::io::Write;
use std::num::NonZero;
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};

use clap::Args;

use dev::{Dev, Started};
use reload::Reloader;

use super::common::{EXIT_UNAVAILABLE, EXIT_USAGE, counted};
use super::read::{ConfigArg, Read};
use crate::agent::{Agent, ONLY_AGENT};
use crate::clock::Clock;
use crate::config::{AccessLog, Config, Startup};
use crate::observe::{AccessLogger, ConfigState, Metrics, add_log_time, install_logger};
use crate::policy::Policy;
use crate::proxy::{Server, StartError};

pub use serving::{Serving, serve};

/// The number of the signal SIGXFSZ on Linux.
const SIGXFSZ: i32 = 25;
/// The maximum time to wait at exit until the reader of standard output has read the last lines.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);
/// The maximum number of worker threads if the configuration does not set `threads`.
const THREADS_DEFAULT_MAX: usize = 2;

#[derive(Args)]
pub(super) struct RunArgs {
    #[command(flatten)]
    config: ConfigArg,
    /// Development mode: tell callers why a request was denied, print where to find everything, and refuse listeners
    /// that other machines can reach.
    #[arg(long)]
    dev: bool,
    /// With --dev, accept listeners that other machines can reach, such as those in a container.
    #[arg(long, requires = "dev")]
    any_address: bool,
    /// Begin each line of the event log with its time (RFC 3339, UTC).
    #[arg(long)]
    log_time: bool,
}

pub(super) fn run(args: &RunArgs) -> u8 {
    if args.log_time {
        add_log_time(|| Clock::System.now());
    }
    install_logger();
    let dev = Dev { is_on: args.dev, any_address: args.any_address };
    let args = &args.config;
    let mut read = Read::new(args);
    let config = match std::mem::replace(&mut read.config, Err(Vec::new())) {
        Ok(config) => config,
        Err(errors) => {
            args.print_errors(&errors);
            return EXIT_USAGE;
        }
    };
    if let Err(messages) = dev.check(&config.startup) {
        messages.iter().for_each(|message| eprintln!("error: {}: {message}", args.config.display()));
        return EXIT_USAGE;
    }
    let config = dev.apply(config);
    for warning in &config.warnings {
        log::warn!("{warning}");
    }
    for secret in &config.secrets {
        log::info!("secret {secret}");
    }
    match runtime(threads(&config.startup)) {
        Ok(runtime) => {
            let code = runtime.block_on(until_stopped((args, dev), &read, config));
            runtime.shutdown_timeout(Duration::from_millis(100));
            code
        }
        Err(error) => {
            log::error!("cannot start the worker threads: {error}");
            EXIT_UNAVAILABLE
        }
    }
}

/// Creates the tokio runtime. For one thread, the cheaper single-threaded scheduler is used, because no work stealing
/// is needed.
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
    agents: String,
    /// The words ` with TLS` for the log if the egress listener has TLS, or else an empty text.
    egress_tls: &'static str,
}

impl Served {
    fn new(startup: &Startup, policy: &Policy) -> Self {
        let has_egress_tls = startup.egress.as_ref().is_some_and(|egress| egress.tls.is_some());
        Self {
            routes: counted(policy.ingress.routes().len(), "route"),
            rules: counted(policy.egress.rules().len(), "rule"),
            agents: agents(policy),
            egress_tls: if has_egress_tls { " with TLS" } else { "" },
        }
    }
}

/// Describes the agents with their addresses for the log. The agent in the section `agent` has no name.
fn agents(policy: &Policy) -> String {
    match policy.agents.as_slice() {
        [agent] if *agent.name == *ONLY_AGENT => format!("the agent at {}", agent.address),
        agents => {
            let one = |agent: &Arc<Agent>| format!("{} at {}", agent.name, agent.address);
            let noun = if agents.len() == 1 { "agent" } else { "agents" };
            format!("the {noun} {}", agents.iter().map(one).collect::<Vec<_>>().join(", "))
        }
    }
}

fn announce(server: &Server, Served { routes, rules, agents, egress_tls }: &Served) {
    for address in &server.ingress {
        log::info!("ingress on {address}: {routes} to {agents}");
    }
    if let Some(address) = server.egress {
        log::info!("egress on {address}{egress_tls}: {rules}");
    }
    if let Some(address) = server.admin {
        log::info!("admin on {address}");
    }
}

/// The handlers of the signals that the process handles.
struct Signals {
    /// The handler of SIGXFSZ, which the kernel sends when a file reaches the size limit of the process. By default,
    /// the signal ends the process. With a handler, the write fails instead, and the ledger reports the failure.
    _file_size: Signal,
    hangup: Signal,
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            _file_size: signal(SignalKind::from_raw(SIGXFSZ))?,
            hangup: signal(SignalKind::hangup())?,
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }
}

async fn until_stopped((args, dev): (&ConfigArg, Dev), read: &Read, config: Config) -> u8 {
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
    let served = Served::new(&config.startup, &config.policy);
    let started = Started::new(&config.startup, &config.policy);
    let shutdown = (config.startup.shutdown_delay, config.startup.shutdown_grace);
    let watches = config.startup.watches;
    let (Ok(metrics), Ok(mut signals)) = (Metrics::new(), Signals::new()) else {
        log::error!("cannot set up the metrics or the signal handlers");
        return EXIT_UNAVAILABLE;
    };
    let (metrics, now) = (Arc::new(metrics), Clock::System.now());
    let state = Arc::new(ConfigState::new(&read.texts.whole(), now).in_dev_mode(dev.is_on));
    state.loaded(config.secrets.clone(), config.environment.clone());
    metrics.config_taken(1, now.unix_secs());
    let mut reloader = Reloader::new(
        (args.clone(), dev),
        read,
        config.secrets.clone(),
        Arc::clone(&state),
        Arc::clone(&metrics),
    );
    let serving = match serve(config, Clock::System, log, metrics, state).await {
        Ok(serving) => serving,
        Err(error) => {
            log::error!("{error}");
            return if matches!(error, StartError::Tls(_)) { EXIT_USAGE } else { EXIT_UNAVAILABLE };
        }
    };
    announce(&serving.server, &served);
    dev.announce(&serving.server, &started);
    // Reading files can block for long, so the stop signals are awaited at the same time as the reloads.
    let (delay, grace) = tokio::select! {
        _ = signals.terminate.recv() => shutdown,
        _ = signals.interrupt.recv() => (Duration::ZERO, Duration::ZERO),
        () = reloader.run(&serving, &mut signals.hangup, watches) => shutdown,
    };
    log::info!("stopping");
    // A SIGINT that arrives while Callgate stops ends the grace period at once.
    tokio::select! {
        left = serving.stop(delay, grace) => if left > 0 {
            log::warn!("{left} exchanges were cut off");
        },
        _ = signals.interrupt.recv() => log::warn!("interrupted: the running exchanges were cut off"),
    }
    flush_output();
    0
}

/// Flushes standard output. Stops waiting after [`FLUSH_TIMEOUT`], because the reader of the output may be stuck.
fn flush_output() {
    let (done, flushed) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let _ = std::io::stdout().flush();
        let _ = done.send(());
    });
    let _ = flushed.recv_timeout(FLUSH_TIMEOUT);
}
