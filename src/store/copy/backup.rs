//! Backups of a ledger's file. A backup is one file: a line that describes the backup, and the bytes of the ledger's
//! file. The line contains a checksum of the bytes.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::file_content::FileContent;
use crate::interaction::Copies;
use crate::store::file::{IN_USE, LedgerFile};
use crate::time::Timestamp;

/// The text with which a backup begins: the format and its version.
const MAGIC: &str = "callgate-ledger-backup 1";
/// The length of the first line of a backup, in bytes: the magic text, the time in 20 digits, the checksum in
/// hexadecimal, and three separators.
const LINE: usize = MAGIC.len() + 1 + 20 + 1 + 64 + 1;
/// The size of the buffer for copying bytes.
const CHUNK: usize = 1 << 20;

/// The description of a backup that was made.
#[derive(Clone, Copy, Debug)]
pub struct Backup {
    /// The number of interactions in the backup.
    pub interactions: usize,
    /// The size of the backup, in bytes.
    pub bytes: u64,
}

/// The description of a ledger that was restored from a backup.
#[derive(Clone, Debug)]
pub struct Restored {
    /// The number of interactions in the restored ledger.
    pub interactions: usize,
    /// The time at which the backup was made.
    pub made: Timestamp,
    /// The path at which the former ledger was retained. `None` if the backup contains all changes of the former
    /// ledger, or if there was no former ledger.
    pub former: Option<PathBuf>,
}

/// The reason why a backup was not made or not restored.
#[derive(Debug)]
pub enum BackupError {
    /// A process uses the ledger.
    InUse,
    /// The backup is damaged, or the file is no backup.
    Damaged(String),
    /// The present ledger has changes that the backup does not contain.
    Newer(String),
    /// A file cannot be read or written.
    Failed(String),
}

impl BackupError {
    fn of(error: String) -> Self {
        if error == IN_USE { Self::InUse } else { Self::Failed(error) }
    }
}

/// Writes a backup of the ledger at `path` to the file `to`. An earlier backup in this file is replaced. `now` is
/// recorded as the time of the backup.
///
/// # Errors
/// Returns a [`BackupError`] if the ledger cannot be read or the backup cannot be written. The file `to` is then
/// unchanged.
pub fn back_up(path: &str, to: &Path, now: Timestamp) -> Result<Backup, BackupError> {
    if !Path::new(path).exists() {
        return Err(BackupError::Failed(format!("the ledger {path} does not exist")));
    }
    if to.exists() && header(&mut open(to)?).is_err() {
        let reason = format!("{} exists and is no backup; it is not overwritten", to.display());
        return Err(BackupError::Failed(reason));
    }
    let content = FileContent::open(path).map_err(BackupError::of)?;
    let interactions = content.interactions().count();
    let mut file = content.into_file();
    let draft = with_suffix(to, ".new");
    let written = write_backup(&mut file, &draft, now).and_then(|bytes| {
        std::fs::rename(&draft, to)?;
        sync_folder(to)?;
        Ok(bytes)
    });
    let bytes = written.map_err(|error| {
        let _ = std::fs::remove_file(&draft);
        BackupError::Failed(format!("{}: {error}", to.display()))
    })?;
    Ok(Backup { interactions, bytes })
}

fn write_backup(file: &mut LedgerFile, draft: &Path, now: Timestamp) -> std::io::Result<u64> {
    let _ = std::fs::remove_file(draft);
    let mut to = OpenOptions::new().write(true).create_new(true).mode(0o600).open(draft)?;
    to.write_all(&[b' '; LINE])?;
    let mut from = file.bytes()?;
    let (digest, bytes) = copy_bytes(&mut from, &mut to)?;
    to.seek(SeekFrom::Start(0))?;
    let digest = data_encoding::HEXLOWER.encode(&digest);
    to.write_all(format!("{MAGIC} {:020} {digest}\n", now.unix_ms()).as_bytes())?;
    to.sync_all()?;
    Ok(bytes.saturating_add(LINE as u64))
}

/// Replaces the ledger at `path` by the backup in the file `from`. If the ledger has changes that the backup does not
/// contain, replaces it only with `force`, and saves the former ledger in a file with the suffix `.former`.
///
/// # Errors
/// Returns a [`BackupError`] if the ledger was not replaced. The ledger at `path` is then unchanged.
pub fn restore(path: &str, from: &Path, force: bool) -> Result<Restored, BackupError> {
    let path = LedgerFile::resolve(path).map_err(BackupError::Failed)?;
    let draft = with_suffix(&path, ".restored");
    let restored = unpack(from, &draft).and_then(|made| put_in_place(&path, &draft, made, force));
    if restored.is_err() {
        let _ = std::fs::remove_file(&draft);
    }
    restored
}

/// Extracts the ledger's file from the backup `from`, writes it to the path `draft`, and verifies its checksum. Returns
/// the time at which the backup was made.
fn unpack(from: &Path, draft: &Path) -> Result<Timestamp, BackupError> {
    let mut backup = open(from)?;
    let (made, expected) = header(&mut backup).map_err(BackupError::Damaged)?;
    let failed = |error: std::io::Error| BackupError::Failed(format!("{}: {error}", draft.display()));
    let _ = std::fs::remove_file(draft);
    let mut to = OpenOptions::new().write(true).create_new(true).mode(0o600).open(draft).map_err(failed)?;
    let (digest, _) = copy_bytes(&mut backup, &mut to).map_err(failed)?;
    if digest != expected {
        return Err(BackupError::Damaged("its content differs from its checksum".to_owned()));
    }
    to.sync_all().map_err(failed)?;
    Ok(made)
}

