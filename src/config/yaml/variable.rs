//! Texts from the environment. Where a configuration expects a text, it can contain `{env: NAME}` instead.

use std::collections::BTreeMap;

use zeroize::Zeroizing;

use super::node::Node;
use crate::config::env::Surroundings;

/// The values of the environment variables that a configuration names. `None` means that the variable is not set. Some
/// values are secrets, so the memory of each value is overwritten when the value is dropped.
pub(super) type Variables = BTreeMap<String, Option<Zeroizing<String>>>;

/// Reads every environment variable that the tree of a configuration names with `{env: NAME}`.
pub(super) fn variables(tree: &Node, surroundings: &Surroundings<'_>) -> Variables {
    let mut found = Variables::new();
    collect(tree, surroundings, &mut found);
    found
}

fn collect(node: &Node, surroundings: &Surroundings<'_>, found: &mut Variables) {
    match node {
        Node::List(items) => items.iter().for_each(|item| collect(item, surroundings, found)),
        Node::Map(entries) => {
            if let Some(name) = variable(node).and_then(Node::as_text)
                && !found.contains_key(name)
            {
                found.insert(name.to_owned(), (surroundings.env)(name).map(Zeroizing::new));
            }
            entries.iter().for_each(|(_, value)| collect(value, surroundings, found));
        }
        Node::Bool(_) | Node::Null | Node::Number(_) | Node::Text(_) => {}
    }
}

/// Returns the value `NAME` of a mapping `{env: NAME}`. Returns `None` for all other values.
pub(super) fn variable(node: &Node) -> Option<&Node> {
    match node {
        Node::Map(entries) => match entries.as_slice() {
            [(key, name)] if key == "env" => Some(name),
            _ => None,
        },
        _ => None,
    }
}
