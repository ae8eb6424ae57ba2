//! Adds the parts that the sidecar needs as one of several replicas: environment variables, a port, a label of the pod,
//! a headless Service and a NetworkPolicy.

use super::label::{self, LABEL};
use super::notes::Note;
use super::ports::{self, DeclaredPort};
use super::sidecar::{DAMAGED, Sidecar, name};
use super::undo::Record;
use super::yaml::{self, Mapping, Value};

/// The text of the kustomize component that defines the settings of the sidecar for several replicas.
const SIDECAR: &str = include_str!("../../../deploy/kustomize/replicas/sidecar.yaml");
/// The text of the kustomize component that defines the headless Service for several replicas.
const SERVICE: &str = include_str!("../../../deploy/kustomize/replicas/service.yaml");
/// The text of the kustomize component that defines the NetworkPolicy for several replicas.
const NETWORK_POLICY: &str = include_str!("../../../deploy/kustomize/replicas/network-policy.yaml");
/// The key of the annotation that `inject --replicas` writes on the objects that it adds. Its value is the name of the
/// workload.
const ANNOTATION: &str = "callgate.dev/replicas-of";
/// The name of the environment variable that contains the DNS name of a pod of a StatefulSet.
const DNS_NAME: &str = "POD_DNS_NAME";
/// The name of the volume with the ledger.
pub(super) const STATE: &str = "callgate-state";
/// The maximum length of the name of a Kubernetes Service, and of the value of a label.
const NAME_MAX: usize = 63;

/// The names that `inject --replicas` uses for a workload and its added objects.
pub(super) struct Names {
    /// The name of the added headless Service and of the added NetworkPolicy.
    pub(super) service: String,
    workload: String,
    namespace: Option<Value>,
    /// The name of the Service that gives each pod of a StatefulSet a DNS name. `None` if the pods of the workload have
    /// no DNS names.
    governing: Option<String>,
    /// Whether the workload is an existing StatefulSet without `serviceName`, so that its pods have no DNS names.
    is_nameless_set: bool,
    /// The value of the label [`LABEL`] of the workload's pods.
    label: String,
}

impl Names {
    /// Returns the name of the environment variable that contains the address of a replica.
    pub(super) fn advertised(&self) -> &'static str {
        if self.governing.is_some() { DNS_NAME } else { "POD_IP" }
    }
}

/// Adds the label [`LABEL`] to the pods of a workload. Also sets the `serviceName` of a new StatefulSet that has none.
/// `service_name` is the unchangeable `serviceName` of an existing StatefulSet. Returns the names for the objects that
/// are added later.
pub(super) fn prepare(
    object: &mut Mapping,
    template: &[&str],
    workload: Option<&str>,
    service_name: Option<&str>,
    record: &mut Record,
) -> Result<Names, String> {
    let workload = workload.ok_or_else(|| label::nameless("--replicas"))?.to_owned();
    let namespace = object.get("metadata").and_then(|metadata| metadata.get("namespace")).cloned();
    let service = format!("{workload}-replicas");
    let is_word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if service.len() > NAME_MAX
        || !service.chars().all(is_word)
        || !service.starts_with(|c: char| c.is_ascii_lowercase())
    {
        return Err(format!(
            "`{service}` cannot be the name of a Service: at most {NAME_MAX} lower-case letters, digits and hyphens, and first \
             a letter"
        ));
    }
    // Kubernetes sets the `subdomain` of a StatefulSet's pods to the `serviceName` of the StatefulSet.
    let key = match object.get("kind").and_then(Value::as_str) {
        Some("StatefulSet") => Some("serviceName"),
        _ => label::is_pod_of_stateful_set(object).then_some("subdomain"),
    };
    let is_nameless_set = service_name == Some("");
    let governing = key.filter(|_| !is_nameless_set);
    let governing = governing
        .map(|key| governing_service(object, key, service_name.unwrap_or(&service), record))
        .transpose()?;
    let label = label::put(object, template, &workload, record)?;
    record.replicas = Some(workload.clone());
    Ok(Names { service, workload, namespace, governing, is_nameless_set, label })
}

