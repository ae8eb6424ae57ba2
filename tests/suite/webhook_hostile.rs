//! AdmissionReview objects from authors of pods who want to stop the webhook, or to read the secrets of the sidecar.

use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use callgate::cli::{Proxied, Sidecar, WebhookPolicy, answer_review};
use serde_json::{Value, json};

use crate::attack_configs::busy;
use crate::tls::{authority, issued};

const RECORD: &str = "callgate.dev/injected";

fn pod(annotations: Value, spec: Value) -> Value {
    let mut pod = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": { "name": "p", "namespace": "n", "annotations": annotations },
        "spec": { "containers": [{ "name": "a", "image": "i", "ports": [{ "containerPort": 8000 }] }] },
    });
    for (key, value) in spec.as_object().unwrap() {
        pod["spec"][key] = value.clone();
    }
    pod
}

/// Returns a pod with a volume of the sidecar, so that its record is read.
fn recorded(record: &str) -> Value {
    let volume = json!([{ "name": "callgate-state", "emptyDir": {} }]);
    pod(json!({ RECORD: record }), json!({ "volumes": volume }))
}

fn request(operation: &str, object: &Value) -> String {
    json!({
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "request": { "uid": "u", "operation": operation, "namespace": "n", "object": object },
    })
    .to_string()
}

fn asked(sidecar: Sidecar, object: &Value) -> Value {
    let policy = WebhookPolicy { sidecar, admits_unusable: false };
    answer_review(&policy, request("CREATE", object).as_bytes()).unwrap()["response"].clone()
}

/// Returns the message with which the webhook denies an object.
fn denied(object: &Value) -> String {
    let response = asked(Sidecar::default(), object);
    assert_eq!(response["allowed"], false, "{response}");
    response["status"]["message"].as_str().unwrap().to_owned()
}

fn ports(count: usize) -> Value {
    json!({ "containers": [{ "name": "a", "ports": vec![json!({ "containerPort": 1 }); count] }] })
}

#[test]
fn a_record_is_limited_before_it_is_read() {
    let many = |item: &str, count: usize| vec![item; count].join(", ");
    for (record, words) in [
        (format!("volumes: {}", "{a: ".repeat(15_000)), "64 levels"),
        (format!("volumes: {}", "[".repeat(60_000)), "64 levels"),
        (format!("volumes: # \u{2028}{}", "{a: ".repeat(10_000)), "U+2028"),
        (format!("volumes: {}", "{a: ".repeat(50_000)), "longer than 64 KiB"),
        (format!("volumes: [{}]", many("callgate-state", 1000)), "does not make"),
        (format!("container: a\nvolumes: []\nvariables: [{}]", many("{name: A}", 1000)), "does not make"),
        (format!("volumes: []\nhandlers: [{}]", many("livenessProbe.httpGet", 1000)), "does not make"),
    ] {
        let message = denied(&recorded(&record));
        assert!(message.contains(words), "{words}: {message}");
    }
}

/// Returns a list whose items have `levels` levels of aliases with 9 items each.
fn expanding(levels: usize) -> String {
    let mut all = "a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1]".to_owned();
    for level in 1..levels {
        let inner = vec![format!("*a{}", level - 1); 9].join(", ");
        all.push_str(&format!(", a{level}: &a{level} [{inner}]"));
    }
    all
}

#[test]
fn a_record_with_aliases_is_refused_before_they_are_replaced() {
    let large = "x".repeat(20_000);
    let many = vec!["*a"; 10_000].join(", ");
    for record in [
        "volumes: []\nport: {at: 0, entry: {name: &a http, containerPort: 1, protocol: *a}}".to_owned(),
        format!("volumes: []\nport: {{at: 0, entry: {{{}}}}}", expanding(4)),
        format!("volumes: []\nport: {{at: 0, entry: {{name: &a {large}, x: [{many}]}}}}"),
        // For the YAML library, the comment ends at U+2028.
        format!("volumes: []\nenv: # \u{2028} {{name: &a {large}, was: {{a: [{many}]}}}}"),
    ] {
        let message = denied(&recorded(&record));
        assert!(message.contains("it has YAML aliases"), "{message}");
    }
}

