//! The format of a signature header. The format is written as an example of the header with placeholders, such as
//! `t={timestamp},v1={signature}`.
//!
//! If the format has a separator, the header is a list. The prefix of an item, such as `v1=`, identifies the content
//! of the item. Items with an unknown prefix are skipped, because providers add versions. The list may contain more
//! than one signature, but only one timestamp. If the format has no separator, the header consists of one prefix and
//! one signature.

use std::fmt;
use std::ops::Range;

use http::HeaderValue;

use crate::denial::{Denial, Refusal};

/// The content of one item of a signature header.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Placeholder {
    Signature,
    Timestamp,
}

/// A parsed format of a signature header, such as `t={timestamp},v1={signature}`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct HeaderFormat {
    items: Vec<(Box<str>, Placeholder)>,
    separator: Option<char>,
    /// True if an item may end with a comma, as in `t=1, v1=a` instead of `t=1 v1=a`.
    commas: bool,
    text: Box<str>,
}

/// The reason why the text of a header format is invalid.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum HeaderFormatError {
    /// An item of the header has no placeholder, or has text after the placeholder. The value is the text of the item.
    Item(String),
    /// The prefix of one placeholder begins with the prefix of the other placeholder.
    Prefix,
    /// There is no separator between the two placeholders.
    Separator,
    /// The placeholder `{signature}` is missing or occurs more than once.
    Signature,
}

impl fmt::Display for HeaderFormatError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Item(item) => {
                write!(f, "`{item}` must be a prefix followed by {{signature}} or {{timestamp}}")
            }
            Self::Signature => write!(f, "must contain {{signature}} exactly once"),
            Self::Prefix => write!(f, "needs different prefixes for {{timestamp}} and {{signature}}"),
            Self::Separator => write!(f, "needs `,`, `;`, `&` or a space between its two placeholders"),
        }
    }
}

impl HeaderFormat {
    /// Parses the format of a signature header. If `separator` is `None` and the format has two placeholders, the
    /// character after the first placeholder is the separator.
    ///
    /// # Errors
    /// Returns a [`HeaderFormatError`] if the text is not a header format.
    pub fn parse(text: &str, separator: Option<char>) -> Result<Self, HeaderFormatError> {
        let placeholders = text.matches('{').count();
        let implied = || text.split_once('}').and_then(|(_, rest)| rest.chars().next());
        let separator = match separator {
            None if placeholders > 1 => {
                Some(implied().filter(|c| ",;& ".contains(*c)).ok_or(HeaderFormatError::Separator)?)
            }
            given => given,
        };
        let items = match separator {
            None => vec![item(text)?],
            Some(c) => text.split(c).map(|part| item(part.trim_matches(' '))).collect::<Result<_, _>>()?,
        };
        let signatures = items.iter().filter(|(_, field)| *field == Placeholder::Signature).count();
        let timestamps = items.len() - signatures;
        if signatures != 1 || timestamps > 1 {
            return Err(HeaderFormatError::Signature);
        }
        // The prefixes `Bearer ` and `bearer ` count as equal, because the case of an authentication scheme does not
        // matter.
        let overlap = |a: &str, b: &str| after_prefix(a, b).is_some() || after_prefix(b, a).is_some();
        if let [(a, _), (b, _)] = items.as_slice()
            && overlap(a, b)
        {
            return Err(HeaderFormatError::Prefix);
        }
        Ok(Self { items, separator, commas: false, text: text.into() })
    }

    /// Returns this format, changed so that an item may end with a comma. Some senders write `t=1, v1=a` instead of
    /// `t=1 v1=a`.
    pub fn with_commas(self) -> Self {
        Self { commas: true, ..self }
    }

    /// Reports whether the format contains the placeholder `{timestamp}`.
    pub fn has_timestamp(&self) -> bool {
        self.items.iter().any(|(_, field)| *field == Placeholder::Timestamp)
    }

