//! The configuration in use, and the errors of a configuration that the last reload rejected.

use std::collections::BTreeMap;

use data_encoding::HEXLOWER;
use parking_lot::Mutex;
use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::config::LoadedSecret;
use crate::time::Timestamp;

/// The length of a configuration version, in characters. The version is the beginning of the SHA-256 of a
/// configuration, in hexadecimal.
const VERSION_CHARS: usize = 12;

/// Records which configuration is in use, and the errors of a configuration that the last reload rejected.
#[derive(Debug)]
pub struct ConfigState(Mutex<ConfigStatus>);

/// A snapshot of [`ConfigState`], which records the configuration in use. The admin listener returns the snapshot as
/// JSON.
#[derive(Clone, Debug, Serialize)]
pub struct ConfigStatus {
    /// The number of configurations that were applied since the start of the process. The configuration at startup is
    /// included.
    pub generation: u64,
    /// The version of the configuration in use: the first characters of the SHA-256 of the configuration file and of
    /// the files that it includes. Secrets and certificates are not part of the version.
    pub version: String,
    /// The time at which the configuration in use was applied (RFC 3339).
    pub taken: String,
    /// Whether Callgate runs in development mode.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub dev: bool,
    /// The secrets of the configuration in use, with their fingerprints. Only callers that may use the callbacks API
    /// may see this list.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub secrets: Vec<LoadedSecret>,
    /// The environment variables whose values the configuration uses as ordinary texts, not as secrets. Maps the name
    /// of each variable to the fingerprint of its value.
    #[serde(skip)]
    pub environment: BTreeMap<String, String>,
    /// The configuration that the last reload rejected, with its errors. `None` if the last reload succeeded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refused: Option<Refused>,
}

/// A configuration that a reload rejected, with its errors.
#[derive(Clone, Debug, Serialize)]
pub struct Refused {
    /// The time at which the reload rejected the configuration (RFC 3339).
    pub at: String,
    /// The version of the rejected configuration, in the same format as [`ConfigStatus::version`].
    pub version: String,
    /// All errors in the rejected configuration.
    pub errors: Vec<String>,
}

impl ConfigState {
    /// Creates the configuration state at startup. `text` is the text of the configuration with which Callgate started.
    /// This configuration has the generation number 1.
    pub fn new(text: &str, now: Timestamp) -> Self {
        Self(Mutex::new(ConfigStatus {
            generation: 1,
            version: version(text),
            taken: now.to_string(),
            dev: false,
            secrets: Vec::new(),
            environment: BTreeMap::new(),
            refused: None,
        }))
    }

    /// Records whether Callgate runs in development mode.
    #[must_use]
    pub fn in_dev_mode(self, dev: bool) -> Self {
        self.0.lock().dev = dev;
        self
    }

    /// Records that a reload applied a new configuration. `text` is the text of the new configuration. Returns the
    /// generation number of the new configuration.
    pub fn taken(&self, text: &str, now: Timestamp) -> u64 {
        let mut status = self.0.lock();
        *status = ConfigStatus {
            generation: status.generation + 1,
            version: version(text),
            taken: now.to_string(),
            dev: status.dev,
            secrets: std::mem::take(&mut status.secrets),
            environment: std::mem::take(&mut status.environment),
            refused: None,
        };
        status.generation
    }

    /// Records the secrets and the environment variables that the configuration in use has read.
    pub fn loaded(&self, secrets: Vec<LoadedSecret>, environment: BTreeMap<String, String>) {
        let mut status = self.0.lock();
        status.secrets = secrets;
        status.environment = environment;
    }

    /// Records that a reload rejected a new configuration. The current configuration stays in use.
    pub fn refused(&self, text: &str, errors: Vec<String>, now: Timestamp) {
        self.0.lock().refused = Some(Refused { at: now.to_string(), version: version(text), errors });
    }

    /// Returns a snapshot of the configuration state.
    pub fn status(&self) -> ConfigStatus {
        self.0.lock().clone()
    }
}

/// Returns the version of a configuration: the beginning of the SHA-256 of its text, in hexadecimal.
pub fn version(text: &str) -> String {
    let mut version = HEXLOWER.encode(&Sha256::digest(text));
    version.truncate(VERSION_CHARS);
    version
}
