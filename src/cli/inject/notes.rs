//! What the author of a workload should know, since the sidecar does not rule it.

use super::ports::{Found, LISTS, containers, declared, words};
use super::sidecar::{Sidecar, name};
use super::yaml::{self, Mapping, Value};

/// The user that the sidecar's container runs as.
const UID: u64 = 65532;
/// Seconds in which the sidecar has stopped by its defaults, and some to spare for the agent.
const GRACE_MIN: i64 = 15;
/// Seconds that Kubernetes gives a pod to stop unless told otherwise.
const GRACE_DEFAULT: i64 = 30;

/// What there is to say of a pod before the sidecar is in it; `found` is the agent's port.
pub(super) fn all(pod: &Mapping, sidecar: &Sidecar, found: Option<&Found>) -> Result<Vec<String>, String> {
    let mut notes = stays_open(pod, sidecar, found)?;
    notes.extend(is_shared(pod));
    notes.extend(stops(pod, found));
    Ok(notes)
}

/// What the configuration has to say, so that it fits what was put in.
pub(super) fn configuration(sidecar: &Sidecar) -> String {
    let Sidecar { config_map, port, admin_port, .. } = sidecar;
    format!(
        "`callgate.yaml` in the ConfigMap {config_map} must have `listen.ingress` on port {port} and `listen.admin` on \
         0.0.0.0:{admin_port}, since the probes ask the pod's address"
    )
}

/// What reaches the pod without passing the sidecar.
fn stays_open(pod: &Mapping, sidecar: &Sidecar, found: Option<&Found>) -> Result<Vec<String>, String> {
    let mut others = Vec::new();
    for list in LISTS {
        others.extend(declared(pod, list)?);
    }
    others.retain(|other| found.is_none_or(|found| found.at != other.at));
    let mut notes = Vec::new();
    if found.is_none() {
        notes.push("no port is declared, so none was moved".to_owned());
    }
    if !others.is_empty() {
        notes.push(format!("other ports stay open, and nothing of theirs is checked: {}", words(&others)));
    }
    if sidecar.bind_env.is_none() {
        notes.push(
            "whoever reaches the pod still reaches the agent's own port, past the sidecar: have the agent listen on \
             127.0.0.1 (--bind-env, or its own setting), or keep others away with a NetworkPolicy"
                .to_owned(),
        );
    }
    Ok(notes)
}

/// What keeps the sidecar's secrets from being its own.
fn is_shared(pod: &Mapping) -> Vec<String> {
    let mut notes = Vec::new();
    for (switch, whose) in [("shareProcessNamespace", "the pod's"), ("hostPID", "the node's")] {
        if pod.get(switch).is_some_and(yaml::is_true) {
            notes.push(format!(
                "`{switch}`: its containers see {whose} processes, and one that runs as root or as UID {UID} reads the \
                 sidecar's secrets through /proc"
            ));
        }
    }
    let user = |of: Option<&Value>| of?.get("securityContext")?.get("runAsUser")?.as_u64();
    let pods =
        pod.get("securityContext").and_then(|context| context.get("runAsUser")).and_then(Value::as_u64);
    let is_ours = |container: &&Value| user(Some(container)).or(pods) == Some(UID);
    let ours: Vec<_> =
        LISTS.iter().flat_map(|list| containers(pod, list)).filter(is_ours).filter_map(name).collect();
    if !ours.is_empty() {
        notes.push(format!(
            "`runAsUser` {UID} is the sidecar's UID, and that of {}: where processes or files are shared, the sidecar's \
             secrets are too; take another one",
            ours.join(", ")
        ));
    }
    notes
}

/// What is cut off or refused when the pod stops.
fn stops(pod: &Mapping, found: Option<&Found>) -> Vec<String> {
    let mut notes = Vec::new();
    let grace = pod.get("terminationGracePeriodSeconds").and_then(Value::as_i64).unwrap_or(GRACE_DEFAULT);
    if grace < GRACE_MIN {
        notes.push(format!(
            "`terminationGracePeriodSeconds` is {grace}: the agent's end and after it the sidecar's, by default 2 s of \
             `shutdown.delay` and up to 10 s of `shutdown.grace`, must fit in it, or callbacks are cut off"
        ));
    }
    let is_agents = |container: &&Value| found.is_none_or(|found| name(container) == Some(&found.container));
    let sleeps = |container: &Value| {
        container
            .get("lifecycle")
            .and_then(|lifecycle| lifecycle.get("preStop"))
            .is_some_and(|it| !it.is_null())
    };
    if !containers(pod, "containers").filter(is_agents).any(sleeps) {
        notes.push(
            "the agent has no `lifecycle.preStop`: told to stop, it ends while callbacks still come, and the sidecar, \
             which by default goes on for 2 s and drains for up to 10 s, answers them 503; let it sleep 5 s first"
                .to_owned(),
        );
    }
    notes
}
