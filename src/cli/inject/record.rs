//! What the injection changed, kept in an annotation of the workload, so that it can be undone.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::yaml::{Mapping, Sequence, Value};
/// The annotation that says that the sidecar was put in, and what it takes to undo it.
pub(super) const ANNOTATION: &str = "callgate.dev/injected";

/// What was changed besides the sidecar itself.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Record {
    /// The agent's container, where something of it was changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) container: Option<String>,
    /// The port that became the sidecar's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) port: Option<Port>,
    /// Handlers of the agent, such as `livenessProbe.httpGet`, that named the port and now have its number.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) handlers: Vec<String>,
    /// The variable that was set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) env: Option<Env>,
    /// The volumes that were added.
    pub(super) volumes: Vec<String>,
    /// Lists and mappings that were made because they were not there, or were null.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) made: BTreeMap<String, Made>,
}

/// A port of the agent: the entry, and its place among the others.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Port {
    pub(super) at: usize,
    pub(super) entry: Mapping,
}

/// A variable of the agent, and the entry that it had.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Env {
    pub(super) name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) was: Option<Mapping>,
}

/// What stood where a list or mapping was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Made {
    Absent,
    Null,
}

impl Record {
    /// The list under `key`, made if it is not there.
    pub(super) fn list<'a>(
        &mut self,
        parent: &'a mut Mapping,
        key: &str,
    ) -> Result<&'a mut Sequence, String> {
        let value = self.make(parent, key, Value::Sequence(Sequence::new()));
        value.and_then(Value::as_sequence_mut).ok_or_else(|| format!("`{key}` is not a list"))
    }

    /// The mapping under `key`, made if it is not there.
    pub(super) fn mapping<'a>(
        &mut self,
        parent: &'a mut Mapping,
        key: &str,
    ) -> Result<&'a mut Mapping, String> {
        let value = self.make(parent, key, Value::Mapping(Mapping::new()));
        value.and_then(Value::as_mapping_mut).ok_or_else(|| format!("`{key}` is not a mapping"))
    }

    fn make<'a>(&mut self, parent: &'a mut Mapping, key: &str, empty: Value) -> Option<&'a mut Value> {
        let made = match parent.get(key) {
            None => Some(Made::Absent),
            Some(Value::Null) => Some(Made::Null),
            Some(_) => None,
        };
        if let Some(made) = made {
            self.made.insert(key.to_owned(), made);
            // Inserting where there is a key already keeps its place.
            parent.insert(key.into(), empty);
        }
        parent.get_mut(key)
    }

    /// Undoes the making of what is under `key`, unless somebody has put something else into it.
    pub(super) fn unmake(&self, parent: &mut Mapping, key: &str) {
        let is_empty = match parent.get(key) {
            Some(Value::Sequence(items)) => items.is_empty(),
            Some(Value::Mapping(fields)) => fields.is_empty(),
            _ => false,
        };
        match self.made.get(key) {
            Some(Made::Absent) if is_empty => drop(parent.shift_remove(key)),
            Some(Made::Null) if is_empty => drop(parent.insert(key.into(), Value::Null)),
            _ => {}
        }
    }
}
