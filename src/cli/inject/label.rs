//! The label `callgate.dev/agent` of the agent's pods, which Services, policies and monitors select.

use super::undo::Record;
use super::yaml::{Mapping, Value, name};

/// The label. Its value is the name of the workload.
pub(super) const LABEL: &str = "callgate.dev/agent";
/// The maximum length of the value of a label.
const VALUE_MAX: usize = 63;

/// Reports whether a name can be the value of a label.
pub(super) fn is_value(text: &str) -> bool {
    let is_end = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    let is_inner = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    text.len() <= VALUE_MAX
        && is_end(text.chars().next())
        && is_end(text.chars().next_back())
        && text.chars().all(is_inner)
}

/// Returns the name by which a workload is known. For a pod of a workload, this is the name of the workload. Returns
/// `None` if the object has no name.
pub(super) fn workload(object: &Mapping) -> Option<String> {
    let metadata = object.get("metadata")?;
    let owners = metadata.get("ownerReferences").and_then(Value::as_sequence);
    let is_controller = |owner: &&Value| owner.get("controller").and_then(Value::as_bool) == Some(true);
    let Some(owner) = owners.into_iter().flatten().find(is_controller) else {
        return name(metadata).map(str::to_owned);
    };
    let owner_name = name(owner)?;
    // The name of a ReplicaSet is the name of its Deployment and the hash of the pod template.
    let hash =
        metadata.get("labels").and_then(|labels| labels.get("pod-template-hash")).and_then(Value::as_str);
    let deployment = hash.and_then(|hash| owner_name.strip_suffix(hash)?.strip_suffix('-'));
    Some(deployment.unwrap_or(owner_name).to_owned())
}

/// Returns the value of the label. If the pods have no such label, adds one with this value.
pub(super) fn put(
    object: &mut Mapping,
    template: &[&str],
    value: &str,
    record: &mut Record,
) -> Result<String, String> {
    let mut at = object;
    for key in template {
        at = at.get_mut(*key).and_then(Value::as_mapping_mut).ok_or("it has no pod")?;
    }
    let metadata = record.mapping(at, "metadata")?;
    let labels = record.mapping(metadata, "labels")?;
    let label = record.text(labels, LABEL, value)?;
    record.label = Some(value.to_owned());
    Ok(label)
}

/// Removes what [`put`] added.
pub(super) fn take(object: &mut Mapping, template: &[&str], record: &Record) {
    // Earlier versions added the label only for several replicas.
    let Some(value) = record.label.as_ref().or(record.replicas.as_ref()) else { return };
    let mut at = object;
    for key in template {
        let Some(next) = at.get_mut(*key).and_then(Value::as_mapping_mut) else { return };
        at = next;
    }
    if let Some(metadata) = at.get_mut("metadata").and_then(Value::as_mapping_mut) {
        if let Some(labels) = metadata.get_mut("labels").and_then(Value::as_mapping_mut) {
            record.unmake_text(labels, LABEL, value);
        }
        record.unmake(metadata, "labels");
    }
    record.unmake(at, "metadata");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::inject::yaml;

    #[test]
    fn a_pod_has_the_name_of_its_workload() {
        for (metadata, expected) in [
            ("{ name: a }", Some("a")),
            ("{ generateName: a- }", None),
            (
                "{ generateName: a-7d-, labels: { pod-template-hash: 7d }, ownerReferences: [ { kind: ReplicaSet, name: a-7d, controller: true } ] }",
                Some("a"),
            ),
            (
                "{ name: a-0, ownerReferences: [ { kind: StatefulSet, name: a, controller: true } ] }",
                Some("a"),
            ),
            ("{ name: a, ownerReferences: [ { kind: Other, name: b } ] }", Some("a")),
        ] {
            let object = yaml::read(&format!("metadata: {metadata}")).unwrap();
            assert_eq!(workload(object.as_mapping().unwrap()).as_deref(), expected, "{metadata}");
        }
        assert!(is_value("a.B_1-c") && !is_value("") && !is_value("-a") && !is_value(&"a".repeat(64)));
    }
}
