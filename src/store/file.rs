//! The ledger's file: a redb database of interactions and delivered events by number.
//!
//! Keys are numbers in the order in which things became known: that keeps what is written close together, and a
//! commit of many changes cheap.
//!
//! What becomes of the file when the disk does not take something depends on what that was:
//! - There was no room for a write ([`Fault::no_room`]). What was committed is untouched, and what was written since is
//!   still on its way to the disk. The same file is opened again, and the changes are applied again; each is an insert
//!   or a removal by number, so it does not matter whether they were there already.
//! - Anything else, a failed sync above all. The kernel may have dropped what it could not write and calls it clean: the
//!   next sync of the same file would succeed without having written it. The file is made anew from memory, beside its
//!   place, and moved there once it is safe.
//!
//! The lock that keeps other processes away belongs to the open file, which is kept over both.

use std::fs::{File, OpenOptions};
use std::io::{Error, ErrorKind};
use std::ops::Bound;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use redb::backends::FileBackend;
use redb::{BackendError, Database, ReadableDatabase, ReadableTable, StorageBackend, TableDefinition};

use super::change::Change;
use crate::interaction::{EventKey, Interaction};
use crate::time::Timestamp;

/// Number -> id and record (JSON).
const INTERACTIONS: TableDefinition<'_, u64, (&str, &[u8])> = TableDefinition::new("interactions");
/// Number -> key, until when it is remembered (Unix milliseconds), and the number of its interaction.
const EVENTS: TableDefinition<'_, u64, (u128, i64, u64)> = TableDefinition::new("events");
/// What the file is.
const ABOUT: TableDefinition<'_, &str, u64> = TableDefinition::new("about");

/// The version of the file's contents.
const FORMAT: u64 = 1;
/// The pages of the file that are kept in memory; everything is read only once, at start.
const CACHE_BYTES: usize = 16 << 20;

/// What is said where the file is not ours.
const TAKEN: &str = "another process uses it";

/// Why changes are not safe.
#[derive(Debug)]
pub(super) struct Fault {
    /// What happened, in words.
    pub(super) message: String,
    /// Only room was lacking: the file is as good as it was.
    pub(super) no_room: bool,
}

impl Fault {
    /// One after which the file must be made anew.
    pub(super) fn of(message: impl ToString) -> Self {
        Self { message: message.to_string(), no_room: false }
    }
}

/// The ledger's file, open and locked.
#[derive(Debug)]
pub(super) struct LedgerFile {
    path: Box<str>,
    // Dropped first.
    database: Option<Database>,
    disk: Arc<Disk>,
    /// Holds the lock.
    file: File,
}

impl LedgerFile {
    /// Opens the file, or makes it.
    pub(super) fn open(path: &str) -> Result<Self, String> {
        let words = |error: Error| error.to_string();
        if !Path::new(path).exists() {
            let mut made = Self::make_beside(path).map_err(|fault| fault.message)?;
            if Path::new(path).exists() {
                return Err(TAKEN.to_owned());
            }
            made.move_to(path).map_err(|fault| fault.message)?;
            return Ok(made);
        }
        // After a crash the whole file is walked through, in no order: read in order before, that takes a moment only.
        let mut file = File::open(path).map_err(words)?;
        std::io::copy(&mut file, &mut std::io::sink()).map_err(words)?;
        let file = OpenOptions::new().read(true).write(true).open(path).map_err(words)?;
        if file.metadata().map_err(words)?.len() == 0 {
            return Err("it is empty".to_owned());
        }
        let mut opened = Self::over(path, file);
        opened.begin()?;
        // The process that had it may have put another one in its place meanwhile.
        if !opened.is_at(path).map_err(words)? {
            return Err(TAKEN.to_owned());
        }
        // What a process that was killed was making.
        let _ = std::fs::remove_file(beside(path));
        Ok(opened)
    }

    fn over(path: &str, file: File) -> Self {
        Self { path: path.into(), database: None, disk: Arc::default(), file }
    }

