//! `callgate inject --replicas`: what a workload with several replicas needs, and the warning without it.

use callgate::cli::{Companion, Injected, Sidecar, inject, remove};
use serde_yaml::Value;

const DEPLOYMENT: &str = "apiVersion: apps/v1
kind: Deployment
metadata: { name: agent, namespace: agents }
spec:
  replicas: 3
  selector: { matchLabels: { app: agent } }
  template:
    metadata: { labels: { app: agent } }
    spec:
      containers:
        - { name: agent, image: 'a:1', ports: [ { containerPort: 8000, name: http } ] }
        - { name: other, image: 'b:1', ports: [ { containerPort: 53, protocol: UDP } ] }
";

const STATEFUL_SET: &str = "apiVersion: apps/v1
kind: StatefulSet
metadata: { name: agent }
spec:
  replicas: 3
  selector: { matchLabels: { app: agent } }
  template:
    metadata: { labels: { app: agent } }
    spec:
      securityContext: { fsGroup: 65532 }
      containers: [ { name: agent, image: 'a:1', ports: [ { containerPort: 8000 } ] } ]
  volumeClaimTemplates:
    - metadata: { name: callgate-state }
      spec: { accessModes: [ReadWriteOncePod], resources: { requests: { storage: 1Gi } } }
    - metadata: { name: data }
      spec: { accessModes: [ReadWriteOnce], resources: { requests: { storage: 9Gi } } }
";

fn sidecar(replica_port: Option<u16>) -> Sidecar {
    Sidecar {
        image: "callgate:1.2.3".to_owned(),
        config_map: "settings".to_owned(),
        secret: "keys".to_owned(),
        agent_port: Some("8000".to_owned()),
        replica_port,
        ..Sidecar::default()
    }
}

fn with_replicas(text: &str) -> Injected {
    inject(text, &sidecar(Some(8446))).unwrap()
}

fn documents(text: &str) -> Vec<Value> {
    let documents = text.split("---\n").filter(|part| !part.trim().is_empty());
    documents.map(|part| serde_yaml::from_str(part).unwrap()).collect()
}

fn value(text: &str) -> Value {
    serde_yaml::from_str(text).unwrap()
}

fn container(workload: &Value) -> &Value {
    let container = &workload["spec"]["template"]["spec"]["initContainers"][0];
    assert_eq!(container["name"], "callgate");
    container
}

fn named<'a>(list: &'a Value, name: &str) -> &'a Value {
    let found = list.as_sequence().unwrap().iter().find(|one| one["name"] == name);
    found.unwrap_or_else(|| panic!("no {name} in {list:?}"))
}

/// Reports whether `matchLabels` selects pods with these labels.
fn selects(selector: &Value, labels: &Value) -> bool {
    let selector = selector.as_mapping().unwrap();
    assert!(!selector.is_empty(), "an empty selector selects all pods");
    selector.iter().all(|(key, wanted)| labels.get(key) == Some(wanted))
}

/// Reports whether a policy lets pods with these labels in the same namespace connect to a port.
fn allows(policy: &Value, labels: &Value, port: u16, protocol: &str) -> bool {
    policy["spec"]["ingress"].as_sequence().unwrap().iter().any(|rule| {
        let is_source = rule.get("from").is_none_or(|from| {
            let from = from.as_sequence().unwrap();
            from.iter().any(|one| {
                assert!(one.get("namespaceSelector").is_none() && one.get("ipBlock").is_none());
                selects(&one["podSelector"]["matchLabels"], labels)
            })
        });
        let ports = rule["ports"].as_sequence().unwrap();
        is_source && ports.iter().any(|one| one["port"] == port && one["protocol"] == protocol)
    })
}

