//! The event log: plain lines on standard error about the process, such as start, reload and stop.
//!
//! A message of a library is logged only if it is an error. In messages of lower levels, pingora prints request lines
//! and headers, which contain tokens.

use std::fmt::Write as _;
use std::io::Write;
use std::sync::OnceLock;

use log::{Level, LevelFilter, Log, Metadata, Record};

use crate::time::Timestamp;

struct Logger;

static LOGGER: Logger = Logger;
/// The clock for the time at the beginning of each line of the event log. Without a clock, the lines contain no time.
/// The journal and the log collectors of containers add the time to each line.
static CLOCK: OnceLock<fn() -> Timestamp> = OnceLock::new();

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("callgate") || metadata.level() == Level::Error
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            let level = record.level().as_str().to_ascii_lowercase();
            let message = one_line(record.args().to_string());
            let time = CLOCK.get().map_or_else(String::new, |now| format!("{} ", now()));
            let _ = writeln!(std::io::stderr().lock(), "{time}{level}: {message}");
        }
    }

    fn flush(&self) {}
}

/// Reports whether a character is unsafe on a terminal: a control character, a character that ends a line, or a
/// character that changes the direction of the text.
pub fn is_unsafe(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Appends JSON text to `out`. Characters that a terminal could interpret are escaped as `\u…`, which does not change
/// the values of the JSON. Line feeds are copied, because in JSON they occur only between values.
pub fn escape_unsafe(json: &str, out: &mut String) {
    for c in json.chars() {
        if c != '\n' && is_unsafe(c) {
            // All unsafe characters are in the Basic Multilingual Plane, so one `\u…` escape per character is enough.
            let _ = write!(out, "\\u{:04x}", u32::from(c));
        } else {
            out.push(c);
        }
    }
}

/// Returns a log message as one line. Escapes line breaks and other control characters. Text from other hosts can be
/// part of a message. Without escapes, such text could forge a line of the log or control the terminal.
fn one_line(message: String) -> String {
    if !message.contains(is_unsafe) {
        return message;
    }
    let mut line = String::with_capacity(message.len() + 16);
    for c in message.chars() {
        if is_unsafe(c) { line.extend(c.escape_default()) } else { line.push(c) }
    }
    line
}

/// Sets the clock whose time is written at the beginning of each line of the event log. A second call has no effect.
pub fn add_time(clock: fn() -> Timestamp) {
    let _ = CLOCK.set(clock);
}

/// Installs the event log, which writes to standard error, as the logger of the process. A second call has no effect.
pub fn install() {
    if log::set_logger(&LOGGER).is_ok() {
        log::set_max_level(LevelFilter::Info);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_one_line() {
        for (message, line) in [
            ("a caf\u{e9} \\n", "a caf\u{e9} \\n"),
            ("x\nerror: y\r\t", "x\\nerror: y\\r\\t"),
            ("\u{1b}[2J\u{9b}\u{7f}", "\\u{1b}[2J\\u{9b}\\u{7f}"),
            ("\u{2028}\u{202e}", "\\u{2028}\\u{202e}"),
        ] {
            assert_eq!(one_line(message.to_owned()), line);
        }
    }
}
