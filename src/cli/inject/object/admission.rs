//! Adds the sidecar to one object that somebody creates or updates in the cluster, for the webhook.

use super::choice::{Choice, change, choice};
use super::kinds::template;
use super::settled::is_settled;
use crate::cli::inject::notes::Note;
use crate::cli::inject::sidecar::Sidecar;
use crate::cli::inject::workload;
use crate::cli::inject::yaml::{self, Mapping, Value};

/// The result of [`inject_object`], which adds the sidecar to one Kubernetes object.
pub enum Rewritten {
    /// The object with the sidecar, and hints for its author.
    Changed(serde_json::Value, Vec<String>),
    /// The object did not change: it is not a workload, it is not selected, or it has the sidecar already.
    Unchanged,
}

/// The operation of the API server on a Kubernetes object.
pub(in crate::cli) enum Operation {
    /// The object is created.
    Create,
    /// The object exists and is updated by the operation.
    Update {
        /// The `serviceName` of the object before the update. Empty if the object had none. Kubernetes does not allow
        /// to change this key of a StatefulSet.
        service_name: String,
    },
}

impl Operation {
    fn is_create(&self) -> bool {
        matches!(self, Self::Create)
    }

    /// Returns the `serviceName` that the update of a StatefulSet must not change. Returns `None` if the operation can
    /// set any `serviceName`.
    fn service_name(&self, kind: &str) -> Option<&str> {
        match self {
            Self::Update { service_name } if kind == "StatefulSet" => Some(service_name),
            _ => None,
        }
    }
}

/// Reports whether [`inject_object`] leaves an object unchanged because of its kind and its metadata. `object` needs
/// only `apiVersion`, `kind`, `metadata` and the metadata of its pod template.
pub(in crate::cli) fn is_left(object: &serde_json::Value, sidecar: &Sidecar, operation: &Operation) -> bool {
    let Ok(value) = yaml::from_json(object) else { return false };
    let Some(object) = value.as_mapping() else { return false };
    let Some(template) = template(text(object, "apiVersion"), text(object, "kind"), &sidecar.custom) else {
        return true;
    };
    match choice(object, &template, sidecar) {
        Ok(Choice::NotSelected) => true,
        Ok(Choice::OptedOut(_)) => operation.is_create() || !workload::has_record(object),
        Ok(Choice::Inject(_)) | Err(_) => false,
    }
}

fn text<'o>(object: &'o Mapping, key: &str) -> &'o str {
    object.get(key).and_then(Value::as_str).unwrap_or_default()
}

/// Adds the sidecar to one Kubernetes object. If an updated object has opted out of the sidecar, removes the sidecar
/// from it. If a new object has opted out, does not change it, even if it has the record of an earlier sidecar. Does
/// not return the objects that `--with` would add.
pub(in crate::cli) fn inject_object(
    before: &serde_json::Value,
    sidecar: &Sidecar,
    operation: &Operation,
) -> Result<Rewritten, String> {
    let mut value = yaml::from_json(before)?;
    let object = value.as_mapping_mut().ok_or("not a Kubernetes object, which is a mapping")?;
    let (version, kind) = (text(object, "apiVersion").to_owned(), text(object, "kind").to_owned());
    let Some(template) = template(&version, &kind, &sidecar.custom) else { return Ok(Rewritten::Unchanged) };
    let is_new_pod = operation.is_create() && kind == "Pod";
    let has_record = workload::has_record(object);
    let stays = match choice(object, &template, sidecar)? {
        Choice::NotSelected => true,
        Choice::OptedOut(_) => operation.is_create() || !has_record,
        // A pod that has the sidecar stays unchanged. A workload of another kind that has the sidecar stays unchanged
        // if it has no record of an injection, because the sidecar cannot be replaced without a record.
        Choice::Inject(_) => {
            let is_present = workload::has_sidecar(object, &template)? && (kind == "Pod" || !has_record);
            if is_present {
                workload::check_present(object, &template)?;
            }
            is_present
        }
    };
    if stays {
        return Ok(Rewritten::Unchanged);
    }
    if is_new_pod {
        workload::forget_stale_record(object);
    }
    let mut notes = Vec::new();
    change(object, &template, sidecar, operation.service_name(&kind), &mut notes)?;
    let after = serde_json::to_value(&value).map_err(|error| error.to_string())?;
    if has_record && is_settled(before, &after) {
        return Ok(Rewritten::Unchanged);
    }
    Ok(Rewritten::Changed(after, notes.into_iter().map(Note::into_text).collect()))
}
