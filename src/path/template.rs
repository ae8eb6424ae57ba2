//! Path templates such as `/webhooks/{document_id}/status`. A capture is always one whole segment.

use std::cmp::Ordering;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use super::canonical::CanonicalPath;

/// The name of the capture that contains a token. Callgate verifies the token and never passes it to the agent.
pub const TOKEN_CAPTURE: &str = "callback_token";

const CAPTURE_BYTES_MAX: usize = 255;
const TOKEN_BYTES_MAX: usize = 8 * 1024;
const SEGMENTS_MAX: usize = 32;

/// One segment of a template.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Segment {
    /// A capture with this name. It matches one segment of 1 to 255 characters of `[A-Za-z0-9._~-]`. The capture of a
    /// token matches up to 8 KiB.
    Capture(Arc<str>),
    /// A literal segment.
    Literal(Box<str>),
}

/// A parsed path template.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Template {
    text: Box<str>,
    segments: Vec<Segment>,
    names: Arc<[Arc<str>]>,
}

/// The reason why a template is invalid.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum TemplateFault {
    /// A brace that does not enclose a whole segment.
    Braces(String),
    /// A capture name that occurs twice.
    Doubled(String),
    /// A capture name that is not `[a-z_][a-z0-9_]*`.
    Name(String),
    /// The literal text is not a canonical path.
    Path(String),
    /// The template has more than 32 segments.
    TooMany,
}

impl fmt::Display for TemplateFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Braces(segment) => {
                write!(f, "`{segment}`: a capture must be one whole segment, `/{{name}}/`")
            }
            Self::Doubled(name) => write!(f, "the capture `{name}` occurs twice"),
            Self::Name(name) => write!(f, "`{name}` is not a capture name: use [a-z_][a-z0-9_]*"),
            Self::Path(fault) => write!(f, "not a canonical path: {fault}"),
            Self::TooMany => write!(f, "more than {SEGMENTS_MAX} segments"),
        }
    }
}

impl Template {
    /// Parses a template.
    ///
    /// # Errors
    /// Returns a [`TemplateFault`] if the text is not a canonical path, or if a capture is not one whole segment.
    pub fn parse(text: &str) -> Result<Self, TemplateFault> {
        let plain = text.replace(['{', '}'], "");
        let canonical =
            CanonicalPath::parse(&plain).map_err(|fault| TemplateFault::Path(fault.to_string()))?;
        if canonical.as_str() != plain || plain.contains('%') {
            return Err(TemplateFault::Path("percent-encoding is not used in templates".to_owned()));
        }
        let mut names: Vec<Arc<str>> = Vec::new();
        let mut segments = Vec::new();
        for segment in text.strip_prefix('/').unwrap_or(text).split('/') {
            let name = segment.strip_prefix('{').and_then(|rest| rest.strip_suffix('}'));
            match name {
                Some(name) if !is_name(name) => return Err(TemplateFault::Name(name.to_owned())),
                Some(name) if names.iter().any(|n| **n == *name) => {
                    return Err(TemplateFault::Doubled(name.to_owned()));
                }
                Some(name) => {
                    let name: Arc<str> = name.into();
                    names.push(name.clone());
                    segments.push(Segment::Capture(name));
                }
                None if segment.contains(['{', '}']) => {
                    return Err(TemplateFault::Braces(segment.to_owned()));
                }
                None => segments.push(Segment::Literal(segment.into())),
            }
        }
        if segments.len() > SEGMENTS_MAX {
            return Err(TemplateFault::TooMany);
        }
        Ok(Self { text: text.into(), segments, names: names.into() })
    }

    /// Returns the template as written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Returns the segments, first to last.
    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// Returns the names of the captures, first to last, including [`TOKEN_CAPTURE`].
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.names.iter().map(|name| &**name)
    }

    /// Reports whether the template has a capture called `name`.
    pub fn has(&self, name: &str) -> bool {
        self.names().any(|n| n == name)
    }

    /// Returns the path with `value(name)` in place of each capture. Returns `None` if a value is missing or is not
    /// valid for its capture.
    pub fn fill<'v>(&self, value: impl Fn(&str) -> Option<&'v str>) -> Option<String> {
        let mut path = String::with_capacity(self.text.len() + 32);
        for segment in &self.segments {
            path.push('/');
            match segment {
                Segment::Literal(text) => path.push_str(text),
                Segment::Capture(name) => path.push_str(value(name).filter(|v| is_capturable(name, v))?),
            }
        }
        Some(path)
    }

    /// Reports whether `path` matches this template.
    pub fn matches(&self, path: &CanonicalPath<'_>) -> bool {
        let mut texts = path.segments();
        self.segments.iter().all(|segment| texts.next().is_some_and(|text| segment.matches(text)))
            && texts.next().is_none()
    }

    /// Returns the captures of `path`. The path must match this template.
    pub fn capture(&self, path: &CanonicalPath<'_>) -> Captures {
        let mut spans = Vec::with_capacity(self.names.len());
        let mut start = 1;
        for (segment, text) in self.segments.iter().zip(path.segments()) {
            if matches!(segment, Segment::Capture(_)) {
                spans.push(start..start + text.len());
            }
            start += text.len() + 1;
        }
        Captures { names: self.names.clone(), path: path.as_str().into(), spans }
    }

    /// Reports whether two templates match the same paths.
    pub fn same_shape(&self, other: &Self) -> bool {
        self.precedence(other) == Ordering::Equal
    }

    /// Compares the precedence of two templates that can match the same path. At the first segment that differs, a
    /// literal comes before a capture. `Less` means that `self` is tried before `other`.
    pub fn precedence(&self, other: &Self) -> Ordering {
        fn key(segment: &Segment) -> (bool, &str) {
            match segment {
                Segment::Literal(text) => (false, text),
                Segment::Capture(_) => (true, ""),
            }
        }
        self.segments.iter().map(key).cmp(other.segments.iter().map(key))
    }
}

