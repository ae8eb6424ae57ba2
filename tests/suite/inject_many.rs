//! `callgate inject` for many services: which workloads get the sidecar, what is added for each, and short notes.

use std::fs;
use std::io::Write;
use std::process::{Command, Output, Stdio};

use callgate::cli::{
    BaseUrl, Companion, CustomKind, Injected, Selector, Sidecar, inject, remove, remove_from,
};
use serde_yaml::Value;

/// Returns a workload with a port, and further members of its metadata and its pod.
fn workload(kind: &str, name: &str, metadata: &str, pod: &str) -> String {
    let version = if kind.ends_with("Job") { "batch/v1" } else { "apps/v1" };
    format!(
        "apiVersion: {version}
kind: {kind}
metadata: {{ name: {name}, {metadata} }}
spec:
  template:
    metadata: {{ labels: {{ app: {name} }} }}
    spec:
      containers: [ {{ name: agent, image: a, ports: [ {{ containerPort: 8000, name: http }} ], {pod} }} ]
"
    )
}

fn documents(text: &str) -> Vec<Value> {
    let all = serde_yaml::Deserializer::from_str(text);
    all.map(|one| <Value as serde::Deserialize>::deserialize(one).unwrap())
        .filter(|one| !one.is_null())
        .collect()
}

fn has_sidecar(object: &Value) -> bool {
    object["spec"]["template"]["spec"]["initContainers"][0]["name"] == "callgate"
}

fn put(text: &str, sidecar: &Sidecar) -> Injected {
    inject(text, sidecar).unwrap()
}

#[test]
fn a_workload_opts_out_by_annotation() {
    for (annotation, expected) in [
        ("annotations: { callgate.dev/inject: \"false\" }", false),
        ("annotations: { callgate.dev/inject: false }", false),
        ("labels: { callgate.dev/inject: \"false\" }", false),
        ("annotations: { callgate.dev/inject: \"true\" }", true),
        ("", true),
    ] {
        let text = workload("Deployment", "a", annotation, "");
        let injected = put(&text, &Sidecar::default());
        assert_eq!(has_sidecar(&documents(&injected.text)[0]), expected, "{annotation}");
        assert_eq!(injected.text == text, !expected, "{annotation}");
        let notes = injected.notes.join("\n");
        assert_eq!(notes.contains("Deployment a: stays without the sidecar"), !expected, "{notes}");
        let what = if annotation.starts_with("labels") { "the label" } else { "the annotation" };
        assert_eq!(notes.contains(what), !expected, "{notes}");
    }
    // The annotation of the pod template counts, too.
    let text = workload("Deployment", "a", "", "")
        .replace("metadata: { labels:", "metadata: { annotations: { callgate.dev/inject: 'false' }, labels:");
    assert_eq!(put(&text, &Sidecar::default()).text, text);
    // A workload that opts out later loses the sidecar.
    let text = workload("Deployment", "a", "annotations: { x: y }", "");
    let injected = put(&text, &Sidecar::default()).text;
    let out = injected.replace("x: y", "callgate.dev/inject: 'false'");
    assert!(out != injected && !has_sidecar(&documents(&put(&out, &Sidecar::default()).text)[0]));
}

#[test]
fn a_label_selector_chooses() {
    let redis = workload("StatefulSet", "redis", "", "");
    let labelled = workload("Deployment", "b", "labels: { tier: agents }", "");
    let text = format!("{}---\n{redis}---\n{labelled}", workload("Deployment", "a", "", ""));
    let selected = |selector: &str| {
        let sidecar = Sidecar { selector: Selector::parse(selector).unwrap(), ..Sidecar::default() };
        let injected = put(&text, &sidecar);
        let all = documents(&injected.text);
        let names = all.iter().filter(|one| has_sidecar(one));
        let names: Vec<_> = names.map(|one| one["metadata"]["name"].as_str().unwrap().to_owned()).collect();
        (names, injected)
    };
    assert_eq!(selected("app!=redis").0, ["a", "b"]);
    assert_eq!(selected("tier=agents").0, ["b"]);
    assert_eq!(selected("app in (a, redis)").0, ["a", "redis"]);
    let (names, injected) = selected("app=nobody");
    assert!(names.is_empty() && injected.text == text);
    let left = "3 of 3 workloads are not selected and stay as they are: Deployment a, StatefulSet redis, Deployment b";
    assert_eq!(injected.notes, [left]);
    assert!(
        selected("app!=redis")
            .1
            .notes
            .iter()
            .any(|note| note == "1 of 3 workloads are not selected and stay as they are: StatefulSet redis")
    );
}

