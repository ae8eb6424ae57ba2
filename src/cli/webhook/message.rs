//! The lengths of the messages and warnings of the webhook.

/// The maximum length of a warning, in characters. Kubernetes cuts longer warnings.
const WARNING_CHARS_MAX: usize = 250;
/// The maximum number of warnings in a response of the webhook. Kubernetes shows at most 4096 characters of all
/// warnings together.
const WARNINGS_MAX: usize = 16;
/// The maximum length of the message of a denial, in characters. Kubernetes shows the whole message. The maximum can be
/// exceeded only if the object contains a name that is longer than Kubernetes allows.
const MESSAGE_CHARS_MAX: usize = 4000;
/// The mark at the end of a warning that continues in the next warning, and at the end of a text that was cut.
const ENDS: &str = " …";
/// The mark at the beginning of a warning that continues the previous one.
const BEGINS: &str = "… ";

/// Returns the warnings of a response. A long warning is split between words into several, because Kubernetes would cut
/// it.
pub(super) fn warnings<'t>(texts: impl Iterator<Item = &'t str>) -> Vec<String> {
    texts.flat_map(|text| split(text, WARNING_CHARS_MAX)).take(WARNINGS_MAX).collect()
}

/// Returns the message of a denial, cut to [`MESSAGE_CHARS_MAX`] characters. The message about a valid object is much
/// shorter.
pub(super) fn denial(text: &str) -> String {
    split(text, MESSAGE_CHARS_MAX).next().unwrap_or_default()
}

/// Splits a text between words into parts of at most `max` characters. `max` must be greater than the length of both
/// marks, [`BEGINS`] and [`ENDS`], together. The iterator makes a part only when the part is requested.
fn split(text: &str, max: usize) -> impl Iterator<Item = String> {
    let mut rest = Some(text);
    let mut begins = "";
    std::iter::from_fn(move || {
        let text = rest.take()?;
        let room = max.saturating_sub(begins.chars().count());
        if text.chars().nth(room).is_none() {
            return Some(format!("{begins}{text}"));
        }
        let room = room.saturating_sub(ENDS.chars().count()).max(1);
        let end = text.char_indices().nth(room).map_or(text.len(), |(end, _)| end);
        let at = text.get(..end)?.rfind(' ').filter(|at| *at > 0).unwrap_or(end);
        let (part, left) = text.split_at_checked(at)?;
        let part = format!("{begins}{part}{ENDS}");
        rest = Some(left.trim_start());
        begins = BEGINS;
        Some(part)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_texts_are_split_between_words() {
        let split_all = |text: &str, max| split(text, max).collect::<Vec<_>>();
        assert_eq!(split_all("a b", 9), ["a b"]);
        assert_eq!(split_all("one two three four", 12), ["one two …", "… three four"]);
        let hard = split_all(&"ü".repeat(30), 12);
        assert!(hard.iter().all(|part| part.chars().count() <= 12), "{hard:?}");
        assert_eq!(hard.concat().matches('ü').count(), 30);
        let words = "word ".repeat(1000);
        assert_eq!(warnings([words.as_str(), "other"].into_iter()).len(), WARNINGS_MAX);
        assert_eq!(denial(&"a ".repeat(400)).len(), 800);
        assert!(denial(&"a ".repeat(4000)).chars().count() <= MESSAGE_CHARS_MAX);
    }
}
