"""Renders the manifests in deploy/, and checks them against schemas and the program. scripts/deploy-test.sh runs this."""

import base64
import functools
import hashlib
import json
import os
import pathlib
import re
import shutil
import socket
import ssl
import subprocess
import tarfile
import tempfile
import time
import unittest
import urllib.error
import urllib.request

import kubernetes_validate
import kubernetes_validate.utils
import yaml

import crds

ROOT = pathlib.Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
OVERLAY = "deploy/kustomize/example/overlay"
HELM = ["helm", "template", "callgate", "deploy/helm/callgate", "--namespace", "agents"]
EXAMPLE = ["--values", "deploy/helm/example/values.yaml", "--set-file", f"config={OVERLAY}/callgate.yaml"]
INJECT = ["callgate", "inject", "-f", "deploy/kustomize/example/base/deployment.yaml"]
REPLICAS_OVERLAY = "deploy/kustomize/example/replicas"
REPLICAS_EXAMPLE = ["--values", "deploy/helm/example/values.yaml", "--values", "deploy/helm/example/replicas.yaml", "--set-file", f"config={REPLICAS_OVERLAY}/callgate.yaml"]
STATEFUL_SET = "deploy/inject/stateful-set.yaml"
# API groups that are not part of Kubernetes itself, and have no schema here.
FOREIGN = {"monitoring.coreos.com/v1", "cert-manager.io/v1"}


def run(*command, ok=True, folder=ROOT, **options):
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60, **options)
    if ok and done.returncode:
        raise AssertionError(f"{' '.join(command)} exited with {done.returncode}:\n{done.stderr}")
    return done


def documents(text):
    return [document for document in yaml.safe_load_all(text) if document]


@functools.cache
def kustomized():
    return documents(run("kubectl", "kustomize", OVERLAY).stdout)


@functools.cache
def helmed():
    return documents(run(*HELM, *EXAMPLE).stdout)


@functools.cache
def injected():
    args = ["--image", "registry.example.com/callgate:0.2.0", "--tls-secret", "callgate-tls", "--bind-env", "HOST"]
    return documents(run(*INJECT, *args).stdout)


@functools.cache
def kustomized_replicas():
    return documents(run("kubectl", "kustomize", REPLICAS_OVERLAY).stdout)


@functools.cache
def helmed_replicas():
    return documents(run(*HELM, *REPLICAS_EXAMPLE).stdout)


@functools.cache
def injected_replicas():
    args = ["--image", "registry.example.com/callgate:0.2.0", "--tls-secret", "callgate-tls", "--bind-env", "HOST", "--replicas"]
    return documents(run(*INJECT, *args).stdout)


@functools.cache
def injected_stateful_set():
    return documents(run("callgate", "inject", "-f", STATEFUL_SET, "--tls-secret", "callgate-tls", "--bind-env", "HOST", "--replicas").stdout)


def one(manifests, kind):
    [found] = [manifest for manifest in manifests if manifest["kind"] == kind]
    return found


def template(manifests):
    [workload] = [manifest for manifest in manifests if manifest["kind"] in ("Deployment", "StatefulSet")]
    return workload["spec"]["template"]


def pod(manifests):
    return template(manifests)["spec"]


def sidecar(manifests):
    [found] = [container for container in pod(manifests)["initContainers"] if container["name"] == "callgate"]
    return found


def by_identity(manifests):
    return {(m["apiVersion"], m["kind"], m["metadata"]["name"]): m for m in manifests}


def by_name(items):
    return {item["name"]: item for item in items}


def without_port_name(container):
    ports = [{**port, "name": i} for i, port in enumerate(container["ports"])]
    return {**container, "ports": ports}


