//! The folder in which what was fetched survives a restart, and the files of secrets that were handed over.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use data_encoding::HEXLOWER;
use sha2::{Digest, Sha256};

use super::client::{CERTIFICATE_BYTES_MAX, DOCUMENT_BYTES_MAX};
use crate::clock::age_of;
use crate::file::{FILE_BYTES_MAX, read};
use crate::secret::Secret;

/// Where certificates are, in the folder: each file begins with the address it was fetched from, on a line of its own.
const CERTIFICATES: &str = "certificates";
/// Most files that are looked at there.
const FILES_MAX: usize = 1 << 16;
/// Longest address on such a line, with its end, in bytes.
const LINE_BYTES_MAX: u64 = 1 << 10;
/// The name of what is not yet written whole.
const DRAFT: &str = "new";

/// A certificate that was kept.
pub(super) struct KeptCertificate {
    /// Where it was fetched.
    pub url: String,
    /// As it came.
    pub bytes: Vec<u8>,
    /// How long ago.
    pub age: Duration,
}

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
        self.path(url).map_or(Ok(()), |path| replace(&path, bytes))
    }

    fn path(&self, url: &str) -> Option<PathBuf> {
        Some(self.folder.as_ref()?.join(file_name(url)))
    }

    /// Keeps a certificate.
    pub(super) fn keep_certificate(&self, url: &str, bytes: &[u8]) -> std::io::Result<()> {
        let Some(folder) = self.certificates_folder() else { return Ok(()) };
        fs::create_dir_all(&folder)?;
        replace(&folder.join(file_name(url)), &[url.as_bytes(), b"\n", bytes].concat())
    }

    /// How long ago a certificate was fetched that is kept.
    pub(super) fn certificate_age(&self, url: &str) -> Option<Duration> {
        let path = self.certificates_folder()?.join(file_name(url));
        Some(age_of(fs::metadata(path).ok()?.modified().ok()?))
    }

    /// Lets go of a certificate.
    pub(super) fn forget_certificate(&self, url: &str) {
        if let Some(folder) = self.certificates_folder() {
            let _ = fs::remove_file(folder.join(file_name(url)));
        }
    }

    /// The certificates that are kept, the latest first.
    pub(super) fn certificates(&self) -> Vec<KeptCertificate> {
        let read_one = |path: PathBuf| {
            let age = age_of(fs::metadata(&path).ok()?.modified().ok()?);
            let bytes = read(&path, LINE_BYTES_MAX + CERTIFICATE_BYTES_MAX).ok()?;
            let end = bytes.iter().position(|byte| *byte == b'\n')?;
            let (url, document) = bytes.split_at_checked(end)?;
            let url = std::str::from_utf8(url).ok()?.to_owned();
            let named = path.file_name().is_some_and(|name| *name == *file_name(&url));
            named.then(|| KeptCertificate { url, bytes: document.trim_ascii_start().to_owned(), age })
        };
        let mut kept: Vec<_> = self.certificate_files().filter_map(read_one).collect();
        kept.sort_by_key(|one| one.age);
        kept
    }

    /// Lets go of all certificates but those from these addresses, and of drafts that somebody was interrupted at.
    pub(super) fn keep_only<'u>(&self, urls: impl Iterator<Item = &'u str>) {
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

    /// The files that are named as certificates and their drafts are.
    fn certificate_files(&self) -> impl Iterator<Item = PathBuf> + use<> {
        let entries = self.certificates_folder().and_then(|folder| fs::read_dir(folder).ok());
        entries.into_iter().flatten().flatten().take(FILES_MAX).map(|entry| entry.path()).filter(|path| {
            let stem = path.file_stem().and_then(OsStr::to_str).unwrap_or_default();
            let digest =
                stem.len() == 32 && stem.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
            digest && path.extension().is_none_or(|end| end == DRAFT)
        })
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

/// What the file of something is called that was fetched from an address.
fn file_name(url: &str) -> String {
    let mut name = HEXLOWER.encode(&Sha256::digest(url));
    name.truncate(32);
    name
}

/// Writes a file: all of it or nothing.
fn replace(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let draft = path.with_extension(DRAFT);
    fs::write(&draft, bytes)?;
    fs::rename(&draft, path)
}
