//! The objects that `--with` adds for each workload: a first configuration, a Secret to fill in, a Service and
//! NetworkPolicies.

use super::label::{self, LABEL};
use super::ports::{self, DeclaredPort};
use super::replicas::{self, identity, suffix_of_added};
use super::sidecar::{BaseUrl, Companion, DAMAGED, Sidecar};
use super::yaml::{self, Mapping, Value};
use crate::config::CHANGE_ME;

/// The text of the kustomize component that defines the Service.
const SERVICE: &str = include_str!("../../../deploy/kustomize/component/service.yaml");
/// The text of the kustomize component that defines the NetworkPolicy for incoming connections.
const NETWORK_POLICY: &str = include_str!("../../../deploy/kustomize/component/network-policy.yaml");
/// The text of the kustomize component that defines the NetworkPolicy for outgoing connections.
const EGRESS_POLICY: &str = include_str!("../../../deploy/kustomize/egress-policy/network-policy.yaml");
/// The key of the annotation that `inject` writes on the Services and NetworkPolicies that it adds. Its value is the
/// name of the workload.
const ANNOTATION: &str = "callgate.dev/added-for";

/// The suffix of the names of an added Service and of the NetworkPolicy for incoming connections. The name of the
/// workload is before the suffix.
const SUFFIX: &str = "-callgate";
/// The suffix of the name of an added NetworkPolicy for outgoing connections.
const EGRESS_SUFFIX: &str = "-callgate-egress";
/// The maximum length of the name of a Kubernetes Service.
const NAME_MAX: usize = 63;

/// A Kubernetes workload that has the sidecar, and for which `--with` adds objects.
pub(super) struct Workload<'a> {
    pub(super) sidecar: &'a Sidecar,
    pub(super) name: &'a str,
    pub(super) namespace: Option<Value>,
    /// The value of the label `callgate.dev/agent` of the workload's pods.
    pub(super) label: &'a str,
    pub(super) agent_port: Option<u64>,
    /// The environment variable that contains the address of a replica, and the name of the headless Service. `None`
    /// without `--replicas`.
    pub(super) replicas: Option<(&'static str, &'a str)>,
    /// The ports that the containers of the pod declare, except the ports of the sidecar.
    pub(super) open: Vec<DeclaredPort>,
}