#[test]
fn a_record_restores_only_what_inject_removes() {
    for record in [
        "container: a\nvolumes: []\nport: {at: 0, entry: {containerPort: 22, hostPort: 22}}",
        "container: a\nvolumes: []\nport: {at: 0, entry: {containerPort: 22, hostIP: 0.0.0.0}}",
        "container: a\nvolumes: []\nport: {at: 0, entry: {containerPort: 22, other: 1}}",
        "container: a\nvolumes: []\nport: {at: 0, entry: {name: http}}",
        "container: a\nvolumes: []\nenv: {name: PATH, was: {name: HOME, value: x}}",
        "container: a\nvolumes: []\nvariables: [{name: PATH, was: {name: PATH, other: x}}]",
    ] {
        let message = denied(&recorded(record));
        assert!(message.contains("does not make"), "{message}");
        // A pod that opts out stays as it is.
        let object = pod(json!({ RECORD: record, "callgate.dev/inject": "false" }), json!({}));
        assert_eq!(asked(Sidecar::default(), &object), json!({ "uid": "u", "allowed": true }));
    }
    let volume = json!([{ "name": "callgate-state", "emptyDir": {} }]);
    let record = json!({ RECORD: "volumes: [callgate-state]", "callgate.dev/inject": "false" });
    let response = asked(Sidecar::default(), &pod(record, json!({ "volumes": volume })));
    assert_eq!(response, json!({ "uid": "u", "allowed": true }));
}

#[test]
fn another_container_with_the_name_of_the_sidecar_is_denied() {
    let other = json!({ "name": "callgate", "image": "evil", "ports": [{ "containerPort": 8000 }] });
    let agent = json!({ "name": "a", "ports": [{ "containerPort": 8000 }] });
    for spec in [
        json!({ "containers": [other] }),
        json!({ "containers": [agent, other] }),
        json!({ "initContainers": [{ "name": "callgate", "image": "busybox", "args": ["true"] }] }),
    ] {
        let message = denied(&pod(json!({}), spec.clone()));
        assert!(message.contains("that `callgate inject` did not put there"), "{message}");
        let out = pod(json!({ "callgate.dev/inject": "false" }), spec);
        assert_eq!(asked(Sidecar::default(), &out), json!({ "uid": "u", "allowed": true }));
    }
}

#[test]
fn only_the_sidecar_mounts_its_secrets() {
    for (list, key, volume) in [
        ("containers", "volumeMounts", "callgate-secrets"),
        ("containers", "volumeMounts", "callgate-ca"),
        ("initContainers", "volumeMounts", "callgate-state"),
        ("containers", "volumeDevices", "callgate-config"),
    ] {
        let mount = json!({ "name": volume, "mountPath": "/x" });
        let mut object = pod(json!({}), json!({}));
        let own = json!({ "name": "b", "image": "i", key: [mount] });
        match list {
            "containers" => object["spec"][list].as_array_mut().unwrap().push(own),
            _ => object["spec"][list] = json!([own]),
        }
        let proxied = Proxied { ca_secret: "ca".to_owned(), direct: Vec::new() };
        let response = asked(Sidecar { proxied: Some(proxied), ..Sidecar::default() }, &object);
        let message = response["status"]["message"].as_str().unwrap_or_default();
        let expected =
            format!("the container b mounts the volume {volume}, which only the sidecar may mount");
        assert!(message.contains(&expected), "{volume}: {response}");
    }
}

/// The maximum CPU time for one request in these tests. An optimized build needs a small part of it.
const BUSY_MAX: Duration = Duration::from_secs(5);

/// Returns the response about a new object, and checks that it is short and needs little time.
fn answered_soon(object: &Value) -> Value {
    let began = busy();
    let response = asked(Sidecar::default(), object);
    let took = busy().saturating_sub(began);
    let warnings = response["warnings"].to_string().len() + response["status"].to_string().len();
    assert!(took < BUSY_MAX && warnings < 20_000, "{took:?}, {warnings} bytes");
    response
}

#[test]
fn long_names_need_no_more_time_than_their_length() {
    let long = "n".repeat(900_000);
    let port = |number: usize, name: &str| json!({ "containerPort": number, "name": name });
    let agent = |name: &str, ports: Vec<Value>| json!({ "containers": [{ "name": name, "ports": ports }] });
    for (spec, words) in [
        (
            agent(&long, (1..21).map(|number| port(number, "p")).collect()),
            "the name of a container is too long",
        ),
        (agent(&long, vec![json!({ "containerPort": 1 }); 20_000]), "the name of a container is too long"),
        (agent("a", (1..4).map(|number| port(number, &long)).collect()), "the name of a port is too long"),
        (
            agent(
                "a",
                vec![json!({ "containerPort": format!("__callgate_quoted__{}", "_".repeat(100_000)) })],
            ),
            "`containerPort`",
        ),
    ] {
        let response = answered_soon(&pod(json!({}), spec));
        let message = response["status"]["message"].as_str().unwrap_or_default();
        assert!(message.contains(words) && message.len() <= 8000, "{response:.500}");
    }
    // Notes contain the protocols of other ports, which have no limit of their own.
    let mut ports = vec![json!({ "containerPort": 8000 })];
    ports.extend((1..21).map(|number| json!({ "containerPort": number, "protocol": "x".repeat(40_000) })));
    assert_eq!(answered_soon(&pod(json!({}), agent("a", ports)))["allowed"], true);
    for key in ["callgate.dev/agent-port", "callgate.dev/agent-container"] {
        let response = answered_soon(&pod(json!({ key: long }), json!({})));
        assert_eq!(response["allowed"], false, "{response:.500}");
    }
}

