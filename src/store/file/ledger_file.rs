//! The ledger's file: a redb database of interactions and delivered events by number.
//!
//! The keys are numbers in the order in which the records were created. New records are therefore close together, and a
//! commit of many changes is cheap.
//!
//! The recovery after a failed operation depends on the failure:
//! - A write found no free space ([`FaultKind::NoSpace`]). Committed data is intact, and data that was written since is
//!   still in the page cache. Callgate opens the same file again and applies the changes again. Each change inserts or
//!   removes a record by its number, so applying a change twice is harmless.
//! - Any other failure, such as a failed sync ([`FaultKind::Broken`]). The kernel may have dropped the pages that it
//!   could not write and may have marked them clean. The next sync of the same file would then succeed without writing
//!   them. Callgate writes a new file from memory next to the old one, and renames it once it is durable.
//! - Another process has the file or has replaced it ([`FaultKind::NotOurs`]). Callgate must not write it any more.
//!
//! The lock that keeps other processes away belongs to the open file, which stays open during the recovery.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{Error, ErrorKind};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use redb::backends::FileBackend;
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};

use super::backend::{Backend, Disk};
use super::change::{Change, StoredEvent};
use crate::interaction::Interaction;
use crate::time::Timestamp;

/// Maps the number of an interaction to its id and its record (JSON).
const INTERACTIONS: TableDefinition<'_, u64, (&str, &[u8])> = TableDefinition::new("interactions");
/// Maps the number of an event to the event ([`StoredEvent::to_bits`]), the end of its retention (Unix milliseconds) and the number of its
/// interaction.
const EVENTS: TableDefinition<'_, u64, (u128, i64, u64)> = TableDefinition::new("events");
/// The names of the two halves of the key of the fingerprints in [`ABOUT`].
const FINGERPRINT_KEY: (&str, &str) = ("fingerprint_key_1", "fingerprint_key_2");
/// Describes the file.
const ABOUT: TableDefinition<'_, &str, u64> = TableDefinition::new("about");

/// The version of the file format.
const FORMAT: u64 = 1;
/// The size of the page cache. It is small, because Callgate reads the whole file only once, at start.
const CACHE_BYTES: usize = 16 << 20;
/// The longest chain of dangling symbolic links, as in the Linux kernel.
const LINKS_MAX: usize = 40;

const IN_USE: &str = "another process uses it";
const NOT_OPEN: &str = "it is not open";

/// The kind of a failure, which decides on the recovery.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(in crate::store) enum FaultKind {
    /// A write found no free space. The committed contents of the file are intact.
    NoSpace,
    /// The contents of the file are unknown, so it must be rewritten from memory.
    Broken,
    /// The file at the path belongs to another process, so it must not be written.
    NotOurs,
}

/// The reason why changes are not durable.
#[derive(Debug)]
pub(in crate::store) struct Fault {
    pub(in crate::store) message: String,
    pub(in crate::store) kind: FaultKind,
}

impl Fault {
    /// Returns a fault after which the file must be rewritten from memory.
    pub(in crate::store) fn broken(message: impl ToString) -> Self {
        Self { message: message.to_string(), kind: FaultKind::Broken }
    }

    fn not_ours(message: &str) -> Self {
        Self { message: message.to_owned(), kind: FaultKind::NotOurs }
    }
}

/// The ledger's file, open and locked.
#[derive(Debug)]
pub(in crate::store) struct LedgerFile {
    path: PathBuf,
    // Declared before `file`, so that the database is closed before the lock is released.
    database: Option<Database>,
    disk: Arc<Disk>,
    /// The open file. It has the lock.
    file: File,
}

impl LedgerFile {
    /// Opens the file, or creates it. If the path is a symbolic link, this opens or creates the link's target, so that
    /// a later rename replaces the target and not the link.
    pub(in crate::store) fn open(path: &str) -> Result<Self, String> {
        let text = |error: Error| error.to_string();
        let path = &*resolve(Path::new(path)).map_err(text)?;
        if !path.exists() {
            let mut created = Self::create_beside(path).map_err(|fault| fault.message)?;
            if path.exists() {
                return Err(IN_USE.to_owned());
            }
            created.move_to(path).map_err(|fault| fault.message)?;
            return Ok(created);
        }
        // After a crash, redb reads the whole file in random order. Reading it in order first fills the page cache.
        let mut file = File::open(path).map_err(text)?;
        std::io::copy(&mut file, &mut std::io::sink()).map_err(text)?;
        let file = OpenOptions::new().read(true).write(true).open(path).map_err(text)?;
        if file.metadata().map_err(text)?.len() == 0 {
            return Err("it is empty".to_owned());
        }
        let mut opened = Self::unopened(path, file);
        opened.open_database().map_err(|fault| fault.message)?;
        // The former owner of the lock may have replaced the file before it released the lock.
        if !opened.is_at(path).map_err(text)? {
            return Err(IN_USE.to_owned());
        }
        // A process that was killed may have left an incomplete file.
        let _ = std::fs::remove_file(beside(path));
        Ok(opened)
    }