    /// Returns the text from which the format was parsed.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Calls `signature` with each signature in a header value. Returns the timestamp in the value, or `None` if there
    /// is no timestamp.
    ///
    /// # Errors
    /// Returns `signature_malformed` if the value is not visible ASCII, or contains two timestamps.
    pub(in crate::signature) fn read<'v>(
        &self,
        value: &'v HeaderValue,
        mut signature: impl FnMut(&'v str),
    ) -> Result<Option<HeaderSlice>, Refusal> {
        let malformed = |detail: &'static str| Refusal::new(Denial::SignatureMalformed, detail);
        let text = value
            .to_str()
            .map_err(|_| malformed("the signature header contains bytes that are not visible ASCII"))?;
        let mut timestamp = None;
        let whole = [text];
        let items: &mut dyn Iterator<Item = &'v str> = match self.separator {
            None => &mut whole.into_iter(),
            Some(c) => &mut text.split(c),
        };
        for part in items {
            let part = part.trim_matches([' ', '\t']);
            let part = part.strip_suffix(',').filter(|_| self.commas).unwrap_or(part);
            let Some((rest, field)) = self.field(part) else { continue };
            match field {
                Placeholder::Signature => signature(rest),
                Placeholder::Timestamp if timestamp.is_some() => {
                    return Err(malformed("the signature header contains two timestamps"));
                }
                Placeholder::Timestamp => timestamp = Some(HeaderSlice::of(value, text, rest)),
            }
        }
        Ok(timestamp)
    }

    fn field<'t>(&self, part: &'t str) -> Option<(&'t str, Placeholder)> {
        self.items.iter().find_map(|(prefix, field)| after_prefix(part, prefix).map(|rest| (rest, *field)))
    }

    /// Returns the reason why a header value contains no signature, as a predicate such as `does not begin with ...`.
    /// The predicate names the expected prefix. If `is_secret` is false, the predicate also names short prefixes of
    /// `value`.
    pub(in crate::signature) fn fault(&self, value: &str, is_secret: bool) -> String {
        let prefix = self.items.iter().find(|(_, field)| *field == Placeholder::Signature);
        let prefix = prefix.map_or("", |(prefix, _)| prefix);
        if value.is_empty() {
            return "is empty".to_owned();
        }
        let Some(mark) = prefix.chars().next_back().filter(|c| !c.is_ascii_alphanumeric()) else {
            return format!("does not begin with `{prefix}`");
        };
        // The predicate repeats only short names, because a longer text can be a secret.
        let name = |part: &str| {
            let (name, rest) = part.trim().split_once(mark)?;
            let short = !is_secret
                && (1..=12).contains(&name.len())
                && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b));
            (short && !rest.trim_matches(mark).is_empty()).then(|| format!("`{name}{mark}`"))
        };
        match self.separator {
            None => match name(value) {
                Some(found) => format!("begins with {found}, expected `{prefix}`"),
                None => format!("does not begin with `{prefix}`"),
            },
            Some(separator) => {
                let mut found: Vec<_> = value.split(separator).take(8).filter_map(name).collect();
                found.dedup();
                let found = match found.is_empty() {
                    true => String::new(),
                    false => format!("; its items begin with {}", found.join(" and ")),
                };
                format!("has no item that begins with `{prefix}`{found}")
            }
        }
    }

    /// Returns the header value with this timestamp and this signature.
    pub(in crate::signature) fn write(&self, timestamp: &str, signature: &str) -> String {
        self.text.replace("{timestamp}", timestamp).replace("{signature}", signature)
    }
}

/// Returns the text after a prefix, or `None` if `part` does not begin with the prefix. If the prefix is an
/// authentication scheme, such as `Bearer `, its case does not matter, and more than one space may follow the scheme
/// (RFC 9110 section 11.1).
fn after_prefix<'t>(part: &'t str, prefix: &str) -> Option<&'t str> {
    if !is_authentication_scheme(prefix) {
        return part.strip_prefix(prefix);
    }
    let (scheme, rest) = part.split_at_checked(prefix.len())?;
    scheme.eq_ignore_ascii_case(prefix).then(|| rest.trim_start_matches(' '))
}

