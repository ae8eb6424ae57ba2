//! Finds secrets in any text by their form: callback tokens, JWTs, and URL parameters whose names are names of secrets.
//! The characters of a secret may be written as escapes of URLs (`%2E`) or of JSON (`\u002e`).

use std::ops::Range;

use crate::path::is_opaque_form;

/// The number of characters, from the beginning of a URL parameter, in which Callgate looks for the `=` after the name.
/// Longer names are not recognized.
const NAME_CHARS_MAX: usize = 64;
/// Random text with more than this number of characters is replaced. It could contain a callback token, even if the
/// whole text does not have the form of a callback token.
const RANDOM_CHARS_MIN: usize = 32;

/// A decoded character of a text, and the range of the bytes that encode it in the text.
struct Unit {
    shown: char,
    at: Range<usize>,
}

fn units(text: &str) -> Vec<Unit> {
    let (mut units, mut start) = (Vec::with_capacity(text.len()), 0);
    while let Some((shown, length)) = text.get(start..).and_then(first) {
        units.push(Unit { shown, at: start..start + length });
        start += length;
    }
    units
}

/// Returns the first character of a text, and its encoded length in bytes. Decodes an escape of a URL (`%2E`) or of
/// JSON (`\u002e`).
fn first(text: &str) -> Option<(char, usize)> {
    let hex = |range: Range<usize>| {
        let digits = text.get(range).filter(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()))?;
        u32::from_str_radix(digits, 16).ok().and_then(char::from_u32)
    };
    let plain = text.chars().next()?;
    Some(match (plain, text.as_bytes().get(1)) {
        ('%', Some(_)) => hex(1..3).map_or((plain, 1), |shown| (shown, 3)),
        ('\\', Some(b'u')) => hex(2..6).map_or((' ', 2), |shown| (shown, 6)),
        ('\\', Some(b'/')) => ('/', 2),
        ('\\', Some(b'b' | b'f' | b'n' | b'r' | b't' | b'"' | b'\\')) => (' ', 2),
        _ => (plain, plain.len_utf8()),
    })
}

/// Returns a text in which each range of bytes is replaced by `replacement`. The ranges must be in order and must not
/// overlap.
fn replaced(text: &str, ranges: &[Range<usize>], replacement: &str) -> String {
    let (mut out, mut end) = (String::with_capacity(text.len()), 0);
    for range in ranges {
        out.push_str(text.get(end..range.start).unwrap_or_default());
        out.push_str(replacement);
        end = range.end;
    }
    out.push_str(text.get(end..).unwrap_or_default());
    out
}

fn span(units: &[Unit]) -> Option<Range<usize>> {
    Some(units.first()?.at.start..units.last()?.at.end)
}

/// Replaces every part of a text that looks like a JWT, like the beginning of a JWT, or like an opaque callback token.
pub(super) fn without_tokens(text: &str, replacement: &str) -> String {
    let is_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '=' | '~');
    let (units, mut ranges) = (units(text), Vec::new());
    for run in units.split(|unit| !is_part(unit.shown)) {
        let shown: String = run.iter().map(|unit| unit.shown).collect();
        // All characters of a run are ASCII, so a byte position in `shown` is also a position in `run`.
        if let Some(token) = shown.find("eyJ").and_then(|at| run.get(at..)) {
            ranges.extend(span(token));
            continue;
        }
        let parts = run.split(|unit| matches!(unit.shown, '.' | '=' | '~'));
        ranges.extend(parts.filter(|part| is_random(part)).filter_map(span));
    }
    replaced(text, &ranges, replacement)
}

/// Reports whether a text looks like an opaque callback token, or is so long and so random that it could contain an
/// opaque callback token.
fn is_random(part: &[Unit]) -> bool {
    let shown: String = part.iter().map(|unit| unit.shown).collect();
    let has = |is: fn(&u8) -> bool| shown.bytes().any(|byte| is(&byte));
    is_opaque_form(&shown)
        || (part.len() > RANDOM_CHARS_MIN
            && has(u8::is_ascii_uppercase)
            && has(u8::is_ascii_lowercase)
            && has(u8::is_ascii_digit))
}

