//! `callgate inject`: adds the sidecar to workloads, adds it again, and removes it.

use std::io::Write;
use std::process::{Command, Output, Stdio};

use callgate::cli::{Proxied, Sidecar, inject, remove};
use proptest::prelude::*;
use serde_yaml::Value;

const CALLGATE: &str = env!("CARGO_BIN_EXE_callgate");

const DEPLOYMENT: &str = r#"apiVersion: apps/v1
kind: Deployment
metadata:
  name: agent
  unknownField: { kept: true }
spec:
  template:
    spec:
      initContainers:
        - { name: migrate, image: "migrate:1" }
      containers:
        - name: agent
          image: agent:1
          ports:
            - { containerPort: 8000, name: http, hostPort: 80 }
          livenessProbe: { httpGet: { port: http, path: /healthz } }
          lifecycle: { preStop: { httpGet: { port: http, path: /stop } } }
          env:
            - { name: SWITCH, value: "yes" }
        - { name: logs, image: "logs:1" }
      volumes:
        - { name: data, secret: { secretName: data, defaultMode: 0640 } }
"#;

fn sidecar() -> Sidecar {
    Sidecar {
        image: "callgate:1.2.3".to_owned(),
        config_map: "settings".to_owned(),
        secret: "keys".to_owned(),
        tls_secret: Some("certificate".to_owned()),
        port: 8443,
        bind_env: Some("HOST".to_owned()),
        ..Sidecar::default()
    }
}

fn value(text: &str) -> Value {
    serde_yaml::from_str(text).unwrap()
}

/// Returns the YAML in a form in which the order of keys matters. Comparing values ignores the order.
fn spelled(text: &str) -> String {
    serde_yaml::to_string(&value(text)).unwrap()
}

fn put(text: &str) -> String {
    inject(text, &sidecar()).unwrap().text
}

#[test]
fn the_port_and_what_names_it_move() {
    let injected = inject(DEPLOYMENT, &sidecar()).unwrap();
    let object = value(&injected.text);
    let pod = &object["spec"]["template"]["spec"];
    let (own, agent) = (&pod["initContainers"][0], &pod["containers"][0]);
    assert_eq!(own["name"], "callgate");
    assert_eq!(own["image"], "callgate:1.2.3");
    assert_eq!(own["restartPolicy"], "Always");
    assert_eq!(own["ports"][0], value("{ containerPort: 8443, name: http, hostPort: 80 }"));
    assert_eq!(pod["initContainers"][1]["name"], "migrate");
    assert_eq!(agent["ports"], value("[]"));
    assert_eq!(agent["livenessProbe"]["httpGet"]["port"], 8000);
    assert_eq!(agent["lifecycle"]["preStop"]["httpGet"]["port"], 8000);
    assert_eq!(agent["env"][1], value("{ name: HOST, value: 127.0.0.1 }"));
    let volumes = pod["volumes"].as_sequence().unwrap();
    assert_eq!(volumes.len(), 5);
    assert_eq!(volumes[1]["configMap"]["name"], "settings");
    assert_eq!(volumes[2]["secret"]["secretName"], "keys");
    assert_eq!(volumes[3]["secret"]["secretName"], "certificate");
    assert_eq!(object["metadata"]["unknownField"]["kept"], true);
    let notes = injected.notes.join("\n");
    assert!(notes.contains("Deployment agent: a Service with the `targetPort` 8000"), "{notes}");
    assert!(notes.contains("`livenessProbe.httpGet` uses the address of the pod"), "{notes}");
}

#[test]
fn kubernetes_reads_what_it_read_before() {
    let text = put(DEPLOYMENT);
    // Kubernetes reads YAML 1.1, in which 0640 is an octal number and an unquoted `yes` is true.
    assert!(text.contains("defaultMode: 416"), "{text}");
    assert!(text.contains("value: \"yes\""), "{text}");
}

/// Returns a Pod with this YAML as the beginning of its specification.
fn pod_with(spec: &str) -> String {
    format!("apiVersion: v1\nkind: Pod\nmetadata: {{ name: p }}\n{spec}\n")
}

