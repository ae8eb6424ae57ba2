//! Which configuration is served by, and why not another one.

use data_encoding::HEXLOWER;
use parking_lot::Mutex;
use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::time::Timestamp;

/// How many characters tell one configuration from another.
const VERSION_CHARS: usize = 12;

/// Which configuration is served by, and what became of the last attempt to take another.
#[derive(Debug)]
pub struct ConfigState(Mutex<Told>);

/// The same, as it is told.
#[derive(Clone, Debug, Serialize)]
pub struct Told {
    /// How often a configuration was taken, the one of the start included.
    pub generation: u64,
    /// The beginning of the SHA-256 of its text: what is in other files does not count.
    pub version: String,
    /// When it was taken (RFC 3339).
    pub taken: String,
    /// Why the files that are there now were not taken; `None`: they were.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refused: Option<Refused>,
}

/// Why a configuration was not taken.
#[derive(Clone, Debug, Serialize)]
pub struct Refused {
    /// When (RFC 3339).
    pub at: String,
    /// As [`Told::version`].
    pub version: String,
    /// Every mistake.
    pub errors: Vec<String>,
}

impl ConfigState {
    /// The first one was taken.
    pub fn new(text: &str, now: Timestamp) -> Self {
        Self(Mutex::new(Told {
            generation: 1,
            version: version(text),
            taken: now.to_string(),
            refused: None,
        }))
    }

    /// Another one was taken. Returns which it is.
    pub fn taken(&self, text: &str, now: Timestamp) -> u64 {
        let mut told = self.0.lock();
        *told = Told {
            generation: told.generation + 1,
            version: version(text),
            taken: now.to_string(),
            refused: None,
        };
        told.generation
    }

    /// Another one was not taken.
    pub fn refused(&self, text: &str, errors: Vec<String>, now: Timestamp) {
        self.0.lock().refused = Some(Refused { at: now.to_string(), version: version(text), errors });
    }

    /// What there is to tell.
    pub fn told(&self) -> Told {
        self.0.lock().clone()
    }
}

fn version(text: &str) -> String {
    let mut version = HEXLOWER.encode(&Sha256::digest(text));
    version.truncate(VERSION_CHARS);
    version
}
