//! Adds the sidecar to a Kubernetes workload, and removes it.

use super::checks;
use super::checks::handlers::{asked_from_outside, means, renumber};
use super::companions::{self, Workload};
use super::foreign;
use super::label;
use super::notes::{self, Note};
use super::ports::{self, DeclaredPort, LISTS, containers};
use super::proxied;
use super::replicas::{self, STATE};
use super::sidecar::{self, CONTAINER, Parts, Sidecar, name};
use super::undo::{ANNOTATION, Port, Record};
use super::yaml::{self, Mapping, Sequence, Value};

/// The group ID of the sidecar's container.
const GID: u64 = 65532;
/// Adds the sidecar to a workload. A sidecar that an earlier call added is removed first. `service_name` is the
/// unchangeable `serviceName` of an existing StatefulSet. Returns the additional objects that the workload needs, such
/// as a Service.
pub(super) fn put(
    object: &mut Mapping,
    template: &[&str],
    sidecar: &Sidecar,
    service_name: Option<&str>,
    said: &mut Vec<Note>,
) -> Result<Vec<Value>, String> {
    take(object, template)?;
    let workload = sidecar.name.clone().or_else(|| label::workload(object));
    let has_own_config_map = sidecar.has_own_config_map();
    let sidecar = &sidecar.named(workload.as_deref())?;
    let mut record = Record::default();
    let mut claims = object.get("spec").map(replicas::claims).unwrap_or_default();
    let pod = pod(object, template)?;
    checks::pod::refuse_long_names(pod)?;
    claims.extend(replicas::has_claim(pod).then(|| STATE.to_owned()));
    checks::pod::refuse_node(pod)?;
    let found = ports::agents(pod, sidecar)?;
    let agent_port = found.as_ref().map(|found| found.number);
    let moved = found.as_ref().and_then(DeclaredPort::name).map(str::to_owned);
    checks::pod::refuse(pod, sidecar)?;
    said.extend(notes::pod::all(pod, sidecar, found.as_ref())?);
    said.extend(has_own_config_map.then(|| notes::pod::own_configuration(sidecar)));
    let Parts { mut container, volumes } = sidecar.parts(found.as_ref().map(|found| &found.entry))?;
    checks::resources::refuse(pod, &container)?;
    add_volumes(pod, &claims, volumes, &mut record)?;
    set_group(pod, &mut record)?;
    change_agent(pod, sidecar, found, &mut record, said)?;
    let workload = workload.as_deref();
    let mut names = None;
    if let Some(port) = sidecar.replica_port {
        let prepared = replicas::prepare(object, template, workload, service_name, &mut record)?;
        replicas::extend(&mut container, port, &prepared)?;
        said.extend(replicas::notes(sidecar, port, &prepared, &claims));
        names = Some((port, prepared));
    }
    let open = ports::all(self::pod(object, template)?)?;
    checks::pod::refuse_port_names(&container, moved.as_deref(), &open)?;
    // The sidecar is the first container, so that all other containers can use it when they start.
    record.list(self::pod(object, template)?, "initContainers")?.insert(0, container.into());
    let label = labelled(object, template, workload, &mut record, said)?;
    let mut companions = Vec::new();
    if !sidecar.with.is_empty() {
        let name = companions::check_name(workload)?;
        let label = label.as_deref().ok_or("it has no label, which --with needs")?;
        let namespace = object.get("metadata").and_then(|metadata| metadata.get("namespace")).cloned();
        let replicas = names.as_ref().map(|(_, names)| (names.advertised(), &*names.service));
        companions = Workload { sidecar, name, namespace, label, agent_port, replicas, open }.companions()?;
    }
    if let Some((port, names)) = &names {
        companions.extend(replicas::companions(self::pod(object, template)?, sidecar, *port, names)?);
    }
    remember(object, &mut record)?;
    Ok(companions)
}

/// Adds the volumes of the sidecar to a pod. `claims` contains the names of the persistent volumes of the workload.
fn add_volumes(
    pod: &mut Mapping,
    claims: &[String],
    mut volumes: Vec<Value>,
    record: &mut Record,
) -> Result<(), String> {
    foreign::refuse_mounts(pod, &volumes)?;
    keep_claims(claims, &mut volumes)?;
    record.volumes = volumes.iter().filter_map(name).map(str::to_owned).collect();
    let own = record.list(pod, "volumes")?;
    if let Some(taken) = own.iter().filter_map(name).find(|name| record_has(&volumes, name)) {
        return Err(format!("it has a volume {taken} that `callgate inject` did not put there"));
    }
    own.extend(volumes);
    Ok(())
}

