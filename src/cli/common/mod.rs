//! Shared code of several subcommands: exit codes, values of arguments, and output.

mod terminal;

use self::terminal::json_text;
use crate::clock::Clock;
use crate::time::Timestamp;

pub(super) use terminal::{printable, printable_lines, write_bytes};

/// The exit code for wrong usage or a wrong configuration (`EX_USAGE` in sysexits.h).
pub const EXIT_USAGE: u8 = 64;
/// The exit code for an input file that cannot be used (`EX_DATAERR` in sysexits.h).
pub const EXIT_DATA: u8 = 65;
/// The exit code for a resource that is unavailable, such as a port in use (`EX_UNAVAILABLE` in sysexits.h).
pub const EXIT_UNAVAILABLE: u8 = 69;

#[allow(
    clippy::disallowed_methods,
    reason = "the configuration receives the environment as an argument, from here"
)]
pub(super) fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// Parses a time on the command line, such as the value of `--at`: RFC 3339 or Unix seconds.
pub(super) fn moment(text: &str) -> Result<Timestamp, String> {
    Timestamp::parse(text)
        .ok_or_else(|| "expected RFC 3339, such as 2026-01-01T00:00:00Z, or Unix seconds".to_owned())
}

pub(super) fn now_unless(at: Option<Timestamp>) -> Timestamp {
    at.unwrap_or_else(|| Clock::System.now())
}

/// Returns a number with its noun in singular or plural: `1 route`, `2 routes`.
pub(super) fn counted(number: usize, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

pub(super) fn print_json(value: &serde_json::Value) {
    println!("{}", json_text(value));
}
