//! Path templates such as `/webhooks/{document_id}/status` and `/provider/{*rest}`. A capture is one whole segment. A
//! remainder (`{*rest}`) is the last segment of a template and captures everything below a prefix.

use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

use super::canonical::{CanonicalPath, PATH_BYTES_MAX};
use super::captures::{Captures, TOKEN_CAPTURE};

const CAPTURE_BYTES_MAX: usize = 255;
const TOKEN_BYTES_MAX: usize = 8 * 1024;
const REMAINDER_BYTES_MAX: usize = 1024;
const SEGMENTS_MAX: usize = 32;

/// One segment of a path template.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Segment {
    /// A capture with this name. It matches one path segment of 1 to 255 characters from `[A-Za-z0-9._~-]`. The capture
    /// of a token matches up to 8 KiB.
    Capture(Arc<str>),
    /// A literal segment. It matches only the same text.
    Literal(Box<str>),
    /// A remainder (`{*name}`) with this name. It is always the last segment. It matches one or more path segments of
    /// any characters that a canonical path may contain. The last path segment may be empty.
    Remainder(Arc<str>),
}

/// A parsed path template, such as `/webhooks/{id}`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Template {
    text: Box<str>,
    segments: Vec<Segment>,
    names: Arc<[Arc<str>]>,
}

/// The reason why a path template is invalid.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum TemplateFault {
    /// The template contains a brace that does not enclose a whole segment.
    Braces(String),
    /// A capture name occurs twice.
    Doubled(String),
    /// A capture name does not match `[a-z_][a-z0-9_]*`.
    Name(String),
    /// The literal text is not a canonical path.
    Path(String),
    /// A remainder (`{*name}`), or a capture that is filled with a remainder, is not the last segment.
    Remainder(String),
    /// The template contains a `*` that is not part of `{*name}`.
    Star(String),
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
            Self::Remainder(name) => write!(f, "the remainder `{name}` must be the last segment"),
            Self::Star(segment) => write!(f, "`{segment}`: `*` is not a wildcard"),
            Self::TooMany => write!(f, "more than {SEGMENTS_MAX} segments"),
        }
    }
}