/// Sets the group (`fsGroup`) that may read the files of Secrets and write to volumes, unless the pod has a group
/// already.
fn set_group(pod: &mut Mapping, record: &mut Record) -> Result<(), String> {
    let context = record.mapping(pod, "securityContext")?;
    record.number(context, "fsGroup", GID);
    Ok(())
}

/// Adds the label [`label::LABEL`] to the pods of a workload, and returns its value. If the workload has no usable
/// name, adds a note and returns `None`.
fn labelled(
    object: &mut Mapping,
    template: &[&str],
    workload: Option<&str>,
    record: &mut Record,
    said: &mut Vec<Note>,
) -> Result<Option<String>, String> {
    match workload.filter(|name| label::is_value(name)) {
        Some(name) => label::put(object, template, name, record).map(Some),
        None => {
            said.push(Note::same(format!(
                "its pods get no label {}, because it has no usable name",
                label::LABEL
            )));
            Ok(None)
        }
    }
}

/// Writes the record of the changes into an annotation of the workload.
fn remember(object: &mut Mapping, record: &mut Record) -> Result<(), String> {
    let metadata = object.get_mut("metadata").and_then(Value::as_mapping_mut);
    let metadata = metadata.ok_or("it has no `metadata`")?;
    let annotations = record.mapping(metadata, "annotations").map(|_| ());
    annotations?;
    let kept = yaml::to_text(&record)?;
    record.mapping(metadata, "annotations")?.insert(ANNOTATION.into(), kept.into());
    Ok(())
}

/// Removes the sidecar's own volume for the ledger from `volumes` if the workload has a persistent volume for the
/// ledger. `claims` contains the names in `volumeClaimTemplates`, and [`STATE`] if the pod itself has a persistent
/// volume for the ledger. Returns an error if `claims` contains the name of a volume that stays in `volumes`.
fn keep_claims(claims: &[String], volumes: &mut Vec<Value>) -> Result<(), String> {
    if claims.iter().any(|claim| claim == STATE) {
        volumes.retain(|volume| name(volume) != Some(STATE));
    }
    match claims.iter().find(|claim| record_has(volumes, claim)) {
        Some(taken) => {
            Err(format!("its `volumeClaimTemplates` have the volume {taken}, which the sidecar uses"))
        }
        None => Ok(()),
    }
}

fn record_has(volumes: &[Value], wanted: &str) -> bool {
    volumes.iter().any(|volume| name(volume) == Some(wanted))
}

/// Returns the `spec` of the pod in a workload. `template` is the path of the pod template.
fn pod<'a>(object: &'a mut Mapping, template: &[&str]) -> Result<&'a mut Mapping, String> {
    let mut at = object;
    for key in template.iter().chain(&["spec"]) {
        at = at.get_mut(*key).and_then(Value::as_mapping_mut).ok_or_else(|| {
            format!("it has no pod: `{}.spec` is missing", template.join(".")).replace("`.", "`")
        })?;
    }
    Ok(at)
}

/// Reports whether the pod of a workload has the sidecar.
///
/// # Errors
/// Returns a message if a container has the name of the sidecar, but `inject` did not add it.
pub(super) fn has_sidecar(object: &mut Mapping, template: &[&str]) -> Result<bool, String> {
    let Ok(pod) = pod(object, template) else { return Ok(false) };
    let is_named = |container: &&Value| name(container) == Some(CONTAINER);
    let own = containers(pod, "initContainers").find(is_named);
    if own.is_some_and(|own| sidecar::is_own(Some(own), &[]).is_ok()) {
        return Ok(true);
    }
    match LISTS.iter().any(|list| containers(pod, list).any(|container| is_named(&container))) {
        true => Err(foreign::container(CONTAINER)),
        false => Ok(false),
    }
}

