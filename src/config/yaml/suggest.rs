//! Texts for error messages: suggestions for misspelled words, and values from which possible secrets are removed.

/// Returns a word of the configuration in backquotes, for a message. Returns `the value` instead if the word could be a
/// secret that was written at the wrong location.
pub(crate) fn shown(text: &str) -> String {
    if is_word(text) { format!("`{text}`") } else { "the value".to_owned() }
}

/// Reports whether a text is a word that is probably not a secret. Such a word consists of at most 32 letters, digits,
/// `-` and `_`, and does not contain `sec_`.
pub(crate) fn is_word(text: &str) -> bool {
    let has_form = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    text.len() <= 32 && text.bytes().all(has_form) && !text.contains("sec_")
}

/// Returns a URL for a message, without the parts that can be secrets: user information and query.
pub(crate) fn shown_url(text: &str) -> String {
    let text = text.split(['?', '#']).next().unwrap_or_default();
    match text.rsplit_once('@') {
        Some((before, rest)) => {
            format!("`{}…@{rest}`", before.split_inclusive("//").next().unwrap_or_default())
        }
        None => format!("`{text}`"),
    }
}

/// Reports whether `text` is valid as a name, for example of a route. A name begins with a lower-case letter, and
/// consists of at most 64 lower-case letters, digits, `-` and `_`. The words `none` and `actions` are not valid.
pub(crate) fn is_name(text: &str) -> bool {
    text.len() <= 64
        && text.starts_with(|c: char| c.is_ascii_lowercase())
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_')
        // Callgate itself uses these two words in metrics and logs.
        && !matches!(text, "none" | "actions")
}

/// Returns a hint for the unknown word `text`. If a known word is similar, the hint suggests the most similar known
/// word. Otherwise the hint lists all known words.
pub(crate) fn did_you_mean(text: &str, known: &[&str]) -> String {
    // Texts with more than 64 bytes are not compared with the known words. All known words are shorter, and the
    // comparison of long texts takes much time and memory.
    let comparable = known.iter().filter(|_| text.len() <= 64);
    let near = comparable.map(|word| (strsim::damerau_levenshtein(text, word), word)).min();
    match near {
        Some((distance, word)) if distance <= 2 && distance < word.len() => format!("did you mean `{word}`?"),
        _ => format!("use one of: {}", known.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_short_word_that_cannot_be_a_secret_is_shown() {
        let longest = "a".repeat(32);
        for word in ["", "a", "A-b_9", &longest] {
            assert_eq!(shown(word), format!("`{word}`"));
        }
        for other in ["a b", "a/b", "whsec_AQID", "\u{e4}", &format!("{longest}a")] {
            assert_eq!(shown(other), "the value");
        }
    }

    #[test]
    fn a_url_is_shown_without_user_and_query() {
        for (url, expected) in [
            ("https://a.example/p", "`https://a.example/p`"),
            ("https://a.example/p?key=1#f", "`https://a.example/p`"),
            ("https://u:p@a.example/p", "`https://\u{2026}@a.example/p`"),
            ("https://u@v@a.example/?x", "`https://\u{2026}@a.example/`"),
        ] {
            assert_eq!(shown_url(url), expected);
        }
    }

    #[test]
    fn a_name_has_a_first_letter_and_a_maximum_length() {
        let longest = "a".repeat(64);
        for name in ["a", "a-b_9", &longest] {
            assert!(is_name(name), "{name}");
        }
        for other in
            ["", "9a", "-a", "_a", "A", "aB", "a b", "\u{e4}", "none", "actions", &format!("{longest}a")]
        {
            assert!(!is_name(other), "{other}");
        }
    }

    #[test]
    fn the_most_similar_word_is_suggested() {
        let known = ["secret", "secrets", "ab", "agent"];
        for (text, word) in
            [("secrt", "secret"), ("secretss", "secrets"), ("agnet", "agent"), ("agentxy", "agent")]
        {
            assert_eq!(did_you_mean(text, &known), format!("did you mean `{word}`?"));
        }
        // None of these texts is similar to a known word. A text is similar to a known word if at most two edits turn
        // the text into the word, and the word has more letters than there are edits.
        for text in ["cd", "xy", "other", &"a".repeat(65)] {
            assert_eq!(did_you_mean(text, &known), "use one of: secret, secrets, ab, agent");
        }
        let long = ["a".repeat(64), "a".repeat(65)];
        assert_eq!(did_you_mean(&long[0], &[&long[1]]), format!("did you mean `{}`?", long[1]));
        assert_eq!(did_you_mean(&long[1], &[&long[0]]), format!("use one of: {}", long[0]));
    }
}
