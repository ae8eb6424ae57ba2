//! Broken configurations, derived from valid ones. Each must be read within a time limit and without a panic, and an
//! unknown key must always be an error.

use std::fs;
use std::process::Command;
use std::sync::LazyLock;
use std::time::Duration;

use callgate::config::{Config, ConfigError, Surroundings};
use data_encoding::BASE64;
use serde_yaml::{Mapping, Value};

use crate::attack_configs_text::{broken_routes, texts};
use crate::harness::env;

/// Maximum time to read one file.
const PARSE_MAX: Duration = Duration::from_secs(5);
const UNKNOWN: &str = "zzz_nobody_knows";

/// The smallest configuration.
const MINIMAL: &str = "listen: { ingress: [ { address: 127.0.0.1:0 } ] }\nagent: { address: 127.0.0.1:1 }\n";

/// Returns the distance of the places that a test changes: 1 if `CALLGATE_EXHAUSTIVE` is set. Otherwise each test changes a
/// sample, because all changes take minutes.
#[allow(clippy::disallowed_methods, reason = "the length of the test is a setting of the environment")]
pub fn stride(sampled: usize) -> usize {
    if std::env::var("CALLGATE_EXHAUSTIVE").is_ok() { 1 } else { sampled }
}

pub fn parse(text: &str) -> Result<Config, Vec<ConfigError>> {
    // Every variable is set. Variables that other tests use have the values that these tests need.
    let env = |name: &str| {
        Some(env(name).unwrap_or_else(|| "whsec_AQIDBAUGBwgJCgsMDQ4PEBESExQVFhcYGRobHB0eHyA=".to_owned()))
    };
    let file = |path: &str| match path.strip_prefix("/tls/").or(path.strip_prefix("tests/corpora/tls/")) {
        Some(name) => fs::read(format!("tests/corpora/tls/{name}")),
        None => Err(std::io::Error::from(std::io::ErrorKind::NotFound)),
    };
    Config::parse(text, &Surroundings { env: &env, file: &file })
}

/// Returns the configurations that all variants are made from: those in the repository, and those of the decision
/// cases.
pub fn bases() -> Vec<(String, String)> {
    let mut bases = Vec::new();
    for path in ["config/callgate.yaml", "tests/demo/callgate.yaml"] {
        bases.push((path.to_owned(), fs::read_to_string(path).unwrap()));
    }
    let mut files: Vec<_> =
        fs::read_dir("tests/decisions").unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    for path in files {
        let file: Value = serde_yaml::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
        let text = file["config"].as_str().unwrap().replace("AGENT", "127.0.0.1:1");
        bases.push((path.display().to_string(), text));
    }
    bases
}

/// Returns the CPU time of this thread, so that a busy machine does not count as a slow reader. If the system does not
/// report the CPU time, returns the elapsed time.
pub(crate) fn busy() -> Duration {
    static BEGAN: LazyLock<std::time::Instant> = LazyLock::new(callgate::clock::instant);
    let stat = fs::read_to_string("/proc/thread-self/schedstat").ok();
    let on_processor = stat.and_then(|text| text.split(' ').next()?.parse().ok()).map(Duration::from_nanos);
    on_processor.unwrap_or_else(|| BEGAN.elapsed())
}

/// Counts the files that were read, and collects the failures.
#[derive(Default)]
pub struct Tally {
    pub read: usize,
    pub accepted: usize,
    pub wrong: Vec<String>,
    slowest: (Duration, String),
}