impl Template {
    /// Parses a path template.
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
        for text in text.strip_prefix('/').unwrap_or(text).split('/') {
            let segment = Segment::parse(text)?;
            if let Some(Segment::Remainder(name)) = segments.last() {
                return Err(TemplateFault::Remainder(name.to_string()));
            }
            if let Some(name) = segment.name() {
                if names.contains(name) {
                    return Err(TemplateFault::Doubled(name.to_string()));
                }
                names.push(Arc::clone(name));
            }
            segments.push(segment);
        }
        if segments.len() > SEGMENTS_MAX {
            return Err(TemplateFault::TooMany);
        }
        Ok(Self { text: text.into(), segments, names: names.into() })
    }

    /// Returns the template of the path `/`.
    pub fn root() -> Self {
        Self { text: "/".into(), segments: vec![Segment::Literal("".into())], names: Arc::new([]) }
    }

    /// Returns the template as it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Returns the segments of the template, first to last.
    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// Returns the names of the path captures, in the order of the template, including [`TOKEN_CAPTURE`].
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.names.iter().map(|name| &**name)
    }

    /// Reports whether the template has a capture with this name.
    pub fn has(&self, name: &str) -> bool {
        self.names().any(|n| n == name)
    }

    /// Returns the name of the remainder (`{*name}`), if the template ends with one.
    pub fn remainder(&self) -> Option<&str> {
        match self.segments.last() {
            Some(Segment::Remainder(name)) => Some(name),
            _ => None,
        }
    }

    /// Prepares this template to be filled with the values that the template `path` captures. If `path` ends with a
    /// remainder, such as `{*rest}`, the segment `{rest}` of this template becomes a remainder, too.
    ///
    /// # Errors
    /// Returns [`TemplateFault::Star`] if this template itself contains a remainder. Returns
    /// [`TemplateFault::Remainder`] if the remainder of `path` would not be the last segment of this template.
    pub fn filled_from(mut self, path: &Self) -> Result<Self, TemplateFault> {
        if let Some(name) = self.remainder() {
            return Err(TemplateFault::Star(format!("{{*{name}}}")));
        }
        let last = self.segments.len().saturating_sub(1);
        for (i, segment) in self.segments.iter_mut().enumerate() {
            match segment {
                Segment::Capture(name) if Some(&**name) == path.remainder() => {
                    if i != last {
                        return Err(TemplateFault::Remainder(name.to_string()));
                    }
                    *segment = Segment::Remainder(Arc::clone(name));
                }
                _ => {}
            }
        }
        Ok(self)
    }

    /// Reports whether `value` is valid for the capture `name` of this template (see [`is_capturable`]). If `name` is
    /// the remainder of this template, `value` must be the end of a canonical path and have at most 1 KiB.
    pub fn accepts(&self, name: &str, value: &str) -> bool {
        if self.remainder() == Some(name) { is_remainder(value) } else { is_capturable(name, value) }
    }

    /// Returns the part of a raw path that the remainder of this template matches, as the sender wrote it. The path
    /// must match this template. Returns `None` if the template has no remainder.
    ///
    /// A raw path and its canonical form have the same number of segments, because percent-encoded slashes are denied.
    pub fn raw_remainder<'p>(&self, raw: &'p str) -> Option<&'p str> {
        self.remainder()?;
        let mut rest = raw;
        for _ in &self.segments {
            rest = rest.split_once('/')?.1;
        }
        Some(rest)
    }

    /// Returns a path in which each capture is replaced by `value(name)`. Returns `None` if a value is missing or is
    /// not valid for its capture.
    pub fn fill<'v>(&self, value: impl Fn(&str) -> Option<&'v str>) -> Option<String> {
        self.fill_with(value, is_canonical_remainder)
    }

    /// Returns a path like [`Template::fill`], but also accepts a remainder that is not in canonical form, and does not
    /// change it.
    pub fn fill_as_written<'v>(&self, value: impl Fn(&str) -> Option<&'v str>) -> Option<String> {
        self.fill_with(value, |remainder| CanonicalPath::parse(&format!("/{remainder}")).is_ok())
    }

    fn fill_with<'v>(
        &self,
        value: impl Fn(&str) -> Option<&'v str>,
        is_remainder: impl Fn(&str) -> bool,
    ) -> Option<String> {
        let mut path = String::with_capacity(self.text.len() + 32);
        for segment in &self.segments {
            path.push('/');
            match segment {
                Segment::Literal(text) => path.push_str(text),
                Segment::Capture(name) => path.push_str(value(name).filter(|v| is_capturable(name, v))?),
                Segment::Remainder(name) => path.push_str(value(name).filter(|v| is_remainder(v))?),
            }
        }
        (path.len() <= PATH_BYTES_MAX).then_some(path)
    }

    /// Reports whether `path` matches this template.
    pub fn matches(&self, path: &CanonicalPath<'_>) -> bool {
        let mut texts = path.segments();
        for segment in &self.segments {
            match (segment, texts.next()) {
                (_, None) => return false,
                (Segment::Remainder(_), Some(_)) => return true,
                (segment, Some(text)) if segment.matches(text) => {}
                _ => return false,
            }
        }
        texts.next().is_none()
    }

    /// Returns the values that the template captures from `path`. The path must match this template.
    pub fn capture(&self, path: &CanonicalPath<'_>) -> Captures {
        let mut spans = Vec::with_capacity(self.names.len());
        let mut start = 1;
        for (segment, text) in self.segments.iter().zip(path.segments()) {
            match segment {
                Segment::Literal(_) => {}
                Segment::Capture(_) => spans.push(start..start + text.len()),
                Segment::Remainder(_) => spans.push(start..path.as_str().len()),
            }
            start += text.len() + 1;
        }
        Captures::new(self.names.clone(), path.as_str(), spans, self.remainder().is_some())
    }

    /// Reports whether two templates match the same paths, whatever their captures are called.
    pub fn same_shape(&self, other: &Self) -> bool {
        self.precedence(other) == Ordering::Equal
    }

    /// Compares the precedence of two templates that can match the same path. A template without a remainder comes
    /// before a template with a remainder. Otherwise the first different segment decides: a literal comes before a
    /// capture, and a capture comes before a remainder. `Less` means that `self` is tried before `other`.
    pub fn precedence(&self, other: &Self) -> Ordering {
        fn key(segment: &Segment) -> (u8, &str) {
            match segment {
                Segment::Literal(text) => (0, text),
                Segment::Capture(_) => (1, ""),
                Segment::Remainder(_) => (2, ""),
            }
        }
        let ends = self.remainder().is_some().cmp(&other.remainder().is_some());
        ends.then_with(|| self.segments.iter().map(key).cmp(other.segments.iter().map(key)))
    }
}

