//! Reads a configuration and the files that it names, and records their metadata.
//!
//! The recorded metadata later shows whether one of the files has changed.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

use clap::Args;
use parking_lot::Mutex;

use super::common::{EXIT_USAGE, counted, environment, printable_lines};
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
            vec![ConfigError::of_file(None, message)]
        })
    }

    pub(super) fn parse(&self) -> Result<Config, Vec<ConfigError>> {
        Read::new(self).config
    }

    /// Reads and compiles the configuration. If the configuration has mistakes, prints all of them and returns the exit
    /// code.
    pub(super) fn load(&self) -> Result<Config, u8> {
        self.parse().map_err(|errors| {
            self.print_errors(&errors);
            EXIT_USAGE
        })
    }

    pub(super) fn print_errors(&self, errors: &[ConfigError]) {
        for error in errors {
            // The text of an error can quote the configuration, which somebody else may have written.
            let text = printable_lines(&error.to_string());
            match &error.file {
                Some(_) => eprintln!("error: {text}"),
                None => eprintln!("error: {}: {text}", self.config.display()),
            }
        }
        // If errors were omitted, the last entry of the list contains the number of omitted errors. The length of the
        // list is then not the number of mistakes.
        if errors.len() <= ERRORS_MAX {
            eprintln!("{} in {}", counted(errors.len(), "mistake"), self.config.display());
        }
    }
}

/// The metadata of a file that shows whether the file was changed or replaced: device, inode, size, modification time
/// and change time. Symbolic links are followed. `None` means that the file does not exist.
pub(super) type Stamp = Option<(u64, u64, u64, i64, i64, i64)>;

/// The files that a configuration was read from, each with the metadata that shows whether the file has changed.
pub(super) type Stamps = BTreeMap<PathBuf, Stamp>;

pub(super) fn stamp(path: &Path) -> Stamp {
    let found = std::fs::metadata(path).ok()?;
    Some((found.dev(), found.ino(), found.len(), found.mtime(), found.mtime_nsec(), found.ctime_nsec()))
}

/// The folder in which the absolute paths of a configuration are looked up, such as a copy of the files of a pod.
/// `None` means the root folder of this machine.
#[derive(Default)]
pub(super) struct Root(pub(super) Option<PathBuf>);

impl Root {
    /// Resolves a path of the configuration. An absolute path is resolved below this root folder, and `..` cannot leave
    /// this folder. A relative path is returned unchanged.
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

    /// Adds the path `found` to an error about a file if absolute paths are resolved below a folder. The configuration
    /// contains a different path in this case.
    fn explain(&self, found: &Path, error: std::io::Error) -> std::io::Error {
        match self.0 {
            Some(_) => std::io::Error::new(error.kind(), format!("{}: {error}", found.display())),
            None => error,
        }
    }
}

/// The texts of a configuration: the text of its file, and the texts of the files that `include` names.
#[derive(Clone, Default)]
pub(super) struct Texts {
    main: String,
    included: Included,
}

/// The files that `include` names, with their contents, in the order of `include`. This order does not depend on the
/// names of the folders, which can be different on another machine.
type Included = Vec<(PathBuf, Vec<u8>)>;

impl Texts {
    /// Returns all texts of the configuration as one text, so that two configurations can be compared.
    pub(super) fn whole(&self) -> String {
        let included = self.included.iter().map(|(_, bytes)| String::from_utf8_lossy(bytes));
        included.fold(self.main.clone(), |whole, text| whole + "\0" + &text)
    }

    /// Reports whether the configuration includes the file `path`.
    pub(super) fn includes(&self, path: &Path) -> bool {
        self.included.iter().any(|(included, _)| included == path)
    }
}

/// The result of reading a configuration: its texts, the compiled configuration, and the metadata of the files that
/// were read.
pub(super) struct Read {
    pub(super) texts: Texts,
    pub(super) config: Result<Config, Vec<ConfigError>>,
    pub(super) stamps: Stamps,
}

impl Read {
    /// Reads and compiles the configuration file, and reads the files that it names.
    pub(super) fn new(args: &ConfigArg) -> Self {
        Self::below(args, &Root::default())
    }

    /// Compiles a configuration whose texts were already read, and reads the other files that the configuration names.
    pub(super) fn of(args: &ConfigArg, texts: Texts) -> Self {
        Self::compile(args, Ok(texts.main), &texts.included, &Root::default())
    }

    /// Reads and compiles the configuration file like [`Self::new`], with absolute paths resolved below `root`.
    pub(super) fn below(args: &ConfigArg, root: &Root) -> Self {
        Self::compile(args, args.text(), &Included::new(), root)
    }

    fn compile(
        args: &ConfigArg,
        text: Result<String, Vec<ConfigError>>,
        known: &Included,
        root: &Root,
    ) -> Self {
        let (stamps, included) = (Mutex::new(Stamps::new()), Mutex::new(Included::new()));
        // Metadata is recorded before the file is read. If the file changes while it is read, the next comparison
        // therefore shows the change.
        let look = |path: &Path| {
            stamps.lock().insert(path.to_owned(), stamp(path));
        };
        look(&args.config);
        let file = |path: &str| {
            let found = root.find(path);
            look(&found);
            read_file(&found, FILE_BYTES_MAX).map_err(|error| root.explain(&found, error))
        };
        let include = |path: &str| {
            // A relative path is resolved in the folder of the configuration file, and not below `root`.
            let found = match Path::new(path).is_absolute() {
                true => root.find(path),
                false => args.config.parent().unwrap_or(Path::new("")).join(path),
            };
            look(&found);
            let bytes = match known.iter().find(|(path, _)| *path == found) {
                Some((_, bytes)) => bytes.clone(),
                None => read_file(&found, FILE_BYTES_MAX).map_err(|error| root.explain(&found, error))?,
            };
            included.lock().push((found, bytes.clone()));
            Ok(bytes)
        };
        let surroundings = Surroundings { env: &environment, file: &file };
        let config = match &text {
            Ok(text) => Config::parse_with(text, &surroundings, &include),
            Err(errors) => Err(errors.clone()),
        };
        if let Ok(config) = &config {
            let feeds = config.policy.feeds.iter().filter(|feed| feed.kind != FeedKind::Secret);
            feeds.filter_map(|feed| feed.url.strip_prefix("file:")).for_each(|path| look(Path::new(path)));
        }
        let texts = Texts { main: text.unwrap_or_default(), included: included.into_inner() };
        Self { texts, config, stamps: stamps.into_inner() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_texts_are_equal_whatever_the_folders_are_called() {
        let folder = tempfile::tempdir().unwrap();
        let shared = folder.path().join("m");
        std::fs::create_dir(&shared).unwrap();
        std::fs::write(shared.join("routes.yaml"), "routes: []\n").unwrap();
        let whole = |own: &str, order: &str| {
            let own = folder.path().join(own);
            std::fs::create_dir_all(&own).unwrap();
            std::fs::write(own.join("limits.yaml"), "limits: {}\n").unwrap();
            let text = format!("include: [{}]\n", order.replace("SHARED", &shared.display().to_string()));
            std::fs::write(own.join("callgate.yaml"), text).unwrap();
            Read::new(&ConfigArg { config: own.join("callgate.yaml") }).texts.whole()
        };
        let order = "limits.yaml, SHARED/routes.yaml";
        assert_eq!(whole("a", order), whole("z", order));
        assert!(whole("a", order).ends_with("\0limits: {}\n\0routes: []\n"));
        assert!(whole("z", "SHARED/routes.yaml, limits.yaml").ends_with("\0routes: []\n\0limits: {}\n"));
    }
}
