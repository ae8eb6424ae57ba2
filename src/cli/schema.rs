//! `callgate schema`: the configuration language for editors.

use std::io::Write as _;

use super::EXIT_DATA;
use crate::config::SCHEMA;

/// The configuration language as JSON Schema.
pub fn schema() -> Option<serde_json::Value> {
    serde_yaml::from_str(SCHEMA).ok()
}

pub(super) fn print() -> u8 {
    let Some(schema) = schema() else { return EXIT_DATA };
    u8::from(writeln!(std::io::stdout(), "{schema:#}").is_err())
}