/// Returns the value of `key`: the name of the Service that gives the pods of a StatefulSet their DNS names. If `key`
/// has no value, sets it to `service`.
fn governing_service(
    object: &mut Mapping,
    key: &str,
    service: &str,
    record: &mut Record,
) -> Result<String, String> {
    let spec = object.get_mut("spec").and_then(Value::as_mapping_mut).ok_or("it has no `spec`")?;
    record.text(spec, key, service)
}

/// Removes `serviceName` or `subdomain`, the name of the governing Service, if [`prepare`] set it.
pub(super) fn undo(object: &mut Mapping, record: &Record) {
    let Some(workload) = &record.replicas else { return };
    if let Some(spec) = object.get_mut("spec").and_then(Value::as_mapping_mut) {
        for key in ["serviceName", "subdomain"] {
            record.unmake_text(spec, key, &format!("{workload}-replicas"));
        }
    }
}

/// Restores the `serviceName` of an existing StatefulSet if an update removes it, because Kubernetes would reject the
/// update. `service_name` is the value before the update.
pub(super) fn keep(object: &mut Mapping, service_name: Option<&str>) {
    let Some(service_name) = service_name.filter(|name| !name.is_empty()) else { return };
    if let Some(spec) = object.get_mut("spec").and_then(Value::as_mapping_mut)
        && spec.get("serviceName").and_then(Value::as_str).is_none_or(str::is_empty)
    {
        spec.insert("serviceName".into(), service_name.into());
    }
}

/// Adds the environment variables and the port that several replicas need to the sidecar's container.
pub(super) fn extend(container: &mut Mapping, port: u16, names: &Names) -> Result<(), String> {
    let mut add = || {
        let patch = yaml::read(SIDECAR).ok()?;
        let patch = patch.get("spec")?.get("template")?.get("spec")?.get("initContainers")?.get(0)?;
        let mut env = patch.get("env")?.as_sequence()?.clone();
        if let Some(governing) = &names.governing {
            env.push(field("POD_NAMESPACE", "metadata.namespace")?);
            let mut dns = Mapping::new();
            dns.insert("name".into(), DNS_NAME.into());
            dns.insert("value".into(), format!("$(POD_NAME).{governing}.$(POD_NAMESPACE).svc").into());
            env.push(dns.into());
        }
        let mut declared = patch.get("ports")?.get(0)?.clone();
        *declared.get_mut("containerPort")? = port.into();
        container.get_mut("ports")?.as_sequence_mut()?.push(declared);
        let ports = container.shift_remove("ports")?;
        container.insert("env".into(), env.into());
        container.insert("ports".into(), ports);
        Some(())
    };
    add().ok_or_else(|| DAMAGED.to_owned())
}

/// Returns an environment variable whose value is a field of the pod. `path` is the path of the field.
fn field(variable: &str, path: &str) -> Option<Value> {
    yaml::read(&format!("name: {variable}\nvalueFrom: {{ fieldRef: {{ fieldPath: {path} }} }}\n")).ok()
}

/// Returns the Service and the NetworkPolicy of a workload with several replicas. `pod` already contains the sidecar.
/// The NetworkPolicy is left out if `--with` adds one: the rules of several policies add up, so both policies together
/// would open the admin port to everybody.
pub(super) fn companions(
    pod: &Mapping,
    sidecar: &Sidecar,
    port: u16,
    names: &Names,
) -> Result<Vec<Value>, String> {
    if sidecar.has_policy() {
        return Ok(vec![service(port, names).ok_or(DAMAGED)?]);
    }
    let mut open = ports::all(pod)?;
    open.retain(|other| other.number != u64::from(port) || !other.is_tcp());
    let make = || Some(vec![service(port, names)?, network_policy(port, &open, names)?]);
    make().ok_or_else(|| DAMAGED.to_owned())
}

