//! Records the position of each value in a YAML text, and whether each scalar is quoted.
//!
//! Deserializers such as serde_yaml return neither positions nor quotes. This module reads both from the events of a
//! second parser, in one pass.

use std::collections::HashMap;

use saphyr_parser::{Event, Marker, Parser, ScalarStyle};

use super::key_path::{Position, Step};

/// The maximum depth of nested values whose positions are recorded. serde_yaml rejects texts with deeper nesting.
const DEPTH_MAX: usize = 128;

impl From<Marker> for Position {
    fn from(marker: Marker) -> Self {
        Self { line: marker.line(), column: marker.col() + 1 }
    }
}

/// The positions of all values in the first document of a YAML text. Each value has a number.
#[derive(Debug, Default)]
pub struct Outline {
    values: Vec<Value>,
    root: Option<usize>,
}

#[derive(Debug)]
struct Value {
    position: Position,
    content: Content,
}

#[derive(Debug)]
enum Content {
    List(Vec<usize>),
    Map(Map),
    Scalar {
        /// True if the scalar has neither quotes nor a tag.
        is_plain: bool,
    },
}

#[derive(Debug, Default)]
struct Map {
    /// The entries in the order of the text. Each entry is the number of its key and the number of its value.
    entries: Vec<(usize, usize)>,
    /// For each scalar key, the index of the first entry with this key in `entries`.
    first: HashMap<String, usize>,
    /// The key whose value the parser reads next: the number of the key, and its text if the key is a scalar. `None`
    /// if the parser reads a key next.
    key: Option<(usize, Option<String>)>,
}

impl Outline {
    /// Reads the first document of a YAML text. If the text has a syntax error, the result contains only the values
    /// before the error.
    pub fn parse(text: &str) -> Self {
        let mut outline = Self::default();
        let mut open = Vec::new();
        let mut anchors = HashMap::new();
        // After a syntax error, the parser returns the same error again and again, so reading stops at the first error.
        for (event, span) in Parser::new_from_str(text).map_while(Result::ok) {
            let position = span.start.into();
            let (content, anchor, key) = match event {
                Event::Scalar(key, style, anchor, tag) => {
                    let is_plain = style == ScalarStyle::Plain && tag.is_none();
                    (Content::Scalar { is_plain }, anchor, Some(key.into_owned()))
                }
                Event::SequenceStart(anchor, _) => (Content::List(Vec::new()), anchor, None),
                Event::MappingStart(anchor, _) => (Content::Map(Map::default()), anchor, None),
                Event::Alias(anchor) => {
                    let Some(at) = anchors.get(&anchor) else { break };
                    outline.attach(open.last(), *at, None);
                    continue;
                }
                Event::SequenceEnd | Event::MappingEnd => {
                    open.pop();
                    continue;
                }
                Event::DocumentEnd => break,
                Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentStart(_) => continue,
            };
            let (at, is_collection) = (outline.values.len(), key.is_none());
            outline.values.push(Value { position, content });
            outline.attach(open.last(), at, key);
            // The parser numbers the anchors from 1. The number 0 means that the value has no anchor.
            if anchor > 0 {
                anchors.insert(anchor, at);
            }
            if is_collection {
                open.push(at);
            }
            if open.len() > DEPTH_MAX {
                break;
            }
        }
        outline
    }

    /// Adds the key or value with the number `at` to the list or mapping `parent`. If `parent` is `None`, the value
    /// becomes the root. `text` is the text of a scalar.
    fn attach(&mut self, parent: Option<&usize>, at: usize, text: Option<String>) {
        let Some(parent) = parent else {
            self.root = Some(at);
            return;
        };
        match self.values.get_mut(*parent).map(|value| &mut value.content) {
            Some(Content::List(items)) => items.push(at),
            Some(Content::Map(map)) => match map.key.take() {
                None => map.key = Some((at, text)),
                Some((key, name)) => {
                    if let Some(name) = name {
                        map.first.entry(name).or_insert(map.entries.len());
                    }
                    map.entries.push((key, at));
                }
            },
            _ => {}
        }
    }

    /// Returns the position of the value to which the steps lead. The position of a value in a mapping is the position
    /// of its key. If the steps lead to no value, returns the position of the last existing value on the path. The
    /// root has no position.
    pub(crate) fn position(&self, steps: &[Step]) -> Option<Position> {
        let (mut at, mut found) = (self.root?, None);
        for step in steps {
            let (named, value) = match (step, self.content(at)) {
                (Step::Index(index), Some(Content::List(items))) => {
                    let Some(item) = items.get(*index) else { break };
                    (*item, *item)
                }
                (Step::Key(key), Some(Content::Map(map))) => {
                    let entry = map.first.get(key).and_then(|index| map.entries.get(*index));
                    let Some(entry) = entry else { break };
                    *entry
                }
                _ => break,
            };
            at = value;
            found = self.values.get(named).map(|value| value.position);
        }
        found
    }

