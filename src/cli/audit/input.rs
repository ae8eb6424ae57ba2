//! Reads access logs line by line. Logs that are compressed with gzip are decompressed.

use std::fs::File;
use std::io::{BufRead, BufReader, Error, Read};
use std::path::Path;

use flate2::bufread::MultiGzDecoder;

use super::window::Window;

/// The maximum length of a line of a log, in bytes. The rest of a longer line is skipped.
const LINE_BYTES_MAX: usize = 1 << 20;
/// The first bytes of a gzip file.
const GZIP: [u8; 2] = [0x1f, 0x8b];
/// The argument that stands for standard input on the command line.
const STANDARD_INPUT: &str = "-";

/// Returns the name of a log file for error messages: its path, or `standard input`.
pub(super) fn name(file: &Path) -> String {
    if file.as_os_str() == STANDARD_INPUT { "standard input".to_owned() } else { file.display().to_string() }
}

/// Reads one access log and counts its lines in `window`. The file can be `-` for standard input, and can be compressed
/// with gzip.
pub(super) fn read(file: &Path, window: &mut Window) -> Result<(), Error> {
    if file.as_os_str() == STANDARD_INPUT {
        return read_plain_or_gzip(std::io::stdin().lock(), window);
    }
    read_plain_or_gzip(BufReader::new(File::open(file)?), window)
}

fn read_plain_or_gzip(mut input: impl BufRead, window: &mut Window) -> Result<(), Error> {
    let mut beginning = Vec::with_capacity(GZIP.len());
    input.by_ref().take(GZIP.len() as u64).read_to_end(&mut beginning)?;
    let is_gzip = beginning == GZIP;
    let input = BufReader::new(std::io::Cursor::new(beginning).chain(input));
    match is_gzip {
        true => read_lines(BufReader::new(MultiGzDecoder::new(input)), window),
        false => read_lines(input, window),
    }
}

/// Reads an access log line by line and counts the lines in `window`. The memory that this needs does not depend on the
/// size of the log.
fn read_lines(mut lines: impl BufRead, window: &mut Window) -> Result<(), Error> {
    let mut line = Vec::new();
    loop {
        line.clear();
        if !read_line(&mut lines, &mut line)? {
            return Ok(());
        }
        window.add(&line);
    }
}

/// Reads the next line of an access log into `line`, up to [`LINE_BYTES_MAX`] bytes. Returns false at the end of the
/// log.
fn read_line(lines: &mut impl BufRead, line: &mut Vec<u8>) -> Result<bool, Error> {
    let mut is_first = true;
    loop {
        let bytes = lines.fill_buf()?;
        if bytes.is_empty() {
            return Ok(!is_first);
        }
        is_first = false;
        let end = bytes.iter().position(|byte| *byte == b'\n');
        let (text, used) = end.map_or((bytes.len(), bytes.len()), |end| (end, end + 1));
        let room = LINE_BYTES_MAX.saturating_sub(line.len());
        line.extend(bytes.iter().take(text.min(room)));
        lines.consume(used);
        if end.is_some() {
            return Ok(true);
        }
    }
}