impl Workload<'_> {
    /// Returns the Kubernetes objects that the option `--with` requests for this workload.
    pub(super) fn companions(&self) -> Result<Vec<Value>, String> {
        let make = |companion: &Companion| match companion {
            Companion::Config => self.config_map(),
            Companion::SecretTemplate => self.secret(),
            Companion::Service => self.service(),
            Companion::NetworkPolicy => self.network_policy(),
            Companion::EgressPolicy => self.egress_policy(),
        };
        self.sidecar.with.iter().map(|companion| make(companion).ok_or_else(|| DAMAGED.to_owned())).collect()
    }

    fn config_map(&self) -> Option<Value> {
        let mut object = yaml::read("apiVersion: v1\nkind: ConfigMap\nmetadata: {}\ndata: {}\n").ok()?;
        self.place(&mut object, &self.sidecar.config_map)?;
        object.get_mut("data")?.as_mapping_mut()?.insert("callgate.yaml".into(), self.configuration().into());
        Some(object)
    }

    fn secret(&self) -> Option<Value> {
        let text = "apiVersion: v1\nkind: Secret\nmetadata: {}\ntype: Opaque\nstringData: {}\n";
        let mut object = yaml::read(text).ok()?;
        self.place(&mut object, &self.sidecar.secret)?;
        let data = object.get_mut("stringData")?.as_mapping_mut()?;
        data.insert("token-key".into(), CHANGE_ME.into());
        if self.replicas.is_some() {
            data.insert("replicas".into(), CHANGE_ME.into());
        }
        Some(object)
    }

    fn service(&self) -> Option<Value> {
        let mut object = yaml::read(SERVICE).ok()?;
        self.own(&mut object, SUFFIX)?;
        let spec = object.get_mut("spec")?;
        *spec.get_mut("selector")?.get_mut(LABEL)? = self.label.into();
        let port = spec.get_mut("ports")?.get_mut(0)?;
        *port.get_mut("targetPort")? = self.sidecar.port.into();
        if self.sidecar.tls_secret.is_none() {
            for (key, value) in [("name", "http".into()), ("port", 80.into()), ("appProtocol", "http".into())]
            {
                *port.get_mut(key)? = value;
            }
        }
        Some(object)
    }

    fn network_policy(&self) -> Option<Value> {
        let mut object = yaml::read(NETWORK_POLICY).ok()?;
        self.own(&mut object, SUFFIX)?;
        let spec = object.get_mut("spec")?;
        *spec.get_mut("podSelector")?.get_mut("matchLabels")?.get_mut(LABEL)? = self.label.into();
        let balancers = self.sidecar.load_balancers.iter().map(|network| {
            let block = one("cidr", network.as_str().into());
            Value::from(one("ipBlock", block.into()))
        });
        if !self.sidecar.load_balancers.is_empty() {
            let rule = spec.get_mut("ingress")?.get_mut(0)?.as_mapping_mut()?;
            rule.insert("from".into(), balancers.collect::<Vec<_>>().into());
        }
        for (rule, port) in [(0, self.sidecar.port), (1, self.sidecar.admin_port)] {
            *spec.get_mut("ingress")?.get_mut(rule)?.get_mut("ports")?.get_mut(0)?.get_mut("port")? =
                port.into();
        }
        let rules = spec.get_mut("ingress")?.as_sequence_mut()?;
        if let Some(port) = self.sidecar.replica_port {
            rules.push(replicas::rule(port, self.label)?);
        }
        // A NetworkPolicy closes every port that it does not name. The ports of the containers besides the sidecar are
        // therefore opened as well, so that Services can still use them.
        rules.extend(ports::open(&self.open).map(Value::from));
        Some(object)
    }

    fn egress_policy(&self) -> Option<Value> {
        let mut object = yaml::read(EGRESS_POLICY).ok()?;
        self.own(&mut object, EGRESS_SUFFIX)?;
        let spec = object.get_mut("spec")?;
        let selector = spec.get_mut("podSelector")?;
        *selector.get_mut("matchLabels")?.get_mut(LABEL)? = self.label.into();
        if let Some(port) = self.sidecar.replica_port {
            let mut to = one("to", vec![Value::from(one("podSelector", selector.clone()))].into());
            let mut listener = one("port", port.into());
            listener.insert("protocol".into(), "TCP".into());
            to.insert("ports".into(), vec![Value::from(listener)].into());
            spec.get_mut("egress")?.as_sequence_mut()?.push(to.into());
        }
        Some(object)
    }

    /// Writes the name into the metadata of a Kubernetes object. Also writes the namespace of the workload, if the
    /// workload has one.
    fn place(&self, object: &mut Value, name: &str) -> Option<()> {
        let metadata = object.get_mut("metadata")?.as_mapping_mut()?;
        metadata.insert("name".into(), name.into());
        if let Some(namespace) = &self.namespace {
            metadata.insert("namespace".into(), namespace.clone());
        }
        Some(())
    }

    /// Writes the name, the namespace and the annotation of an added object into its metadata. The name is the name of
    /// the workload, followed by `suffix`. The option `--remove` removes the objects with this annotation.
    fn own(&self, object: &mut Value, suffix: &str) -> Option<()> {
        self.place(object, &format!("{}{suffix}", self.name))?;
        let mut annotations = Mapping::new();
        annotations.insert(ANNOTATION.into(), self.name.into());
        object.get_mut("metadata")?.as_mapping_mut()?.insert("annotations".into(), annotations.into());
        Some(())
    }

    /// Returns the text of a first configuration for the workload. The configuration is invalid until the author
    /// replaces its placeholders.
    fn configuration(&self) -> String {
        let Sidecar { port, admin_port, egress_port, .. } = self.sidecar;
        let tls = match self.sidecar.tls_secret {
            Some(_) => ", tls: { certificate: /tls/tls.crt, key: /tls/tls.key }",
            None => "",
        };
        let agent = self.agent_port.map_or_else(|| CHANGE_ME.to_owned(), |port| port.to_string());
        let proxy = match &self.sidecar.proxied {
            Some(_) => {
                ", proxy: { bundle: /run/callgate/trust, ca: { certificate: /ca/ca.crt, key: /ca/ca.key } }"
            }
            None => "",
        };
        let replicas = self.replicas.zip(self.sidecar.replica_port).map_or_else(String::new, |((variable, service), port)| {
            format!(
                "replicas:\n  address: 0.0.0.0:{port}\n  advertise: {{ env: {variable} }}\n  discover: {service}\n  mint: true\n  secrets: [ {{ file: /secrets/replicas }} ]\n"
            )
        });
        let rules: String = self.sidecar.base_urls.iter().map(rule).collect();
        let egress = if rules.is_empty() { String::new() } else { format!("egress:\n{rules}") };
        format!(
            "# A first configuration. Replace each {CHANGE_ME}, then run `callgate check`.
public_url: https://{CHANGE_ME}
listen:
  ingress: [ {{ address: 0.0.0.0:{port}{tls} }} ]
  egress: {{ address: 127.0.0.1:{egress_port}{proxy} }}
  admin: {{ address: 0.0.0.0:{admin_port} }}
agent: {{ address: 127.0.0.1:{agent} }}
# The file survives a restart of the container, but not the end of the pod.
store: {{ kind: file, path: /var/lib/callgate/ledger.redb, unknown: adopt }}
# This many connections and the bodies fit into the memory of the sidecar.
limits: {{ connections_max: 2000, connections_per_address_max: 500 }}
shutdown: {{ delay: 0s, grace: 10s }}
{replicas}callback_tokens:
  keys: [ {{ id: k1, algorithm: HS256, secret: {{ file: /secrets/token-key }} }} ]
routes:
  - name: callbacks
    path: /callbacks/{{id}}
    token: {{ kind: callback, from: [bearer] }}
    forward: /callbacks/{{id}}
    interaction: {{ status: /status, done: [completed], failed: [failed] }}
{egress}"
        )
    }
}