fn put_in_place(path: &Path, draft: &Path, made: Timestamp, force: bool) -> Result<Restored, BackupError> {
    let text = |path: &Path| path.to_string_lossy().into_owned();
    let backup = FileContent::open(&text(draft)).map_err(BackupError::Damaged)?;
    let interactions = backup.interactions().count();
    let mut restored = Restored { interactions, made, former: None };
    if !path.exists() {
        // A hard link never replaces an existing file. If another process has created a ledger at this path in the
        // meantime, the link fails.
        let failed = |error: std::io::Error| BackupError::Failed(format!("{}: {error}", path.display()));
        std::fs::hard_link(draft, path).map_err(failed)?;
        let _ = std::fs::remove_file(draft);
        return sync_folder(path).map(|()| restored).map_err(failed);
    }
    let (lock, newer) = match FileContent::open(&text(path)) {
        Ok(present) => {
            let newer = newer(&present, &backup);
            (Some(present.into_file()), newer)
        }
        Err(error) if error == IN_USE => return Err(BackupError::InUse),
        Err(error) => (None, Some(format!("the present ledger cannot be read: {error}"))),
    };
    let failed = |error: std::io::Error| BackupError::Failed(format!("{}: {error}", path.display()));
    if let Some(reason) = newer {
        if !force {
            return Err(BackupError::Newer(reason));
        }
        let former = with_suffix(path, ".former");
        let _ = std::fs::remove_file(&former);
        std::fs::hard_link(path, &former).map_err(failed)?;
        restored.former = Some(former);
    }
    match lock {
        Some(mut present) => {
            present.replace_with(backup.into_file()).1.map_err(|fault| BackupError::of(fault.message))?;
        }
        None => {
            std::fs::rename(draft, path).map_err(failed)?;
            sync_folder(path).map_err(failed)?;
        }
    }
    Ok(restored)
}

/// Describes the changes of the present ledger that the backup does not contain. Returns `None` if there are none.
fn newer(present: &FileContent, backup: &FileContent) -> Option<String> {
    let is_newer = |(id, record): &(&str, &crate::interaction::Interaction)| match backup.interaction(id) {
        Some(other) => matches!(record.compare(other), Copies::Newer | Copies::Diverged),
        None => true,
    };
    let interactions = present.interactions().filter(is_newer).count();
    let known = backup.event_set();
    let events = present.event_set().into_iter().filter(|event| !known.contains(event)).count();
    let has_messages = present.messages.newer_than(&backup.messages);
    let messages = if has_messages { ", and messages of the inbox" } else { "" };
    (interactions > 0 || events > 0 || has_messages).then(|| {
        format!(
            "the present ledger is newer: it has changes of {interactions} interactions and {events} delivered events \
             that the backup lacks{messages}"
        )
    })
}

// === Files ===

fn open(path: &Path) -> Result<BufReader<File>, BackupError> {
    let opened =
        File::open(path).map_err(|error| BackupError::Failed(format!("{}: {error}", path.display())));
    Ok(BufReader::with_capacity(CHUNK, opened?))
}

/// Reads the first line of a backup. Returns the time at which the backup was made, and the checksum of the bytes after
/// this line.
fn header(backup: &mut impl BufRead) -> Result<(Timestamp, Vec<u8>), String> {
    let mut line = [0; LINE];
    let is_none = || "it is no backup of a ledger".to_owned();
    backup.read_exact(&mut line).map_err(|_| is_none())?;
    let line = std::str::from_utf8(&line).ok().and_then(|line| line.strip_prefix(MAGIC)?.strip_suffix('\n'));
    let mut words = line.ok_or_else(is_none)?.split_ascii_whitespace();
    let made = words.next().and_then(|ms| ms.parse().ok()).map(Timestamp::from_unix_ms);
    let digest = words.next().and_then(|hex| data_encoding::HEXLOWER.decode(hex.as_bytes()).ok());
    Ok((made.ok_or_else(is_none)?, digest.ok_or_else(is_none)?))
}

/// Copies all bytes of `from` to `to`. Returns the SHA-256 digest of the bytes and the number of bytes.
fn copy_bytes(from: &mut impl Read, to: &mut impl Write) -> std::io::Result<(Vec<u8>, u64)> {
    let (mut digest, mut bytes, mut chunk) = (Sha256::new(), 0, vec![0; CHUNK]);
    loop {
        let count = from.read(&mut chunk)?;
        let Some(read) = chunk.get(..count).filter(|read| !read.is_empty()) else { break };
        digest.update(read);
        to.write_all(read)?;
        bytes += read.len() as u64;
    }
    Ok((digest.finalize().to_vec(), bytes))
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    name.into()
}

fn sync_folder(path: &Path) -> std::io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    File::open(folder.unwrap_or_else(|| Path::new(".")))?.sync_all()
}

#[cfg(test)]
#[path = "backup_tests.rs"]
mod tests;
