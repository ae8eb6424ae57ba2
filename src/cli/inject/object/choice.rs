//! Decides whether and with which settings a workload gets the sidecar. Adds the sidecar to the workload or removes it.

use crate::cli::inject::notes::{self, Note};
use crate::cli::inject::sidecar::Sidecar;
use crate::cli::inject::yaml::{Mapping, Value};
use crate::cli::inject::{label, ports, replicas, workload};

/// The key of the annotation or label that opts a workload out of the sidecar, if its value is `false`.
const INJECT: &str = "callgate.dev/inject";

/// The decision about a workload: whether it gets the sidecar.
#[derive(Debug, Eq, PartialEq)]
pub(super) enum Choice {
    /// The sidecar is added to the workload with these settings.
    Inject(Box<Sidecar>),
    /// The workload has opted out with `callgate.dev/inject: "false"`. Contains `annotation` or `label`, depending on
    /// where the workload has this key.
    OptedOut(&'static str),
    /// The label selector does not select the workload.
    NotSelected,
}

/// Decides whether a workload gets the sidecar. `template` is the path of the pod template in the workload.
pub(super) fn choice(object: &Mapping, template: &[&str], sidecar: &Sidecar) -> Result<Choice, String> {
    let metadata =
        [object.get("metadata"), template_of(object, template).and_then(|pod| pod.get("metadata"))];
    let find = |section: &str, key: &str| {
        metadata.iter().flatten().find_map(|metadata| text(metadata.get(section)?.get(key)?))
    };
    let wish = [("annotations", "annotation"), ("labels", "label")]
        .into_iter()
        .find_map(|(section, what)| find(section, INJECT).map(|value| (value, what)));
    if let Some((_, what)) = wish.filter(|(value, _)| value == "false") {
        return Ok(Choice::OptedOut(what));
    }
    if !sidecar.selector.matches(|key| find("labels", key)) {
        return Ok(Choice::NotSelected);
    }
    let mut own = sidecar.clone();
    own.agent_port = find("annotations", ports::AGENT_PORT).or(own.agent_port);
    own.agent_container = find("annotations", ports::AGENT_CONTAINER).or(own.agent_container);
    own.default_container = find("annotations", ports::DEFAULT_CONTAINER).or(own.default_container);
    own.name = find("annotations", label::NAME).map(label::named).transpose()?.or(own.name);
    if let Some(port) = find("annotations", ports::PORT) {
        own.port = ports::parsed(&port)?;
    }
    Ok(Choice::Inject(Box::new(own)))
}

fn template_of<'o>(object: &'o Mapping, template: &[&str]) -> Option<&'o Value> {
    let (first, rest) = template.split_first()?;
    rest.iter().try_fold(object.get(*first)?, |at, key| at.get(*key))
}

/// Returns a YAML scalar as text. Annotations and labels must be texts, but authors can forget the quotes around a
/// value such as `false` or `8443`.
fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Bool(value) => Some(value.to_string()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

/// Adds the sidecar to one workload, or removes it if the workload has opted out. `service_name` is the `serviceName`
/// that a StatefulSet had before its update. Returns whether the label selector selects the workload, and the objects
/// to add. The objects are `None` if the workload is not selected or has opted out.
pub(in crate::cli::inject) fn change(
    object: &mut Mapping,
    template: &[&str],
    sidecar: &Sidecar,
    service_name: Option<&str>,
    notes: &mut Vec<Note>,
) -> Result<(bool, Option<Vec<Value>>), String> {
    let added = match choice(object, template, sidecar)? {
        Choice::NotSelected => return Ok((false, None)),
        Choice::OptedOut(what) => {
            workload::take(object, template)?;
            notes.push(Note::same(format!(
                "stays without the sidecar, because it has the {what} `callgate.dev/inject: \"false\"`"
            )));
            None
        }
        Choice::Inject(own) => {
            if own.port != sidecar.port && !own.has_own_config_map() {
                notes.push(notes::pod::own_port(&own));
            }
            let companions = workload::put(object, template, &own, service_name, notes)?;
            notes.extend(notes::pod::ends(object));
            Some(companions)
        }
    };
    replicas::keep(object, service_name);
    Ok((true, added))
}