/// Returns a YAML mapping with one key.
fn one(key: &str, value: Value) -> Mapping {
    let mut mapping = Mapping::new();
    mapping.insert(key.into(), value);
    mapping
}

/// Returns the egress rule of the first configuration for a path of the option `--base-url`.
fn rule(BaseUrl { variable, path }: &BaseUrl) -> String {
    let name = variable.to_ascii_lowercase().replace('_', "-");
    let path = path.trim_end_matches('/');
    format!("  - {{ name: {name}, path: \"{path}/{{*rest}}\", target: \"https://{CHANGE_ME}/{{rest}}\" }}\n")
}

/// Reports whether `--with` added this Service or NetworkPolicy. The annotation alone does not prove this, because
/// anybody can write it, so the name and the label selector of the object must match, too.
pub(super) fn is_companion(object: &Value) -> bool {
    suffix_of_added(object, ANNOTATION).is_some_and(|suffix| [SUFFIX, EGRESS_SUFFIX].contains(&suffix))
}

/// Reports whether an object is a ConfigMap or a Secret. The author of the manifests fills in these objects, so
/// `inject` neither replaces nor removes them.
fn is_authors(object: &Value) -> bool {
    matches!(object.get("kind").and_then(Value::as_str), Some("ConfigMap" | "Secret"))
}

/// Appends the objects in `companions` to the text of the manifests. `others` contains the kind, namespace and name of
/// each object in the manifests. Leaves out a ConfigMap or Secret that is already in the manifests. If `companions`
/// contains two equal ConfigMaps or Secrets, appends one of them.
///
/// # Errors
/// Returns a message if an object in `companions` has the same kind, namespace and name as another object, and cannot
/// be left out.
pub(super) fn append(
    text: &mut String,
    companions: &[Value],
    others: &[(String, String, String)],
) -> Result<(), String> {
    let (first, rest): (Vec<_>, Vec<_>) = companions.iter().partition(|object| is_authors(object));
    let mut added: Vec<(_, &Value)> = Vec::new();
    for companion in first.into_iter().chain(rest) {
        let own = identity(companion);
        let known = added.iter().find(|(other, _)| *other == own);
        match known {
            _ if others.contains(&own) && is_authors(companion) => continue,
            Some((_, same)) if is_authors(companion) && *same == companion => continue,
            Some(_) if is_authors(companion) => {
                return Err(format!(
                    "two workloads need different objects {} {}: use a name with `{{name}}`, such as \
                     --config-map '{{name}}-callgate'",
                    own.0, own.2
                ));
            }
            None if !others.contains(&own) => {}
            _ => {
                return Err(format!(
                    "it has two objects {} {}: `callgate inject` makes one of them",
                    own.0, own.2
                ));
            }
        }
        added.push((own, companion));
        if !text.ends_with('\n') {
            text.push('\n');
        }
        text.push_str("---\n");
        text.push_str(&yaml::write(companion)?);
    }
    Ok(())
}

/// Returns the name of the workload. The names of the objects of `--with` begin with this name. Returns an error if the
/// workload has no name, or if the name is too long or contains an invalid character.
pub(super) fn check_name(workload: Option<&str>) -> Result<&str, String> {
    let is_word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    match workload {
        None => Err(label::nameless("--with")),
        Some(name)
            if label::is_value(name)
                && name.len() + EGRESS_SUFFIX.len() <= NAME_MAX
                && name.chars().all(is_word) =>
        {
            Ok(name)
        }
        Some(name) => Err(format!(
            "`{name}{EGRESS_SUFFIX}` cannot be the name of an object: at most {NAME_MAX} lower-case letters, digits and hyphens"
        )),
    }
}
