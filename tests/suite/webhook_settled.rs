//! `callgate webhook`: updates of workloads that have the sidecar already, with the defaults of the API server.

use callgate::cli::{Sidecar, WebhookPolicy};
use serde_json::{Value, json};

use crate::webhook::{apply, operations, policy, review};

fn asked(policy: &WebhookPolicy, operation: &str, object: &Value, old: &Value) -> Value {
    let request = json!({
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "request": { "uid": "u", "operation": operation, "object": object, "oldObject": old },
    });
    let response = review(policy, &request);
    assert_eq!(response["allowed"], true, "{response}");
    response
}

fn patched(policy: &WebhookPolicy, operation: &str, object: &Value, old: &Value) -> Value {
    let response = asked(policy, operation, object, old);
    assert!(response["patch"].is_string(), "{response}");
    apply(object, &operations(&response))
}

fn unchanged() -> Value {
    json!({ "uid": "u", "allowed": true })
}

fn workload(kind: &str) -> Value {
    json!({
        "apiVersion": "apps/v1",
        "kind": kind,
        "metadata": { "name": "agent", "namespace": "agents" },
        "spec": { "template": { "metadata": { "labels": { "app": "agent" } }, "spec": { "containers": [{
            "name": "agent",
            "image": "a:1",
            "ports": [{ "name": "http", "containerPort": 8000 }],
            "readinessProbe": { "httpGet": { "port": "http" } },
        }] } } },
    })
}

fn default(object: &mut Value, key: &str, value: Value) {
    let object = object.as_object_mut().unwrap();
    object.entry(key).or_insert(value);
}

/// Adds the defaults of the API server to a workload, and removes its empty lists.
fn defaulted(object: &Value) -> Value {
    let mut object = object.clone();
    let pod = &mut object["spec"]["template"]["spec"];
    for list in ["containers", "initContainers"] {
        for container in pod[list].as_array_mut().into_iter().flatten() {
            for (key, value) in [
                ("imagePullPolicy", json!("IfNotPresent")),
                ("resources", json!({})),
                ("terminationMessagePath", json!("/dev/termination-log")),
                ("terminationMessagePolicy", json!("File")),
            ] {
                default(container, key, value);
            }
            for probe in ["startupProbe", "livenessProbe", "readinessProbe"] {
                let Some(probe) = container.get_mut(probe) else { continue };
                default(&mut probe["httpGet"], "scheme", json!("HTTP"));
                for (key, value) in [
                    ("timeoutSeconds", 1),
                    ("periodSeconds", 10),
                    ("successThreshold", 1),
                    ("failureThreshold", 3),
                ] {
                    default(probe, key, json!(value));
                }
            }
            for port in container["ports"].as_array_mut().into_iter().flatten() {
                default(port, "protocol", json!("TCP"));
            }
            for variable in container.get_mut("env").and_then(Value::as_array_mut).into_iter().flatten() {
                if let Some(field) = variable.pointer_mut("/valueFrom/fieldRef") {
                    default(field, "apiVersion", json!("v1"));
                }
            }
            container.as_object_mut().unwrap().retain(|_, value| *value != json!([]) && !value.is_null());
        }
    }
    for volume in pod["volumes"].as_array_mut().into_iter().flatten() {
        if let Some(map) = volume.get_mut("configMap") {
            default(map, "defaultMode", json!(420));
        }
    }
    for (key, value) in [
        ("dnsPolicy", json!("ClusterFirst")),
        ("restartPolicy", json!("Always")),
        ("schedulerName", json!("default-scheduler")),
        ("securityContext", json!({})),
        ("terminationGracePeriodSeconds", json!(30)),
    ] {
        default(pod, key, value);
    }
    object["metadata"]["generation"] = 2.into();
    object["metadata"]["annotations"]["deployment.kubernetes.io/revision"] = "2".into();
    object
}

