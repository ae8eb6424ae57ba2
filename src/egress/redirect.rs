//! Redirects of a provider to its own host. Callgate replaces the URL of the redirect by an address on the egress
//! listener, so that a client that follows the redirect still sends its request through Callgate.

use std::borrow::Cow;

use super::rule::Rule;
use crate::guard::Url;
use crate::path::{CanonicalPath, Captures};

impl Rule {
    /// Returns the address on the egress listener (path, query and fragment) that corresponds to the `Location` of a
    /// response. `sent` is the URL of the request, and `captures` are the captures of the request path.
    ///
    /// Returns `None` if the location has another scheme, host or port than `sent`, is not below the path of the rule's
    /// target, or is not canonical.
    pub fn local_location(&self, location: &str, sent: &Url, captures: &Captures) -> Option<String> {
        let (location, fragment) = match location.split_once('#') {
            Some((location, fragment)) => (location, Some(fragment)),
            None => (location, None),
        };
        let target = resolve(location, sent)?;
        let (path, query) = match target.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (&*target, None),
        };
        let canonical = CanonicalPath::parse(path).ok()?;
        let mut local = match &self.target.path {
            None if self.target.url.target() == path => self.path.fill(|name| captures.value(name))?,
            None => return None,
            Some(template) if template.matches(&canonical) => {
                let found = template.capture(&canonical);
                let value = |name: &str| match template.remainder() {
                    Some(remainder) if remainder == name => template.raw_remainder(path),
                    _ => found.value(name).or_else(|| captures.value(name)),
                };
                self.path.fill_as_written(value)?
            }
            Some(_) => return None,
        };
        for (mark, part) in [('?', query), ('#', fragment)] {
            if let Some(part) = part {
                local.push(mark);
                local.push_str(part);
            }
        }
        Some(local)
    }
}

/// Returns the absolute URL for a relative `Location`. Returns `None` if the location is already absolute or consists
/// only of a fragment. `sent` is the URL of the request. A client would resolve a relative location against the egress
/// listener, and could then reach another egress rule.
pub(super) fn absolute_location(location: &str, sent: &Url) -> Option<String> {
    if location.starts_with("//") {
        return Some(format!("{}:{location}", sent.scheme().name()));
    }
    if has_scheme(location) {
        return None;
    }
    let path_end = location.find('#').unwrap_or(location.len());
    let (reference, fragment) = location.split_at_checked(path_end)?;
    let target = resolve(reference, sent)?;
    Some(format!("{}://{}{target}{fragment}", sent.scheme().name(), sent.authority()))
}

/// Reports whether a URI reference begins with a scheme (RFC 3986 section 3.1).
pub(super) fn has_scheme(reference: &str) -> bool {
    let is_scheme = |scheme: &str| {
        scheme.starts_with(|c: char| c.is_ascii_alphabetic())
            && scheme.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b))
    };
    reference.split_once(':').is_some_and(|(scheme, _)| is_scheme(scheme))
}

/// Resolves a `Location` without a fragment against the URL `sent` (RFC 3986 section 5.2). Returns the path and the
/// query. Returns `None` if the result has another scheme, host or port than `sent`.
fn resolve<'l>(location: &'l str, sent: &Url) -> Option<Cow<'l, str>> {
    let absolute = |text: &str| {
        let url = Url::parse(text).ok()?;
        let same = (url.scheme(), url.host(), url.port()) == (sent.scheme(), sent.host(), sent.port());
        same.then(|| Cow::Owned(url.target().to_owned()))
    };
    let path_end = location.find('?').unwrap_or(location.len());
    if location.starts_with("//") {
        return absolute(&format!("{}:{location}", sent.scheme().name()));
    }
    if location.starts_with('/') {
        return Some(Cow::Borrowed(location));
    }
    if has_scheme(location) {
        return absolute(location);
    }
    let (path, query) = location.split_at_checked(path_end)?;
    let sent_path = sent.target().split('?').next().unwrap_or_default();
    if path.is_empty() {
        return (!query.is_empty()).then(|| Cow::Owned(format!("{sent_path}{query}")));
    }
    let folder = sent_path.rsplit_once('/').map_or("", |(folder, _)| folder);
    Some(Cow::Owned(format!("{}{query}", without_dots(&format!("{folder}/{path}")))))
}

