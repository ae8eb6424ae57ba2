//! Reads `include`: the names of files that contain sections of the configuration. Several configurations can include
//! the same file.

use super::env::Surroundings;
use super::yaml::{ConfigError, Cursor, Fields, Included, Node, Reader, Sources, parse_yaml};

/// The maximum size of one file of a configuration, in bytes.
pub(super) const CONFIG_BYTES_MAX: usize = 4 * 1024 * 1024;

/// A function that reads an included file. The argument is the path in `include`, relative to the configuration file.
pub type ReadIncluded<'e> = dyn Fn(&str) -> std::io::Result<Vec<u8>> + 'e;

/// The maximum number of included files of a configuration.
const FILES_MAX: usize = 16;

/// Adds the sections of the included files to the tree of a configuration. Returns the extended tree and the texts of
/// all files.
///
/// # Errors
/// Returns an error for each mistake in `include`, for each included file that cannot be read, and for each section
/// that occurs twice. The caller then does not check the sections, because the sections of unreadable files are
/// missing.
pub(super) fn with_included(
    tree: Node,
    text: &str,
    surroundings: &Surroundings<'_>,
    read: &ReadIncluded<'_>,
) -> Result<(Node, Sources), Vec<ConfigError>> {
    let mut sources = Sources::new(text);
    if tree.member("include").is_none() {
        return Ok((tree, sources));
    }
    let reader = Reader::new(surroundings).with_variables_of(&tree);
    let mut files = Vec::new();
    let mut entries = Vec::new();
    {
        let root = Cursor::root(&reader, &tree);
        for at in root.fields().and_then(|mut fields| included_at(&mut fields)).unwrap_or_default() {
            let Some((name, text)) = at.included_text(read) else { continue };
            match sections(name, &text) {
                Ok(own) => {
                    let keys = own.iter().map(|(key, _)| key.clone()).collect();
                    occur_once(&root, &sources, name, &keys);
                    entries.extend(own);
                    sources.add(Included { name: name.into(), text, sections: keys });
                }
                Err(error) => files.push(error),
            }
        }
    }
    let mut errors = reader.finish(&Sources::new(text)).err().unwrap_or_default();
    errors.extend(files);
    if !errors.is_empty() {
        return Err(errors);
    }
    match tree {
        Node::Map(mut own) => {
            own.extend(entries);
            Ok((Node::Map(own), sources))
        }
        other => Ok((other, sources)),
    }
}

/// Returns the fields of a configuration, including the sections of the included files. Marks the key `include` as
/// known, because this key was read before.
pub(super) fn fields<'n>(root: &Cursor<'n>) -> Option<Fields<'n>> {
    let mut fields = root.fields()?;
    let _ = fields.optional("include");
    Some(fields)
}

fn included_at<'n>(fields: &mut Fields<'n>) -> Option<Vec<Cursor<'n>>> {
    let at = fields.optional("include")?;
    let files = at.list_or_one()?;
    if files.len() > FILES_MAX {
        return at.error(format!("more than {FILES_MAX} files"), "");
    }
    Some(files)
}

/// Reports an error for each section of an included file that the configuration file or an earlier included file
/// contains as well. `name` is the name of the included file, and `keys` are the names of its sections.
fn occur_once(root: &Cursor<'_>, sources: &Sources, name: &str, keys: &Vec<String>) {
    for key in keys {
        let (at, other) = match (root.node().member(key), sources.file_of(key)) {
            (Some(_), _) => (root.section(key), "this file"),
            (None, Some(other)) => (root.section("include"), other),
            (None, None) => continue,
        };
        let message = format!("{other} and {name} both have the section `{key}`");
        let _: Option<()> = at.error(message, "keep the section in one of the two files");
    }
}

/// Returns the sections of an included file as pairs of key and value.
fn sections(name: &str, text: &str) -> Result<Vec<(String, Node)>, ConfigError> {
    let failed = |message: String| ConfigError::of_file(Some(name), message);
    if text.len() > CONFIG_BYTES_MAX {
        return Err(failed("the file is larger than 4 MiB".to_owned()));
    }
    let tree = parse_yaml(Some(name), text)?;
    let Node::Map(entries) = tree else {
        return Err(failed(format!("expected sections of a configuration, found {}", tree.kind())));
    };
    match entries.iter().any(|(key, _)| key == "include") {
        true => {
            let message = "an included file cannot include another file".to_owned();
            let hint = "name both files in the configuration: include: [a.yaml, b.yaml]".to_owned();
            Err(ConfigError { path: "include".to_owned(), hint, ..failed(message) })
        }
        false => Ok(entries),
    }
}

