//! `callgate webhook`: recorded AdmissionReview objects, over TLS, with the real binary.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use callgate::cli::{Selector, Sidecar, WebhookPolicy, answer_review};
use data_encoding::BASE64;
use serde_json::{Value, json};

use crate::harness::eventually;
use crate::tls::{authority, issued};

pub(crate) fn recorded(name: &str) -> Value {
    serde_json::from_str(&fs::read_to_string(format!("tests/admission/{name}.json")).unwrap()).unwrap()
}

pub(crate) fn policy() -> WebhookPolicy {
    WebhookPolicy { sidecar: Sidecar::default(), admits_unusable: false }
}

pub(crate) fn review(policy: &WebhookPolicy, request: &Value) -> Value {
    let answer = answer_review(policy, request.to_string().as_bytes()).unwrap();
    assert_eq!((&answer["apiVersion"], &answer["kind"]), (&request["apiVersion"], &request["kind"]));
    assert_eq!(answer["response"]["uid"], request["request"]["uid"]);
    answer["response"].clone()
}

/// Returns the operations of the patch in a response.
pub(crate) fn operations(response: &Value) -> Vec<Value> {
    if response["patch"].is_null() {
        assert!(response["patchType"].is_null());
        return Vec::new();
    }
    assert_eq!(response["patchType"], "JSONPatch");
    let bytes = BASE64.decode(response["patch"].as_str().unwrap().as_bytes()).unwrap();
    serde_json::from_slice(&bytes).unwrap()
}

/// Applies a JSON Patch as RFC 6902 says.
pub(crate) fn apply(object: &Value, operations: &[Value]) -> Value {
    let mut object = object.clone();
    for operation in operations {
        let path = operation["path"].as_str().unwrap();
        let (parent, key) = path.rsplit_once('/').unwrap();
        let key = key.replace("~1", "/").replace("~0", "~");
        let parent = object.pointer_mut(parent).unwrap_or_else(|| panic!("{path}")).as_object_mut().unwrap();
        match operation["op"].as_str().unwrap() {
            "add" => drop(parent.insert(key, operation["value"].clone())),
            "replace" => *parent.get_mut(&key).unwrap() = operation["value"].clone(),
            "remove" => drop(parent.remove(&key).unwrap()),
            other => panic!("{other}"),
        }
    }
    object
}

#[test]
fn a_pod_gets_the_sidecar_and_keeps_everything_else() {
    let request = recorded("pod-of-a-deployment");
    let response = review(&policy(), &request);
    assert_eq!(response["allowed"], true);
    let before = &request["request"]["object"];
    let after = apply(before, &operations(&response));
    let (own, agent) = (&after["spec"]["initContainers"][0], &after["spec"]["containers"][0]);
    assert_eq!((&own["name"], &own["restartPolicy"]), (&json!("callgate"), &json!("Always")));
    assert_eq!(own["ports"][0]["containerPort"], 8443);
    assert_eq!(agent["ports"], json!([]));
    assert_eq!(agent["livenessProbe"]["httpGet"]["port"], 8000);
    assert_eq!(agent["env"][0]["value"], "yes");
    assert_eq!(after["metadata"]["labels"]["callgate.dev/agent"], "analysis-agent");
    let warnings: Vec<_> = response["warnings"].as_array().unwrap().iter().collect();
    assert!(warnings.iter().any(|one| one.as_str().unwrap().contains("still reaches the agent's own port")));
    assert!(warnings.iter().all(|one| one.as_str().unwrap().len() <= 256), "{warnings:?}");
    assert!(after["metadata"]["annotations"]["callgate.dev/injected"].is_string());
    // Everything that the webhook does not know is as it was.
    for path in
        ["/metadata/managedFields", "/metadata/ownerReferences", "/spec/tolerations", "/spec/volumes/0"]
    {
        assert_eq!(after.pointer(path), before.pointer(path), "{path}");
    }
    assert!(after["metadata"].get("namespace").is_none());
    // A second call, such as a reinvocation, changes nothing.
    let mut again = request.clone();
    again["request"]["object"] = after;
    assert!(operations(&review(&policy(), &again)).is_empty());
}

