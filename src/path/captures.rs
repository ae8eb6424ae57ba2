//! The values that a path template has captured from a path.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use super::redact::{has_token, redacted_segment};

/// The name of the path capture that contains a token. Callgate verifies the token and never passes it to the agent.
pub const TOKEN_CAPTURE: &str = "callback_token";

/// The names and values of the captures of one path.
#[derive(Clone)]
pub struct Captures {
    names: Arc<[Arc<str>]>,
    path: Box<str>,
    spans: Vec<Range<usize>>,
    /// Whether the last capture is a remainder (`{*name}`).
    has_remainder: bool,
}

impl Captures {
    /// Creates the captures of `path`. `spans` are the byte ranges of the captured values in `path`.
    pub(super) fn new(
        names: Arc<[Arc<str>]>,
        path: &str,
        spans: Vec<Range<usize>>,
        has_remainder: bool,
    ) -> Self {
        Self { names, path: path.into(), spans, has_remainder }
    }

    /// Returns the captures of the path `/`, which has none.
    pub fn none() -> Self {
        Self::new(Arc::new([]), "/", Vec::new(), false)
    }

    /// Returns the value of the capture with this name, or `None` if there is no such capture.
    pub fn value(&self, name: &str) -> Option<&str> {
        self.all().find(|(n, _)| *n == name).map(|(_, value)| value)
    }

    /// Returns the name and the value of each capture, in the order of the path. Leaves out the token in
    /// [`TOKEN_CAPTURE`].
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.all().filter(|(name, _)| *name != TOKEN_CAPTURE)
    }

    fn all(&self) -> impl Iterator<Item = (&str, &str)> {
        self.names
            .iter()
            .zip(&self.spans)
            .map(|(name, span)| (&**name, self.path.get(span.clone()).unwrap_or_default()))
    }

    /// Returns the canonical path for the log. The token, and every capture that looks like a token, is replaced by
    /// `[token]`. In a remainder (`{*name}`), the segments that look like a secret are replaced (see
    /// [`redacted_segment`]).
    pub fn redacted_path(&self) -> String {
        let mut path = String::with_capacity(self.path.len());
        let (mut shown, last) = (0, self.spans.len().saturating_sub(1));
        for (i, (name, span)) in self.names.iter().zip(&self.spans).enumerate() {
            let text = self.path.get(span.clone()).unwrap_or_default();
            let redacted = if self.has_remainder && i == last {
                Cow::Owned(text.split('/').map(redacted_segment).collect::<Vec<_>>().join("/"))
            } else if **name == *TOKEN_CAPTURE || has_token(text) {
                Cow::Borrowed("[token]")
            } else {
                continue;
            };
            path.push_str(self.path.get(shown..span.start).unwrap_or_default());
            path.push_str(&redacted);
            shown = span.end;
        }
        path.push_str(self.path.get(shown..).unwrap_or_default());
        path
    }
}

/// Formats the path captures as `name=value`, separated by commas. Leaves out the callback token, and replaces values
/// that look like a token.
impl fmt::Display for Captures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut pairs = self.iter().peekable();
        if pairs.peek().is_none() {
            return f.write_str("no captures");
        }
        for (i, (name, value)) in pairs.enumerate() {
            let value = if has_token(value) { "[token]" } else { value };
            write!(f, "{}{name}={value}", if i == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}

/// Formats the names and values of the path captures, without the callback token.
impl fmt::Debug for Captures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}