class Rendering(unittest.TestCase):
    def test_kustomize_makes_everything(self):
        kinds = sorted(manifest["kind"] for manifest in kustomized())
        self.assertEqual(kinds, ["Certificate", "ConfigMap", "Deployment", "NetworkPolicy", "PodDisruptionBudget", "PodMonitor", "Service"])
        self.assertEqual({manifest["metadata"]["namespace"] for manifest in kustomized()}, {"agents"})

    def test_helm_makes_the_same(self):
        ours, theirs = by_identity(kustomized()), by_identity(helmed())
        self.assertEqual(ours.keys(), theirs.keys())
        for identity, manifest in ours.items():
            with self.subTest(identity):
                for each in (manifest, theirs[identity]):
                    for container in each.get("spec", {}).get("template", {}).get("spec", {}).get("containers", []):
                        container.get("env", []).sort(key=lambda variable: variable["name"])
                self.assertEqual(manifest, theirs[identity])

    def test_helm_makes_the_same_with_replicas(self):
        ours, theirs = by_identity(kustomized_replicas()), by_identity(helmed_replicas())
        self.assertEqual(ours.keys(), theirs.keys())
        self.assertEqual(ours.keys() - by_identity(kustomized()).keys(), {("v1", "Service", "callgate-replicas"), ("networking.k8s.io/v1", "NetworkPolicy", "callgate-replicas")})
        for identity, manifest in ours.items():
            with self.subTest(identity):
                if identity[1] == "Deployment":
                    for each in (manifest, theirs[identity]):
                        each["spec"]["template"]["spec"]["containers"][0]["env"].sort(key=lambda variable: variable["name"])
                self.assertEqual(manifest, theirs[identity])

    def test_inject_makes_the_same_with_replicas(self):
        def in_order(container):
            return {**without_port_name({**container, "ports": sorted(container["ports"], key=lambda port: port["containerPort"])})}

        self.assertEqual(in_order(sidecar(injected_replicas())), in_order(sidecar(kustomized_replicas())))
        self.assertEqual(pod(injected_replicas())["volumes"], pod(kustomized_replicas())["volumes"])
        ours = by_identity(injected_replicas())["v1", "Service", "analysis-agent-replicas"]
        self.assertEqual(ours["spec"], by_identity(kustomized_replicas())["v1", "Service", "callgate-replicas"]["spec"])

    def test_inject_makes_the_same_sidecar(self):
        self.assertEqual(without_port_name(sidecar(injected())), without_port_name(sidecar(kustomized())))
        self.assertEqual(pod(injected())["volumes"], pod(kustomized())["volumes"])

    def test_inject_adds_objects_that_the_component_has_too(self):
        manifests = documents(run(*INJECT, "--tls-secret", "callgate-tls", "--with", "config,secret-template,service,network-policy").stdout)
        self.assertEqual([each["kind"] for each in manifests], ["Deployment", "ConfigMap", "Secret", "Service", "NetworkPolicy"])
        for manifest in manifests:
            kubernetes_validate.validate(manifest, kubernetes_validate.utils.latest_version(), strict=True)
        for kind in ("Service", "NetworkPolicy"):
            self.assertEqual(one(manifests, kind)["spec"], one(kustomized(), kind)["spec"])
        labels = template(manifests)["metadata"]["labels"]
        self.assertEqual(labels["callgate.dev/agent"], "analysis-agent")
        self.assertTrue(may_connect([one(manifests, "NetworkPolicy")], labels, 8443, "others", {}))
        self.assertFalse(may_connect([one(manifests, "NetworkPolicy")], labels, 8000, "agents", {}))

    def test_inject_is_undone(self):
        text = run(*INJECT).stdout
        again = run("callgate", "inject", "-f", "-", input=text).stdout
        self.assertEqual(text, again)
        removed = run("callgate", "inject", "--remove", "-f", "-", input=text).stdout
        self.assertEqual(documents(removed), documents((DEPLOY / "kustomize/example/base/deployment.yaml").read_text()))

    def test_inject_reads_and_writes_what_kubernetes_reads(self):
        """Parses with PyYAML, which reads YAML 1.1 as Kubernetes does."""
        words = ["yes", "No", "on", "OFF", "y", "n", "0644", "1_000", "0x1F", "0b101", "1e3", "1:30", "+1", "-1", ".5", "~", "null", "true", "2026-01-01", "2026-01-01 10:00:00", "<<", "=", "a: b", "- a", "", " a", "a\nb\n", "1.2.3", ".inf", "0o17", "12h"]
        agent = {"name": "agent", "image": "a:1", "env": [{"name": f"V{i}", "value": word} for i, word in enumerate(words)]}
        labels = {word or "empty": word for word in words}
        # The manifests are passed as JSON, which every YAML version reads in the same way.
        text = f'apiVersion: v1\nkind: Pod\nmetadata: {json.dumps({"name": "a", "labels": labels})}\nspec:\n  containers: {json.dumps([agent])}\n'
        text += "  hostNetwork: no\n  volumes: [ { name: v, secret: { secretName: s, defaultMode: 0640, optional: yes } } ]\n"
        expected = yaml.safe_load(text)
        self.assertEqual(expected["spec"]["volumes"][0]["secret"], {"secretName": "s", "defaultMode": 0o640, "optional": True})
        with_sidecar = run("callgate", "inject", "-f", "-", input=text).stdout
        [injected] = documents(with_sidecar)
        self.assertEqual(injected["spec"]["containers"], expected["spec"]["containers"])
        self.assertEqual(injected["metadata"]["labels"], {**labels, "callgate.dev/agent": "a"})
        self.assertEqual(documents(run("callgate", "inject", "--remove", "-f", "-", input=with_sidecar).stdout), [expected])

    def test_inject_reads_and_writes_what_kubectl_reads(self):
        """Parses with kubectl itself: PyYAML differs in `y`, in `1_000`, and in numbers that begin with 0."""
        words = ["y", "N", "yes", "Off", "'y'", '"no"', "!!str yes", "0644", "'0644'", "08", "-017", "1_000", "1:30", "2026-01-01", "=", "0o17", "0x1F", "1e3", "'12: 30'", "'<<'"]
        attributes = ", ".join(f"mode{i}: {word}" for i, word in enumerate(words)) + ", y: 1, 'on': 2, '<<': 3"
        text = "apiVersion: v1\nkind: Pod\nx-a: &a { hostPID: yes }\nx-b: &b { <<: *a, enableServiceLinks: n }\nmetadata: { name: a }\nspec:\n  <<: [ { <<: *b } ]\n"
        text += "  containers: [ { name: agent, ports: [ { containerPort: 80, name: y } ] } ]\n"
        text += f"  volumes: [ {{ name: v, csi: {{ driver: d, readOnly: yes, volumeAttributes: {{ {attributes} }} }} }} ]\n"

        def read(manifest):
            return json.loads(run("kubectl", "label", "--local", "-f", "-", "a=b", "-o", "json", input=manifest).stdout)

        expected = read(text)
        injected = run("callgate", "inject", "-f", "-", input=text).stdout
        self.assertEqual(read(injected)["spec"]["volumes"][0], expected["spec"]["volumes"][0])
        self.assertEqual(read(run("callgate", "inject", "--remove", "-f", "-", input=injected).stdout), expected)

    def test_the_agent_alone_is_untouched(self):
        [alone] = documents(run("kubectl", "kustomize", "deploy/kustomize/example/base").stdout)
        self.assertNotIn("callgate", json.dumps(alone))

    def test_every_manifest_is_valid(self):
        versions = [version for version in kubernetes_validate.utils.all_versions() if tuple(map(int, version.split(".")[:2])) >= (1, 30)]
        for version in {versions[0], versions[-1]}:
            replicas = [*kustomized_replicas(), *helmed_replicas(), *injected_replicas(), *injected_stateful_set()]
            for manifest in [*kustomized(), *helmed(), *injected(), *replicas]:
                with self.subTest(version=version, kind=manifest["kind"]):
                    if manifest["apiVersion"] in FOREIGN:
                        crds.validate(manifest)
                    else:
                        kubernetes_validate.validate(manifest, version, strict=True)

    def test_the_validators_find_mistakes(self):
        wrong = json.loads(json.dumps(one(kustomized(), "Deployment")))
        wrong["spec"]["template"]["spec"]["initContainers"][0]["livenessProbe"]["httpGett"] = {}
        with self.assertRaises(kubernetes_validate.ValidationError):
            kubernetes_validate.validate(wrong, kubernetes_validate.utils.latest_version(), strict=True)
        wrong = {**one(kustomized(), "PodMonitor"), "spec": {"selectr": {}}}
        with self.assertRaises(crds.ValidationError):
            crds.validate(wrong)

    def test_two_deployments_in_one_overlay_are_an_error(self):
        with tempfile.TemporaryDirectory(dir=DEPLOY / "kustomize") as folder:
            folder = pathlib.Path(folder)
            agent = (DEPLOY / "kustomize/example/base/deployment.yaml").read_text()
            (folder / "two.yaml").write_text(agent + "---\n" + agent.replace("name: analysis-agent", "name: other"))
            (folder / "kustomization.yaml").write_text("resources: [two.yaml]\ncomponents: [../component]\n")
            done = run("kubectl", "kustomize", str(folder), ok=False)
            self.assertNotEqual(done.returncode, 0)
            self.assertIn("multiple matches", done.stderr)

    def overlaid(self, components, config, agent=None):
        """Renders a new overlay with these components, for the agent of the example or for another one."""
        with tempfile.TemporaryDirectory(dir=DEPLOY / "kustomize") as folder:
            folder = pathlib.Path(folder)
            (folder / "agent.yaml").write_text(agent or (DEPLOY / "kustomize/example/base/deployment.yaml").read_text())
            (folder / "callgate.yaml").write_text(config)
            maps = [{"name": "callgate", "files": ["callgate.yaml"], "options": {"disableNameSuffixHash": True}}]
            (folder / "kustomization.yaml").write_text(yaml.safe_dump({"resources": ["agent.yaml"], "components": components, "configMapGenerator": maps}))
            return documents(run("kubectl", "kustomize", str(folder)).stdout)

    def test_tls_can_end_in_front(self):
        with_tls = "      tls: { certificate: /tls/tls.crt, key: /tls/tls.key }\n"
        config = (DEPLOY / "kustomize/example/overlay/callgate.yaml").read_text()
        self.assertIn(with_tls, config)
        manifests = self.overlaid(["../component", "../without-tls"], config.replace(with_tls, ""))
        self.assertNotIn("/tls", json.dumps(manifests))
        self.assertNotIn("callgate-tls", json.dumps(manifests))
        self.assertEqual(sorted(by_name(pod(manifests)["volumes"])), ["callgate-config", "callgate-secrets", "callgate-state"])
        self.assertEqual(len(sidecar(manifests)["volumeMounts"]), 3)
        [port] = one(manifests, "Service")["spec"]["ports"]
        self.assertEqual(port, {"name": "http", "port": 80, "targetPort": 8443, "protocol": "TCP", "appProtocol": "http"})
        for manifest in manifests:
            kubernetes_validate.validate(manifest, kubernetes_validate.utils.latest_version(), strict=True)
        less = ["tls.secretName=", "certificate.enabled=false", "service.port=80"]
        same = documents(run(*HELM, *EXAMPLE, *(f"--set={value}" for value in less)).stdout)
        self.assertEqual(sidecar(manifests)["volumeMounts"], sidecar(same)["volumeMounts"])
        self.assertEqual(pod(manifests)["volumes"], pod(same)["volumes"])
        self.assertEqual(one(manifests, "Service")["spec"]["ports"], one(same, "Service")["spec"]["ports"])

    def test_the_component_takes_the_nodes_network_away(self):
        agent = yaml.safe_load((DEPLOY / "kustomize/example/base/deployment.yaml").read_text())
        agent["spec"]["template"]["spec"]["hostNetwork"] = True
        manifests = self.overlaid(["../component"], "", yaml.safe_dump(agent))
        self.assertIs(pod(manifests)["hostNetwork"], False)

    def test_the_operators_rules_are_the_rules(self):
        run("scripts/prometheus_rule.py", "--check")
        [rule] = documents(run("kubectl", "kustomize", "deploy/kustomize/prometheus-rule").stdout)
        crds.validate(rule)
        rules = yaml.safe_load((DEPLOY / "prometheus/rules.yaml").read_text())
        self.assertEqual(rule["spec"], rules)

    def test_the_charts_rules_are_the_rules_with_another_runbook(self):
        values = ["--set", "prometheusRule.enabled=true", "--set", "prometheusRule.labels.release=kube"]
        rules = yaml.safe_load((DEPLOY / "prometheus/rules.yaml").read_text())
        rule = one(documents(run(*HELM, *EXAMPLE, *values).stdout), "PrometheusRule")
        crds.validate(rule)
        self.assertEqual(rule["spec"], rules)
        self.assertEqual(rule["metadata"]["labels"], {"app.kubernetes.io/name": "callgate", "release": "kube"})
        base = "https://wiki.example.com/callgate"
        elsewhere = run(*HELM, *EXAMPLE, *values, "--set", f"prometheusRule.runbookUrl={base}").stdout
        printed = run("scripts/prometheus_rule.py", "--print", "--runbooks", base).stdout
        for text in (elsewhere, printed):
            rule = one(documents(text), "PrometheusRule")
            alerts = [rule for group in rule["spec"]["groups"] for rule in group["rules"] if "alert" in rule]
            for alert in alerts:
                self.assertEqual(alert["annotations"]["runbook_url"], f"{base}/operations.md#{alert['alert'].lower()}")
            self.assertGreater(len(alerts), 20)

    def test_two_agents_share_a_namespace(self):
        """Each agent has init containers and volumes of its own, with the patches of docs/kubernetes.md."""
        secrets = "volumes: [ { name: callgate-secrets, secret: { secretName: second } } ]"
        patch = f"apiVersion: apps/v1\nkind: Deployment\nmetadata: {{ name: x }}\nspec: {{ template: {{ spec: {{ {secrets} }} }} }}\n"
        kustomization = {
            "namePrefix": "second-",
            "resources": ["second.yaml"],
            "components": ["../component", "../pod-monitor"],
            "configMapGenerator": [{"name": "callgate", "files": ["callgate.yaml"], "options": {"disableNameSuffixHash": True}}],
            "patches": [{"target": {"kind": "Deployment"}, "patch": patch}],
        }
        agent = yaml.safe_load((DEPLOY / "kustomize/example/base/deployment.yaml").read_text())
        agent["metadata"]["name"] = "agent"
        own = agent["spec"]["template"]["spec"]
        own["initContainers"] = [{"name": "migrate", "image": "migrate:1"}]
        own["volumes"] = [{"name": "data", "emptyDir": {}}]
        with tempfile.TemporaryDirectory(dir=DEPLOY / "kustomize") as folder:
            folder = pathlib.Path(folder)
            (folder / "second.yaml").write_text(yaml.safe_dump(agent))
            (folder / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
            shutil.copy(DEPLOY / "kustomize/example/overlay/callgate.yaml", folder)
            second = documents(run("kubectl", "kustomize", str(folder)).stdout)
            patched = run("callgate", "inject", "-f", str(folder / "second.yaml"), "--tls-secret", "callgate-tls").stdout
        for manifests in (second, documents(patched)):
            self.assertEqual([container["name"] for container in pod(manifests)["initContainers"]], ["callgate", "migrate"])
            self.assertEqual(sorted(by_name(pod(manifests)["volumes"])), ["callgate-config", "callgate-secrets", "callgate-state", "callgate-tls", "data"])
        volumes = by_name(pod(second)["volumes"])
        self.assertEqual(volumes["callgate-config"]["configMap"]["name"], "second-callgate")
        self.assertEqual(volumes["callgate-secrets"]["secret"], {"secretName": "second", "defaultMode": 0o400})
        self.assertEqual(one(second, "Service")["metadata"]["name"], "second-callgate")
        self.assertEqual(one(second, "Service")["spec"]["selector"], {"callgate.dev/agent": "agent"})
        values = yaml.safe_dump({"deployment": agent, "existingConfigMap": "callgate"})
        with_helm = documents(run(*HELM, "--values", "-", input=values).stdout)
        self.assertEqual([container["name"] for container in pod(with_helm)["initContainers"]], ["callgate", "migrate"])
        self.assertEqual(len(pod(with_helm)["volumes"]), 5)


class Helm(unittest.TestCase):
    def test_lint(self):
        run("helm", "lint", "--strict", "deploy/helm/callgate", *EXAMPLE)

    def test_wrong_values_are_refused(self):
        for values in ["ports.ingress=https", "prots.ingress=1", "image.repository=", "podMonitor.interval=soon", "name=Callgate"]:
            with self.subTest(values):
                done = run(*HELM, *EXAMPLE, "--set", values, ok=False)
                self.assertNotEqual(done.returncode, 0)
                self.assertIn("schema", done.stderr)
        done = run(*HELM, ok=False)
        self.assertIn("agentName is needed", done.stderr)

    def test_words_that_are_no_names_are_refused(self):
        """A value that is not a valid name is an error, even if it would change the YAML around it."""
        words = {
            "tls.secretName": ["Callgate", "a b", "x}", "a: b", "-a", 'a"'],
            "state.sizeLimit": ["", "1Gib", "much", "1Gi }", "-1Gi"],
            "agentName": ["a b", "-a", "a/b", "a" * 64, "a: b", "a\nb"],
        }
        for key, wrong in words.items():
            for word in wrong:
                with self.subTest(key=key, word=word):
                    outer, inner = key.split(".") if "." in key else (key, None)
                    values = yaml.safe_dump({outer: {inner: word} if inner else word})
                    done = run(*HELM, *EXAMPLE, "--values", "-", input=values, ok=False)
                    self.assertNotEqual(done.returncode, 0)
                    self.assertIn("schema", done.stderr)
        for key, right in {"state.sizeLimit": ["500Mi", "1.5Gi", "2G"], "tls.secretName": ["a.b-c"], "agentName": ["", "A_b.c-1"]}.items():
            for word in right:
                with self.subTest(key=key, word=word):
                    run(*HELM, *EXAMPLE, "--set-string", f"{key}={word}")

    def test_a_name_that_is_a_number_or_a_word_of_yaml_stays_a_name(self):
        names = {"agentName": "123", "name": "1e3", "secretName": "true", "tls.secretName": "0644", "networkPolicy.monitoringNamespace": "null", "podDisruptionBudget.maxUnavailable": "50%"}
        manifests = documents(run(*HELM, *EXAMPLE, *(f"--set-string={key}={name}" for key, name in names.items())).stdout)
        volumes = by_name(pod(manifests)["volumes"])
        self.assertEqual(volumes["callgate-config"]["configMap"]["name"], "1e3")
        self.assertEqual(volumes["callgate-secrets"]["secret"]["secretName"], "true")
        self.assertEqual(volumes["callgate-tls"]["secret"]["secretName"], "0644")
        self.assertEqual(one(manifests, "Certificate")["spec"]["secretName"], "0644")
        self.assertEqual(one(manifests, "Service")["spec"]["selector"], {"callgate.dev/agent": "123"})
        self.assertEqual(one(manifests, "Deployment")["spec"]["template"]["metadata"]["labels"]["callgate.dev/agent"], "123")
        self.assertEqual(one(manifests, "PodDisruptionBudget")["spec"]["maxUnavailable"], "50%")
        for manifest in manifests:
            if manifest["apiVersion"] in FOREIGN:
                crds.validate(manifest)
            else:
                kubernetes_validate.validate(manifest, kubernetes_validate.utils.latest_version(), strict=True)

    def test_the_nodes_network_is_refused(self):
        done = run(*HELM, *EXAMPLE, "--set", "deployment.spec.template.spec.hostNetwork=true", ok=False)
        self.assertNotEqual(done.returncode, 0)
        self.assertIn("hostNetwork", done.stderr)
        run(*HELM, *EXAMPLE, "--set", "deployment.spec.template.spec.hostNetwork=false")

    def test_values_change_what_they_say(self):
        less = ["podMonitor.enabled=false", "certificate.enabled=false", "networkPolicy.enabled=false", "podDisruptionBudget.enabled=false", "service.enabled=false", "existingConfigMap=ours", "tls.secretName=", "image.tag=9.9.9", "ports.ingress=7000"]
        manifests = documents(run(*HELM, "--values", "deploy/helm/example/values.yaml", *(f"--set={value}" for value in less)).stdout)
        self.assertEqual([manifest["kind"] for manifest in manifests], ["Deployment"])
        self.assertNotIn("callgate-tls", json.dumps(manifests))
        self.assertEqual(sidecar(manifests)["image"], "registry.example.com/callgate:9.9.9")
        self.assertEqual(sidecar(manifests)["ports"][0]["containerPort"], 7000)
        self.assertEqual(by_name(pod(manifests)["volumes"])["callgate-config"]["configMap"]["name"], "ours")

    def test_an_image_can_be_named_by_its_digest(self):
        digest = f"sha256:{'ab' * 32}"
        manifests = documents(run(*HELM, *EXAMPLE, f"--set=image.digest={digest}").stdout)
        self.assertEqual(sidecar(manifests)["image"], f"registry.example.com/callgate@{digest}")
        done = run(*HELM, *EXAMPLE, "--set=image.digest=sha256:abc", ok=False)
        self.assertIn("schema", done.stderr)
        with tempfile.TemporaryDirectory(dir=DEPLOY / "kustomize") as folder:
            kustomization = {"resources": ["../example/overlay"], "images": [{"name": "registry.example.com/callgate", "digest": digest}]}
            (pathlib.Path(folder) / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
            self.assertEqual(sidecar(documents(run("kubectl", "kustomize", folder).stdout))["image"], f"registry.example.com/callgate@{digest}")
        self.assertIn(f"image: callgate@{digest}", run(*INJECT, "--image", f"callgate@{digest}").stdout)

    def test_the_chart_fails_without_its_config_map(self):
        done = run(*HELM, "--values", "deploy/helm/example/values.yaml", ok=False)
        self.assertNotEqual(done.returncode, 0)
        self.assertIn("callgate.yaml is missing", done.stderr)
        done = run(*HELM, *EXAMPLE, "--set=existingConfigMap=ours", ok=False)
        self.assertIn("exclude each other", done.stderr)

    def test_its_notes_say_what_is_needed(self):
        # `helm template` renders no notes, and `helm install` needs a cluster. So the notes are rendered as a ConfigMap.
        with tempfile.TemporaryDirectory() as folder:
            chart = pathlib.Path(folder) / "callgate"
            shutil.copytree(DEPLOY / "helm/callgate", chart)
            notes = chart / "templates/NOTES.txt"
            text = notes.read_text()
            notes.unlink()
            (chart / "templates/notes.yaml").write_text('apiVersion: v1\nkind: ConfigMap\nmetadata: { name: notes }\ndata:\n  notes: {{ include "notes" . | toJson }}\n')
            (chart / "templates/_notes.tpl").write_text('{{ define "notes" }}' + text + "{{ end }}")

            def rendered(*values):
                command = ["helm", "template", "callgate", str(chart), "--namespace", "agents", *EXAMPLE, *values]
                return by_identity(documents(run(*command).stdout))["v1", "ConfigMap", "notes"]["data"]["notes"]

            said = rendered()
            for words in ("the Deployment analysis-agent, in the namespace agents", "the Secret callgate, whose keys", "the Secret callgate-tls", "the Service callgate, port 443", "/callgate health --ready"):
                self.assertIn(words, said)
            self.assertNotIn("replicas.enabled", said)
            self.assertIn("replicas.enabled", rendered("--set=deployment.spec.replicas=3"))
            self.assertIn("No NetworkPolicy", rendered("--set=networkPolicy.enabled=false"))

    def test_load_balancers_can_be_named(self):
        values = yaml.safe_dump({"networkPolicy": {"loadBalancers": ["10.0.0.0/8", {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "ingress"}}}]}})
        manifests = documents(run(*HELM, *EXAMPLE, "--values", "-", input=values).stdout)
        policy = one(manifests, "NetworkPolicy")
        kubernetes_validate.validate(policy, kubernetes_validate.utils.latest_version(), strict=True)
        self.assertEqual(policy["spec"]["ingress"][0]["from"][0], {"ipBlock": {"cidr": "10.0.0.0/8"}})
        own = template(manifests)["metadata"]["labels"]
        self.assertTrue(may_connect([policy], own, 8443, "ingress", {}))
        self.assertFalse(may_connect([policy], own, 8443, "others", {}))
        for wrong in ("10.0.0.0", "everybody"):
            done = run(*HELM, *EXAMPLE, f"--set=networkPolicy.loadBalancers={{{wrong}}}", ok=False)
            self.assertIn("schema", done.stderr)

    def test_what_the_pod_connects_to_can_be_restricted(self):
        values = yaml.safe_dump({"networkPolicy": {"egress": {"enabled": True, "rules": [{"to": [{"podSelector": {"matchLabels": {"app": "db"}}}], "ports": [{"port": 5432, "protocol": "TCP"}]}]}}})
        with_helm = by_identity(documents(run(*HELM, *EXAMPLE, "--values", "-", input=values).stdout))
        policy = with_helm["networking.k8s.io/v1", "NetworkPolicy", "callgate-egress"]
        with tempfile.TemporaryDirectory(dir=DEPLOY / "kustomize") as folder:
            kustomization = {"resources": ["../example/overlay"], "components": ["../egress-policy"], "namespace": "agents"}
            (pathlib.Path(folder) / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
            kustomized = by_identity(documents(run("kubectl", "kustomize", folder).stdout))
        ours = kustomized["networking.k8s.io/v1", "NetworkPolicy", "callgate-egress"]
        self.assertEqual(policy["spec"].pop("egress"), [*ours["spec"]["egress"], *yaml.safe_load(values)["networkPolicy"]["egress"]["rules"]])
        self.assertEqual(policy["spec"], {key: value for key, value in ours["spec"].items() if key != "egress"})
        kubernetes_validate.validate(ours, kubernetes_validate.utils.latest_version(), strict=True)
        injected = documents(run(*INJECT, "--with", "egress-policy").stdout)
        self.assertEqual(one(injected, "NetworkPolicy")["spec"], ours["spec"])
        replicas = by_identity(documents(run(*HELM, *REPLICAS_EXAMPLE, "--set=networkPolicy.egress.enabled=true").stdout))
        self.assertEqual(replicas["networking.k8s.io/v1", "NetworkPolicy", "callgate-egress"]["spec"]["egress"][2]["ports"], [{"port": 8446, "protocol": "TCP"}])

    def test_the_pods_that_scrape_can_be_named(self):
        label = "networkPolicy.monitoringPods.app\\.kubernetes\\.io/name=prometheus"
        policy = one(documents(run(*HELM, *EXAMPLE, "--set", label).stdout), "NetworkPolicy")
        [source] = policy["spec"]["ingress"][1]["from"]
        self.assertEqual(source["podSelector"], {"matchLabels": {"app.kubernetes.io/name": "prometheus"}})
        self.assertEqual(source.keys(), {"namespaceSelector", "podSelector"})

    def test_its_parts_serve_another_chart(self):
        with tempfile.TemporaryDirectory() as folder:
            chart = pathlib.Path(folder) / "agent"
            shutil.copytree(DEPLOY / "helm/callgate", chart / "charts/callgate")
            (chart / "templates").mkdir()
            (chart / "Chart.yaml").write_text("apiVersion: v2\nname: agent\nversion: 1.0.0\n")
            (chart / "values.yaml").write_text("callgate: { agentName: mine, existingConfigMap: callgate }\n")
            (chart / "templates/agent.yaml").write_text(
                "kind: Deployment\napiVersion: apps/v1\nmetadata: { name: mine }\nspec:\n  template:\n    metadata:\n"
                '      labels: {{- include "callgate.podLabels" .Subcharts.callgate | nindent 8 }}\n    spec:\n      initContainers:\n'
                '        - {{- include "callgate.container" .Subcharts.callgate | nindent 10 }}\n      volumes:\n'
                '        {{- include "callgate.volumes" .Subcharts.callgate | nindent 8 }}\n'
                '      securityContext: {{- include "callgate.podSecurityContext" .Subcharts.callgate | nindent 8 }}\n'
            )
            manifests = documents(run("helm", "template", "agent", str(chart)).stdout)
            expected = {**sidecar(kustomized()), "image": "callgate:0.2.0"}
            self.assertEqual(sidecar(manifests), expected)
            self.assertEqual(pod(manifests)["volumes"], pod(kustomized())["volumes"])
            self.assertEqual(one(manifests, "Service")["spec"]["selector"], {"callgate.dev/agent": "mine"})


class Wiring(unittest.TestCase):
    def all(self):
        return {"kustomize": kustomized(), "helm": helmed(), "inject": injected()}.items()

    def test_the_sidecar_may_do_nothing_that_it_need_not(self):
        for way, manifests in self.all():
            with self.subTest(way):
                may = sidecar(manifests)["securityContext"]
                self.assertIs(may["allowPrivilegeEscalation"], False)
                self.assertIs(may["privileged"], False)
                self.assertIs(may["readOnlyRootFilesystem"], True)
                self.assertIs(may["runAsNonRoot"], True)
                self.assertGreater(may["runAsUser"], 0)
                self.assertGreater(may["runAsGroup"], 0)
                self.assertEqual(may["capabilities"], {"drop": ["ALL"]})
                self.assertEqual(may["seccompProfile"], {"type": "RuntimeDefault"})
                self.assertEqual(sidecar(manifests)["restartPolicy"], "Always")
                self.assertIn("memory", sidecar(manifests)["resources"]["limits"])

    def test_only_the_sidecars_group_reads_the_secrets(self):
        """With `fsGroup`, the kubelet gives the files this group and adds the right to read for it."""
        for way, manifests in self.all():
            with self.subTest(way):
                modes = {volume["secret"]["defaultMode"] for volume in pod(manifests)["volumes"] if "secret" in volume}
                self.assertEqual(modes, {0o400})
                self.assertEqual(pod(manifests)["securityContext"]["fsGroup"], sidecar(manifests)["securityContext"]["runAsGroup"])
        own = yaml.safe_dump({"deployment": {"spec": {"template": {"spec": {"securityContext": {"fsGroup": 2000}}}}}})
        self.assertEqual(pod(documents(run(*HELM, *EXAMPLE, "--values", "-", input=own).stdout))["securityContext"]["fsGroup"], 2000)
        for file in ("kustomize/component/sidecar.yaml", "helm/callgate/templates/_helpers.tpl"):
            self.assertNotIn("defaultMode: 2", (DEPLOY / file).read_text())

    def test_what_is_mounted_follows_its_source(self):
        for way, manifests in self.all():
            with self.subTest(way):
                volumes = by_name(pod(manifests)["volumes"])
                for mount in sidecar(manifests)["volumeMounts"]:
                    self.assertNotIn("subPath", mount)
                    self.assertIn(mount["name"], volumes)
                    self.assertEqual(mount.get("readOnly", False), "emptyDir" not in volumes[mount["name"]])

    def test_everything_selects_the_agents_pods(self):
        labels = one(kustomized(), "Deployment")["spec"]["template"]["metadata"]["labels"]
        self.assertEqual(labels["callgate.dev/agent"], "analysis-agent")
        wanted = {"callgate.dev/agent": "analysis-agent"}
        self.assertEqual(one(kustomized(), "Service")["spec"]["selector"], wanted)
        self.assertEqual(one(kustomized(), "NetworkPolicy")["spec"]["podSelector"]["matchLabels"], wanted)
        for kind in ("PodMonitor", "PodDisruptionBudget"):
            self.assertEqual(one(kustomized(), kind)["spec"]["selector"]["matchLabels"], wanted)

    def test_ports_are_the_sidecars(self):
        ports = by_name(sidecar(kustomized())["ports"])
        config = self.config()
        [ingress] = config["listen"]["ingress"]
        self.assertEqual(ingress["address"], f"0.0.0.0:{ports['callgate']['containerPort']}")
        self.assertEqual(config["listen"]["admin"]["address"], f"0.0.0.0:{ports['callgate-admin']['containerPort']}")
        [service] = one(kustomized(), "Service")["spec"]["ports"]
        self.assertEqual((service["port"], service["targetPort"]), (443, 8443))
        [monitored] = one(kustomized(), "PodMonitor")["spec"]["podMetricsEndpoints"]
        self.assertIn(monitored["port"], ports)
        open_ports = {port["port"]: rule.get("from") for rule in one(kustomized(), "NetworkPolicy")["spec"]["ingress"] for port in rule["ports"]}
        self.assertEqual(open_ports.keys(), {8443, 9901})
        self.assertIsNone(open_ports[8443])
        self.assertIsNotNone(open_ports[9901])

    def test_the_agent_is_on_loopback(self):
        [agent] = pod(kustomized())["containers"]
        self.assertIn({"name": "HOST", "value": "127.0.0.1"}, agent["env"])
        self.assertIn({"name": "HOST", "value": "127.0.0.1"}, pod(injected())["containers"][0]["env"])
        self.assertEqual(self.config()["agent"]["address"], f"127.0.0.1:{agent['ports'][0]['containerPort']}")
        self.assertEqual(agent["readinessProbe"].keys(), {"exec"})

    def test_the_example_is_one_whose_ledger_is_whole(self):
        """The example has one pod, because the ledger is not shared, and its interactions can end by a callback."""
        for manifests in (kustomized(), helmed()):
            self.assertEqual(one(manifests, "Deployment")["spec"]["replicas"], 1)
        for route in self.config()["routes"]:
            self.assertTrue(route["interaction"]["done"], route["name"])

    def test_connections_fit_into_the_memory(self):
        mebibytes = int(sidecar(kustomized())["resources"]["limits"]["memory"].removesuffix("Mi"))
        limits = self.config()["limits"]
        # The memory when idle, the default memory for bodies, and 36 KiB for each TLS connection.
        self.assertLess(13 + 64 + limits["connections_max"] * 36 / 1024, mebibytes * 0.75)
        self.assertLess(limits["connections_per_address_max"], limits["connections_max"])

    def test_kubernetes_is_new_enough_for_the_sleep(self):
        chart = yaml.safe_load((DEPLOY / "helm/callgate/Chart.yaml").read_text())
        self.assertEqual(chart["kubeVersion"], ">=1.30.0-0")
        done = run(*HELM, *EXAMPLE, "--kube-version", "1.29.0", ok=False)
        self.assertIn("kubeVersion", done.stderr)

    def test_there_is_time_to_stop(self):
        seconds = lambda text: int(text.removesuffix("s"))
        shutdown = self.config()["shutdown"]
        sleep = pod(kustomized())["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]
        needed = sleep + seconds(shutdown["delay"]) + seconds(shutdown["grace"])
        self.assertGreater(pod(kustomized())["terminationGracePeriodSeconds"], needed)

    def test_versions_are_one(self):
        version = re.search(r'^version = "(.+)"', (ROOT / "Cargo.toml").read_text(), re.M)[1]
        component = (DEPLOY / "kustomize/component/sidecar.yaml").read_text()
        self.assertIn(f"image: callgate:{version}\n", component)
        chart = yaml.safe_load((DEPLOY / "helm/callgate/Chart.yaml").read_text())
        self.assertEqual(chart["appVersion"], version)
        self.assertIn(f"-t callgate:{version} .", (DEPLOY / "Dockerfile").read_text())
        for folder in ("kustomize/example/overlay", "webhook"):
            self.assertIn(f"newTag: {version} ", (DEPLOY / folder / "kustomization.yaml").read_text().replace("}", " }"))
        for file in ("deploy/webhook/deployment.yaml", "docs/kubernetes.md"):
            self.assertEqual(set(re.findall(r"callgate:([0-9.]+[0-9])", (ROOT / file).read_text())), {version}, file)
        self.assertRegex((ROOT / "CHANGELOG.md").read_text(), rf"(?m)^## {re.escape(version)} \([0-9]{{4}}-[0-9]{{2}}-[0-9]{{2}}\)$")

    def config(self):
        return yaml.safe_load(one(kustomized(), "ConfigMap")["data"]["callgate.yaml"])


def matches(selector, labels):
    """Reports whether a `matchLabels` selects a pod. An empty selector selects every pod."""
    return all(labels.get(key) == value for key, value in selector.get("matchLabels", {}).items())


def may_connect(policies, to, port, namespace, labels):
    """Reports whether the policies of namespace `agents` let a pod of a namespace connect to a pod with the labels `to`."""
    applied = [policy["spec"] for policy in policies if matches(policy["spec"]["podSelector"], to)]
    if not applied:
        return True

    def is_source(source):
        namespaces = source.get("namespaceSelector")
        in_namespace = namespace == "agents" if namespaces is None else matches(namespaces, {"kubernetes.io/metadata.name": namespace})
        return in_namespace and matches(source.get("podSelector", {}), labels)

    rules = [rule for spec in applied for rule in spec["ingress"] if any(each["port"] == port and each["protocol"] == "TCP" for each in rule["ports"])]
    return any("from" not in rule or any(map(is_source, rule["from"])) for rule in rules)


class Replicas(unittest.TestCase):
    """What several replicas need, in each way that leads to it."""

    def all(self):
        ways = {"kustomize": kustomized_replicas(), "helm": helmed_replicas(), "inject": injected_replicas(), "inject a StatefulSet": injected_stateful_set()}
        for way, manifests in ways.items():
            [headless] = [each for each in manifests if each["kind"] == "Service" and each["metadata"]["name"].endswith("-replicas")]
            yield way, manifests, headless

    def config(self):
        return yaml.safe_load(one(kustomized_replicas(), "ConfigMap")["data"]["callgate.yaml"])

    def test_a_pod_knows_its_address_and_its_name(self):
        for way, manifests, _ in self.all():
            with self.subTest(way):
                fields = {each["name"]: each["valueFrom"]["fieldRef"]["fieldPath"] for each in sidecar(manifests)["env"] if "valueFrom" in each}
                self.assertLessEqual({"POD_IP": "status.podIP", "POD_NAME": "metadata.name", "POD_UID": "metadata.uid"}.items(), fields.items())
        self.assertIn(self.config()["replicas"]["advertise"]["env"], by_name(sidecar(kustomized_replicas())["env"]))

    def test_the_replica_listener_has_one_port(self):
        number = int(self.config()["replicas"]["address"].removeprefix("0.0.0.0:"))
        for way, manifests, headless in self.all():
            with self.subTest(way):
                port = by_name(sidecar(manifests)["ports"])["callgate-member"]
                self.assertEqual(port, {"name": "callgate-member", "containerPort": number, "protocol": "TCP"})
                for each in sidecar(manifests)["ports"]:
                    self.assertLessEqual(len(each["name"]), 15)
                [served] = headless["spec"]["ports"]
                self.assertEqual((served["port"], served["targetPort"]), (number, number))

    def test_the_headless_service_finds_every_replica_at_any_time(self):
        for way, manifests, headless in self.all():
            with self.subTest(way):
                self.assertEqual(headless["spec"]["clusterIP"], "None")
                self.assertIs(headless["spec"]["publishNotReadyAddresses"], True)
                labels = template(manifests)["metadata"]["labels"]
                self.assertTrue(headless["spec"]["selector"])
                self.assertTrue(matches({"matchLabels": headless["spec"]["selector"]}, labels))
                self.assertFalse(matches({"matchLabels": headless["spec"]["selector"]}, {**labels, "callgate.dev/agent": "other"}))
        for manifests in (kustomized_replicas(), helmed_replicas()):
            names = by_identity(manifests)
            self.assertIn(("v1", "Service", self.config()["replicas"]["discover"]), names)

    def test_only_pods_of_the_same_workload_reach_the_replica_listener(self):
        for way, manifests, _ in self.all():
            with self.subTest(way):
                policies = [each for each in manifests if each["kind"] == "NetworkPolicy"]
                own = template(manifests)["metadata"]["labels"]
                self.assertTrue(may_connect(policies, own, 8446, "agents", own))
                # A pod of another workload, which may have the same labels of its own.
                other = {**own, "callgate.dev/agent": "other-agent"}
                without = {key: value for key, value in own.items() if key != "callgate.dev/agent"}
                for namespace, labels in [("agents", other), ("agents", without), ("agents", {}), ("others", own), ("monitoring", own), ("monitoring", {})]:
                    self.assertFalse(may_connect(policies, own, 8446, namespace, labels), (namespace, labels))
                for policy in policies:
                    self.assertFalse(matches(policy["spec"]["podSelector"], other))
                self.assertTrue(may_connect(policies, own, 8443, "others", {}))
                self.assertTrue(may_connect(policies, own, 9901, "monitoring", {}))
                self.assertFalse(may_connect(policies, own, 8000, "agents", own), "the agent's own port")

    def test_inject_with_a_policy_opens_what_the_component_opens(self):
        manifests = documents(run(*INJECT, "--tls-secret", "callgate-tls", "--bind-env", "HOST", "--replicas", "--with", "network-policy").stdout)
        [ours] = [each for each in manifests if each["kind"] == "NetworkPolicy"]
        own = template(manifests)["metadata"]["labels"]
        for others in (kustomized_replicas(), helmed_replicas()):
            theirs = [each for each in others if each["kind"] == "NetworkPolicy"]
            for port in (8000, 8443, 8446, 9901):
                for namespace in ("agents", "others", "monitoring"):
                    for labels in (own, {}):
                        with self.subTest(port=port, namespace=namespace, labels=labels):
                            to = template(others)["metadata"]["labels"]
                            source = to if labels else {}
                            self.assertEqual(may_connect([ours], own, port, namespace, labels), may_connect(theirs, to, port, namespace, source))

    def test_the_evaluation_of_policies_finds_mistakes(self):
        policies = [each for each in kustomized_replicas() if each["kind"] == "NetworkPolicy"]
        own = template(kustomized_replicas())["metadata"]["labels"]
        wrong = json.loads(json.dumps(policies))
        [ours] = [each for each in wrong if each["metadata"]["name"] == "callgate-replicas"]
        ours["spec"]["ingress"][0]["from"][0]["podSelector"] = {}
        self.assertTrue(may_connect(wrong, own, 8446, "agents", {}))
        others = [each for each in policies if each["metadata"]["name"] != "callgate-replicas"]
        self.assertFalse(may_connect(others, own, 8446, "agents", own))

    def test_the_secret_is_a_file_beside_the_others(self):
        [secret] = self.config()["replicas"]["secrets"]
        self.assertEqual(secret["file"].rsplit("/", 1)[0], "/secrets")
        for way, manifests, _ in self.all():
            with self.subTest(way):
                mounts = {mount["mountPath"]: mount["name"] for mount in sidecar(manifests)["volumeMounts"]}
                volume = by_name(pod(manifests)["volumes"])[mounts["/secrets"]]
                self.assertNotIn("items", volume["secret"])

    def test_one_replica_has_nothing_of_it(self):
        for manifests in (kustomized(), helmed(), injected()):
            text = json.dumps([each for each in manifests if each["kind"] != "ConfigMap"])
            for word in ("POD_", "8446", "callgate-member", "-replicas"):
                self.assertNotIn(word, text)

    def test_the_example_differs_only_in_replicas(self):
        with_replicas = self.config()
        self.assertTrue(with_replicas.pop("replicas")["mint"])
        self.assertEqual(with_replicas, yaml.safe_load((ROOT / OVERLAY / "callgate.yaml").read_text()))
        self.assertEqual({one(each, "Deployment")["spec"]["replicas"] for each in (kustomized_replicas(), helmed_replicas())}, {3})

    def test_a_prefix_and_a_name_stay_with_their_agent(self):
        with tempfile.TemporaryDirectory(dir=DEPLOY / "kustomize") as folder:
            kustomization = {"namePrefix": "second-", "resources": ["../example/overlay"], "components": ["../replicas"]}
            (pathlib.Path(folder) / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
            second = documents(run("kubectl", "kustomize", folder).stdout)
        helm = documents(run(*HELM, *REPLICAS_EXAMPLE, "--set=name=second-callgate", "--set=ports.replicas=7446").stdout)
        for manifests in (second, helm):
            identities = by_identity(manifests)
            label = {"callgate.dev/agent": template(manifests)["metadata"]["labels"]["callgate.dev/agent"]}
            self.assertEqual(identities["v1", "Service", "second-callgate-replicas"]["spec"]["selector"], label)
            policy = identities["networking.k8s.io/v1", "NetworkPolicy", "second-callgate-replicas"]["spec"]
            self.assertEqual(policy["podSelector"]["matchLabels"], label)
            self.assertEqual(policy["ingress"][0]["from"], [{"podSelector": {"matchLabels": label}}])
        self.assertEqual(by_identity(helm)["v1", "Service", "second-callgate-replicas"]["spec"]["ports"][0]["targetPort"], 7446)
        self.assertEqual(by_name(sidecar(helm)["ports"])["callgate-member"]["containerPort"], 7446)
        without = documents(run(*HELM, *REPLICAS_EXAMPLE, "--set=networkPolicy.enabled=false").stdout)
        self.assertNotIn("NetworkPolicy", {each["kind"] for each in without})

    def test_a_stateful_set_keeps_names_and_ledgers(self):
        original = yaml.safe_load((ROOT / STATEFUL_SET).read_text())
        changed = one(injected_stateful_set(), "StatefulSet")
        self.assertEqual(changed["spec"]["volumeClaimTemplates"], original["spec"]["volumeClaimTemplates"])
        self.assertIn(("v1", "Service", changed["spec"]["serviceName"]), by_identity(injected_stateful_set()))
        [state] = [mount["name"] for mount in sidecar(injected_stateful_set())["volumeMounts"] if mount["mountPath"] == "/var/lib/callgate"]
        self.assertIn(state, [claim["metadata"]["name"] for claim in changed["spec"]["volumeClaimTemplates"]])
        self.assertNotIn(state, by_name(pod(injected_stateful_set())["volumes"]))
        # The kubelet replaces only variables that are defined before.
        defined = {}
        for variable in sidecar(injected_stateful_set())["env"]:
            defined[variable["name"]] = re.sub(r"\$\((\w+)\)", lambda name: defined[name[1]], variable.get("value", variable["name"].lower()))
        self.assertEqual(defined["POD_DNS_NAME"], "pod_name.analysis-agent-replicas.pod_namespace.svc")
        removed = run("callgate", "inject", "--remove", "-f", "-", input=yaml.safe_dump_all(injected_stateful_set())).stdout
        self.assertEqual(documents(removed), [original])

    def test_several_pods_without_replicas_are_a_warning(self):
        warning = "docs/replicas.md"
        self.assertIn(warning, run("callgate", "inject", "-f", STATEFUL_SET).stderr)
        self.assertNotIn(warning, run("callgate", "inject", "-f", STATEFUL_SET, "--replicas").stderr)
        self.assertNotIn(warning, run(*INJECT).stderr)
        scaler = {"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "h"}, "spec": {"scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "analysis-agent"}, "maxReplicas": 4}}
        kubernetes_validate.validate(scaler, kubernetes_validate.utils.latest_version(), strict=True)
        text = yaml.safe_dump_all([*documents((DEPLOY / "kustomize/example/base/deployment.yaml").read_text()), scaler])
        self.assertIn(warning, run("callgate", "inject", "-f", "-", input=text).stderr)
        self.assertNotIn(warning, run("callgate", "inject", "-f", "-", "--replicas", input=text).stderr)


def free_ports(number):
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(number)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


class Program(unittest.TestCase):
    """Runs the command of the sidecar with the example configuration, and compares it with the manifests."""

    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.folder)
        for name in ("etc", "secrets", "tls", "state"):
            (self.folder / name).mkdir()
        (self.folder / "secrets/token-key").write_text("0123456789abcdef0123456789abcdef\n")
        (self.folder / "secrets/ai-analysis").write_text("whsec_AQIDBAUGBwgJCgsMDQ4PEBESExQVFhcYGRobHB0eHyA=\n")
        for name in ("tls.crt", "tls.key"):
            shutil.copy(ROOT / "tests/corpora/tls" / name, self.folder / "tls")
        self.mounts = {mount["mountPath"]: mount["name"] for mount in sidecar(kustomized())["volumeMounts"]}
        self.assertEqual(self.mounts.keys(), {"/etc/callgate", "/secrets", "/tls", "/var/lib/callgate"})

    def configuration(self, ports=None):
        """Returns the configuration of the pod, with the paths of local folders."""
        text = one(kustomized(), "ConfigMap")["data"]["callgate.yaml"]
        for inside, here in (("/secrets/", "secrets"), ("/tls/", "tls"), ("/var/lib/callgate/", "state")):
            self.assertIn(inside, text)
            text = text.replace(inside, f"{self.folder / here}/")
        for port, other in (ports or {}).items():
            text = re.sub(rf"(0\.0\.0\.0|127\.0\.0\.1):{port}\b", f"127.0.0.1:{other}", text)
        file = self.folder / "etc/callgate.yaml"
        file.write_text(text)
        return str(file)

    def test_the_configuration_is_good(self):
        done = run("callgate", "check", "-c", self.configuration())
        self.assertIn("ok, 1 route, 1 provider, 1 egress rule", done.stdout)
        self.assertEqual(done.stderr, "")

    def test_replicas_find_each_other(self):
        """Two processes with the configuration of the example, which have only other addresses than the pods."""
        (self.folder / "secrets/replicas").write_text("abcdef0123456789abcdef0123456789\n")
        text = one(kustomized_replicas(), "ConfigMap")["data"]["callgate.yaml"]
        for inside, here in (("/secrets/", "secrets"), ("/tls/", "tls")):
            text = text.replace(inside, f"{self.folder / here}/")
        ports = [dict(zip((8443, 8081, 9901, 8446), free_ports(4))) for _ in range(2)]
        members = [f"127.0.0.1:{own[8446]}" for own in ports]
        for i, own in enumerate(ports):
            (self.folder / f"state{i}").mkdir()
            config = text.replace("/var/lib/callgate/", f"{self.folder}/state{i}/")
            for port, other in own.items():
                config = re.sub(rf"(0\.0\.0\.0|127\.0\.0\.1):{port}\b", f"127.0.0.1:{other}", config)
            self.assertIn("discover: callgate-replicas\n", config)
            config = config.replace("discover: callgate-replicas", f"discover: {json.dumps(members)}")
            file = self.folder / f"etc/callgate{i}.yaml"
            file.write_text(config)
            environment = {**os.environ, "POD_IP": "127.0.0.1"}
            self.assertIn("ok, 1 route", run("callgate", "check", "-c", str(file), env=environment).stdout)
            child = subprocess.Popen(["callgate", "run", "-c", str(file)], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            self.addCleanup(child.wait)
            self.addCleanup(child.kill)
        for own in ports:
            for _ in range(300):
                shown = run("callgate", "members", "--admin", f"127.0.0.1:{own[9901]}", ok=False).stdout
                if all(re.search(rf"^{re.escape(member)} .* (present|this one) ", shown, re.M) for member in members):
                    break
                time.sleep(0.1)
            else:
                self.fail(shown)

    def test_the_settings_of_a_stateful_set_are_good(self):
        """The example with the lines of docs/kubernetes.md."""
        (self.folder / "secrets/replicas").write_text("abcdef0123456789abcdef0123456789\n")
        text = (ROOT / "docs/kubernetes.md").read_text()
        [lines] = re.findall(r"```yaml\n(replicas:\n.*?POD_DNS_NAME.*?)```", text, re.S)
        file = pathlib.Path(self.configuration())
        config = file.read_text() + lines.replace("/secrets/", f"{self.folder}/secrets/")
        file.write_text(config)
        self.assertIn(yaml.safe_load(lines)["replicas"]["discover"], {each["metadata"]["name"] for each in injected_stateful_set() if each["kind"] == "Service"})
        environment = {**os.environ, "POD_DNS_NAME": "agent-0.analysis-agent-replicas.agents.svc"}
        self.assertIn("ok, 1 route", run("callgate", "check", "-c", str(file), env=environment).stdout)

    def test_a_secret_that_is_missing_is_found(self):
        file = self.configuration()
        (self.folder / "secrets/token-key").unlink()
        self.assertEqual(run("callgate", "check", "-c", file, ok=False).returncode, 64)

    def test_probes_ask_for_what_is_there(self):
        ingress, egress, admin = free_ports(3)
        file = self.configuration({8443: ingress, 8081: egress, 9901: admin})
        args = sidecar(kustomized())["args"]
        self.assertEqual(args[:2], ["run", "-c"])
        self.assertEqual(args[2], "/etc/callgate/callgate.yaml")
        child = subprocess.Popen(["callgate", *args[:2], file], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.addCleanup(child.wait)
        self.addCleanup(child.kill)
        for _ in range(100):
            up = run("callgate", "health", "--admin", f"127.0.0.1:{admin}", ok=False)
            if up.returncode == 0:
                break
            self.assertEqual(up.returncode, 69)
            time.sleep(0.1)
        self.assertEqual(up.stdout, "ok\n")
        self.assertEqual(run("callgate", "health", "--ready", "--admin", f"127.0.0.1:{admin}").stdout, "ok\n")
        container = sidecar(kustomized())
        paths = {container[probe]["httpGet"]["path"] for probe in ("startupProbe", "livenessProbe", "readinessProbe")}
        paths |= {endpoint["path"] for endpoint in one(kustomized(), "PodMonitor")["spec"]["podMetricsEndpoints"]}
        self.assertEqual(paths, {"/livez", "/readyz", "/metrics"})
        for path in paths:
            with urllib.request.urlopen(f"http://127.0.0.1:{admin}{path}", timeout=5) as answer:
                self.assertEqual(answer.status, 200, path)
        with self.assertRaises(urllib.error.HTTPError):
            urllib.request.urlopen(f"http://127.0.0.1:{admin}/healthz", timeout=5)


class Webhook(unittest.TestCase):
    """The manifests of the webhook, and what the program answers to recorded requests."""

    def manifests(self):
        return documents(run("kubectl", "kustomize", "deploy/webhook").stdout)

    def container(self):
        [deployment] = [each for each in self.manifests() if each["kind"] == "Deployment"]
        [container] = deployment["spec"]["template"]["spec"]["containers"]
        return container

    def test_every_manifest_is_valid(self):
        for manifest in self.manifests():
            with self.subTest(manifest["kind"]):
                if manifest["apiVersion"] in FOREIGN:
                    crds.validate(manifest)
                else:
                    kubernetes_validate.validate(manifest, kubernetes_validate.utils.latest_version(), strict=True)

    def test_the_parts_fit_together(self):
        manifests = by_identity(self.manifests())
        configuration = manifests["admissionregistration.k8s.io/v1", "MutatingWebhookConfiguration", "callgate-webhook"]
        [hook] = configuration["webhooks"]
        service = hook["clientConfig"]["service"]
        self.assertIn(("v1", "Service", service["name"]), manifests)
        self.assertEqual(service["path"], "/mutate")
        self.assertEqual((hook["failurePolicy"], hook["sideEffects"]), ("Fail", "None"))
        certificate = manifests["cert-manager.io/v1", "Certificate", "callgate-webhook"]
        self.assertIn(f"{service['name']}.{service['namespace']}.svc", certificate["spec"]["dnsNames"])
        [volume] = manifests["apps/v1", "Deployment", "callgate-webhook"]["spec"]["template"]["spec"]["volumes"]
        self.assertEqual(volume["secret"]["secretName"], certificate["spec"]["secretName"])
        self.assertEqual(configuration["metadata"]["annotations"]["cert-manager.io/inject-ca-from"], "callgate-system/callgate-webhook")
        # The pods of the webhook itself are never subject to it.
        [names] = hook["namespaceSelector"]["matchExpressions"]
        self.assertIn("callgate-system", names["values"])
        # The sidecar has the image of the webhook.
        container = self.container()
        self.assertEqual(container["args"][:3], ["webhook", "--image", container["image"]])

    def test_a_patched_pod_is_valid(self):
        [port] = free_ports(1)
        args = ["callgate", *self.container()["args"], "--listen", f"127.0.0.1:{port}", "--certificate", "tests/corpora/tls/tls.crt", "--key", "tests/corpora/tls/tls.key"]
        child = subprocess.Popen(args, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.addCleanup(child.wait)
        self.addCleanup(child.kill)
        context = ssl._create_unverified_context()

        def ask(path, body=None):
            request = urllib.request.Request(f"https://127.0.0.1:{port}{path}", body, {"content-type": "application/json"})
            for _ in range(100):
                try:
                    with urllib.request.urlopen(request, timeout=5, context=context) as answer:
                        return answer.read()
                except urllib.error.URLError as error:
                    if isinstance(error, urllib.error.HTTPError):
                        raise
                    time.sleep(0.1)
            raise AssertionError("no answer")

        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            self.assertEqual(ask(self.container()[probe]["httpGet"]["path"]), b"ok\n")
        for name in ("pod-of-a-deployment", "deployment"):
            text = (ROOT / f"tests/admission/{name}.json").read_text()
            response = json.loads(ask("/mutate", text.encode()))["response"]
            self.assertTrue(response["allowed"])
            patched = json.loads(text)["request"]["object"]
            for operation in json.loads(base64.b64decode(response["patch"])):
                *way, last = [part.replace("~1", "/").replace("~0", "~") for part in operation["path"].split("/")[1:]]
                target = functools.reduce(lambda at, key: at[key], way, patched)
                if operation["op"] == "remove":
                    del target[last]
                else:
                    target[last] = operation["value"]
            kubernetes_validate.validate(patched, kubernetes_validate.utils.latest_version(), strict=True)
            spec = patched["spec"] if patched["kind"] == "Pod" else patched["spec"]["template"]["spec"]
            volumes = by_name(spec["volumes"])
            self.assertEqual(volumes["callgate-config"]["configMap"]["name"], "analysis-agent-callgate")


class Image(unittest.TestCase):
    def test_the_linter_is_content(self):
        run("hadolint", "deploy/Dockerfile")

    def test_what_it_says(self):
        text = (DEPLOY / "Dockerfile").read_text().rsplit("\nFROM ", 1)[1]
        self.assertRegex(text, r"\nUSER 65532:65532\n")
        probe = json.loads(re.search(r"^HEALTHCHECK .* CMD (\[.*\])$", text, re.M)[1])
        self.assertEqual(probe[:2], ["/callgate", "health"])
        self.assertIn("--admin", run("callgate", "health", "--help").stdout)
        may = sidecar(kustomized())["securityContext"]
        self.assertEqual((may["runAsUser"], may["runAsGroup"]), (65532, 65532))
        command = json.loads(re.search(r"^CMD (\[.*\])$", text, re.M)[1])
        self.assertEqual(command, sidecar(kustomized())["args"])

    def test_its_folder_has_what_the_build_names(self):
        with tempfile.TemporaryDirectory() as folder:
            for line in (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines():
                if line.startswith("!"):
                    source, target = ROOT / line[1:], pathlib.Path(folder) / line[1:]
                    target.parent.mkdir(parents=True, exist_ok=True)
                    (shutil.copytree if source.is_dir() else shutil.copy)(source, target)
            manifest = str(pathlib.Path(folder) / "Cargo.toml")
            run("cargo", "metadata", "--no-deps", "--format-version=1", "--locked", "--offline", "--manifest-path", manifest)
            for file in pathlib.Path(folder, "src").rglob("*.rs"):
                if file.name != "tests.rs" and not file.name.endswith("_tests.rs"):
                    for name in re.findall(r'include_str!\("([^"]+)"\)', file.read_text()):
                        self.assertTrue((file.parent / name).exists(), f"{file} includes {name}")


class Release(unittest.TestCase):
    """What `make dist` packs, with the program of the tests instead of an optimized one."""

    def packed(self, program):
        folder = pathlib.Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, folder)
        done = subprocess.run([ROOT / "scripts/dist.py", program, folder], capture_output=True, text=True, timeout=300, env={**os.environ, "SOURCE_DATE_EPOCH": "1767225600"})
        self.assertEqual(done.returncode, 0, done.stderr)
        return folder

    def test_the_archive_is_whole_and_the_same_each_time(self):
        program = pathlib.Path(shutil.which("callgate")).resolve()
        if shutil.which("strip"):
            # Without debug information, which `make dist` does not pack either, packing takes seconds.
            folder = pathlib.Path(tempfile.mkdtemp())
            self.addCleanup(shutil.rmtree, folder)
            run("strip", "-o", str(folder / "callgate"), str(program))
            program = folder / "callgate"
        first, second = self.packed(program), self.packed(program)
        names = sorted(file.name for file in first.iterdir())
        version = run("callgate", "--version").stdout.split()[1]
        [archive] = [name for name in names if name.endswith(".tar.gz")]
        self.assertTrue(archive.startswith(f"callgate-{version}-"), archive)
        self.assertEqual(len(names), 3)
        for name in names:
            self.assertEqual((first / name).read_bytes(), (second / name).read_bytes(), name)
        run("sha256sum", "--check", "--strict", "SHA256SUMS", folder=first)
        with tempfile.TemporaryDirectory() as folder:
            with tarfile.open(first / archive) as tar:
                tar.extractall(folder, filter="data")
            [top] = pathlib.Path(folder).iterdir()
            self.assertEqual(f"{top.name}.tar.gz", archive)
            self.assertIn(version, run(str(top / "callgate"), "--version").stdout)
            self.assertIn(".TH callgate", (top / "callgate.1").read_text())
            self.assertIn("complete -F", (top / "completions/callgate.bash").read_text())
            self.assertIn("#compdef callgate", (top / "completions/_callgate").read_text())
            self.assertIn("properties", json.loads((top / "callgate.schema.json").read_text()))
            for name in ("LICENSE", "README.md", "docs/kubernetes.md", "deploy/webhook/deployment.yaml", "config/callgate.yaml"):
                self.assertTrue((top / name).exists(), name)
            bom = json.loads((top / "callgate.cdx.json").read_text())
            digest = hashlib.sha256((top / "callgate").read_bytes()).hexdigest()
        self.assertEqual((bom["bomFormat"], bom["specVersion"]), ("CycloneDX", "1.5"))
        self.assertEqual(bom["metadata"]["component"]["hashes"][0]["content"], digest)
        components = {each["name"]: each for each in bom["components"]}
        self.assertIn("pingora", components)
        self.assertNotIn("proptest", components, "it is needed for tests only")
        self.assertNotIn("callgate", components)
        for each in bom["components"]:
            self.assertIn("licenses", each)
            self.assertRegex(each["hashes"][0]["content"], "^[0-9a-f]{64}$")
        known = {each["bom-ref"] for each in bom["components"]} | {bom["metadata"]["component"]["bom-ref"]}
        for each in bom["dependencies"]:
            self.assertLessEqual({each["ref"], *each["dependsOn"]}, known)


class Documentation(unittest.TestCase):
    # Commands in the documents that can be run only with a cluster, a container engine, or a pod.
    ELSEWHERE = ("docker ", "kubectl create namespace ", "kubectl apply ", "kubectl -n ", "kubectl label ", "kubectl port-forward ", "kubectl rollout ")

    def test_its_commands_work(self):
        text = (ROOT / "docs/kubernetes.md").read_text()
        commands = re.findall(r"^\$ (.+)$", text, re.M)
        done = 0
        with tempfile.TemporaryDirectory() as folder:
            for name in ("token-key", "ai-analysis"):
                (pathlib.Path(folder) / name).write_text("0123456789abcdef0123456789abcdef")
            for command in commands:
                command = command.split("  #")[0].split(" | kubectl apply ")[0].strip()
                if command.startswith(self.ELSEWHERE):
                    continue
                with self.subTest(command):
                    script = f'cd "$1" && {command}'.replace("./secrets/", f"{folder}/")
                    out = subprocess.run(["bash", "-c", f"set -o pipefail; {script}", "bash", str(ROOT)], capture_output=True, text=True, timeout=60)
                    self.assertEqual(out.returncode, 0, out.stderr)
                    done += 1
        self.assertEqual(done, 17)


class Scripts(unittest.TestCase):
    """If a tool is missing, the script reports the skipped tests. With STRICT set, this is a failure."""

    def skipped(self, script, strict):
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder)
            # The tools of the shell, and a python3 without venv and pip.
            for name in ("bash", "dirname", "cmp", "rm", "mkdir", "cat"):
                (path / name).symlink_to(shutil.which(name))
            (path / "python3").write_text('#!/bin/sh\n[ "$1" != -m ]\n')
            (path / "python3").chmod(0o755)
            environment = {"PATH": folder, **({"STRICT": "1"} if strict else {})}
            command = [f"scripts/{script}.sh", str(path / "tools"), "callgate"]
            done = subprocess.run(["bash", *command], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60)
            self.assertIn(" NOT T", done.stderr)
            return done.returncode

    def test_a_skip_is_a_failure_where_that_is_asked_for(self):
        for script in ("observability", "interop", "image-test"):
            with self.subTest(script):
                self.assertEqual(self.skipped(script, strict=False), 0)
                self.assertEqual(self.skipped(script, strict=True), 1)


if __name__ == "__main__":
    unittest.main()