/// Reports whether a prefix is an HTTP authentication scheme: a name and a space, such as `Bearer `.
fn is_authentication_scheme(prefix: &str) -> bool {
    let name = prefix.strip_suffix(' ');
    name.is_some_and(|name| !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-'))
}

fn item(part: &str) -> Result<(Box<str>, Placeholder), HeaderFormatError> {
    let field = |placeholder, field| part.strip_suffix(placeholder).map(|prefix| (prefix, field));
    match field("{signature}", Placeholder::Signature)
        .or_else(|| field("{timestamp}", Placeholder::Timestamp))
    {
        Some((prefix, field)) if !prefix.contains(['{', '}']) => Ok((prefix.into(), field)),
        _ => Err(HeaderFormatError::Item(part.to_owned())),
    }
}

/// A part of a header value, stored as a range of the value's bytes instead of a copy.
#[derive(Clone, Debug)]
pub(in crate::signature) struct HeaderSlice {
    value: HeaderValue,
    range: Range<usize>,
}

impl HeaderSlice {
    /// Returns the slice that contains the whole header value.
    pub(in crate::signature) fn whole(value: &HeaderValue) -> Self {
        Self { value: value.clone(), range: 0..value.len() }
    }

    /// Returns the slice that refers to `part` in the header value `value`. `text` must be the text of `value`, and
    /// `part` must be a slice of `text`.
    fn of(value: &HeaderValue, text: &str, part: &str) -> Self {
        let start = part.as_ptr().addr().saturating_sub(text.as_ptr().addr());
        Self { value: value.clone(), range: start..start + part.len() }
    }

    pub(in crate::signature) fn as_bytes(&self) -> &[u8] {
        self.value.as_bytes().get(self.range.clone()).unwrap_or_default()
    }

    pub(in crate::signature) fn as_str(&self) -> &str {
        std::str::from_utf8(self.as_bytes()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(format: &HeaderFormat, value: &'static str) -> (Vec<&'static str>, Option<String>) {
        let (value, mut signatures) = (HeaderValue::from_static(value), Vec::new());
        let timestamp = format.read(&value, |text| signatures.push(text.to_owned())).unwrap();
        let signatures = signatures.into_iter().map(|text| &*text.leak()).collect();
        (signatures, timestamp.map(|slice| slice.as_str().to_owned()))
    }

    #[test]
    fn a_single_value_is_prefix_and_signature() {
        let format = HeaderFormat::parse("sha1={signature}", None).unwrap();
        assert_eq!(read(&format, "sha1=01"), (vec!["01"], None));
        assert_eq!(read(&format, "sha1=01,sha1=02"), (vec!["01,sha1=02"], None));
        for bad in ["01", "SHA1=01", ""] {
            assert_eq!(read(&format, bad), (vec![], None), "{bad}");
        }
    }

    #[test]
    fn a_list_takes_several_signatures_and_skips_what_it_does_not_know() {
        let format = HeaderFormat::parse("t={timestamp},v1={signature}", None).unwrap();
        let value = "t=12,v0=00,v1=01, v1=02,v1=";
        assert_eq!(read(&format, value), (vec!["01", "02", ""], Some("12".to_owned())));
        assert!(format.has_timestamp());
        let twice = HeaderValue::from_static("t=1,t=2");
        assert!(format.read(&twice, |_| {}).is_err());
    }

    #[test]
    fn a_comma_may_precede_the_space() {
        let format = HeaderFormat::parse("v1,{signature}", Some(' ')).unwrap();
        assert_eq!(read(&format, "v1,a= v1,b="), (vec!["a=", "b="], None));
        assert_eq!(read(&format, "v1,a=, v1,b="), (vec!["a=,", "b="], None));
        let format = format.with_commas();
        assert_eq!(read(&format, "v1,a= v1,b="), (vec!["a=", "b="], None));
        assert_eq!(read(&format, "v1,a=, v1a,c=, v1,b=,"), (vec!["a=", "b="], None));
        assert_eq!(read(&format, "v1,a=,, v1,b="), (vec!["a=,", "b="], None));
    }

    #[test]
    fn grammars_without_one_meaning_are_refused() {
        assert_eq!(HeaderFormat::parse("t={timestamp}", None), Err(HeaderFormatError::Signature));
        assert_eq!(HeaderFormat::parse("{timestamp}{signature}", None), Err(HeaderFormatError::Separator));
        assert_eq!(
            HeaderFormat::parse("a={signature},b={signature}", None),
            Err(HeaderFormatError::Signature)
        );
        assert_eq!(HeaderFormat::parse("{timestamp},{signature}", None), Err(HeaderFormatError::Prefix));
        assert_eq!(HeaderFormat::parse("v={timestamp},v={signature}", None), Err(HeaderFormatError::Prefix));
        for bad in ["", "v1", "{signature}x", "{id}", "v={sig}", "t={timestamp},x,v1={signature}"] {
            assert!(matches!(HeaderFormat::parse(bad, None), Err(HeaderFormatError::Item(_))), "{bad}");
        }
        let spaced = HeaderFormat::parse("v1,{signature}", Some(' ')).unwrap();
        assert_eq!(spaced.write("", "x"), "v1,x");
    }

    #[test]
    fn the_case_of_an_authentication_scheme_does_not_matter() {
        let format = HeaderFormat::parse("Bearer {signature}", None).unwrap();
        for value in ["Bearer Abc", "bearer Abc", "BEARER   Abc"] {
            assert_eq!(read(&format, value), (vec!["Abc"], None), "{value}");
        }
        for bad in ["BearerAbc", "Abc", "Basic Abc", "Bearer"] {
            assert_eq!(read(&format, bad), (vec![], None), "{bad}");
        }
        assert_eq!(HeaderFormat::parse("T {timestamp};t {signature}", None), Err(HeaderFormatError::Prefix));
    }

    #[test]
    fn a_value_without_a_signature_is_described() {
        let fault =
            |format: &str, value: &str| HeaderFormat::parse(format, None).unwrap().fault(value, false);
        assert_eq!(fault("sha256={signature}", "sha1=0123"), "begins with `sha1=`, expected `sha256=`");
        assert_eq!(fault("sha256={signature}", "01230123"), "does not begin with `sha256=`");
        assert_eq!(fault("sha256={signature}", "AAAAAAAA="), "does not begin with `sha256=`");
        assert_eq!(fault("Bearer {signature}", "0123"), "does not begin with `Bearer `");
        assert_eq!(
            fault("t={timestamp},v1={signature}", "t=12,v0=0123"),
            "has no item that begins with `v1=`; its items begin with `t=` and `v0=`"
        );
        assert_eq!(fault("{signature}", ""), "is empty");
        let format = HeaderFormat::parse("Bearer {signature}", None).unwrap();
        assert_eq!(format.fault("hush hush", true), "does not begin with `Bearer `");
    }
}