#[test]
fn many_volumes_are_compared_without_reading_the_component_again() {
    let volumes = json!({ "volumes": vec![json!({ "name": "v" }); 24_000] });
    assert_eq!(answered_soon(&pod(json!({ RECORD: "volumes: []" }), volumes))["allowed"], true);
    let record = format!("volumes: [{}]", vec!["callgate-state"; 4000].join(", "));
    let response = answered_soon(&recorded(&record));
    assert!(response["status"]["message"].to_string().contains("does not make"), "{response}");
}

#[test]
fn an_object_with_too_many_values_is_denied() {
    let message = denied(&pod(json!({}), ports(60_000)));
    assert!(message.contains("more than 50000 values"), "{message}");
    // The text of the message is bounded, too.
    let message = denied(&pod(json!({}), ports(20_000)));
    assert!(message.contains("which port is the agent's?"), "{message}");
    let policy = WebhookPolicy { sidecar: Sidecar::default(), admits_unusable: true };
    let large = request("CREATE", &pod(json!({}), ports(60_000)));
    let response = answer_review(&policy, large.as_bytes()).unwrap()["response"].clone();
    assert!(response["allowed"] == true && response["warnings"][0].is_string(), "{response}");
    let deleted = request("DELETE", &pod(json!({}), ports(60_000)));
    assert_eq!(answer_review(&policy, deleted.as_bytes()).unwrap()["response"]["allowed"], true);
}

struct Webhook(Child);

impl Drop for Webhook {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn the_memory_of_the_webhook_is_bounded_and_health_checks_are_answered() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    authority(at, "ca");
    issued(at, "ca", "tls", "IP:127.0.0.1");
    let mut child = Command::new(env!("CARGO_BIN_EXE_callgate"))
        .current_dir(at)
        .args(["webhook", "--listen", "127.0.0.1:0", "--certificate", "tls.crt", "--key", "tls.key"])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines =
        std::io::BufRead::lines(std::io::BufReader::new(child.stderr.take().unwrap())).map(Result::unwrap);
    let port = lines.find_map(|line| Some(line.split_once("webhook on 127.0.0.1:")?.1.to_owned())).unwrap();
    std::thread::spawn(move || lines.for_each(drop));
    let webhook = Webhook(child);
    fs::write(at.join("large"), request("CREATE", &pod(json!({}), ports(140_000)))).unwrap();
    fs::write(at.join("allowed"), request("CREATE", &pod(json!({}), ports(20_000)))).unwrap();
    let record = format!("volumes: {}", "{a: ".repeat(50_000));
    fs::write(at.join("deep"), request("CREATE", &recorded(&record))).unwrap();
    let ask = |path: &str, body: Option<&str>| {
        let mut curl = Command::new("curl");
        curl.current_dir(at).args([
            "-s",
            "--cacert",
            "ca.crt",
            "-H",
            "content-type: application/json",
            "-H",
            "expect:",
        ]);
        if let Some(body) = body {
            curl.args(["--data-binary", &format!("@{body}")]);
        }
        curl.arg(format!("https://127.0.0.1:{port}{path}")).stdout(Stdio::piped()).spawn().unwrap()
    };
    let asked: Vec<_> =
        ["large", "allowed", "deep"].iter().cycle().take(12).map(|body| ask("/mutate", Some(body))).collect();
    let health = ask("/livez", None).wait_with_output().unwrap();
    assert_eq!(String::from_utf8_lossy(&health.stdout), "ok\n");
    for one in asked {
        let out = one.wait_with_output().unwrap();
        // A busy machine may compute some answers too late. The webhook then answers 503.
        if !out.stdout.starts_with(b"too busy") {
            let answer: Value = serde_json::from_slice(&out.stdout).unwrap();
            assert_eq!(answer["response"]["allowed"], false, "{answer}");
        }
    }
    let status = fs::read_to_string(format!("/proc/{}/status", webhook.0.id())).unwrap();
    let most = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let most: u64 = most.trim().trim_end_matches(" kB").parse().unwrap();
    println!("most memory: {} MiB", most >> 10);
    assert!(most < 256 << 10, "{most} kB");
}
