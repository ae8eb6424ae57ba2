//! Words in a configuration: which are names, which may be repeated in a message, which were meant.

/// A word in a message; not repeated when it could be a secret in the wrong place.
pub(super) fn shown(text: &str) -> String {
    let word = text.len() <= 32 && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
    if word && !text.contains("sec_") { format!("`{text}`") } else { "the value".to_owned() }
}

/// A URL in a message, without what may be a secret in it: user and query.
pub(super) fn shown_url(text: &str) -> String {
    let text = text.split(['?', '#']).next().unwrap_or_default();
    match text.rsplit_once('@') {
        Some((before, rest)) => {
            format!("`{}…@{rest}`", before.split_inclusive("//").next().unwrap_or_default())
        }
        None => format!("`{text}`"),
    }
}

/// Whether `text` may be a name.
pub(super) fn is_name(text: &str) -> bool {
    text.len() <= 64
        && text.starts_with(|c: char| c.is_ascii_lowercase())
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_')
        // Metrics and logs say so where there is no name, and of answers to questions.
        && !matches!(text, "none" | "actions")
}

/// "did you mean", or the list of what is known.
pub(super) fn did_you_mean(text: &str, known: &[&str]) -> String {
    // Nobody means a word with one that is much longer than any, and comparing takes time and room for each letter.
    let comparable = known.iter().filter(|_| text.len() <= 64);
    let near = comparable.map(|word| (strsim::damerau_levenshtein(text, word), word)).min();
    match near {
        Some((distance, word)) if distance <= 2 && distance < word.len() => format!("did you mean `{word}`?"),
        _ => format!("known are: {}", known.join(", ")),
    }
}
