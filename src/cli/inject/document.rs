//! Finds the workloads in a file of manifests. YAML documents without a workload stay unchanged, including their
//! comments.

use super::label_selector::{CustomKind, pod_template};
use super::notes::{self, Note};
use super::object::choice::change;
use super::object::kinds::{KINDS, described, template};
use super::replicas::{identity, is_companion};
use super::scaling::Scaling;
use super::sidecar::Sidecar;
use super::yaml::{Mapping, Value};
use super::{companions, workload, yaml};

/// The result of [`inject`] or [`remove`]: the new manifests, and hints for their author.
#[derive(Debug)]
pub struct Injected {
    /// The new text of the whole file of manifests.
    pub text: String,
    /// Hints for the author of the manifests.
    pub notes: Vec<String>,
    /// The objects that contain a pod but did not get the sidecar. Objects that the author or the label selector
    /// excluded are not in this list.
    pub missed: Vec<String>,
}

/// A function that changes a workload and returns whether the workload has the sidecar now. The arguments are the
/// workload, the path of its pod template, and the list to which the function adds notes.
type Change<'a> = dyn FnMut(&mut Mapping, &[&str], &mut Vec<Note>) -> Result<bool, String> + 'a;

/// Adds the sidecar to every selected workload in a file of manifests. A sidecar that is there already is replaced.
///
/// # Errors
/// Returns a message if a document is not a Kubernetes object, if the file contains no workload, or if the sidecar
/// cannot be added to a workload.
pub fn inject(text: &str, sidecar: &Sidecar) -> Result<Injected, String> {
    let mut companions = Vec::new();
    let mut left = Vec::new();
    let mut done = rewrite(text, &sidecar.custom, &mut |object, template, notes| {
        let (is_selected, own) = change(object, template, sidecar, None, notes)?;
        if !is_selected {
            left.push(described(object));
        }
        Ok(own.map(|own| companions.extend(own)).is_some())
    })?;
    companions::append(&mut done.text, &companions, &done.seen.identities)?;
    if sidecar.replica_port.is_none() {
        done.notes.extend(done.seen.scaling.notes());
    }
    let mut notes = notes::grouped(&done.notes);
    if !left.is_empty() {
        notes.push(format!(
            "{} of {} workloads are not selected and stay as they are: {}",
            left.len(),
            done.seen.workloads,
            left.join(", ")
        ));
    }
    if done.seen.injected > 0 && !sidecar.has_own_config_map() {
        // The note about the ConfigMap is the same for all workloads.
        notes.push(notes::pod::configuration(sidecar, &format!("the ConfigMap {}", sidecar.config_map)));
    }
    Ok(Injected { text: done.text, notes, missed: done.seen.missed })
}

/// Removes the sidecar that [`inject`] added to the workloads in a file of manifests.
///
/// # Errors
/// Returns a message if a document is not a Kubernetes object, if the file contains no workload, or if the sidecar
/// cannot be removed from a workload.
pub fn remove(text: &str) -> Result<Injected, String> {
    remove_from(text, &[])
}

/// Removes the sidecar like [`remove`], also from custom resources of the kinds in `custom`.
///
/// # Errors
/// Returns a message in the same cases as [`remove`].
pub fn remove_from(text: &str, custom: &[CustomKind]) -> Result<Injected, String> {
    let take = &mut |object: &mut Mapping, template: &[&str], _: &mut Vec<Note>| {
        workload::take(object, template).map(|()| false)
    };
    let done = rewrite(text, custom, take)?;
    Ok(Injected { text: done.text, notes: notes::grouped(&done.notes), missed: Vec::new() })
}

/// The new text of a file of manifests, with the notes on its workloads.
struct NewText {
    text: String,
    notes: Vec<(String, Note)>,
    seen: Seen,
}

