//! Texts for messages: suggestions for misspelled words, and values from which possible secrets are removed.

/// Returns a word of the configuration in backquotes, for a message. Returns `the value` instead if the word could be a
/// secret that was written in the wrong place.
pub(crate) fn shown(text: &str) -> String {
    let word = text.len() <= 32 && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
    if word && !text.contains("sec_") { format!("`{text}`") } else { "the value".to_owned() }
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

/// Reports whether `text` is valid as a name, for example of a route. A name has at most 64 characters: a lower-case
/// letter, and then lower-case letters, digits, `-` and `_`.
pub(crate) fn is_name(text: &str) -> bool {
    text.len() <= 64
        && text.starts_with(|c: char| c.is_ascii_lowercase())
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_')
        // Callgate itself uses these two words in metrics and logs.
        && !matches!(text, "none" | "actions")
}

/// Returns a hint for the unknown word `text`. If a known word is similar, the hint asks whether the most similar one
/// was meant. Otherwise the hint lists all known words.
pub(crate) fn did_you_mean(text: &str, known: &[&str]) -> String {
    // A longer text is not compared, because no known word is so long, and comparing long texts takes much time and
    // memory.
    let comparable = known.iter().filter(|_| text.len() <= 64);
    let near = comparable.map(|word| (strsim::damerau_levenshtein(text, word), word)).min();
    match near {
        Some((distance, word)) if distance <= 2 && distance < word.len() => format!("did you mean `{word}`?"),
        _ => format!("use one of: {}", known.join(", ")),
    }
}
