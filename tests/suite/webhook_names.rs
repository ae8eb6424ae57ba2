//! The webhook sees pods, `inject` sees workloads: both give a pod the same sidecar, whatever the kind of the workload.

use callgate::cli::{CustomKind, Sidecar, WebhookPolicy, answer_review, inject};
use data_encoding::BASE64;
use serde_json::{Value, json};

fn policy(sidecar: &Sidecar) -> WebhookPolicy {
    WebhookPolicy { sidecar: sidecar.clone(), admits_unusable: false }
}

fn sidecar() -> Sidecar {
    Sidecar {
        config_map: "{name}-callgate".to_owned(),
        replica_port: Some(8446),
        custom: vec![CustomKind::parse("Rollout.argoproj.io=spec.template").unwrap()],
        ..Sidecar::default()
    }
}

/// Returns the pod with the sidecar, as the API server applies the patch. The patch replaces whole members.
fn admitted(policy: &WebhookPolicy, pod: &Value) -> Value {
    let request = json!({
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "request": { "uid": "1", "operation": "CREATE", "namespace": "agents", "object": pod },
    });
    let response = answer_review(policy, request.to_string().as_bytes()).unwrap()["response"].clone();
    assert_eq!(response["allowed"], true, "{response}");
    let patch = BASE64.decode(response["patch"].as_str().unwrap().as_bytes()).unwrap();
    let mut pod = pod.clone();
    for operation in serde_json::from_slice::<Vec<Value>>(&patch).unwrap() {
        let (parent, key) = operation["path"].as_str().unwrap().rsplit_once('/').unwrap();
        let parent = pod.pointer_mut(parent).unwrap().as_object_mut().unwrap();
        let key = key.replace("~1", "/");
        match operation["op"].as_str().unwrap() {
            "remove" => drop(parent.remove(&key)),
            _ => drop(parent.insert(key, operation["value"].clone())),
        }
    }
    pod
}

/// A workload as somebody writes it, and the metadata that the controllers of Kubernetes give its pods.
struct Kind {
    version: &'static str,
    kind: &'static str,
    name: &'static str,
    pod: Value,
}

fn owned(kind: &str, name: &str, pod: &Value) -> Value {
    let mut metadata = pod.clone();
    metadata["ownerReferences"] =
        json!([{ "apiVersion": "v1", "kind": kind, "name": name, "uid": "1", "controller": true }]);
    metadata
}

fn kinds() -> Vec<Kind> {
    let kind = |version, kind, name, pod| Kind { version, kind, name, pod };
    let hash = "6b7d9c5f8";
    let replica_set = |label: &str| {
        let metadata = json!({ "generateName": "planner-6b7d9c5f8-", "labels": { label: hash } });
        owned("ReplicaSet", "planner-6b7d9c5f8", &metadata)
    };
    let job = |name: &str| {
        let labels = json!({ "job-name": name, "batch.kubernetes.io/job-name": name });
        owned("Job", name, &json!({ "generateName": format!("{name}-"), "labels": labels }))
    };
    let stateful =
        json!({ "name": "researcher-0", "labels": { "statefulset.kubernetes.io/pod-name": "researcher-0" } });
    let daemon = json!({ "generateName": "scanner-", "labels": { "controller-revision-hash": "5d4f7c" } });
    vec![
        kind("apps/v1", "Deployment", "planner", replica_set("pod-template-hash")),
        kind("argoproj.io/v1alpha1", "Rollout", "planner", replica_set("rollouts-pod-template-hash")),
        kind("apps/v1", "StatefulSet", "researcher", owned("StatefulSet", "researcher", &stateful)),
        kind("apps/v1", "DaemonSet", "scanner", owned("DaemonSet", "scanner", &daemon)),
        kind("batch/v1", "Job", "migrate-20260102", job("migrate-20260102")),
        kind("batch/v1", "CronJob", "nightly-summary", job("nightly-summary-29912345")),
        kind("v1", "Pod", "debugger", json!({ "name": "debugger" })),
    ]
}

/// Returns the manifest of a workload, and the path of its pod template.
fn manifest(kind: &Kind, template: &Value) -> (Value, &'static str) {
    let head = json!({ "apiVersion": kind.version, "kind": kind.kind, "metadata": { "name": kind.name } });
    let (path, spec) = match kind.kind {
        "Pod" => ("", template["spec"].clone()),
        "CronJob" => (
            "/spec/jobTemplate/spec/template",
            json!({ "jobTemplate": { "spec": { "template": template } } }),
        ),
        _ => ("/spec/template", json!({ "template": template })),
    };
    let mut object = head;
    object["spec"] = spec;
    if let Some(annotations) = template["metadata"].get("annotations").filter(|_| path.is_empty()) {
        object["metadata"]["annotations"] = annotations.clone();
    }
    (object, path)
}

/// Returns the pod that the controllers make of a template.
fn made(kind: &Kind, template: &Value) -> Value {
    let mut pod =
        json!({ "apiVersion": "v1", "kind": "Pod", "metadata": kind.pod, "spec": template["spec"] });
    if let Some(annotations) = template["metadata"].get("annotations") {
        pod["metadata"]["annotations"] = annotations.clone();
    }
    if kind.kind == "StatefulSet" {
        pod["spec"]["hostname"] = kind.pod["name"].clone();
    }
    pod
}

