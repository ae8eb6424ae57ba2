//! Reads files that other programs write: only regular files, up to a maximum size, and without blocking on pipes.

use std::fs::File;
use std::io::{Error, ErrorKind, Read};
use std::path::Path;

/// The maximum size of a configuration file, a secret file or a certificate file, in bytes.
pub const FILE_BYTES_MAX: u64 = 4 << 20;

/// The byte order mark of UTF-8, which some editors write at the beginning of a file.
const BYTE_ORDER_MARK: [u8; 3] = [0xef, 0xbb, 0xbf];

/// Removes the UTF-8 byte order mark at the beginning of the content of a file.
pub fn without_byte_order_mark(mut bytes: Vec<u8>) -> Vec<u8> {
    if bytes.starts_with(&BYTE_ORDER_MARK) {
        bytes.drain(..BYTE_ORDER_MARK.len());
    }
    bytes
}

/// Reads a file of at most `bytes_max` bytes. Follows symbolic links. Removes a byte order mark at the beginning of the
/// content.
///
/// # Errors
/// Returns an error if the file cannot be read, is not a regular file, or is larger than `bytes_max`.
pub fn read(path: impl AsRef<Path>, bytes_max: u64) -> std::io::Result<Vec<u8>> {
    // Opening a pipe blocks until another program writes to the pipe, so the file type is checked before opening. The
    // type is checked again afterwards, because another file may have replaced the first file in between.
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
        return Err(Error::new(
            ErrorKind::FileTooLarge,
            format!("the file is larger than {bytes_max} bytes"),
        ));
    }
    Ok(without_byte_order_mark(bytes))
}

fn not_regular() -> Error {
    Error::new(ErrorKind::InvalidInput, "not a regular file")
}
