//! The text form of path captures in the record of an interaction.

/// Returns the text form of path captures: `name=value`, separated by `&`, for example `a=1&b=2`. Capture names cannot
/// contain `=`, `&` or `*`.
///
/// The value of the last capture can contain `&` if its template is `{*name}`. The text then has a `*` before the name,
/// and the value extends to the end of the text. Example: `a=1&*rest=x&y`.
pub fn pairs<'c>(captures: impl Iterator<Item = (&'c str, &'c str)>) -> Box<str> {
    let pair = |(name, value): (&str, &str)| {
        let mark = if value.contains('&') { "*" } else { "" };
        format!("{mark}{name}={value}")
    };
    captures.map(pair).collect::<Vec<_>>().join("&").into()
}

/// Parses a text that [`pairs`] returned. Returns the name and the value of each capture.
pub(super) fn of_pairs(pairs: &str) -> impl Iterator<Item = (&str, &str)> {
    let mut rest = Some(pairs);
    std::iter::from_fn(move || {
        let text = rest.take()?;
        if let Some(last) = text.strip_prefix('*') {
            return last.split_once('=');
        }
        let (pair, behind) = text.split_once('&').map_or((text, None), |(pair, behind)| (pair, Some(behind)));
        rest = behind;
        pair.split_once('=')
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn captures_are_stored_and_read() {
        for captures in [
            &[][..],
            &[("a", "1")],
            &[("a", "1"), ("b", "2")],
            &[("a", "1"), ("rest", "")],
            &[("a", "1"), ("rest", "x=1&y=2/z=&")],
            &[("rest", "&a=1")],
            &[("rest", "v1/*x")],
        ] {
            let stored = pairs(captures.iter().copied());
            assert_eq!(of_pairs(&stored).collect::<Vec<_>>(), captures, "{stored}");
        }
        assert_eq!(&*pairs([("a", "1"), ("b", "2")].into_iter()), "a=1&b=2");
    }
}
