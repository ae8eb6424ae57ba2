//! Checks of the repository: layers of modules, sizes of files and functions, and documents that must be complete. Only
//! `proxy` may use pingora.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test that cannot go on fails"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use callgate::denial::Denial;
use callgate::observe::Metrics;

const FILE_LINES_MAX: usize = 400;
const FOLDER_FILES_MAX: usize = 14;

fn rust_files(folder: &str) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(rust_files(path.to_str().unwrap()));
        } else if path.extension().is_some_and(|e| e == "rs") {
            files.push(path);
        }
    }
    files.sort();
    files
}

/// Returns the top-level module of a file: `ingress` for `src/ingress/decide.rs` and for `src/ingress.rs`.
fn top_module(file: &Path) -> String {
    let rest = file.strip_prefix("src").unwrap();
    rest.components().next().unwrap().as_os_str().to_str().unwrap().trim_end_matches(".rs").to_owned()
}

fn without_comments(file: &Path) -> String {
    let text = fs::read_to_string(file).unwrap();
    text.lines().map(|line| line.split("//").next().unwrap_or_default()).collect::<Vec<_>>().join("\n")
}

/// Returns the modules that are named right after `crate::`, as in `crate::a::B` and `use crate::{a::B, c::{D, E}}`.
fn named(text: &str) -> BTreeSet<String> {
    let word =
        |s: &str| s.trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    let mut names = BTreeSet::new();
    for (at, _) in text.match_indices("crate::") {
        let rest = &text[at + "crate::".len()..];
        if !rest.starts_with('{') {
            names.insert(word(rest));
            continue;
        }
        let mut depth = 0;
        for (i, c) in rest.char_indices() {
            match c {
                '{' => {
                    depth += 1;
                    if depth == 1 {
                        names.insert(word(&rest[i + 1..]));
                    }
                }
                '}' => {
                    depth -= 1;
                    if depth == 0 {
                        break;
                    }
                }
                ',' if depth == 1 => {
                    names.insert(word(&rest[i + 1..]));
                }
                _ => {}
            }
        }
    }
    names.remove("");
    names
}

#[test]
fn arrows_point_down() {
    let lib = fs::read_to_string("src/lib.rs").unwrap();
    let order: Vec<_> = lib
        .lines()
        .filter_map(|l| l.trim().strip_prefix("pub mod "))
        .map(|m| m.trim_end_matches(';'))
        .collect();
    assert!(order.len() > 10, "{order:?}");
    let rank = |module: &str| order.iter().position(|o| *o == module);
    let mut wrong = Vec::new();
    for file in rust_files("src") {
        let top = top_module(&file);
        let Some(mine) = rank(&top) else { continue };
        for name in named(&without_comments(&file)).into_iter().filter(|name| *name != top) {
            if rank(&name).is_none_or(|theirs| theirs >= mine) {
                wrong.push(format!("{} names crate::{name}", file.display()));
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "a module may name only modules declared before it in lib.rs:\n{}",
        wrong.join("\n")
    );
}

#[test]
fn folders_have_few_files() {
    let mut folders = BTreeMap::<PathBuf, usize>::new();
    for file in rust_files("src") {
        *folders.entry(file.parent().unwrap().to_owned()).or_default() += 1;
    }
    for (folder, files) in folders {
        assert!(
            files <= FOLDER_FILES_MAX,
            "{} has {files} files: give some of them a folder",
            folder.display()
        );
    }
}

/// Limits of import cycles between files. Lower them when a cycle is gone.
const CYCLES_MAX: usize = 3;
const CYCLE_FILES_MAX: usize = 2;

/// Returns every path in `text` that begins with one of `roots`, as a list of names. Groups such as
/// `use super::{a::B, c}` are expanded.
fn paths(text: &str, roots: &[&str]) -> Vec<Vec<String>> {
    let is_name = |c: char| c.is_alphanumeric() || c == '_';
    let mut found = Vec::new();
    for root in roots {
        for (at, _) in text.match_indices(&format!("{root}::")) {
            let before = &text[..at];
            if !before.ends_with("::") && !before.ends_with(is_name) && !before.ends_with("pub(in ") {
                expand(&text[at..], &mut Vec::new(), &mut found);
            }
        }
    }
    found
}

/// Adds the paths at the start of `text` to `found`, and returns the rest of the text.
fn expand<'t>(text: &'t str, prefix: &mut Vec<String>, found: &mut Vec<Vec<String>>) -> &'t str {
    let depth = prefix.len();
    let mut rest = text.trim_start();
    loop {
        if let Some(inner) = rest.strip_prefix('{') {
            rest = inner;
            while !rest.trim_start().starts_with('}') {
                rest = expand(rest, prefix, found).trim_start();
                rest = rest.strip_prefix(',').unwrap_or(rest);
            }
            prefix.truncate(depth);
            return &rest.trim_start()[1..];
        }
        let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
        let (name, after) = rest.split_at(end.max(usize::from(rest.starts_with('*'))));
        prefix.push(name.to_owned());
        rest = after;
        match rest.strip_prefix("::") {
            Some(inner) => rest = inner,
            None => break,
        }
    }
    found.push(prefix.clone());
    prefix.truncate(depth);
    let renamed = rest.trim_start().strip_prefix("as ");
    renamed.map_or(rest, |rest| rest.trim_start_matches(|c: char| c.is_alphanumeric() || c == '_'))
}

