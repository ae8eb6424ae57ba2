//! Hints for the author of a workload about settings of the pod that the sidecar cannot change.

use super::Note;
use crate::cli::inject::checks::resources;
use crate::cli::inject::label;
use crate::cli::inject::ports::{self, DeclaredPort, LISTS, containers, words};
use crate::cli::inject::sidecar::{Sidecar, name};
use crate::cli::inject::yaml::{self, Mapping, Value};

/// The user ID with which the sidecar's container runs.
const UID: u64 = 65532;
/// The minimum grace period of a pod with the sidecar, in seconds: the time that the sidecar needs to stop with default
/// settings, plus some seconds for the agent.
const GRACE_MIN: i64 = 15;
/// The grace period that Kubernetes gives a pod to stop by default, in seconds.
const GRACE_DEFAULT: i64 = 30;

/// Returns the hints about a pod that does not contain the sidecar yet. `found` is the agent's port.
pub(in crate::cli::inject) fn all(
    pod: &Mapping,
    sidecar: &Sidecar,
    found: Option<&DeclaredPort>,
) -> Result<Vec<Note>, String> {
    let mut notes = stays_open(pod, sidecar, found)?;
    notes.extend(is_shared(pod));
    if resources::is_guaranteed(pod) {
        notes.push(Note::same(
            "the QoS class of the pod changes from Guaranteed to Burstable, because the sidecar has no CPU limit: the pod gets no \
             exclusive CPUs and is evicted earlier; equal `limits` and `requests` in the pod's own `resources` keep the class",
        ));
    }
    notes.extend(stops(pod, found));
    Ok(notes)
}

/// Returns a hint about lost callbacks if the pods of a workload end by themselves: for a Job, a CronJob, or a pod
/// whose `restartPolicy` is `Never` or `OnFailure`. Returns `None` for all other objects.
pub(in crate::cli::inject) fn ends(object: &Mapping) -> Option<Note> {
    let text = |value: Option<&Value>| value.and_then(Value::as_str).map(str::to_owned);
    let policy = object.get("spec").and_then(|spec| spec.get("restartPolicy"));
    let when = match text(object.get("kind"))?.as_str() {
        "CronJob" | "Job" => "when a pod of a Job ends",
        "Pod" if label::controller_kind(object) == Some("Job") => "when a pod of a Job ends",
        "Pod" if matches!(policy.and_then(Value::as_str), Some("Never" | "OnFailure")) => {
            "when this pod ends, because of its `restartPolicy`"
        }
        _ => return None,
    };
    Some(Note::same(format!(
        "{when}, its sidecar and its ledger end, too: nobody receives the callbacks of its open interactions, and nobody is \
         told. Let the job wait for them, or leave them to a Deployment (docs/kubernetes.md#jobs)"
    )))
}

/// Returns a hint about the port in the annotation `callgate.dev/port` of a workload. The hint is needed if other
/// workloads can use the same ConfigMap.
pub(in crate::cli::inject) fn own_port(sidecar: &Sidecar) -> Note {
    let Sidecar { port, config_map, .. } = sidecar;
    let rest = "give it a ConfigMap of its own, such as with --config-map '{name}-callgate'";
    let one = format!(
        "`callgate.yaml` must have `listen.ingress` on port {port}, which is the port in its annotation {}; if other workloads \
         with another port use the ConfigMap {config_map}, {rest}",
        ports::PORT
    );
    let shared = format!(
        "`callgate.yaml` must have `listen.ingress` on the port in the annotation {}; if workloads with another port use the \
         ConfigMap {config_map}, {rest}",
        ports::PORT
    );
    Note::of(one, &shared, port.to_string())
}

/// Returns the hints about the port that was moved from the agent to the sidecar.
pub(in crate::cli::inject) fn moved(sidecar: &Sidecar, port: &DeclaredPort) -> [Note; 2] {
    let name = port.entry.get("name").and_then(Value::as_str);
    let names = name.map_or(String::new(), |name| format!("`{name}` or "));
    let service = format!(
        "a Service with the `targetPort` {} must use {names}{} from now on",
        port.number, sidecar.port
    );
    let services = format!(
        "a Service with the number of the former port as `targetPort` must use the name of the port or {} from now on",
        sidecar.port
    );
    let api = "the agent's whole port is behind the sidecar now: requests to its other API receive 404 unless the \
               configuration has routes for them (`stream: true`), or the agent serves them on another port";
    [Note::of(service, &services, port.number.to_string()), Note::same(api)]
}