#[test]
fn a_replica_has_variables_a_port_a_service_and_a_policy() {
    let all = documents(&with_replicas(DEPLOYMENT).text);
    let [workload, service, policy] = all.as_slice() else { panic!("{all:?}") };
    let own = container(workload);
    for (variable, path) in
        [("POD_IP", "status.podIP"), ("POD_NAME", "metadata.name"), ("POD_UID", "metadata.uid")]
    {
        assert_eq!(named(&own["env"], variable)["valueFrom"]["fieldRef"]["fieldPath"], path);
    }
    assert_eq!(named(&own["ports"], "callgate-member")["containerPort"], 8446);
    assert_eq!(own["ports"][0]["containerPort"], 8443);

    for (object, kind) in [(service, "Service"), (policy, "NetworkPolicy")] {
        assert_eq!(object["kind"], kind);
        assert_eq!(object["metadata"]["name"], "agent-replicas");
        assert_eq!(object["metadata"]["namespace"], "agents");
    }
    let labels = &workload["spec"]["template"]["metadata"]["labels"];
    assert_eq!(labels["app"], "agent");
    assert!(selects(&service["spec"]["selector"], labels));
    assert_eq!(service["spec"]["clusterIP"], "None");
    assert_eq!(service["spec"]["publishNotReadyAddresses"], true);
    assert_eq!(service["spec"]["ports"][0]["port"], 8446);
    assert!(selects(&policy["spec"]["podSelector"]["matchLabels"], labels));
}

#[test]
fn only_pods_of_the_workload_reach_the_replica_listener() {
    let mut second = DEPLOYMENT.replace("name: agent, namespace", "name: second, namespace");
    second.push_str("---\n");
    let all = documents(&with_replicas(&format!("{second}{DEPLOYMENT}")).text);
    let [second, first, _, second_policy, _, first_policy] = all.as_slice() else { panic!("{all:?}") };
    let labels = |workload: &Value| workload["spec"]["template"]["metadata"]["labels"].clone();
    for (policy, own, other) in [(first_policy, first, second), (second_policy, second, first)] {
        let (own, other) = (labels(own), labels(other));
        assert!(allows(policy, &own, 8446, "TCP"));
        let selected = &policy["spec"]["podSelector"]["matchLabels"];
        assert!(selects(selected, &own) && !selects(selected, &other));
        for stranger in [other, value("{ app: agent }"), value("{}")] {
            assert!(!allows(policy, &stranger, 8446, "TCP"), "{stranger:?}");
            // All other declared ports stay open, but not the port that the agent had.
            assert!(allows(policy, &stranger, 8443, "TCP") && allows(policy, &stranger, 9901, "TCP"));
            assert!(allows(policy, &stranger, 53, "UDP") && !allows(policy, &stranger, 8000, "TCP"));
        }
    }
}

#[test]
fn the_ports_are_configurable() {
    let own = Sidecar { port: 7443, ..sidecar(Some(7446)) };
    let all = documents(&inject(DEPLOYMENT, &own).unwrap().text);
    assert_eq!(named(&container(&all[0])["ports"], "callgate-member")["containerPort"], 7446);
    assert_eq!(
        (&all[1]["spec"]["ports"][0]["port"], &all[1]["spec"]["ports"][0]["targetPort"]),
        (&7446.into(), &7446.into())
    );
    assert!(allows(&all[2], &all[0]["spec"]["template"]["metadata"]["labels"], 7446, "TCP"));
    assert!(!allows(&all[2], &value("{}"), 7446, "TCP") && allows(&all[2], &value("{}"), 7443, "TCP"));
}

#[test]
fn it_is_undone_and_done_again() {
    for text in [DEPLOYMENT, STATEFUL_SET] {
        let injected = with_replicas(text).text;
        assert_eq!(with_replicas(&injected).text, injected);
        assert_eq!(documents(&remove(&injected).unwrap().text), documents(text));
        let without = inject(&injected, &sidecar(None)).unwrap().text;
        assert_eq!(documents(&without), documents(&inject(text, &sidecar(None)).unwrap().text));
        // What `kubectl get -o yaml` prints.
        let list = Value::from(serde_yaml::Mapping::from_iter([
            ("apiVersion".into(), "v1".into()),
            ("kind".into(), "List".into()),
            ("items".into(), documents(&injected).into()),
        ]));
        let again = with_replicas(&serde_yaml::to_string(&list).unwrap()).text;
        assert_eq!(documents(&again)[0]["items"].as_sequence().unwrap().len(), 1);
        assert_eq!(documents(&again)[1..], documents(&injected)[1..]);
    }
    // A label that somebody changed stays.
    let changed =
        with_replicas(DEPLOYMENT).text.replace("callgate.dev/agent: agent", "callgate.dev/agent: mine");
    assert!(remove(&changed).unwrap().text.contains("callgate.dev/agent: mine"));
}