/// Returns the files that each file under `folder` names in its paths, without its unit tests.
fn imports(folder: &str) -> BTreeMap<PathBuf, BTreeSet<PathBuf>> {
    let module = |file: &Path| -> Vec<String> {
        let inside = file.strip_prefix("src").unwrap().with_extension("");
        let names = inside.iter().map(|name| name.to_str().unwrap().to_owned());
        names.filter(|name| !["mod", "lib", "main"].contains(&name.as_str())).collect()
    };
    let all: BTreeMap<_, _> = rust_files("src").into_iter().map(|file| (module(&file), file)).collect();
    let mut imports = BTreeMap::new();
    for file in rust_files(folder) {
        let text = without_comments(&file);
        let text = text.split("#[cfg(test)]").next().unwrap();
        let own = module(&file);
        let children = all.keys().filter(|module| module.len() == own.len() + 1 && module.starts_with(&own));
        let mut roots: Vec<&str> = children.filter_map(|module| module.last().map(String::as_str)).collect();
        roots.extend(["crate", "super", "self"]);
        let named = paths(text, &roots).into_iter().filter_map(|path| {
            let ups = path.iter().take_while(|name| *name == "super").count();
            let mut absolute = match path[0].as_str() {
                "crate" => Vec::new(),
                _ => own[..own.len().saturating_sub(ups)].to_vec(),
            };
            let is_root = |name: &String| ["crate", "super", "self"].contains(&name.as_str());
            absolute.extend(path.into_iter().skip_while(is_root));
            while !absolute.is_empty() && !all.contains_key(&absolute) {
                absolute.pop();
            }
            all.get(&absolute).cloned()
        });
        // The crate root declares every module, so it is not a dependency.
        let is_crate = |file: &Path| ["src/lib.rs", "src/main.rs"].iter().any(|root| file == Path::new(root));
        let named = named.filter(|other| *other != file && !is_crate(other)).collect();
        imports.insert(file, named);
    }
    imports
}

/// Returns the groups of files that depend on each other, largest first.
fn cycles(imports: &BTreeMap<PathBuf, BTreeSet<PathBuf>>) -> Vec<BTreeSet<PathBuf>> {
    let reach = |from: &Path| {
        let mut seen = BTreeSet::new();
        let mut next: Vec<&PathBuf> = imports[from].iter().collect();
        while let Some(file) = next.pop() {
            if seen.insert(file.clone()) {
                next.extend(imports.get(file).into_iter().flatten());
            }
        }
        seen
    };
    let reached: BTreeMap<_, _> = imports.keys().map(|file| (file, reach(file))).collect();
    let mut groups = BTreeSet::new();
    for (file, files) in &reached {
        let group: BTreeSet<PathBuf> = files
            .iter()
            .filter(|other| reached.get(other).is_some_and(|back| back.contains(*file)))
            .cloned()
            .collect();
        if group.len() > 1 {
            groups.insert(group);
        }
    }
    let mut groups: Vec<_> = groups.into_iter().collect();
    groups.sort_by_key(|group| std::cmp::Reverse(group.len()));
    groups
}