    fn unopened(path: &Path, file: File) -> Self {
        Self { path: path.into(), database: None, disk: Arc::default(), file }
    }

    /// Creates an empty file next to `path`. A crash then leaves no incomplete file at `path`.
    pub(in crate::store) fn create_beside(path: &Path) -> Result<Self, Fault> {
        let new = beside(path);
        let _ = std::fs::remove_file(&new);
        let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&new);
        let mut created = Self::unopened(&new, file.map_err(Fault::broken)?);
        created.open_database()?;
        Ok(created)
    }

    /// Reports whether `path` names this file.
    fn is_at(&self, path: &Path) -> Result<bool, Error> {
        let (there, ours) = (std::fs::metadata(path)?, self.file.metadata()?);
        Ok((there.dev(), there.ino()) == (ours.dev(), ours.ino()))
    }

    /// Reports whether the file still has its name, or whether somebody removed it. Returns [`FaultKind::NotOurs`] if the
    /// path names another file.
    pub(in crate::store) fn check_name(&self) -> Result<bool, Fault> {
        match self.is_at(&self.path) {
            Ok(true) => Ok(true),
            Ok(false) => Err(Fault::not_ours("another process has replaced it")),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            Err(error) => Err(Fault::broken(error)),
        }
    }

    /// Renames this file to the path of `former`, unless another process has replaced `former`.
    pub(in crate::store) fn replace(&mut self, former: &Self) -> Result<(), Fault> {
        self.file.sync_all().map_err(Fault::broken)?;
        former.check_name()?;
        self.move_to(&former.path)
    }

    /// Renames the file to `path` and makes the rename durable.
    fn move_to(&mut self, path: &Path) -> Result<(), Fault> {
        self.file.sync_all().map_err(Fault::broken)?;
        std::fs::rename(&self.path, path).map_err(Fault::broken)?;
        // The file has its new name from here on, also if one of the next steps fails.
        self.path = path.into();
        if !self.is_at(path).map_err(Fault::broken)? {
            return Err(Fault::not_ours(IN_USE));
        }
        let folder = File::open(folder_of(path)).map_err(Fault::broken)?;
        folder.sync_all().map_err(Fault::broken)
    }

    /// Removes the file.
    pub(in crate::store) fn remove(self) {
        let _ = std::fs::remove_file(&self.path);
    }

    /// Returns the path of the file, without symbolic links.
    pub(in crate::store) fn path(&self) -> &Path {
        &self.path
    }

    /// Opens the database in the file. No other database of this file may be open in this process.
    fn open_database(&mut self) -> Result<(), Fault> {
        self.disk = Arc::default();
        let disk = Arc::clone(&self.disk);
        let fault = |message: String| Fault { message, kind: kind_of(&disk) };
        let file = self.file.try_clone().map_err(|error| fault(error.to_string()))?;
        let opened = FileBackend::new(file).and_then(|inner| {
            let mut builder = Database::builder();
            builder.set_cache_size(CACHE_BYTES);
            builder.create_with_backend(Backend { inner, disk: Arc::clone(&disk) })
        });
        let database = opened.map_err(|error| match error {
            redb::DatabaseError::DatabaseAlreadyOpen => Fault::not_ours(IN_USE),
            error => fault(error.to_string()),
        })?;
        create_tables(&database).map_err(fault)?;
        self.database = Some(database);
        Ok(())
    }

    /// Opens the database again after a write that found no free space.
    pub(in crate::store) fn reopen(&mut self) -> Result<(), Fault> {
        self.database = None;
        self.open_database()
    }

    /// Commits changes. They are durable once this returns.
    pub(in crate::store) fn apply(&mut self, changes: &[Change]) -> Result<(), Fault> {
        let Some(database) = &self.database else { return Err(Fault::broken(NOT_OPEN)) };
        commit(database, changes)
            .map_err(|error| Fault { message: error.to_string(), kind: kind_of(&self.disk) })
    }

    /// Reads the contents of the file.
    pub(in crate::store) fn read(&self) -> Result<Contents, String> {
        let Some(database) = &self.database else { return Err(NOT_OPEN.to_owned()) };
        Contents::read(database).map_err(|error| error.to_string())
    }
}