#[test]
fn the_agents_port_and_its_base_urls() {
    let ports = "ports: [ { containerPort: 8000, name: http }, { containerPort: 9000, name: other } ]";
    let text = workload("Deployment", "a", "annotations: { callgate.dev/agent-port: \"9000\" }", "")
        .replace("ports: [ { containerPort: 8000, name: http } ]", ports);
    let sidecar = Sidecar {
        base_urls: vec![BaseUrl::parse("OPENAI_BASE_URL=/openai/v1").unwrap()],
        agent_port: Some("http".to_owned()),
        ..Sidecar::default()
    };
    let injected = put(&text, &sidecar);
    let pod = documents(&injected.text)[0]["spec"]["template"]["spec"].clone();
    assert_eq!(pod["initContainers"][0]["ports"][0]["name"], "other", "the annotation takes precedence");
    assert_eq!(pod["containers"][0]["ports"][0]["containerPort"], 8000);
    assert_eq!(pod["containers"][0]["env"][0]["name"], "OPENAI_BASE_URL");
    assert_eq!(pod["containers"][0]["env"][0]["value"], "http://127.0.0.1:8081/openai/v1");
    assert!(injected.notes.join("\n").contains("a rule for this path"), "{:?}", injected.notes);
    assert_eq!(put(&injected.text, &sidecar).text, injected.text);
    assert_eq!(documents(&remove(&injected.text).unwrap().text), documents(&text));
    for wrong in ["OPENAI_BASE_URL", "A=openai", "A B=/x", "=/x", "A=/x y"] {
        assert!(BaseUrl::parse(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn every_pod_has_the_label_and_removing_takes_it_away() {
    let text = workload("Deployment", "a", "", "");
    let injected = put(&text, &Sidecar::default()).text;
    let labels = &documents(&injected)[0]["spec"]["template"]["metadata"]["labels"];
    assert_eq!((&labels["callgate.dev/agent"], &labels["app"]), (&"a".into(), &"a".into()));
    assert_eq!(documents(&remove(&injected).unwrap().text), documents(&text));
    let own = text.replace("{ app: a }", "{ callgate.dev/agent: mine }");
    let injected = put(&own, &Sidecar::default()).text;
    assert_eq!(
        documents(&injected)[0]["spec"]["template"]["metadata"]["labels"]["callgate.dev/agent"],
        "mine"
    );
    assert_eq!(documents(&remove(&injected).unwrap().text), documents(&own));
    // A pod has the label itself. An unnamed pod has none.
    let pod =
        "apiVersion: v1\nkind: Pod\nmetadata: { name: p }\nspec: { containers: [ { name: a, image: a } ] }\n";
    let injected = put(pod, &Sidecar::default()).text;
    assert_eq!(documents(&injected)[0]["metadata"]["labels"]["callgate.dev/agent"], "p");
    assert_eq!(documents(&remove(&injected).unwrap().text), documents(pod));
    let unnamed = put(&pod.replace("name: p", ""), &Sidecar::default());
    assert!(unnamed.notes.join("\n").contains("get no label callgate.dev/agent"), "{:?}", unnamed.notes);
}

fn with(all: &[Companion]) -> Sidecar {
    Sidecar { with: all.to_vec(), tls_secret: Some("tls".to_owned()), ..Sidecar::default() }
}

const ALL: [Companion; 4] =
    [Companion::Config, Companion::SecretTemplate, Companion::Service, Companion::NetworkPolicy];

#[test]
fn companions_are_added_once_and_the_authors_files_stay() {
    let text = workload("Deployment", "a", "namespace: n", "");
    let sidecar = with(&ALL);
    let injected = put(&text, &sidecar);
    let all = documents(&injected.text);
    let kinds: Vec<_> = all.iter().map(|one| one["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["Deployment", "ConfigMap", "Secret", "Service", "NetworkPolicy"]);
    assert!(all.iter().all(|one| one["metadata"]["namespace"] == "n"));
    let names: Vec<_> = all.iter().map(|one| one["metadata"]["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["a", "callgate", "callgate", "a-callgate", "a-callgate"]);
    assert_eq!(all[2]["stringData"]["token-key"], "CHANGE-ME");
    assert_eq!(all[3]["spec"]["selector"]["callgate.dev/agent"], "a");
    assert_eq!(all[3]["spec"]["ports"][0]["port"], 443);
    assert_eq!(all[4]["spec"]["podSelector"]["matchLabels"]["callgate.dev/agent"], "a");
    assert_eq!(put(&injected.text, &sidecar).text, injected.text);
    // The author has changed the configuration. It stays, also when the sidecar is removed.
    let edited = injected.text.replace("https://CHANGE-ME", "https://agent.example.com");
    assert_eq!(put(&edited, &sidecar).text, edited);
    let removed = documents(&remove(&edited).unwrap().text);
    assert_eq!(removed.len(), 3);
    assert!(removed[1]["data"]["callgate.yaml"].as_str().unwrap().contains("agent.example.com"));
    // Plain HTTP has another port.
    let plain = Sidecar { tls_secret: None, ..with(&[Companion::Service]) };
    assert_eq!(documents(&put(&text, &plain).text)[1]["spec"]["ports"][0]["port"], 80);
}

#[test]
fn the_policies_name_load_balancers_and_destinations() {
    let sidecar = Sidecar {
        load_balancers: vec!["10.0.0.0/8".to_owned()],
        replica_port: Some(8446),
        ..with(&[Companion::NetworkPolicy, Companion::EgressPolicy])
    };
    let text = workload("Deployment", "a", "", "");
    let injected = put(&text, &sidecar).text;
    let all = documents(&injected);
    let named =
        |name: &str| all.iter().find(|one| one["kind"] == "NetworkPolicy" && one["metadata"]["name"] == name);
    let (ingress, egress) = (named("a-callgate").unwrap(), named("a-callgate-egress").unwrap());
    assert_eq!(ingress["spec"]["ingress"][0]["from"][0]["ipBlock"]["cidr"], "10.0.0.0/8");
    assert_eq!(egress["spec"]["policyTypes"][0], "Egress");
    assert_eq!(egress["spec"]["podSelector"]["matchLabels"]["callgate.dev/agent"], "a");
    let rules = egress["spec"]["egress"].as_sequence().unwrap();
    assert_eq!(rules[2]["to"][0]["podSelector"]["matchLabels"]["callgate.dev/agent"], "a");
    assert_eq!(rules[2]["ports"][0]["port"], 8446);
    assert_eq!(put(&injected, &sidecar).text, injected);
    assert_eq!(documents(&remove(&injected).unwrap().text), documents(&text));
    let refused = command(&["--with", "network-policy", "--load-balancer", "10.0.0.0/99"], &text);
    assert_eq!(refused.status.code(), Some(64), "{refused:?}");
}

#[test]
fn the_files_of_secrets_are_for_one_group() {
    let text = workload("Deployment", "a", "", "");
    let injected = put(&text, &with(&[])).text;
    let pod = &documents(&injected)[0]["spec"]["template"]["spec"];
    assert_eq!(pod["securityContext"]["fsGroup"], 65532);
    let modes = pod["volumes"].as_sequence().unwrap().iter().filter(|volume| !volume["secret"].is_null());
    let modes: Vec<_> = modes.map(|volume| volume["secret"]["defaultMode"].as_u64().unwrap()).collect();
    assert_eq!(modes, [0o400, 0o400]);
    assert_eq!(documents(&remove(&injected).unwrap().text), documents(&text));
    for own in ["{ fsGroup: 2000 }", "{ runAsUser: 7 }", "{}", "{ fsGroup: 65532 }"] {
        let text =
            text.replace("      containers:", &format!("      securityContext: {own}\n      containers:"));
        let injected = put(&text, &Sidecar::default()).text;
        let group = documents(&injected)[0]["spec"]["template"]["spec"]["securityContext"]["fsGroup"].clone();
        assert_eq!(group, if own.contains("2000") { 2000 } else { 65532 }, "{own}");
        assert_eq!(documents(&remove(&injected).unwrap().text), documents(&text), "{own}");
    }
}

#[test]
fn two_workloads_share_a_configuration_or_have_their_own() {
    let other = workload("Deployment", "b", "", "");
    let text = format!("{}---\n{other}", workload("Deployment", "a", "", ""));
    let kinds = |text: &str| documents(text).iter().filter(|one| one["kind"] == "ConfigMap").count();
    assert_eq!(kinds(&put(&text, &with(&ALL)).text), 1);
    let different = text.replacen("containerPort: 8000", "containerPort: 8001", 1);
    let error = inject(&different, &with(&ALL)).unwrap_err();
    assert!(error.contains("--config-map '{name}-callgate'"), "{error}");
    let own = Sidecar { config_map: "{name}-callgate".to_owned(), ..with(&ALL) };
    let injected = put(&different, &own).text;
    assert_eq!(kinds(&injected), 2);
    let mounted = &documents(&injected)[0]["spec"]["template"]["spec"]["volumes"][0]["configMap"]["name"];
    assert_eq!(*mounted, "a-callgate");
    let notes = put(&different, &own).notes.join("\n");
    assert!(notes.contains("Deployment a (a-callgate), Deployment b (b-callgate)"), "{notes}");
    assert!(!notes.contains("{name}"), "{notes}");
    let notes = put(&other, &own).notes.join("\n");
    assert!(notes.contains("Deployment b: `callgate.yaml` in the ConfigMap b-callgate must have"), "{notes}");
    assert_eq!(put(&injected, &own).text, injected);
}

#[test]
fn the_first_configuration_is_good_once_it_is_filled_in() {
    let sidecar = Sidecar {
        replica_port: Some(8446),
        base_urls: vec![BaseUrl::parse("OPENAI_BASE_URL=/openai/v1").unwrap()],
        ..with(&[Companion::Config])
    };
    let injected = put(&workload("Deployment", "a", "", ""), &sidecar);
    let all = documents(&injected.text);
    let config = all.iter().find(|one| one["kind"] == "ConfigMap").unwrap();
    let text = config["data"]["callgate.yaml"].as_str().unwrap();
    let folder = tempfile::tempdir().unwrap();
    for (name, content) in [
        ("secrets/token-key", "0123456789abcdef0123456789abcdef".as_bytes()),
        ("secrets/replicas", b"abcdef0123456789abcdef0123456789"),
        ("tls/tls.crt", &fs::read("tests/corpora/tls/tls.crt").unwrap()),
        ("tls/tls.key", &fs::read("tests/corpora/tls/tls.key").unwrap()),
    ] {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
    let file = folder.path().join("callgate.yaml");
    let check = |text: &str| {
        fs::write(&file, text).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_callgate"));
        command.env("POD_IP", "10.0.0.1").arg("check").arg("-c").arg(&file).arg("--root").arg(folder.path());
        command.output().unwrap()
    };
    let unfinished = check(text);
    assert_eq!(unfinished.status.code(), Some(64), "{unfinished:?}");
    assert!(String::from_utf8_lossy(&unfinished.stderr).contains("still contains CHANGE-ME"));
    let done = check(&text.replace("CHANGE-ME", "agent.example.com"));
    assert!(done.status.success(), "{done:?}\n{text}");
}

#[test]
fn the_notes_of_many_workloads_are_few() {
    let many: String = (0..41)
        .map(|i| {
            let text = workload("Deployment", &format!("agent-{i}"), "", "");
            format!("{}---\n", text.replace("8000", &(8000 + i).to_string()))
        })
        .collect();
    let injected = put(&many, &Sidecar::default());
    assert!(injected.notes.len() <= 6, "{}: {:#?}", injected.notes.len(), injected.notes);
    let moved = injected.notes.iter().find(|note| note.contains("targetPort")).unwrap();
    assert!(moved.starts_with("41 workloads: a Service with the number of the former port"), "{moved}");
    assert!(moved.contains("Deployment agent-7 (8007), Deployment agent-8 (8008)"), "{moved}");
    let api = injected.notes.iter().find(|note| note.contains("other API")).unwrap();
    assert!(
        api.contains("receive 404 unless the configuration has routes") && api.contains("agent-40"),
        "{api}"
    );
    // One workload has the notes as before.
    let one = put(&workload("Deployment", "a", "", ""), &Sidecar::default());
    assert!(
        one.notes
            .join("\n")
            .contains("Deployment a: a Service with the `targetPort` 8000 must use `http` or 8443")
    );
}

#[test]
fn grpc_probes_of_an_agent_on_loopback_are_named() {
    let bound = Sidecar { bind_env: Some("HOST".to_owned()), ..Sidecar::default() };
    let text = workload("Deployment", "a", "", "livenessProbe: { grpc: { port: 8000, service: s } }");
    let notes = put(&text, &bound).notes.join("\n");
    assert!(notes.contains("`livenessProbe.grpc` uses the address of the pod"), "{notes}");
    let other = text.replace("port: 8000, service", "port: 8001, service");
    assert!(!put(&other, &bound).notes.join("\n").contains("livenessProbe.grpc"));
    assert!(!put(&text, &Sidecar::default()).notes.join("\n").contains("livenessProbe.grpc"));
}

#[test]
fn what_happens_when_a_job_ends_is_said() {
    let text = workload("Job", "j", "", "");
    let notes = put(&text, &Sidecar::default()).notes.join("\n");
    assert!(
        notes.contains("Job j: when a pod of a Job ends") && notes.contains("open interactions"),
        "{notes}"
    );
    let notes = put(&workload("Deployment", "a", "", ""), &Sidecar::default()).notes.join("\n");
    assert!(!notes.contains("of a Job"), "{notes}");
}

#[test]
fn earlier_api_versions_stay_as_they_are() {
    for (version, kind, current) in [
        ("extensions/v1beta1", "Deployment", "apps/v1"),
        ("apps/v1beta1", "StatefulSet", "apps/v1"),
        ("apps/v1beta2", "DaemonSet", "apps/v1"),
        ("batch/v1beta1", "CronJob", "batch/v1"),
        ("batch/v2alpha1", "CronJob", "batch/v1"),
    ] {
        let old = workload("Deployment", "old", "", "")
            .replace("apps/v1", version)
            .replace("kind: Deployment", &format!("kind: {kind}"));
        let text = format!("{old}---\n{}", workload("Deployment", "new", "", ""));
        let injected = put(&text, &Sidecar::default());
        assert!(injected.text.starts_with(&old), "{version}");
        let note =
            format!("{kind} old: left as it is: {version} is not supported; write `apiVersion: {current}`");
        assert!(injected.notes.contains(&note), "{:?}", injected.notes);
        let error = inject(&old, &Sidecar::default()).unwrap_err();
        assert!(error.contains(&format!("write {current}")), "{error}");
    }
}

#[test]
fn custom_resources_with_a_pod_are_named_and_can_be_chosen() {
    let rollout = workload("Deployment", "r", "", "")
        .replace("apps/v1", "argoproj.io/v1alpha1")
        .replace("Deployment", "Rollout");
    let nested = "apiVersion: example.com/v1\nkind: Fleet\nmetadata: { name: f }\nspec: { workers: [ { podTemplate: { spec: { containers: [ { name: a, image: a } ] } } } ] }\n";
    let text = format!("{rollout}---\n{nested}---\n{}", workload("Deployment", "a", "", ""));
    let notes = put(&text, &Sidecar::default()).notes.join("\n");
    assert!(notes.contains("Rollout r: left as it is"), "{notes}");
    assert!(notes.contains("use --pod-template Rollout.argoproj.io=spec.template"), "{notes}");
    assert!(
        notes.contains("Fleet f: left as it is: example.com/v1 Fleet is not a known kind of workload"),
        "{notes}"
    );
    let custom = vec![CustomKind::parse("Rollout.argoproj.io=spec.template").unwrap()];
    let sidecar = Sidecar { custom: custom.clone(), ..Sidecar::default() };
    let injected = put(&text, &sidecar);
    assert!(has_sidecar(&documents(&injected.text)[0]));
    assert_eq!(put(&injected.text, &sidecar).text, injected.text);
    assert_eq!(documents(&remove_from(&injected.text, &custom).unwrap().text), documents(&text));
}

fn command(args: &[&str], text: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_callgate"))
        .args(["inject", "-f", "-"])
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // The program may end before it has read everything.
    let _ = child.stdin.take().unwrap().write_all(text.as_bytes());
    child.wait_with_output().unwrap()
}

#[test]
fn the_options_reach_the_program() {
    let text = workload("Deployment", "a", "", "");
    let with = command(&["--with", "config,secret-template,service,network-policy", "-l", "app=a"], &text);
    assert!(with.status.success(), "{with:?}");
    assert_eq!(documents(&String::from_utf8(with.stdout).unwrap()).len(), 5);
    for args in [["--with", "everything"], ["-l", "a b"], ["--base-url", "X"], ["--pod-template", "Rollout"]]
    {
        assert_eq!(command(&args, &text).status.code(), Some(64), "{args:?}");
    }
    let base = command(&["--base-url", "A_URL=/a", "--egress-port", "8082"], &text);
    assert!(String::from_utf8(base.stdout).unwrap().contains("value: http://127.0.0.1:8082/a"));
    let unnamed = text.replace("name: a,", "");
    let refused = command(&["--with", "service"], &unnamed);
    assert_eq!(refused.status.code(), Some(65), "{refused:?}");
}

#[test]
fn strict_wants_every_pod_to_have_the_sidecar() {
    let rollout = workload("Deployment", "r", "", "")
        .replace("apps/v1", "argoproj.io/v1alpha1")
        .replace("Deployment", "Rollout");
    let old = workload("Deployment", "old", "", "").replace("apps/v1", "apps/v1beta1");
    let list = "apiVersion: example.com/v1\nkind: AgentList\nmetadata: { name: l }\nitems: [ { spec: { containers: [ { name: a } ] } } ]\n";
    let good = workload("Deployment", "a", "", "");
    for (other, missed) in [(&*rollout, "Rollout r"), (&old, "Deployment old"), (list, "AgentList l")] {
        let text = format!("{good}---\n{other}");
        let lenient = command(&[], &text);
        assert!(lenient.status.success(), "{lenient:?}");
        let strict = command(&["--strict"], &text);
        assert_eq!(strict.status.code(), Some(65), "{strict:?}");
        assert!(strict.stdout.is_empty(), "a pipe must not apply the rest");
        let said = String::from_utf8(strict.stderr).unwrap();
        assert!(said.contains(&format!("without the sidecar: {missed}")), "{said}");
    }
    let chosen = ["--strict", "--pod-template", "Rollout.argoproj.io=spec.template"];
    assert!(command(&chosen, &format!("{good}---\n{rollout}")).status.success());
    let out = workload("Deployment", "out", "annotations: { callgate.dev/inject: \"false\" }", "");
    let config = "apiVersion: v1\nkind: ConfigMap\nmetadata: { name: c }\n";
    let done = command(&["--strict"], &format!("{good}---\n{out}---\n{config}"));
    assert!(done.status.success(), "{done:?}");
}