#[test]
fn imports_have_few_cycles() {
    let cycles = cycles(&imports("src"));
    let text: Vec<_> = cycles
        .iter()
        .map(|group| group.iter().map(|file| file.display().to_string()).collect::<Vec<_>>().join(" "))
        .collect();
    assert!(cycles.len() <= CYCLES_MAX, "{} cycles:\n{}", cycles.len(), text.join("\n"));
    let longest = cycles.first().map_or(0, BTreeSet::len);
    assert!(longest <= CYCLE_FILES_MAX, "a cycle of {longest} files:\n{}", text.join("\n"));
}

#[test]
fn the_imports_of_signatures_have_no_cycle() {
    let imports = imports("src/signature");
    let edges: usize = imports.values().map(BTreeSet::len).sum();
    assert!(imports.len() > 30 && edges > 100, "{} files, {edges} imports", imports.len());
    let cycles = cycles(&imports);
    assert!(cycles.is_empty(), "{cycles:?}");
}

#[test]
fn mechanisms_are_strangers() {
    let strangers = ["guard", "path", "signature", "source", "token"];
    for file in rust_files("src").into_iter().filter(|file| strangers.contains(&top_module(file).as_str())) {
        let top = top_module(&file);
        for name in named(&without_comments(&file)) {
            assert!(
                name == top || !strangers.contains(&name.as_str()),
                "{} names crate::{name}",
                file.display()
            );
        }
    }
}

#[test]
fn only_modules_with_sockets_name_pingora() {
    let with_sockets = |file: &PathBuf| {
        matches!(&*top_module(file), "http" | "proxy") || file.ends_with("src/admin/server.rs")
    };
    for file in rust_files("src").into_iter().filter(|file| !with_sockets(file)) {
        assert!(!without_comments(&file).contains("pingora"), "{} names pingora", file.display());
    }
}

#[test]
fn only_the_ledger_clears_callbacks() {
    let is_ledger = |file: &PathBuf| top_module(file) == "store" || file.ends_with("src/interaction/ask.rs");
    for file in rust_files("src").into_iter().filter(|file| !is_ledger(file)) {
        assert!(!without_comments(&file).contains("by_the_ledger"), "{}", file.display());
    }
}

#[test]
fn only_two_readers_name_a_yaml_library() {
    let readers =
        |file: &Path| file.starts_with("src/config/yaml") || file == Path::new("src/cli/inject/yaml.rs");
    for file in rust_files("src").into_iter().filter(|file| !readers(file)) {
        let text = without_comments(&file);
        assert!(!text.contains("serde_yaml") && !text.contains("saphyr"), "{}", file.display());
    }
}

#[test]
fn only_the_clock_reads_the_clock() {
    for file in rust_files("src").into_iter().filter(|file| !file.ends_with("src/clock.rs")) {
        let text = without_comments(&file);
        assert!(!text.contains("Instant::now") && !text.contains("SystemTime::now"), "{}", file.display());
    }
}

#[test]
fn files_are_short() {
    for file in rust_files("src") {
        let lines = fs::read_to_string(&file).unwrap().lines().count();
        assert!(lines <= FILE_LINES_MAX, "{} has {lines} lines", file.display());
    }
}

#[test]
fn every_module_begins_with_its_purpose() {
    for file in rust_files("src") {
        let text = fs::read_to_string(&file).unwrap();
        assert!(text.starts_with("//!"), "{} has no //! on top", file.display());
    }
}

#[test]
fn every_denial_has_a_case_and_a_line_in_the_documentation() {
    let decisions = fs::read_dir("tests/decisions").unwrap().map(|entry| entry.unwrap().path());
    let files = decisions.chain(rust_files("tests/suite"));
    let cases: String = files.map(|path| fs::read_to_string(path).unwrap()).collect();
    let docs = fs::read_to_string("docs/denials.md").unwrap();
    for denial in Denial::ALL {
        let code = denial.code();
        let tested = [format!("reason: {code},"), format!("reason: {code} "), format!("\"{code}\"")];
        assert!(tested.iter().any(|text| cases.contains(text)), "{code} has no case");
        let row = format!("| <a id=\"{code}\"></a>`{code}` | {} | {} |", denial.status(), denial.help());
        assert!(docs.contains(&row), "docs/denials.md should have the line\n{row}");
    }
    assert_eq!(
        docs.matches("<a id=").count(),
        Denial::ALL.len(),
        "docs/denials.md lists what does not exist"
    );
}

