//! The ledger's file: a redb database of interactions, delivered events and messages of the inbox. Each record has a
//! number as its key.
//!
//! Records are numbered in the order in which they are created. New records are therefore close together in the file,
//! and a commit of many changes is cheap.
//!
//! The recovery after a failed operation depends on the failure:
//! - A write found no free space ([`FaultKind::NoSpace`]). Committed data is intact, and data that was written since is
//!   still in the page cache. Callgate opens the same file again and applies the changes again. Each change inserts or
//!   removes a record by its number, so applying a change twice is harmless.
//! - Any other failure, such as a failed sync ([`FaultKind::Broken`]). The kernel may have dropped the pages that it
//!   could not write and may have marked them clean. The next sync of the same file would then succeed without writing
//!   them. Callgate writes a new file from memory next to the old one, and renames it once it is durable. The messages
//!   of the inbox are not in memory. They are copied from the last complete commit of the old file.
//! - Another process uses the file or has replaced it ([`FaultKind::NotOurs`]). Callgate must not write the file any
//!   more.
//!
//! The lock that keeps other processes away belongs to the open file, which stays open during the recovery.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{Error, ErrorKind, Seek, SeekFrom};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use redb::Database;
use redb::backends::FileBackend;

use super::change::Change;
use super::fail_stop_storage::{Backend, Disk};
use super::messages::MessageReader;
use super::record::Record;
use super::tables::{self, guarded};

/// The size of the database's page cache, in bytes. The cache is small, because Callgate reads the whole file only
/// once, at the start.
const CACHE_BYTES: usize = 16 << 20;
/// While the database repairs the file, it reports the progress as a number. A number in this range means that the last
/// commit was incomplete and was discarded.
const DISCARDS_A_COMMIT: std::ops::Range<f64> = 0.2..0.5;
/// The minimum size of a ledger's file that is compacted, in bytes.
const COMPACTED_BYTES_MIN: u64 = 16 << 20;
/// The number of bytes that the file is assumed to need for each byte of a record. The number is greater than one,
/// because some pages are not full and others are being replaced.
const USED_PER_RECORD_BYTE: u64 = 2;
/// The maximum length of a chain of dangling symbolic links. It is the same as in the Linux kernel.
const LINKS_MAX: usize = 40;

/// The error text if another process uses the ledger's file.
pub(in crate::store) const IN_USE: &str = "another process uses it";
const NOT_OPEN: &str = "it is not open";

/// The kind of a failed operation on the ledger's file, which determines the recovery.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(in crate::store) enum FaultKind {
    /// A write found no free space. The committed contents of the file are intact.
    NoSpace,
    /// The contents of the file are unknown, so it must be rewritten from memory.
    Broken,
    /// Another process has put its own file at the path, so the file must not be written.
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
    // The database is declared before `file`, so that it is closed before the lock is released.
    database: Option<Arc<Database>>,
    /// Reads messages of the inbox on other threads.
    reader: MessageReader,
    disk: Arc<Disk>,
    /// The open file. The lock belongs to it.
    file: File,
    /// The size of all records, in bytes. The database needs more space than the records.
    records_bytes: i64,
    /// Whether the file may contain messages of the inbox.
    has_messages: bool,
}

