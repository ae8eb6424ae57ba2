//! Limits the nesting of a YAML text before serde_yaml reads the text.
//!
//! The time that serde_yaml needs for nested `{` and `[` grows with the square of their depth, and serde_yaml reads the
//! whole text before it rejects deep nesting. This module checks the nesting with a parser that stops at the limit.

use saphyr_parser::{Event, Parser};

use super::key_path::Position;

/// The maximum depth of nested lists and mappings in a YAML text. The deepest Kubernetes manifests are definitions of
/// custom resources, with about 40 levels.
pub(crate) const DEPTH_MAX: usize = 64;
/// The maximum number of `{` and `[` in a YAML text whose nesting cannot be checked, because the text has a syntax
/// error or unusual line ends. serde_yaml reads a text with so few braces and brackets in a few milliseconds.
const UNCHECKED_MAX: usize = 1000;
/// Characters that end a line in YAML 1.1, but not in YAML 1.2. In serde_yaml, such a character ends a comment. The
/// parser in this module continues the comment, and would overlook nesting after the character.
const LINE_ENDS: [char; 3] = ['\u{85}', '\u{2028}', '\u{2029}'];

/// Checks the nesting of all documents in a YAML text.
///
/// # Errors
/// Returns an explanation and the position if the text is nested too deeply. Also returns them if the nesting cannot be
/// checked, because of a syntax error or unusual line ends such as U+2028, and the text has more than 1000 braces and
/// brackets. serde_yaml could need too long for such a text.
pub fn check_depth(text: &str) -> Result<(), (String, Position)> {
    let openers = text.bytes().filter(|byte| matches!(byte, b'{' | b'[')).count();
    let too_deep = || format!("lists and mappings are nested more than {DEPTH_MAX} levels deep");
    let mut depth = 0_usize;
    for event in Parser::new_from_str(text) {
        let (event, span) = match event {
            Ok(event) => event,
            // serde_yaml explains syntax errors better, and reads a text with few braces fast enough.
            Err(_) if openers <= UNCHECKED_MAX => return Ok(()),
            Err(error) => {
                // For very deep nesting, the parser itself returns an error, before the depth is compared with the
                // maximum below.
                let is_deep = error.info().contains("recursion limit");
                let message = if is_deep { too_deep() } else { error.info().to_owned() };
                return Err((message, (*error.marker()).into()));
            }
        };
        match event {
            Event::SequenceStart(..) | Event::MappingStart(..) => depth += 1,
            Event::SequenceEnd | Event::MappingEnd => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > DEPTH_MAX {
            return Err((too_deep(), span.start.into()));
        }
    }
    if openers > UNCHECKED_MAX && text.contains(LINE_ENDS) {
        let position = Position { line: 1, column: 1 };
        return Err((
            "it contains line ends such as U+2028, which YAML parsers read differently".to_owned(),
            position,
        ));
    }
    Ok(())
}

/// Reports whether a YAML text contains an alias (`*name`) before its first syntax error.
pub fn has_alias(text: &str) -> bool {
    let mut events = Parser::new_from_str(text).map_while(Result::ok);
    events.any(|(event, _)| matches!(event, Event::Alias(_)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(text: &str) -> Option<String> {
        check_depth(text).err().map(|(message, _)| message)
    }

    #[test]
    fn deep_nesting_is_found_before_serde_yaml_reads_the_text() {
        let block =
            |depth: usize| -> String { (0..depth).map(|i| format!("{}a:\n", " ".repeat(i))).collect() };
        for deep in [
            "[".repeat(300_000),
            "{a: ".repeat(100_000),
            format!("x: {}1{}", "{a: ".repeat(20_000), "}".repeat(20_000)),
            "- ".repeat(100_000),
            "? ".repeat(100_000),
            block(200),
            // The nesting of the second document counts as well, although a second document is an error later.
            format!("a: 1\n---\nx: {}", "{a: ".repeat(20_000)),
            // The parser that checks the nesting stops at the syntax error. serde_yaml would read on, and would find
            // the deep nesting.
            format!("a: b: c: d\nx: {}", "{a: ".repeat(20_000)),
            format!("a: 1 # \u{2028}x: {}", "{a: ".repeat(20_000)),
            format!("%YAML 1.1\n%TAG ! x\n@\n{}", "[".repeat(20_000)),
        ] {
            assert!(fault(&deep).is_some(), "{deep:.40}");
        }
        let nested = |depth: usize| format!("{}1{}", "[".repeat(depth), "]".repeat(depth));
        assert_eq!(fault(&nested(DEPTH_MAX)), None);
        for depth in [DEPTH_MAX + 1, 100_000] {
            let message = fault(&nested(depth)).unwrap();
            assert!(message.contains("more than 64 levels"), "{message}");
        }
    }

    #[test]
    fn wide_and_broken_texts_are_left_to_the_next_parser() {
        let wide = format!("a: [{}]\nb: \"[[[[ \\\"\"\n# [[[[\n", "{b: [1]}, ".repeat(5000));
        for text in ["", "a: [1", "a: \u{2028}", "x: {{{{", "a: 1\n---\nb: 2", wide.as_str()] {
            assert_eq!(fault(text), None, "{text:.40}");
        }
    }
}
