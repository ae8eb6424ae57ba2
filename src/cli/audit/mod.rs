//! `callgate audit`: reads an access log and reports, for each route, who calls, what was denied, and what a route in
//! observe mode would deny in enforce mode.

mod log;
mod report;

use std::fs::File;
use std::io::{BufRead, BufReader, Error};
use std::path::{Path, PathBuf};

use clap::Args;

use self::log::Log;
use super::common::{EXIT_DATA, print_json};

/// The maximum length of a line, in bytes. The rest of a longer line is skipped.
const LINE_BYTES_MAX: usize = 1 << 20;

#[derive(Args)]
pub(super) struct AuditArgs {
    /// Access log of Callgate, or `-` for standard input.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub(super) fn audit(args: &AuditArgs) -> u8 {
    let log = match read(&args.file) {
        Ok(log) => log,
        Err(error) => {
            eprintln!("error: cannot read {}: {error}", args.file.display());
            return EXIT_DATA;
        }
    };
    if log.is_foreign() {
        eprintln!("error: {} contains no line of Callgate's access log", args.file.display());
        return EXIT_DATA;
    }
    if args.json {
        print_json(&report::json(&log));
    } else {
        print!("{}", report::text(&log));
    }
    0
}

fn read(file: &Path) -> Result<Log, Error> {
    if file.as_os_str() == "-" {
        return read_lines(std::io::stdin().lock());
    }
    read_lines(BufReader::new(File::open(file)?))
}

/// Reads a log line by line, so that its size does not matter.
fn read_lines(mut lines: impl BufRead) -> Result<Log, Error> {
    let (mut log, mut line) = (Log::default(), Vec::new());
    loop {
        line.clear();
        if !read_line(&mut lines, &mut line)? {
            return Ok(log);
        }
        log.add(&line);
    }
}

/// Reads the beginning of the next line into `line`. Returns false at the end.
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