#[test]
fn a_label_that_is_there_is_used() {
    let text =
        DEPLOYMENT.replace("labels: { app: agent }", "labels: { app: agent, callgate.dev/agent: mine }");
    let all = documents(&with_replicas(&text).text);
    assert_eq!(all[1]["spec"]["selector"], value("{ callgate.dev/agent: mine }"));
    assert!(allows(&all[2], &value("{ callgate.dev/agent: mine }"), 8446, "TCP"));
    assert_eq!(documents(&remove(&with_replicas(&text).text).unwrap().text), documents(&text));
}

#[test]
fn objects_of_others_are_not_removed() {
    for other in [
        "apiVersion: v1\nkind: Service\nmetadata: { name: a-replicas, annotations: { callgate.dev/replicas-of: b } }\nspec: { selector: { callgate.dev/agent: a } }\n",
        "apiVersion: v1\nkind: Service\nmetadata: { name: a-replicas, annotations: { callgate.dev/replicas-of: a } }\nspec: { selector: { app: a } }\n",
        "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: { name: a-replicas, annotations: { callgate.dev/replicas-of: a } }\nspec: { podSelector: {} }\n",
        "apiVersion: v1\nkind: Secret\nmetadata: { name: a-replicas, annotations: { callgate.dev/replicas-of: a } }\n",
    ] {
        let text = format!("{DEPLOYMENT}---\n{other}");
        assert!(remove(&text).unwrap().text.contains(other), "{other}");
        assert!(with_replicas(&text).text.contains(other), "{other}");
    }
}

#[test]
fn the_pods_of_a_stateful_set_have_names_and_keep_their_ledgers() {
    let injected = with_replicas(STATEFUL_SET);
    let all = documents(&injected.text);
    let set = &all[0];
    assert_eq!(set["spec"]["serviceName"], "agent-replicas");
    assert_eq!(all[1]["metadata"]["name"], "agent-replicas");
    let env = container(set)["env"].as_sequence().unwrap();
    let position = |name: &str| env.iter().position(|one| one["name"] == name).unwrap();
    let dns = position("POD_DNS_NAME");
    assert_eq!(env[dns]["value"], "$(POD_NAME).agent-replicas.$(POD_NAMESPACE).svc");
    // Kubernetes replaces only variables that are defined before.
    assert!(position("POD_NAME") < dns && position("POD_NAMESPACE") < dns);
    assert_eq!(env[position("POD_NAMESPACE")]["valueFrom"]["fieldRef"]["fieldPath"], "metadata.namespace");
    assert_eq!(set["spec"]["volumeClaimTemplates"], value(STATEFUL_SET)["spec"]["volumeClaimTemplates"]);
    let notes = injected.notes.join("\n");
    assert!(notes.contains("`advertise: { env: POD_DNS_NAME }`"), "{notes}");
    assert!(!notes.contains("fsGroup") && !notes.contains("does not outlive"), "{notes}");

    let own = STATEFUL_SET.replace("  replicas: 3", "  serviceName: agent-pods");
    let injected = with_replicas(&own);
    let set = &documents(&injected.text)[0];
    assert_eq!(set["spec"]["serviceName"], "agent-pods");
    assert_eq!(
        named(&container(set)["env"], "POD_DNS_NAME")["value"],
        "$(POD_NAME).agent-pods.$(POD_NAMESPACE).svc"
    );
    assert!(
        injected.notes.iter().any(|note| note.contains("the Service agent-pods")),
        "{:?}",
        injected.notes
    );
}