impl Tally {
    /// Reads one file and returns the result, which the caller checks.
    pub fn read(&mut self, what: &str, text: &str) -> Option<Result<Config, Vec<ConfigError>>> {
        self.read += 1;
        let mut fastest = Duration::MAX;
        // The shortest of three times is used.
        for _ in 0..3 {
            let began = busy();
            let parsed = std::panic::catch_unwind(|| parse(text));
            fastest = fastest.min(busy().saturating_sub(began));
            let Ok(parsed) = parsed else {
                self.wrong.push(format!("panic: {what}"));
                return None;
            };
            if fastest > 3 * PARSE_MAX {
                break;
            }
            if fastest < PARSE_MAX {
                if fastest > self.slowest.0 {
                    self.slowest = (fastest, what.to_owned());
                }
                self.accepted += usize::from(parsed.is_ok());
                if matches!(&parsed, Err(errors) if errors.is_empty()) {
                    self.wrong.push(format!("refused without a word: {what}"));
                }
                return Some(parsed);
            }
        }
        self.wrong.push(format!("{fastest:?}: {what}"));
        None
    }

    fn finish(self, what: &str) {
        println!(
            "{what}: {} files, {} accepted, {} wrong, slowest {:?}",
            self.read,
            self.accepted,
            self.wrong.len(),
            self.slowest
        );
        let shown = &self.wrong[..self.wrong.len().min(30)];
        assert!(self.wrong.is_empty(), "{} wrong, such as {shown:#?}", self.wrong.len());
    }
}

// === Places in a tree ===

#[derive(Clone, Debug)]
enum Step {
    Key(Value),
    Index(usize),
}

type Place = Vec<Step>;

/// Returns the path of every node of a tree, starting with the root.
fn places(value: &Value, at: &Place, all: &mut Vec<Place>) {
    all.push(at.clone());
    let deeper = |step| [at.clone(), vec![step]].concat();
    match value {
        Value::Mapping(entries) => {
            entries.iter().for_each(|(key, value)| places(value, &deeper(Step::Key(key.clone())), all));
        }
        Value::Sequence(list) => {
            list.iter().enumerate().for_each(|(i, value)| places(value, &deeper(Step::Index(i)), all));
        }
        _ => {}
    }
}

fn at<'v>(mut value: &'v mut Value, place: &[Step]) -> &'v mut Value {
    for step in place {
        value = match step {
            Step::Key(key) => &mut value[key],
            Step::Index(index) => &mut value[*index],
        };
    }
    value
}

/// Returns the tree as text after `change` was applied to one node.
fn changed(tree: &Value, place: &[Step], change: impl FnOnce(&mut Value)) -> String {
    let mut tree = tree.clone();
    change(at(&mut tree, place));
    serde_yaml::to_string(&tree).unwrap()
}

/// Returns the base configurations as trees, with the paths of their nodes. Each base configuration compiles.
fn trees() -> Vec<(String, Value, Vec<Place>)> {
    let bases = bases().into_iter().map(|(name, text)| {
        assert!(parse(&text).is_ok(), "{name}: {:?}", parse(&text).err());
        let tree: Value = serde_yaml::from_str(&text).unwrap();
        let printed = parse(&serde_yaml::to_string(&tree).unwrap());
        assert!(printed.is_ok(), "{name}, printed anew: {:?}", printed.err());
        let mut all = Vec::new();
        places(&tree, &Place::new(), &mut all);
        (name, tree, all)
    });
    bases.collect()
}

#[test]
fn an_unknown_key_is_refused_by_name_wherever_it_stands() {
    let mut tally = Tally::default();
    let mut mappings = 0;
    for (number, (name, mut tree, places)) in trees().into_iter().enumerate() {
        for place in places.iter().skip(number % stride(4)).step_by(stride(4)) {
            let Value::Mapping(entries) = at(&mut tree, place).clone() else { continue };
            mappings += 1;
            // The unknown key is placed first and last, with a number, a text and a mapping as its value.
            for (i, value) in
                [Value::from(1), Value::from("x"), Value::Mapping(Mapping::new())].into_iter().enumerate()
            {
                let text = changed(&tree, place, |here| {
                    let one = Mapping::from_iter([(Value::from(UNKNOWN), value.clone())]);
                    let entries = entries.clone();
                    *here = Value::Mapping(if i == 1 {
                        one.into_iter().chain(entries).collect()
                    } else {
                        entries.into_iter().chain(one).collect()
                    });
                });
                let what = format!("{name}: {place:?} with {value:?}");
                let Some(parsed) = tally.read(&what, &text) else { continue };
                // In a reference to a secret, the error need not name the key, because the key may be the secret
                // itself.
                let secret = is_reference(&entries);
                let named = |error: &ConfigError| {
                    let silent = secret && error.message.contains("exactly one of env and file");
                    silent || error.path.contains(UNKNOWN) || error.message.contains(UNKNOWN)
                };
                let names = |errors: &Vec<ConfigError>| errors.iter().any(named);
                if !parsed.as_ref().is_err_and(names) && !is_free(place, &value) {
                    tally.wrong.push(format!("{what}: {:?}", parsed.map(|_| "accepted")));
                }
            }
        }
    }
    println!("{mappings} mappings");
    assert!(tally.read >= 600 / stride(4), "{}", tally.read);
    tally.finish("unknown keys");
}

