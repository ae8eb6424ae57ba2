//! Finds the workloads in a file of manifests. All other documents stay unchanged, including their comments.

use super::replicas::{identity, is_companion};
use super::scaling::Scaling;
use super::sidecar::Sidecar;
use super::yaml::{Mapping, Value};
use super::{notes, workload, yaml};

/// The kinds of workloads: the beginning of `apiVersion`, the kind, and the path of the pod template. The beginning of
/// `apiVersion` is compared, too, because other API groups also define a `Job`.
const KINDS: [(&str, &str, &[&str]); 6] = [
    ("apps/", "Deployment", &["spec", "template"]),
    ("apps/", "StatefulSet", &["spec", "template"]),
    ("apps/", "DaemonSet", &["spec", "template"]),
    ("batch/", "Job", &["spec", "template"]),
    ("batch/", "CronJob", &["spec", "jobTemplate", "spec", "template"]),
    ("v1", "Pod", &[]),
];

/// The result of [`inject`] or [`remove`].
#[derive(Debug)]
pub struct Injected {
    /// The new text of the whole file.
    pub text: String,
    /// Hints for the author of the manifests.
    pub notes: Vec<String>,
}

/// A change of a workload. The second argument is the path of its pod template.
type Change<'a> = dyn FnMut(&mut Mapping, &[&str], &mut Vec<String>) -> Result<(), String> + 'a;

/// Adds the sidecar to every workload, or replaces it.
///
/// # Errors
/// Returns a message if the text is not a list of workloads, or if a workload cannot have the sidecar.
pub fn inject(text: &str, sidecar: &Sidecar) -> Result<Injected, String> {
    let mut companions = Vec::new();
    let (mut done, seen) = rewrite(text, &mut |object, template, notes| {
        companions.extend(workload::put(object, template, sidecar, notes)?);
        Ok(())
    })?;
    append(&mut done.text, &companions, &seen.identities)?;
    if sidecar.replica_port.is_none() {
        done.notes.extend(seen.scaling.notes());
    }
    // The note is the same for all workloads.
    done.notes.push(notes::configuration(sidecar));
    Ok(done)
}

/// Removes the sidecar from every workload to which [`inject`] added it.
///
/// # Errors
/// Returns a message if the text is not a list of workloads, or if the sidecar cannot be removed from a workload.
pub fn remove(text: &str) -> Result<Injected, String> {
    rewrite(text, &mut |object, template, _| workload::take(object, template)).map(|(done, _)| done)
}

/// Appends the Services and NetworkPolicies of the workloads.
fn append(text: &mut String, companions: &[Value], others: &[Identity]) -> Result<(), String> {
    let mut taken = others.to_vec();
    for companion in companions {
        let own = identity(companion);
        if taken.contains(&own) {
            return Err(format!(
                "it has two objects {} {}: `callgate inject` makes one of them",
                own.0, own.2
            ));
        }
        taken.push(own);
        if !text.ends_with('\n') {
            text.push('\n');
        }
        text.push_str("---\n");
        text.push_str(&yaml::write(companion)?);
    }
    Ok(())
}

fn rewrite(text: &str, change: &mut Change<'_>) -> Result<(Injected, Seen), String> {
    let (mut written, mut notes, mut seen) = (String::with_capacity(text.len()), Vec::new(), Seen::default());
    for (i, part) in parts(text).into_iter().enumerate() {
        let in_words = |error: String| format!("document {}: {error}", i + 1);
        let mut value = yaml::read(part).map_err(in_words)?;
        let before = value.clone();
        if is_companion(&value) {
            continue;
        }
        if !value.is_null() {
            change_all(&mut value, change, &mut seen, &mut notes).map_err(in_words)?;
        }
        if value == before {
            written.push_str(part);
        } else {
            if part.starts_with("---") {
                written.push_str("---\n");
            }
            written.push_str(&yaml::write(&value).map_err(in_words)?);
        }
    }
    if seen.workloads > 0 {
        return Ok((Injected { text: written, notes }, seen));
    }
    let kinds: Vec<_> = KINDS.iter().map(|(_, kind, _)| *kind).collect();
    let found = if seen.others.is_empty() { "nothing".to_owned() } else { seen.others.join(", ") };
    Err(format!("no workload in it: expected one of {}; found {found}", kinds.join(", ")))
}

