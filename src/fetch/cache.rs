//! The cache folder for fetched documents, and the files for secrets that providers handed over in a handshake.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use data_encoding::HEXLOWER;
use sha2::{Digest, Sha256};

use super::http_client::{CERTIFICATE_BYTES_MAX, DOCUMENT_BYTES_MAX};
use crate::clock::age_of;
use crate::file::{FILE_BYTES_MAX, read};
use crate::secret::Secret;

/// The name of the subfolder for certificates. The first line of each file in it is the URL of the certificate.
const CERTIFICATES: &str = "certificates";
/// The maximum number of files that are read from the cache's subfolder for certificates.
const FILES_MAX: usize = 1 << 16;
/// The maximum length in bytes of the first line of a cached certificate, including the newline. The line contains the
/// URL of the certificate.
const LINE_BYTES_MAX: u64 = 1 << 10;
/// The file extension of a cache file that is still being written.
const DRAFT: &str = "new";

/// A certificate that was read from the cache folder.
pub(super) struct CachedCertificate {
    /// The URL that the certificate was fetched from.
    pub url: String,
    /// The content of the certificate file, as it was received.
    pub bytes: Vec<u8>,
    /// The time since the certificate was fetched.
    pub age: Duration,
}

/// The cache folder for fetched documents. If no folder is configured, nothing is stored and nothing is found.
pub(super) struct Cache {
    folder: Option<PathBuf>,
}

impl Cache {
    /// Opens the cache for fetched documents. Creates the folder if it does not exist.
    ///
    /// # Errors
    /// Returns the reason as text if the folder cannot be created.
    pub(super) fn new(folder: Option<&str>) -> Result<Self, String> {
        let Some(folder) = folder else { return Ok(Self { folder: None }) };
        fs::create_dir_all(folder).map_err(|error| format!("fetch.cache: {folder}: {error}"))?;
        Ok(Self { folder: Some(folder.into()) })
    }

    /// Returns the cached document of a URL, and the time since it was fetched.
    pub(super) fn read(&self, url: &str) -> Option<(Vec<u8>, Duration)> {
        let path = self.path(url)?;
        let age = age_of(fs::metadata(&path).ok()?.modified().ok()?);
        Some((read(&path, DOCUMENT_BYTES_MAX).ok()?, age))
    }

    /// Returns the time since the cached document of a URL was fetched.
    pub(super) fn age(&self, url: &str) -> Option<Duration> {
        Some(age_of(fs::metadata(self.path(url)?).ok()?.modified().ok()?))
    }

    /// Stores the document of a URL in the cache. The file is replaced atomically.
    pub(super) fn write(&self, url: &str, bytes: &[u8]) -> std::io::Result<()> {
        self.path(url).map_or(Ok(()), |path| replace(&path, bytes))
    }

    fn path(&self, url: &str) -> Option<PathBuf> {
        Some(self.folder.as_ref()?.join(file_name(url)))
    }

    /// Stores the certificate of a URL in the cache. The file is replaced atomically.
    pub(super) fn write_certificate(&self, url: &str, bytes: &[u8]) -> std::io::Result<()> {
        let Some(folder) = self.certificates_folder() else { return Ok(()) };
        fs::create_dir_all(&folder)?;
        replace(&folder.join(file_name(url)), &[url.as_bytes(), b"\n", bytes].concat())
    }

    /// Returns the time since the cached certificate of a URL was fetched.
    pub(super) fn certificate_age(&self, url: &str) -> Option<Duration> {
        let path = self.certificates_folder()?.join(file_name(url));
        Some(age_of(fs::metadata(path).ok()?.modified().ok()?))
    }

    /// Deletes the certificate of a URL from the cache.
    pub(super) fn remove_certificate(&self, url: &str) {
        if let Some(folder) = self.certificates_folder() {
            let _ = fs::remove_file(folder.join(file_name(url)));
        }
    }

    /// Returns the cached certificates, newest first. Skips a file if its name does not match the URL in its first
    /// line.
    pub(super) fn certificates(&self) -> Vec<CachedCertificate> {
        let read_one = |path: PathBuf| {
            let age = age_of(fs::metadata(&path).ok()?.modified().ok()?);
            let bytes = read(&path, LINE_BYTES_MAX + CERTIFICATE_BYTES_MAX).ok()?;
            let end = bytes.iter().position(|byte| *byte == b'\n')?;
            let (url, document) = bytes.split_at_checked(end)?;
            let url = std::str::from_utf8(url).ok()?.to_owned();
            let named = path.file_name().is_some_and(|name| *name == *file_name(&url));
            named.then(|| CachedCertificate { url, bytes: document.trim_ascii_start().to_owned(), age })
        };
        let mut kept: Vec<_> = self.certificate_files().filter_map(read_one).collect();
        kept.sort_by_key(|one| one.age);
        kept
    }

    /// Deletes all cached certificates except those that were fetched from `urls`. Also deletes files that were not
    /// written completely.
    pub(super) fn retain_certificates<'u>(&self, urls: impl Iterator<Item = &'u str>) {
        let names: HashSet<_> = urls.map(file_name).collect();
        for path in self.certificate_files() {
            let name = path.file_name().and_then(OsStr::to_str).unwrap_or_default();
            if !names.contains(name) {
                let _ = fs::remove_file(&path);
            }
        }
    }

    fn certificates_folder(&self) -> Option<PathBuf> {
        Some(self.folder.as_ref()?.join(CERTIFICATES))
    }

    /// Returns the paths of all certificate files in the cache folder, including files that were not written
    /// completely. Leaves out files whose names Callgate does not generate.
    fn certificate_files(&self) -> impl Iterator<Item = PathBuf> + use<> {
        let entries = self.certificates_folder().and_then(|folder| fs::read_dir(folder).ok());
        entries.into_iter().flatten().flatten().take(FILES_MAX).map(|entry| entry.path()).filter(|path| {
            let stem = path.file_stem().and_then(OsStr::to_str).unwrap_or_default();
            let digest =
                stem.len() == 32 && stem.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
            digest && path.extension().is_none_or(|end| end == DRAFT)
        })
    }

    /// Reads a secret that a provider sent in a handshake. `path` is the file in which the secret was stored. Returns
    /// `None` if the file does not exist, is empty or cannot be read.
    pub(super) fn secret(path: &str) -> Option<Secret> {
        read(path, FILE_BYTES_MAX).ok().filter(|bytes| !bytes.is_empty()).map(Secret::new)
    }

    /// Stores a secret in a new file that only the owner may read.
    ///
    /// # Errors
    /// Returns the reason as text if the file cannot be written, or if the file already exists.
    pub(super) fn write_secret(path: &str, secret: &Secret) -> Result<(), String> {
        let write = || -> std::io::Result<()> {
            let folder = Path::new(path).parent().unwrap_or(Path::new("/"));
            fs::create_dir_all(folder)?;
            // Writes to a temporary file first, so that a crash leaves no incomplete secret at `path`.
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

/// Returns the name of the cache file of a document: the first 32 hexadecimal characters of the SHA-256 of its URL.
fn file_name(url: &str) -> String {
    let mut name = HEXLOWER.encode(&Sha256::digest(url));
    name.truncate(32);
    name
}

/// Replaces the content of a file atomically.
fn replace(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let draft = path.with_extension(DRAFT);
    fs::write(&draft, bytes)?;
    fs::rename(&draft, path)
}
