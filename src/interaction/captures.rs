//! The captures of a path as the record of an interaction stores them.

/// Returns captures as the record stores them: `name=value`, separated by `&`. Names cannot contain these characters.
///
/// Only the remainder of a path can contain `&`. It is always the last capture. Its name is then preceded by `*`, and
/// its value extends to the end of the text.
pub fn pairs<'c>(captures: impl Iterator<Item = (&'c str, &'c str)>) -> Box<str> {
    let pair = |(name, value): (&str, &str)| {
        let mark = if value.contains('&') { "*" } else { "" };
        format!("{mark}{name}={value}")
    };
    captures.map(pair).collect::<Vec<_>>().join("&").into()
}

/// Returns name and value of each capture in a text of [`pairs`].
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