fn is_reference(entries: &Mapping) -> bool {
    !entries.is_empty() && entries.keys().all(|key| matches!(key.as_str(), Some("env" | "file")))
}

/// A provider can have any name, and needs no setting at all if the routes say what they require. A handshake can name any
/// query parameter and form field, and its reply can have any member.
fn is_free(place: &[Step], value: &Value) -> bool {
    let providers = matches!(place, [Step::Key(key)] if key == "providers");
    let key =
        |step: &Step, names: &[&str]| matches!(step, Step::Key(key) if names.iter().any(|name| key == name));
    let in_handshake = place.iter().any(|step| key(step, &["handshakes"]))
        && matches!(place, [.., outer, inner] if
            key(outer, &["when"]) && key(inner, &["form", "query"]) || key(outer, &["answer"]) && key(inner, &["json"]));
    match value.as_mapping() {
        Some(entries) => providers && entries.is_empty(),
        None => in_handshake,
    }
}

fn replacements() -> Vec<Value> {
    let deep = (0..100).fold(Value::Null, |inner, i| match i % 2 {
        0 => Value::Sequence(vec![inner]),
        _ => Value::Mapping(Mapping::from_iter([(Value::from("a"), inner)])),
    });
    let numbers = [
        "0",
        "-1",
        "1",
        "4294967296",
        "18446744073709551615",
        "1e308",
        "1e999",
        ".nan",
        "-.inf",
        "0x10",
        "010",
        "0.1",
    ];
    let texts = [
        "",
        " ",
        "x",
        "/",
        "*",
        "{",
        "\u{0}",
        "a\nb",
        "🦀",
        "127.0.0.1",
        "999999999999999999999999d",
        "0s",
        "-1s",
        "1e9s",
        "9223372036854775807d",
        "99999999999GiB",
    ];
    let mut all: Vec<Value> = numbers.iter().map(|text| serde_yaml::from_str(text).unwrap()).collect();
    all.extend(texts.map(Value::from));
    all.extend([
        Value::Null,
        true.into(),
        false.into(),
        Value::Sequence(Vec::new()),
        Value::Mapping(Mapping::new()),
    ]);
    all.push(Value::Sequence(vec![Value::Null, "x".into(), 1.into()]));
    all.push(Value::Mapping(Mapping::from_iter([("a".into(), 1.into())])));
    all.extend([deep, "x".repeat(100_000).into(), "{a}".repeat(500).into(), "/a".repeat(5_000).into()]);
    all
}

