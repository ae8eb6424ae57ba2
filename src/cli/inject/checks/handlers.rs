//! The probes and hooks of a container that use a port.

use crate::cli::inject::yaml::{Mapping, Value};

/// The probes and hooks of a container: the YAML keys that lead to each one in the container, and its name in notes and
/// records.
const HANDLERS: [(&[&str], &str); 5] = [
    (&["livenessProbe"], "livenessProbe"),
    (&["readinessProbe"], "readinessProbe"),
    (&["startupProbe"], "startupProbe"),
    (&["lifecycle", "postStart"], "lifecycle.postStart"),
    (&["lifecycle", "preStop"], "lifecycle.preStop"),
];
/// The kinds of actions of a probe or hook that have a port.
const MEANS: [&str; 3] = ["httpGet", "tcpSocket", "grpc"];

/// Returns the settings of one action of a probe or hook, such as `livenessProbe.httpGet`. `path` is the path of the
/// probe or hook in the container. `means` is the kind of the action, such as `httpGet`.
pub(in crate::cli::inject) fn means<'a>(
    container: &'a mut Mapping,
    path: &[&str],
    means: &str,
) -> Option<&'a mut Mapping> {
    let mut at = container;
    for key in path {
        at = at.get_mut(*key)?.as_mapping_mut()?;
    }
    at.get_mut(means)?.as_mapping_mut()
}

/// Replaces the name of the agent's port by its number in the probes and hooks of the agent's container. Returns the
/// names of the changed probes and hooks. The change is needed because the port was moved to the sidecar, and a probe
/// or hook can refer only to port names of its own container.
pub(in crate::cli::inject) fn renumber(
    container: &mut Mapping,
    by_name: Option<&str>,
    number: u64,
) -> Vec<String> {
    let mut changed = Vec::new();
    for (path, handler) in HANDLERS {
        for kind in MEANS {
            let Some(asks) = means(container, path, kind) else { continue };
            if by_name.is_some() && asks.get("port").and_then(Value::as_str) == by_name {
                asks.insert("port".into(), number.into());
                changed.push(format!("{handler}.{kind}"));
            }
        }
    }
    changed
}

/// Returns the names of the probes and hooks that make the kubelet connect to this port at the address of the pod, such
/// as `livenessProbe.httpGet`. These probes and hooks fail if the agent listens only on loopback.
pub(in crate::cli::inject) fn asked_from_outside(container: &Value, number: u64) -> Vec<String> {
    let mut all = Vec::new();
    for (path, handler) in HANDLERS {
        let at = path.iter().try_fold(container, |at, key| at.get(*key));
        for kind in MEANS {
            let Some(asks) = at.and_then(|at| at.get(kind)) else { continue };
            // Kubernetes also accepts a port number as text.
            let port = match asks.get("port") {
                Some(Value::String(text)) => text.parse().ok(),
                port => port.and_then(Value::as_u64),
            };
            let host = asks.get("host").and_then(Value::as_str).unwrap_or_default();
            if port == Some(number) && host.is_empty() {
                all.push(format!("{handler}.{kind}"));
            }
        }
    }
    all
}