/// Checks a pod that already contains the sidecar, such as a pod from a kustomize overlay: its node, the length of its
/// names, the mounts of the containers besides the sidecar, and the port names of these containers. [`put`] checks the
/// same in a pod without the sidecar.
pub(super) fn check_present(object: &mut Mapping, template: &[&str]) -> Result<(), String> {
    let pod = pod(object, template)?;
    checks::pod::refuse_node(pod)?;
    checks::pod::refuse_long_names(pod)?;
    let is_sidecar = |container: &&Value| name(container) == Some(CONTAINER);
    let own = containers(pod, "initContainers").find(is_sidecar).and_then(Value::as_mapping);
    let Some(own) = own else { return Ok(()) };
    foreign::refuse_mounts(pod, &sidecar::private_volumes(own))?;
    let mut others = ports::all(pod)?;
    others.retain(|port| port.container != CONTAINER);
    // The first port of the sidecar has the name of the sidecar's container. If the port has a different name, it was
    // moved from the agent.
    let first = own.get("ports").and_then(|ports| ports.get(0)).and_then(name);
    checks::pod::refuse_port_names(own, first.filter(|first| *first != CONTAINER), &others)
}

/// Reports whether a workload has the annotation in which `callgate inject` records its changes.
pub(super) fn has_record(object: &Mapping) -> bool {
    let annotations = object.get("metadata").and_then(|metadata| metadata.get("annotations"));
    annotations.is_some_and(|annotations| annotations.get(ANNOTATION).is_some())
}

/// Removes the record of an injection from a new pod that has neither the sidecar's container nor one of the sidecar's
/// volumes. Such a record was copied from another pod. A volume with a PersistentVolumeClaim does not count, because
/// the author can have declared it for the ledger.
pub(super) fn forget_stale_record(object: &mut Mapping) {
    let is_injected = object.get("spec").and_then(Value::as_mapping).is_some_and(|pod| {
        let is_own =
            |volume: &Value| name(volume).is_some_and(sidecar::is_own_volume) && !replicas::is_claim(volume);
        let is_sidecar = |container: &Value| name(container) == Some(CONTAINER);
        containers(pod, "volumes").any(is_own) || containers(pod, "initContainers").any(is_sidecar)
    });
    let metadata = object.get_mut("metadata").filter(|_| !is_injected);
    let annotations = metadata.and_then(|metadata| metadata.get_mut("annotations"));
    if let Some(annotations) = annotations.and_then(Value::as_mapping_mut) {
        annotations.shift_remove(ANNOTATION);
    }
}

/// Returns the container with the name `wanted` in a pod. Ignores init containers.
fn container<'a>(pod: &'a mut Mapping, wanted: &str) -> Option<&'a mut Mapping> {
    let all = pod.get_mut("containers")?.as_sequence_mut()?;
    all.iter_mut().find(|container| name(container) == Some(wanted))?.as_mapping_mut()
}

/// Changes the agent's container: removes its port, which is moved to the sidecar, and sets the environment variables
/// of the options `--bind-env`, `--proxied` and `--base-url`.
fn change_agent(
    pod: &mut Mapping,
    sidecar: &Sidecar,
    found: Option<DeclaredPort>,
    record: &mut Record,
    notes: &mut Vec<Note>,
) -> Result<(), String> {
    let agent = match &found {
        Some(found) => found.container.clone(),
        None if sidecar.leaves_agent() => return Ok(()),
        None => ports::agents_container(pod, sidecar)?,
    };
    let container = container(pod, &agent).ok_or("the agent's container is gone")?;
    if let Some(found) = found {
        notes.extend(notes::pod::moved(sidecar, &found));
        let DeclaredPort { at: (.., at), number, entry, .. } = found;
        let by_name = entry.get("name").and_then(Value::as_str).map(str::to_owned);
        record.handlers = renumber(container, by_name.as_deref(), number);
        let ports = record.list(container, "ports")?;
        ports.remove(at);
        if sidecar.bind_env.is_some() {
            let rest =
                "uses the address of the pod, but the agent listens only on loopback; replace it by `exec`";
            let asked = asked_from_outside(&Value::from(container.clone()), number);
            notes.extend(asked.into_iter().map(|handler| {
                Note::of(format!("`{handler}` {rest}"), &format!("a probe or hook {rest}"), handler)
            }));
        }
        record.port = Some(Port { at, entry });
    }
    if let Some(variable) = &sidecar.bind_env {
        record.set(container, variable, "127.0.0.1")?;
    }
    if let Some(settings) = &sidecar.proxied {
        proxied::set(settings, sidecar.egress_port, container, record, notes)?;
    }
    for url in &sidecar.base_urls {
        let value = format!("http://127.0.0.1:{}{}", sidecar.egress_port, url.path);
        record.set(container, &url.variable, &value)?;
        notes.push(Note::same(format!(
            "{} is {value}: `callgate.yaml` must have `listen.egress` on 127.0.0.1:{} and a rule for this path",
            url.variable, sidecar.egress_port
        )));
    }
    record.container = Some(agent);
    Ok(())
}