#[test]
fn workloads_are_patched_again_with_new_settings_only() {
    let request = recorded("deployment");
    let response = review(&policy(), &request);
    let after = apply(&request["request"]["object"], &operations(&response));
    assert_eq!(after["spec"]["template"]["spec"]["initContainers"][0]["name"], "callgate");
    let mut again = request.clone();
    again["request"]["object"] = after;
    assert!(operations(&review(&policy(), &again)).is_empty());
    let sidecar = Sidecar { image: "callgate:9".to_owned(), ..Sidecar::default() };
    let newer = WebhookPolicy { sidecar, admits_unusable: false };
    let updated = apply(&again["request"]["object"], &operations(&review(&newer, &again)));
    assert_eq!(updated["spec"]["template"]["spec"]["initContainers"][0]["image"], "callgate:9");
    // A workload that has the sidecar by other means, such as kustomize, has no record.
    again["request"]["object"]["metadata"].as_object_mut().unwrap().remove("annotations");
    let response = review(&policy(), &again);
    assert!(response["allowed"] == true && operations(&response).is_empty(), "{response}");
}

#[test]
fn what_needs_no_sidecar_is_admitted_as_it_is() {
    for name in ["pod-that-opts-out", "pod-update", "scale", "delete"] {
        let response = review(&policy(), &recorded(name));
        assert_eq!(response, json!({ "uid": recorded(name)["request"]["uid"], "allowed": true }), "{name}");
    }
    let selector = Selector::parse("app!=analysis-agent").unwrap();
    let selective = WebhookPolicy { sidecar: Sidecar { selector, ..Sidecar::default() }, ..policy() };
    assert!(operations(&review(&selective, &recorded("pod-of-a-deployment"))).is_empty());
}

#[test]
fn what_cannot_have_the_sidecar_is_denied_or_admitted_with_a_warning() {
    let request = recorded("pod-on-the-node");
    let response = review(&policy(), &request);
    assert_eq!((&response["allowed"], &response["status"]["code"]), (&json!(false), &json!(422)));
    let message = response["status"]["message"].as_str().unwrap();
    assert!(message.contains("hostNetwork") && message.len() <= 256, "{message}");
    let response = review(&WebhookPolicy { admits_unusable: true, ..policy() }, &request);
    assert_eq!(response["allowed"], true);
    assert!(response["warnings"][0].as_str().unwrap().contains("hostNetwork"), "{response}");
}

#[test]
fn a_denial_names_the_annotation_that_helps() {
    let mut request = recorded("pod-of-a-deployment");
    let port = json!({ "containerPort": 9000, "name": "grpc", "protocol": "TCP" });
    request["request"]["object"]["spec"]["containers"][0]["ports"].as_array_mut().unwrap().push(port);
    let response = review(&policy(), &request);
    let message = response["status"]["message"].as_str().unwrap();
    assert!(message.contains("annotation callgate.dev/agent-port"), "{message}");
    request["request"]["object"]["metadata"]["annotations"] = json!({ "callgate.dev/agent-port": "http" });
    assert_eq!(review(&policy(), &request)["allowed"], true);
}

#[test]
fn what_is_no_review_is_an_error() {
    let mut old = recorded("scale");
    old["apiVersion"] = "admission.k8s.io/v1beta1".into();
    let mut unnamed = recorded("scale");
    unnamed["request"].as_object_mut().unwrap().remove("uid");
    for body in [old.to_string(), unnamed.to_string(), "{".to_owned(), "[]".to_owned(), "[".repeat(10_000)] {
        assert!(answer_review(&policy(), body.as_bytes()).is_err(), "{body:.60}");
    }
}

/// The real binary, which accepts TLS.
struct Webhook {
    child: Child,
    address: SocketAddr,
}

impl Webhook {
    fn start(folder: &Path, args: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_callgate"))
            .current_dir(folder)
            .args(["webhook", "--listen", "127.0.0.1:0", "--certificate", "tls.crt", "--key", "tls.key"])
            .args(args)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
        let address = lines.find_map(|line| line.split_once("webhook on ")?.1.parse().ok()).unwrap();
        std::thread::spawn(move || lines.for_each(drop));
        Self { child, address }
    }

