//! Reading a configuration and all files that it is made of, and telling later whether one of them has changed.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

use parking_lot::Mutex;

use super::ConfigArg;
use crate::config::{Config, ConfigError, Surroundings};
use crate::file::{FILE_BYTES_MAX, read as read_file};
use crate::policy::FeedKind;

/// What tells that a file is another one than before, symbolic links followed; `None`: it is not there.
pub(super) type Stamp = Option<(u64, u64, u64, i64, i64, i64)>;

/// The files a configuration was read from.
pub(super) type Stamps = BTreeMap<PathBuf, Stamp>;

pub(super) fn stamp(path: &Path) -> Stamp {
    let found = std::fs::metadata(path).ok()?;
    Some((found.dev(), found.ino(), found.len(), found.mtime(), found.mtime_nsec(), found.ctime_nsec()))
}

/// The folder below which another machine's files stand, such as those of a pod; none: the files are this machine's.
#[derive(Default)]
pub(super) struct Root(pub(super) Option<PathBuf>);

impl Root {
    /// Where a file is. One that is not absolute is the same everywhere; no way leads out of the folder.
    pub(super) fn find(&self, path: &str) -> PathBuf {
        let path = Path::new(path);
        let Some(root) = self.0.as_ref().filter(|_| path.is_absolute()) else { return path.into() };
        let mut found = Vec::new();
        for component in path.components() {
            match component {
                Component::Normal(name) => found.push(name),
                // At the top it leads nowhere.
                Component::ParentDir => drop(found.pop()),
                Component::CurDir | Component::RootDir | Component::Prefix(_) => {}
            }
        }
        root.join(found.iter().collect::<PathBuf>())
    }

    /// The configuration names another path than was looked at: both are worth saying.
    fn explain(&self, found: &Path, error: std::io::Error) -> std::io::Error {
        match self.0 {
            Some(_) => std::io::Error::new(error.kind(), format!("{}: {error}", found.display())),
            None => error,
        }
    }
}

/// A configuration as it was read: its text, what it says, and the files it is made of.
pub(super) struct Read {
    pub(super) text: String,
    pub(super) config: Result<Config, Vec<ConfigError>>,
    pub(super) stamps: Stamps,
}

impl Read {
    /// Reads a configuration.
    pub(super) fn new(args: &ConfigArg) -> Self {
        Self::of(args, args.text())
    }

    /// Reads the files that a configuration needs whose text is known.
    pub(super) fn of(args: &ConfigArg, text: Result<String, Vec<ConfigError>>) -> Self {
        Self::below(args, text, &Root::default())
    }

    /// Reads the files that a configuration needs from where another machine's stand.
    pub(super) fn below(args: &ConfigArg, text: Result<String, Vec<ConfigError>>, root: &Root) -> Self {
        let stamps = Mutex::new(Stamps::new());
        // Looked at before it is read: what changes in between is seen the next time.
        let look = |path: &Path| {
            stamps.lock().insert(path.to_owned(), stamp(path));
        };
        look(&args.config);
        let file = |path: &str| {
            let found = root.find(path);
            look(&found);
            read_file(&found, FILE_BYTES_MAX).map_err(|error| root.explain(&found, error))
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