#[test]
fn claims_for_volumes_stay() {
    for port in [None, Some(8446)] {
        let injected = inject(STATEFUL_SET, &sidecar(port)).unwrap();
        let set = &documents(&injected.text)[0];
        let volumes = set["spec"]["template"]["spec"]["volumes"].as_sequence().unwrap();
        assert!(volumes.iter().all(|volume| volume["name"] != "callgate-state"), "{volumes:?}");
        let mounted = named(&container(set)["volumeMounts"], "callgate-state");
        assert_eq!(mounted["mountPath"], "/var/lib/callgate");
        assert_eq!(documents(&remove(&injected.text).unwrap().text), documents(STATEFUL_SET));

        // Without a group, the sidecar could not write to the volume.
        let unwritable = STATEFUL_SET.replace("fsGroup: 65532", "runAsUser: 1");
        let set = &documents(&inject(&unwritable, &sidecar(port)).unwrap().text)[0];
        assert_eq!(set["spec"]["template"]["spec"]["securityContext"]["fsGroup"], 65532);
        let taken = STATEFUL_SET.replace("name: data", "name: callgate-secrets");
        let error = inject(&taken, &sidecar(port)).unwrap_err();
        assert!(error.contains("`volumeClaimTemplates` have the volume callgate-secrets"), "{error}");
        let without = STATEFUL_SET.replace("name: callgate-state", "name: mine");
        let injected = inject(&without, &sidecar(port)).unwrap();
        named(&documents(&injected.text)[0]["spec"]["template"]["spec"]["volumes"], "callgate-state");
        assert_eq!(injected.notes.join("\n").contains("does not outlive the pod"), port.is_some());
    }
}

#[test]
fn several_pods_without_replicas_are_a_warning() {
    let hpa = |kind: &str, most: u32, rest: &str| {
        format!(
            "---\napiVersion: autoscaling/v2\nkind: HorizontalPodAutoscaler\nmetadata: {{ name: h{rest} }}\nspec: {{ scaleTargetRef: {{ \
             apiVersion: apps/v1, kind: {kind}, name: agent }}, maxReplicas: {most} }}\n"
        )
    };
    let single = DEPLOYMENT.replace("replicas: 3", "replicas: 1");
    let unset = DEPLOYMENT.replace("  replicas: 3\n", "");
    let daemon_set = unset.replace("kind: Deployment", "kind: DaemonSet");
    for (text, words) in [
        (DEPLOYMENT.to_owned(), Some("`replicas` is 3")),
        (STATEFUL_SET.to_owned(), Some("`replicas` is 3")),
        (daemon_set, Some("each node has a pod")),
        (unset.clone() + &hpa("Deployment", 5, ""), Some("HorizontalPodAutoscaler h has `maxReplicas` 5")),
        (unset.clone() + &hpa("Deployment", 5, ", namespace: agents"), Some("`maxReplicas` 5")),
        (
            hpa("Deployment", 5, "").trim_start_matches("---\n").to_owned() + "---\n" + &single,
            Some("`maxReplicas` 5"),
        ),
        (unset.clone() + &hpa("Deployment", 5, ", namespace: others"), None),
        (unset.clone() + &hpa("StatefulSet", 5, ""), None),
        (unset.clone() + &hpa("Deployment", 1, ""), None),
        (single, None),
        (unset, None),
    ] {
        let notes = inject(&text, &sidecar(None)).unwrap().notes;
        let warnings: Vec<_> = notes.iter().filter(|note| note.contains("docs/replicas.md")).collect();
        assert_eq!(warnings.len(), usize::from(words.is_some()), "{text}: {notes:?}");
        assert!(
            warnings.iter().all(|note| note.contains(words.unwrap()) && note.contains(" agent: ")),
            "{notes:?}"
        );
        let notes = with_replicas(&text).notes;
        assert!(!notes.iter().any(|note| note.contains("docs/replicas.md")), "{notes:?}");
    }
}

#[test]
fn what_the_configuration_needs_is_said() {
    let notes = with_replicas(DEPLOYMENT).notes.join("\n");
    for words in [
        "ConfigMap settings",
        "`discover: agent-replicas`",
        "`advertise: { env: POD_IP }`",
        "address: 0.0.0.0:8446",
        "Secret keys",
    ] {
        assert!(notes.contains(words), "{words}: {notes}");
    }
    assert!(notes.contains("the NetworkPolicy agent-replicas opens port 8446"), "{notes}");
}