#[test]
fn values_of_other_types_and_missing_ones_are_read_without_a_panic() {
    let replacements = replacements();
    let mut tally = Tally::default();
    let mut next = 0;
    for (number, (name, mut tree, places)) in trees().into_iter().enumerate() {
        for place in places.iter().skip(number % stride(4)).step_by(stride(4)) {
            // Each node gets a few of the values. Over all nodes, every value is used with every kind of node.
            for _ in 0..4 {
                next = (next + 7) % replacements.len();
                let value = &replacements[next];
                let text = changed(&tree, place, |here| *here = value.clone());
                tally.read(&format!("{name}: {place:?} is {value:.60?}"), &text);
            }
            let Some((last, parent)) = place.split_last() else { continue };
            let _ = at(&mut tree, parent);
            let text = changed(&tree, parent, |here| match (here, last) {
                (Value::Mapping(entries), Step::Key(key)) => drop(entries.remove(key)),
                (Value::Sequence(list), Step::Index(index)) => drop(list.remove(*index)),
                _ => {}
            });
            tally.read(&format!("{name}: without {place:?}"), &text);
            let text = changed(&tree, parent, |here| match here {
                Value::Sequence(list) => list.extend(list.clone()),
                Value::Mapping(entries) => {
                    let again = entries.iter().map(|(key, value)| {
                        (Value::from(format!("{}_", key.as_str().unwrap_or("k"))), value.clone())
                    });
                    *entries = again.collect();
                }
                _ => {}
            });
            tally.read(&format!("{name}: doubled around {place:?}"), &text);
        }
    }
    assert!(tally.read >= 3_000 / stride(4), "{}", tally.read);
    assert!(tally.accepted > 0, "some changes are harmless, and some were made");
    tally.finish("types and deletions");
}

#[test]
fn broken_and_hostile_yaml_is_refused_in_time() {
    let mut tally = Tally::default();
    for (number, (name, text)) in bases().into_iter().enumerate() {
        texts(number, &name, &text, &mut tally);
    }
    assert!(tally.read >= 500 / stride(4), "{}", tally.read);
    tally.finish("texts");
}

#[test]
fn of_very_many_mistakes_the_first_are_reported_with_their_lines() {
    for count in [10, 3_000] {
        let errors = parse(&broken_routes(count)).unwrap_err();
        let (unknown, all) = (|error: &&ConfigError| error.path.ends_with(".pathh"), 2 * count);
        let first = errors.iter().find(unknown).unwrap();
        assert_eq!(
            (first.path.as_str(), first.position.map(|position| position.line)),
            ("routes[0].pathh", Some(4))
        );
        let located = errors.iter().filter(|error| error.position.is_some()).count();
        if count == 10 {
            assert_eq!((errors.iter().filter(unknown).count(), located), (count, errors.len()));
        } else {
            assert_eq!((located, errors.len()), (100, 101));
            let rest = &errors[100];
            assert_eq!(
                (rest.path.as_str(), rest.message.as_str()),
                ("", &*format!("and {} more mistakes", all - 100))
            );
        }
    }
}

/// The text of all mistakes, which is what `callgate check` prints.
fn printed(text: &str) -> String {
    parse(text).unwrap_err().iter().map(|error| format!("{error}\n")).collect()
}

#[test]
fn the_mistakes_of_a_file_have_a_bounded_length() {
    let mut tally = Tally::default();
    let keys: String = (0..20_000).map(|i| format!("key{i}: 1\n")).collect();
    let long = "k".repeat(1_000);
    let inner: String = (0..1_000).map(|i| format!("{long}{i}: 1, ")).collect();
    let items = format!("&a \"{}\", {}", "v".repeat(1_000_000), "*a, ".repeat(1_000));
    for (what, text) in [
        ("keys", keys.clone()),
        (
            "keys of a section",
            format!("agent:\n{}", keys.lines().map(|line| format!("  {line}\n")).collect::<String>()),
        ),
        ("long keys", format!("agent: {{ {inner} }}\n")),
        ("a long path", format!("providers: {{ \"{}\": {{ {inner} }} }}\n", "p".repeat(500_000))),
        (
            "a long value again and again",
            format!("{MINIMAL}client_address: {{ header: x, trusted_proxies: [ {items} ] }}\nroutes: 1\n"),
        ),
        ("elements of a wrong kind", format!("{MINIMAL}routes: [ {} ]\n", "1, ".repeat(100_000))),
        ("doubled keys", format!("{MINIMAL}{}", "limits: {}\n".repeat(20_000))),
        ("warnings", many_warnings(5_000)),
    ] {
        let Some(parsed) = tally.read(what, &text) else { continue };
        let length = match parsed {
            Ok(config) => config.warnings.iter().map(String::len).sum(),
            Err(_) => printed(&text).len(),
        };
        if length > 200_000 {
            tally.wrong.push(format!("{what}: {length} bytes of messages"));
        }
    }
    tally.finish("many mistakes");
}