#[test]
fn operations_say_what_to_do_about_every_denial() {
    let text = fs::read_to_string("docs/operations.md").unwrap();
    for denial in Denial::ALL {
        assert!(text.contains(&format!("`{}`", denial.code())), "{denial}");
    }
}

/// Reports whether a configuration key limits what somebody can use. The keys of `agents.NAME` are those of `agent`.
fn is_limit(key: &str) -> bool {
    if key.starts_with("agents.NAME.") {
        return false;
    }
    let mut last = key.rsplit('.');
    let (name, parent) = (last.next().unwrap_or_default(), last.next().unwrap_or_default());
    parent == "limits"
        || parent == "timeouts"
        || ["_max", "_min", "_deadline"].iter().any(|end| name.ends_with(end))
        || ["grace", "rate"].contains(&name) && parent != "shutdown"
}

#[test]
fn every_limit_has_a_row_that_says_when_it_takes_effect() {
    let cells = |row: &str| -> Vec<String> {
        let cells = row.trim_matches('|').split(" | ").map(|cell| cell.trim().to_owned());
        cells.collect()
    };
    let reference = fs::read_to_string("docs/reference.md").unwrap();
    let keys = reference.lines().filter(|line| line.starts_with("| `")).map(cells);
    let limits: BTreeMap<_, _> = keys
        .map(|row| (row[0].trim_matches('`').to_owned(), row[2].clone()))
        .filter(|(key, _)| is_limit(key))
        .collect();
    assert!(limits.len() > 20, "{limits:?}");
    let page = fs::read_to_string("docs/limits.md").unwrap();
    let rows: Vec<_> = page.lines().filter(|line| line.starts_with("| `")).map(cells).collect();
    for (key, default) in &limits {
        let named: Vec<_> = rows.iter().filter(|row| row[0] == format!("`{key}`")).collect();
        let [row] = named.as_slice() else { panic!("docs/limits.md should have one row for `{key}`") };
        assert_eq!(row.len(), 4, "{row:?}");
        assert!(row.iter().all(|cell| !cell.is_empty()), "{row:?}");
        assert!(default.is_empty() || row[1] == *default, "the default of {key} is {default}: {row:?}");
    }
    for row in &rows {
        assert!(limits.contains_key(row[0].trim_matches('`')), "{} is not a limit", row[0]);
    }
    assert!(fs::read_to_string("docs/configuration.md").unwrap().contains("(limits.md)"));
}

/// The files and tests that the threat model names exist. A test name is one that `cargo test --test suite NAME`
/// accepts.
#[test]
fn the_threat_model_names_what_exists() {
    let text = fs::read_to_string("docs/threat-model.md").unwrap();
    let suite: Vec<_> =
        rust_files("tests/suite").iter().map(|file| fs::read_to_string(file).unwrap()).collect();
    let is_test = |name: &str| {
        let last = name.rsplit("::").next().unwrap();
        let module = name.split("::").next().unwrap();
        let known = Path::new(&format!("tests/suite/{module}.rs")).exists()
            || Path::new(&format!("tests/suite/{module}/mod.rs")).exists();
        let there =
            |text: &String| text.contains(&format!("fn {last}(")) || text.contains(&format!("mod {last};"));
        known && suite.iter().any(there)
    };
    let mut named = 0;
    let attacks = text.split_once("\n## Framing").unwrap().1;
    for row in attacks.lines().filter(|line| line.starts_with("| ") && line.matches(" | ").count() == 2) {
        let columns: Vec<_> = row.trim_matches('|').split(" | ").collect();
        let words =
            |column: &str| column.split('`').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>();
        let files = words(columns[1]).into_iter().filter(|word| word.contains('/'));
        for file in files.chain(words(columns[2]).into_iter().filter(|word| word.contains('/'))) {
            assert!(Path::new(&file).exists(), "{file}: {row}");
            named += 1;
        }
        for test in words(columns[2]).into_iter().filter(|word| !word.contains('/')) {
            assert!(is_test(&test), "{test}: {row}");
            named += 1;
        }
    }
    assert!(named > 80, "only {named}");
}