/// Removes dot segments from a path (RFC 3986 section 5.2.4).
fn without_dots(path: &str) -> String {
    let mut kept: Vec<&str> = Vec::new();
    let mut segments = path.split('/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        let is_last = segments.peek().is_none();
        match segment {
            "." | ".." => {
                if segment == ".." {
                    kept.pop();
                }
                if is_last {
                    kept.push("");
                }
            }
            segment => kept.push(segment),
        }
    }
    format!("/{}", kept.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::egress::Target;
    use crate::path::Template;

    fn rule(path: &str, origin: &str, target: Option<&str>) -> Rule {
        let path = Template::parse(path).unwrap();
        let filled = |text| Template::parse(text).unwrap().filled_from(&path).unwrap();
        Rule {
            name: "r".into(),
            target: Target { url: Url::parse(origin).unwrap(), path: target.map(filled) },
            methods: Vec::new(),
            inject: None,
            headers: Vec::new(),
            body_bytes_max: 0,
            connect_timeout: std::time::Duration::ZERO,
            response_timeout: std::time::Duration::ZERO,
            path,
            proxied: None,
            is_by_url: false,
        }
    }

    fn local(rule: &Rule, asked: &str, sent: &str, location: &str) -> Option<String> {
        let captures = rule.path.capture(&CanonicalPath::parse(asked).unwrap());
        rule.local_location(location, &Url::parse(sent).unwrap(), &captures)
    }

    #[test]
    fn locations_of_the_provider_become_local() {
        let rule = rule("/api/{team}/{*rest}", "https://api.example.com", Some("/base/{rest}"));
        for (location, expected) in [
            ("https://api.example.com/base/v2/x?a=b#c", Some("/api/t/v2/x?a=b#c")),
            ("https://API.example.com:443/base/v2", Some("/api/t/v2")),
            ("HTTPS://api.example.com/base/", Some("/api/t/")),
            ("//api.example.com/base/v2", Some("/api/t/v2")),
            ("/base/v2/%7Ex/%c3%a9", Some("/api/t/v2/%7Ex/%c3%a9")),
            ("y?b", Some("/api/t/v1/y?b")),
            ("../v2/y", Some("/api/t/v2/y")),
            ("./", Some("/api/t/v1/")),
            ("..", Some("/api/t/")),
            ("?page=2", Some("/api/t/v1/x?page=2")),
            ("?at=1:2", Some("/api/t/v1/x?at=1:2")),
            ("../../other/x", None),
            ("/other/x", None),
            ("/base", None),
            ("/base/../other", None),
            ("/base/a%2fb", None),
            ("/base//x", None),
            ("http://api.example.com/base/x", None),
            ("https://api.example.com:444/base/x", None),
            ("https://api.example.com.evil.example/base/x", None),
            ("https://user@api.example.com/base/x", None),
            ("//other.example.com/base/x", None),
            ("mailto:a@example.com", None),
            ("", None),
            ("#x", None),
        ] {
            let found = local(&rule, "/api/t/v1/x", "https://api.example.com/base/v1/x?q", location);
            assert_eq!(found.as_deref(), expected, "{location}");
        }
    }

    #[test]
    fn relative_locations_become_absolute() {
        let sent = Url::parse("https://api.example.com/base/v1/x?q").unwrap();
        for (location, expected) in [
            ("/other/x?a#b", Some("https://api.example.com/other/x?a#b")),
            ("../y:z#b/..", Some("https://api.example.com/base/y:z#b/..")),
            ("//other.example.com/x", Some("https://other.example.com/x")),
            ("https://other.example.com/x", None),
            ("mailto:a@example.com", None),
            ("", None),
            ("#x", None),
        ] {
            assert_eq!(absolute_location(location, &sent).as_deref(), expected, "{location}");
        }
    }

    #[test]
    fn a_rule_with_one_target_knows_one_location() {
        let fixed = rule("/f/{x}", "http://h.example/to", None);
        for (location, expected) in [("/to?a", Some("/f/1?a")), ("/to/", None), ("/", None)] {
            let found = local(&fixed, "/f/1", "http://h.example/to", location);
            assert_eq!(found.as_deref(), expected, "{location}");
        }
        let captured = rule("/f/{x}/{y}", "http://h.example", Some("/to/{x}"));
        assert_eq!(local(&captured, "/f/1/2", "http://h.example/to/1", "/to/9").as_deref(), Some("/f/9/2"));
        let queried = rule("/f", "http://h.example/to?k=1", None);
        assert_eq!(local(&queried, "/f", "http://h.example/to?k=1", "/to?k=1"), None);
    }
}