fn service(port: u16, names: &Names) -> Option<Value> {
    let mut service = yaml::read(SERVICE).ok()?;
    own(&mut service, names)?;
    let spec = service.get_mut("spec")?;
    *spec.get_mut("selector")?.get_mut(LABEL)? = names.label.as_str().into();
    let declared = spec.get_mut("ports")?.get_mut(0)?;
    *declared.get_mut("port")? = port.into();
    *declared.get_mut("targetPort")? = port.into();
    Some(service)
}

/// Returns the NetworkPolicy of a workload with several replicas. `port` is open only to these replicas. The ports in
/// `open` are open to everybody, because the policy closes every port that it does not name.
fn network_policy(port: u16, open: &[DeclaredPort], names: &Names) -> Option<Value> {
    let mut policy = yaml::read(NETWORK_POLICY).ok()?;
    own(&mut policy, names)?;
    let spec = policy.get_mut("spec")?;
    *spec.get_mut("podSelector")?.get_mut("matchLabels")?.get_mut(LABEL)? = names.label.as_str().into();
    let ingress = spec.get_mut("ingress")?;
    *ingress.get_mut(0)? = rule(port, &names.label)?;
    ingress.as_sequence_mut()?.extend(ports::open(open).map(Value::from));
    Some(policy)
}

/// Returns the NetworkPolicy rule that lets the pods of the same agent connect to the replica listener.
pub(super) fn rule(port: u16, label: &str) -> Option<Value> {
    let policy = yaml::read(NETWORK_POLICY).ok()?;
    let mut rule = policy.get("spec")?.get("ingress")?.get(0)?.clone();
    let from = rule.get_mut("from")?.get_mut(0)?.get_mut("podSelector")?;
    *from.get_mut("matchLabels")?.get_mut(LABEL)? = label.into();
    *rule.get_mut("ports")?.get_mut(0)?.get_mut("port")? = port.into();
    Some(rule)
}

/// Writes the name, the namespace and the annotation into the metadata of an object that is added for a workload.
fn own(object: &mut Value, names: &Names) -> Option<()> {
    let metadata = object.get_mut("metadata")?.as_mapping_mut()?;
    metadata.insert("name".into(), names.service.as_str().into());
    if let Some(namespace) = &names.namespace {
        metadata.insert("namespace".into(), namespace.clone());
    }
    let mut annotations = Mapping::new();
    annotations.insert(ANNOTATION.into(), names.workload.as_str().into());
    metadata.insert("annotations".into(), annotations.into());
    Some(())
}

/// Reports whether `inject --replicas` added this object. The annotation alone does not prove this, because anybody can
/// write it, so the name and the label selector of the object must match, too.
pub(super) fn is_companion(object: &Value) -> bool {
    suffix_of_added(object, ANNOTATION) == Some("-replicas")
}

/// Returns the suffix of the name of an added Service or NetworkPolicy, such as `-callgate`. The suffix follows the
/// name of the workload, which is the value of `annotation`. Returns `None` if the object does not select pods by the
/// label [`LABEL`] alone.
pub(super) fn suffix_of_added<'o>(object: &'o Value, annotation: &str) -> Option<&'o str> {
    let metadata = object.get("metadata")?;
    let workload = metadata.get("annotations")?.get(annotation)?.as_str()?;
    let spec = object.get("spec");
    let selector = match object.get("kind").and_then(Value::as_str) {
        Some("Service") => spec.and_then(|spec| spec.get("selector")),
        Some("NetworkPolicy") => spec.and_then(|spec| spec.get("podSelector")?.get("matchLabels")),
        _ => None,
    };
    let selects_agent = selector
        .and_then(Value::as_mapping)
        .is_some_and(|labels| labels.len() == 1 && labels.contains_key(LABEL));
    name(metadata).filter(|_| selects_agent)?.strip_prefix(workload)
}

