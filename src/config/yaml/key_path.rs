//! The location of a value, both in the tree of a configuration and in the file.

/// The maximum number of characters of a message, of a hint, and of one key in a path. The limit is needed because
/// each of these texts can repeat text of the configuration.
pub(super) const CHARACTERS_MAX: usize = 400;

/// A position in the text of a file.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Position {
    /// The line number. The first line has the number 1.
    pub line: usize,
    /// The column number, in characters. The first column has the number 1.
    pub column: usize,
}

/// One step on the path from the root of a configuration to a value: an index of a list, or a key of a mapping.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Step {
    Index(usize),
    Key(String),
}

/// Returns the steps to a value as text, such as `routes[0].token`.
pub(crate) fn path_text(steps: &[Step]) -> String {
    let mut text = String::new();
    for step in steps {
        match step {
            Step::Index(index) => text.push_str(&format!("[{index}]")),
            Step::Key(key) => {
                if !text.is_empty() {
                    text.push('.');
                }
                text.push_str(beginning(key));
            }
        }
    }
    text
}

/// Returns at most the first [`CHARACTERS_MAX`] characters of a text, for a message.
pub(crate) fn beginning(text: &str) -> &str {
    let end = text.char_indices().nth(CHARACTERS_MAX).map_or(text.len(), |(end, _)| end);
    text.get(..end).unwrap_or_default()
}