/// A configuration without a mistake in which every route is worth a warning.
fn many_warnings(count: usize) -> String {
    let route = |i| format!("  - {{ name: r{i}, path: /r{i}, forward: /in, open: true }}\n");
    let routes: String = (0..count).map(route).collect();
    format!(
        "listen: {{ ingress: [ {{ address: 127.0.0.1:0 }} ] }}\nagent: {{ address: 127.0.0.1:1 }}\nroutes:\n{routes}"
    )
}

#[test]
fn the_yaml_test_suite_is_read_and_none_of_it_is_a_configuration() {
    let suite: serde_json::Value =
        serde_json::from_slice(&fs::read("tests/corpora/config/yaml_test_suite.json").unwrap()).unwrap();
    let mut tally = Tally::default();
    for item in suite["items"].as_array().unwrap() {
        let (id, bytes) =
            (&item["id"], BASE64.decode(item["yaml_b64"].as_str().unwrap().as_bytes()).unwrap());
        let Ok(yaml) = String::from_utf8(bytes) else { continue };
        let good = MINIMAL;
        let indented: String = yaml.lines().map(|line| format!("    {line}\n")).collect();
        for text in [yaml.clone(), format!("{good}\n{yaml}"), format!("{good}\n{UNKNOWN}:\n{indented}")] {
            // Only comments and the end marker of a document may follow a configuration.
            let empty = |line: &str| line.is_empty() || line.starts_with('#') || line.starts_with("...");
            let silent = yaml.lines().map(str::trim_start).all(empty);
            let silent = silent && !text.contains(UNKNOWN);
            if matches!(tally.read(&format!("{id}"), &text), Some(Ok(_))) && !silent {
                tally.wrong.push(format!("{id}: accepted\n{text}"));
            }
        }
        if matches!(tally.read(&format!("{id} alone"), &yaml), Some(Ok(_))) {
            tally.wrong.push(format!("{id}: a configuration?"));
        }
    }
    assert!(tally.read >= 300, "{}", tally.read);
    tally.finish("the YAML test suite");
}

/// Text that is not UTF-8 cannot be passed to the parser, so this test runs the command.
#[test]
fn a_file_that_is_not_text_is_refused_by_the_command() {
    let good = fs::read("tests/demo/callgate.yaml").unwrap();
    let folder = tempfile::tempdir().unwrap();
    let check = |bytes: &[u8]| {
        let path = folder.path().join("callgate.yaml");
        fs::write(&path, bytes).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_callgate"));
        for name in ["CALLGATE_TOKEN_KEY", "AI_ANALYSIS_SECRET", "BOOKING_SECRET", "BOOKING_CREDENTIALS"] {
            command.env(name, "whsec_AQIDBAUGBwgJCgsMDQ4PEBESExQVFhcYGRobHB0eHyA=");
        }
        command.args(["check", "-c"]).arg(&path).output().unwrap().status.code()
    };
    assert_eq!(check(&good), Some(0));
    let middle = good.len() / 2;
    for bad in
        [b"\xff".as_slice(), b"\xc0\xaf", b"\xed\xa0\x80", b"\xf8\x88\x80\x80\x80", b"\x00", b"\xfe\xff"]
    {
        for at in [0, middle, good.len()] {
            let bytes = [&good[..at], bad, &good[at..]].concat();
            assert_eq!(check(&bytes), Some(64), "{bad:?} at {at}");
        }
    }
    let utf16: Vec<u8> = String::from_utf8(good).unwrap().encode_utf16().flat_map(u16::to_le_bytes).collect();
    assert_eq!(check(&utf16), Some(64));
    assert_eq!(check(&vec![b'a'; 5 << 20]), Some(64), "too large");
}
