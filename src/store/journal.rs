//! The ledger's file. Changes are gathered while one commit is under way and go into the next one together; who
//! needs a change to be safe waits for the commit that holds it. One thread writes, and nobody else has the file.
//!
//! Keys are numbers in the order in which things became known: that keeps what is written close together, and a
//! commit of many changes cheap.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use redb::backends::FileBackend;
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};
use tokio::sync::watch;
use tokio::time::timeout;

use super::memory::{LOOSE, Memory};
use crate::interaction::{EventKey, Interaction};
use crate::observe::Metrics;
use crate::time::Timestamp;

/// Number -> id and record (JSON).
const INTERACTIONS: TableDefinition<'_, u64, (&str, &[u8])> = TableDefinition::new("interactions");
/// Number -> key, until when it is remembered (Unix milliseconds), and the number of its interaction.
const EVENTS: TableDefinition<'_, u64, (u128, i64, u64)> = TableDefinition::new("events");
/// What the file is.
const ABOUT: TableDefinition<'_, &str, u64> = TableDefinition::new("about");

/// The version of the file's contents.
const FORMAT: u64 = 1;
/// Longest wait for a commit.
const PATIENCE: Duration = Duration::from_secs(30);
/// The pages of the file that are kept in memory; everything is read only once, at start.
const CACHE_BYTES: usize = 16 << 20;

/// A change to the ledger.
#[derive(Debug)]
pub(super) enum Change {
    Event(u64, EventKey, Timestamp, u64),
    EventGone(u64),
    Interaction(u64, Arc<str>, Vec<u8>),
    InteractionGone(u64),
}

#[derive(Debug, Default)]
struct Queue {
    changes: Vec<Change>,
    /// The number of the last change.
    sequence: u64,
    closed: bool,
}

/// How far the file has got.
#[derive(Clone, Copy, Debug, Default)]
struct Done {
    /// Every change up to this one is safe.
    sequence: u64,
    failed: bool,
}

/// The file, being written.
#[derive(Debug)]
pub(super) struct Journal {
    shared: Arc<Shared>,
    numbers: AtomicU64,
    done: watch::Receiver<Done>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Debug, Default)]
struct Shared {
    queue: Mutex<Queue>,
    wake: Condvar,
}

impl Journal {
    /// Opens or makes the file, hands what it holds to `restore`, and starts writing.
    pub(super) fn open(
        path: &str,
        metrics: Arc<Metrics>,
        clock: fn() -> Instant,
    ) -> Result<(Self, Held), String> {
        let database = open(path)?;
        let held = Held::read(&database).map_err(|error| error.to_string())?;
        let numbers = AtomicU64::new(held.number_max.saturating_add(1));
        let shared = Arc::<Shared>::default();
        let (sender, done) = watch::channel(Done::default());
        let writer = Writer { database, shared: Arc::clone(&shared), done: sender, metrics, clock };
        let thread = std::thread::Builder::new().name("ledger".to_owned()).spawn(move || writer.run());
        let thread = Mutex::new(Some(thread.map_err(|error| error.to_string())?));
        Ok((Self { shared, numbers, done, thread }, held))
    }

    /// A number for something new.
    pub(super) fn number(&self) -> u64 {
        self.numbers.fetch_add(1, Ordering::Relaxed)
    }

    /// The number of the last change.
    pub(super) fn sequence(&self) -> u64 {
        self.shared.queue.lock().sequence
    }

    /// Takes changes; returns the number by which [`Journal::durable`] knows the last one. Of no changes that is 0,
    /// which is always safe: a number that no commit will ever reach would be waited for in vain.
    pub(super) fn record(&self, changes: impl IntoIterator<Item = Change>) -> u64 {
        let mut queue = self.shared.queue.lock();
        if queue.closed {
            // Nobody writes them any more, and nobody is told that they are safe.
            return u64::MAX;
        }
        let before = queue.changes.len();
        queue.changes.extend(changes);
        if queue.changes.len() == before {
            return 0;
        }
        queue.sequence += 1;
        let sequence = queue.sequence;
        drop(queue);
        if before == 0 {
            self.shared.wake.notify_one();
        }
        sequence
    }

    /// Waits until everything up to this change is safe; false: it never will be.
    pub(super) async fn durable(&self, sequence: u64) -> bool {
        let mut done = self.done.clone();
        let reached = done.wait_for(|done| done.failed || done.sequence >= sequence);
        // A disk that hangs must not hold every exchange for ever; what is not known to be safe is not acknowledged.
        let reached = timeout(PATIENCE, reached).await;
        reached.is_ok_and(|reached| reached.is_ok_and(|done| done.sequence >= sequence))
    }

    /// Whether the file can be written.
    pub(super) fn is_healthy(&self) -> bool {
        !self.done.borrow().failed
    }

