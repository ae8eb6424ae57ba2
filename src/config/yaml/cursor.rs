//! Typed access to one value of the tree of a configuration. Every mistake is recorded with its path and a hint.
//! Reading then continues, so that one run finds all mistakes.

use std::time::Duration;

use http::HeaderName;
use ipnet::IpNet;

use super::error::Mistake;
use super::key_path::{Step, path_text};
use super::node::Node;
use super::reader::{CHANGE_ME, Reader};
use super::suggest::{did_you_mean, is_name, shown};
use crate::body::form::is_field_name;
use crate::config::env::Surroundings;
use crate::config::secrets::LoadedSecret;
use crate::feed::FeedId;
use crate::json::Pointer;
use crate::path::{Template, TemplateFault};
use crate::policy::Feed;
use crate::secret::Secret;
use crate::source::parse_network;
use crate::time::parse_duration;

const DURATION_HINT: &str = "a number and one of ms, s, m, h, d, such as 5m";

/// A value in the tree of a configuration, and the path to the value.
#[derive(Clone)]
pub(crate) struct Cursor<'n> {
    pub(super) reader: &'n Reader<'n>,
    pub(super) node: &'n Node,
    pub(super) steps: Vec<Step>,
}

impl<'n> Cursor<'n> {
    /// Returns a cursor at the root of the tree of a configuration.
    pub(crate) fn root(reader: &'n Reader<'n>, node: &'n Node) -> Self {
        Self { reader, node, steps: Vec::new() }
    }

    /// Reports an error in this value of the configuration. Always returns `None`, so that the caller can return the
    /// result.
    #[cfg_attr(test, track_caller)]
    pub(crate) fn error<T>(&self, message: impl Into<String>, hint: impl Into<String>) -> Option<T> {
        #[cfg(test)]
        super::call_sites::record(std::panic::Location::caller());
        self.reader.mistakes.borrow_mut().add(|| Mistake {
            steps: self.steps.clone(),
            message: message.into(),
            hint: hint.into(),
            is_foreign_key: false,
        });
        None
    }

    /// Reports a warning about this value of the configuration. The value is allowed, but the operator should check
    /// it.
    #[cfg_attr(test, track_caller)]
    pub(crate) fn warn(&self, message: &str) {
        #[cfg(test)]
        super::call_sites::record(std::panic::Location::caller());
        self.reader.warnings.borrow_mut().add(|| match path_text(&self.steps) {
            path if path.is_empty() => message.to_owned(),
            path => format!("{path}: {message}"),
        });
    }

    /// Returns a cursor for errors and warnings about the element `index` of the list `key` in this mapping.
    pub(crate) fn element(&self, key: &str, index: usize) -> Self {
        let mut steps = self.steps.clone();
        steps.extend([Step::Key(key.to_owned()), Step::Index(index)]);
        Self { steps, ..self.clone() }
    }

    /// Records a secret that was read at this location of the configuration. `is_password` is true if a person may
    /// have chosen the secret.
    pub(crate) fn loaded(&self, source: String, secret: &Secret, is_password: bool) {
        let path = path_text(&self.steps);
        let loaded = match is_password {
            true => LoadedSecret::password(path, source),
            false => LoadedSecret::new(path, source, secret),
        };
        let mut secrets = self.reader.secrets.borrow_mut();
        if !secrets.contains(&loaded) {
            secrets.push(loaded);
        }
    }

    /// Adds a feed (document to fetch), and returns the feed's number. If the same feed was added before, returns the
    /// number from the first time.
    pub(crate) fn feed(&self, feed: Feed) -> FeedId {
        let mut feeds = self.reader.feeds.borrow_mut();
        let known = feeds.iter().position(|known| *known == feed);
        FeedId(known.unwrap_or_else(|| {
            feeds.push(feed);
            feeds.len() - 1
        }))
    }

    /// Returns all feeds (documents to fetch) that were added.
    pub(crate) fn feeds(&self) -> Vec<Feed> {
        self.reader.feeds.borrow().clone()
    }

