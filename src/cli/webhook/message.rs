//! The lengths of the messages and warnings of the webhook.

/// The maximum length of a warning, in characters. Kubernetes cuts longer warnings.
const WARNING_CHARS_MAX: usize = 250;
/// The maximum number of warnings in a response of the webhook. Kubernetes shows at most 4096 characters of all
/// warnings.
const WARNINGS_MAX: usize = 16;
/// The maximum length of the message of a denial, in characters. Kubernetes shows it as a whole. The limit only bounds
/// names that are longer than Kubernetes allows.
const MESSAGE_CHARS_MAX: usize = 4000;
/// The mark of a text that continues in the next warning, or that was cut.
const CONTINUES: &str = " …";

/// Returns the warnings of a response. A long warning is split between words into several, because Kubernetes would cut
/// it.
pub(super) fn warnings<'t>(texts: impl Iterator<Item = &'t str>) -> Vec<String> {
    texts.flat_map(|text| split(text, WARNING_CHARS_MAX)).take(WARNINGS_MAX).collect()
}

/// Returns the message of a denial. It is cut only if it is much longer than any message about a valid object.
pub(super) fn denial(text: &str) -> String {
    split(text, MESSAGE_CHARS_MAX).into_iter().next().unwrap_or_default()
}

/// Splits a text between words into parts of at most `max` characters. `max` must be greater than the length of the
/// marks of a continued text.
fn split(text: &str, max: usize) -> Vec<String> {
    let room = max.saturating_sub(CONTINUES.chars().count()).max(1);
    let mut parts = Vec::new();
    let mut rest = text.to_owned();
    loop {
        let Some((end, _)) = rest.char_indices().nth(room).filter(|_| rest.chars().nth(max).is_some()) else {
            parts.push(rest);
            return parts;
        };
        let (head, tail) = rest.split_at(end);
        // A part begins with the mark and a space, which is not the end of a word.
        let at = head.rfind(' ').filter(|at| *at > CONTINUES.len()).unwrap_or(head.len());
        let (first, left) = head.split_at(at);
        let next = format!("… {}{tail}", left.trim_start());
        parts.push(format!("{first}{CONTINUES}"));
        rest = next;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_texts_are_split_between_words() {
        assert_eq!(split("a b", 9), ["a b"]);
        assert_eq!(split("one two three four", 12), ["one two …", "… three four"]);
        let hard = split(&"ü".repeat(30), 12);
        assert!(hard.iter().all(|part| part.chars().count() <= 12), "{hard:?}");
        assert_eq!(hard.concat().matches('ü').count(), 30);
        let words = "word ".repeat(1000);
        assert_eq!(warnings([words.as_str(), "other"].into_iter()).len(), WARNINGS_MAX);
        assert_eq!(denial(&"a ".repeat(400)).len(), 800);
        assert!(denial(&"a ".repeat(4000)).chars().count() <= MESSAGE_CHARS_MAX);
    }
}