    /// Writes what is left, and closes the file.
    pub(super) fn close(&self) {
        self.shared.queue.lock().closed = true;
        self.shared.wake.notify_one();
        if let Some(thread) = self.thread.lock().take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        self.close();
    }
}

fn open(path: &str) -> Result<Database, String> {
    let words = |error: std::io::Error| error.to_string();
    if !Path::new(path).exists() {
        create(path)?;
    }
    // After a crash the whole file is walked through, in no order: read in order before, that takes a moment only.
    let mut file = File::open(path).map_err(words)?;
    std::io::copy(&mut file, &mut std::io::sink()).map_err(words)?;
    let database = builder().open(path).map_err(|error| match error {
        redb::DatabaseError::DatabaseAlreadyOpen => "another process uses it".to_owned(),
        error => error.to_string(),
    })?;
    begin(&database)?;
    Ok(database)
}

fn builder() -> redb::Builder {
    let mut builder = Database::builder();
    builder.set_cache_size(CACHE_BYTES);
    builder
}

/// Makes the file beside its place and moves it there once it is whole: a file whose making was cut off could not
/// be opened.
fn create(path: &str) -> Result<(), String> {
    let words = |error: std::io::Error| error.to_string();
    let new = format!("{path}.new");
    let _ = std::fs::remove_file(&new);
    let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&new);
    let backend = FileBackend::new(file.map_err(words)?).map_err(|error| error.to_string())?;
    let database = builder().create_with_backend(backend).map_err(|error| error.to_string())?;
    begin(&database)?;
    drop(database);
    File::open(&new).and_then(|file| file.sync_all()).map_err(words)?;
    std::fs::rename(&new, path).map_err(words)?;
    let folder = Path::new(path).parent().filter(|folder| !folder.as_os_str().is_empty());
    File::open(folder.unwrap_or(Path::new("."))).and_then(|folder| folder.sync_all()).map_err(words)
}

/// Makes the tables of a new file, and refuses one that another version wrote.
fn begin(database: &Database) -> Result<(), String> {
    let begun = || -> Result<u64, redb::Error> {
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
    match begun() {
        Ok(FORMAT) => Ok(()),
        Ok(other) => Err(format!("its contents have version {other}; this build knows {FORMAT}")),
        Err(error) => Err(error.to_string()),
    }
}

/// What a file held when it was opened.
pub(super) struct Held {
    number_max: u64,
    interactions: Vec<(u64, Box<str>, Interaction)>,
    events: Vec<(u64, EventKey, Timestamp, u64)>,
}

impl Held {
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

    /// Hands everything over.
    pub(super) fn restore(self, memory: &Memory) {
        let interactions = self.interactions.into_iter();
        let owners: HashMap<_, _> =
            interactions.map(|(number, id, record)| (number, memory.restore(number, id, record))).collect();
        for (number, event, until, owner) in self.events {
            match owners.get(&owner) {
                Some(id) => memory.restore_event(number, event, until, Some(id)),
                None if owner == LOOSE => memory.restore_event(number, event, until, None),
                None => {}
            }
        }
    }
}

/// The one thread that writes.
struct Writer {
    database: Database,
    shared: Arc<Shared>,
    done: watch::Sender<Done>,
    metrics: Arc<Metrics>,
    clock: fn() -> Instant,
}

impl Writer {
    fn run(self) {
        let mut batch = Vec::new();
        loop {
            let mut queue = self.shared.queue.lock();
            while queue.changes.is_empty() && !queue.closed {
                self.shared.wake.wait(&mut queue);
            }
            if queue.changes.is_empty() {
                return;
            }
            std::mem::swap(&mut batch, &mut queue.changes);
            let sequence = queue.sequence;
            drop(queue);
            let began = (self.clock)();
            match self.commit(&batch) {
                Ok(()) => {
                    let took = (self.clock)().saturating_duration_since(began);
                    self.metrics.commit(took.as_secs_f64());
                    self.done.send_replace(Done { sequence, failed: false });
                }
                Err(error) => {
                    // What reached the disk is not known: nothing is acknowledged from here on.
                    log::error!(
                        "the ledger's file cannot be written, and nothing is taken any more: {error}"
                    );
                    self.metrics.store_failed();
                    self.done.send_modify(|done| done.failed = true);
                    let mut queue = self.shared.queue.lock();
                    queue.closed = true;
                    queue.changes = Vec::new();
                    return;
                }
            }
            batch.clear();
        }
    }

    fn commit(&self, batch: &[Change]) -> Result<(), redb::Error> {
        let write = self.database.begin_write()?;
        {
            let mut interactions = write.open_table(INTERACTIONS)?;
            let mut events = write.open_table(EVENTS)?;
            for change in batch {
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
}
