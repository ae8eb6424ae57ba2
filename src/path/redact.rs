//! Recognizes path segments that look like a secret.

/// The text that replaces a path segment in the log if the segment looks like a secret.
const REDACTED: &str = "[redacted]";
/// The maximum length of a path segment that the log shows, in bytes.
const SEGMENT_BYTES_MAX: usize = 64;
/// The maximum length of a plain word, in bytes. A longer sequence of letters may be a secret.
const WORD_BYTES_MAX: usize = 32;
/// The maximum total length, in bytes, of the parts of a segment that are not plain words. Examples of these parts are
/// `v1` and `2024`.
const OTHER_BYTES_MAX: usize = 12;

/// The length of an opaque callback token, in bytes of ASCII text.
const OPAQUE_BYTES: usize = 32;

/// Returns a path segment for the log: the segment itself, or `[redacted]` if the segment looks like a secret.
///
/// The log shows a segment of plain words, such as `chat.completions` or `sendMessage`. The segment may also contain a
/// few short numbers and abbreviations, such as `gpt-4o-mini`. Random text of more than 12 characters is redacted.
/// UUIDs are redacted as well, because some providers use them as secrets.
pub fn redacted_segment(segment: &str) -> &str {
    if segment.len() > SEGMENT_BYTES_MAX || has_token(segment) {
        return REDACTED;
    }
    let words = segment.split(|c: char| !c.is_ascii_alphanumeric());
    let others: usize = words.filter(|word| !is_plain_word(word)).map(str::len).sum();
    if others <= OTHER_BYTES_MAX { segment } else { REDACTED }
}

/// Reports whether a text contains a part that looks like a JWT or an opaque callback token.
pub fn has_token(text: &str) -> bool {
    let is_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    text.contains("eyJ") || text.split(|c| !is_part(c)).any(is_opaque_form)
}

/// Reports whether a text has the form of an opaque callback token, which is the base64url encoding of 24 random bytes.
/// A UUID or a hexadecimal hash does not have this form, because its letters are all in the same case.
pub fn is_opaque_form(text: &str) -> bool {
    text.len() == OPAQUE_BYTES
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
        && text.bytes().any(|b| b.is_ascii_uppercase())
        && text.bytes().any(|b| b.is_ascii_lowercase())
}

/// Reports whether a word consists of letters and is spelled like a natural word, with few upper-case letters. Random
/// text contains digits or many upper-case letters.
fn is_plain_word(word: &str) -> bool {
    let upper = word.bytes().filter(u8::is_ascii_uppercase).count();
    word.len() <= WORD_BYTES_MAX
        && word.bytes().all(|b| b.is_ascii_alphabetic())
        && (upper * 4 <= word.len() || upper <= 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_shown_and_secrets_are_not() {
        for shown in [
            "",
            "v1",
            "v1beta",
            "sendMessage",
            "SendMessage",
            "chat.completions",
            "getAuthenticatedExtendedCard",
            "gpt-4o-mini-2024-07-18",
            "gemini-2.5-pro:generateContent",
            "claude-sonnet-4-5",
            "2010-04-01",
            "job-17",
            "Messages.json",
            "API",
            "a%20b",
        ] {
            assert_eq!(redacted_segment(shown), shown);
        }
        for secret in [
            "bot110201543:AAHdqTcvCH1vGWJxfSeofSAs0K5PALDsaw",
            "XkXqZlaBcDeFgHiJkLmNoP",
            "XkXq7Zl0aBcDeFgHiJkLmNoP",
            "9f86d081884c7d659a2feaa0c55ad015",
            "550e8400-e29b-41d4-a716-446655440000",
            "sk-proj-Ab12Cd34Ef56Gh78",
            "123456789012345678",
            "x.eyJhbGciOi",
            "ABCDEFGHIJKLMNOP",
        ] {
            assert_eq!(redacted_segment(secret), "[redacted]", "{secret}");
        }
        assert_eq!(redacted_segment(&"a".repeat(33)), "[redacted]");
        assert_eq!(redacted_segment(&"word-".repeat(13)), "[redacted]");
    }
}
