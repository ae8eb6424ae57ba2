//! The YAML as written: a tree that keeps every key, in order, doubled ones included, and a way to find the
//! line of any place in it.

use std::fmt;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, EnumAccess, Error as _, MapAccess, SeqAccess, Visitor};

/// A value of the tree.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Node {
    Bool(bool),
    List(Vec<Node>),
    Map(Vec<(String, Node)>),
    Null,
    Number(String),
    Text(String),
}

/// One step from the root towards a value.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Step {
    Index(usize),
    Key(String),
}

/// A place in the file.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Place {
    /// From 1.
    pub line: usize,
    /// From 1.
    pub column: usize,
}

impl Node {
    /// Reads one YAML document.
    pub(super) fn parse(text: &str) -> Result<Self, (String, Option<Place>)> {
        serde_yaml::from_str(text).map_err(|error| (error.to_string(), place(&error)))
    }

    /// A member of a mapping.
    pub(super) fn member(&self, name: &str) -> Option<&Self> {
        match self {
            Self::Map(entries) => entries.iter().find(|(key, _)| key == name).map(|(_, node)| node),
            _ => None,
        }
    }

    /// A text.
    pub(super) fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// What the value is, in words.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Bool(_) => "true or false",
            Self::List(_) => "a list",
            Self::Map(_) => "a mapping",
            Self::Null => "nothing",
            Self::Number(_) => "a number",
            Self::Text(_) => "text",
        }
    }
}

fn place(error: &serde_yaml::Error) -> Option<Place> {
    error.location().map(|at| Place { line: at.line(), column: at.column() })
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Tree)
    }
}

struct Tree;

impl<'de> Visitor<'de> for Tree {
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

    fn visit_f64<E>(self, value: f64) -> Result<Node, E> {
        Ok(Node::Number(value.to_string()))
    }

    fn visit_str<E>(self, value: &str) -> Result<Node, E> {
        Ok(Node::Text(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Node, A::Error> {
        let mut list = Vec::new();
        while let Some(node) = seq.next_element()? {
            list.push(node);
        }
        Ok(Node::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node, A::Error> {
        let mut entries = Vec::new();
        while let Some(key) = map.next_key::<Node>()? {
            entries.push((key_text(key)?, map.next_value()?));
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

/// Finds the place of a value by reading the file once more, with the same parser, up to it. For a value
/// under a key it is the place of the key.
pub(super) fn locate(text: &str, steps: &[Step]) -> Option<Place> {
    let found = Locate { steps }.deserialize(serde_yaml::Deserializer::from_str(text));
    found.err().as_ref().and_then(place)
}

/// Fails at the place that is looked for: the parser adds where that was.
struct Locate<'s> {
    steps: &'s [Step],
}

impl<'de> DeserializeSeed<'de> for Locate<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Locate<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the place")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let Some((Step::Index(index), rest)) = self.steps.split_first() else {
            return Err(A::Error::custom("here"));
        };
        for _ in 0..*index {
            seq.next_element::<serde::de::IgnoredAny>()?;
        }
        seq.next_element_seed(Locate { steps: rest })?;
        Err(A::Error::custom("gone"))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Some((Step::Key(key), rest)) = self.steps.split_first() else {
            return Err(A::Error::custom("here"));
        };
        while let Some(found) = map.next_key_seed(Key { key, last: rest.is_empty() })? {
            if found {
                map.next_value_seed(Locate { steps: rest })?;
            } else {
                map.next_value::<serde::de::IgnoredAny>()?;
            }
        }
        Err(A::Error::custom("gone"))
    }
}

/// Tells whether a key is the one; fails on it when it is the last step.
struct Key<'s> {
    key: &'s str,
    last: bool,
}

impl<'de> DeserializeSeed<'de> for Key<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for Key<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E: serde::de::Error>(self, value: &str) -> Result<bool, E> {
        match (value == self.key, self.last) {
            (true, true) => Err(E::custom("here")),
            (found, _) => Ok(found),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_found() {
        let text = "a: 1\nb:\n  - x\n  - c: 2\n    d: {e: 3}\n";
        let key = |name: &str| Step::Key(name.to_owned());
        let line = |steps: &[Step]| locate(text, steps).map(|place| (place.line, place.column));
        assert_eq!(line(&[key("a")]), Some((1, 1)));
        assert_eq!(line(&[key("b")]), Some((2, 1)));
        assert_eq!(line(&[key("b"), Step::Index(1)]), Some((4, 5)));
        assert_eq!(line(&[key("b"), Step::Index(1), key("d"), key("e")]), Some((5, 9)));
    }

    #[test]
    fn tags_and_several_documents_are_refused() {
        assert!(Node::parse("a: !secret x").is_err());
        assert!(Node::parse("a: 1\n---\nb: 2\n").is_err());
        assert!(Node::parse("a: [1").is_err());
        assert_eq!(Node::parse("").unwrap(), Node::Null);
    }
}
