//! Access to the keys of a mapping in a configuration. The code that reads the mapping requests the value of each known
//! key. All other keys of the mapping are errors.

use std::collections::HashSet;

use super::cursor::Cursor;
use super::error::Mistake;
use super::key_path::Step;
use super::node::Node;
use super::suggest::{did_you_mean, is_word};

/// A mapping of a configuration, and the keys whose values were requested so far.
pub(crate) struct Fields<'n> {
    cursor: Cursor<'n>,
    entries: &'n [(String, Node)],
    asked: Vec<&'static str>,
}

impl<'n> Cursor<'n> {
    /// Returns the fields of this value, which must be a mapping. Reports an error for each key that occurs twice.
    /// [`Fields::finish`] later reports the unknown keys.
    pub(crate) fn fields(&self) -> Option<Fields<'n>> {
        let Node::Map(entries) = self.node else { return self.expected("a mapping") };
        let mut earlier = HashSet::new();
        for (key, node) in entries {
            if !earlier.insert(key) {
                let _: Option<()> = self
                    .step(node, Step::Key(key.clone()))
                    .error("the key occurs twice", "keep one of the two");
            }
        }
        Some(Fields { cursor: self.clone(), entries, asked: Vec::new() })
    }

    /// Returns the entries of a mapping. The user chooses the keys of the mapping. Reports an error for each key that
    /// occurs twice.
    pub(crate) fn named(&self) -> Option<Vec<(&'n str, Cursor<'n>)>> {
        self.fields()?;
        let Node::Map(entries) = self.node else { return None };
        let named = entries.iter().map(|(key, node)| (key.as_str(), self.step(node, Step::Key(key.clone()))));
        Some(named.collect())
    }
}

impl<'n> Fields<'n> {
    /// Returns the cursor at the mapping, for messages that concern the whole mapping.
    pub(crate) fn at(&self) -> &Cursor<'n> {
        &self.cursor
    }

    /// Returns the value of a key, or `None` if the key is missing. A key without a value is a mistake.
    pub(crate) fn optional(&mut self, key: &'static str) -> Option<Cursor<'n>> {
        if !self.asked.contains(&key) {
            self.asked.push(key);
        }
        let (_, node) = self.entries.iter().find(|(name, _)| name == key)?;
        let cursor = self.cursor.step(node, Step::Key(key.to_owned()));
        if *node == Node::Null { cursor.expected("a value") } else { Some(cursor) }
    }

    /// Returns the value of a key. Reports an error if the key is missing.
    pub(crate) fn required(&mut self, key: &'static str) -> Option<Cursor<'n>> {
        let found = self.optional(key);
        if found.is_none() && !self.has(key) {
            return self.cursor.error(format!("`{key}` is missing"), "");
        }
        found
    }

    /// Reports whether the key is present, with or without a value.
    pub(crate) fn has(&self, key: &str) -> bool {
        self.entries.iter().any(|(name, _)| name == key)
    }

    /// Reports whether the values of all keys of the mapping were requested with [`Fields::optional`] or
    /// [`Fields::required`].
    pub(crate) fn all_asked(&self) -> bool {
        self.entries.iter().all(|(key, _)| self.asked.contains(&key.as_str()))
    }

    /// Reports an error for each unknown key of the mapping. A key is unknown if its value was not requested with
    /// [`Fields::optional`] or [`Fields::required`].
    pub(crate) fn finish(self) {
        let step = |step: &Step| match step {
            Step::Index(_) => "[]".to_owned(),
            Step::Key(key) => key.clone(),
        };
        let mapping = self.cursor.steps.iter().map(step).collect();
        for (key, node) in self.entries.iter().filter(|(key, _)| !self.asked.contains(&key.as_str())) {
            self.cursor.unknown_key(node, key, &self.asked);
        }
        self.cursor.reader.accepted.borrow_mut().push((mapping, self.asked));
    }
}

impl<'n> Cursor<'n> {
    fn unknown_key(&self, node: &'n Node, key: &str, known: &[&str]) {
        // The list calls this closure only for a mistake that it stores. A file can have very many unknown keys, and
        // computing all hints would take too long.
        self.reader.mistakes.borrow_mut().add(|| {
            let hint = did_you_mean(key, known);
            // At the root, an unknown key could be text of a file that is no configuration. Such a key is shown only if
            // it is similar to a known key.
            let is_shown =
                if self.steps.is_empty() { hint.starts_with("did you mean") } else { is_word(key) };
            Mistake {
                steps: self.step(node, Step::Key(key.to_owned())).steps,
                message: format!("unknown key `{key}`"),
                hint,
                is_foreign_key: !is_shown,
            }
        });
    }
}