#[derive(Default)]
struct Seen {
    workloads: usize,
    others: Vec<String>,
    /// The objects that are not workloads.
    identities: Vec<Identity>,
    scaling: Scaling,
}

/// The kind, the namespace and the name of an object.
type Identity = (String, String, String);

/// Changes an object that is a workload, or the workloads in a list.
fn change_all(
    value: &mut Value,
    change: &mut Change<'_>,
    seen: &mut Seen,
    notes: &mut Vec<String>,
) -> Result<(), String> {
    let Some(object) = value.as_mapping_mut() else {
        return Err("not a Kubernetes object, which is a mapping".to_owned());
    };
    let text = |key: &str| object.get(key).and_then(Value::as_str).map(str::to_owned);
    let (Some(version), Some(kind)) = (text("apiVersion"), text("kind")) else {
        return Err("not a Kubernetes object: it needs `apiVersion` and `kind`".to_owned());
    };
    if version == "v1" && kind == "List" {
        let mut items = object.get_mut("items").and_then(Value::as_sequence_mut);
        if let Some(items) = &mut items {
            items.retain(|item| !is_companion(item));
        }
        return items.into_iter().flatten().try_for_each(|item| change_all(item, change, seen, notes));
    }
    let known = KINDS.iter().find(|(group, name, _)| *name == kind && version.starts_with(group));
    let name = object.get("metadata").and_then(|metadata| metadata.get("name")).and_then(Value::as_str);
    let name = format!("{kind} {}", name.unwrap_or("without a name"));
    let Some((_, _, template)) = known else {
        seen.scaling.other(object);
        seen.identities.push(identity(&Value::from(object.clone())));
        // Before Kubernetes 1.16, some of these kinds, such as `Deployment`, could have the API version
        // `extensions/v1beta1`.
        let removed = version.starts_with("extensions/") && KINDS.iter().any(|(_, name, _)| *name == kind);
        if removed {
            let note =
                format!("{name}: left as it is: {version} is not supported; write `apiVersion: apps/v1`");
            notes.push(note);
            seen.others.push(format!("{kind} with the unsupported apiVersion {version} (write apps/v1)"));
            return Ok(());
        }
        if has_pods(object) {
            notes.push(format!("{name}: left as it is: {version} {kind} is not a known kind of workload"));
        }
        seen.others.push(kind);
        return Ok(());
    };
    seen.workloads += 1;
    seen.scaling.workload(object);
    let mut own = Vec::new();
    change(object, template, &mut own).map_err(|error| format!("{name}: {error}"))?;
    notes.extend(own.into_iter().map(|note| format!("{name}: {note}")));
    Ok(())
}

/// The maximum depth at which a pod template is looked for.
const TEMPLATE_DEPTH_MAX: usize = 16;

/// Reports whether an object probably has pods, or is a list. Custom resources have their pod template at any place,
/// such as `spec.podTemplate`.
fn has_pods(object: &Mapping) -> bool {
    object.get("items").is_some_and(Value::is_sequence)
        || object.values().any(|value| has_containers(value, TEMPLATE_DEPTH_MAX))
}

/// Reports whether a value contains a list of containers, each of which has a name or an image.
fn has_containers(value: &Value, depth: usize) -> bool {
    let Some(depth) = depth.checked_sub(1) else { return false };
    match value {
        Value::Mapping(members) => {
            let listed = members.get("containers").and_then(Value::as_sequence);
            let is_container = |one: &Value| one.get("image").is_some() || one.get("name").is_some();
            listed.is_some_and(|list| list.iter().any(is_container))
                || members.values().any(|member| has_containers(member, depth))
        }
        Value::Sequence(list) => list.iter().any(|element| has_containers(element, depth)),
        _ => false,
    }
}

/// Returns the text of each document, with the `---` before it. A line with `---` ends a document even inside a block
/// of text, so no parser is needed.
fn parts(text: &str) -> Vec<&str> {
    let mut starts = vec![0];
    let mut at = 0;
    for line in text.split_inclusive('\n') {
        let rest = line.strip_prefix("---");
        if at > 0 && rest.is_some_and(|rest| rest.trim_end().is_empty() || rest.starts_with([' ', '\t'])) {
            starts.push(at);
        }
        at += line.len();
    }
    let ends = starts.iter().skip(1).copied().chain([text.len()]);
    starts.iter().zip(ends).filter_map(|(start, end)| text.get(*start..end)).collect()
}
