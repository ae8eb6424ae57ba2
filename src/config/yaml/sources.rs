//! The texts of a configuration: the configuration file itself, and the files that `include` names.

use super::key_path::{Position, Step};
use super::positions::Outline;

/// The texts of all files of a configuration. The positions of mistakes are found in these texts.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    main: String,
    included: Vec<Included>,
}

/// An included file. It contains sections of the configuration.
#[derive(Clone, Debug)]
pub(crate) struct Included {
    /// The path of the included file, as written in `include`.
    pub(crate) name: Box<str>,
    pub(crate) text: String,
    /// The keys of the sections in the included file.
    pub(crate) sections: Vec<String>,
}

impl Sources {
    /// Creates the sources of a configuration without `include`.
    pub fn new(text: &str) -> Self {
        Self { main: text.to_owned(), included: Vec::new() }
    }

    /// Returns the paths of the included files, as written in `include`.
    pub fn included(&self) -> Vec<&str> {
        self.included.iter().map(|file| &*file.name).collect()
    }

    pub(crate) fn add(&mut self, included: Included) {
        self.included.push(included);
    }

    /// Returns the name of the included file that contains a section. Returns `None` if no included file contains the
    /// section.
    pub(crate) fn file_of(&self, section: &str) -> Option<&str> {
        self.included.iter().find(|file| file.has(section)).map(|file| &*file.name)
    }

    /// Finds the positions of all values in all files of the configuration.
    pub(crate) fn outlines(&self) -> Outlines<'_> {
        let included = self.included.iter().map(|file| (file, Outline::parse(&file.text))).collect();
        Outlines { main: Outline::parse(&self.main), included }
    }
}

impl Included {
    fn has(&self, section: &str) -> bool {
        self.sections.iter().any(|own| own == section)
    }
}

/// The positions of all values in the files of a configuration.
pub(crate) struct Outlines<'s> {
    main: Outline,
    included: Vec<(&'s Included, Outline)>,
}

impl Outlines<'_> {
    /// Returns the number of the file that contains the value to which the steps lead. The configuration file has the
    /// number 0, and the included files are numbered from 1.
    pub(crate) fn order(&self, steps: &[Step]) -> usize {
        self.included_with(steps).map_or(0, |index| index + 1)
    }

    fn included_with(&self, steps: &[Step]) -> Option<usize> {
        match steps.first() {
            Some(Step::Key(section)) => self.included.iter().position(|(file, _)| file.has(section)),
            _ => None,
        }
    }

    /// Returns the name of the included file that contains the value to which the steps lead, and the position of the
    /// value in this file. The name is `None` for the configuration file itself.
    pub(crate) fn locate(&self, steps: &[Step]) -> (Option<Box<str>>, Option<Position>) {
        let file = self.included_with(steps).and_then(|index| self.included.get(index));
        match file {
            Some((file, outline)) => (Some(file.name.clone()), outline.position(steps)),
            None => (None, self.main.position(steps)),
        }
    }
}
