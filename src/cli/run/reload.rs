//! Reloads the configuration while Callgate serves: on SIGHUP, and when one of its files changes.
//!
//! A new configuration is applied completely or not at all. If it has a mistake, the last good configuration stays in
//! use.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::Signal;

use super::dev::Dev;
use super::serving::Serving;
use crate::cli::read::{ConfigArg, Read, Stamps, Texts, stamp};
use crate::clock::Clock;
use crate::config::{Config, LoadedSecret};
use crate::observe::{ConfigState, Metrics};

/// The interval at which the files of the configuration are checked for changes. A changed file is read only after it
/// has stayed unchanged for one more interval.
const LOOK: Duration = Duration::from_millis(500);

/// Reloads the configuration of a running Callgate.
pub(super) struct Reloader {
    args: ConfigArg,
    dev: Dev,
    state: Arc<ConfigState>,
    metrics: Arc<Metrics>,
    /// The texts of the last good configuration, and the files that were read for it, with their metadata.
    good: (Texts, Stamps),
    /// The secrets of the last configuration that was applied.
    secrets: Vec<LoadedSecret>,
    /// The files that are watched for changes, with their metadata: the files of the configuration that was read last.
    /// If this configuration was rejected, the files of the last good configuration are watched as well.
    stamps: Stamps,
    /// The metadata of the watched files, as it was when a change was last noticed. `None` if no change is pending.
    changed: Option<Stamps>,
}

/// The secrets and the environment variables that were read for a configuration.
#[derive(Default)]
struct Loaded {
    secrets: Vec<LoadedSecret>,
    environment: BTreeMap<String, String>,
}

impl Loaded {
    fn of(config: &Config) -> Self {
        Self { secrets: config.secrets.clone(), environment: config.environment.clone() }
    }
}

impl Reloader {
    /// Creates a reloader of the configuration. `read` is the configuration that was read at startup.
    pub(super) fn new(
        (args, dev): (ConfigArg, Dev),
        read: &Read,
        secrets: Vec<LoadedSecret>,
        state: Arc<ConfigState>,
        metrics: Arc<Metrics>,
    ) -> Self {
        let good = (read.texts.clone(), read.stamps.clone());
        Self { args, dev, state, metrics, good, secrets, stamps: read.stamps.clone(), changed: None }
    }

    /// Records the secrets and environment variables that were read for the new configuration. Logs the secrets that
    /// are new or have changed.
    fn loaded(&mut self, Loaded { secrets, environment }: Loaded) {
        for secret in secrets.iter().filter(|secret| !self.secrets.contains(secret)) {
            log::info!("secret {secret}");
        }
        self.state.loaded(secrets.clone(), environment);
        self.secrets = secrets;
    }

    /// Reloads the configuration whenever the signal `asked` arrives. If `watches` is true, also reloads the
    /// configuration when one of its files changes. Never returns.
    pub(super) async fn run(&mut self, serving: &Serving, asked: &mut Signal, watches: bool) {
        let mut looks = tokio::time::interval(LOOK);
        loop {
            tokio::select! {
                _ = asked.recv() => Box::pin(self.reload(serving)).await,
                _ = looks.tick(), if watches => if self.is_due().await {
                    Box::pin(self.reload(serving)).await;
                },
            }
        }
    }

    /// Reports whether the files of the configuration have changed and were then unchanged for one interval.
    async fn is_due(&mut self) -> bool {
        let Some(now) = off_thread(now(&self.stamps)).await else { return false };
        if now == self.stamps {
            self.changed = None;
            return false;
        }
        let settled = self.changed.as_ref() == Some(&now);
        self.changed = Some(now);
        settled
    }

    /// Reads the configuration, and applies it if it has no mistake. Otherwise logs the mistakes.
    async fn reload(&mut self, serving: &Serving) {
        let args = self.args.clone();
        let Some(read) = off_thread(move || Read::new(&args)).await else {
            return self.refused("", vec!["the configuration could not be read".to_owned()]);
        };
        let Read { texts, config, stamps } = read;
        let text = texts.whole();
        self.stamps.clone_from(&stamps);
        self.changed = None;
        let loaded = config.as_ref().map(Loaded::of).unwrap_or_default();
        let taken = match config {
            Ok(config) => Box::pin(serving.apply(self.dev.apply(config))).await.map_err(|error| vec![error]),
            Err(errors) => Err(errors.iter().map(ToString::to_string).collect()),
        };
        match taken {
            Ok(warnings) => {
                let now = Clock::System.now();
                let generation = self.state.taken(&text, now);
                self.metrics.config_taken(generation, now.unix_secs());
                warnings.iter().for_each(|warning| log::warn!("{warning}"));
                log::info!("reloaded: generation {generation}, version {}", self.state.status().version);
                self.loaded(loaded);
                self.good = (texts, stamps);
            }
            Err(errors) => {
                self.refused(&text, errors);
                self.renew(serving).await;
                // The last good configuration stays in use. Its files are watched as well, so that a change of one of
                // its secrets or certificates is noticed.
                for (path, is) in &self.good.1 {
                    self.stamps.entry(path.clone()).or_insert(*is);
                }
            }
        }
    }

    fn refused(&self, text: &str, errors: Vec<String>) {
        for error in &errors {
            // The event log has one line for each message, so a hint must be on the same line.
            log::error!("not reloaded: {}", error.replace("\n    hint: ", "; hint: "));
        }
        log::error!("the new configuration has mistakes; Callgate keeps the last good one");
        self.state.refused(text, errors, Clock::System.now());
        self.metrics.config_refused();
    }

    /// Reads the secrets and certificates of the last good configuration again, and applies them. Secrets and
    /// certificates can therefore be rotated even while the configuration file has a mistake.
    async fn renew(&mut self, serving: &Serving) {
        let (texts, stamps) = self.good.clone();
        let config = &self.args.config;
        let Some(now) = off_thread(now(&stamps)).await else { return };
        let is_text = |path| path == config || texts.includes(path);
        if now.iter().all(|(path, is)| is_text(path) || stamps.get(path) == Some(is)) {
            return;
        }
        let args = self.args.clone();
        let Some(read) = off_thread(move || Read::of(&args, texts)).await else { return };
        let Ok(config) = read.config else { return };
        let loaded = Loaded::of(&config);
        match Box::pin(serving.apply(self.dev.apply(config))).await {
            Ok(_) => {
                log::info!("reloaded the changed secrets and certificates of the last good configuration");
                self.loaded(loaded);
                self.good = (read.texts, read.stamps);
            }
            Err(error) => {
                log::error!(
                    "cannot reload the secrets and certificates of the last good configuration: {error}"
                );
            }
        }
    }
}

/// Returns a closure that reads the current metadata of the files in `stamps`.
fn now(stamps: &Stamps) -> impl FnOnce() -> Stamps + Send + 'static {
    let paths: Vec<_> = stamps.keys().cloned().collect();
    move || paths.into_iter().map(|path| (path.clone(), stamp(&path))).collect()
}

/// Runs blocking work on another thread. Reading and compiling a configuration takes milliseconds, and must not delay
/// requests. Returns `None` if the work panics.
async fn off_thread<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    tokio::task::spawn_blocking(work).await.ok()
}