    /// Makes an empty file beside its place: a file whose making was cut off could not be opened.
    pub(super) fn make_beside(path: &str) -> Result<Self, Fault> {
        let new = beside(path);
        let _ = std::fs::remove_file(&new);
        let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&new);
        let mut made = Self::over(&new, file.map_err(Fault::of)?);
        made.begin().map_err(Fault::of)?;
        Ok(made)
    }

    /// Whether this is the file that has this name.
    fn is_at(&self, path: &str) -> Result<bool, Error> {
        Ok(std::fs::metadata(path)?.ino() == self.file.metadata()?.ino())
    }

    /// Moves the file to its place, over what is there.
    pub(super) fn move_to(&mut self, path: &str) -> Result<(), Fault> {
        self.file.sync_all().map_err(Fault::of)?;
        std::fs::rename(&*self.path, path).map_err(Fault::of)?;
        if !self.is_at(path).map_err(Fault::of)? {
            return Err(Fault::of(TAKEN));
        }
        self.path = path.into();
        let folder = Path::new(path).parent().filter(|folder| !folder.as_os_str().is_empty());
        let folder = File::open(folder.unwrap_or(Path::new("."))).map_err(Fault::of)?;
        folder.sync_all().map_err(Fault::of)
    }

    /// Removes the file.
    pub(super) fn remove(self) {
        let _ = std::fs::remove_file(&*self.path);
    }

    /// Where it is.
    pub(super) fn path(&self) -> &str {
        &self.path
    }

    /// Opens the database in the file; another one must not be open.
    fn begin(&mut self) -> Result<(), String> {
        self.disk = Arc::default();
        let file = self.file.try_clone().map_err(|error| error.to_string())?;
        let inner = FileBackend::new(file).map_err(|error| error.to_string())?;
        let mut builder = Database::builder();
        builder.set_cache_size(CACHE_BYTES);
        let opened = builder.create_with_backend(Backend { inner, disk: Arc::clone(&self.disk) });
        let database = opened.map_err(|error| match error {
            redb::DatabaseError::DatabaseAlreadyOpen => TAKEN.to_owned(),
            error => error.to_string(),
        })?;
        make_tables(&database)?;
        self.database = Some(database);
        Ok(())
    }

    /// Opens the database again, after a write that had no room.
    pub(super) fn reopen(&mut self) -> Result<(), Fault> {
        self.database = None;
        self.begin().map_err(|message| Fault { message, no_room: self.disk.no_room() })
    }

    /// Makes changes; they are safe once this returns.
    pub(super) fn apply(&mut self, changes: &[Change]) -> Result<(), Fault> {
        let Some(database) = &self.database else { return Err(Fault::of("it is not open")) };
        commit(database, changes)
            .map_err(|error| Fault { message: error.to_string(), no_room: self.disk.no_room() })
    }

    /// Reads everything.
    pub(super) fn read(&self) -> Result<ClaimError, String> {
        let Some(database) = &self.database else { return Err("it is not open".to_owned()) };
        ClaimError::read(database).map_err(|error| error.to_string())
    }
}

/// Returns the path at which a new file is written before it is renamed to `path`.
fn beside(path: &str) -> String {
    format!("{path}.new")
}

