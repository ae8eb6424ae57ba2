//! The storage backend of the database, which also records whether the disk has failed.

use std::io::{Error, ErrorKind};
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use redb::backends::FileBackend;
use redb::{BackendError, StorageBackend};

const HEALTHY: u8 = 0;
const NO_SPACE: u8 = 1;
const BROKEN: u8 = 2;

/// Records whether a write or a sync has failed since the database was opened, and whether the only cause was a lack of
/// space.
#[derive(Debug, Default)]
pub(in crate::store) struct Disk(AtomicU8);

impl Disk {
    /// Reports whether writes have failed, and only because of a lack of space.
    pub(in crate::store) fn has_no_space(&self) -> bool {
        self.0.load(Ordering::Relaxed) == NO_SPACE
    }

    /// Returns an error if an earlier write or sync failed.
    fn check(&self) -> Result<(), Error> {
        match self.0.load(Ordering::Relaxed) {
            HEALTHY => Ok(()),
            _ => Err(Error::other("an earlier write or sync failed")),
        }
    }

    fn record_write(&self, result: Result<(), Error>) -> Result<(), Error> {
        result.inspect_err(|error| {
            let no_space = matches!(
                error.kind(),
                ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge
            );
            self.0.fetch_max(if no_space { NO_SPACE } else { BROKEN }, Ordering::Relaxed);
        })
    }

    fn record_sync(&self, result: Result<(), Error>) -> Result<(), Error> {
        result.inspect_err(|_| self.0.store(BROKEN, Ordering::Relaxed))
    }
}

/// The storage backend of the database. The lock of the file belongs to [`super::ledger_file::LedgerFile`], so closing
/// the backend does not release the lock.
#[derive(Debug)]
pub(in crate::store) struct Backend {
    pub(in crate::store) inner: FileBackend,
    pub(in crate::store) disk: Arc<Disk>,
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
        self.disk.record_write(self.inner.set_len(len))
    }

    fn sync_data(&self) -> Result<(), Error> {
        self.disk.check()?;
        self.disk.record_sync(self.inner.sync_data())
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), Error> {
        self.disk.check()?;
        self.disk.record_write(self.inner.write(offset, data))
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