#[test]
fn merge_keys_count_however_deep_they_are() {
    let agent = "containers: [ { name: a, image: a, ports: [ { containerPort: 80 } ] } ]";
    let common = "x-base: &base { hostPID: true }\nx-hard: &hard { <<: *base, enableServiceLinks: no }";
    for merged in ["<<: *hard", "<<: { <<: { <<: *hard } }", "<<: [ *base, { <<: *hard } ]"] {
        let text = pod_with(&format!("{common}\nspec: {{ {merged}, {agent} }}"));
        let injected = put(&text);
        assert!(!injected.contains("<<"), "{injected}");
        let pod = &value(&injected)["spec"];
        assert_eq!((&pod["hostPID"], &pod["enableServiceLinks"]), (&true.into(), &false.into()));
        assert_eq!(pod["containers"][0]["name"], "a");
        let refused = inject(&text.replace("hostPID: true", "hostNetwork: true"), &sidecar());
        assert!(refused.unwrap_err().contains("hostNetwork"), "{merged}");
    }
    // In Kubernetes, merged values override values before the `<<` key.
    let before = |own: &str| {
        inject(&pod_with(&format!("{common}\nspec: {{ hostPID: {own}, <<: *hard, {agent} }}")), &sidecar())
    };
    assert!(before("false").unwrap_err().contains("`hostPID` is before the `<<`"));
    assert!(before("true").is_ok());
    // None of these is a tag. A tag would make the key a text.
    for before in
        ["# !important\n  <<: *hard\n  ", "dnsPolicy: a !b\n  <<: *hard\n  ", "k: { a: b !c, <<: *hard }\n  "]
    {
        let text = pod_with(&format!("{common}\nspec:\n  {before}{agent}"));
        assert!(!put(&text).contains("<<"), "{before}");
    }
    for wrong in ["<<: 7", "<<: [ 7 ]", "<<: [ [ *base ] ]", "<<: *base, <<: *hard"] {
        let error = inject(&pod_with(&format!("{common}\nspec: {{ {wrong}, {agent} }}")), &sidecar());
        assert!(error.unwrap_err().contains("not YAML"), "{wrong}");
    }
}

/// Scalars whose type depends on the YAML parser, as they are written in a file.
const DOUBTFUL: [&str; 14] = [
    "\"yes\"",
    "'no'",
    "\"0644\"",
    "'0755'",
    "\"<<\"",
    "'y'",
    "y",
    "08",
    "0899",
    "2026-01-01",
    "'12: 30'",
    "1:30",
    "=",
    "!!str yes",
];

#[test]
fn what_is_text_stays_text_and_what_is_not_does_not_become_it() {
    let own: String = DOUBTFUL
        .iter()
        .enumerate()
        .map(|(i, text)| format!("mode{i}: {text}, readOnly{i}: {text}, "))
        .collect();
    let data = format!("{{ {own}mode: \"0644\", readOnly: \"no\", \"on\": 'off', \"yes\":\"0640\" }}");
    let spec = format!(
        "# \u{fc}\u{20ac}\nspec:\n  tty: no\n  containers: [ {{ name: a, ports: [ {{ containerPort: 80 }} ] }} ]\n  volumes: \
         [ {{ name: v, csi: {{ driver: d, readOnly: &yes yes, volumeAttributes: {data} }} }}, {{ name: w, secret: \
         {{ optional: *yes, defaultMode: 06_40, n: 1_000 }} }} ]"
    );
    let pod = pod_with(&spec);
    let injected = put(&pod);
    let volumes = &value(&injected)["spec"]["volumes"];
    assert_eq!(volumes[0]["csi"]["volumeAttributes"], value(&data));
    assert_eq!(volumes[0]["csi"]["readOnly"], true);
    assert_eq!(volumes[1]["secret"], value("{ optional: true, defaultMode: 416, n: 1000 }"));
    assert_eq!(value(&injected)["spec"]["tty"], false);
    for text in DOUBTFUL {
        let text = text.replace('\'', "\"").replace("!!str yes", "\"yes\"").replace("\"12: 30\"", "'12: 30'");
        assert!(injected.matches(&format!(": {text}\n")).count() > 1, "{text} in {injected}");
    }
    let restored = value(&remove(&injected).unwrap().text);
    assert_eq!(restored["spec"]["volumes"][0]["csi"]["volumeAttributes"], value(&data));
    let list = format!(
        "apiVersion: v1\nkind: List\nitems:\n- {{ apiVersion: v1, kind: ConfigMap, data: {data} }}\n- {}",
        pod.trim_end().replace('\n', "\n  ")
    );
    let injected = put(&list);
    assert_eq!(value(&injected)["items"][0]["data"], value(&data));
    assert!(
        injected.contains("    readOnly: \"no\"\n") && injected.contains("    mode: \"0644\"\n"),
        "{injected}"
    );
}

/// A value as it is in a manifest, and as it is written: what Kubernetes, which reads YAML 1.1, makes of both must be
/// equal.
const SCALARS: [(&str, &str); 46] = [
    ("!!str yes", "\"yes\""),
    ("!!str\n      yes", "\"yes\""),
    ("!!str\n      # a comment\n      0644", "\"0644\""),
    ("!!str &a yes", "\"yes\""),
    ("&b !!str yes", "\"yes\""),
    ("&c !!str\n      no", "\"no\""),
    ("!!str\n      &d no", "\"no\""),
    ("&e\n      no", "false"),
    ("&f no", "false"),
    ("# !comment\n      on", "true"),
    ("[ !!str yes, yes ]", "\n  - \"yes\"\n  - true"),
    ("[ 'a', yes, \"b !\", no ]", "\n  - a\n  - true\n  - b !\n  - false"),
    ("{ a: !!str\n      on, b: on }", "\n    a: \"on\"\n    b: true"),
    ("{ \"k\":yes }", "\n    k: true"),
    ("\"yes\"", "\"yes\""),
    ("'off'", "\"off\""),
    ("\"0644\"", "\"0644\""),
    ("'1_000'", "\"1_000\""),
    ("'true'", "'true'"),
    ("\"null\"", "'null'"),
    ("'~'", "'~'"),
    ("\"1:30\"", "\"1:30\""),
    ("'0x1F'", "\"0x1F\""),
    ("\"<<\"", "\"<<\""),
    ("|-\n      yes", "\"yes\""),
    (">-\n      0644", "\"0644\""),
    ("|-\n      no\n      0644", "|-\n    no\n    0644"),
    ("yes", "true"),
    ("Yes", "true"),
    ("YES", "true"),
    ("On", "true"),
    ("no", "false"),
    ("OFF", "false"),
    ("yEs", "yEs"),
    ("oN", "oN"),
    ("y", "y"),
    ("N", "N"),
    ("0644", "420"),
    ("0o644", "420"),
    ("0_644", "420"),
    ("08", "08"),
    ("1_000", "1000"),
    ("0x1F", "31"),
    ("1:30", "1:30"),
    ("190:20:30.15", "190:20:30.15"),
    ("~", "null"),
];

