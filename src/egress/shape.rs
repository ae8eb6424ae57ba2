//! The values that Callgate inserts into the agent's requests: texts or JSON values that contain the URL, the token or
//! the secret of a callback.

use data_encoding::BASE64;

use crate::json::quoted;
use crate::time::Timestamp;

/// The parts of a callback that can be inserted into a request.
#[derive(Clone, Copy)]
pub struct Callback<'a> {
    /// The callback URL.
    pub url: &'a str,
    /// The callback token. The callback URL also contains the token if the route reads the token from the URL.
    pub token: &'a str,
    /// The secret with which the provider must sign the callback. Empty if the egress rule does not insert this secret.
    pub secret: &'a str,
    /// The time at which the callback token expires.
    pub expires: Timestamp,
}

/// The name of a part of a callback that can be inserted into a request.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Slot {
    /// The time at which the callback token expires, in RFC 3339 format.
    Expires,
    /// The secret with which the provider must sign the callback.
    Secret,
    /// The callback token.
    Token,
    /// The callback URL.
    Url,
}

impl Slot {
    /// Returns the placeholder that stands for this part in a template, for example `{url}`.
    pub fn placeholder(self) -> &'static str {
        match self {
            Self::Expires => "{expires}",
            Self::Secret => "{secret}",
            Self::Token => "{token}",
            Self::Url => "{url}",
        }
    }
}

/// A segment of a text template.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Segment {
    /// A literal text.
    Literal(Box<str>),
    /// A placeholder for a part of the callback.
    Slot(Slot),
}

/// The template of a value that Callgate inserts into the agent's request. It can contain placeholders for the callback
/// URL, the callback token, the signing secret and the expiry time of the token.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Shape {
    /// The base64 encoding of the JSON text of another value.
    Base64(Box<Shape>),
    /// A JSON array.
    List(Vec<Shape>),
    /// A JSON object.
    Object(Vec<(Box<str>, Shape)>),
    /// A JSON literal that is inserted unchanged: a number, `true` or `false`.
    Raw(Box<str>),
    /// A text that may contain parts of the callback.
    Text(Vec<Segment>),
}

impl Shape {
    /// Creates a text template that consists of one part of the callback.
    pub fn slot(slot: Slot) -> Self {
        Self::Text(vec![Segment::Slot(slot)])
    }

    /// Parses a text template with the placeholders `{url}`, `{token}`, `{secret}` and `{expires}`. All other braces
    /// are literal.
    pub fn text(text: &str) -> Self {
        let slots =
            [Slot::Expires, Slot::Secret, Slot::Token, Slot::Url].map(|slot| (slot.placeholder(), slot));
        let mut segments = Vec::new();
        let mut rest = text;
        while let Some((at, name, slot)) = slots
            .iter()
            .filter_map(|(name, slot)| Some((rest.find(name)?, *name, *slot)))
            .min_by_key(|found| found.0)
        {
            let (before, behind) = rest.split_at_checked(at).unwrap_or((rest, ""));
            if !before.is_empty() {
                segments.push(Segment::Literal(before.into()));
            }
            segments.push(Segment::Slot(slot));
            rest = behind.strip_prefix(name).unwrap_or_default();
        }
        if !rest.is_empty() {
            segments.push(Segment::Literal(rest.into()));
        }
        Self::Text(segments)
    }

    /// Reports whether the template contains this part of the callback.
    pub fn holds(&self, slot: Slot) -> bool {
        match self {
            Self::Base64(inner) => inner.holds(slot),
            Self::List(items) => items.iter().any(|item| item.holds(slot)),
            Self::Object(members) => members.iter().any(|(_, value)| value.holds(slot)),
            Self::Raw(_) => false,
            Self::Text(segments) => segments.contains(&Segment::Slot(slot)),
        }
    }

    /// Reports whether the template contains no part of the callback, so that its value is always the same.
    pub fn is_constant(&self) -> bool {
        [Slot::Expires, Slot::Secret, Slot::Token, Slot::Url].iter().all(|slot| !self.holds(*slot))
    }

    /// Returns the value as JSON text, with the parts of the callback filled in.
    pub(super) fn json(&self, callback: &Callback<'_>) -> String {
        match self {
            Self::Raw(raw) => raw.to_string(),
            Self::List(items) => {
                let items: Vec<_> = items.iter().map(|item| item.json(callback)).collect();
                format!("[{}]", items.join(","))
            }
            Self::Object(members) => {
                let member =
                    |(name, value): &(Box<str>, Shape)| format!("{}:{}", quoted(name), value.json(callback));
                format!("{{{}}}", members.iter().map(member).collect::<Vec<_>>().join(","))
            }
            Self::Base64(_) | Self::Text(_) => quoted(&self.plain(callback)),
        }
    }

    /// Returns the value as plain text for a header, a query or a form, with the parts of the callback filled in.
    pub(super) fn plain(&self, callback: &Callback<'_>) -> String {
        match self {
            Self::Base64(inner) => BASE64.encode(inner.json(callback).as_bytes()),
            Self::Text(segments) => segments
                .iter()
                .map(|segment| match segment {
                    Segment::Literal(text) => text.to_string(),
                    Segment::Slot(Slot::Expires) => callback.expires.to_string(),
                    Segment::Slot(Slot::Secret) => callback.secret.to_owned(),
                    Segment::Slot(Slot::Token) => callback.token.to_owned(),
                    Segment::Slot(Slot::Url) => callback.url.to_owned(),
                })
                .collect(),
            Self::List(_) | Self::Object(_) | Self::Raw(_) => self.json(callback),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_filled() {
        let callback = Callback {
            url: "https://a/\"x",
            token: "t",
            secret: "whsec_s",
            expires: Timestamp::from_unix_secs(0),
        };
        let text = Shape::text(r#"{"Authorization": "Bearer {token}"}"#);
        assert_eq!(text.plain(&callback), r#"{"Authorization": "Bearer t"}"#);
        let shape = Shape::List(vec![
            Shape::Object(vec![("u".into(), Shape::slot(Slot::Url)), ("e".into(), Shape::text("{expires}"))]),
            Shape::Raw("true".into()),
        ]);
        let json = r#"[{"u":"https://a/\"x","e":"1970-01-01T00:00:00Z"},true]"#;
        assert_eq!(shape.json(&callback), json);
        assert_eq!(Shape::Base64(Box::new(shape)).plain(&callback), BASE64.encode(json.as_bytes()));
        assert!(Shape::text("bearer").is_constant() && text.holds(Slot::Token) && !text.holds(Slot::Url));
    }
}
