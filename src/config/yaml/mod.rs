//! Parses YAML into a tree of values, and gives typed access to the tree. Every mistake is recorded with its position.

#[cfg(test)]
pub(super) mod call_sites;
mod cursor;
mod depth;
mod error;
mod fields;
mod key_path;
mod node;
mod positions;
mod public_url;
mod reader;
mod sources;
mod suggest;
mod variable;

pub use depth::{check_depth, has_alias};
pub use error::{ConfigError, ERRORS_MAX};
pub use key_path::Position;
#[cfg(feature = "proxy")]
pub(crate) use key_path::Step;
pub use positions::Outline;
pub use reader::{AcceptedKeys, CHANGE_ME};
pub use sources::Sources;

pub(super) use cursor::{Cursor, filled_hint};
pub(super) use fields::Fields;
pub(super) use node::{Node, parse_yaml};
pub(super) use reader::Reader;
pub(super) use sources::Included;
pub(super) use suggest::{did_you_mean, is_name, shown, shown_url};

/// Parses one YAML document. Returns `None` if the text is not a valid document of this type.
pub fn from_yaml<T: serde::de::DeserializeOwned>(text: &str) -> Option<T> {
    check_depth(text).ok()?;
    serde_yaml::from_str(text).ok()
}

/// Converts a value to YAML. Returns `None` if YAML cannot represent the value.
pub fn to_yaml<T: serde::Serialize>(value: &T) -> Option<String> {
    serde_yaml::to_string(value).ok()
}
