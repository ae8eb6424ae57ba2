//! The configuration in use, and the errors of the last configuration that could not be applied.

use std::collections::BTreeMap;

use data_encoding::HEXLOWER;
use parking_lot::Mutex;
use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::config::LoadedSecret;
use crate::time::Timestamp;

/// Number of characters of a version. A version is the beginning of the SHA-256 of a configuration, in hexadecimal.
const VERSION_CHARS: usize = 12;

/// Records which configuration is in use, and the result of the last reload.
#[derive(Debug)]
pub struct ConfigState(Mutex<ConfigStatus>);

/// A snapshot of [`ConfigState`], for the admin listener.
#[derive(Clone, Debug, Serialize)]
pub struct ConfigStatus {
    /// Number of configurations applied so far, including the first one.
    pub generation: u64,
    /// The first characters of the SHA-256 of the configuration file. The files that the configuration names are not
    /// included.
    pub version: String,
    /// Time at which the configuration was applied (RFC 3339).
    pub taken: String,
    /// Whether Callgate runs in development mode.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub dev: bool,
    /// The secrets in use, with their fingerprints. Only callers that may use the callbacks API may see them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub secrets: Vec<LoadedSecret>,
    /// The environment variables whose values are texts of the configuration, with their fingerprints.
    #[serde(skip)]
    pub environment: BTreeMap<String, String>,
    /// The configuration that the last reload rejected, with its errors. `None` if the last reload succeeded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refused: Option<Refused>,
}

/// A configuration that was not applied, with its errors.
#[derive(Clone, Debug, Serialize)]
pub struct Refused {
    /// Time of the attempt (RFC 3339).
    pub at: String,
    /// Version of this configuration, computed like [`ConfigStatus::version`].
    pub version: String,
    /// Every error in this configuration.
    pub errors: Vec<String>,
}

impl ConfigState {
    /// Creates the state for the configuration with which Callgate started. This configuration has generation 1.
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

    /// Records that another configuration was applied. Returns the generation of this configuration.
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

    /// Records the secrets and the environment variables of the configuration in use.
    pub fn loaded(&self, secrets: Vec<LoadedSecret>, environment: BTreeMap<String, String>) {
        let mut status = self.0.lock();
        status.secrets = secrets;
        status.environment = environment;
    }

    /// Records that a new configuration was rejected. The current configuration stays in use.
    pub fn refused(&self, text: &str, errors: Vec<String>, now: Timestamp) {
        self.0.lock().refused = Some(Refused { at: now.to_string(), version: version(text), errors });
    }

    /// Returns a snapshot.
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
