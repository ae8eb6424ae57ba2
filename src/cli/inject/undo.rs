//! The record of an injection of the sidecar. It is an annotation of the workload, so that `--remove` can undo the
//! injection.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::yaml::{self, Mapping, Sequence, Value, name};

/// The key of the annotation in which `callgate inject` records its changes of a workload.
pub(super) const ANNOTATION: &str = "callgate.dev/injected";

/// The record of the changes that `callgate inject` made in a workload, in addition to the sidecar's container.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Record {
    /// The name of the agent's container, if `callgate inject` changed it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) container: Option<String>,
    /// The agent's port that `callgate inject` moved to the sidecar.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) port: Option<Port>,
    /// The probes and hooks of the agent's container in which `callgate inject` replaced the name of the agent's port
    /// by its number. An example is `livenessProbe.httpGet`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) handlers: Vec<String>,
    /// The environment variable of the agent that `callgate inject` set. Only records of earlier versions contain this
    /// key. Newer records contain `variables`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) env: Option<Env>,
    /// The name of the workload, if it was prepared for several replicas (`--replicas`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) replicas: Option<String>,
    /// The value that `callgate inject` set as the label `callgate.dev/agent` of the pods. If the pods had this label
    /// already, the label kept its own value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) label: Option<String>,
    /// The environment variables that `callgate inject` set in the agent's container.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) variables: Vec<Env>,
    /// The names of the volumes that `callgate inject` added to the pod.
    pub(super) volumes: Vec<String>,
    /// The YAML keys under which `callgate inject` created a list, a mapping or a text, each key with its previous
    /// state.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) made: BTreeMap<String, Made>,
}

/// A port of the agent's container: its entry, and its index in the list of ports.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Port {
    pub(super) at: usize,
    pub(super) entry: Mapping,
}

/// An environment variable of the agent's container, and its entry before `callgate inject` changed it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Env {
    pub(super) name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) was: Option<Mapping>,
}

/// The state of a YAML key before `callgate inject` created a value under it: the key was absent, or its value was null
/// or an empty text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Made {
    Absent,
    Null,
    Empty,
}

