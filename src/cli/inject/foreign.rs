//! Checks data that `callgate inject` may not have written itself: the record in an annotation of a workload, and the
//! mounts of other containers.

use super::ports::{LISTS, containers};
use super::sidecar::{self, CONTAINER, name};
use super::undo::{ANNOTATION, Env, Port, Record};
use super::yaml::{Mapping, Value, shortened};

/// The maximum number of entries in each list of the record that `callgate inject` writes into an annotation. The
/// command itself writes fewer entries.
const ENTRIES_MAX: usize = 256;
/// The YAML keys that a port of a container can have.
const PORT_KEYS: [&str; 5] = ["containerPort", "hostIP", "hostPort", "name", "protocol"];
/// The YAML keys that an environment variable of a container can have.
const ENV_KEYS: [&str; 3] = ["name", "value", "valueFrom"];
/// The YAML key of the ephemeral containers of a pod. This list of containers is not in [`LISTS`].
const EPHEMERAL: &str = "ephemeralContainers";

/// Returns the error about a container that has the name of the sidecar, but that `inject` did not add.
pub(super) fn container(name: &str) -> String {
    format!("it has a container {name} that `callgate inject` did not put there")
}

/// Checks that `callgate inject` can have written this record into the annotation of a workload. `own` is the sidecar's
/// container in the same pod.
///
/// # Errors
/// Returns a message if the record contains an entry that `callgate inject` does not write, or if `own` is not a
/// container that `callgate inject` makes.
pub(super) fn check_record(record: &Record, own: Option<&Value>) -> Result<(), String> {
    let lists = [record.volumes.len(), record.variables.len(), record.handlers.len(), record.made.len()];
    let too_long = lists.iter().any(|length| *length > ENTRIES_MAX);
    if !too_long {
        sidecar::is_own(own, &record.volumes)?;
    }
    let mut variables = record.env.iter().chain(&record.variables);
    let is_made = !too_long
        && variables.all(is_variable)
        && record.port.as_ref().is_none_or(|port| is_moved(port, own));
    if is_made {
        return Ok(());
    }
    Err(format!(
        "the annotation {ANNOTATION} has entries that `callgate inject` does not make; remove the annotation by hand"
    ))
}

/// Reports whether the recorded previous entry of an environment variable has the name of this variable, and no unknown
/// keys. Also returns true if the variable had no previous entry.
fn is_variable(Env { name: variable, was }: &Env) -> bool {
    was.as_ref().is_none_or(|was| {
        has_only(was, &ENV_KEYS) && was.get("name").and_then(Value::as_str) == Some(variable)
    })
}

/// Reports whether `inject` can have moved this port from the agent to the sidecar. If the port has `hostPort` or
/// `hostIP`, the sidecar must declare a port with the same values. Otherwise a forged record could open a port of the
/// node.
fn is_moved(port: &Port, sidecar: Option<&Value>) -> bool {
    let number = port.entry.get("containerPort").and_then(Value::as_u64);
    let has_form =
        has_only(&port.entry, &PORT_KEYS) && number.is_some_and(|number| (1..=65535).contains(&number));
    let of_node = ["hostPort", "hostIP"];
    let is_of_node = of_node.iter().any(|key| port.entry.contains_key(*key));
    let ports = sidecar.and_then(|sidecar| sidecar.get("ports")).and_then(Value::as_sequence);
    let mut ports = ports.into_iter().flatten();
    has_form
        && (!is_of_node || ports.any(|own| of_node.iter().all(|key| own.get(*key) == port.entry.get(*key))))
}

fn has_only(entry: &Mapping, keys: &[&str]) -> bool {
    entry.keys().all(|key| key.as_str().is_some_and(|key| keys.contains(&key)))
}

/// Returns an error if a container of the pod, other than the sidecar, mounts a volume of the sidecar. These volumes
/// contain the secrets of the sidecar and the key of its certificate authority.
pub(super) fn refuse_mounts(pod: &Mapping, volumes: &[Value]) -> Result<(), String> {
    let is_own =
        |mount: &Value| name(mount).is_some_and(|wanted| volumes.iter().any(|own| name(own) == Some(wanted)));
    let is_sidecar =
        |list: &str, container: &Value| list == "initContainers" && name(container) == Some(CONTAINER);
    let all = LISTS.into_iter().chain([EPHEMERAL]);
    for container in
        all.flat_map(|list| containers(pod, list).filter(move |container| !is_sidecar(list, container)))
    {
        for list in ["volumeMounts", "volumeDevices"] {
            let mounts = container.get(list).and_then(Value::as_sequence);
            if let Some(mount) = mounts.into_iter().flatten().find(|mount| is_own(mount)) {
                return Err(format!(
                    "the container {} mounts the volume {}, which only the sidecar may mount: it contains the sidecar's files",
                    shortened(name(container).unwrap_or_default()),
                    name(mount).unwrap_or_default()
                ));
            }
        }
    }
    Ok(())
}
