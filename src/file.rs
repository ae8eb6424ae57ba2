//! Reading files that somebody else writes: regular ones only, so many bytes, and none that is waited for.

use std::fs::File;
use std::io::{Error, ErrorKind, Read};
use std::path::Path;

/// Largest file that a configuration is made of, in bytes: a configuration, a secret, a certificate.
pub const FILE_BYTES_MAX: u64 = 4 << 20;

/// Reads a file of at most this many bytes, symbolic links followed.
///
/// # Errors
/// It cannot be read, is no regular file, or is larger.
pub fn read(path: impl AsRef<Path>, bytes_max: u64) -> std::io::Result<Vec<u8>> {
    // Opening a pipe waits for whoever writes to it, so it is looked at before and, since it may have become another
    // one meanwhile, once more when it is open.
    if !std::fs::metadata(&path)?.is_file() {
        return Err(not_regular());
    }
    let file = File::open(path)?;
    if !file.metadata()?.is_file() {
        return Err(not_regular());
    }
    let mut bytes = Vec::new();
    file.take(bytes_max.saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > bytes_max {
        return Err(Error::new(ErrorKind::FileTooLarge, format!("it is larger than {bytes_max} bytes")));
    }
    Ok(bytes)
}

fn not_regular() -> Error {
    Error::new(ErrorKind::InvalidInput, "it is no regular file")
}
