//! The providers we know, as data: one YAML file each, in the language of the configuration, embedded in
//! the binary and read by the code that reads a user's own scheme.

use super::node::Node;
use super::provider;
use super::reader::{Reader, Surroundings};
use crate::signature::Scheme;

/// A provider we know.
#[derive(Clone, Copy, Debug)]
pub struct Preset {
    /// Its name in the configuration.
    pub name: &'static str,
    /// Its YAML.
    pub text: &'static str,
}

/// Every preset, alphabetically.
pub const PRESETS: &[Preset] = &[
    Preset { name: "github", text: include_str!("presets/github.yaml") },
    Preset { name: "slack", text: include_str!("presets/slack.yaml") },
    Preset { name: "standard-webhooks", text: include_str!("presets/standard-webhooks.yaml") },
    Preset { name: "stripe", text: include_str!("presets/stripe.yaml") },
];

/// The names of all presets.
pub(super) fn names() -> Vec<&'static str> {
    PRESETS.iter().map(|preset| preset.name).collect()
}

/// The scheme of a preset; `None` when there is no such preset.
pub(super) fn scheme(name: &str) -> Option<Scheme> {
    read(PRESETS.iter().find(|preset| preset.name == name)?).ok()
}

/// Compiles a preset.
fn read(preset: &Preset) -> Result<Scheme, String> {
    let nothing =
        Surroundings { env: &|_| None, file: &|_| Err(std::io::Error::other("presets read no files")) };
    let tree = Node::parse(preset.text).map_err(|(message, _)| message)?;
    let reader = Reader::new(&nothing);
    let scheme = reader.root(&tree).fields().and_then(|mut fields| {
        for key in ["title", "source", "covers"] {
            fields.required(key)?.text()?;
        }
        let mut signature = fields.required("signature")?.fields()?;
        fields.finish();
        let scheme = provider::scheme(&mut signature);
        signature.finish();
        scheme
    });
    let list = |errors: Vec<_>| errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
    reader.finish(preset.text).map_err(list)?;
    scheme.ok_or_else(|| "incomplete".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_preset_compiles_and_the_list_is_sorted() {
        for preset in PRESETS {
            assert!(read(preset).is_ok(), "{}: {:?}", preset.name, read(preset).err());
        }
        assert!(names().is_sorted());
    }
}