#[test]
fn an_update_of_a_workload_with_the_sidecar_gets_no_patch_and_no_warnings() {
    for (kind, replica_port) in [("Deployment", None), ("StatefulSet", Some(8446)), ("DaemonSet", Some(8446))]
    {
        for bind_env in [None, Some("HOST".to_owned())] {
            let sidecar =
                Sidecar { replica_port, bind_env, tls_secret: Some("t".to_owned()), ..Sidecar::default() };
            let policy = WebhookPolicy { sidecar: sidecar.clone(), admits_unusable: false };
            let live = defaulted(&patched(&policy, "CREATE", &workload(kind), &Value::Null));
            let mut scaled = live.clone();
            scaled["spec"]["replicas"] = 2.into();
            assert_eq!(asked(&policy, "UPDATE", &scaled, &live), unchanged(), "{kind}");
            // Other settings are written.
            let newer = Sidecar { image: "callgate:9".to_owned(), ..sidecar.clone() };
            let newer = WebhookPolicy { sidecar: newer, admits_unusable: false };
            let after = patched(&newer, "UPDATE", &live, &live);
            let pod = &after["spec"]["template"]["spec"];
            assert_eq!(pod["initContainers"][0]["image"], "callgate:9");
            assert_eq!(pod["initContainers"][0]["ports"][0]["name"], "http");
            assert_eq!(pod["containers"][0]["readinessProbe"]["httpGet"]["port"], 8000);
        }
    }
}

#[test]
fn what_somebody_changed_in_the_sidecar_is_written_again() {
    let live = defaulted(&patched(&policy(), "CREATE", &workload("Deployment"), &Value::Null));
    let own = "/spec/template/spec/initContainers/0";
    for (key, value) in [
        ("command", json!(["/bin/sh"])),
        ("env", json!([{ "name": "A", "value": "b" }])),
        ("image", json!("other:1")),
        ("livenessProbe", json!({})),
        ("terminationMessagePath", json!("/other")),
    ] {
        let mut object = live.clone();
        object.pointer_mut(own).unwrap()[key] = value;
        let after = patched(&policy(), "UPDATE", &object, &live);
        let pointer = after.pointer(own).unwrap();
        assert_ne!(pointer.get(key), object.pointer(own).unwrap().get(key), "{key}");
    }
    // Without `--replicas`, the variables are removed again.
    let sidecar = Sidecar { replica_port: Some(8446), ..Sidecar::default() };
    let replicas = WebhookPolicy { sidecar, admits_unusable: false };
    let live = defaulted(&patched(&replicas, "CREATE", &workload("Deployment"), &Value::Null));
    let after = patched(&policy(), "UPDATE", &live, &live);
    assert!(after.pointer(own).unwrap().get("env").is_none());
}

#[test]
fn the_port_comes_back_after_the_api_server_has_removed_the_empty_list() {
    let mut live = defaulted(&patched(&policy(), "CREATE", &workload("Deployment"), &Value::Null));
    live["metadata"]["annotations"]["callgate.dev/inject"] = "false".into();
    let after = patched(&policy(), "UPDATE", &live, &live);
    let agent = &after["spec"]["template"]["spec"]["containers"][0];
    assert_eq!(agent["ports"], json!([{ "name": "http", "containerPort": 8000 }]));
    assert_eq!(agent["readinessProbe"]["httpGet"]["port"], "http");
}

