//! Runs the cases of `tests/config_errors.yaml`. The file has a case for each error and each warning that a
//! configuration can cause.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::provider::Preset;
use super::tests::{LOOP, MINIMAL, parse};
use super::yaml::call_sites::{CallSite, reached};
use super::yaml::from_yaml;

/// A configuration without a public URL and without callback tokens.
const STATIC: &str = "\
listen: { ingress: [ { address: 127.0.0.1:0 } ], admin: { address: 127.0.0.1:0 } }
agent: { address: 127.0.0.1:8000 }
providers: { p: { preset: github, secrets: [ { env: SECRET } ] } }
routes: [ { name: r, path: /w, provider: p, forward: /i } ]
";

/// The YAML text with the required fields of a preset.
const PRESET: &str = "title: T\nsource: https://example.com/\nevidence: library\nsecret: s\n";

/// A group of test cases that edit the same configuration.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Group {
    configuration: String,
    edits: Vec<(String, String)>,
    #[serde(default)]
    at: String,
    #[serde(default)]
    cases: Vec<(String, String, String)>,
    #[serde(default)]
    warnings: Vec<(String, String, String)>,
    #[serde(default)]
    accepted: Vec<String>,
}

impl Group {
    /// Returns the configuration of one test case. The function applies the edits of the group to the configuration of
    /// the group. In the edits, `change` (the text of the test case) replaces each `@`.
    fn text(&self, change: &str) -> String {
        let mut text = match self.configuration.as_str() {
            "loop" => LOOP,
            "minimal" => MINIMAL,
            "preset" => PRESET,
            "static" => STATIC,
            other => panic!("{other} is not a configuration"),
        }
        .to_owned();
        for (from, to) in &self.edits {
            assert!(text.contains(from), "{from} is not in\n{text}");
            text = text.replacen(from, &to.replace('@', change), 1);
        }
        text
    }

    /// Returns the errors of a configuration, each with its path, and the warnings.
    fn compile(&self, text: &str) -> (Vec<String>, Vec<String>) {
        if self.configuration == "preset" {
            let text = Box::leak(text.to_owned().into_boxed_str());
            let errors = Preset { name: "test", text }.read().err().unwrap_or_default();
            let errors = errors.lines().filter(|line| !line.starts_with("    hint: "));
            return (errors.map(str::to_owned).collect(), Vec::new());
        }
        match parse(text) {
            Ok(config) => (Vec::new(), config.warnings),
            Err(errors) => (errors.iter().map(ToString::to_string).collect(), Vec::new()),
        }
    }

    /// Returns a description of each test case whose errors and warnings differ from the expected errors and warnings.
    fn wrong(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        for (change, at, words) in &self.cases {
            let (errors, _) = self.compile(&self.text(change));
            let path = format!("{}{at}", self.at);
            let expected = if path.is_empty() { String::new() } else { format!("{path}: ") };
            let fits = |error: &String| error.contains(&expected) && error.contains(words);
            if errors.len() != 1 || !errors.iter().all(fits) {
                wrong.push(format!("{change:?}\n  expected {path:?} {words:?}\n  found {errors:?}"));
            }
        }
        for (change, at, words) in &self.warnings {
            let (errors, warnings) = self.compile(&self.text(change));
            let path = format!("{}{at}", self.at);
            if !warnings.iter().any(|warning| warning.contains(&path) && warning.contains(words)) {
                wrong.push(format!(
                    "{change:?}\n  expected the warning {path:?} {words:?}\n  found {errors:?} {warnings:?}"
                ));
            }
        }
        for change in &self.accepted {
            let (errors, warnings) = self.compile(&self.text(change));
            if !errors.is_empty() || !warnings.is_empty() {
                wrong.push(format!("{change:?}\n  expected nothing\n  found {errors:?} {warnings:?}"));
            }
        }
        wrong
    }
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files
}

/// Returns the locations of all calls of `error` and `warn` in `src/config`.
fn call_sites() -> BTreeSet<CallSite> {
    let mut sites = BTreeSet::new();
    for file in rust_files(Path::new("src/config")) {
        if file.ends_with("every_mistake.rs") {
            continue;
        }
        let text = fs::read_to_string(&file).unwrap();
        for (number, line) in (1..).zip(text.lines()) {
            if line.contains(".error(") || line.contains(".warn(") {
                sites.insert((file.to_str().unwrap().to_owned(), number));
            }
        }
    }
    sites
}

#[test]
fn every_error_and_every_warning_of_a_configuration_has_a_case() {
    let text = fs::read_to_string("tests/config_errors.yaml").unwrap();
    let groups: Vec<Group> = from_yaml(&text).expect("tests/config_errors.yaml is a list of groups");
    let _ = reached();
    let wrong: Vec<_> = groups.iter().flat_map(Group::wrong).collect();
    let reached = reached();
    let sites = call_sites();
    assert!(sites.len() > 180, "only {}", sites.len());
    let without: Vec<_> = sites.difference(&reached).map(|(file, line)| format!("{file}:{line}")).collect();
    assert!(
        wrong.is_empty() && without.is_empty(),
        "{}\n{} calls of `error` or `warn` have no case in tests/config_errors.yaml:\n{}",
        wrong.join("\n"),
        without.len(),
        without.join("\n")
    );
}
