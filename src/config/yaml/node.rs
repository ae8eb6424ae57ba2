//! The tree of a YAML text. The keys of each mapping are in the order of the text. A key that occurs twice is in the
//! tree twice.

use std::cell::Cell;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, EnumAccess, Error as _, MapAccess, SeqAccess, Visitor};

use super::depth::check_depth;
use super::error::ConfigError;
use super::key_path::Position;

/// The maximum size of the texts of all values together, in bytes. The limit is needed because aliases repeat text, so
/// a small file can have a large tree.
const TEXT_BYTES_MAX: usize = 16 * 1024 * 1024;

/// A value in the tree of a YAML text.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Node {
    Bool(bool),
    List(Vec<Node>),
    Map(Vec<(String, Node)>),
    Null,
    Number(String),
    Text(String),
}

impl Node {
    /// Parses one YAML document. The error is an explanation, and the position if it is known.
    pub(crate) fn parse(text: &str) -> Result<Self, (String, Option<Position>)> {
        // A byte order mark at the beginning is not part of the YAML text.
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        check_depth(text).map_err(|(message, position)| (message, Some(position)))?;
        let bytes_left = Cell::new(TEXT_BYTES_MAX);
        Tree { bytes_left: &bytes_left }
            .deserialize(serde_yaml::Deserializer::from_str(text))
            .map_err(|error| (error.to_string(), position(&error)))
    }

    /// Returns the value of the key `name`. Returns `None` if this value is not a mapping, or if the key is missing.
    pub(crate) fn member(&self, name: &str) -> Option<&Self> {
        match self {
            Self::Map(entries) => entries.iter().find(|(key, _)| key == name).map(|(_, node)| node),
            _ => None,
        }
    }

    /// Returns the text, or `None` if this value is not text.
    pub(crate) fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// Returns the kind of the value as a noun phrase for messages, such as `a list`.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Bool(_) => "true or false",
            Self::List(_) => "a list",
            Self::Map(_) => "a mapping",
            Self::Null => "no value",
            Self::Number(_) => "a number",
            Self::Text(_) => "text",
        }
    }
}

fn position(error: &serde_yaml::Error) -> Option<Position> {
    error.location().map(|at| Position { line: at.line(), column: at.column() })
}

/// Parses one YAML document of a configuration. `file` is the name of the included file, or `None` for the
/// configuration file itself.
///
/// # Errors
/// Returns the mistake. If a path with captures is not in quotation marks, the mistake has a hint.
pub(crate) fn parse_yaml(file: Option<&str>, text: &str) -> Result<Node, ConfigError> {
    Node::parse(text).map_err(|(message, position)| {
        let line = position.and_then(|at| text.lines().nth(at.line.saturating_sub(1)));
        let hint = line.filter(|line| has_bare_capture(line)).map_or_else(String::new, |_| {
            "inside `{ }` and `[ ]`, write a value that contains braces in quotation marks: path: \"/jobs/{id}\"".to_owned()
        });
        ConfigError { position, hint, ..ConfigError::of_file(file, message) }
    })
}

/// Reports whether a line of YAML has an unquoted path with a capture, such as `/jobs/{id}`, inside `{ }` or `[ ]`.
fn has_bare_capture(line: &str) -> bool {
    let (mut quote, mut before, mut depth) = (None, ' ', 0_u32);
    for c in line.chars() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (None, '"' | '\'') => quote = Some(c),
            (None, '{') if depth > 0 && before == '/' => return true,
            (None, '{' | '[') => depth += 1,
            (None, '}' | ']') => depth = depth.saturating_sub(1),
            _ => {}
        }
        before = c;
    }
    false
}

/// The deserializer that builds the tree of a YAML text. It fails if the texts of all values together are larger than
/// [`TEXT_BYTES_MAX`].
#[derive(Clone, Copy)]
struct Tree<'b> {
    bytes_left: &'b Cell<usize>,
}

impl Tree<'_> {
    fn text<E: serde::de::Error>(self, value: &str) -> Result<String, E> {
        let left = self.bytes_left.get().checked_sub(value.len());
        self.bytes_left.set(left.ok_or_else(|| E::custom("the aliases repeat more than 16 MiB of text"))?);
        Ok(value.to_owned())
    }
}

impl<'de> DeserializeSeed<'de> for Tree<'_> {
    type Value = Node;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Node, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Tree<'_> {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("plain YAML")
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::Null)
    }

    fn visit_none<E>(self) -> Result<Node, E> {
        Ok(Node::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Node, E> {
        Ok(Node::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Node, E> {
        Ok(Node::Number(value.to_string()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Node, E> {
        Ok(Node::Number(value.to_string()))
    }

    fn visit_i128<E>(self, value: i128) -> Result<Node, E> {
        Ok(Node::Number(value.to_string()))
    }

    fn visit_u128<E>(self, value: u128) -> Result<Node, E> {
        Ok(Node::Number(value.to_string()))
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Node, E> {
        if value.is_finite() {
            Ok(Node::Number(value.to_string()))
        } else {
            Err(E::custom("not a finite number"))
        }
    }

    fn visit_str<E: serde::de::Error>(self, value: &str) -> Result<Node, E> {
        self.text(value).map(Node::Text)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Node, A::Error> {
        let mut list = Vec::new();
        while let Some(node) = seq.next_element_seed(self)? {
            list.push(node);
        }
        Ok(Node::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node, A::Error> {
        let mut entries = Vec::new();
        while let Some(key) = map.next_key_seed(self)? {
            entries.push((key_text(key)?, map.next_value_seed(self)?));
        }
        Ok(Node::Map(entries))
    }

    fn visit_enum<A: EnumAccess<'de>>(self, _: A) -> Result<Node, A::Error> {
        Err(A::Error::custom("YAML tags are not used here"))
    }
}

fn key_text<E: serde::de::Error>(key: Node) -> Result<String, E> {
    match key {
        Node::Text(text) | Node::Number(text) => Ok(text),
        Node::Bool(value) => Ok(value.to_string()),
        other => Err(E::custom(format!("a key must be text, not {}", other.kind()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_and_several_documents_are_refused() {
        assert!(Node::parse("a: !secret x").is_err());
        assert!(Node::parse("a: 1\n---\nb: 2\n").is_err());
        assert!(Node::parse("a: [1").is_err());
        assert_eq!(Node::parse("").unwrap(), Node::Null);
    }
}
