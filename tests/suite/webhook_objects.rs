//! `callgate webhook`: objects that it leaves unchanged, that it must not deny, or whose name is not obvious.

use callgate::cli::{CustomKind, Proxied, Selector, Sidecar, WebhookPolicy};
use serde_json::{Value, json};

use crate::webhook::{apply, operations, policy, review};

fn spec() -> Value {
    json!({ "containers": [{
        "name": "agent",
        "image": "a:1",
        "ports": [{ "name": "http", "containerPort": 8000, "protocol": "TCP" }],
    }] })
}

fn pod(metadata: Value, spec: Value) -> Value {
    json!({ "apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec })
}

fn workload(version: &str, kind: &str, spec: Value) -> Value {
    json!({
        "apiVersion": version,
        "kind": kind,
        "metadata": { "name": "agent", "namespace": "agents" },
        "spec": { "template": { "metadata": { "labels": { "app": "agent" } }, "spec": spec } },
    })
}

fn deployment(spec: Value) -> Value {
    workload("apps/v1", "Deployment", spec)
}

fn asked(policy: &WebhookPolicy, operation: &str, object: &Value, old: &Value) -> Value {
    let request = json!({
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "request": { "uid": "u", "operation": operation, "namespace": "agents", "object": object, "oldObject": old },
    });
    review(policy, &request)
}

fn created(object: &Value) -> Value {
    asked(&policy(), "CREATE", object, &Value::Null)
}

/// Returns the object with the sidecar that the webhook adds when the object is created.
fn admitted(object: &Value) -> Value {
    let response = created(object);
    assert_eq!(response["allowed"], true, "{response}");
    assert!(response["patch"].is_string(), "{response}");
    apply(object, &operations(&response))
}

fn unchanged() -> Value {
    json!({ "uid": "u", "allowed": true })
}

fn denied(object: &Value) -> String {
    let response = created(object);
    assert_eq!(response["allowed"], false, "{response}");
    response["status"]["message"].as_str().unwrap().to_owned()
}

fn warnings(response: &Value) -> String {
    let all = response["warnings"].as_array().unwrap();
    all.iter().map(|one| one.as_str().unwrap()).collect::<Vec<_>>().join("\n")
}

#[test]
fn the_template_of_an_existing_job_does_not_change() {
    let job = workload("batch/v1", "Job", spec());
    assert_eq!(admitted(&job)["spec"]["template"]["spec"]["initContainers"][0]["name"], "callgate");
    let mut updated = job.clone();
    updated["metadata"]["labels"] = json!({ "a": "b" });
    assert_eq!(asked(&policy(), "UPDATE", &updated, &job), unchanged());
    // The Job of another API group can change.
    let custom = vec![CustomKind::parse("Job.batch.volcano.sh=spec.template").unwrap()];
    let policy = WebhookPolicy { sidecar: Sidecar { custom, ..Sidecar::default() }, ..policy() };
    let other = workload("batch.volcano.sh/v1alpha1", "Job", spec());
    assert!(asked(&policy, "UPDATE", &other, &other)["patch"].is_string());
}

fn on_the_node() -> Value {
    let mut spec = spec();
    spec["hostNetwork"] = true.into();
    spec
}

#[test]
fn an_object_that_is_being_deleted_does_not_change() {
    for spec in [spec(), on_the_node()] {
        let mut object = deployment(spec);
        object["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
        let mut old = object.clone();
        old["metadata"]["finalizers"] = json!(["foregroundDeletion"]);
        assert_eq!(asked(&policy(), "UPDATE", &object, &old), unchanged());
        // The API server removes the time from a new object.
        assert_ne!(created(&object), unchanged());
    }
}

#[test]
fn an_unusable_object_can_be_updated_but_a_usable_one_cannot_become_unusable() {
    let (usable, unusable) = (deployment(spec()), deployment(on_the_node()));
    let mut scaled = unusable.clone();
    scaled["spec"]["replicas"] = 0.into();
    let response = asked(&policy(), "UPDATE", &scaled, &unusable);
    assert_eq!(response["allowed"], true);
    assert!(warnings(&response).contains("hostNetwork"), "{response}");
    assert!(response["patch"].is_null());
    assert_eq!(asked(&policy(), "UPDATE", &unusable, &usable)["allowed"], false);
    let mut out = usable.clone();
    out["metadata"]["labels"] = json!({ "callgate.dev/inject": "false" });
    assert_eq!(asked(&policy(), "UPDATE", &unusable, &out)["allowed"], false);
    assert!(asked(&policy(), "UPDATE", &usable, &unusable)["patch"].is_string());
}

#[test]
fn a_pod_on_windows_is_denied_or_stays_without_the_sidecar() {
    for (key, value) in [
        ("os", json!({ "name": "windows" })),
        ("nodeSelector", json!({ "kubernetes.io/os": "windows" })),
        ("nodeSelector", json!({ "beta.kubernetes.io/os": "windows" })),
    ] {
        let mut spec = spec();
        // Windows is the reason, even if the agent's port is unclear, too.
        spec["containers"][0]["ports"] = json!([{ "containerPort": 1 }, { "containerPort": 2 }]);
        spec[key] = value;
        let object = pod(json!({ "name": "agent" }), spec);
        let message = denied(&object);
        assert!(message.contains("Windows") && message.contains(key), "{message}");
        let admits = WebhookPolicy { admits_unusable: true, ..policy() };
        let response = asked(&admits, "CREATE", &object, &Value::Null);
        assert!(response["allowed"] == true && warnings(&response).contains("Windows"), "{response}");
    }
    let mut spec = spec();
    spec["os"] = json!({ "name": "linux" });
    spec["nodeSelector"] = json!({ "kubernetes.io/os": "linux" });
    admitted(&pod(json!({ "name": "agent" }), spec));
}

#[test]
fn a_workload_of_a_custom_resource_keeps_its_name_and_its_pods_have_it_too() {
    let owner = |kind: &str, name: &str| json!([{ "kind": kind, "name": name, "controller": true }]);
    let label = |object: &Value| object["metadata"]["labels"]["callgate.dev/agent"].clone();
    for kind in ["Deployment", "StatefulSet"] {
        let mut object = workload("apps/v1", kind, spec());
        object["metadata"]["ownerReferences"] = owner("MyApp", "other");
        assert_eq!(label(&admitted(&object)["spec"]["template"]), "agent", "{kind}");
    }
    let metadata = json!({
        "generateName": "agent-6b7-",
        "labels": { "pod-template-hash": "6b7" },
        "ownerReferences": owner("ReplicaSet", "agent-6b7"),
    });
    assert_eq!(label(&admitted(&pod(metadata, spec()))), "agent");
    for (kind, name, expected) in [("CronJob", "nightly", "nightly"), ("Pipeline", "other", "agent")] {
        let mut job = workload("batch/v1", "Job", spec());
        job["metadata"]["ownerReferences"] = owner(kind, name);
        assert_eq!(label(&admitted(&job)["spec"]["template"]), expected, "{kind}");
    }
}

#[test]
fn a_mirror_pod_does_not_change() {
    let annotations = json!({ "kubernetes.io/config.mirror": "abc" });
    assert_eq!(created(&pod(json!({ "name": "p", "annotations": annotations }), on_the_node())), unchanged());
    // Only a pod is a mirror pod.
    let mut object = deployment(spec());
    object["metadata"]["annotations"] = annotations;
    admitted(&object);
}

#[test]
fn an_object_without_a_kind_has_the_kind_of_the_request() {
    for (group, version, kind) in [("", "v1", "Pod"), ("apps", "v1", "Deployment")] {
        let mut object = match kind {
            "Pod" => pod(json!({ "name": "p" }), spec()),
            _ => deployment(spec()),
        };
        object.as_object_mut().unwrap().retain(|key, _| !["apiVersion", "kind"].contains(&key.as_str()));
        let kind = json!({ "group": group, "version": version, "kind": kind });
        let mut request = json!({
            "apiVersion": "admission.k8s.io/v1",
            "kind": "AdmissionReview",
            "request": { "uid": "u", "operation": "CREATE", "kind": kind, "object": object },
        });
        let response = review(&policy(), &request);
        let after = apply(&object, &operations(&response));
        assert!(after["metadata"]["annotations"]["callgate.dev/injected"].is_string(), "{kind}");
        assert!(after.get("kind").is_none());
        // Without the kind of the request, the object is none of the known kinds.
        request["request"].as_object_mut().unwrap().remove("kind");
        assert_eq!(review(&policy(), &request), unchanged());
    }
}

#[test]
fn a_large_object_that_needs_no_sidecar_is_admitted() {
    let large = || vec![json!({ "name": "x" }); 60_000];
    let with = |object: &Value, list: &str| {
        let mut object = object.clone();
        object["spec"][list] = large().into();
        object
    };
    let large_pod = |metadata: Value| with(&pod(metadata, spec()), "volumes");
    assert!(denied(&large_pod(json!({ "name": "p" }))).contains("more than 50000 values"));
    assert_eq!(created(&with(&workload("example.com/v1", "Table", spec()), "rows")), unchanged());
    let out = json!({ "callgate.dev/inject": "false" });
    assert_eq!(created(&large_pod(json!({ "name": "p", "labels": out }))), unchanged());
    assert_eq!(created(&large_pod(json!({ "name": "p", "annotations": out }))), unchanged());
    // The pod template can opt out, too.
    let mut object = with(&deployment(spec()), "other");
    object["spec"]["template"]["metadata"]["annotations"] = out;
    assert_eq!(created(&object), unchanged());
    let old = large_pod(json!({ "name": "p" }));
    assert_eq!(asked(&policy(), "UPDATE", &old, &old), unchanged());
    let selector = Selector::parse("app=agent").unwrap();
    let selective = WebhookPolicy { sidecar: Sidecar { selector, ..Sidecar::default() }, ..policy() };
    assert_eq!(asked(&selective, "CREATE", &old, &Value::Null), unchanged());
    // Metadata that is too large cannot be judged.
    let labels: serde_json::Map<_, _> = (0..60_000).map(|i| (format!("k{i}"), json!("v"))).collect();
    assert!(denied(&pod(json!({ "name": "p", "labels": labels }), spec())).contains("50000"));
}

#[test]
fn deep_objects_of_other_kinds_are_admitted() {
    let deep = format!("{}{}", "[".repeat(5000), "]".repeat(5000));
    let asked = |kind: &str| {
        let body = format!(
            r#"{{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{{"uid":"u","operation":"CREATE",
            "object":{{"apiVersion":"v1","kind":"{kind}","metadata":{{}},"spec":{deep}}}}}}}"#
        );
        callgate::cli::answer_review(&policy(), body.as_bytes()).unwrap()["response"].clone()
    };
    assert_eq!(asked("Other"), unchanged());
    assert_eq!(asked("Pod")["allowed"], false);
}

