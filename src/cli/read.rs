//! Reads a configuration and the files that it names, and records their metadata.
//!
//! The recorded metadata later shows whether one of the files has changed.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

use clap::Args;
use parking_lot::Mutex;

use super::common::{EXIT_USAGE, counted, environment};
use crate::config::{Config, ConfigError, ERRORS_MAX, Surroundings};
use crate::file::{FILE_BYTES_MAX, read as read_file};
use crate::policy::FeedKind;

#[derive(Args, Clone)]
pub(super) struct ConfigArg {
    /// Configuration file.
    #[arg(short = 'c', long = "config", value_name = "FILE")]
    pub(super) config: PathBuf,
}

impl ConfigArg {
    pub(super) fn text(&self) -> Result<String, Vec<ConfigError>> {
        let read = read_file(&self.config, FILE_BYTES_MAX);
        let text = read.and_then(|bytes| String::from_utf8(bytes).map_err(std::io::Error::other));
        text.map_err(|error| {
            let message = format!("cannot read {}: {error}", self.config.display());
            vec![ConfigError { path: String::new(), position: None, message, hint: String::new() }]
        })
    }

    pub(super) fn parse(&self) -> Result<Config, Vec<ConfigError>> {
        Read::new(self).config
    }

    /// Returns the configuration. If it has mistakes, prints all of them and returns the exit code.
    pub(super) fn load(&self) -> Result<Config, u8> {
        self.parse().map_err(|errors| {
            self.print_errors(&errors);
            EXIT_USAGE
        })
    }

    pub(super) fn print_errors(&self, errors: &[ConfigError]) {
        for error in errors {
            eprintln!("error: {}: {error}", self.config.display());
        }
        // If errors were omitted, the last entry reports how many. The length of the list is then not the number of
        // mistakes.
        if errors.len() <= ERRORS_MAX {
            eprintln!("{} in {}", counted(errors.len(), "mistake"), self.config.display());
        }
    }
}

/// Metadata that shows whether a file was changed or replaced: device, inode, size, modification and change time.
/// Symbolic links are followed. `None` means that the file does not exist.
pub(super) type Stamp = Option<(u64, u64, u64, i64, i64, i64)>;

/// The files that a configuration was read from, with their metadata.
pub(super) type Stamps = BTreeMap<PathBuf, Stamp>;

pub(super) fn stamp(path: &Path) -> Stamp {
    let found = std::fs::metadata(path).ok()?;
    Some((found.dev(), found.ino(), found.len(), found.mtime(), found.mtime_nsec(), found.ctime_nsec()))
}

/// A folder that contains the files of another machine, such as those of a pod. `None` means the files of this machine.
#[derive(Default)]
pub(super) struct Root(pub(super) Option<PathBuf>);

impl Root {
    /// Resolves a path. An absolute path is resolved below the folder, and `..` cannot leave the folder. A relative
    /// path is returned unchanged.
    pub(super) fn find(&self, path: &str) -> PathBuf {
        let path = Path::new(path);
        let Some(root) = self.0.as_ref().filter(|_| path.is_absolute()) else { return path.into() };
        let mut found = Vec::new();
        for component in path.components() {
            match component {
                Component::Normal(name) => found.push(name),
                // `..` in the root folder is the root folder itself.
                Component::ParentDir => drop(found.pop()),
                Component::CurDir | Component::RootDir | Component::Prefix(_) => {}
            }
        }
        root.join(found.iter().collect::<PathBuf>())
    }

    /// Adds the path below the folder to an error, because the configuration names a different path.
    fn explain(&self, found: &Path, error: std::io::Error) -> std::io::Error {
        match self.0 {
            Some(_) => std::io::Error::new(error.kind(), format!("{}: {error}", found.display())),
            None => error,
        }
    }
}

/// The result of reading a configuration: its text, the compiled configuration, and the files that were read.
pub(super) struct Read {
    pub(super) text: String,
    pub(super) config: Result<Config, Vec<ConfigError>>,
    pub(super) stamps: Stamps,
}

impl Read {
    /// Reads the configuration file and the files that it names.
    pub(super) fn new(args: &ConfigArg) -> Self {
        Self::of(args, args.text())
    }

    /// Compiles a configuration whose text was already read, and reads the files that it names.
    pub(super) fn of(args: &ConfigArg, text: Result<String, Vec<ConfigError>>) -> Self {
        Self::below(args, text, &Root::default())
    }

    /// Does the same as [`Self::of`], with absolute paths resolved below `root`.
    pub(super) fn below(args: &ConfigArg, text: Result<String, Vec<ConfigError>>, root: &Root) -> Self {
        let stamps = Mutex::new(Stamps::new());
        // Metadata is recorded before the file is read. If the file changes while it is read, the next check therefore
        // notices the change.
        let look = |path: &Path| {
            stamps.lock().insert(path.to_owned(), stamp(path));
        };
        look(&args.config);
        let file = |path: &str| {
            let found = root.find(path);
            look(&found);
            read_file(&found, FILE_BYTES_MAX).map_err(|error| root.explain(&found, error))
        };
        let surroundings = Surroundings { env: &environment, file: &file };
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
