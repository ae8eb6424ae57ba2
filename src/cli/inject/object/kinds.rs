//! The kinds of Kubernetes objects that contain a pod template.

use crate::cli::inject::label_selector::CustomKind;
use crate::cli::inject::yaml::{Mapping, Value};

/// The kinds of Kubernetes workloads: `apiVersion`, kind, and path of the pod template. The `apiVersion` is needed
/// because a `Job` can also belong to another API group.
pub(in crate::cli::inject) const KINDS: [(&str, &str, &[&str]); 6] = [
    ("apps/v1", "Deployment", &["spec", "template"]),
    ("apps/v1", "StatefulSet", &["spec", "template"]),
    ("apps/v1", "DaemonSet", &["spec", "template"]),
    ("batch/v1", "Job", &["spec", "template"]),
    ("batch/v1", "CronJob", &["spec", "jobTemplate", "spec", "template"]),
    ("v1", "Pod", &[]),
];

/// Returns the path of the pod template in objects of a kind. Returns `None` if the kind is unknown.
pub(in crate::cli) fn template<'k>(
    version: &str,
    kind: &str,
    custom: &'k [CustomKind],
) -> Option<Vec<&'k str>> {
    let known = KINDS.iter().find(|(versions, name, _)| *name == kind && *versions == version);
    let own = || custom.iter().find(|custom| custom.is(version, kind));
    match known {
        Some((.., path)) => Some(path.to_vec()),
        None => own().map(|custom| custom.template.iter().map(String::as_str).collect()),
    }
}

/// Returns the kind and the name of a Kubernetes object as text.
pub(in crate::cli::inject) fn described(object: &Mapping) -> String {
    let text = |value: Option<&Value>| value.and_then(Value::as_str).map(str::to_owned);
    let name = text(object.get("metadata").and_then(|metadata| metadata.get("name")));
    format!(
        "{} {}",
        text(object.get("kind")).unwrap_or_default(),
        name.as_deref().unwrap_or("without a name")
    )
}