#[test]
fn a_denial_is_whole_and_warnings_are_split_between_words() {
    let ports: Vec<_> =
        (0..15).map(|i| json!({ "containerPort": 9000 + i, "name": format!("port-{i}") })).collect();
    let mut spec = spec();
    spec["containers"][0]["ports"] = ports.into();
    let object = pod(json!({ "name": "p" }), spec);
    let message = denied(&object);
    assert!(message.len() > 300 && message.ends_with("port-14 (9014) of agent"), "{message}");
    let admits = WebhookPolicy { admits_unusable: true, ..policy() };
    let response = asked(&admits, "CREATE", &object, &Value::Null);
    let all: Vec<_> =
        response["warnings"].as_array().unwrap().iter().map(|one| one.as_str().unwrap()).collect();
    assert!(all.len() > 1 && all.iter().all(|one| one.chars().count() <= 250), "{all:?}");
    assert!(all[0].ends_with(" …") && all[1].starts_with("… "), "{all:?}");
    let joined = all.join(" ").replace(" … … ", " ");
    assert_eq!(joined, message);
}

#[test]
fn a_pod_that_ends_is_warned_about() {
    let ends = |metadata: Value, policy: &str| {
        let mut spec = spec();
        spec["restartPolicy"] = policy.into();
        let object = pod(metadata, spec);
        warnings(&created(&object)).contains("its sidecar and its ledger end, too")
    };
    let job = json!([{ "kind": "Job", "name": "agent", "controller": true }]);
    assert!(ends(json!({ "generateName": "agent-", "ownerReferences": job }), "OnFailure"));
    assert!(ends(json!({ "name": "agent" }), "Never"));
    assert!(ends(json!({ "name": "agent" }), "OnFailure"));
    assert!(!ends(json!({ "name": "agent" }), "Always"));
}