/// Removes the sidecar from a workload. Does nothing if [`put`] did not add the sidecar.
pub(super) fn take(object: &mut Mapping, template: &[&str]) -> Result<(), String> {
    let metadata = object.get_mut("metadata").and_then(Value::as_mapping_mut);
    let annotations = metadata.and_then(|metadata| metadata.get_mut("annotations"));
    let Some(annotations) = annotations.and_then(Value::as_mapping_mut) else { return Ok(()) };
    let Some(kept) = annotations.get(ANNOTATION) else { return Ok(()) };
    let record: Record = yaml::from_text(kept.as_str().unwrap_or_default())
        .map_err(|error| format!("the annotation {ANNOTATION} is not a valid record: {error}"))?;
    annotations.shift_remove(ANNOTATION);
    // The sidecar is removed only after the record has passed all checks.
    let pod = pod(object, template)?;
    let own = containers(pod, "initContainers").find(|container| name(container) == Some(CONTAINER));
    foreign::check_record(&record, own)?;
    replicas::undo(object, &record);
    label::take(object, template, &record);
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_mapping_mut) {
        record.unmake(metadata, "annotations");
    }
    let pod = self::pod(object, template)?;
    restore_agent(pod, &record)?;
    if let Some(context) = pod.get_mut("securityContext").and_then(Value::as_mapping_mut) {
        record.unmake_number(context, "fsGroup", GID);
    }
    record.unmake(pod, "securityContext");
    if let Some(all) = pod.get_mut("initContainers").and_then(Value::as_sequence_mut) {
        all.retain(|container| name(container) != Some(CONTAINER));
    }
    record.unmake(pod, "initContainers");
    if let Some(all) = pod.get_mut("volumes").and_then(Value::as_sequence_mut) {
        all.retain(|volume| !name(volume).is_some_and(|name| record.volumes.iter().any(|own| own == name)));
    }
    record.unmake(pod, "volumes");
    Ok(())
}

/// Restores the agent's container to its state before the sidecar was added.
fn restore_agent(pod: &mut Mapping, record: &Record) -> Result<(), String> {
    let Some(agent) = &record.container else { return Ok(()) };
    let container = container(pod, agent).ok_or_else(|| format!("the container {agent} no longer exists"))?;
    record.unset(container);
    proxied::restore(container, record);
    let Some(Port { at, entry }) = &record.port else { return Ok(()) };
    // The list of ports can be absent, because the API server removes an empty list.
    if container.get("ports").is_none_or(Value::is_null) {
        container.insert("ports".into(), Value::Sequence(Sequence::new()));
    }
    let mut restored = Value::from(entry.clone());
    if let Some(ports) = container.get_mut("ports").and_then(Value::as_sequence_mut) {
        // If an update uses the original manifest, the container declares the port again, maybe with changes. The
        // declared port then stays.
        match ports.iter().find(|port| is_same_port(port, &restored)) {
            Some(declared) => restored = declared.clone(),
            None => ports.insert((*at).min(ports.len()), restored.clone()),
        }
    }
    for handler in &record.handlers {
        let mut path: Vec<_> = handler.split('.').collect();
        let kind = path.pop().unwrap_or_default();
        if let Some(asks) = means(container, &path, kind)
            && asks.get("port") == entry.get("containerPort")
            && let Some(name) = restored.get("name")
        {
            asks.insert("port".into(), name.clone());
        }
    }
    Ok(())
}

/// Reports whether two ports of a container have the same name, or the same number and protocol. Kubernetes allows no
/// two such ports in a container.
fn is_same_port(one: &Value, other: &Value) -> bool {
    let protocol = |port: &Value| {
        port.get("protocol").and_then(Value::as_str).filter(|protocol| *protocol != "TCP").map(str::to_owned)
    };
    let has_same_name = name(one).is_some() && name(one) == name(other);
    has_same_name
        || one.get("containerPort") == other.get("containerPort") && protocol(one) == protocol(other)
}