fn is_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes.next().is_some_and(|b| b.is_ascii_lowercase() || b == b'_')
        && bytes.all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
}

/// Reports whether `value` is valid for the path capture `name`. A valid value is a non-empty segment of unreserved
/// characters within the length limit, and is no dot segment.
pub fn is_capturable(name: &str, value: &str) -> bool {
    let bytes_max = if name == TOKEN_CAPTURE { TOKEN_BYTES_MAX } else { CAPTURE_BYTES_MAX };
    !value.is_empty()
        && value.len() <= bytes_max
        && value != "."
        && value != ".."
        && value.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._~".contains(&b))
}

/// Reports whether `value` is the end of a canonical path, without the slash before it.
fn is_canonical_remainder(value: &str) -> bool {
    let path = format!("/{value}");
    CanonicalPath::parse(&path).is_ok_and(|found| found.as_str() == path)
}

/// Reports whether `value` is valid for a remainder (`{*name}`) that a token is bound to. A valid value is the end of a
/// canonical path and has at most 1 KiB.
pub fn is_remainder(value: &str) -> bool {
    value.len() <= REMAINDER_BYTES_MAX && is_canonical_remainder(value)
}

impl Segment {
    fn parse(text: &str) -> Result<Self, TemplateFault> {
        let inner = text.strip_prefix('{').and_then(|rest| rest.strip_suffix('}'));
        let (name, is_remainder) = match inner.map(|inner| inner.strip_prefix('*')) {
            None if text.contains('*') => return Err(TemplateFault::Star(text.to_owned())),
            None if text.contains(['{', '}']) => return Err(TemplateFault::Braces(text.to_owned())),
            None => return Ok(Self::Literal(text.into())),
            Some(Some(name)) => (name, true),
            Some(None) => (inner.unwrap_or_default(), false),
        };
        if name.contains('*') {
            return Err(TemplateFault::Star(text.to_owned()));
        }
        // A token is a single segment, so it cannot be a remainder.
        if !is_name(name) || (is_remainder && name == TOKEN_CAPTURE) {
            return Err(TemplateFault::Name(name.to_owned()));
        }
        Ok(if is_remainder { Self::Remainder(name.into()) } else { Self::Capture(name.into()) })
    }

    /// Returns the name of a capture or a remainder. Returns `None` for a literal.
    fn name(&self) -> Option<&Arc<str>> {
        match self {
            Self::Literal(_) => None,
            Self::Capture(name) | Self::Remainder(name) => Some(name),
        }
    }

    /// Reports whether this template segment matches `text`, one segment of a path.
    fn matches(&self, text: &str) -> bool {
        match self {
            Self::Literal(literal) => **literal == *text,
            Self::Capture(name) => is_capturable(name, text),
            Self::Remainder(_) => true,
        }
    }
}

#[cfg(test)]
#[path = "template_tests.rs"]
mod tests;
