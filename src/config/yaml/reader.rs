//! Reading the tree: typed access that notes every mistake with its path and a hint, and goes on.

use std::cell::RefCell;
use std::collections::HashSet;
use std::fmt;
use std::time::Duration;

use http::HeaderName;
use ipnet::IpNet;

use super::fields::Fields;
use super::node::{Node, Place, Step, locate};
use super::words::{did_you_mean, is_name, shown};
use crate::json::Pointer;
use crate::path::Template;
use crate::policy::Feed;
use crate::source::parse_network;
use crate::time::parse_duration;

/// How much is read again, in bytes, for the lines of mistakes: each takes a pass, and the last of many have none.
const LOCATED_BYTES_MAX: usize = 4 * 1024 * 1024;

/// What stands in a first configuration where only its owner knows what belongs there.
pub const CHANGE_ME: &str = "CHANGE-ME";

/// One mistake in a configuration.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ConfigError {
    /// Where in the tree, such as `routes[0].token`.
    pub path: String,
    /// Where in the file, if it is anywhere.
    pub place: Option<Place>,
    /// What is wrong.
    pub message: String,
    /// What to do about it; may be empty.
    pub hint: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(place) = self.place {
            write!(f, "line {}: ", place.line)?;
        }
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.message)?;
        if self.hint.is_empty() { Ok(()) } else { write!(f, "\n    hint: {}", self.hint) }
    }
}

/// What a configuration is read with, besides its text.
pub struct Surroundings<'e> {
    /// Looks up an environment variable.
    pub env: &'e dyn Fn(&str) -> Option<String>,
    /// Reads a file.
    pub file: &'e dyn Fn(&str) -> std::io::Result<Vec<u8>>,
}

/// Collects what is wrong, and what is worth a warning, while a tree is read.
pub(super) struct Reader<'e> {
    surroundings: &'e Surroundings<'e>,
    errors: RefCell<Vec<(Vec<Step>, String, String)>>,
    warnings: RefCell<Vec<String>>,
    pub(super) feeds: RefCell<Vec<Feed>>,
    /// Which keys were asked for, and where.
    pub(super) asked: RefCell<Vec<Asked>>,
}

/// A mapping, by the keys that lead to it (`[]`: through a list), and the keys it may have.
pub type Asked = (Vec<String>, Vec<&'static str>);

impl<'e> Reader<'e> {
    pub(super) fn new(surroundings: &'e Surroundings<'e>) -> Self {
        Self {
            surroundings,
            errors: RefCell::default(),
            warnings: RefCell::default(),
            feeds: RefCell::default(),
            asked: RefCell::default(),
        }
    }

    pub(super) fn root<'n>(&'n self, node: &'n Node) -> Cursor<'n> {
        Cursor { reader: self, node, steps: Vec::new() }
    }

    /// Ends the reading: the warnings, or every mistake in the order of the file.
    pub(super) fn finish(self, text: &str) -> Result<Vec<String>, Vec<ConfigError>> {
        let mut passes = LOCATED_BYTES_MAX / text.len().max(1);
        let errors = self.errors.into_inner().into_iter();
        let mut errors: Vec<_> = errors
            .map(|(steps, message, hint)| ConfigError {
                path: path_text(&steps),
                place: deepest_place(text, &steps, &mut passes),
                message,
                hint,
            })
            .collect();
        errors.sort_by_key(|error| error.place.map_or((usize::MAX, 0), |place| (place.line, place.column)));
        if errors.is_empty() { Ok(self.warnings.into_inner()) } else { Err(errors) }
    }
}

/// A missing key has no place of its own: the nearest enclosing one is given.
fn deepest_place(text: &str, steps: &[Step], passes: &mut usize) -> Option<Place> {
    (1..=steps.len()).rev().find_map(|len| {
        *passes = passes.checked_sub(1)?;
        locate(text, steps.get(..len)?)
    })
}

fn path_text(steps: &[Step]) -> String {
    let mut text = String::new();
    for step in steps {
        match step {
            Step::Index(index) => text.push_str(&format!("[{index}]")),
            Step::Key(key) if text.is_empty() => text.push_str(key),
            Step::Key(key) => text.push_str(&format!(".{key}")),
        }
    }
    text
}

/// A value and where it is.
#[derive(Clone)]
pub(super) struct Cursor<'n> {
    pub(super) reader: &'n Reader<'n>,
    pub(super) node: &'n Node,
    pub(super) steps: Vec<Step>,
}