fn is_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes.next().is_some_and(|b| b.is_ascii_lowercase() || b == b'_')
        && bytes.all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
}

/// Reports whether `value` is valid for the capture `name`: a non-empty segment of unreserved characters, within the
/// length limit, and not a dot segment.
pub fn is_capturable(name: &str, value: &str) -> bool {
    let bytes_max = if name == TOKEN_CAPTURE { TOKEN_BYTES_MAX } else { CAPTURE_BYTES_MAX };
    !value.is_empty()
        && value.len() <= bytes_max
        && value != "."
        && value != ".."
        && value.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._~".contains(&b))
}

impl Segment {
    /// Reports whether this segment matches `text`.
    pub fn matches(&self, text: &str) -> bool {
        match self {
            Self::Literal(literal) => **literal == *text,
            Self::Capture(name) => is_capturable(name, text),
        }
    }
}

/// The values that a template captured from one path.
#[derive(Clone)]
pub struct Captures {
    names: Arc<[Arc<str>]>,
    path: Box<str>,
    spans: Vec<Range<usize>>,
}

impl Captures {
    /// Returns the value of the capture `name`.
    pub fn value(&self, name: &str) -> Option<&str> {
        self.all().find(|(n, _)| *n == name).map(|(_, value)| value)
    }

    /// Returns the name and the value of each capture, in path order, without [`TOKEN_CAPTURE`].
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.all().filter(|(name, _)| *name != TOKEN_CAPTURE)
    }

    fn all(&self) -> impl Iterator<Item = (&str, &str)> {
        self.names
            .iter()
            .zip(&self.spans)
            .map(|(name, span)| (&**name, self.path.get(span.clone()).unwrap_or_default()))
    }

    /// Returns the canonical path for the log. Replaces the token, and every capture that looks like a JWT, with
    /// `[token]`.
    pub fn redacted_path(&self) -> String {
        let mut path = String::with_capacity(self.path.len());
        let mut shown = 0;
        for (name, span) in self.names.iter().zip(&self.spans) {
            let text = self.path.get(span.clone()).unwrap_or_default();
            if **name == *TOKEN_CAPTURE || text.contains("eyJ") {
                path.push_str(self.path.get(shown..span.start).unwrap_or_default());
                path.push_str("[token]");
                shown = span.end;
            }
        }
        path.push_str(self.path.get(shown..).unwrap_or_default());
        path
    }
}

/// Formats the captures as `name=value`, separated by commas, without the token.
impl fmt::Display for Captures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut pairs = self.iter().peekable();
        if pairs.peek().is_none() {
            return f.write_str("no captures");
        }
        for (i, (name, value)) in pairs.enumerate() {
            write!(f, "{}{name}={value}", if i == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}

/// Formats the captures without the token.
impl fmt::Debug for Captures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_template_fills_and_captures() {
        let template = Template::parse("/w/{a}/x/{b}").unwrap();
        assert_eq!(template.fill(|n| Some(if n == "a" { "1" } else { "two" })).unwrap(), "/w/1/x/two");
        let path = CanonicalPath::parse("/w/1/x/two").unwrap();
        let captures = template.capture(&path);
        assert_eq!(captures.iter().collect::<Vec<_>>(), [("a", "1"), ("b", "two")]);
    }

    #[test]
    fn values_that_could_not_be_captured_do_not_fill() {
        let template = Template::parse("/w/{a}").unwrap();
        for bad in ["", ".", "..", "a/b", "a%2fb", "a b", "é", "a?b", &"a".repeat(256)] {
            assert_eq!(template.fill(|_| Some(bad)), None, "{bad:?}");
        }
        assert_eq!(template.fill(|_| None), None);
    }

    #[test]
    fn the_token_is_captured_but_not_shown() {
        let template = Template::parse("/w/{a}/{callback_token}/end").unwrap();
        let captures = template.capture(&CanonicalPath::parse("/w/1/eyJ.x.y/end").unwrap());
        assert_eq!(captures.value("callback_token"), Some("eyJ.x.y"));
        assert_eq!(captures.iter().collect::<Vec<_>>(), [("a", "1")]);
        assert_eq!(captures.redacted_path(), "/w/1/[token]/end");
        assert!(!format!("{captures:?}").contains("eyJ"));
    }

    #[test]
    fn bad_templates_are_refused() {
        for bad in
            ["", "w", "/a/{b", "/a/b}", "/a/x{b}", "/{a}{b}", "/{}", "/{A}", "/{1a}", "/{a}/{a}", "/a//b"]
        {
            assert!(Template::parse(bad).is_err(), "{bad:?}");
        }
        for bad in ["/a/../b", "/a%41", "/a;b", "/a?b", "/a b"] {
            assert!(matches!(Template::parse(bad), Err(TemplateFault::Path(_))), "{bad:?}");
        }
    }

    #[test]
    fn literals_go_before_captures() {
        let t = |text| Template::parse(text).unwrap();
        assert_eq!(t("/a/b").precedence(&t("/a/{x}")), Ordering::Less);
        assert_eq!(t("/{x}/b").precedence(&t("/a/{x}")), Ordering::Greater);
        assert!(t("/a/{x}").same_shape(&t("/a/{y}")));
        assert!(!t("/a/{x}").same_shape(&t("/a/{x}/c")));
    }
}