    /// Sends a request with curl, which trusts `ca`. Returns the status, or an error of TLS, and the body.
    fn ask(&self, folder: &Path, ca: &str, path: &str, args: &[&str]) -> (String, String) {
        let url = format!("https://127.0.0.1:{}{path}", self.address.port());
        let out = Command::new("curl")
            .current_dir(folder)
            .args(["-s", "-S", "--cacert", ca, "-o", "body", "-w", "%{http_code}", &url])
            .args(args)
            .output()
            .unwrap();
        let status = String::from_utf8([out.stdout, out.stderr].concat()).unwrap();
        (status, fs::read_to_string(folder.join("body")).unwrap_or_default())
    }
}

impl Drop for Webhook {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn it_serves_over_tls_and_its_certificate_rotates() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let certificate = |ca: &str| {
        authority(at, ca);
        issued(at, ca, "new", "IP:127.0.0.1");
        fs::rename(at.join("new.key"), at.join("tls.key")).unwrap();
        fs::rename(at.join("new.crt"), at.join("tls.crt")).unwrap();
    };
    certificate("first");
    let webhook = Webhook::start(at, &["--image", "registry.example.com/callgate:1", "-l", "app"]);
    let recording = fs::canonicalize("tests/admission/pod-of-a-deployment.json").unwrap();
    let body = format!("@{}", recording.display());
    let json = ["-H", "content-type: application/json", "--data-binary", &body];
    let (status, answer) = webhook.ask(at, "first.crt", "/mutate?timeout=5s", &json);
    assert_eq!(status, "200", "{answer}");
    let answer: Value = serde_json::from_str(&answer).unwrap();
    let request = recorded("pod-of-a-deployment");
    let after = apply(&request["request"]["object"], &operations(&answer["response"]));
    assert_eq!(after["spec"]["initContainers"][0]["image"], "registry.example.com/callgate:1");

    assert_eq!(webhook.ask(at, "first.crt", "/readyz", &[]).0, "200");
    let counted = |outcome: &str, count: u32| {
        let line = format!("callgate_webhook_reviews_total{{outcome=\"{outcome}\"}} {count}\n");
        let (status, text) = webhook.ask(at, "first.crt", "/metrics", &[]);
        assert!(status == "200" && text.contains(&line), "{line} {text}");
    };
    counted("patched", 1);
    counted("invalid", 0);
    assert_eq!(webhook.ask(at, "first.crt", "/mutate", &[]).0, "405");
    assert_eq!(webhook.ask(at, "first.crt", "/other", &json).0, "404");
    assert_eq!(webhook.ask(at, "first.crt", "/mutate", &["--data-binary", &body]).0, "415");
    let wrong = ["-H", "content-type: application/json", "--data-binary", "{}"];
    assert_eq!(webhook.ask(at, "first.crt", "/mutate", &wrong).0, "400");
    counted("invalid", 2);
    fs::write(at.join("large"), vec![b' '; 9 << 20]).unwrap();
    // curl sends slowly, so that it reads the response before the connection is closed and reset.
    let slowly = ["--limit-rate", "1M", "-H", "expect:", "--data-binary", "@large"];
    let large = [&["-H", "content-type: application/json"][..], &slowly].concat();
    assert!(webhook.ask(at, "first.crt", "/mutate", &large).0.starts_with("413"));
    // Plain HTTP gets no answer.
    let plain =
        Command::new("curl").args(["-s", &format!("http://{}/readyz", webhook.address)]).output().unwrap();
    assert!(!plain.status.success());

    certificate("second");
    eventually(|| (webhook.ask(at, "second.crt", "/readyz", &[]).0 == "200").then_some(()));
    assert!(webhook.ask(at, "first.crt", "/readyz", &[]).0.contains("SSL"));
    // A broken certificate is not used.
    fs::write(at.join("tls.crt"), "broken").unwrap();
    certificate("third");
    eventually(|| (webhook.ask(at, "third.crt", "/readyz", &[]).0 == "200").then_some(()));
}

#[test]
fn an_unusable_certificate_is_an_error_at_start() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("missing").display().to_string();
    let mut command = Command::new(env!("CARGO_BIN_EXE_callgate"));
    let out = command.args(["webhook", "--certificate", &missing, "--key", &missing]).output().unwrap();
    assert_eq!(out.status.code(), Some(64), "{out:?}");
    assert!(String::from_utf8_lossy(&out.stderr).contains("missing"), "{out:?}");
}