fn rewrite(text: &str, custom: &[CustomKind], change: &mut Change<'_>) -> Result<NewText, String> {
    let (mut written, mut notes, mut seen) = (String::with_capacity(text.len()), Vec::new(), Seen::default());
    for (i, part) in parts(text).into_iter().enumerate() {
        let in_words = |error: String| format!("document {}: {error}", i + 1);
        let mut value = yaml::read(part).map_err(in_words)?;
        let before = value.clone();
        if is_added(&value) {
            continue;
        }
        if !value.is_null() {
            change_all(&mut value, custom, change, &mut seen, &mut notes).map_err(in_words)?;
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
        return Ok(NewText { text: written, notes, seen });
    }
    let kinds: Vec<_> = KINDS.iter().map(|(_, kind, _)| *kind).collect();
    let found = if seen.others.is_empty() { "nothing".to_owned() } else { seen.others.join(", ") };
    Err(format!("no workload in it: expected one of {}; found {found}", kinds.join(", ")))
}

/// Reports whether `inject` added this object to the manifests for a workload.
fn is_added(object: &Value) -> bool {
    is_companion(object) || companions::is_companion(object)
}

#[derive(Default)]
struct Seen {
    workloads: usize,
    /// The number of workloads that have the sidecar now.
    injected: usize,
    others: Vec<String>,
    /// The objects that contain pods, but whose kind or version is unknown.
    missed: Vec<String>,
    /// The kind, namespace and name of each object that is not a workload.
    identities: Vec<Identity>,
    scaling: Scaling,
}

/// The kind, the namespace and the name of a Kubernetes object.
type Identity = (String, String, String);

/// Applies `change` to an object that is a workload, or to each workload in a `List` object.
fn change_all(
    value: &mut Value,
    custom: &[CustomKind],
    change: &mut Change<'_>,
    seen: &mut Seen,
    notes: &mut Vec<(String, Note)>,
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
            items.retain(|item| !is_added(item));
        }
        let mut all = items.into_iter().flatten();
        return all.try_for_each(|item| change_all(item, custom, change, seen, notes));
    }
    let name = described(object);
    let Some(template) = template(&version, &kind, custom) else {
        seen.other(object, &version, kind, name, notes);
        return Ok(());
    };
    seen.workloads += 1;
    let mut own = Vec::new();
    let injected = change(object, &template, &mut own).map_err(|error| format!("{name}: {error}"))?;
    if injected {
        seen.injected += 1;
        seen.scaling.workload(object);
    }
    notes.extend(own.into_iter().map(|note| (name.clone(), note)));
    Ok(())
}

impl Seen {
    /// Records an object that is not a workload of a known kind. Adds a note if the object looks like a workload.
    fn other(
        &mut self,
        object: &Mapping,
        version: &str,
        kind: String,
        name: String,
        notes: &mut Vec<(String, Note)>,
    ) {
        self.scaling.other(object);
        self.identities.push(identity(&Value::from(object.clone())));
        // Kubernetes has removed earlier versions of the known kinds, such as `extensions/v1beta1` of `Deployment`. The
        // note names the current version.
        let current = KINDS.iter().find(|(current, known, _)| {
            let group = version.split('/').next().unwrap_or_default();
            *known == kind
                && version.contains('/')
                && (group == "extensions" || current.starts_with(&format!("{group}/")))
        });
        if let Some((current, ..)) = current {
            let rest = format!("is not supported; write `apiVersion: {current}`");
            let shared = format!("left as it is: this version {rest}");
            self.missed.push(name.clone());
            notes.push((name, Note::of(format!("left as it is: {version} {rest}"), &shared, version)));
            self.others.push(format!("{kind} with the unsupported apiVersion {version} (write {current})"));
            return;
        }
        if object.get("items").is_some_and(Value::is_sequence) {
            self.missed.extend(pod_template(object).map(|_| name.clone()));
            let text = format!("left as it is: {version} {kind} is not a known kind of workload");
            notes.push((name, Note::same(text)));
        } else if let Some(path) = pod_template(object) {
            let group = version.split('/').next().filter(|group| group.contains('.'));
            let option = group.filter(|_| !path.is_empty()).map_or_else(String::new, |group| {
                format!("; to add the sidecar there, use --pod-template {kind}.{group}={}", path.join("."))
            });
            let text = format!("left as it is: {version} {kind} is not a known kind of workload{option}");
            self.missed.push(name.clone());
            notes.push((name, Note::same(text)));
        }
        self.others.push(kind);
    }
}

/// Splits a file of manifests into its YAML documents, each with the `---` before it. A line with `---` ends a document
/// even inside a block of text, so no parser is needed.
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
