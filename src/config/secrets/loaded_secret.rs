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
