//! Collects the results of reading a configuration: mistakes, warnings, feeds (documents to fetch) and accepted keys.

use std::cell::RefCell;
use std::collections::BTreeMap;

use super::error::{ConfigError, Mistake, Reported};
use super::node::Node;
use super::sources::Sources;
use super::variable::{Variables, variables};
use crate::config::env::Surroundings;
use crate::config::secrets::LoadedSecret;
use crate::policy::Feed;

/// The placeholder that `callgate init` writes for a value that only the user can supply. The placeholder is an error
/// in a configuration.
pub const CHANGE_ME: &str = "CHANGE-ME";

/// The path of a mapping in a configuration, and the keys that the mapping may have. The path is a list of keys, in
/// which `[]` stands for any element of a list.
pub type AcceptedKeys = (Vec<String>, Vec<&'static str>);

/// Collects mistakes, warnings, feeds (documents to fetch) and accepted keys while a configuration is read.
pub(crate) struct Reader<'e> {
    pub(super) surroundings: &'e Surroundings<'e>,
    pub(super) variables: Variables,
    /// The environment variables that were read as ordinary texts, with their values. Variables with secrets are not
    /// included.
    pub(super) used: RefCell<BTreeMap<String, String>>,
    pub(super) mistakes: RefCell<Reported<Mistake>>,
    pub(super) warnings: RefCell<Reported<String>>,
    pub(super) feeds: RefCell<Vec<Feed>>,
    pub(super) secrets: RefCell<Vec<LoadedSecret>>,
    pub(super) accepted: RefCell<Vec<AcceptedKeys>>,
}

impl<'e> Reader<'e> {
    pub(crate) fn new(surroundings: &'e Surroundings<'e>) -> Self {
        Self {
            surroundings,
            variables: Variables::new(),
            used: RefCell::default(),
            mistakes: RefCell::default(),
            warnings: RefCell::default(),
            feeds: RefCell::default(),
            secrets: RefCell::default(),
            accepted: RefCell::default(),
        }
    }

    /// Reads all environment variables that the tree names with `{env: NAME}`, so that texts of the configuration can
    /// come from the environment.
    pub(crate) fn with_variables_of(self, tree: &Node) -> Self {
        Self { variables: variables(tree, self.surroundings), ..self }
    }

    /// Returns the references to all secrets that were read, in the order of their paths in the configuration.
    pub(crate) fn loaded_secrets(&self) -> Vec<LoadedSecret> {
        let mut secrets = self.secrets.borrow().clone();
        secrets.sort_by(|a, b| a.path.cmp(&b.path));
        secrets
    }

    /// Returns the environment variables that were read as ordinary texts, with their values.
    pub(crate) fn used_variables(&self) -> BTreeMap<String, String> {
        self.used.borrow().clone()
    }

    /// Ends the reading of a configuration. Returns the warnings if there are no mistakes. Otherwise returns the
    /// mistakes in the order of the files.
    pub(crate) fn finish(self, sources: &Sources) -> Result<Vec<String>, Vec<ConfigError>> {
        let errors = self.mistakes.into_inner().errors(sources);
        if errors.is_empty() { Ok(self.warnings.into_inner().warnings()) } else { Err(errors) }
    }

    /// Ends the reading of a configuration. Returns the path of each mapping that was read, with the keys that it may
    /// have.
    pub(crate) fn into_accepted_keys(self) -> Vec<AcceptedKeys> {
        self.accepted.into_inner()
    }
}

#[cfg(test)]
mod tests {
    use crate::config::tests::MINIMAL;
    use crate::config::{Config, Surroundings, accepted_keys};

    #[test]
    fn the_environment_variables_with_ordinary_texts_are_recorded() {
        let text = MINIMAL
            .replace("127.0.0.1:8000", "{ env: AGENT }")
            .replace("https://agent.example.com", "{ env: PUBLIC_URL }");
        let recorded = |port: &str| {
            let env = |name: &str| match name {
                "AGENT" => Some(format!("127.0.0.1:{port}")),
                "PUBLIC_URL" => Some("https://agent.example.com".to_owned()),
                _ => Some("0123456789abcdef0123456789abcdef".to_owned()),
            };
            let surroundings = Surroundings { env: &env, file: &|path| std::fs::read(path) };
            Config::parse(&text, &surroundings).unwrap().environment
        };
        let (one, other) = (recorded("8000"), recorded("8001"));
        assert!(one.keys().eq(["AGENT", "PUBLIC_URL"]), "{one:?}");
        assert_eq!(one["PUBLIC_URL"], "3a32a544a8e1");
        assert!(one["PUBLIC_URL"] == other["PUBLIC_URL"] && one["AGENT"] != other["AGENT"]);
    }

    #[test]
    fn the_accepted_keys_of_each_mapping_are_listed() {
        let keys = accepted_keys(
            MINIMAL,
            &Surroundings {
                env: &|_| Some("0123456789abcdef0123456789abcdef".to_owned()),
                file: &|path| std::fs::read(path),
            },
        );
        for (path, key) in [
            ("", "public_url"),
            ("", "egress"),
            ("listen", "ingress"),
            ("providers.p", "allow"),
            ("providers.p.signature", "scheme"),
            ("routes.[]", "forward"),
        ] {
            let found = keys.iter().any(|(at, keys)| at.join(".") == path && keys.contains(&key));
            assert!(found, "{path}: {key} is not in {keys:?}");
        }
    }
}