#[test]
fn a_stale_record_of_a_new_pod_is_ignored() {
    let record =
        "container: agent\nport:\n  at: 0\n  entry:\n    name: http\n    containerPort: 8000\nvolumes: []\n";
    let object = pod(json!({ "name": "p", "annotations": { "callgate.dev/injected": record } }), spec());
    let after = admitted(&object);
    assert_eq!(after["spec"]["containers"][0]["ports"], json!([]));
    let fresh = admitted(&pod(json!({ "name": "p" }), spec()));
    assert_eq!(after["spec"], fresh["spec"]);
    // A copy of a pod with the sidecar whose init containers were left out has the other parts of the sidecar.
    let mut copy = fresh.clone();
    copy["spec"].as_object_mut().unwrap().remove("initContainers");
    assert_eq!(admitted(&copy)["spec"], fresh["spec"]);
    // The volume of a StatefulSet for the ledger does not come from the sidecar.
    let mut claimed = object.clone();
    claimed["spec"]["volumes"] =
        json!([{ "name": "callgate-state", "persistentVolumeClaim": { "claimName": "c" } }]);
    let after = admitted(&claimed);
    assert_eq!(after["spec"]["containers"][0]["ports"], json!([]));
    assert_eq!(after["spec"]["volumes"][0], claimed["spec"]["volumes"][0]);
}