/// Returns the text of a hint about the settings that the configuration needs for this sidecar.
pub(in crate::cli::inject) fn configuration(sidecar: &Sidecar, config_map: &str) -> String {
    let Sidecar { port, admin_port, .. } = sidecar;
    format!(
        "`callgate.yaml` in {config_map} must have `listen.ingress` on port {port} and `listen.admin` on \
         0.0.0.0:{admin_port}, because the probes use the address of the pod"
    )
}

/// Returns a hint about the settings that the configuration needs, for a workload with a ConfigMap of its own.
pub(in crate::cli::inject) fn own_configuration(sidecar: &Sidecar) -> Note {
    let config_map = &sidecar.config_map;
    let one = configuration(sidecar, &format!("the ConfigMap {config_map}"));
    Note::of(one, &configuration(sidecar, "the ConfigMap of each"), config_map.as_str())
}

/// Returns the hints about requests that can reach the pod without passing the sidecar.
fn stays_open(pod: &Mapping, sidecar: &Sidecar, found: Option<&DeclaredPort>) -> Result<Vec<Note>, String> {
    let mut others = ports::all(pod)?;
    others.retain(|other| found.is_none_or(|found| found.at != other.at));
    let mut notes = Vec::new();
    if found.is_none() {
        notes.push(Note::same("no port is declared, so none was moved"));
    }
    if !others.is_empty() {
        let text = match sidecar.has_policy() {
            true => "other ports stay open, also in the NetworkPolicy, and their requests are not checked",
            false => "other ports stay open, and their requests are not checked",
        };
        notes.push(Note::of(format!("{text}: {}", words(&others)), text, words(&others)));
    }
    if sidecar.bind_env.is_none() {
        notes.push(Note::same(
            "everybody who reaches the pod still reaches the agent's own port, without the sidecar: make the agent listen on \
             127.0.0.1 (--bind-env, or its own setting), or restrict access with a NetworkPolicy",
        ));
    }
    Ok(notes)
}

/// Returns the hints about containers that can read the sidecar's secrets.
fn is_shared(pod: &Mapping) -> Vec<Note> {
    let mut notes = Vec::new();
    for (switch, whose) in [("shareProcessNamespace", "the pod's"), ("hostPID", "the node's")] {
        if pod.get(switch).is_some_and(yaml::is_true) {
            notes.push(Note::same(format!(
                "`{switch}`: its containers see {whose} processes, and one that runs as root or as UID {UID} can read the \
                 sidecar's secrets through /proc"
            )));
        }
    }
    let user = |of: Option<&Value>| of?.get("securityContext")?.get("runAsUser")?.as_u64();
    let pods =
        pod.get("securityContext").and_then(|context| context.get("runAsUser")).and_then(Value::as_u64);
    let is_ours = |container: &&Value| user(Some(container)).or(pods) == Some(UID);
    let ours: Vec<_> =
        LISTS.iter().flat_map(|list| containers(pod, list)).filter(is_ours).filter_map(name).collect();
    if !ours.is_empty() {
        let text = |whose: &str| {
            format!(
                "`runAsUser` {UID} is the sidecar's UID, and that of {whose}: with shared processes or files, they can read the \
                 sidecar's secrets; use another UID"
            )
        };
        notes.push(Note::of(text(&ours.join(", ")), &text("these containers"), ours.join(", ")));
    }
    notes
}

/// Returns the hints about callbacks that fail while the pod stops.
fn stops(pod: &Mapping, found: Option<&DeclaredPort>) -> Vec<Note> {
    let mut notes = Vec::new();
    let grace = pod.get("terminationGracePeriodSeconds").and_then(Value::as_i64).unwrap_or(GRACE_DEFAULT);
    if grace < GRACE_MIN {
        let rest = "first the agent and then the sidecar must stop in this time, or callbacks are cut off; by default the \
                    sidecar needs 2 s of `shutdown.delay` and up to 10 s of `shutdown.grace`";
        notes.push(Note::of(
            format!("`terminationGracePeriodSeconds` is {grace}: {rest}"),
            &format!("`terminationGracePeriodSeconds` is short: {rest}"),
            grace.to_string(),
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
        notes.push(Note::same(
            "the agent has no `lifecycle.preStop`, so it stops while callbacks still arrive, and the sidecar answers 503 to \
             them (by default it accepts them for 2 s and drains for up to 10 s); add a `preStop` that sleeps 5 s",
        ));
    }
    notes
}
