//! A mapping of the tree: every key in it must be one that somebody asks for.

use super::node::{Node, Step};
use super::reader::Cursor;
use super::words::did_you_mean;

/// A mapping being read: every key must be asked for, or it is unknown.
pub(super) struct Fields<'n> {
    cursor: Cursor<'n>,
    entries: &'n [(String, Node)],
    asked: Vec<&'static str>,
}

impl<'n> Fields<'n> {
    pub(super) fn new(cursor: Cursor<'n>, entries: &'n [(String, Node)]) -> Self {
        Self { cursor, entries, asked: Vec::new() }
    }

    /// The mapping itself, for mistakes that concern all of it.
    pub(super) fn at(&self) -> &Cursor<'n> {
        &self.cursor
    }

    /// A key that may be missing; one without a value is a mistake.
    pub(super) fn optional(&mut self, key: &'static str) -> Option<Cursor<'n>> {
        self.asked.push(key);
        let (_, node) = self.entries.iter().find(|(name, _)| name == key)?;
        let cursor = self.cursor.step(node, Step::Key(key.to_owned()));
        if *node == Node::Null { cursor.expected("a value") } else { Some(cursor) }
    }

    /// A key that must be there.
    pub(super) fn required(&mut self, key: &'static str) -> Option<Cursor<'n>> {
        let found = self.optional(key);
        if found.is_none() && !self.has(key) {
            return self.cursor.error(format!("`{key}` is missing"), "");
        }
        found
    }

    /// Whether the key is there, with or without a value.
    pub(super) fn has(&self, key: &str) -> bool {
        self.entries.iter().any(|(name, _)| name == key)
    }

    /// Whether there is no key that nobody asked for.
    pub(super) fn all_asked(&self) -> bool {
        self.entries.iter().all(|(key, _)| self.asked.contains(&key.as_str()))
    }

    /// Notes every key that nobody asked for.
    pub(super) fn finish(self) {
        let step = |step: &Step| match step {
            Step::Index(_) => "[]".to_owned(),
            Step::Key(key) => key.clone(),
        };
        let place = self.cursor.steps.iter().map(step).collect();
        self.cursor.reader.asked.borrow_mut().push((place, self.asked.clone()));
        for (key, node) in self.entries.iter().filter(|(key, _)| !self.asked.contains(&key.as_str())) {
            let hint = did_you_mean(key, &self.asked);
            let _: Option<()> =
                self.cursor.step(node, Step::Key(key.clone())).error(format!("unknown key `{key}`"), hint);
        }
    }
}
