//! The label `callgate.dev/agent` of the agent's pods. Services, network policies and monitors select the pods by it.

use super::undo::Record;
use super::yaml::{Mapping, Value, name};

/// The key of the label on the agent's pods. Its value is the name of the workload.
pub(super) const LABEL: &str = "callgate.dev/agent";
/// The key of the annotation that overrides the name of a workload in labels and in the names of added objects.
pub(super) const NAME: &str = "callgate.dev/name";
/// The labels of a pod that contain the hash of its pod template, for a Deployment and for a Rollout of Argo. The name
/// of a ReplicaSet is the name of its Deployment or Rollout, a hyphen and this hash.
const HASHES: [&str; 2] = ["pod-template-hash", "rollouts-pod-template-hash"];
/// The numbers with which the names of a CronJob's Jobs can end. Each number is a time in minutes since 1970. The range
/// covers the years 2017 to 2065.
const SCHEDULES: std::ops::Range<u32> = 25_000_000..50_000_000;
/// The maximum length of the value of a Kubernetes label.
const VALUE_MAX: usize = 63;

/// Reports whether a name can be the value of a Kubernetes label.
pub(super) fn is_value(text: &str) -> bool {
    let is_end = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    let is_inner = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    text.len() <= VALUE_MAX
        && is_end(text.chars().next())
        && is_end(text.chars().next_back())
        && text.chars().all(is_inner)
}

/// Returns the name of a workload. For a pod, this is the name of the workload that controls the pod, such as a
/// Deployment. For a Job of a CronJob, it is the name of the CronJob. Returns `None` if the object has no name.
pub(super) fn workload(object: &Mapping) -> Option<String> {
    let metadata = object.get("metadata")?;
    let own_kind = object.get("kind").and_then(Value::as_str);
    let is_pod = own_kind == Some("Pod");
    // Only a pod, and a Job of a CronJob, gets the name of its controller. Other workloads keep their own names, even
    // if a custom resource controls them.
    let is_cron_job = |owner: &&Value| owner.get("kind").and_then(Value::as_str) == Some("CronJob");
    let is_followed = |owner: &&Value| is_pod || own_kind == Some("Job") && is_cron_job(owner);
    let Some(owner) = controller(object).filter(is_followed) else {
        let prefix = || metadata.get("generateName").and_then(Value::as_str).filter(|_| is_pod);
        let name = name(metadata).or_else(|| Some(prefix()?.trim_end_matches('-')));
        return name.filter(|name| !name.is_empty()).map(str::to_owned);
    };
    let owner_name = name(owner)?;
    let written = match owner.get("kind").and_then(Value::as_str) {
        Some("ReplicaSet") => HASHES.iter().find_map(|label| {
            let hash = metadata.get("labels")?.get(*label)?.as_str()?;
            owner_name.strip_suffix(hash)?.strip_suffix('-')
        }),
        Some("Job") => without_schedule(owner_name),
        _ => None,
    };
    Some(written.unwrap_or(owner_name).to_owned())
}

/// Returns the reference to the controller of a Kubernetes object, such as the StatefulSet of a pod.
fn controller(object: &Mapping) -> Option<&Value> {
    let owners = object.get("metadata")?.get("ownerReferences")?.as_sequence()?;
    owners.iter().find(|owner| owner.get("controller").and_then(Value::as_bool) == Some(true))
}

/// Returns the kind of the controller of a Kubernetes object. Returns `None` if the object has no controller.
pub(super) fn controller_kind(object: &Mapping) -> Option<&str> {
    controller(object)?.get("kind")?.as_str()
}

/// Reports whether a Kubernetes object is a pod that a StatefulSet controls.
pub(super) fn is_pod_of_stateful_set(object: &Mapping) -> bool {
    object.get("kind").and_then(Value::as_str) == Some("Pod")
        && controller_kind(object) == Some("StatefulSet")
}

/// Returns the name of the CronJob that created the Job with this name. Returns `None` if the name of the Job does not
/// end with a time in minutes. A date such as `20260102` is not in the range of these times.
fn without_schedule(job: &str) -> Option<&str> {
    let (cron_job, minutes) = job.rsplit_once('-')?;
    let is_number = minutes.chars().all(|c| c.is_ascii_digit());
    let minutes: u32 = minutes.parse().ok().filter(|_| is_number)?;
    (SCHEDULES.contains(&minutes) && !cron_job.is_empty()).then_some(cron_job)
}

/// Checks the name of a workload from the annotation [`NAME`]. The name becomes a part of the names of added objects.
pub(super) fn named(text: String) -> Result<String, String> {
    let is_word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '.');
    match is_value(&text) && text.chars().all(is_word) {
        true => Ok(text),
        false => Err(format!(
            "the annotation {NAME} is not a name: at most {VALUE_MAX} lower-case letters, digits, hyphens and dots"
        )),
    }
}

/// Returns the error about a workload without a name. `what` is the option that needs the name.
pub(super) fn nameless(what: &str) -> String {
    format!("it has no name, which {what} needs; the annotation {NAME} can give it one")
}

/// Returns the value of the label [`LABEL`] of a workload's pods. If the pods have no such label, first adds the label
/// with `value`.
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

/// Removes the label that [`put`] added to a workload's pods.
pub(super) fn take(object: &mut Mapping, template: &[&str], record: &Record) {
    // The records of earlier versions have no `label`, because these versions added the label only with `--replicas`.
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
            ("{ generateName: a- }", Some("a")),
            ("{ generateName: '-' }", None),
            ("{}", None),
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
            let object = yaml::read(&format!("kind: Pod\nmetadata: {metadata}")).unwrap();
            assert_eq!(workload(object.as_mapping().unwrap()).as_deref(), expected, "{metadata}");
        }
        // A Job with `generateName` has no name in its manifest. Each creation makes a Job with another name.
        let object = yaml::read("kind: Job\nmetadata: { generateName: a- }").unwrap();
        assert_eq!(workload(object.as_mapping().unwrap()), None);
        for (job, expected) in [
            ("nightly-29912345", Some("nightly")),
            ("report-29912345-29912346", Some("report-29912345")),
            ("backup-20260102", None),
            ("run-7", None),
            ("run-x7k2p", None),
            ("run-+2991234", None),
            ("-29912345", None),
            ("29912345", None),
        ] {
            assert_eq!(without_schedule(job), expected, "{job}");
        }
        assert!(is_value("a.B_1-c") && !is_value("") && !is_value("-a") && !is_value(&"a".repeat(64)));
    }
}
