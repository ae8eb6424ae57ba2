//! What is put into a request: a text or a JSON value with the address, the token or the secret of the callback in it.

use data_encoding::BASE64;

use crate::json::quoted;
use crate::time::Timestamp;

/// The callback a request gets.
#[derive(Clone, Copy)]
pub struct Callback<'a> {
    /// Its address.
    pub url: &'a str,
    /// Its token; rides in the URL where the route says so.
    pub token: &'a str,
    /// The secret it is to be signed with, for providers that are given one.
    pub secret: &'a str,
    /// When the token ends.
    pub expires: Timestamp,
}

/// What of a callback is put in.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Slot {
    /// When the token ends, RFC 3339.
    Expires,
    /// The secret it is to be signed with.
    Secret,
    /// The token.
    Token,
    /// The address.
    Url,
}

/// A piece of a text.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Segment {
    /// This very text.
    Literal(Box<str>),
    /// Something of the callback.
    Slot(Slot),
}

/// A value that is put in.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Shape {
    /// The base64 of a JSON value.
    Base64(Box<Shape>),
    /// A list.
    List(Vec<Shape>),
    /// An object.
    Object(Vec<(Box<str>, Shape)>),
    /// A number, `true`, `false`: JSON as it stands.
    Raw(Box<str>),
    /// A text.
    Text(Vec<Segment>),
}

impl Shape {
    /// A text that is one thing of the callback.
    pub fn slot(slot: Slot) -> Self {
        Self::Text(vec![Segment::Slot(slot)])
    }

    /// Reads a text with `{url}`, `{token}`, `{secret}` and `{expires}` in it; other braces are just braces.
    pub fn text(text: &str) -> Self {
        let slots = [
            ("{expires}", Slot::Expires),
            ("{secret}", Slot::Secret),
            ("{token}", Slot::Token),
            ("{url}", Slot::Url),
        ];
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

    /// Whether it holds this of the callback.
    pub fn holds(&self, slot: Slot) -> bool {
        match self {
            Self::Base64(inner) => inner.holds(slot),
            Self::List(items) => items.iter().any(|item| item.holds(slot)),
            Self::Object(members) => members.iter().any(|(_, value)| value.holds(slot)),
            Self::Raw(_) => false,
            Self::Text(segments) => segments.contains(&Segment::Slot(slot)),
        }
    }

    /// Whether nothing of the callback is in it: it says how to call back, not where.
    pub fn is_constant(&self) -> bool {
        [Slot::Expires, Slot::Secret, Slot::Token, Slot::Url].iter().all(|slot| !self.holds(*slot))
    }

    /// As JSON.
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

    /// As text, for a header, a query or a form.
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