#[test]
fn the_service_name_of_an_existing_stateful_set_does_not_change() {
    let sidecar = Sidecar { replica_port: Some(8446), ..Sidecar::default() };
    let replicas = WebhookPolicy { sidecar, admits_unusable: false };
    let set = workload("StatefulSet");
    let mut empty = set.clone();
    empty["spec"]["serviceName"] = "".into();
    let variables =
        |object: &Value| object["spec"]["template"]["spec"]["initContainers"][0]["env"].to_string();
    for new in [&set, &empty] {
        // A new one gets the name of the headless Service.
        let created = patched(&replicas, "CREATE", new, &Value::Null);
        assert_eq!(created["spec"]["serviceName"], "agent-replicas");
        assert!(variables(&created).contains("$(POD_NAME).agent-replicas."), "{created}");
        let live = defaulted(&created);
        assert_eq!(asked(&replicas, "UPDATE", &live, &live), unchanged());
        // The name stays even if the author writes the manifest again, opts out, or names the workload otherwise.
        assert_eq!(patched(&replicas, "UPDATE", new, &live)["spec"]["serviceName"], "agent-replicas");
        assert_eq!(patched(&policy(), "UPDATE", &live, &live)["spec"]["serviceName"], "agent-replicas");
        let mut out = live.clone();
        out["metadata"]["annotations"]["callgate.dev/inject"] = "false".into();
        assert_eq!(patched(&replicas, "UPDATE", &out, &live)["spec"]["serviceName"], "agent-replicas");
        let mut named = live.clone();
        named["metadata"]["annotations"]["callgate.dev/name"] = "other".into();
        let named = patched(&replicas, "UPDATE", &named, &live);
        assert_eq!(named["spec"]["serviceName"], "agent-replicas");
        assert!(variables(&named).contains("$(POD_NAME).agent-replicas."), "{named}");
        // One that exists without a name gets none.
        let response = asked(&replicas, "UPDATE", new, new);
        let after = apply(new, &operations(&response));
        assert_eq!(after["spec"].get("serviceName"), new["spec"].get("serviceName"));
        assert!(variables(&after).contains("POD_IP") && !variables(&after).contains("POD_DNS_NAME"));
        assert!(response["warnings"].to_string().contains("it has no `serviceName`"), "{response}");
        let live = defaulted(&after);
        assert_eq!(asked(&replicas, "UPDATE", &live, &live), unchanged());
    }
}

#[test]
fn the_manifest_can_be_applied_again_and_changed() {
    let manifest = workload("Deployment");
    let live = defaulted(&patched(&policy(), "CREATE", &manifest, &Value::Null));
    let agent = "/spec/template/spec/containers/0";
    let pod = |object: &Value| object["spec"]["template"]["spec"].clone();
    // `kubectl apply` sets the fields of the manifest, and leaves those of the sidecar.
    let applied = |port: Value, probe: Value| {
        let mut object = live.clone();
        let agent = object.pointer_mut(agent).unwrap();
        agent["ports"] = json!([port]);
        agent["readinessProbe"]["httpGet"]["port"] = probe;
        object
    };
    let port = |name: &str, number: u16| json!({ "name": name, "containerPort": number, "protocol": "TCP" });
    let again = patched(&policy(), "UPDATE", &applied(port("http", 8000), "http".into()), &live);
    assert_eq!(pod(&defaulted(&again)), pod(&live));
    for (port, probe, name, number) in [
        (port("http", 9000), json!("http"), "http", 9000),
        (port("http", 9000), json!(8000), "http", 9000),
        (port("web", 8000), json!("web"), "web", 8000),
        (port("web", 8000), json!(8000), "web", 8000),
    ] {
        let after = patched(&policy(), "UPDATE", &applied(port.clone(), probe), &live);
        let pod = pod(&after);
        assert_eq!(pod["initContainers"][0]["ports"][0]["name"], name);
        assert_eq!(pod["containers"][0]["ports"], json!([]));
        assert_eq!(pod["containers"][0]["readinessProbe"]["httpGet"]["port"], number, "{port}");
        // Without the sidecar, the agent has its new port.
        let mut out = after.clone();
        out["metadata"]["annotations"]["callgate.dev/inject"] = "false".into();
        let out = patched(&policy(), "UPDATE", &out, &after);
        assert_eq!(out.pointer(agent).unwrap()["ports"], json!([port]));
        assert_eq!(out.pointer(agent).unwrap()["readinessProbe"]["httpGet"]["port"], name);
    }
    // A probe that uses another port now keeps it.
    let other = applied(port("http", 8000), 9100.into());
    let after = patched(&policy(), "UPDATE", &other, &live);
    assert_eq!(after.pointer(agent).unwrap()["readinessProbe"]["httpGet"]["port"], 9100);
}