impl<'n> Cursor<'n> {
    /// Notes a mistake here. Returns `None`, for `?`.
    pub(super) fn error<T>(&self, message: impl Into<String>, hint: impl Into<String>) -> Option<T> {
        self.reader.errors.borrow_mut().push((self.steps.clone(), message.into(), hint.into()));
        None
    }

    /// Notes something that is allowed but worth a line at start.
    pub(super) fn warn(&self, message: &str) {
        self.reader.warnings.borrow_mut().push(format!("{}: {message}", path_text(&self.steps)));
    }

    pub(super) fn step(&self, node: &'n Node, step: Step) -> Self {
        let mut steps = self.steps.clone();
        steps.push(step);
        Self { reader: self.reader, node, steps }
    }

    pub(super) fn expected<T>(&self, what: &str) -> Option<T> {
        let hint = match self.node {
            Node::Null => "give it a value or take the key out",
            Node::Number(_) => "write it in quotes if it is meant as text",
            _ => "",
        };
        self.error(format!("expected {what}, found {}", self.node.kind()), hint)
    }

    /// A word; numbers, true and false count as they are written.
    pub(super) fn words_of_one(&self) -> Option<Box<str>> {
        match self.node {
            Node::Number(text) => Some(text.as_str().into()),
            Node::Bool(value) => Some(value.to_string().into()),
            _ => self.text().map(Into::into),
        }
    }

    pub(super) fn is_map(&self) -> bool {
        matches!(self.node, Node::Map(_))
    }

    /// What the configuration is read with.
    pub(super) fn surroundings(&self) -> &'n Surroundings<'n> {
        self.reader.surroundings
    }

