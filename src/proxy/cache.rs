//! The folder in which what was fetched survives a restart, and the files of secrets that were handed over.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use data_encoding::HEXLOWER;
use sha2::{Digest, Sha256};

use super::clock::age_of;
use super::file::{FILE_BYTES_MAX, read};
use super::http_client::DOCUMENT_BYTES_MAX;
use crate::secret::Secret;

/// A folder, or none.
pub(super) struct Cache {
    folder: Option<PathBuf>,
}

impl Cache {
    /// The cache in a folder, which is made if need be.
    ///
    /// # Errors
    /// The folder cannot be used, in words.
    pub(super) fn new(folder: Option<&str>) -> Result<Self, String> {
        let Some(folder) = folder else { return Ok(Self { folder: None }) };
        fs::create_dir_all(folder).map_err(|error| format!("fetch.cache: {folder}: {error}"))?;
        Ok(Self { folder: Some(folder.into()) })
    }

    /// What was fetched from an address, and how long ago.
    pub(super) fn read(&self, url: &str) -> Option<(Vec<u8>, Duration)> {
        let path = self.path(url)?;
        let age = age_of(fs::metadata(&path).ok()?.modified().ok()?);
        Some((read(&path, DOCUMENT_BYTES_MAX).ok()?, age))
    }

    /// How long ago something was fetched that is there.
    pub(super) fn age(&self, url: &str) -> Option<Duration> {
        Some(age_of(fs::metadata(self.path(url)?).ok()?.modified().ok()?))
    }

    /// Keeps what was fetched: all of it or nothing.
    pub(super) fn write(&self, url: &str, bytes: &[u8]) -> std::io::Result<()> {
        let Some(path) = self.path(url) else { return Ok(()) };
        let draft = path.with_extension("new");
        fs::write(&draft, bytes)?;
        fs::rename(&draft, &path)
    }

    fn path(&self, url: &str) -> Option<PathBuf> {
        let digest = HEXLOWER.encode(&Sha256::digest(url));
        Some(self.folder.as_ref()?.join(digest.get(..32)?))
    }

    /// The secret in a file; `None` when there is none so far.
    pub(super) fn secret(path: &str) -> Option<Secret> {
        read(path, FILE_BYTES_MAX).ok().filter(|bytes| !bytes.is_empty()).map(Secret::new)
    }

    /// Keeps a secret in a file that nobody else may read. One that is there stays.
    pub(super) fn keep_secret(path: &str, secret: &Secret) -> Result<(), String> {
        let write = || -> std::io::Result<()> {
            let folder = Path::new(path).parent().unwrap_or(Path::new("/"));
            fs::create_dir_all(folder)?;
            // Written whole beside its place, then put there: half a secret would be one that nobody signs with.
            let draft = format!("{path}.new");
            let _ = fs::remove_file(&draft);
            let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft)?;
            file.write_all(secret.expose())?;
            file.sync_all()?;
            let linked = fs::hard_link(&draft, path);
            fs::remove_file(&draft)?;
            linked?;
            fs::File::open(folder)?.sync_all()
        };
        write().map_err(|error| format!("{path}: {error}"))
    }
}
