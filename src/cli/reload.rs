//! Another configuration while serving: on SIGHUP, and when a file changes that the one of the moment was read from.
//! It is taken whole or not at all, and the last good one goes on.

use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::Signal;

use super::read::{Read, Stamps, stamp};
use super::{ConfigArg, Serving};
use crate::clock::Clock;
use crate::observe::{ConfigState, Metrics};

/// How often files are looked at. One that changed is read when it stays as it is for as long.
const LOOK: Duration = Duration::from_millis(500);

/// Takes other configurations.
pub(super) struct Reloader {
    args: ConfigArg,
    state: Arc<ConfigState>,
    metrics: Arc<Metrics>,
    /// The text of the last good one, and the files it was made of.
    good: (String, Stamps),
    /// The files of what was read last, whether or not it was taken, and of the last good one.
    stamps: Stamps,
    /// How they were when they were found changed.
    changed: Option<Stamps>,
}

impl Reloader {
    /// One that goes on from what was read at the start.
    pub(super) fn new(args: ConfigArg, read: &Read, state: Arc<ConfigState>, metrics: Arc<Metrics>) -> Self {
        let good = (read.text.clone(), read.stamps.clone());
        Self { args, state, metrics, good, stamps: read.stamps.clone(), changed: None }
    }

    /// Takes another configuration whenever somebody asks for it, or its files change. Never ends.
    pub(super) async fn run(&mut self, serving: &Serving, asked: &mut Signal, watches: bool) {
        let mut looks = tokio::time::interval(LOOK);
        loop {
            tokio::select! {
                _ = asked.recv() => self.reload(serving).await,
                _ = looks.tick(), if watches => if self.is_due().await {
                    self.reload(serving).await;
                },
            }
        }
    }

    /// Whether files have changed, and are done changing.
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

    /// Reads what is there, and takes it if all of it can be used.
    async fn reload(&mut self, serving: &Serving) {
        let args = self.args.clone();
        let Some(read) = off_thread(move || Read::new(&args)).await else {
            return self.refused("", vec!["it could not be read".to_owned()]);
        };
        let Read { text, config, stamps } = read;
        self.stamps.clone_from(&stamps);
        self.changed = None;
        let taken = match config {
            Ok(config) => serving.apply(config).await.map_err(|error| vec![error]),
            Err(errors) => Err(errors.iter().map(ToString::to_string).collect()),
        };
        match taken {
            Ok(warnings) => {
                let now = Clock::System.now();
                let generation = self.state.taken(&text, now);
                self.metrics.config_taken(generation, now.unix_secs());
                warnings.iter().for_each(|warning| log::warn!("{warning}"));
                log::info!("configuration {generation} is served, {}", self.state.told().version);
                self.good = (text, stamps);
            }
            Err(errors) => {
                self.refused(&text, errors);
                self.renew(serving).await;
                // The next one may need files again that the last good one needs.
                for (path, is) in &self.good.1 {
                    self.stamps.entry(path.clone()).or_insert(*is);
                }
            }
        }
    }

    fn refused(&self, text: &str, errors: Vec<String>) {
        errors.iter().for_each(|error| log::error!("not reloaded: {error}"));
        log::error!("the configuration was not taken; the last good one goes on");
        self.state.refused(text, errors, Clock::System.now());
        self.metrics.config_refused();
    }

    /// Takes the secrets and certificates of the last good one as they are now: their rotation does not wait for
    /// somebody to mend the file that names them.
    async fn renew(&mut self, serving: &Serving) {
        let (text, stamps) = self.good.clone();
        let config = &self.args.config;
        let Some(now) = off_thread(now(&stamps)).await else { return };
        if now.iter().all(|(path, is)| path == config || stamps.get(path) == Some(is)) {
            return;
        }
        let args = self.args.clone();
        let Some(read) = off_thread(move || Read::of(&args, Ok(text))).await else { return };
        let Ok(config) = read.config else { return };
        match serving.apply(config).await {
            Ok(_) => {
                log::info!("files that the last good configuration names were read anew");
                self.good = (read.text, read.stamps);
            }
            Err(error) => log::error!("nor were files read anew that the last good one names: {error}"),
        }
    }
}

/// Looks at files.
fn now(stamps: &Stamps) -> impl FnOnce() -> Stamps + Send + 'static {
    let paths: Vec<_> = stamps.keys().cloned().collect();
    move || paths.into_iter().map(|path| (path.clone(), stamp(&path))).collect()
}

/// Reading and compiling takes milliseconds, which callers should not wait for.
async fn off_thread<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    tokio::task::spawn_blocking(work).await.ok()
}