    /// A mapping; unknown keys are noted when [`Fields::finish`] is called.
    pub(super) fn fields(&self) -> Option<Fields<'n>> {
        let Node::Map(entries) = self.node else { return self.expected("a mapping") };
        let mut earlier = HashSet::new();
        for (key, node) in entries {
            if !earlier.insert(key) {
                let _: Option<()> = self
                    .step(node, Step::Key(key.clone()))
                    .error("the key occurs twice", "the second would silently win; keep one");
            }
        }
        Some(Fields::new(self.clone(), entries))
    }

    /// The entries of a mapping whose keys are names.
    pub(super) fn named(&self) -> Option<Vec<(&'n str, Cursor<'n>)>> {
        self.fields()?;
        let Node::Map(entries) = self.node else { return None };
        let named = entries.iter().map(|(key, node)| (key.as_str(), self.step(node, Step::Key(key.clone()))));
        Some(named.collect())
    }

    /// A list with at least one element.
    pub(super) fn list(&self) -> Option<Vec<Cursor<'n>>> {
        let Node::List(nodes) = self.node else { return self.expected("a list") };
        if nodes.is_empty() {
            return self.error("the list is empty", "take the key out if nothing is meant");
        }
        Some(nodes.iter().enumerate().map(|(i, node)| self.step(node, Step::Index(i))).collect())
    }

    /// A list with at least one element, or a single value as a list of one.
    pub(super) fn list_or_one(&self) -> Option<Vec<Cursor<'n>>> {
        if matches!(self.node, Node::List(_)) { self.list() } else { Some(vec![self.clone()]) }
    }

    pub(super) fn text(&self) -> Option<&'n str> {
        match self.node {
            Node::Text(text) if text.is_empty() => self.error("the text is empty", ""),
            Node::Text(text) if text.contains(CHANGE_ME) => {
                self.error(format!("{CHANGE_ME} was left in it"), "only you know what belongs there")
            }
            Node::Text(text) => Some(text),
            _ => self.expected("text"),
        }
    }

    pub(super) fn boolean(&self) -> Option<bool> {
        match self.node {
            Node::Bool(value) => Some(*value),
            _ => self.expected("true or false"),
        }
    }

    pub(super) fn whole_number(&self, range: std::ops::RangeInclusive<u64>) -> Option<u64> {
        let Node::Number(text) = self.node else { return self.expected("a number") };
        match text.parse() {
            Ok(number) if range.contains(&number) => Some(number),
            _ => self.error(format!("must be a whole number from {} to {}", range.start(), range.end()), ""),
        }
    }

    /// A name: metric label, log field, claim.
    pub(super) fn name(&self) -> Option<&'n str> {
        let text = self.text()?;
        if is_name(text) { Some(text) } else { self.bad_name(text) }
    }

    pub(super) fn bad_name<T>(&self, text: &str) -> Option<T> {
        self.error(
            format!("`{text}` is not a name"),
            "use 1 to 64 of a-z, 0-9, `-` and `_`, a letter first; not none, not actions",
        )
    }

    pub(super) fn duration(&self) -> Option<Duration> {
        let text = match self.node {
            Node::Text(text) => text,
            _ => {
                return self.error(format!("expected a duration, found {}", self.node.kind()), DURATION_HINT);
            }
        };
        match parse_duration(text) {
            Some(duration) if !duration.is_zero() => Some(duration),
            Some(_) => self.error("must be longer than nothing", DURATION_HINT),
            None => self.error(format!("`{text}` is not a duration"), DURATION_HINT),
        }
    }

    /// As [`Cursor::duration`], nothing at all included.
    pub(super) fn duration_or_zero(&self) -> Option<Duration> {
        match self.node {
            Node::Text(text) if parse_duration(text) == Some(Duration::ZERO) => Some(Duration::ZERO),
            _ => self.duration(),
        }
    }

    /// A size in bytes: a whole number, or one with a unit of 1024.
    pub(super) fn size(&self, max: u64) -> Option<u64> {
        let (Node::Text(text) | Node::Number(text)) = self.node else { return self.expected("a size") };
        let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (digits, unit) = text.split_at_checked(split)?;
        let scale = match unit {
            "" | "B" => Some(1_u64),
            "KiB" => Some(1 << 10),
            "MiB" => Some(1 << 20),
            _ => None,
        };
        let bytes =
            scale.zip(digits.parse::<u64>().ok()).and_then(|(scale, number)| number.checked_mul(scale));
        match bytes {
            Some(bytes) if bytes <= max => Some(bytes),
            Some(_) => self.error(format!("`{text}` is more than {max} bytes"), ""),
            None => self.error(format!("`{text}` is not a size"), "write bytes, or 64KiB, or 1MiB"),
        }
    }

    pub(super) fn network(&self) -> Option<IpNet> {
        let text = self.text()?;
        match parse_network(text) {
            Ok(network) => Some(network),
            Err(fault) => self.error(format!("`{text}` {fault}"), ""),
        }
    }

    /// A list of networks, none left out.
    pub(super) fn networks(&self) -> Option<Vec<IpNet>> {
        let read: Vec<_> = self.list()?.iter().map(Cursor::network).collect();
        read.into_iter().collect()
    }

    pub(super) fn header_name(&self) -> Option<HeaderName> {
        let text = self.text()?;
        match HeaderName::from_bytes(text.as_bytes()) {
            Ok(name) if !text.contains('_') => Some(name),
            _ => self.error(format!("`{text}` is not a header name"), "letters, digits and `-`"),
        }
    }

    pub(super) fn template(&self) -> Option<Template> {
        let text = self.text()?;
        match Template::parse(text) {
            Ok(template) => Some(template),
            Err(fault) => self.error(format!("`{text}`: {fault}"), "such as /webhooks/{document_id}/status"),
        }
    }

    /// A JSON pointer (RFC 6901) to a member.
    pub(super) fn pointer(&self) -> Option<Pointer> {
        let text = self.text()?;
        match Pointer::parse(text) {
            Some(pointer) => Some(pointer),
            None => self.error(
                format!("`{text}` is not a JSON pointer"),
                "it begins with a slash, such as /status (RFC 6901)",
            ),
        }
    }

    /// A list of words; numbers, true and false count as they are written.
    pub(super) fn words(&self) -> Option<Vec<Box<str>>> {
        let read: Vec<_> = self.list()?.iter().map(Cursor::words_of_one).collect();
        read.into_iter().collect()
    }

    /// One of a few words.
    pub(super) fn one_of<T: Copy>(&self, words: &[(&str, T)]) -> Option<T> {
        let text = self.text()?;
        if let Some((_, value)) = words.iter().find(|(word, _)| *word == text) {
            return Some(*value);
        }
        let known: Vec<_> = words.iter().map(|(word, _)| *word).collect();
        self.error(format!("{} is not known here", shown(text)), did_you_mean(text, &known))
    }

    /// A file that must be readable; its content.
    pub(super) fn file(&self) -> Option<(&'n str, Vec<u8>)> {
        let path = self.text()?;
        match (self.reader.surroundings.file)(path) {
            Ok(bytes) => Some((path, bytes)),
            Err(error) => self.error(format!("cannot read {path}: {error}"), ""),
        }
    }
}

const DURATION_HINT: &str = "a number and one of ms, s, m, h, d, such as 5m";
