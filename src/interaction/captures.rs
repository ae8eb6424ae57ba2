//! The captures of a path as the record of an interaction stores them.

/// Returns captures as the record stores them: `name=value`, separated by `&`. Names and values cannot contain these
/// characters.
pub fn pairs<'c>(captures: impl Iterator<Item = (&'c str, &'c str)>) -> Box<str> {
    let pairs: Vec<_> = captures.map(|(name, value)| format!("{name}={value}")).collect();
    pairs.join("&").into()
}