#[test]
fn a_pod_that_brings_the_sidecar_is_checked_too() {
    let proxied = Proxied { ca_secret: "ca".to_owned(), direct: Vec::new() };
    let sidecar = Sidecar { proxied: Some(proxied), ..Sidecar::default() };
    let policy = WebhookPolicy { sidecar, admits_unusable: false };
    let fresh = pod(json!({ "name": "p" }), spec());
    let response = asked(&policy, "CREATE", &fresh, &Value::Null);
    let mut brought = apply(&fresh, &operations(&response));
    brought["metadata"].as_object_mut().unwrap().remove("annotations");
    assert_eq!(asked(&policy, "CREATE", &brought, &Value::Null), unchanged());
    let other = |key: &str, value: Value| {
        let mut object = brought.clone();
        object["spec"]["containers"].as_array_mut().unwrap().push(json!({ "name": "b", key: value }));
        object
    };
    let mount = |volume: &str| other("volumeMounts", json!([{ "name": volume, "mountPath": "/x" }]));
    let port = |name: &str| other("ports", json!([{ "name": name, "containerPort": 1 }]));
    let mut on_node = brought.clone();
    on_node["spec"]["hostNetwork"] = true.into();
    let mut windows = brought.clone();
    windows["spec"]["os"] = json!({ "name": "windows" });
    for (object, words) in [
        (on_node, "hostNetwork"),
        (windows, "Windows"),
        (mount("callgate-secrets"), "mounts the volume callgate-secrets"),
        (mount("callgate-ca"), "mounts the volume callgate-ca"),
        (port("callgate-admin"), "has the name callgate-admin"),
        (port(&"x".repeat(300)), "the name of a port is too long"),
    ] {
        let response = asked(&policy, "CREATE", &object, &Value::Null);
        let message = response["status"]["message"].as_str().unwrap_or_default();
        assert!(message.contains(words), "{words}: {response}");
        let mut out = object.clone();
        out["metadata"]["annotations"] = json!({ "callgate.dev/inject": "false" });
        assert_eq!(asked(&policy, "CREATE", &out, &Value::Null), unchanged());
    }
    // The certificates that the agent must trust, and volumes that the sidecar does not have, are for all containers.
    for object in [mount("callgate-trust"), mount("callgate-tls"), port("http"), port("other")] {
        assert_eq!(asked(&policy, "CREATE", &object, &Value::Null), unchanged());
    }
}

#[test]
fn a_template_with_too_much_metadata_is_not_left_without_the_sidecar() {
    let selector = Selector::parse("app=agent").unwrap();
    let policy =
        WebhookPolicy { sidecar: Sidecar { selector, ..Sidecar::default() }, admits_unusable: false };
    let mut object = deployment(spec());
    let labels = object["spec"]["template"]["metadata"]["labels"].as_object_mut().unwrap();
    labels.extend((0..50_001).map(|at| (format!("l{at}"), json!(""))));
    let response = asked(&policy, "CREATE", &object, &Value::Null);
    assert!(response["status"]["message"].to_string().contains("more than 50000 values"), "{response}");
    // An object without a template is not selected.
    object["spec"] = json!({});
    assert_eq!(asked(&policy, "CREATE", &object, &Value::Null), unchanged());
}