#[test]
fn what_cannot_be_is_an_error() {
    let long = format!("name: {}, namespace", "a".repeat(60));
    let dotted = "name: a.b, namespace".to_owned();
    let service =
        "---\napiVersion: v1\nkind: Service\nmetadata: { name: agent-replicas, namespace: agents }\n";
    let twice = format!("{DEPLOYMENT}---\n{}", DEPLOYMENT.replace("kind: Deployment", "kind: DaemonSet"));
    for (text, port, words) in [
        (DEPLOYMENT.replace("name: agent, namespace", &long), 8446, "cannot be the name of a Service"),
        (DEPLOYMENT.replace("name: agent, namespace", &dotted), 8446, "cannot be the name of a Service"),
        (
            DEPLOYMENT.replace("name: agent, namespace", "generateName: agent, namespace"),
            8446,
            "callgate.dev/name",
        ),
        (format!("{DEPLOYMENT}{service}"), 8446, "two objects Service agent-replicas"),
        (twice, 8446, "two objects Service agent-replicas"),
        (DEPLOYMENT.to_owned(), 8443, "--replica-port is the same"),
        (DEPLOYMENT.to_owned(), 9901, "--replica-port is the same"),
        (DEPLOYMENT.to_owned(), 8000, "use --replica-port with another port"),
        (STATEFUL_SET.replace("  replicas: 3", "  serviceName: 7"), 8446, "`serviceName` is not a name"),
    ] {
        let error = inject(&text, &sidecar(Some(port))).unwrap_err();
        assert!(error.contains(words), "{words}: {error}");
    }
}

/// Reports whether one of the policies lets pods of the namespace `namespace` with these labels connect to a TCP port.
fn opens(policies: &[&Value], namespace: &str, labels: &Value, port: u16) -> bool {
    policies.iter().flat_map(|policy| policy["spec"]["ingress"].as_sequence().unwrap()).any(|rule| {
        let is_source = |one: &Value| match one.get("namespaceSelector") {
            Some(selector) => selector["matchLabels"]["kubernetes.io/metadata.name"] == namespace,
            None => namespace == "agents" && selects(&one["podSelector"]["matchLabels"], labels),
        };
        let from = rule.get("from").and_then(Value::as_sequence);
        let ports = rule["ports"].as_sequence().unwrap();
        from.is_none_or(|from| from.iter().any(is_source)) && ports.iter().any(|one| one["port"] == port)
    })
}

#[test]
fn the_policies_of_replicas_and_of_with_do_not_cancel_each_other() {
    let text = DEPLOYMENT.replace("containerPort: 53, protocol: UDP", "containerPort: 9000, name: grpc");
    for replica_port in [None, Some(8446)] {
        for with in
            [vec![], vec![Companion::NetworkPolicy], vec![Companion::Service, Companion::NetworkPolicy]]
        {
            let has_policy = with.contains(&Companion::NetworkPolicy);
            let own = Sidecar { with, tls_secret: Some("tls".to_owned()), ..sidecar(replica_port) };
            let injected = inject(&text, &own).unwrap();
            let all = documents(&injected.text);
            let policies: Vec<_> = all.iter().filter(|one| one["kind"] == "NetworkPolicy").collect();
            let expected = usize::from(has_policy || replica_port.is_some());
            assert_eq!(policies.len(), expected, "{replica_port:?} {has_policy}");
            assert_eq!(inject(&injected.text, &own).unwrap().text, injected.text);
            let notes = injected.notes.join("\n");
            assert!(notes.contains("other ports stay open"), "{notes}");
            if policies.is_empty() {
                continue;
            }
            let agents = &all[0]["spec"]["template"]["metadata"]["labels"];
            let stranger = value("{ app: agent }");
            // The note says that port 9000 stays open, and a Service may lead to it.
            for port in [8443, 9000] {
                assert!(opens(&policies, "others", &stranger, port), "{port}");
            }
            assert!(
                !opens(&policies, "others", &stranger, 8000) && !opens(&policies, "agents", agents, 8000)
            );
            assert!(opens(&policies, "monitoring", &stranger, 9901));
            assert_eq!(opens(&policies, "others", &stranger, 9901), !has_policy);
            assert_eq!(opens(&policies, "agents", agents, 8446), replica_port.is_some());
            assert!(
                !opens(&policies, "agents", &stranger, 8446) && !opens(&policies, "others", agents, 8446)
            );
        }
    }
}