/// Returns the kind, the namespace and the name of a Kubernetes object.
pub(super) fn identity(object: &Value) -> (String, String, String) {
    let text = |value: Option<&Value>| value.and_then(Value::as_str).unwrap_or_default().to_owned();
    let metadata = object.get("metadata");
    let of = |key: &str| text(metadata.and_then(|metadata| metadata.get(key)));
    (text(object.get("kind")), of("namespace"), of("name"))
}

/// Returns notes about what the author must add to the configuration and the cluster for several replicas. `claims` are
/// the names of the volumes that outlive a pod.
pub(super) fn notes(sidecar: &Sidecar, port: u16, names: &Names, claims: &[String]) -> Vec<Note> {
    let Names { service, governing, .. } = names;
    let Sidecar { config_map, secret, .. } = sidecar;
    let advertised = names.advertised();
    let section = |service: &str| {
        format!(
            "`callgate.yaml` in the ConfigMap {config_map} must have `replicas` with `address: 0.0.0.0:{port}`, `advertise: {{ env: \
             {advertised} }}`, `discover: {service}`, `mint: true` and `secrets: [ {{ file: /secrets/replicas }} ]`, and the Secret \
             {secret} the key `replicas`"
        )
    };
    let policy = |service: &str| {
        format!(
            "the NetworkPolicy {service} opens port {port} to the pods of this workload only, and every other declared port to \
             everybody; it closes all ports that are not declared. If other policies select these pods, allow port {port} there, \
             and leave this policy out"
        )
    };
    let mut notes = vec![Note::of(section(service), &section("NAME-replicas"), service.as_str())];
    if !sidecar.has_policy() {
        notes.push(Note::of(policy(service), &policy("NAME-replicas"), service.as_str()));
    }
    if let Some(governing) = governing
        && governing != service
    {
        let text = |governing: &str| {
            format!(
                "the Service {governing} (`serviceName`) gives the pods their names: it must have `clusterIP: None` and \
                 `publishNotReadyAddresses: true`"
            )
        };
        notes.push(Note::of(text(governing), &text("in brackets"), governing.as_str()));
    }
    if names.is_nameless_set {
        notes.push(Note::same(
            "it has no `serviceName`, and Kubernetes does not allow to add it later, so its replicas use the addresses of their \
             pods: to give them names, delete it with `--cascade=orphan` and create it again",
        ));
    }
    if governing.is_some() && !claims.iter().any(|claim| claim == STATE) {
        notes.push(Note::same(format!(
            "the ledger does not outlive the pod, although its name does: add {STATE} to `volumeClaimTemplates` (docs/kubernetes.md)"
        )));
    }
    notes
}

/// Returns the names in `volumeClaimTemplates` of a StatefulSet.
pub(super) fn claims(spec: &Value) -> Vec<String> {
    let templates = spec.get("volumeClaimTemplates").and_then(Value::as_sequence);
    let claim = |template: &Value| template.get("metadata").and_then(name).map(str::to_owned);
    templates.into_iter().flatten().filter_map(claim).collect()
}

/// Reports whether a pod has a persistent volume for the ledger, which outlives the pod. The pods of a StatefulSet have
/// a persistent volume for each entry of its `volumeClaimTemplates`.
pub(super) fn has_claim(pod: &Mapping) -> bool {
    let volumes = pod.get("volumes").and_then(Value::as_sequence);
    volumes.into_iter().flatten().any(|volume| name(volume) == Some(STATE) && is_claim(volume))
}

/// Reports whether a volume of a pod refers to a PersistentVolumeClaim.
pub(super) fn is_claim(volume: &Value) -> bool {
    volume.get("persistentVolumeClaim").is_some_and(|claim| !claim.is_null())
}