    /// Returns the number of the root value. Returns `None` if the text contains no value.
    pub fn root(&self) -> Option<usize> {
        self.root
    }

    /// Returns the number of the item at `index` of the list with the number `list`.
    pub fn item(&self, list: usize, index: usize) -> Option<usize> {
        match self.content(list)? {
            Content::List(items) => items.get(index).copied(),
            _ => None,
        }
    }

    /// Returns the number of the key and the number of the value for the entry at `index` of the mapping with the
    /// number `map`.
    pub fn entry(&self, map: usize, index: usize) -> Option<(usize, usize)> {
        match self.content(map)? {
            Content::Map(map) => map.entries.get(index).copied(),
            _ => None,
        }
    }

    /// Reports whether the scalar with this number has neither quotes nor a tag. Returns `None` if the value is not a
    /// scalar.
    pub fn is_plain(&self, scalar: usize) -> Option<bool> {
        match self.content(scalar)? {
            Content::Scalar { is_plain } => Some(*is_plain),
            _ => None,
        }
    }

    fn content(&self, at: usize) -> Option<&Content> {
        self.values.get(at).map(|value| &value.content)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> Step {
        Step::Key(name.to_owned())
    }

    fn position(text: &str, steps: &[Step]) -> Option<(usize, usize)> {
        Outline::parse(text).position(steps).map(|position| (position.line, position.column))
    }

    #[test]
    fn every_value_has_a_position() {
        let text = "a: 1\nb:\n  - x\n  - c: 2\n    d: {e: 3}\n";
        assert_eq!(position(text, &[key("a")]), Some((1, 1)));
        assert_eq!(position(text, &[key("b")]), Some((2, 1)));
        assert_eq!(position(text, &[key("b"), Step::Index(1)]), Some((4, 5)));
        assert_eq!(position(text, &[key("b"), Step::Index(1), key("d"), key("e")]), Some((5, 9)));
    }

    #[test]
    fn every_value_can_be_reached_by_its_number() {
        let outline = Outline::parse("a: x\nb: [\"y\", 'z', 1]\n");
        let root = outline.root().unwrap();
        let (key, value) = outline.entry(root, 0).unwrap();
        let (_, list) = outline.entry(root, 1).unwrap();
        assert_eq!((outline.is_plain(key), outline.is_plain(value)), (Some(true), Some(true)));
        let items = [0, 1, 2].map(|index| outline.item(list, index).unwrap());
        assert_eq!(items.map(|item| outline.is_plain(item)), [Some(false), Some(false), Some(true)]);
        assert!(items[0] < items[1] && items[1] < items[2]);
        // A list has no entries, a mapping has no items, and a scalar has neither.
        assert_eq!((outline.entry(root, 2), outline.item(list, 3)), (None, None));
        assert_eq!(
            (outline.entry(list, 0), outline.item(root, 0), outline.is_plain(list)),
            (None, None, None)
        );
        assert_eq!((outline.entry(key, 0), outline.item(key, 0)), (None, None));
        assert_eq!(Outline::parse("").root(), None);
    }

    #[test]
    fn what_is_missing_has_the_position_of_what_encloses_it() {
        assert_eq!(position("a:\n  b: {}\n", &[key("a"), key("b"), key("c"), key("d")]), Some((2, 3)));
        assert_eq!(position("a: [1]\n", &[key("a"), Step::Index(1)]), Some((1, 1)));
        assert_eq!(position("a: 1\n", &[key("b")]), None);
        assert_eq!(position("", &[key("b")]), None);
    }

    #[test]
    fn an_alias_has_the_positions_of_its_anchor() {
        let text = "a: &a\n  b: { c: 1 }\nd: *a\n";
        assert_eq!(position(text, &[key("d")]), Some((3, 1)));
        assert_eq!(position(text, &[key("d"), key("b"), key("c")]), Some((2, 8)));
        assert_eq!(
            position("a: &a [ *a ]\nb: *b\n", &[key("a"), Step::Index(0), Step::Index(0)]),
            Some((1, 4))
        );
    }

    #[test]
    fn a_syntax_error_ends_the_reading() {
        assert_eq!(position("a:\n  b: 1\nc: [1\nd: ]]\n", &[key("a"), key("b")]), Some((2, 3)));
        for text in ["[".repeat(100_000), "- ".repeat(100_000), "{a: ".repeat(100_000), "x: *y".to_owned()] {
            assert_eq!(position(&text, &[key("b")]), None);
        }
    }
}