#[test]
fn every_style_of_a_scalar_keeps_its_meaning() {
    let mut wrong = Vec::new();
    for (source, written) in SCALARS {
        for key in ["key", "# !!str\n  key", "\"key\""] {
            let agent = "containers:\n  - name: a\n    ports: [ { containerPort: 80 } ]";
            let text = pod_with(&format!("spec:\n  {key}: {source}\n  {agent}"));
            let injected = inject(&text, &sidecar()).map(|injected| injected.text);
            let expected = format!("\n  key: {written}\n").replace(": \n", ":\n");
            if !injected.as_ref().is_ok_and(|text| text.contains(&expected)) {
                wrong.push(format!("{key}: {source:?} should be {written:?}: {injected:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn scalars_behind_an_alias_and_as_keys_keep_their_meaning() {
    let agent = "containers: [ { name: a, ports: [ { containerPort: 80 } ] } ]";
    let text = pod_with(&format!(
        "spec:\n  {agent}\n  a: &a [ 'yes', yes, &b !!str\n    on ]\n  c: *a\n  d: *b\n  e: {{ 'yes': 1, !!str no: 2, on: 3 }}"
    ));
    let injected = put(&text);
    for expected in [
        "\n  c:\n  - \"yes\"\n  - true\n  - \"on\"\n",
        "\n  d: \"on\"\n",
        "\n    \"yes\": 1\n    \"no\": 2\n    true: 3\n",
    ] {
        assert!(injected.contains(expected), "{expected} in {injected}");
    }
}

#[test]
fn what_readers_disagree_about_comes_back_as_it_was() {
    let pod = "spec:\n  containers:\n  - name: a\n    env:\n    - name: HOST\n      value: y\n    ports:\n    - \
               containerPort: 80\n      name: n\n      hostPort: 08\n";
    let text = pod_with(pod).trim_end().replace("{ name: p }", "\n  name: p") + "\n";
    let injected = put(&text);
    assert!(
        injected.contains("      name: n\n      hostPort: 08\n") && put(&injected) == injected,
        "{injected}"
    );
    assert_eq!(remove(&injected).unwrap().text, text.replace("metadata: \n", "metadata:\n"));
}

#[test]
fn no_text_is_taken_for_a_sign_of_our_own() {
    for sign in ["__callgate_quoted__", "__callgate_bare__", "__callgate_quoted__evil__callgate_quoted__"] {
        let text =
            DEPLOYMENT.replace("value: \"yes\"", &format!("value: \"{sign}\", other: \"yes\", {sign}_: y"));
        let injected = put(&text);
        let env = &value(&injected)["spec"]["template"]["spec"]["containers"][0]["env"][0];
        assert_eq!((&env["value"], &env["other"]), (&sign.into(), &"yes".into()));
        assert!(
            injected.contains("other: \"yes\"\n") && injected.contains(&format!("{sign}_: y\n")),
            "{injected}"
        );
    }
    let tagged = inject(&DEPLOYMENT.replace("\"yes\"", "!callgate.dev/plain \"yes\""), &sidecar());
    assert!(tagged.unwrap_err().contains("is reserved"));
}

#[test]
fn injecting_again_changes_nothing_but_what_is_asked() {
    let once = put(DEPLOYMENT);
    assert_eq!(once, put(&once));
    let other = Sidecar { image: "callgate:2".to_owned(), tls_secret: None, bind_env: None, ..sidecar() };
    let text = inject(&once, &other).unwrap().text;
    assert_eq!(text, inject(DEPLOYMENT, &other).unwrap().text);
    assert!(!text.contains("callgate-tls") && !text.contains("HOST"), "{text}");
}

fn forward_proxy() -> Proxied {
    Proxied { ca_secret: "authority".to_owned(), direct: vec!["10.0.0.0/8".to_owned()] }
}

#[test]
fn the_agent_alone_uses_the_forward_proxy() {
    let own = "            - { name: NO_PROXY, value: own.example }
            - { name: SSL_CERT_FILE, value: /own.pem }
            - { name: HTTP_PROXY, valueFrom: { secretKeyRef: { name: a, key: b } } }
";
    let text =
        DEPLOYMENT.replace("            - { name: SWITCH", &format!("{own}            - {{ name: SWITCH"));
    let proxied = Sidecar { proxied: Some(forward_proxy()), egress_port: 8082, ..sidecar() };
    let injected = inject(&text, &proxied).unwrap();
    let object = value(&injected.text);
    let pod = &object["spec"]["template"]["spec"];
    let (sidecar, agent, logs) = (&pod["initContainers"][0], &pod["containers"][0], &pod["containers"][1]);
    let env = |name: &str| {
        let all = agent["env"].as_sequence().unwrap();
        all.iter().find(|entry| entry["name"] == name).unwrap_or_else(|| panic!("{name}"))["value"].clone()
    };
    for (name, expected) in [
        ("HTTPS_PROXY", "http://127.0.0.1:8082"),
        ("https_proxy", "http://127.0.0.1:8082"),
        ("NO_PROXY", "localhost,127.0.0.1,::1,.svc,.cluster.local,10.0.0.0/8,own.example"),
        ("no_proxy", "localhost,127.0.0.1,::1,.svc,.cluster.local,10.0.0.0/8,own.example"),
        ("SSL_CERT_FILE", "/own.pem"),
        ("REQUESTS_CA_BUNDLE", "/run/callgate/trust/bundle.pem"),
        ("NODE_EXTRA_CA_CERTS", "/run/callgate/trust/ca.pem"),
        ("NODE_USE_ENV_PROXY", "1"),
        ("SWITCH", "yes"),
    ] {
        assert_eq!(env(name), expected, "{name}");
    }
    assert!(env("HTTP_PROXY").is_null(), "it keeps its source");
    assert_eq!(
        agent["volumeMounts"],
        value("[ { name: callgate-trust, mountPath: /run/callgate/trust, readOnly: true } ]")
    );
    let mounts = serde_yaml::to_string(&sidecar["volumeMounts"]).unwrap();
    assert!(mounts.contains("name: callgate-ca\n  mountPath: /ca\n  readOnly: true"), "{mounts}");
    assert!(mounts.contains("name: callgate-trust\n  mountPath: /run/callgate/trust\n"), "{mounts}");
    assert_eq!(*logs, value("{ name: logs, image: 'logs:1' }"), "no other container changes");
    assert!(sidecar["env"].is_null());
    let volumes = serde_yaml::to_string(&pod["volumes"]).unwrap();
    assert!(volumes.contains("secretName: authority"), "{volumes}");
    let notes = injected.notes.join("\n");
    for part in ["SSL_CERT_FILE keeps its value /own.pem", "HTTP_PROXY keeps its value", "callgate ca"] {
        assert!(notes.contains(part), "{notes}");
    }
    assert_eq!(inject(&injected.text, &proxied).unwrap().text, injected.text);
    let removed = remove(&injected.text).unwrap().text;
    assert_eq!(spelled(&removed), spelled(&text.replace("0640", "416")));
}

#[test]
fn removing_gives_back_what_was_there() {
    let removed = remove(&put(DEPLOYMENT)).unwrap().text;
    assert_eq!(spelled(&removed), spelled(&DEPLOYMENT.replace("0640", "416")));
    assert_eq!(
        remove(DEPLOYMENT).unwrap().text,
        DEPLOYMENT,
        "where nothing is to be removed, nothing changes"
    );
}

#[test]
fn what_others_changed_since_then_stays() {
    let text = put(DEPLOYMENT)
        .replace("image: agent:1", "image: agent:2")
        .replace("      - name: logs", "      - name: more\n        image: more:1\n      - name: logs");
    let removed = value(&remove(&text).unwrap().text);
    let expected = DEPLOYMENT.replace("0640", "416").replace("image: agent:1", "image: agent:2").replace(
        "        - { name: logs",
        "        - { name: more, image: 'more:1' }\n        - { name: logs",
    );
    assert_eq!(removed, value(&expected));
}

#[test]
fn other_documents_come_out_as_they_went_in() {
    let others =
        "# Ours.\napiVersion: v1\nkind: ConfigMap\ndata: { a: 'yes', script: |\n    --- not the end\n }\n";
    let others =
        others.replace("{ a: 'yes', script: |\n    --- not the end\n }", "\n  script: |\n    a\n   # kept");
    let foreign = "--- # a job of somebody else\napiVersion: batch.volcano.sh/v1\nkind: Job\nspec: {}\n";
    let text = format!("{others}---\n{DEPLOYMENT}{foreign}---\n# nothing\n");
    let injected = put(&text);
    assert!(injected.starts_with(&others), "{injected}");
    assert!(injected.ends_with(&format!("{foreign}---\n# nothing\n")), "{injected}");
    assert_eq!(injected.matches("\n---").count(), 3);
    assert_eq!(injected.matches("name: callgate-config").count(), 2);
}

#[test]
fn every_kind_has_its_pod_somewhere() {
    let pod = "{ containers: [ { name: a, image: a, ports: [ { containerPort: 80 } ] } ] }";
    for (version, kind, spec) in [
        ("apps/v1", "Deployment", format!("{{ template: {{ spec: {pod} }} }}")),
        ("apps/v1", "StatefulSet", format!("{{ template: {{ spec: {pod} }} }}")),
        ("apps/v1", "DaemonSet", format!("{{ template: {{ spec: {pod} }} }}")),
        ("batch/v1", "Job", format!("{{ template: {{ spec: {pod} }} }}")),
        ("batch/v1", "CronJob", format!("{{ jobTemplate: {{ spec: {{ template: {{ spec: {pod} }} }} }} }}")),
        ("v1", "Pod", pod.to_owned()),
    ] {
        let text = format!("apiVersion: {version}\nkind: {kind}\nmetadata: {{ name: x }}\nspec: {spec}\n");
        let injected = put(&text);
        assert!(
            injected.contains("name: callgate-admin") && injected.contains("callgate.dev/injected"),
            "{kind}"
        );
        // A port without a name gets the default name of the sidecar's port.
        assert!(injected.contains("name: callgate\n"), "{injected}");
        assert_eq!(spelled(&remove(&injected).unwrap().text), spelled(&text), "{kind}");
        let list = format!(
            "{{ apiVersion: v1, kind: List, items: [ {} ] }}",
            serde_json::to_string(&value(&text)).unwrap()
        );
        assert!(put(&list).contains("callgate-admin"), "{kind}");
        assert_eq!(spelled(&remove(&put(&list)).unwrap().text), spelled(&list));
    }
}

#[test]
fn what_cannot_be_is_said_in_words() {
    let with = |from: &str, to: &str| DEPLOYMENT.replace(from, to);
    let two = with("- { name: logs,", "- { name: logs, ports: [ { containerPort: 9000 } ],");
    for (text, words) in [
        ("", "no workload in it"),
        ("apiVersion: v1\nkind: Service\n", "found Service"),
        ("kind: [", "not YAML"),
        ("just text", "not a Kubernetes object"),
        ("a: 1\na: 2\n", "not YAML"),
        ("kind: Deployment\n", "needs `apiVersion`"),
        ("apiVersion: apps/v1\nkind: Deployment\nmetadata: {}\n", "`spec.template.spec` is missing"),
        ("apiVersion: v1\nkind: Pod\nmetadata: {}\n", "`spec` is missing"),
        ("apiVersion: v1\nkind: Pod\nmetadata: {}\nspec: { containers: [] }\n", "no containers"),
        (&two, "--agent-port, to one of http (8000) of agent, 9000 of logs"),
        (&with("containerPort: 8000", "containerPort: 8443"), "port 8443 is taken in this pod by http"),
        (&with("containerPort: 8000", "containerPort: 9901"), "use --admin-port with another port"),
        (&with("name: logs", "name: callgate"), "a container callgate that"),
        (&with("name: data, secret", "name: callgate-tls, secret"), "a volume callgate-tls that"),
        (&with("      volumes:", "      hostNetwork: yes\n      volumes:"), "hostNetwork"),
        (&with("      volumes:", "      hostNetwork: y\n      volumes:"), "hostNetwork"),
        (
            "apiVersion: v1\nkind: Pod\nmetadata: {}\nspec: { hostNetwork: true, containers: [ { name: a } ] }\n",
            "hostNetwork",
        ),
        (
            &with("unknownField: { kept: true }", "annotations: { callgate.dev/injected: '7' }"),
            "callgate.dev/injected",
        ),
        (&with("unknownField: { kept: true }", "annotations: [ a ]"), "`annotations` is not a mapping"),
        (
            &with("name: SWITCH, value: \"yes\" }", "name: HOST }\n            - { name: HOST }"),
            "HOST more than once",
        ),
        (
            &with("containerPort: 8000", "containerPort: 8e3"),
            "of agent is 8000.0, which is not a whole number",
        ),
        (
            &with("containerPort: 8000", "containerPort: \"8000\""),
            "of agent is \"8000\", which is not a whole",
        ),
        (&with("containerPort: 8000, ", ""), "of agent is null, which is not a whole number"),
        (&with("containerPort: 8000", "containerPort: 70000"), "whole number from 1 to 65535"),
        (&with("- { name: logs,", "- { name: logs, ports: 80,"), "`ports` of logs is not a list"),
        (
            &with("- { name: migrate,", "- { name: migrate, ports: [ 80 ],"),
            "a `containerPort` of migrate is null",
        ),
    ] {
        let error = inject(text, &sidecar()).unwrap_err();
        assert!(error.contains(words), "{words}: {error}");
    }
    let of = |port: &str| Sidecar { agent_port: Some(port.to_owned()), ..sidecar() };
    assert!(
        inject(DEPLOYMENT, &of("grpc"))
            .unwrap_err()
            .contains("no container declares port grpc; the declared ports are http")
    );
    assert!(inject(&two, &of("9000")).is_ok() && inject(&two, &of("http")).is_ok());
    let renamed = put(DEPLOYMENT).replace("- name: agent\n", "- name: other\n");
    assert!(remove(&renamed).unwrap_err().contains("the container agent no longer exists"));
}

#[test]
fn an_unsupported_api_version_is_named() {
    let removed = DEPLOYMENT.replace("apps/v1", "extensions/v1beta1");
    let error = inject(&removed, &sidecar()).unwrap_err();
    assert!(error.contains("Deployment with the unsupported apiVersion extensions/v1beta1"), "{error}");
}

#[test]
fn what_stays_open_and_what_was_left_is_said() {
    let notes = |text: &str, sidecar: &Sidecar| inject(text, sidecar).unwrap().notes.join("\n");
    let unbound = Sidecar { bind_env: None, ..sidecar() };
    assert!(notes(DEPLOYMENT, &unbound).contains("still reaches the agent's own port"));
    let all = notes(DEPLOYMENT, &sidecar());
    assert!(!all.contains("own port") && !all.contains("other ports"), "{all}");
    let two = DEPLOYMENT.replace("- { name: logs,", "- { name: logs, ports: [ { containerPort: 9000 } ],");
    let of_http = Sidecar { agent_port: Some("http".to_owned()), ..sidecar() };
    assert!(notes(&two, &of_http).contains("their requests are not checked: 9000 of logs"));
    let none = "apiVersion: v1\nkind: Pod\nmetadata: { name: p }\nspec: { containers: [ { name: a } ] }\n";
    assert!(notes(none, &unbound).contains("Pod p: everybody who reaches the pod still reaches"));
    for (other, known) in [
        (DEPLOYMENT.replace("kind: Deployment", "kind: ReplicaSet"), false),
        (DEPLOYMENT.replace("apps/v1", "v1"), false),
        ("apiVersion: apps/v1\nkind: DeploymentList\nitems: []\n".to_owned(), false),
        (DEPLOYMENT.replace("apps/v1", "extensions/v1beta1"), false),
        (
            "apiVersion: example.com/v1\nkind: Thing\nmetadata: { name: t }\nspec: { podTemplate: { spec: { \
             containers: [ { name: a } ] } } }\n"
                .to_owned(),
            false,
        ),
        (
            "apiVersion: example.com/v1\nkind: Thing\nmetadata: { name: t }\nspec: { containers: none }\n"
                .to_owned(),
            true,
        ),
        ("apiVersion: v1\nkind: ConfigMap\nmetadata: { name: m }\n".to_owned(), true),
    ] {
        let text = format!("{DEPLOYMENT}---\n{other}");
        let injected = inject(&text, &sidecar()).unwrap();
        assert_eq!(!injected.notes.iter().any(|note| note.contains("left as it is")), known, "{other}");
        assert!(injected.text.ends_with(&other));
    }
}

/// Returns all notes about a pod with this specification.
fn notes_on(spec: &str, sidecar: &Sidecar) -> String {
    inject(&pod_with(&format!("spec: {spec}")), sidecar).unwrap().notes.join("\n")
}

#[test]
fn every_port_that_stays_open_is_named() {
    let of_http = Sidecar { agent_port: Some("http".to_owned()), ..sidecar() };
    let said = notes_on(
        "{ initContainers: [ { name: side, restartPolicy: Always, ports: [ { containerPort: 7000 } ] } ], containers: [ { name: a, \
         ports: [ { containerPort: 8000, name: web }, { containerPort: 8000, name: http }, { containerPort: 53, protocol: UDP } ] }, \
         { name: b, ports: [ { containerPort: 8443, protocol: SCTP, name: s } ] } ] }",
        &of_http,
    );
    let open =
        "their requests are not checked: web (8000) of a, 53/UDP of a, s (8443/SCTP) of b, 7000 of side\n";
    assert!(said.contains(open), "{said}");
    let without = notes_on(
        "{ containers: [ { name: a, ports: [ { containerPort: 53, protocol: UDP } ] } ] }",
        &sidecar(),
    );
    assert!(
        without.contains("no port is declared, so none was moved") && without.contains("53/UDP of a"),
        "{without}"
    );
}

#[test]
fn what_lets_others_at_the_secrets_is_said() {
    let said = |pod: &str, container: &str| {
        let agent = format!("{{ name: a, ports: [ {{ containerPort: 80 }} ], {container} }}");
        notes_on(&format!("{{ {pod}, containers: [ {agent} ] }}"), &sidecar())
    };
    assert!(
        said("shareProcessNamespace: true", "")
            .contains("`shareProcessNamespace`: its containers see the pod's")
    );
    assert!(said("hostPID: yes", "").contains("`hostPID`: its containers see the node's"));
    let ours = "securityContext: { runAsUser: 65532 }";
    let others = "securityContext: { runAsUser: 1000 }";
    for (pod, container, is_said) in [
        (ours, "", true),
        ("hostPID: no", ours, true),
        (ours, others, false),
        (others, ours, true),
        (others, "", false),
    ] {
        let all = said(pod, container);
        assert_eq!(all.contains("`runAsUser` 65532 is the sidecar's UID, and that of a:"), is_said, "{all}");
        assert!(!all.contains("/proc"), "{all}");
    }
}

#[test]
fn what_happens_at_the_end_is_said() {
    let sleeps = "lifecycle: { preStop: { sleep: { seconds: 5 } } }";
    for (pod, container, grace, stop) in [
        ("a: 1", "", false, true),
        ("terminationGracePeriodSeconds: 14", sleeps, true, false),
        ("terminationGracePeriodSeconds: 15", sleeps, false, false),
        ("terminationGracePeriodSeconds: ~", "lifecycle: { preStop: ~ }", false, true),
        ("terminationGracePeriodSeconds: 0", "lifecycle: ~", true, true),
    ] {
        let agent = format!("{{ name: a, ports: [ {{ containerPort: 80 }} ], {container} }}");
        let other = format!("{{ name: b, {sleeps} }}");
        let said = notes_on(&format!("{{ {pod}, containers: [ {other}, {agent} ] }}"), &sidecar());
        assert_eq!(said.contains("`terminationGracePeriodSeconds` is "), grace, "{pod} {container}: {said}");
        assert_eq!(said.contains("the agent has no `lifecycle.preStop`"), stop, "{pod} {container}: {said}");
    }
}

#[test]
fn what_the_configuration_must_say_is_said_once() {
    let own = Sidecar { port: 7443, admin_port: 7901, ..sidecar() };
    let notes = inject(&format!("{DEPLOYMENT}---\n{DEPLOYMENT}"), &own).unwrap().notes;
    let of_it: Vec<_> = notes.iter().filter(|note| note.contains("callgate.yaml")).collect();
    assert_eq!(of_it.len(), 1, "{notes:?}");
    assert!(of_it[0].contains("ConfigMap settings must have `listen.ingress` on port 7443"), "{of_it:?}");
    assert!(of_it[0].contains("`listen.admin` on 0.0.0.0:7901"), "{of_it:?}");
    assert!(remove(&put(DEPLOYMENT)).unwrap().notes.is_empty());
}

#[test]
fn an_annotation_is_not_believed() {
    let annotated = |record: &str, spec: &str| {
        let text = DEPLOYMENT.replace(
            "unknownField: { kept: true }",
            &format!("annotations: {{ callgate.dev/injected: '{record}' }}"),
        );
        text.replace("      initContainers:\n", &format!("      initContainers:\n        - {spec}\n"))
    };
    let mounts = "volumeMounts: [ { name: callgate-config, mountPath: /etc/callgate } ]";
    let args = "args: [ run, -c, /etc/callgate/callgate.yaml ]";
    for (record, spec, words) in [
        ("{volumes: [data], container: agent}", "{ name: other }", "names the volume data, which"),
        ("{volumes: [callgate-policy]}", "{ name: other }", "names the volume callgate-policy, which"),
        (
            "{volumes: [], container: agent}",
            "{ name: callgate, image: a }",
            "its container callgate is not what",
        ),
        ("{volumes: []}", &format!("{{ name: callgate, {mounts} }}"), "its container callgate is not what"),
        (
            "{volumes: []}",
            &format!("{{ name: callgate, {args}, {mounts} }}"),
            "its container callgate is not what",
        ),
    ] {
        let text = annotated(record, spec);
        for done in [remove(&text), inject(&text, &sidecar())] {
            let error = done.unwrap_err();
            assert!(error.contains(words), "{words}: {error}");
        }
    }
    // `remove` succeeds even if the container was changed or removed since then.
    let more = put(DEPLOYMENT)
        .replace("volumeMounts:\n", "volumeMounts:\n        - { name: data, mountPath: /data }\n");
    assert!(more.contains("/data") && !remove(&more).unwrap().text.contains("callgate"));
    assert!(remove(&annotated("{volumes: []}", "{ name: other }")).is_ok());
    let plain = inject(DEPLOYMENT, &Sidecar { tls_secret: None, ..sidecar() }).unwrap().text;
    assert!(!remove(&plain).unwrap().text.contains("callgate"));
}

fn command(args: &[&str], text: &str) -> Output {
    let mut command = Command::new(CALLGATE);
    command.arg("inject").args(args);
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let _ = child.stdin.take().unwrap().write_all(text.as_bytes());
    child.wait_with_output().unwrap()
}

#[test]
fn the_command_and_its_exits() {
    let out = command(
        &["-f", "-", "--tls-secret", "certificate", "--bind-env", "HOST", "--image", "callgate:1.2.3"],
        DEPLOYMENT,
    );
    assert_eq!(out.status.code(), Some(0));
    let expected = inject(
        DEPLOYMENT,
        &Sidecar { config_map: "callgate".to_owned(), secret: "callgate".to_owned(), ..sidecar() },
    );
    assert_eq!(String::from_utf8(out.stdout).unwrap(), expected.unwrap().text);
    assert!(String::from_utf8(out.stderr).unwrap().starts_with("note: Deployment agent: "));
    for (args, code, words) in [
        (&["-f", "/nonexistent"][..], 65, "cannot be read"),
        (&["-f", "-"], 65, "no workload in it"),
        (&["-f", "-", "--port", "0"], 64, "--port"),
        (&["-f", "-", "--port", "70000"], 64, "--port"),
        (&[], 64, "--filename"),
    ] {
        let out = command(args, "apiVersion: v1\nkind: Service\n");
        assert_eq!(out.status.code(), Some(code), "{args:?}");
        let said = String::from_utf8(out.stderr).unwrap();
        assert!(said.contains(words) && out.stdout.is_empty(), "{said}");
    }
}

fn one_of(texts: &'static [&'static str]) -> impl Strategy<Value = &'static str> {
    prop::sample::select(texts)
}

prop_compose! {
    /// Generates workloads in which optional fields are missing, null, empty or filled.
    fn workload()(
        kind in one_of(&["apps/v1 Deployment", "apps/v1 StatefulSet", "batch/v1 CronJob", "v1 Pod"]),
        annotations in one_of(&["", "annotations: ~, ", "annotations: {}, ", "annotations: { a: 'no' }, "]),
        volumes in one_of(&["", "volumes: ~, ", "volumes: [], ", "volumes: [ { name: v, emptyDir: {} } ], "]),
        first in one_of(&["", "initContainers: ~, ", "initContainers: [], ", "initContainers: [ { name: i, image: i } ], "]),
        ports in one_of(&[
            "", "ports: ~, ", "ports: [], ", "ports: [ { containerPort: 80 } ], ",
            "ports: [ { protocol: UDP, containerPort: 53 }, { protocol: TCP, name: web, containerPort: 80 }, { protocol: UDP, containerPort: 54 } ], ",
        ]),
        env in one_of(&["", "env: ~, ", "env: [], ", "env: [ { name: HOST, value: '::' }, { name: B, value: '007' } ], ", "env: [ { valueFrom: { fieldRef: { fieldPath: p } }, name: HOST } ], "]),
        probe in one_of(&["", "livenessProbe: { httpGet: { port: web } }, ", "startupProbe: { tcpSocket: { host: h, port: web } }, ", "readinessProbe: { httpGet: { port: 80 } }, "]),
        other in one_of(&["", "{ name: first, image: f }, "]),
        rest in one_of(&["", "terminationGracePeriodSeconds: 30, "]),
        labels in one_of(&["", "metadata: ~, ", "metadata: {}, ", "metadata: { labels: ~ }, ", "metadata: { labels: { a: b } }, ", "metadata: { labels: { callgate.dev/agent: c } }, "]),
        service in one_of(&["", "serviceName: ~, ", "serviceName: s, "]),
    ) -> String {
        let pod = format!("{{ {first}{volumes}containers: [ {other}{{ {env}name: agent, {ports}{probe}image: 'a:1' }} ], {rest}dnsPolicy: Default }}");
        let (version, kind) = kind.split_once(' ').unwrap();
        let spec = match kind {
            "Deployment" => format!("{{ replicas: 2, template: {{ {labels}spec: {pod} }}, minReadySeconds: 1 }}"),
            "StatefulSet" => format!("{{ {service}template: {{ {labels}spec: {pod} }}, minReadySeconds: 1 }}"),
            "CronJob" => format!("{{ jobTemplate: {{ spec: {{ template: {{ spec: {pod} }} }} }}, schedule: '* * * * *' }}"),
            _ => pod,
        };
        format!("apiVersion: {version}\nkind: {kind}\nmetadata: {{ {annotations}name: x }}\nspec: {spec}\n")
    }
}

proptest! {
    #[test]
    fn whatever_goes_in_comes_out_again(
        workloads in prop::collection::vec(workload(), 1..4),
        tls in any::<bool>(),
        bind in any::<bool>(),
        replicas in any::<bool>(),
        proxied in any::<bool>(),
    ) {
        let mut sidecar = sidecar();
        sidecar.tls_secret = sidecar.tls_secret.filter(|_| tls);
        // Without a port, it is unclear which of two containers is the agent.
        let is_clear = workloads.iter().all(|text| text.contains("containerPort: 80") || !text.contains("name: first"));
        sidecar.bind_env = sidecar.bind_env.filter(|_| bind && is_clear);
        sidecar.replica_port = replicas.then_some(8446);
        let named = |(nth, text): (usize, &String)| text.replace("name: x", &format!("name: x{nth}"));
        let workloads: Vec<_> = workloads.iter().enumerate().map(named).collect();
        sidecar.proxied = (proxied && is_clear).then(forward_proxy);
        let text = workloads.join("---\n");
        let injected = inject(&text, &sidecar).unwrap().text;
        prop_assert_eq!(injected.matches("callgate.dev/injected").count(), workloads.len());
        prop_assert_eq!(&inject(&injected, &sidecar).unwrap().text, &injected);
        let companions = if replicas { 2 * workloads.len() } else { 0 };
        prop_assert_eq!(injected.matches("callgate.dev/replicas-of").count(), companions);
        let removed = remove(&injected).unwrap().text;
        prop_assert!(!removed.contains("replicas-of"));
        for (before, after) in workloads.iter().zip(removed.split("---\n")) {
            prop_assert_eq!(spelled(before), spelled(after));
        }
    }
}