fn commit(database: &Database, changes: &[Change]) -> Result<(), redb::Error> {
    let write = database.begin_write()?;
    {
        let mut interactions = write.open_table(INTERACTIONS)?;
        let mut events = write.open_table(EVENTS)?;
        for change in changes {
            match change {
                Change::Event(number, event, until, owner) => {
                    events.insert(number, (event.0, until.unix_ms(), *owner))?;
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

/// Makes the tables of a new file, and refuses one that another version wrote.
fn make_tables(database: &Database) -> Result<(), String> {
    let made = || -> Result<u64, redb::Error> {
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
    match made() {
        Ok(FORMAT) => Ok(()),
        Ok(other) => Err(format!("its contents have version {other}; this build knows {FORMAT}")),
        Err(error) => Err(error.to_string()),
    }
}

// === The disk ===

const WELL: u8 = 0;
const NO_ROOM: u8 = 1;
const BROKEN: u8 = 2;

/// What the disk did not take since the database was opened.
#[derive(Debug, Default)]
struct Disk(AtomicU8);

impl Disk {
    fn no_room(&self) -> bool {
        self.0.load(Ordering::Relaxed) == NO_ROOM
    }

    /// Refuses to go on behind a failure.
    fn check(&self) -> Result<(), Error> {
        match self.0.load(Ordering::Relaxed) {
            WELL => Ok(()),
            _ => Err(Error::other("an earlier write or sync failed")),
        }
    }

    fn wrote(&self, result: Result<(), Error>) -> Result<(), Error> {
        result.inspect_err(|error| {
            let no_room = matches!(
                error.kind(),
                ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge
            );
            self.0.fetch_max(if no_room { NO_ROOM } else { BROKEN }, Ordering::Relaxed);
        })
    }

    fn synced(&self, result: Result<(), Error>) -> Result<(), Error> {
        result.inspect_err(|_| self.0.store(BROKEN, Ordering::Relaxed))
    }
}

/// The file as the database sees it. Closing leaves the lock to [`LedgerFile`].
#[derive(Debug)]
struct Backend {
    inner: FileBackend,
    disk: Arc<Disk>,
}

type Edge = Bound<u64>;

impl StorageBackend for Backend {
    fn len(&self) -> Result<u64, Error> {
        self.inner.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), Error> {
        self.inner.read(offset, out)
    }

    fn set_len(&self, len: u64) -> Result<(), Error> {
        self.disk.check()?;
        self.disk.wrote(self.inner.set_len(len))
    }

    fn sync_data(&self) -> Result<(), Error> {
        self.disk.check()?;
        self.disk.synced(self.inner.sync_data())
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), Error> {
        self.disk.check()?;
        self.disk.wrote(self.inner.write(offset, data))
    }

    fn try_lock_range(&self, start: Edge, end: Edge) -> Result<bool, BackendError> {
        self.inner.try_lock_range(start, end)
    }

    fn try_lock_shared_range(&self, start: Edge, end: Edge) -> Result<bool, BackendError> {
        self.inner.try_lock_shared_range(start, end)
    }

    fn lock_range(&self, start: Edge, end: Edge) -> Result<(), BackendError> {
        self.inner.lock_range(start, end)
    }

    fn lock_shared_range(&self, start: Edge, end: Edge) -> Result<(), BackendError> {
        self.inner.lock_shared_range(start, end)
    }

    fn unlock_range(&self, start: Edge, end: Edge) -> Result<(), BackendError> {
        self.inner.unlock_range(start, end)
    }

    fn query_lock_range(&self, start: Edge, end: Edge) -> Result<bool, BackendError> {
        self.inner.query_lock_range(start, end)
    }
}

// === What it held ===

/// What a file held when it was opened.
pub(super) struct ClaimError {
    pub(super) number_max: u64,
    pub(super) interactions: Vec<(u64, Box<str>, Interaction)>,
    pub(super) events: Vec<(u64, EventKey, Timestamp, u64)>,
}

impl ClaimError {
    fn read(database: &Database) -> Result<Self, redb::Error> {
        let read = database.begin_read()?;
        let mut held = Self { number_max: 0, interactions: Vec::new(), events: Vec::new() };
        for row in read.open_table(INTERACTIONS)?.iter()? {
            let (number, value) = row?;
            let (id, bytes) = value.value();
            let record = serde_json::from_slice(bytes)
                .map_err(|error| redb::Error::Corrupted(format!("the record of {id}: {error}")))?;
            held.number_max = held.number_max.max(number.value());
            held.interactions.push((number.value(), id.into(), record));
        }
        for row in read.open_table(EVENTS)?.iter()? {
            let (number, value) = row?;
            let (key, until, owner) = value.value();
            held.number_max = held.number_max.max(number.value());
            held.events.push((number.value(), EventKey(key), Timestamp::from_unix_ms(until), owner));
        }
        Ok(held)
    }
}
