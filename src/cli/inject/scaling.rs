//! Finds workloads with more than one pod. Each of these pods has a ledger of its own, so the author gets a note.

use super::notes::Note;
use super::replicas::identity;
use super::yaml::{Mapping, Value};

/// A workload that has the sidecar, or a workload to which an autoscaler refers.
struct Scaled {
    kind: String,
    namespace: String,
    name: String,
    /// The reason why the workload has several pods. `None` if the manifest of the workload does not ask for several
    /// pods.
    reason: Option<String>,
}

/// The workloads with the sidecar in a file of manifests, and the workloads to which the autoscalers in the file refer.
#[derive(Default)]
pub(super) struct Scaling {
    workloads: Vec<Scaled>,
    scalers: Vec<Scaled>,
}

impl Scaling {
    /// Records a workload that has the sidecar. If the workload has several pods, also records why: its
    /// `replicas`, or its kind.
    pub(super) fn workload(&mut self, object: &Mapping) {
        let (kind, namespace, name) = identity(&Value::from(object.clone()));
        let replicas = object.get("spec").and_then(|spec| spec.get("replicas")).and_then(Value::as_u64);
        let reason = match (kind.as_str(), replicas) {
            ("Deployment" | "StatefulSet", Some(replicas @ 2..)) => Some(format!("`replicas` is {replicas}")),
            ("DaemonSet", _) => Some("each node has a pod".to_owned()),
            _ => None,
        };
        self.workloads.push(Scaled { kind, namespace, name, reason });
    }

    /// Records the workload that a HorizontalPodAutoscaler can scale to several pods. Ignores all other objects.
    pub(super) fn other(&mut self, object: &Mapping) {
        let text = |value: Option<&Value>| value.and_then(Value::as_str).unwrap_or_default().to_owned();
        let is_scaler = text(object.get("kind")) == "HorizontalPodAutoscaler"
            && text(object.get("apiVersion")).starts_with("autoscaling/");
        let Some(spec) = object.get("spec").filter(|_| is_scaler) else { return };
        let most = spec.get("maxReplicas").and_then(Value::as_u64).unwrap_or_default();
        let Some(target) = spec.get("scaleTargetRef").filter(|_| most > 1) else { return };
        let (_, namespace, own) = identity(&Value::from(object.clone()));
        self.scalers.push(Scaled {
            kind: text(target.get("kind")),
            namespace,
            name: text(target.get("name")),
            reason: Some(format!("the HorizontalPodAutoscaler {own} has `maxReplicas` {most}")),
        });
    }

    /// Returns a note for each workload that has several pods. Each note is returned with the name of the workload.
    pub(super) fn notes(&self) -> Vec<(String, Note)> {
        let scaler = |workload: &Scaled| {
            let is_target = |scaler: &&Scaled| {
                let is_same_namespace = scaler.namespace == workload.namespace
                    || scaler.namespace.is_empty()
                    || workload.namespace.is_empty();
                scaler.kind == workload.kind && scaler.name == workload.name && is_same_namespace
            };
            self.scalers.iter().find(is_target).and_then(|scaler| scaler.reason.clone())
        };
        let note = |workload: &Scaled| {
            let reason = workload.reason.clone().or_else(|| scaler(workload))?;
            let rest = "but each pod has a ledger of its own, and callbacks reach any of them: use --replicas and the section \
                        `replicas` of the configuration (docs/replicas.md), or one pod";
            let name = format!("{} {}", workload.kind, workload.name);
            Some((name, Note::of(format!("{reason}, {rest}"), &format!("several pods, {rest}"), reason)))
        };
        self.workloads.iter().filter_map(note).collect()
    }
}
