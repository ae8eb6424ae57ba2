//! Reads the kind and the metadata of a Kubernetes object. The rest of the object is skipped and needs no memory. The
//! webhook can therefore decide to leave a large object unchanged without parsing the whole object.

use std::fmt;

use serde::de::{DeserializeSeed, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::size;

/// The keys in an object's `metadata` by which the webhook decides whether the object gets the sidecar.
const METADATA: [&str; 5] = ["annotations", "deletionTimestamp", "generateName", "labels", "name"];

/// The group, the version and the kind of a Kubernetes object, as an AdmissionReview contains them.
#[derive(Deserialize)]
pub(super) struct GroupVersionKind {
    #[serde(default)]
    group: String,
    #[serde(default)]
    version: String,
    #[serde(default)]
    kind: String,
}

impl GroupVersionKind {
    /// Adds `apiVersion` and `kind` to an object that lacks them.
    pub(super) fn complete(&self, object: &mut Value) {
        let Some(object) = object.as_object_mut() else { return };
        let version = match self.group.as_str() {
            "" => self.version.clone(),
            group => format!("{group}/{}", self.version),
        };
        for (key, value) in [("apiVersion", version), ("kind", self.kind.clone())] {
            if object.get(key).is_none_or(Value::is_null) {
                object.insert(key.to_owned(), value.into());
            }
        }
    }
}

/// Returns `apiVersion`, `kind` and the part of the metadata that decides whether an object gets the sidecar. If the
/// object lacks `apiVersion` or `kind`, uses the value in the argument `kind`. Returns `None` if the metadata has more
/// than [`size::VALUES_MAX`] values.
pub(super) fn read(object: &RawValue, kind: Option<&GroupVersionKind>) -> Option<Value> {
    let mut head = Map::new();
    for key in ["apiVersion", "kind"] {
        if let Some(value) = member(object, key) {
            head.insert(key.to_owned(), size::limited(value)?);
        }
    }
    head.insert("metadata".to_owned(), metadata(object)?);
    let mut head = Value::from(head);
    if let Some(kind) = kind {
        kind.complete(&mut head);
    }
    Some(head)
}

/// Adds the metadata of an object's pod template to `head`. `template` is the path of the pod template. Does nothing if
/// there is no pod template at this path. Returns `None` if the metadata has more than [`size::VALUES_MAX`] values.
pub(super) fn add_template(head: &mut Value, object: &RawValue, template: &[&str]) -> Option<()> {
    let Some((first, rest)) = template.split_first() else { return Some(()) };
    let Some(pod) = template.iter().try_fold(object, |at, key| member(at, key)) else { return Some(()) };
    let mut inner = Value::from(Map::from_iter([("metadata".to_owned(), metadata(pod)?)]));
    for key in rest.iter().rev() {
        inner = Value::from(Map::from_iter([((*key).to_owned(), inner)]));
    }
    head.as_object_mut()?.insert((*first).to_owned(), inner);
    Some(())
}

/// Returns `spec.serviceName` of an object. Returns an empty text if the key is absent.
pub(super) fn service_name(object: &RawValue) -> String {
    let name = member(object, "spec").and_then(|spec| member(spec, "serviceName"));
    name.and_then(|name| serde_json::from_str(name.get()).ok()).unwrap_or_default()
}

fn metadata(object: &RawValue) -> Option<Value> {
    let mut found = Map::new();
    if let Some(metadata) = member(object, "metadata") {
        for key in METADATA {
            if let Some(value) = member(metadata, key) {
                found.insert(key.to_owned(), size::limited(value)?);
            }
        }
    }
    Some(found.into())
}

/// Returns the value of one key of a JSON object. Returns `None` if the key is absent, or if `json` is not an object.
fn member<'a>(json: &'a RawValue, key: &str) -> Option<&'a RawValue> {
    let mut from = serde_json::Deserializer::from_str(json.get());
    Key(key).deserialize(&mut from).ok().flatten()
}

/// Deserializes the value of one key of a JSON object.
struct Key<'k>(&'k str);

impl<'de> DeserializeSeed<'de> for Key<'_> {
    type Value = Option<&'de RawValue>;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Self::Value, D::Error> {
        from.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Key<'_> {
    type Value = Option<&'de RawValue>;

    fn expecting(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Self::Value, A::Error> {
        let mut found = None;
        while let Some(key) = fields.next_key::<String>()? {
            if key == self.0 {
                found = Some(fields.next_value()?);
            } else {
                fields.next_value::<IgnoredAny>()?;
            }
        }
        Ok(found)
    }
}
