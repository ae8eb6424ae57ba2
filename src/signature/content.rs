//! The signed content: the bytes under the MAC, written as a template such as `{timestamp}.{body}`.

use std::fmt;

use http::HeaderName;

/// One part of the signed content.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Part {
    /// The raw body.
    Body,
    /// The value of a header, as received; nothing when it is missing.
    Header(HeaderName),
    /// The event id, as received.
    Id,
    /// This very text.
    Literal(Box<str>),
    /// The method.
    Method,
    /// The timestamp, as received.
    Timestamp,
    /// The public URL: `public_url`, raw path, raw query.
    Url,
}

/// A parsed template.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Content {
    parts: Vec<Part>,
    text: Box<str>,
}

/// Why a template cannot be used.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum ContentFault {
    /// A brace without its partner.
    Brace,
    /// `{body}` is missing: the signature would not cover what is delivered.
    NoBody,
    /// A placeholder that does not exist.
    Unknown(String),
}

impl fmt::Display for ContentFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Brace => write!(f, "has a brace without its partner"),
            Self::NoBody => {
                write!(f, "must hold {{body}}, or the signature would not cover what is delivered")
            }
            Self::Unknown(name) => write!(
                f,
                "`{{{name}}}` is none of {{body}} {{timestamp}} {{id}} {{method}} {{url}} {{header:name}}"
            ),
        }
    }
}

impl Content {
    /// Reads a template.
    ///
    /// # Errors
    /// [`ContentFault`].
    pub fn parse(text: &str) -> Result<Self, ContentFault> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some((before, behind)) = rest.split_once('{') {
            let (name, after) = behind.split_once('}').ok_or(ContentFault::Brace)?;
            if !before.is_empty() {
                parts.push(Part::Literal(before.into()));
            }
            parts.push(placeholder(name)?);
            rest = after;
        }
        if !rest.is_empty() {
            parts.push(Part::Literal(rest.into()));
        }
        if parts.iter().any(|part| matches!(part, Part::Literal(text) if text.contains('}'))) {
            return Err(ContentFault::Brace);
        }
        if !parts.contains(&Part::Body) {
            return Err(ContentFault::NoBody);
        }
        Ok(Self { parts, text: text.into() })
    }

    /// The parts, first to last.
    pub fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// The template as written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The headers under the MAC.
    pub fn headers(&self) -> impl Iterator<Item = &HeaderName> {
        self.parts.iter().filter_map(|part| match part {
            Part::Header(name) => Some(name),
            _ => None,
        })
    }

    /// Whether the event id is under the MAC.
    pub fn uses_id(&self) -> bool {
        self.parts.contains(&Part::Id)
    }

    /// Whether a timestamp is under the MAC.
    pub fn uses_timestamp(&self) -> bool {
        self.parts.contains(&Part::Timestamp)
    }

    /// The byte that follows the event id.
    pub(super) fn after_id(&self) -> Option<u8> {
        let at = self.parts.iter().position(|part| *part == Part::Id)?;
        match self.parts.get(at + 1)? {
            Part::Literal(text) => text.bytes().next(),
            _ => None,
        }
    }
}

fn placeholder(name: &str) -> Result<Part, ContentFault> {
    let unknown = || ContentFault::Unknown(name.to_owned());
    match name {
        "body" => Ok(Part::Body),
        "id" => Ok(Part::Id),
        "method" => Ok(Part::Method),
        "timestamp" => Ok(Part::Timestamp),
        "url" => Ok(Part::Url),
        _ => {
            let header = name.strip_prefix("header:").ok_or_else(unknown)?;
            // Headers with an underscore never reach the agent, so nothing signed may depend on one.
            let name = HeaderName::from_bytes(header.as_bytes()).ok().filter(|_| !header.contains('_'));
            name.map(Part::Header).ok_or_else(unknown)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_are_read() {
        let content = Content::parse("{id}.{timestamp}.{body}").unwrap();
        assert_eq!(content.parts().len(), 5);
        assert!(content.uses_id() && content.uses_timestamp());
        assert_eq!(content.after_id(), Some(b'.'));
        let content = Content::parse("{method}{url}{header:X-A}{body}").unwrap();
        assert_eq!(content.parts().get(2), Some(&Part::Header(HeaderName::from_static("x-a"))));
    }

    #[test]
    fn templates_that_do_not_cover_the_body_are_refused() {
        assert_eq!(Content::parse("{timestamp}"), Err(ContentFault::NoBody));
        assert_eq!(Content::parse(""), Err(ContentFault::NoBody));
        assert_eq!(Content::parse("{body"), Err(ContentFault::Brace));
        assert_eq!(Content::parse("body}{body}"), Err(ContentFault::Brace));
        assert!(matches!(Content::parse("{Body}"), Err(ContentFault::Unknown(_))));
        assert!(matches!(Content::parse("{header:}{body}"), Err(ContentFault::Unknown(_))));
        assert!(matches!(Content::parse("{header:a_b}{body}"), Err(ContentFault::Unknown(_))));
    }
}