fn template() -> Value {
    json!({
        "metadata": {},
        "spec": { "containers": [{ "name": "agent", "image": "a:1", "ports": [{ "containerPort": 8000 }] }] },
    })
}

fn injected(kind: &Kind, template: &Value, sidecar: &Sidecar) -> Value {
    let (object, path) = manifest(kind, template);
    let done = inject(&object.to_string(), sidecar).unwrap();
    let first = done.text.split("---\n").next().unwrap();
    let workload: Value = serde_yaml::from_str(first).unwrap();
    workload.pointer(path).unwrap().clone()
}

#[test]
fn a_pod_gets_the_names_that_inject_gives_its_workload() {
    let sidecar = sidecar();
    for kind in kinds() {
        let expected = injected(&kind, &template(), &sidecar);
        let pod = admitted(&policy(&sidecar), &made(&kind, &template()));
        let label = "callgate.dev/agent";
        assert_eq!(pod["metadata"]["labels"][label], kind.name, "{}", kind.kind);
        assert_eq!(pod["metadata"]["labels"][label], expected["metadata"]["labels"][label], "{}", kind.kind);
        for part in ["initContainers", "volumes", "containers"] {
            assert_eq!(pod["spec"][part], expected["spec"][part], "{} {part}", kind.kind);
        }
        let volumes = pod["spec"]["volumes"].to_string();
        assert!(volumes.contains(&format!("\"{}-callgate\"", kind.name)), "{volumes}");
    }
}

#[test]
fn an_annotation_gives_the_workload_another_name() {
    let sidecar = sidecar();
    let mut template = template();
    template["metadata"]["annotations"] = json!({ "callgate.dev/name": "other" });
    let mut all = kinds();
    // A Job that somebody started by hand from a CronJob, and one whose name is generated.
    let by_hand = json!({ "generateName": "test-by-hand-" });
    let pod = owned("Job", "test-by-hand", &by_hand);
    all.push(Kind { version: "batch/v1", kind: "CronJob", name: "nightly-summary", pod });
    for kind in all {
        let expected = injected(&kind, &template, &sidecar);
        let pod = admitted(&policy(&sidecar), &made(&kind, &template));
        for labelled in [&pod, &expected] {
            assert_eq!(labelled["metadata"]["labels"]["callgate.dev/agent"], "other", "{}", kind.kind);
            assert!(labelled["spec"]["volumes"].to_string().contains("\"other-callgate\""), "{labelled}");
        }
    }
    let mut unusable = kinds().remove(0).pod;
    unusable["annotations"] = json!({ "callgate.dev/name": "Not A Name" });
    let pod = json!({ "apiVersion": "v1", "kind": "Pod", "metadata": unusable, "spec": template["spec"] });
    let request = json!({
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "request": { "uid": "1", "operation": "CREATE", "object": pod },
    });
    let answer = answer_review(&policy(&sidecar), request.to_string().as_bytes()).unwrap();
    let message = answer["response"]["status"]["message"].as_str().unwrap();
    assert!(message.contains("callgate.dev/name"), "{message}");
}

#[test]
fn a_pod_without_a_workload_is_known_by_the_prefix_of_its_name() {
    let pod = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": { "generateName": "runner-" },
        "spec": template()["spec"],
    });
    let pod = admitted(&policy(&sidecar()), &pod);
    assert_eq!(pod["metadata"]["labels"]["callgate.dev/agent"], "runner");
}

#[test]
fn the_pods_of_a_stateful_set_keep_their_dns_names_and_volumes() {
    let set = &kinds()[2];
    let variable = |pod: &Value, name: &str| {
        let env = pod["spec"]["initContainers"][0]["env"].as_array().unwrap().clone();
        env.iter().find(|one| one["name"] == name).map(|one| one["value"].clone())
    };
    let policy = policy(&sidecar());
    // Without a governing Service, the pod gets the one that `inject` gives the StatefulSet.
    let pod = admitted(&policy, &made(set, &template()));
    assert_eq!(pod["spec"]["subdomain"], "researcher-replicas");
    let expected = "$(POD_NAME).researcher-replicas.$(POD_NAMESPACE).svc";
    assert_eq!(variable(&pod, "POD_DNS_NAME").unwrap(), expected);

    let mut own = made(set, &template());
    own["spec"]["subdomain"] = "research-pods".into();
    own["spec"]["volumes"] = json!([
        { "name": "callgate-state", "persistentVolumeClaim": { "claimName": "callgate-state-researcher-0" } },
    ]);
    let pod = admitted(&policy, &own);
    assert_eq!(pod["spec"]["subdomain"], "research-pods");
    let expected = "$(POD_NAME).research-pods.$(POD_NAMESPACE).svc";
    assert_eq!(variable(&pod, "POD_DNS_NAME").unwrap(), expected);
    let states: Vec<_> = pod["spec"]["volumes"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|volume| volume["name"] == "callgate-state")
        .collect();
    assert_eq!(states, [&own["spec"]["volumes"][0]]);
    // Pods of other workloads have no DNS name.
    let pod = admitted(&policy, &made(&kinds()[0], &template()));
    assert!(variable(&pod, "POD_DNS_NAME").is_none() && pod["spec"].get("subdomain").is_none());
}
