//! Reads, adds and removes single query parameters. All other bytes of the query stay unchanged.

use std::borrow::Cow;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

use crate::json::is_same_name;

/// The characters to percent-encode in a query: all except the unreserved characters of RFC 3986.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// The result of looking up a parameter of a query or of a form.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Parameter<'a> {
    /// The parameter does not occur in the query or form.
    Missing,
    /// The parameter occurs once. The variant contains the percent-decoded value.
    One(Cow<'a, str>),
    /// The parameter occurs more than once, or its value is not UTF-8.
    Several,
}

/// Checks that every byte of a query is a visible ASCII character other than `#`. This is more lenient than RFC 3986
/// section 3.4: brackets, braces and similar characters are accepted, because providers send them.
///
/// # Errors
/// Returns the offset of the first byte that is not allowed: a control character, a space, `#`, or a byte outside
/// ASCII.
pub fn check_query(query: &str) -> Result<(), usize> {
    match query.bytes().position(|b| !b.is_ascii_graphic() || b == b'#') {
        Some(at) => Err(at),
        None => Ok(()),
    }
}

fn name_of(pair: &str) -> Cow<'_, str> {
    percent_decode_str(pair.split_once('=').map_or(pair, |(name, _)| name)).decode_utf8_lossy()
}

/// Looks up the parameter `name` of a query. The name in the query may be percent-encoded. Returns the decoded value.
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

/// Looks up a query parameter strictly. Also returns [`Parameter::Several`] if some programs would read another
/// parameter under the same name. For the name `my_id`, these are `MY_ID`, `my_id[0]`, `my.id`, `+my_id`, and `my_id`
/// after a `;`.
pub fn parameter_strict<'a>(query: &'a str, name: &str) -> Parameter<'a> {
    let wanted = loose(name);
    let spelled = query.split(['&', ';']).filter(|pair| is_same_name(&loose(&name_of(pair)), &wanted));
    match (spelled.count(), parameter(query, name)) {
        (0, Parameter::Missing) => Parameter::Missing,
        (1, found @ Parameter::One(_)) => found,
        _ => Parameter::Several,
    }
}

/// Returns the name of a query parameter as the most lenient programs read it. PHP drops the spaces before a name and
/// everything from the first `[`, and replaces `.` and spaces by `_`.
pub(crate) fn loose(name: &str) -> String {
    let name = name.trim_start_matches([' ', '+']).split('[').next().unwrap_or_default();
    name.replace(['.', ' ', '+'], "_")
}

/// Looks up a field of a form (WHATWG URL, `application/x-www-form-urlencoded`). In contrast to [`parameter`], a `+` in
/// a value means a space.
pub fn form_parameter<'a>(fields: &'a str, name: &str) -> Parameter<'a> {
    match parameter(fields, name) {
        // `+` is replaced before the text is decoded, because a literal `+` means a space, but `%2B` means a plus sign.
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

/// Returns the values of all parameters called `name` in a query, still percent-encoded.
pub fn raw_values<'a>(query: &'a str, name: &str) -> impl Iterator<Item = &'a str> {
    let pairs = query.split('&').filter(move |pair| name_of(pair) == name);
    pairs.filter_map(|pair| pair.split_once('=').map(|(_, value)| value))
}

/// Returns the percent-encoded pair `name=value` for a form or a query.
pub fn pair(name: &str, value: &str) -> String {
    format!("{}={}", utf8_percent_encode(name, ENCODED), utf8_percent_encode(value, ENCODED))
}

/// Removes all parameters called `name` from a query. Returns the rest of the query, or `None` if no parameter is left.
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

/// Returns `url` with one more query parameter at its end.
pub fn with_parameter(url: &str, name: &str, value: &str) -> String {
    let joint = if url.contains('?') { '&' } else { '?' };
    let encoded = |text| utf8_percent_encode(text, ENCODED);
    format!("{url}{joint}{}={}", encoded(name), encoded(value))
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
    fn other_spellings_of_a_name_are_seen() {
        let strict = |query| parameter_strict(query, "callback_url");
        assert_eq!(strict("a=1&b=callback_url"), Parameter::Missing);
        assert_eq!(strict("callback_urls=1&my_callback_url=2&callback=3"), Parameter::Missing);
        assert_eq!(strict("a=1&callback%5Furl=x&b=2"), Parameter::One("x".into()));
        for query in [
            "Callback_Url=x",
            "callback%5FURL=x",
            "callback_url=x&callback_url=y",
            "callback_url=x&CALLBACK_URL=y",
            "a=1;callback_url=x",
            "callback_url[]=x",
            "callback_url%5B0%5D=x",
            "callback.url=x",
            "callback+url=x",
            "%20callback_url=x",
            "callbac%E2%84%AA_url=x",
            "callback_url=%ff",
        ] {
            assert_eq!(strict(query), Parameter::Several, "{query}");
        }
    }

    #[test]
    fn controls_and_fragments_are_found() {
        assert_eq!(check_query("a=[1]&b={x}|y"), Ok(()));
        assert_eq!(check_query("a b"), Err(1));
        assert_eq!(check_query("a#b"), Err(1));
        assert_eq!(check_query("é"), Err(0));
    }
}