impl LedgerFile {
    /// Opens the file. If it does not exist, creates it. If the path is a symbolic link, opens or creates the target of
    /// the link. A later rename then replaces the target, and the link stays.
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
        // After a crash, redb reads the whole file in random order. Callgate first reads the file from beginning to
        // end, so that it is in the page cache.
        let mut file = File::open(path).map_err(text)?;
        std::io::copy(&mut file, &mut std::io::sink()).map_err(text)?;
        let file = OpenOptions::new().read(true).write(true).open(path).map_err(text)?;
        if file.metadata().map_err(text)?.len() == 0 {
            return Err("it is empty".to_owned());
        }
        let mut opened = Self::unopened(path, file);
        if opened.open_database().map_err(|fault| fault.message)? {
            log::warn!(
                "the last commit in the ledger's file {} is incomplete and was discarded. This is normal after a power \
                 cut, a full disk, or if Callgate was killed, and loses nothing that was acknowledged. If none of these \
                 has happened, check the disk",
                path.display()
            );
        }
        // The process that had locked the file before may have replaced it and then released the lock.
        if !opened.is_at(path).map_err(text)? {
            return Err(IN_USE.to_owned());
        }
        // A process that was killed may have left an incomplete file.
        let _ = std::fs::remove_file(beside(path));
        Ok(opened)
    }

    fn unopened(path: &Path, file: File) -> Self {
        let (path, reader, disk) = (path.into(), MessageReader::default(), Arc::default());
        Self { path, database: None, reader, disk, file, records_bytes: 0, has_messages: false }
    }

    /// Creates an empty file next to `path`. If Callgate crashes while it writes the new file, the file at `path` is
    /// unchanged.
    pub(in crate::store) fn create_beside(path: &Path) -> Result<Self, Fault> {
        let new = beside(path);
        let _ = std::fs::remove_file(&new);
        let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&new);
        let mut created = Self::unopened(&new, file.map_err(Fault::broken)?);
        created.open_database()?;
        Ok(created)
    }

    /// Reports whether `path` is the path of this open file.
    fn is_at(&self, path: &Path) -> Result<bool, Error> {
        let (there, ours) = (std::fs::metadata(path)?, self.file.metadata()?);
        Ok((there.dev(), there.ino()) == (ours.dev(), ours.ino()))
    }

    /// Returns true if the recorded path is still the path of this file. Returns false if no file is at the path any
    /// more. Returns a fault of the kind [`FaultKind::NotOurs`] if another file is at the path.
    pub(in crate::store) fn check_name(&self) -> Result<bool, Fault> {
        match self.is_at(&self.path) {
            Ok(true) => Ok(true),
            Ok(false) => Err(Fault::not_ours("another process has replaced it")),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            Err(error) => Err(Fault::broken(error)),
        }
    }

    /// Replaces this file by `new`, which must be complete. Fails if another process has replaced this file. The first
    /// result is true if `new` is now at the path of this file. If the second result is a fault although the first
    /// result is true, a crash can undo the replacement.
    pub(in crate::store) fn replace_with(&mut self, mut new: Self) -> (bool, Result<(), Fault>) {
        let moved = new.replace(self);
        let is_in_place = new.path == self.path;
        if is_in_place {
            // No path leads to the former file any more. Its lock is released only now, when `new` is locked and at the
            // path.
            let reader = self.reader.clone();
            reader.set(None);
            *self = new;
            reader.set(self.database.as_ref());
            self.reader = reader;
        } else {
            new.remove();
        }
        (is_in_place, moved)
    }

    /// Renames this file to the path of `former`, unless another process has replaced `former`.
    fn replace(&mut self, former: &Self) -> Result<(), Fault> {
        self.file.sync_all().map_err(Fault::broken)?;
        former.check_name()?;
        self.move_to(&former.path)
    }

    /// Renames the file to `path` and makes the rename durable.
    fn move_to(&mut self, path: &Path) -> Result<(), Fault> {
        self.file.sync_all().map_err(Fault::broken)?;
        std::fs::rename(&self.path, path).map_err(Fault::broken)?;
        // From here on, the file is at the new path, even if one of the next steps fails.
        self.path = path.into();
        if !self.is_at(path).map_err(Fault::broken)? {
            return Err(Fault::not_ours(IN_USE));
        }
        let folder = File::open(folder_of(path)).map_err(Fault::broken)?;
        folder.sync_all().map_err(Fault::broken)
    }

    /// Removes the file from the file system.
    pub(in crate::store) fn remove(self) {
        let _ = std::fs::remove_file(&self.path);
    }

    /// Returns the size of the file, in bytes.
    pub(in crate::store) fn size(&self) -> u64 {
        self.file.metadata().map_or(0, |metadata| metadata.len())
    }

    /// Returns the size of the file in bytes if most of its space is free. Returns `None` for small files and for files
    /// that are mostly in use.
    pub(in crate::store) fn size_if_mostly_free(&self) -> Option<u64> {
        let size = self.size();
        let used = u64::try_from(self.records_bytes).unwrap_or(0).saturating_mul(USED_PER_RECORD_BYTE);
        (size >= COMPACTED_BYTES_MIN && size / 2 > used).then_some(size)
    }

    /// Returns the path of the file, without symbolic links.
    pub(in crate::store) fn path(&self) -> &Path {
        &self.path
    }

    /// Opens the database in the file, and verifies the checksum of each page. The caller must have closed every other
    /// database of this file. Returns true if the last commit was incomplete and was discarded.
    fn open_database(&mut self) -> Result<bool, Fault> {
        self.disk = Arc::default();
        let disk = Arc::clone(&self.disk);
        let fault = |message: String| Fault { message, kind: kind_of(&disk) };
        let file = self.file.try_clone().map_err(|error| fault(error.to_string()))?;
        let discarded = Arc::<AtomicBool>::default();
        let was_discarded = Arc::clone(&discarded);
        let opened = guarded(|| {
            let backend = Backend { inner: FileBackend::new(file)?, disk: Arc::clone(&disk) };
            let mut builder = Database::builder();
            builder.set_cache_size(CACHE_BYTES).set_check_integrity_on_open(true);
            builder.set_repair_callback(move |repair| {
                discarded.fetch_or(DISCARDS_A_COMMIT.contains(&repair.progress()), Ordering::Relaxed);
            });
            let database = builder.create_with_backend(backend)?;
            tables::create(&database)?;
            Ok(database)
        });
        let database = opened.map_err(|error| match error {
            redb::Error::DatabaseAlreadyOpen => Fault::not_ours(IN_USE),
            error => fault(describe(&error)),
        })?;
        let database = self.database.insert(Arc::new(database));
        self.reader.set(Some(database));
        Ok(was_discarded.load(Ordering::Relaxed))
    }

    /// Closes the database. The database panics if a page of the file is damaged. Such a panic is only logged.
    fn close_database(&mut self) {
        self.reader.set(None);
        let database = self.database.take();
        let close = || {
            drop(database);
            Ok(())
        };
        if let Err(error) = guarded(close) {
            log::warn!("the ledger's file was not closed properly: {error}");
        }
    }

    /// Returns the open database.
    pub(super) fn database(&self) -> Option<&Arc<Database>> {
        self.database.as_ref()
    }

    /// Returns a reader of the messages of the inbox. The reader stays valid when the file is replaced.
    pub(in crate::store) fn message_reader(&self) -> MessageReader {
        self.reader.clone()
    }

    /// Closes the database, and returns the file for reading. The file stays locked.
    pub(in crate::store) fn bytes(&mut self) -> Result<File, Error> {
        self.close_database();
        let mut file = self.file.try_clone()?;
        file.seek(SeekFrom::Start(0))?;
        Ok(file)
    }

    /// Returns the path of a ledger without symbolic links.
    pub(in crate::store) fn resolve(path: &str) -> Result<PathBuf, String> {
        resolve(Path::new(path)).map_err(|error| format!("{path}: {error}"))
    }

    /// Opens the database again after a commit of this process has failed. The failed commit is discarded, so the
    /// caller must repeat it.
    pub(in crate::store) fn reopen(&mut self) -> Result<(), Fault> {
        self.close_database();
        self.open_database().map(drop)
    }

    /// Commits changes. The changes are durable when this method returns `Ok`.
    pub(in crate::store) fn apply(&mut self, changes: &[Change]) -> Result<(), Fault> {
        let Some(database) = &self.database else { return Err(Fault::broken(NOT_OPEN)) };
        let growth = guarded(|| tables::commit(database, changes))
            .map_err(|error| Fault { message: error.to_string(), kind: kind_of(&self.disk) })?;
        self.records_bytes += growth;
        self.has_messages |= changes.iter().any(Change::is_of_inbox);
        Ok(())
    }

    /// Reports whether the file may contain messages of the inbox.
    pub(in crate::store) fn has_messages(&self) -> bool {
        self.has_messages
    }

    /// Reads the fingerprint key. Returns `None` if an earlier version of Callgate wrote the file.
    pub(in crate::store) fn fingerprint_key(&self) -> Result<Option<[u64; 2]>, String> {
        let Some(database) = &self.database else { return Err(NOT_OPEN.to_owned()) };
        guarded(|| tables::fingerprint_key(database)).map_err(|error| describe(&error))
    }

    /// Reads the contents of the file: first the interactions, then the events and then the messages, each in the order
    /// of their numbers.
    pub(in crate::store) fn read(&mut self, mut visit: impl FnMut(Record)) -> Result<(), String> {
        let Some(database) = &self.database else { return Err(NOT_OPEN.to_owned()) };
        let mut has_messages = false;
        let visit = |record| {
            has_messages |= matches!(record, Record::Message(..) | Record::MessageNumber(1..));
            visit(record);
        };
        self.records_bytes = guarded(|| tables::read(database, visit)).map_err(|error| describe(&error))?;
        self.has_messages = has_messages;
        Ok(())
    }
}

impl Drop for LedgerFile {
    fn drop(&mut self) {
        self.close_database();
    }
}

/// Describes an error for the operator, with a hint if the file is damaged.
fn describe(error: &redb::Error) -> String {
    match error {
        redb::Error::Corrupted(detail) => format!(
            "it is damaged ({detail}). Restore it from a backup, or move it away to start with an empty ledger"
        ),
        redb::Error::Io(error) => error.to_string(),
        error => error.to_string(),
    }
}

fn kind_of(disk: &Disk) -> FaultKind {
    if disk.has_no_space() { FaultKind::NoSpace } else { FaultKind::Broken }
}

/// Returns the path at which a new file is created before it is renamed to `path`.
fn beside(path: &Path) -> PathBuf {
    let mut new = OsString::from(path);
    new.push(".new");
    new.into()
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Returns the path without symbolic links. The folder of the file must exist, but the file itself may be missing.
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
