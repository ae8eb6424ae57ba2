//! Checks whether a pod can have the sidecar: by its node, its ports, and the names of its containers and ports.

use super::handlers::asked_from_outside;
use crate::cli::inject::foreign;
use crate::cli::inject::ports::{self, DeclaredPort, LISTS, containers, declared};
use crate::cli::inject::sidecar::{CONTAINER, Sidecar, name};
use crate::cli::inject::yaml::{self, Mapping, Value, is_too_long, shortened};

/// The node labels whose value is the name of the operating system.
const SYSTEM_LABELS: [&str; 2] = ["kubernetes.io/os", "beta.kubernetes.io/os"];

/// Returns an error if a container or a port of this pod has a longer name than Kubernetes allows. A very long name
/// could need much memory, because the name of a container is copied for each of its ports.
pub(in crate::cli::inject) fn refuse_long_names(pod: &Mapping) -> Result<(), String> {
    let error = |what: &str, name: &str| format!("the name of {what} is too long: {}…", shortened(name));
    for container in LISTS.into_iter().flat_map(|list| containers(pod, list)) {
        if let Some(name) = name(container).filter(|name| is_too_long(name)) {
            return Err(error("a container", name));
        }
        let ports = container.get("ports").and_then(Value::as_sequence).into_iter().flatten();
        if let Some(name) = ports.filter_map(name).find(|name| is_too_long(name)) {
            return Err(error("a port", name));
        }
    }
    Ok(())
}

/// Returns an error if the sidecar cannot run in this pod, because the pod runs on Windows or uses the network of its
/// node.
pub(in crate::cli::inject) fn refuse_node(pod: &Mapping) -> Result<(), String> {
    let is_windows = |value: Option<&Value>| value.and_then(Value::as_str) == Some("windows");
    let selector = pod.get("nodeSelector");
    let label = |label: &&&str| is_windows(selector.and_then(|selector| selector.get(**label)));
    let reason = match SYSTEM_LABELS.iter().find(label) {
        _ if is_windows(pod.get("os").and_then(|os| os.get("name"))) => Some("`os.name`".to_owned()),
        label => label.map(|label| format!("`nodeSelector` with {label}")),
    };
    if let Some(reason) = reason {
        return Err(format!(
            "it runs on Windows ({reason}), and the sidecar runs only on Linux; the annotation callgate.dev/inject: \
             \"false\" leaves it without the sidecar"
        ));
    }
    if pod.get("hostNetwork").is_some_and(yaml::is_true) {
        return Err(
            "it uses the network of the node (`hostNetwork`): its port cannot be moved, and every process of the node reaches \
                    loopback, which the sidecar trusts"
                .to_owned(),
        );
    }
    Ok(())
}

/// Returns an error if a container of this pod has the name of the sidecar's container, if the pod already uses the
/// number of a port of the sidecar, or if two ports of the sidecar are equal.
pub(in crate::cli::inject) fn refuse(pod: &Mapping, sidecar: &Sidecar) -> Result<(), String> {
    let own = sidecar.ports();
    for list in LISTS {
        if containers(pod, list).filter_map(name).any(|name| name == CONTAINER) {
            return Err(foreign::container(CONTAINER));
        }
        for (flag, port) in &own {
            let is_taken = |other: &&DeclaredPort| other.is_tcp() && other.number == u64::from(*port);
            if let Some(taken) = declared(pod, list)?.iter().find(is_taken) {
                let (words, remedy) = (taken.words(), remedy(flag));
                return Err(format!("port {port} is taken in this pod by {words}; {remedy}"));
            }
            let by = |container: &Value| {
                let handler = asked_from_outside(container, u64::from(*port)).into_iter().next()?;
                Some(format!("`{handler}` of {}", name(container).unwrap_or_default()))
            };
            if let Some(handler) = containers(pod, list).find_map(by) {
                return Err(format!(
                    "port {port} is taken in this pod, because {handler} uses it; {}",
                    remedy(flag)
                ));
            }
        }
    }
    for (at, (flag, port)) in own.iter().enumerate() {
        if let Some((other, _)) = own.iter().take(at).find(|(_, other)| other == port) {
            return Err(format!("{flag} is the same as {other}"));
        }
    }
    Ok(())
}

/// Returns the instruction to select another port for the sidecar. `flag` is the command-line option of the port.
fn remedy(flag: &str) -> String {
    match flag {
        "--port" => format!("use --port or the annotation {} with another port", ports::PORT),
        _ => format!("use {flag} with another port"),
    }
}

/// Returns an error if a port of the agent or of another container has the same name as a port of the sidecar. A
/// Service or a monitor that refers to this name would reach both ports. `container` is the sidecar, `moved` is the
/// name of the port that was moved from the agent to the sidecar, and `others` are the ports of the other containers.
pub(in crate::cli::inject) fn refuse_port_names(
    container: &Mapping,
    moved: Option<&str>,
    others: &[DeclaredPort],
) -> Result<(), String> {
    let own = container.get("ports").and_then(Value::as_sequence).into_iter().flatten().filter_map(name);
    let own: Vec<_> = own.skip(usize::from(moved.is_some())).collect();
    let others = others.iter().filter_map(|port| Some((port.name()?, port.container.as_str())));
    let all = moved.map(|moved| (moved, "the agent")).into_iter().chain(others);
    match all.into_iter().find(|(name, _)| own.contains(name)) {
        Some((name, container)) => Err(format!(
            "a port of {container} has the name {name}, which is the name of a port of the sidecar; give it another name"
        )),
        None => Ok(()),
    }
}