/// Replaces the value of each URL parameter whose name is the name of a secret, such as the value in `?token=…` and in
/// `;sig=…`. `is_secret` reports whether a name is the name of a secret.
pub(super) fn without_parameters(text: &str, replacement: &str, is_secret: fn(&str) -> bool) -> String {
    let (units, mut ranges) = (units(text), Vec::<Range<usize>>::new());
    let mut rest = units.as_slice();
    while let Some(at) = rest.iter().position(|unit| matches!(unit.shown, '?' | '&' | ';' | '#')) {
        rest = rest.get(at + 1..).unwrap_or_default();
        let name_end = rest.iter().take(NAME_CHARS_MAX).position(|unit| unit.shown == '=');
        let Some((name, value)) = name_end.and_then(|end| rest.split_at_checked(end)) else { continue };
        let name: String = name.iter().map(|unit| unit.shown).collect();
        if name.contains(['?', '&', ';', '#']) || !is_secret(&name) {
            continue;
        }
        let value = value.get(1..).unwrap_or_default();
        let ends = |c: char| c.is_whitespace() || matches!(c, '&' | ';' | '#' | '"' | '\'' | '<' | '>' | ')');
        let end = value.iter().position(|unit| ends(unit.shown)).unwrap_or(value.len());
        ranges.extend(value.get(..end).and_then(span));
        rest = value.get(end..).unwrap_or_default();
    }
    replaced(text, &ranges, replacement)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPAQUE: &str = "mJ3kq0X-_aB7cD9eF1gH2iJ4kL6mN8oP";

    #[test]
    fn tokens_are_recognized_in_every_spelling() {
        let clean = |text: &str| without_tokens(text, "X");
        assert_eq!(clean("a eyJhbGciOiJIUzI1NiJ9.e30.c2ln\" b eyJ"), "a X\" b X");
        assert_eq!(clean("eyJh%2Ee30%2Ec2ln&a=1"), "X&a=1");
        assert_eq!(clean(r#"{"x":"\u0065yJh\u002ee30.c2ln","y":1}"#), r#"{"x":"X","y":1}"#);
        for (before, after) in [
            ("", ""),
            ("/webhooks/st/", "/x"),
            ("?cb=", "&a"),
            ("%2F", "%2F"),
            ("\\n", "\\n"),
            ("\"", "\""),
            ("u=", ""),
        ] {
            let text = format!("{before}{OPAQUE}{after}");
            assert_eq!(clean(&text), format!("{before}X{after}"));
        }
        for text in ["id_", "a-"] {
            assert!(!clean(&format!("{text}{OPAQUE}")).contains(OPAQUE), "{text}");
        }
        for text in [
            "550e8400-e29b-41d4-a716-446655440000",
            "9f86d081884c7d659a2feaa0c55ad015",
            "int_abcdefghijklmnopqrstuvwxyz",
            "application/x-www-form-urlencoded; charset=utf-8",
            "a long sentence of plain words, caf\u{e9}, 100% sure \\",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        ] {
            assert_eq!(clean(text), text);
        }
    }

    #[test]
    fn parameters_with_the_names_of_secrets_lose_their_values() {
        let clean = |text: &str| {
            without_parameters(text, "X", |name| ["token", "sig", "api_key", "access_token"].contains(&name))
        };
        for (text, expected) in [
            ("http://a/?token=S3", "http://a/?token=X"),
            ("<http://a?api_key=S3>; rel=x", "<http://a?api_key=X>; rel=x"),
            ("/a?b=1;sig=S3&c=2#access_token=S3", "/a?b=1;sig=X&c=2#access_token=X"),
            ("/a?t%6fken=S3", "/a?t%6fken=X"),
            ("u=http%3A%2F%2Fa%3Ftoken%3DS3%26b%3D1", "u=http%3A%2F%2Fa%3Ftoken%3DX%26b%3D1"),
            ("a?b?token=S3", "a?b?token=X"),
            ("a?&&token=S3", "a?&&token=X"),
            ("see a?x=1 and key=2", "see a?x=1 and key=2"),
            ("a?token=&b=1", "a?token=&b=1"),
        ] {
            assert_eq!(clean(text), expected);
        }
    }
}
