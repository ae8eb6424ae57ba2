//! Hints for the author of the manifests. The same hint about several workloads becomes one line.

pub(super) mod pod;

/// A hint for the author of the manifests about one workload.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(in crate::cli::inject) struct Note {
    /// The text of the hint if it concerns one workload only.
    single: String,
    /// The text of the hint without the part that differs between workloads. Hints with the same shared text are
    /// printed as one.
    shared: String,
    /// The part of the hint that differs between workloads. Empty if nothing differs.
    detail: String,
}

impl Note {
    /// Creates a hint whose text is the same for every workload.
    pub(in crate::cli::inject) fn same(text: impl Into<String>) -> Self {
        let text = text.into();
        Self { single: text.clone(), shared: text, detail: String::new() }
    }

    /// Returns the text of the hint for one workload only.
    pub(in crate::cli::inject) fn into_text(self) -> String {
        self.single
    }

    /// Creates a hint with a part that differs between workloads. `single` is its text for one workload, `shared` its
    /// text without this part, and `detail` the part.
    pub(in crate::cli::inject) fn of(single: String, shared: &str, detail: impl Into<String>) -> Self {
        Self { single, shared: shared.to_owned(), detail: detail.into() }
    }
}

/// Returns the hints as lines. `notes` contains the name of a workload with each hint. If several workloads have the
/// same hint, one line names all of them.
pub(in crate::cli::inject) fn grouped(notes: &[(String, Note)]) -> Vec<String> {
    let mut groups: Vec<Vec<&(String, Note)>> = Vec::new();
    for entry in notes {
        let known = groups
            .iter_mut()
            .find(|group| group.first().is_some_and(|(_, first)| first.shared == entry.1.shared));
        match known {
            Some(group) if group.contains(&entry) => {}
            Some(group) => group.push(entry),
            None => groups.push(vec![entry]),
        }
    }
    groups.iter().flat_map(|group| lines(group)).collect()
}

/// Returns the lines for hints with the same shared text.
fn lines(group: &[&(String, Note)]) -> Vec<String> {
    let Some((first, note)) = group.first() else { return Vec::new() };
    if group.iter().all(|(name, _)| name == first) {
        return group.iter().map(|(name, note)| format!("{name}: {}", note.single)).collect();
    }
    let mut workloads: Vec<(&str, Vec<&str>)> = Vec::new();
    for (name, note) in group {
        let detail = Some(note.detail.as_str()).filter(|detail| !detail.is_empty());
        match workloads.iter_mut().find(|(known, _)| known == name) {
            Some((_, details)) => details.extend(detail),
            None => workloads.push((name, detail.into_iter().collect())),
        }
    }
    let named = |(name, details): &(&str, Vec<&str>)| match details.as_slice() {
        [] => (*name).to_owned(),
        details => format!("{name} ({})", details.join(", ")),
    };
    let names: Vec<_> = workloads.iter().map(named).collect();
    vec![format!("{} workloads: {}: {}", names.len(), note.shared, names.join(", "))]
}