    /// Returns a cursor for errors and warnings about the key `key` of this mapping.
    pub(crate) fn section(&self, key: &str) -> Self {
        self.step(self.node, Step::Key(key.to_owned()))
    }

    /// Returns a cursor at `node`, a direct child of this value. `step` is the key or the index of the child.
    pub(super) fn step(&self, node: &'n Node, step: Step) -> Self {
        let mut steps = self.steps.clone();
        steps.push(step);
        Self { reader: self.reader, node, steps }
    }

    /// Reports an error because the value is not of the expected kind. `what` is the expected kind.
    pub(super) fn expected<T>(&self, what: &str) -> Option<T> {
        let hint = match self.node {
            Node::Null => "give the key a value, or remove it",
            Node::Number(_) => "write it in quotes if it is text",
            _ => "",
        };
        self.error(format!("expected {what}, found {}", self.node.kind()), hint)
    }

    /// Returns the value as text. Numbers and booleans are converted to text.
    pub(crate) fn scalar_text(&self) -> Option<Box<str>> {
        match self.node {
            Node::Number(text) => Some(text.as_str().into()),
            Node::Bool(value) => Some(value.to_string().into()),
            _ => self.text().map(Into::into),
        }
    }

    /// Returns the value as a node of the tree.
    pub(crate) fn node(&self) -> &'n Node {
        self.node
    }

    /// Reports whether the value is a mapping. The mapping `{env: NAME}` does not count, because it stands for a text
    /// from the environment.
    pub(crate) fn is_map(&self) -> bool {
        matches!(self.node, Node::Map(_)) && !self.is_variable()
    }

    /// Reports whether the value is the text `word`.
    pub(crate) fn is_word(&self, word: &str) -> bool {
        self.plain_text() == Some(word)
    }

    /// Returns the elements of a list, or an empty slice for any other value.
    pub(crate) fn nodes(&self) -> &'n [Node] {
        match self.node {
            Node::List(nodes) => nodes,
            _ => &[],
        }
    }

    pub(crate) fn is_text(&self) -> bool {
        matches!(self.node, Node::Text(_)) || self.is_variable()
    }

    /// Returns the functions that read environment variables and files.
    pub(crate) fn surroundings(&self) -> &'n Surroundings<'n> {
        self.reader.surroundings
    }

    /// Returns the elements of a list. Reports an error if the list is empty, or if the value is not a list.
    pub(crate) fn list(&self) -> Option<Vec<Cursor<'n>>> {
        let Node::List(nodes) = self.node else { return self.expected("a list") };
        if nodes.is_empty() {
            return self.error("the list is empty", "remove the key, or add an element");
        }
        Some(nodes.iter().enumerate().map(|(i, node)| self.step(node, Step::Index(i))).collect())
    }

    /// Returns the elements of a list. If the value is not a list, returns the value itself as the only element.
    pub(crate) fn list_or_one(&self) -> Option<Vec<Cursor<'n>>> {
        if matches!(self.node, Node::List(_)) { self.list() } else { Some(vec![self.clone()]) }
    }

    /// Returns the value as text. Reports an error if the text is empty. The text may come from the environment:
    /// `{env: NAME}`.
    pub(crate) fn text(&self) -> Option<&'n str> {
        let text = match self.node {
            Node::Text(text) => text,
            _ if self.is_variable() => self.variable_text()?,
            _ => return self.expected("text"),
        };
        match text {
            "" => self.error("the text is empty", ""),
            _ if text.contains(CHANGE_ME) => {
                self.error(format!("the value still contains {CHANGE_ME}"), "replace it with your own value")
            }
            _ => Some(text),
        }
    }

    pub(crate) fn boolean(&self) -> Option<bool> {
        match self.node {
            Node::Bool(value) => Some(*value),
            _ => self.expected("true or false"),
        }
    }

    /// Returns the value as a whole number. Reports an error if the number is outside `range`.
    pub(crate) fn whole_number(&self, range: std::ops::RangeInclusive<u64>) -> Option<u64> {
        let Node::Number(text) = self.node else { return self.expected("a number") };
        match text.parse() {
            Ok(number) if range.contains(&number) => Some(number),
            _ => self.error(format!("must be a whole number from {} to {}", range.start(), range.end()), ""),
        }
    }

    /// Returns the value as a name that is valid as a metric label, a log field and a token claim.
    pub(crate) fn name(&self) -> Option<&'n str> {
        let text = self.text()?;
        if is_name(text) { Some(text) } else { self.bad_name(text) }
    }

    /// Reports an error that states that `text` is not a valid name. Always returns `None`.
    pub(crate) fn bad_name<T>(&self, text: &str) -> Option<T> {
        self.error(
            format!("`{text}` is not a name"),
            "use 1 to 64 of a-z, 0-9, `-` and `_`, and begin with a letter; `none` and `actions` are reserved",
        )
    }

    /// Returns the value as a duration longer than zero.
    pub(crate) fn duration(&self) -> Option<Duration> {
        let text = match self.node {
            Node::Text(text) => text,
            _ if self.is_variable() => self.text()?,
            _ => {
                return self.error(format!("expected a duration, found {}", self.node.kind()), DURATION_HINT);
            }
        };
        match parse_duration(text) {
            Some(duration) if !duration.is_zero() => Some(duration),
            Some(_) => self.error("must be longer than zero", DURATION_HINT),
            None => self.error(format!("`{text}` is not a duration"), DURATION_HINT),
        }
    }

    /// Returns the value as a duration, which may be zero.
    pub(crate) fn duration_or_zero(&self) -> Option<Duration> {
        match self.plain_text().and_then(parse_duration) {
            Some(Duration::ZERO) => Some(Duration::ZERO),
            _ => self.duration(),
        }
    }

    /// Returns the value as a size of at most `max` bytes: a whole number, or a number with the unit B, KiB, MiB or
    /// GiB.
    pub(crate) fn size(&self, max: u64) -> Option<u64> {
        let text = match self.node {
            Node::Text(text) | Node::Number(text) => text,
            _ if self.is_variable() => self.text()?,
            _ => return self.expected("a size"),
        };
        let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (digits, unit) = text.split_at_checked(split)?;
        let scale = match unit {
            "" | "B" => Some(1_u64),
            "KiB" => Some(1 << 10),
            "MiB" => Some(1 << 20),
            "GiB" => Some(1 << 30),
            _ => None,
        };
        let bytes =
            scale.zip(digits.parse::<u64>().ok()).and_then(|(scale, number)| number.checked_mul(scale));
        match bytes {
            Some(bytes) if bytes <= max => Some(bytes),
            Some(_) => self.error(format!("`{text}` is more than {max} bytes"), ""),
            None => self.error(
                format!("`{text}` is not a size"),
                "a number of bytes, or a number with a unit, such as 64KiB or 1MiB",
            ),
        }
    }

    /// Returns the value as a network. An address becomes a network that contains only this address.
    pub(crate) fn network(&self) -> Option<IpNet> {
        let text = self.text()?;
        match parse_network(text) {
            Ok(network) => Some(network),
            Err(fault) => self.error(format!("`{text}` {fault}"), ""),
        }
    }

    /// Returns the value, which must be a list of networks.
    pub(crate) fn networks(&self) -> Option<Vec<IpNet>> {
        let read: Vec<_> = self.list()?.iter().map(Cursor::network).collect();
        read.into_iter().collect()
    }

    /// Returns the value as the name of a header. Reports an error if the name contains an underscore.
    pub(crate) fn header_name(&self) -> Option<HeaderName> {
        let text = self.text()?;
        match HeaderName::from_bytes(text.as_bytes()) {
            Ok(name) if !text.contains('_') => Some(name),
            _ => self.error(format!("`{text}` is not a header name"), "use letters, digits and `-`"),
        }
    }

    /// Returns the value as the name of a form field or of a query parameter.
    pub(crate) fn field_name(&self) -> Option<&'n str> {
        let text = self.text()?;
        match is_field_name(text) {
            true => Some(text),
            false => self.error(
                format!("`{text}` is not the name of a field or parameter"),
                "use letters, digits, `-`, `_`, `.` and `:`",
            ),
        }
    }

    /// Returns the value as a path template.
    pub(crate) fn template(&self) -> Option<Template> {
        let text = self.text()?;
        match Template::parse(text) {
            Ok(template) => Some(template),
            Err(fault) => self.error(format!("`{text}`: {fault}"), template_hint(&fault)),
        }
    }

    /// Prepares `template` to be filled with the values that `path` captures. Reports an error at this value of the
    /// configuration if `template` cannot be filled with them.
    pub(crate) fn filled_from(&self, template: Template, path: &Template) -> Option<Template> {
        let text = template.as_str().to_owned();
        match template.filled_from(path) {
            Ok(template) => Some(template),
            Err(fault) => self.error(format!("`{text}`: {fault}"), filled_hint(&fault)),
        }
    }

    /// Returns the value as a JSON pointer (RFC 6901).
    pub(crate) fn pointer(&self) -> Option<Pointer> {
        let text = self.text()?;
        match Pointer::parse(text) {
            Some(pointer) => Some(pointer),
            None => self.error(
                format!("`{text}` is not a JSON pointer"),
                "begin with a slash, such as /status (RFC 6901)",
            ),
        }
    }

    /// Returns the value, which must be a list of texts. Numbers and booleans are converted to text.
    pub(crate) fn texts(&self) -> Option<Vec<Box<str>>> {
        let read: Vec<_> = self.list()?.iter().map(Cursor::scalar_text).collect();
        read.into_iter().collect()
    }

    /// Looks up this value of the configuration in `words`, a list of the accepted words, each with its result. Returns
    /// the result of this word. Reports an error if the value is not an accepted word.
    pub(crate) fn one_of<T: Copy>(&self, words: &[(&str, T)]) -> Option<T> {
        let text = self.text()?;
        if let Some((_, value)) = words.iter().find(|(word, _)| *word == text) {
            return Some(*value);
        }
        let known: Vec<_> = words.iter().map(|(word, _)| *word).collect();
        self.error(format!("{} is not one of the accepted values", shown(text)), did_you_mean(text, &known))
    }

    /// Reads the file whose path is this value. Returns the path and the content of the file. If the content begins
    /// with a byte order mark, the mark is removed.
    pub(crate) fn file(&self) -> Option<(&'n str, Vec<u8>)> {
        let path = self.text()?;
        match (self.reader.surroundings.file)(path) {
            Ok(mut bytes) => {
                if bytes.starts_with("\u{feff}".as_bytes()) {
                    bytes.drain(.."\u{feff}".len());
                }
                Some((path, bytes))
            }
            Err(error) => self.error(format!("cannot read {path}: {error}"), ""),
        }
    }
}

/// Returns the hint for a fault in a template that matches paths of requests, such as the path of a route.
fn template_hint(fault: &TemplateFault) -> &'static str {
    match fault {
        TemplateFault::Star(_) | TemplateFault::Remainder(_) => {
            "to match everything below a path, end it with a remainder, such as /provider/{*rest}"
        }
        _ => "such as /webhooks/{document_id}/status",
    }
}

/// Returns the hint for a fault in a template that is filled with captures, such as the internal path of a route.
pub(crate) fn filled_hint(fault: &TemplateFault) -> &'static str {
    match fault {
        TemplateFault::Star(_) => "write {rest} for the value that {*rest} captures",
        TemplateFault::Remainder(_) => "move it to the end",
        _ => "such as /webhooks/{document_id}/status",
    }
}