/// The files and folders that ARCHITECTURE.md names exist. A name without a folder is that of a file in any folder.
#[test]
fn the_architecture_names_what_exists() {
    let text = fs::read_to_string("ARCHITECTURE.md").unwrap();
    let names: BTreeSet<_> =
        rust_files("src").iter().map(|file| file.file_name().unwrap().to_str().unwrap().to_owned()).collect();
    let (mut missing, mut named) = (Vec::new(), 0);
    for word in text.split('`').skip(1).step_by(2) {
        let is_path = word.starts_with("src/") || word.starts_with("tests/");
        if !is_path && !word.ends_with(".rs") {
            continue;
        }
        named += 1;
        if !Path::new(word).exists() && !names.contains(word) {
            missing.push(word);
        }
    }
    assert!(missing.is_empty(), "{missing:?}");
    assert!(named > 80, "only {named}");
}

/// Returns the words of a text that look like names of our metrics.
fn metric_names(text: &str) -> BTreeSet<&str> {
    text.split(|c: char| !c.is_ascii_lowercase() && c != '_' && !c.is_ascii_digit())
        .filter(|word| word.starts_with("callgate_") && word.len() > "callgate_".len())
        .collect()
}

#[test]
fn the_documentation_lists_every_metric() {
    let text = fs::read_to_string("docs/metrics.md").unwrap();
    let table = callgate::cli::metrics_table().unwrap();
    assert!(
        text.ends_with(&table),
        "docs/metrics.md does not hold what `callgate metrics --markdown` prints"
    );
}

#[test]
fn what_is_registered_is_described() {
    let metrics = Metrics::new().unwrap();
    let described: BTreeSet<_> = metrics.described().iter().map(|series| &*series.name).collect();
    let files = rust_files("src/observe").into_iter().map(|file| without_comments(&file));
    let source = files.collect::<Vec<_>>().join("\n");
    let written = source
        .split('"')
        .skip(1)
        .step_by(2)
        .filter(|text| metric_names(text).contains(text) || text.starts_with("process_"));
    assert_eq!(written.collect::<BTreeSet<_>>(), described);
    assert_eq!(
        source.matches(".register(Box::new(").count(),
        1,
        "there is one place where metrics are registered"
    );
    let outside_tests =
        |file: &Path| without_comments(file).split("#[cfg(test)]").next().unwrap_or_default().to_owned();
    let everywhere: String = rust_files("src").iter().map(|file| outside_tests(file)).collect();
    assert_eq!(everywhere.matches("Registry::new()").count(), 1, "there is one registry");
    let page = metrics.text().unwrap();
    let there: BTreeSet<_> =
        page.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();
    let from_start = metrics.described().iter().filter(|series| series.from_start);
    assert_eq!(there, from_start.map(|series| &*series.name).collect());
}

#[test]
fn documents_name_metrics_that_exist() {
    let metrics = Metrics::new().unwrap();
    for file in [
        "README.md",
        "docs/operations.md",
        "docs/metrics.md",
        "docs/configuration.md",
        "docs/threat-model.md",
    ] {
        let text = fs::read_to_string(file).unwrap();
        for name in metric_names(&text)
            .into_iter()
            .filter(|name| !["callgate_route", "callgate_token"].contains(name))
        {
            assert!(metrics.described().iter().any(|series| series.name == name), "{file}: {name}");
        }
    }
}

#[test]
fn every_alert_has_a_section_and_a_case() {
    let rules = fs::read_to_string("deploy/prometheus/rules.yaml").unwrap();
    let operations = fs::read_to_string("docs/operations.md").unwrap();
    let cases = ["rules_test", "rules_slow_test"]
        .map(|file| fs::read_to_string(format!("tests/observability/{file}.yaml")).unwrap());
    let mut alerts = 0;
    for rule in rules.split("- alert: ").skip(1) {
        let name = rule.lines().next().unwrap();
        for key in ["expr:", "labels: { severity: ", "summary: ", "description: "] {
            assert!(rule.contains(key), "{name} has no {key}");
        }
        let url = format!("runbook_url: https://callgate.dev/docs/operations.md#{}\n", name.to_lowercase());
        assert!(rule.contains(&url), "{name} does not say {url}");
        assert!(operations.contains(&format!("\n### {name}\n")), "docs/operations.md has no section {name}");
        let raised = format!("alertname=\"{name}\"");
        assert!(
            cases.iter().any(|text| text.contains(&raised)),
            "{name} is never raised in tests/observability"
        );
        alerts += 1;
    }
    assert!(alerts > 20, "{alerts}");
    assert_eq!(operations.matches("\n### Callgate").count(), alerts, "a section without an alert");
}
