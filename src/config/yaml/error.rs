//! The mistakes in a configuration, and a list that stores a limited number of mistakes or warnings.

use std::fmt;

use super::key_path::{Position, Step, beginning, path_text};
use super::sources::{Outlines, Sources};

/// The maximum number of reported mistakes in a configuration, and also of reported warnings. If there are more, an
/// additional last entry reports how many were omitted.
pub const ERRORS_MAX: usize = 100;

/// A mistake in a configuration.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ConfigError {
    /// The name of the included file with the mistake. `None` if the mistake is in the configuration file itself.
    pub file: Option<Box<str>>,
    /// The path of the value in the configuration, such as `routes[0].token`.
    pub path: String,
    /// The position of the value in the file. `None` if the mistake concerns the whole file.
    pub position: Option<Position>,
    /// A description of the mistake.
    pub message: String,
    /// A hint how to correct the mistake. The hint may be empty.
    pub hint: String,
}

impl ConfigError {
    /// Creates a mistake in a value of the configuration. `steps` is the path of the value.
    pub(crate) fn at(steps: &[Step], outlines: &Outlines<'_>, message: String, hint: String) -> Self {
        let (file, position) = outlines.locate(steps);
        Self { file, path: path_text(steps), position, message, hint }
    }

    /// Removes the unknown key from the mistake if the key is in an included file. The key could be a secret, because
    /// `include` can name a file that is no configuration.
    fn without_key(self, steps: &[Step]) -> Self {
        if self.file.is_none() {
            return self;
        }
        let parent = steps.split_last().map_or(steps, |(_, parent)| parent);
        Self { path: path_text(parent), message: "an unknown key".to_owned(), ..self }
    }

    /// Creates a mistake that concerns a whole file. `file` is the name of the included file, or `None` for the
    /// configuration file itself.
    pub(crate) fn of_file(file: Option<&str>, message: String) -> Self {
        let file = file.map(Box::from);
        Self { file, path: String::new(), position: None, message, hint: String::new() }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(file) = &self.file {
            write!(f, "{file}: ")?;
        }
        if let Some(position) = self.position {
            write!(f, "line {}: ", position.line)?;
        }
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.message)?;
        if self.hint.is_empty() { Ok(()) } else { write!(f, "\n    hint: {}", self.hint) }
    }
}

/// A list that stores the first [`ERRORS_MAX`] entries. Later entries are only counted.
#[derive(Debug)]
pub(crate) struct Reported<T> {
    kept: Vec<T>,
    omitted: usize,
}

impl<T> Default for Reported<T> {
    fn default() -> Self {
        Self { kept: Vec::new(), omitted: 0 }
    }
}

impl<T> Reported<T> {
    /// Adds an entry. If the list is full, the entry is only counted, and `entry` is not called.
    pub(crate) fn add(&mut self, entry: impl FnOnce() -> T) {
        if self.kept.len() < ERRORS_MAX { self.kept.push(entry()) } else { self.omitted += 1 }
    }
}

/// A mistake in a configuration whose position in the file is not known yet.
#[derive(Debug)]
pub(crate) struct Mistake {
    pub(crate) steps: Vec<Step>,
    pub(crate) message: String,
    pub(crate) hint: String,
    /// True if the mistake is an unknown key that is not similar to a known key. The key could be text of a file that
    /// is no configuration.
    pub(crate) is_foreign_key: bool,
}

impl Reported<Mistake> {
    /// Returns the mistakes with their positions, sorted by file and by position in the file.
    pub(crate) fn errors(self, sources: &Sources) -> Vec<ConfigError> {
        if self.kept.is_empty() {
            return Vec::new();
        }
        let outlines = sources.outlines();
        let error = |mistake: Mistake| {
            let Mistake { steps, message, hint, is_foreign_key } = mistake;
            let error = ConfigError::at(&steps, &outlines, shortened(message), shortened(hint));
            (outlines.order(&steps), if is_foreign_key { error.without_key(&steps) } else { error })
        };
        let mut errors: Vec<_> = self.kept.into_iter().map(error).collect();
        errors.sort_by_key(|(order, error)| {
            (*order, error.position.map_or((usize::MAX, 0), |at| (at.line, at.column)))
        });
        let mut errors: Vec<_> = errors.into_iter().map(|(_, error)| error).collect();
        if self.omitted > 0 {
            errors.push(ConfigError::of_file(None, format!("and {} more mistakes", self.omitted)));
        }
        errors
    }
}

impl Reported<String> {
    /// Returns the warnings in the order in which they were added.
    pub(crate) fn warnings(self) -> Vec<String> {
        let mut warnings: Vec<_> = self.kept.into_iter().map(shortened).collect();
        if self.omitted > 0 {
            warnings.push(format!("and {} more warnings", self.omitted));
        }
        warnings
    }
}

fn shortened(mut text: String) -> String {
    let length = beginning(&text).len();
    if length < text.len() {
        text.truncate(length);
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::yaml::key_path::CHARACTERS_MAX;

    #[test]
    fn the_number_and_the_length_of_warnings_are_limited() {
        let warnings = |texts: &[String]| {
            let mut reported = Reported::default();
            texts.iter().for_each(|text| reported.add(|| text.clone()));
            reported.warnings()
        };
        // Each character of this text has two bytes, so the test distinguishes the number of bytes from the number of
        // characters.
        let longest = "\u{e4}".repeat(CHARACTERS_MAX);
        assert_eq!(warnings(&[String::new(), longest.clone()]), [String::new(), longest.clone()]);
        assert_eq!(warnings(&[format!("{longest}x")]), [format!("{longest}\u{2026}")]);
        let many = vec!["w".to_owned(); ERRORS_MAX + 2];
        assert_eq!(warnings(&many[..ERRORS_MAX]), many[..ERRORS_MAX]);
        assert_eq!(warnings(&many).len(), ERRORS_MAX + 1);
        assert_eq!(warnings(&many).last().unwrap(), "and 2 more warnings");
    }

    #[test]
    fn the_number_and_the_length_of_mistakes_are_limited() {
        let mistakes = |count: usize, message: &str| {
            let mut reported = Reported::default();
            for _ in 0..count {
                let (message, hint) = (message.to_owned(), message.to_owned());
                reported.add(|| Mistake { steps: Vec::new(), message, hint, is_foreign_key: false });
            }
            reported.errors(&Sources::new("a: b"))
        };
        assert!(mistakes(0, "m").is_empty());
        let [one] = &mistakes(1, &"m".repeat(CHARACTERS_MAX + 1))[..] else { panic!() };
        let shortened = format!("{}\u{2026}", "m".repeat(CHARACTERS_MAX));
        assert_eq!((&one.message, &one.hint), (&shortened, &shortened));
        let all = mistakes(ERRORS_MAX, "m");
        assert!(all.len() == ERRORS_MAX && all.iter().all(|error| error.message == "m"));
        let some = mistakes(ERRORS_MAX + 3, "m");
        assert_eq!(some.len(), ERRORS_MAX + 1);
        assert_eq!(some.last().unwrap().message, "and 3 more mistakes");
    }
}
