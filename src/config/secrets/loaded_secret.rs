//! The secrets that a configuration refers to, without their values.

use std::fmt;

use serde::Serialize;

use crate::secret::Secret;

/// A reference to a secret in the configuration, without the value of the secret.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct LoadedSecret {
    /// The path of the reference to the secret in the configuration, such as `providers.p.secrets[0]`.
    pub path: String,
    /// The environment variable or the file that contains the secret.
    pub source: String,
    /// The fingerprint of the secret. `None` if the secret is too short to have a fingerprint, or if it is a password.
    pub fingerprint: Option<String>,
}

impl LoadedSecret {
    pub(in crate::config) fn new(path: String, source: String, secret: &Secret) -> Self {
        Self { path, source, fingerprint: secret.fingerprint() }
    }

    /// Creates a reference to a password. The reference has no fingerprint: people choose passwords that can be
    /// guessed, and an attacker could check a guess with the fingerprint.
    pub(in crate::config) fn password(path: String, source: String) -> Self {
        Self { path, source, fingerprint: None }
    }

    /// Returns the fingerprint of the secret, or the reason why the secret has no fingerprint.
    pub fn shown(&self) -> &str {
        self.fingerprint.as_deref().unwrap_or("none (short, or a password)")
    }
}

impl fmt::Display for LoadedSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} from {}: fingerprint {}", self.path, self.source, self.shown())
    }
}

#[cfg(test)]
mod tests {
    use crate::config::tests::MINIMAL;
    use crate::config::{Config, Surroundings};

    #[test]
    fn the_secrets_are_listed_by_path_without_their_values() {
        let store = "store: { kind: redis, redis: { nodes: [a:1], password: { env: PASSWORD } } }\nagent:";
        let text =
            MINIMAL.replacen("agent:", store, 1).replace("{ env: SECRET }", "{ env: SECRET }, { file: /s }");
        let env = |name: &str| match name {
            "SECRET" => Some("hush".to_owned()),
            _ => Some("0123456789abcdef0123456789abcdef".to_owned()),
        };
        let file = |_: &str| Ok(b"a secret of sixteen bytes or more".to_vec());
        let secrets = Config::parse(&text, &Surroundings { env: &env, file: &file }).unwrap().secrets;
        let lines: Vec<_> = secrets.iter().map(ToString::to_string).collect();
        let none = "fingerprint none (short, or a password)";
        assert_eq!(
            lines,
            [
                "callback_tokens.keys[0].secret from the environment variable KEY: fingerprint 52716c0c",
                &format!("providers.p.signature.secrets[0] from the environment variable SECRET: {none}"),
                "providers.p.signature.secrets[1] from the file /s: fingerprint 9cc29a5c",
                &format!("store.redis.password from the environment variable PASSWORD: {none}"),
            ]
        );
    }
}