fn kind_of(disk: &Disk) -> FaultKind {
    if disk.has_no_space() { FaultKind::NoSpace } else { FaultKind::Broken }
}

/// Returns the path that a file is created under before it is renamed to `path`.
fn beside(path: &Path) -> PathBuf {
    let mut new = OsString::from(path);
    new.push(".new");
    new.into()
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Returns the path without symbolic links. The file itself does not need to exist, but its folder does.
fn resolve(path: &Path) -> Result<PathBuf, Error> {
    let mut path = path.to_owned();
    for _ in 0..LINKS_MAX {
        match std::fs::canonicalize(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            resolved => return resolved,
        }
        // Either the file does not exist, or a symbolic link is dangling.
        match std::fs::read_link(&path) {
            Ok(target) => path = folder_of(&path).join(target),
            Err(_) => {
                let name = path.file_name().ok_or(ErrorKind::InvalidInput)?;
                return Ok(std::fs::canonicalize(folder_of(&path))?.join(name));
            }
        }
    }
    Err(Error::other("too many symbolic links"))
}

fn commit(database: &Database, changes: &[Change]) -> Result<(), redb::Error> {
    let write = database.begin_write()?;
    {
        let mut interactions = write.open_table(INTERACTIONS)?;
        let mut events = write.open_table(EVENTS)?;
        for change in changes {
            match change {
                Change::Event(number, event, until, owner) => {
                    events.insert(number, (event.to_bits(), until.unix_ms(), *owner))?;
                }
                Change::FingerprintKey([first, second]) => {
                    let mut about = write.open_table(ABOUT)?;
                    about.insert(FINGERPRINT_KEY.0, first)?;
                    about.insert(FINGERPRINT_KEY.1, second)?;
                }
                Change::EventGone(number) => drop(events.remove(number)?),
                Change::Interaction(number, id, bytes) => {
                    interactions.insert(number, (&**id, bytes.as_slice()))?;
                }
                Change::InteractionGone(number) => drop(interactions.remove(number)?),
            }
        }
    }
    write.commit()?;
    Ok(())
}

/// Creates the tables of a new file. Returns an error if another version wrote the file.
fn create_tables(database: &Database) -> Result<(), String> {
    let create = || -> Result<u64, redb::Error> {
        let write = database.begin_write()?;
        write.open_table(INTERACTIONS)?;
        write.open_table(EVENTS)?;
        let mut about = write.open_table(ABOUT)?;
        let format = about.get("format")?.map(|format| format.value());
        if format.is_none() {
            about.insert("format", FORMAT)?;
        }
        drop(about);
        write.commit()?;
        Ok(format.unwrap_or(FORMAT))
    };
    match create() {
        Ok(FORMAT) => Ok(()),
        Ok(other) => {
            Err(format!("its format has version {other}, but this build supports only version {FORMAT}"))
        }
        Err(error) => Err(error.to_string()),
    }
}

/// The contents of the file at start.
pub(in crate::store) struct Contents {
    pub(in crate::store) number_max: u64,
    pub(in crate::store) interactions: Vec<(u64, Box<str>, Interaction)>,
    pub(in crate::store) events: Vec<(u64, StoredEvent, Timestamp, u64)>,
    /// The key of the fingerprints. A file of an earlier version has none.
    pub(in crate::store) fingerprint_key: Option<[u64; 2]>,
}

impl Contents {
    fn read(database: &Database) -> Result<Self, redb::Error> {
        let read = database.begin_read()?;
        let about = read.open_table(ABOUT)?;
        let half = |name| about.get(name).map(|value| value.map(|value| value.value()));
        let fingerprint_key = half(FINGERPRINT_KEY.0)?.zip(half(FINGERPRINT_KEY.1)?).map(Into::into);
        let mut contents =
            Self { number_max: 0, interactions: Vec::new(), events: Vec::new(), fingerprint_key };
        for row in read.open_table(INTERACTIONS)?.iter()? {
            let (number, value) = row?;
            let (id, bytes) = value.value();
            let record = serde_json::from_slice(bytes)
                .map_err(|error| redb::Error::Corrupted(format!("the record of {id} is invalid: {error}")))?;
            contents.number_max = contents.number_max.max(number.value());
            contents.interactions.push((number.value(), id.into(), record));
        }
        for row in read.open_table(EVENTS)?.iter()? {
            let (number, value) = row?;
            let (event, until, owner) = value.value();
            contents.number_max = contents.number_max.max(number.value());
            let event = StoredEvent::from_bits(event);
            contents.events.push((number.value(), event, Timestamp::from_unix_ms(until), owner));
        }
        Ok(contents)
    }
}
