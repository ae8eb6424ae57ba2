//! Makes text from other hosts safe for a terminal, so that the text cannot send escape sequences, forge lines, or
//! change the direction of text.

use std::io::Write;

use crate::observe::{escape_unsafe_in_json, is_unsafe};

/// The separator before an indented line of a message, such as a hint.
const INDENTED: &str = "\n    ";

/// Returns the text with the replacement character U+FFFD in place of each character that a terminal could interpret.
pub(in crate::cli) fn printable(text: &str) -> String {
    text.chars().map(|c| if is_unsafe(c) { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

/// Replaces the characters that a terminal could interpret, except the line feeds before indented lines, such as hints.
/// Text from other hosts can therefore not begin a line without indentation.
pub(in crate::cli) fn printable_lines(text: &str) -> String {
    text.split(INDENTED).map(printable).collect::<Vec<_>>().join(INDENTED)
}

/// Returns a value as JSON text with indentation. Characters that a terminal could interpret are escaped as `\u…`,
/// which does not change the value.
pub(super) fn json_text(value: &serde_json::Value) -> String {
    let text = format!("{value:#}");
    let mut out = String::with_capacity(text.len());
    escape_unsafe_in_json(&text, &mut out);
    out
}

/// Writes bytes from another host and a line feed. On a terminal, characters that the terminal could interpret are
/// replaced.
///
/// # Errors
/// Returns the error of the output, such as a closed pipe.
pub(in crate::cli) fn write_bytes(
    out: &mut dyn Write,
    bytes: &[u8],
    is_terminal: bool,
) -> std::io::Result<()> {
    if is_terminal {
        let text = String::from_utf8_lossy(bytes);
        let lines: Vec<_> = text.lines().map(|line| printable(&line.replace('\t', "    "))).collect();
        out.write_all(lines.join("\n").as_bytes())?;
    } else {
        out.write_all(bytes)?;
    }
    out.write_all(b"\n").and_then(|()| out.flush())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const HOSTILE: &str = "a\u{1b}[31m\u{9b}2J\u{202e}\u{2028}\u{200f}\u{7f}\r\u{e9}";

    #[test]
    fn hostile_text_reaches_no_terminal() {
        assert!(!printable(HOSTILE).contains(is_unsafe));
        assert_eq!(printable_lines("x\ny\n    hint: z\u{9b}"), "x\u{fffd}y\n    hint: z\u{fffd}");
        assert_eq!(printable("caf\u{e9} \u{1f600}"), "caf\u{e9} \u{1f600}");
        let value = json!({ HOSTILE: [HOSTILE, 1, { "b": "\n" }] });
        let text = json_text(&value);
        assert!(!text.replace('\n', "").contains(is_unsafe), "{text}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&text).unwrap(), value);
    }

    #[test]
    fn bytes_are_written_raw_unless_to_a_terminal() {
        let written = |bytes: &[u8], is_terminal| {
            let mut out = Vec::new();
            write_bytes(&mut out, bytes, is_terminal).unwrap();
            out
        };
        assert_eq!(written(b"\x1b[2J\xff\n", false), b"\x1b[2J\xff\n\n");
        assert_eq!(written(b"a\x1b[2J\n\tb", true), "a\u{fffd}[2J\n    b\n".as_bytes());
    }
}