impl<'n> Cursor<'n> {
    /// Reads an included file. Returns the path of the file as written in `include`, and the text of the file.
    fn included_text(&self, read: &ReadIncluded<'_>) -> Option<(&'n str, String)> {
        let path = self.text()?;
        match read(path).map(String::from_utf8) {
            Ok(Ok(text)) => Some((path, text)),
            Ok(Err(_)) => self.error(format!("{} is not UTF-8", self.named_text()), ""),
            Err(error) => {
                let message = format!("cannot read {}: {error}", self.named_text());
                self.error(message, "the path is relative to this file")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::config::{Config, ConfigError, Surroundings};

    const MAIN: &str = "include: shared.yaml
listen: { ingress: [ { address: 127.0.0.1:0 } ] }
agent: { address: 127.0.0.1:8000 }
routes: [ { name: r, path: /r, open: true, forward: /in } ]
";

    fn parse(main: &str, files: &[(&str, &str)]) -> Result<Config, Vec<ConfigError>> {
        let env = |name: &str| (name == "SHARED").then(|| "shared.yaml".to_owned());
        let file = |_: &str| Err(std::io::Error::other("no such file"));
        let include = |path: &str| {
            let found = files.iter().find(|(name, _)| *name == path);
            found
                .map(|(_, text)| text.as_bytes().to_vec())
                .ok_or_else(|| std::io::Error::other("no such file"))
        };
        Config::parse_with(main, &Surroundings { env: &env, file: &file }, &include)
    }

    fn errors(main: &str, files: &[(&str, &str)]) -> Vec<String> {
        parse(main, files).unwrap_err().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn the_sections_of_an_included_file_are_read() {
        let shared = "limits: { connections_max: 7 }\n";
        let config = parse(MAIN, &[("shared.yaml", shared)]).unwrap();
        assert_eq!(config.policy.limits.connections_max, 7);
        let both = MAIN.replace("shared.yaml", "[{ env: SHARED }, other.yaml]");
        let config = parse(&both, &[("shared.yaml", shared), ("other.yaml", "threads: 3\n")]).unwrap();
        assert_eq!((config.policy.limits.connections_max, config.startup.threads), (7, Some(3)));
        // Every section except `include` can be in an included file.
        let (_, rest) = MAIN.split_once('\n').unwrap();
        assert!(parse("include: all.yaml\n", &[("all.yaml", rest)]).is_ok());
    }

    #[test]
    fn a_configuration_includes_at_most_16_files() {
        let names: Vec<_> = (0..17).map(|number| format!("{number}.yaml")).collect();
        let files: Vec<_> = names.iter().map(|name| (name.as_str(), "{}")).collect();
        let main = |count: usize| MAIN.replace("shared.yaml", &format!("[{}]", names[..count].join(", ")));
        assert!(parse(&main(16), &files).is_ok());
        let wrong = errors(&main(17), &files);
        assert!(wrong.len() == 1 && wrong[0].contains("include: more than 16 files"), "{wrong:?}");
    }

    #[test]
    fn mistakes_name_the_file_and_the_line() {
        let wrong = errors(MAIN, &[("shared.yaml", "threads: 2\nlimits:\n  connections: 7\n")]);
        assert_eq!(wrong.len(), 1, "{wrong:?}");
        assert!(wrong[0].starts_with("shared.yaml: line 3: limits.connections: unknown key"), "{wrong:?}");
        let wrong = errors(&MAIN.replace("/r,", "r,"), &[("shared.yaml", "limit: 1\nthreads: no\n")]);
        assert!(wrong[0].starts_with("line 4: routes[0].path: "), "{wrong:?}");
        assert!(wrong[1].starts_with("shared.yaml: line 1: limit: unknown key"), "{wrong:?}");
        assert!(wrong[2].starts_with("shared.yaml: line 2: threads: "), "{wrong:?}");
        let wrong = errors(MAIN, &[("shared.yaml", "a: [1\n")]);
        assert!(wrong[0].starts_with("shared.yaml: line "), "{wrong:?}");
    }

    #[test]
    fn the_contents_of_a_file_that_is_no_configuration_are_not_shown() {
        let shadow = "root:!:19701:0:99999:7:::\npostgres:!:19701:s3cret:\nagnt: { address: 127.0.0.1:1 }\n";
        for text in [shadow, "s3cretword: 1\n", "limits: { \"s3cret:$6$x\": 1 }\n", "s3cret\n", "- s3cret\n"]
        {
            let wrong = errors(MAIN, &[("shared.yaml", text)]);
            assert!(wrong.iter().all(|error| !error.contains("s3cret")), "{wrong:?}");
            assert!(wrong[0].starts_with("shared.yaml: "), "{wrong:?}");
        }
        let wrong = errors(MAIN, &[("shared.yaml", "limit: 1\ns3cret: 2\n")]);
        assert!(wrong[0].starts_with("shared.yaml: line 1: limit: unknown key `limit`"), "{wrong:?}");
        assert!(wrong[1].starts_with("shared.yaml: line 2: an unknown key"), "{wrong:?}");
        // The error for an unknown key contains the key if the key is in the configuration file itself.
        let wrong = errors(&MAIN.replace("include: shared.yaml", "s3cret: 1"), &[]);
        assert!(wrong[0].contains("s3cret: unknown key `s3cret`"), "{wrong:?}");
        let other = |path: &str| errors(&MAIN.replace("shared.yaml", path), &[]);
        assert!(other("[{ env: SHARED }]")[0].contains("in the environment variable SHARED: no such"));
    }

    #[test]
    fn a_section_is_in_one_file_and_files_are_not_nested() {
        let shared = "agent: { address: 127.0.0.1:1 }\n";
        let wrong = errors(MAIN, &[("shared.yaml", shared)]);
        let expected = "line 3: agent: this file and shared.yaml both have the section `agent`";
        assert!(wrong.len() == 1 && wrong[0].starts_with(expected), "{wrong:?}");
        let both = MAIN.replace("shared.yaml", "[shared.yaml, other.yaml]");
        let wrong = errors(&both, &[("shared.yaml", "threads: 1\n"), ("other.yaml", "threads: 2\n")]);
        assert!(wrong[0].contains("shared.yaml and other.yaml both have the section `threads`"), "{wrong:?}");
        let wrong = errors(MAIN, &[("shared.yaml", "include: other.yaml\n")]);
        assert!(wrong[0].starts_with("shared.yaml: include: an included file cannot include"), "{wrong:?}");
        let wrong = errors(MAIN, &[("shared.yaml", "- limits\n")]);
        assert!(wrong[0].starts_with("shared.yaml: expected sections"), "{wrong:?}");
    }
}
