//! The query, as text: one parameter is read or taken out, the rest is passed on byte by byte.

use std::borrow::Cow;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

/// Everything but the unreserved characters of RFC 3986.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// How often a parameter occurs.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Parameter<'a> {
    /// Not at all.
    Missing,
    /// Once, with this value, percent-decoded.
    One(Cow<'a, str>),
    /// More than once, or with bytes that are not UTF-8.
    Several,
}

/// Whether every byte is a visible ASCII character that a query may have (RFC 3986 section 3.4, leniently:
/// brackets, braces and the like are passed on as providers send them). Returns the offset of the first
/// other byte.
///
/// # Errors
/// The offset of a control, a space, `#`, or a byte outside ASCII.
pub fn check_query(query: &str) -> Result<(), usize> {
    match query.bytes().position(|b| !b.is_ascii_graphic() || b == b'#') {
        Some(at) => Err(at),
        None => Ok(()),
    }
}

fn name_of(pair: &str) -> Cow<'_, str> {
    percent_decode_str(pair.split_once('=').map_or(pair, |(name, _)| name)).decode_utf8_lossy()
}

/// The value of the parameter `name`, whose own name may come percent-encoded.
pub fn parameter<'a>(query: &'a str, name: &str) -> Parameter<'a> {
    let mut found = query.split('&').filter(|pair| name_of(pair) == name);
    let (Some(pair), None) = (found.next(), found.next()) else {
        return if query.split('&').any(|pair| name_of(pair) == name) {
            Parameter::Several
        } else {
            Parameter::Missing
        };
    };
    let value = pair.split_once('=').map_or("", |(_, value)| value);
    percent_decode_str(value).decode_utf8().map_or(Parameter::Several, Parameter::One)
}

/// As [`parameter`], of a form (WHATWG URL, application/x-www-form-urlencoded): a `+` stands for a space.
pub fn form_parameter<'a>(fields: &'a str, name: &str) -> Parameter<'a> {
    match parameter(fields, name) {
        // Only what was written as it stands may be a space; an encoded `+` is one.
        Parameter::One(_) => {
            let mut raw = fields.split('&').filter(|pair| name_of(pair) == name);
            let value = raw.next().and_then(|pair| pair.split_once('=')).map_or("", |(_, value)| value);
            let spaced = value.replace('+', " ");
            let decoded = percent_decode_str(&spaced).decode_utf8().map(Cow::into_owned);
            decoded.map_or(Parameter::Several, |text| Parameter::One(Cow::Owned(text)))
        }
        other => other,
    }
}

/// One field of a form, or parameter of a query, as text.
pub fn pair(name: &str, value: &str) -> String {
    format!("{}={}", utf8_percent_encode(name, ENCODED), utf8_percent_encode(value, ENCODED))
}

/// The query without any parameter called `name`; `None` when nothing is left.
pub fn without_parameter<'a>(query: &'a str, name: &str) -> Option<Cow<'a, str>> {
    if query.is_empty() {
        return None;
    }
    if !query.split('&').any(|pair| name_of(pair) == name) {
        return Some(Cow::Borrowed(query));
    }
    let rest: Vec<_> = query.split('&').filter(|pair| name_of(pair) != name).collect();
    if rest.is_empty() { None } else { Some(Cow::Owned(rest.join("&"))) }
}

/// `url` with one more parameter.
pub fn with_parameter(url: &str, name: &str, value: &str) -> String {
    let joint = if url.contains('?') { '&' } else { '?' };
    format!("{url}{joint}{name}={}", utf8_percent_encode(value, ENCODED))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_parameter_is_read_and_taken_out() {
        let query = "a=1&callback_token=x.y-z&b=%20";
        assert_eq!(parameter(query, "callback_token"), Parameter::One("x.y-z".into()));
        assert_eq!(without_parameter(query, "callback_token").as_deref(), Some("a=1&b=%20"));
        assert_eq!(without_parameter("callback_token=x", "callback_token"), None);
        assert_eq!(without_parameter("", "callback_token"), None);
        assert_eq!(without_parameter("a", "callback_token").as_deref(), Some("a"));
    }

    #[test]
    fn an_encoded_name_is_the_same_name_and_doubles_are_seen() {
        let query = "callback%5Ftoken=x&callback_token=y";
        assert_eq!(parameter(query, "callback_token"), Parameter::Several);
        assert_eq!(without_parameter(query, "callback_token"), None);
        assert_eq!(parameter("a=b", "callback_token"), Parameter::Missing);
        assert_eq!(parameter("t=%ff", "t"), Parameter::Several);
    }

    #[test]
    fn controls_and_fragments_are_found() {
        assert_eq!(check_query("a=[1]&b={x}|y"), Ok(()));
        assert_eq!(check_query("a b"), Err(1));
        assert_eq!(check_query("a#b"), Err(1));
        assert_eq!(check_query("é"), Err(0));
    }
}
