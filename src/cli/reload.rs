//! Another configuration while serving: on SIGHUP, and when a file changes that the one of the moment was read from.
//! It is taken whole or not at all, and the last good one goes on.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::{ConfigArg, Serving};
use crate::config::{Config, ConfigError, Surroundings};
use crate::observe::{ConfigState, Metrics};
use crate::policy::FeedKind;
use crate::proxy::Clock;

/// How often files are looked at. One that changed is read when it stays as it is for as long.
pub(super) const LOOK: Duration = Duration::from_millis(500);

/// What tells that a file is another one than before, symbolic links followed; `None`: it is not there.
type Stamp = Option<(u64, u64, u64, i64, i64, i64)>;

/// The files a configuration was read from.
type Stamps = BTreeMap<PathBuf, Stamp>;

fn stamp(path: &Path) -> Stamp {
    let found = std::fs::metadata(path).ok()?;
    Some((found.dev(), found.ino(), found.len(), found.mtime(), found.mtime_nsec(), found.ctime_nsec()))
}

/// A configuration as it was read: its text, what it says, and the files it is made of.
pub(super) struct Read {
    pub(super) text: String,
    pub(super) config: Result<Config, Vec<ConfigError>>,
    stamps: Stamps,
}

impl Read {
    /// Reads a configuration.
    pub(super) fn new(args: &ConfigArg) -> Self {
        let stamps = Mutex::new(Stamps::new());
        // Looked at before it is read: what changes in between is seen the next time.
        let look = |path: &Path| {
            stamps.lock().insert(path.to_owned(), stamp(path));
        };
        look(&args.config);
        let text = args.text();
        let file = |path: &str| {
            look(Path::new(path));
            std::fs::read(path)
        };
        let surroundings = Surroundings { env: &super::environment, file: &file };
        let config = match &text {
            Ok(text) => Config::parse(text, &surroundings),
            Err(errors) => Err(errors.clone()),
        };
        if let Ok(config) = &config {
            let feeds = config.policy.feeds.iter().filter(|feed| feed.kind != FeedKind::Secret);
            feeds.filter_map(|feed| feed.url.strip_prefix("file:")).for_each(|path| look(Path::new(path)));
        }
        Self { text: text.unwrap_or_default(), config, stamps: stamps.into_inner() }
    }
}

/// Takes other configurations.
pub(super) struct Reloader {
    args: ConfigArg,
    state: Arc<ConfigState>,
    metrics: Arc<Metrics>,
    /// The files of what was read last, whether or not it was taken.
    stamps: Stamps,
    /// How they were when they were found changed.
    changed: Option<Stamps>,
}

impl Reloader {
    /// One that goes on from what was read at the start.
    pub(super) fn new(args: ConfigArg, read: &Read, state: Arc<ConfigState>, metrics: Arc<Metrics>) -> Self {
        Self { args, state, metrics, stamps: read.stamps.clone(), changed: None }
    }

    /// Whether files have changed, and are done changing.
    pub(super) fn is_due(&mut self) -> bool {
        let now: Stamps = self.stamps.keys().map(|path| (path.clone(), stamp(path))).collect();
        if now == self.stamps {
            self.changed = None;
            return false;
        }
        let settled = self.changed.as_ref() == Some(&now);
        self.changed = Some(now);
        settled
    }

    /// Reads what is there, and takes it if all of it can be used.
    pub(super) async fn reload(&mut self, serving: &Serving) {
        let args = self.args.clone();
        // Reading and compiling takes milliseconds, which callers should not wait for.
        let Ok(read) = tokio::task::spawn_blocking(move || Read::new(&args)).await else { return };
        let Read { text, config, stamps } = read;
        // Files that the last good one needs are looked at, too: the next one may need them again.
        self.stamps.extend(stamps);
        self.changed = None;
        let now = Clock::System.now();
        let taken = match config {
            Ok(config) => serving.apply(config).map_err(|error| vec![error]),
            Err(errors) => Err(errors.iter().map(ToString::to_string).collect()),
        };
        match taken {
            Ok(warnings) => {
                let generation = self.state.taken(&text, now);
                self.metrics.config_taken(generation, now.unix_secs());
                warnings.iter().for_each(|warning| log::warn!("{warning}"));
                log::info!("configuration {generation} is served, {}", self.state.told().version);
            }
            Err(errors) => {
                errors.iter().for_each(|error| log::error!("not reloaded: {error}"));
                log::error!("the configuration was not taken; the last good one goes on");
                self.state.refused(&text, errors, now);
                self.metrics.config_refused();
            }
        }
    }
}