impl Record {
    /// Returns the list under `key` of a mapping. If the key is absent or null, creates an empty list and records this
    /// change.
    pub(super) fn list<'a>(
        &mut self,
        parent: &'a mut Mapping,
        key: &str,
    ) -> Result<&'a mut Sequence, String> {
        let value = self.make(parent, key, Value::Sequence(Sequence::new()));
        value.and_then(Value::as_sequence_mut).ok_or_else(|| format!("`{key}` is not a list"))
    }

    /// Returns the mapping under `key` of another mapping. If the key is absent or null, creates an empty mapping and
    /// records this change.
    pub(super) fn mapping<'a>(
        &mut self,
        parent: &'a mut Mapping,
        key: &str,
    ) -> Result<&'a mut Mapping, String> {
        let value = self.make(parent, key, Value::Mapping(Mapping::new()));
        value.and_then(Value::as_mapping_mut).ok_or_else(|| format!("`{key}` is not a mapping"))
    }

    /// Returns the text under `key` of a mapping. If the key is absent or null, or if its text is empty, sets the text
    /// to `new` and records this change.
    pub(super) fn text(&mut self, parent: &mut Mapping, key: &str, new: &str) -> Result<String, String> {
        if parent.get(key).and_then(Value::as_str) == Some("") {
            self.made.insert(key.to_owned(), Made::Empty);
            parent.insert(key.into(), new.into());
        }
        let value = self.make(parent, key, Value::from(new));
        let text = value.and_then(|value| value.as_str()).filter(|text| !text.is_empty());
        text.map(str::to_owned).ok_or_else(|| format!("`{key}` is not a name"))
    }

    /// Sets `key` of a mapping to the number `new` and records this change. Does nothing if the key has a value that is
    /// not null.
    pub(super) fn number(&mut self, parent: &mut Mapping, key: &str, new: u64) {
        self.make(parent, key, Value::from(new));
    }

    /// Sets an environment variable of a container to a text, and records the entry that the variable had before.
    pub(super) fn set(&mut self, container: &mut Mapping, variable: &str, value: &str) -> Result<(), String> {
        let mut entry = Mapping::new();
        entry.insert("name".into(), variable.into());
        entry.insert("value".into(), value.into());
        let env = self.list(container, "env")?;
        let mut old = env.iter_mut().filter(|old| name(old) == Some(variable));
        let was = match (old.next(), old.next()) {
            // If a variable had several entries, Kubernetes would use the last one, and `--remove` would have to
            // restore all of them.
            (Some(_), Some(_)) => {
                return Err(format!("`env` of the agent has {variable} more than once; keep one of them"));
            }
            (Some(old), None) => match std::mem::replace(old, entry.into()) {
                Value::Mapping(was) => Some(was),
                _ => None,
            },
            (None, _) => {
                env.push(entry.into());
                None
            }
        };
        self.variables.push(Env { name: variable.to_owned(), was });
        Ok(())
    }

    /// Restores the entries that the environment variables of a container had before `callgate inject` changed them.
    /// The last changed variable is restored first.
    pub(super) fn unset(&self, container: &mut Mapping) {
        if let Some(env) = container.get_mut("env").and_then(Value::as_sequence_mut) {
            for Env { name: variable, was } in self.env.iter().chain(&self.variables).rev() {
                let Some(at) = env.iter().position(|entry| name(entry) == Some(variable.as_str())) else {
                    continue;
                };
                drop(env.remove(at));
                if let Some(was) = was {
                    env.insert(at, was.clone().into());
                }
            }
        }
        self.unmake(container, "env");
    }

    fn make<'a>(&mut self, parent: &'a mut Mapping, key: &str, empty: Value) -> Option<&'a mut Value> {
        let made = match parent.get(key) {
            None => Some(Made::Absent),
            Some(Value::Null) => Some(Made::Null),
            Some(_) => None,
        };
        if let Some(made) = made {
            self.made.insert(key.to_owned(), made);
            // A key whose value was null stays at its position among the keys of `parent`.
            parent.insert(key.into(), empty);
        }
        parent.get_mut(key)
    }

    /// Restores the previous state of `key`, if `callgate inject` created the text under this key and the text is still
    /// `text`.
    pub(super) fn unmake_text(&self, parent: &mut Mapping, key: &str, text: &str) {
        if parent.get(key).and_then(Value::as_str) == Some(text) {
            self.restore(parent, key);
        }
    }

    /// Restores the previous state of `key`, if `callgate inject` created the number under this key and the number is
    /// still `number`.
    pub(super) fn unmake_number(&self, parent: &mut Mapping, key: &str, number: u64) {
        if parent.get(key).and_then(Value::as_u64) == Some(number) {
            self.restore(parent, key);
        }
    }

    /// Restores the previous state of `key`, if `callgate inject` created the list or mapping under this key and it is
    /// empty again.
    pub(super) fn unmake(&self, parent: &mut Mapping, key: &str) {
        let is_empty = match parent.get(key) {
            Some(Value::Sequence(items)) => items.is_empty(),
            Some(Value::Mapping(fields)) => fields.is_empty(),
            _ => false,
        };
        if is_empty {
            self.restore(parent, key);
        }
    }

    fn restore(&self, parent: &mut Mapping, key: &str) {
        match self.made.get(key) {
            Some(Made::Absent) => drop(parent.shift_remove(key)),
            Some(Made::Null) => drop(parent.insert(key.into(), Value::Null)),
            Some(Made::Empty) => drop(parent.insert(key.into(), "".into())),
            None => {}
        }
    }
}

/// Reports whether two records describe the same change of a workload. The previous states of keys are not compared,
/// because they differ if somebody added entries under these keys after the first injection.
pub(super) fn is_same_change(one: &str, other: &str) -> bool {
    let change = |text: &str| {
        let mut record: Mapping = yaml::from_text(text).ok()?;
        record.shift_remove("made");
        Some(record)
    };
    change(one).is_some_and(|one| Some(one) == change(other))
}
