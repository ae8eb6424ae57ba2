//! `callgate inject`: pods that cannot hold the sidecar, and the annotations that help.

use callgate::cli::{BaseUrl, Companion, Sidecar, inject, remove};
use serde_json::{Value, json};

fn pod(annotations: &Value, spec: &Value) -> String {
    let metadata = json!({ "name": "agent", "annotations": annotations });
    json!({ "apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec }).to_string()
}

fn written(text: &str) -> Value {
    let first = text.split("---\n").find(|part| !part.trim().is_empty()).unwrap();
    serde_yaml::from_str(first).unwrap()
}

fn put(annotations: &Value, spec: &Value, sidecar: &Sidecar) -> (Value, String) {
    let done = inject(&pod(annotations, spec), sidecar).unwrap();
    (written(&done.text), done.notes.join("\n"))
}

fn refused(annotations: &Value, spec: &Value, sidecar: &Sidecar) -> String {
    inject(&pod(annotations, spec), sidecar).unwrap_err()
}

fn agent(members: Value) -> Value {
    let mut agent =
        json!({ "name": "agent", "image": "a", "ports": [{ "containerPort": 8000, "name": "http" }] });
    for (key, value) in members.as_object().unwrap() {
        agent[key] = value.clone();
    }
    json!({ "containers": [agent] })
}

#[test]
fn a_pod_on_windows_is_refused() {
    let mut spec = agent(json!({}));
    spec["os"] = json!({ "name": "windows" });
    let message = refused(&json!({}), &spec, &Sidecar::default());
    assert!(message.contains("it runs on Windows (`os.name`)"), "{message}");
    assert!(message.contains("callgate.dev/inject: \"false\""), "{message}");
}

fn resources(requests: Value, limits: Value) -> Value {
    json!({ "resources": { "requests": requests, "limits": limits } })
}

#[test]
fn the_resources_of_the_pod_must_hold_the_sidecar() {
    let cpu = |text: &str| json!({ "cpu": text });
    let memory = |text: &str| json!({ "memory": text });
    let none = json!({});
    for (own, of_agent, expected) in [
        (
            resources(none.clone(), memory("200Mi")),
            none.clone(),
            Some("`resources.limits.memory` of the pod is 200Mi"),
        ),
        (resources(none.clone(), memory("256Mi")), none.clone(), None),
        (
            resources(cpu("100m"), none.clone()),
            resources(cpu("60m"), none.clone()),
            Some("requests.cpu` of the pod is 100m"),
        ),
        (resources(cpu("110m"), none.clone()), resources(cpu("60m"), none.clone()), None),
        // A container requests its limit, and a pod can request its limit.
        (
            resources(cpu("1"), none.clone()),
            resources(none.clone(), cpu("960m")),
            Some("requests.cpu` of the pod is 1,"),
        ),
        (
            resources(none.clone(), cpu("0.04")),
            none.clone(),
            Some("`resources.limits.cpu` of the pod is 0.04"),
        ),
        (resources(none.clone(), json!({ "cpu": 1 })), resources(cpu("950m"), none.clone()), None),
        (none.clone(), resources(cpu("9"), memory("9Gi")), None),
    ] {
        let mut spec = agent(of_agent);
        if let Some(own) = own.get("resources") {
            spec["resources"] = own.clone();
        }
        let done = inject(&pod(&json!({}), &spec), &Sidecar::default());
        match expected {
            Some(expected) => assert!(done.as_ref().unwrap_err().contains(expected), "{expected}: {done:?}"),
            None => assert!(done.is_ok(), "{spec}: {done:?}"),
        }
    }
    // An init container runs before the agent, together with the sidecar.
    let mut spec = agent(json!({}));
    spec["resources"] = json!({ "requests": { "cpu": "1" } });
    let mut with = |request: &str| {
        spec["initContainers"] =
            json!([{ "name": "i", "image": "i", "resources": { "requests": { "cpu": request } } }]);
        inject(&pod(&json!({}), &spec), &Sidecar::default())
    };
    assert!(with("950m").is_ok() && with("951m").is_err());
}

#[test]
fn the_end_of_the_class_guaranteed_is_noted() {
    let both = json!({ "cpu": "1", "memory": "1Gi" });
    let is_noted = |spec: &Value| put(&json!({}), spec, &Sidecar::default()).1.contains("Guaranteed");
    assert!(is_noted(&agent(resources(both.clone(), both.clone()))));
    assert!(is_noted(&agent(resources(json!({}), both.clone()))));
    assert!(is_noted(&agent(resources(json!({ "cpu": "1000m", "memory": "1024Mi" }), both.clone()))));
    assert!(!is_noted(&agent(resources(json!({ "cpu": "500m" }), both.clone()))));
    assert!(!is_noted(&agent(json!({}))));
    let mut spec = agent(resources(both.clone(), both.clone()));
    spec["initContainers"] = json!([{ "name": "i", "image": "i" }]);
    assert!(!is_noted(&spec));
    spec.as_object_mut().unwrap().remove("initContainers");
    spec["resources"] =
        json!({ "requests": { "cpu": "2", "memory": "2Gi" }, "limits": { "cpu": "2", "memory": "2Gi" } });
    assert!(!is_noted(&spec));
}

#[test]
fn a_port_that_only_a_probe_names_is_in_use() {
    let egress = Sidecar { base_urls: vec![BaseUrl::parse("A=/a").unwrap()], ..Sidecar::default() };
    for (handler, port, sidecar, expected) in [
        (
            json!({ "readinessProbe": { "httpGet": { "port": 8081 } } }),
            8081,
            &egress,
            "`readinessProbe.httpGet` of agent uses it; use --egress-port",
        ),
        (
            json!({ "livenessProbe": { "tcpSocket": { "port": "8443" } } }),
            8443,
            &Sidecar::default(),
            "annotation callgate.dev/port",
        ),
        (
            json!({ "lifecycle": { "preStop": { "httpGet": { "port": 9901 } } } }),
            9901,
            &Sidecar::default(),
            "use --admin-port",
        ),
    ] {
        let message = refused(&json!({}), &agent(handler), sidecar);
        assert!(
            message.contains(&format!("port {port} is taken")) && message.contains(expected),
            "{message}"
        );
    }
    // Without the egress listener, its port is free. A probe of another host uses no port of the pod.
    put(
        &json!({}),
        &agent(json!({ "readinessProbe": { "httpGet": { "port": 8081 } } })),
        &Sidecar::default(),
    );
    put(
        &json!({}),
        &agent(json!({ "readinessProbe": { "httpGet": { "port": 8443, "host": "a.example" } } })),
        &Sidecar::default(),
    );
    // The sidecar's own probes are not those of the agent.
    let once = inject(&pod(&json!({}), &agent(json!({}))), &egress).unwrap().text;
    assert_eq!(inject(&once, &egress).unwrap().text, once);
}

#[test]
fn the_names_of_the_sidecars_ports_are_unique() {
    let named = |name: &str| agent(json!({ "ports": [{ "containerPort": 8000, "name": name }] }));
    let message = refused(&json!({}), &named("callgate-admin"), &Sidecar::default());
    assert!(message.contains("a port of the agent has the name callgate-admin"), "{message}");
    put(&json!({}), &named("callgate"), &Sidecar::default());
    put(&json!({}), &named("callgate-member"), &Sidecar::default());
    let replicas = Sidecar { replica_port: Some(8446), ..Sidecar::default() };
    assert!(refused(&json!({}), &named("callgate-member"), &replicas).contains("callgate-member"));
    let mut spec = agent(json!({}));
    let other = json!({ "name": "other", "image": "o", "ports": [{ "containerPort": 7, "name": "callgate-admin", "protocol": "UDP" }] });
    spec["containers"].as_array_mut().unwrap().push(other);
    let message = refused(&json!({}), &spec, &Sidecar::default());
    assert!(message.contains("a port of other has the name callgate-admin"), "{message}");
}

fn two(first: Value, second: Value) -> Value {
    json!({ "containers": [
        { "name": "web", "image": "w", "ports": first },
        { "name": "agent", "image": "a", "ports": second },
    ] })
}

#[test]
fn an_annotation_names_the_agents_container() {
    let own = json!({ "callgate.dev/agent-container": "agent" });
    let standard = json!({ "kubectl.kubernetes.io/default-container": "agent" });
    let unknown = json!({ "kubectl.kubernetes.io/default-container": "other" });
    let bound = Sidecar { bind_env: Some("HOST".to_owned()), ..Sidecar::default() };
    // No container declares a port.
    let none = two(json!([]), json!([]));
    for annotations in [&own, &standard] {
        let (after, _) = put(annotations, &none, &bound);
        assert_eq!(after["spec"]["containers"][1]["env"][0]["name"], "HOST");
        assert!(after["spec"]["containers"][0].get("env").is_none());
        let back = written(&remove(&inject(&pod(annotations, &none), &bound).unwrap().text).unwrap().text);
        assert_eq!(back["spec"], none);
    }
    for annotations in [&json!({}), &unknown] {
        let message = refused(annotations, &none, &bound);
        assert!(
            message.contains("annotation callgate.dev/agent-container to one of web, agent"),
            "{message}"
        );
    }
    // Several containers declare a port.
    let both = two(json!([{ "containerPort": 80 }]), json!([{ "containerPort": 8000 }]));
    for annotations in [&own, &standard] {
        let (after, _) = put(annotations, &both, &bound);
        assert_eq!(after["spec"]["containers"][1]["ports"], json!([]));
        assert_eq!(after["spec"]["containers"][0]["ports"], both["containers"][0]["ports"]);
    }
    let message = refused(&json!({}), &both, &bound);
    assert!(
        message.contains("callgate.dev/agent-port") && message.contains("callgate.dev/agent-container"),
        "{message}"
    );
    // One container declares a port, and it is not the agent.
    let web = two(json!([{ "containerPort": 80 }]), json!([]));
    let (after, notes) = put(&own, &web, &bound);
    assert_eq!(after["spec"]["containers"][1]["env"][0]["name"], "HOST");
    assert!(notes.contains("no port is declared"), "{notes}");
    // The standard annotation does not override a port that is clear.
    assert_eq!(put(&standard, &web, &bound).0["spec"]["containers"][0]["ports"], json!([]));
    let wrong = json!({ "callgate.dev/agent-container": "nobody" });
    let message = refused(&wrong, &both, &bound);
    assert!(message.contains("names no container; the containers are web, agent"), "{message}");
}

#[test]
fn an_annotation_chooses_the_port_of_the_sidecar() {
    let annotations = json!({ "callgate.dev/port": "7443" });
    let spec = agent(json!({ "ports": [{ "containerPort": 8443, "name": "http" }] }));
    let message = refused(&json!({}), &spec, &Sidecar::default());
    assert!(
        message.contains("use --port or the annotation callgate.dev/port with another port"),
        "{message}"
    );
    let with = Sidecar { with: vec![Companion::Service], ..Sidecar::default() };
    let text = inject(&pod(&annotations, &spec), &with).unwrap().text;
    assert_eq!(written(&text)["spec"]["initContainers"][0]["ports"][0]["containerPort"], 7443);
    assert!(text.contains("targetPort: 7443"), "{text}");
    let (_, notes) = put(&annotations, &spec, &Sidecar::default());
    assert!(notes.contains("`listen.ingress` on port 7443, which is the port in its annotation"), "{notes}");
    for wrong in ["0", "65536", "http", "-1", ""] {
        let message = refused(&json!({ "callgate.dev/port": wrong }), &spec, &Sidecar::default());
        assert!(message.contains("the annotation callgate.dev/port is not a port"), "{wrong}: {message}");
    }
}

#[test]
fn an_empty_service_name_is_replaced_and_comes_back() {
    let replicas = Sidecar { replica_port: Some(8446), ..Sidecar::default() };
    for service in ["serviceName: ''\n  ", "serviceName:\n  ", ""] {
        let text = format!(
            "apiVersion: apps/v1\nkind: StatefulSet\nmetadata: {{ name: a }}\nspec:\n  {service}template:\n    spec:\n      containers: [ {{ name: a, ports: [ {{ containerPort: 80 }} ] }} ]\n"
        );
        let done = inject(&text, &replicas).unwrap().text;
        assert_eq!(written(&done)["spec"]["serviceName"], "a-replicas", "{service}");
        assert_eq!(inject(&done, &replicas).unwrap().text, done);
        assert_eq!(written(&remove(&done).unwrap().text), written(&text), "{service}");
    }
}

#[test]
fn the_end_of_a_pod_is_noted() {
    for (policy, expected) in [("Never", true), ("OnFailure", true), ("Always", false)] {
        let mut spec = agent(json!({}));
        spec["restartPolicy"] = policy.into();
        let (_, notes) = put(&json!({}), &spec, &Sidecar::default());
        assert_eq!(notes.contains("when this pod ends, because of its `restartPolicy`"), expected, "{notes}");
    }
}
