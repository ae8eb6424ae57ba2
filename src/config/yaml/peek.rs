//! Looking at a value before it is decided how to read it.

use super::node::Node;
use super::reader::Cursor;

impl<'n> Cursor<'n> {
    /// Whether this is just that text.
    pub(super) fn is_word(&self, word: &str) -> bool {
        matches!(self.node, Node::Text(text) if text == word)
    }

    /// The elements of a list; none of anything else.
    pub(super) fn nodes(&self) -> &'n [Node] {
        match self.node {
            Node::List(nodes) => nodes,
            _ => &[],
        }
    }

    /// The value itself.
    pub(super) fn node(&self) -> &'n Node {
        self.node
    }

    pub(super) fn is_text(&self) -> bool {
        matches!(self.node, Node::Text(_))
    }
}
