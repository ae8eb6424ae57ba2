//! Adds the sidecar to a Kubernetes workload, and removes it.

use super::companions::{self, Workload};
use super::foreign;
use super::label;
use super::notes::{self, Note};
use super::ports::{self, DeclaredPort, LISTS, containers, declared};
use super::proxied;
use super::replicas::{self, STATE};
use super::sidecar::{self, Parts, Sidecar, name};
use super::undo::{ANNOTATION, Port, Record};
use super::yaml::{self, Mapping, Value};

/// The name of the sidecar's container in a pod.
const CONTAINER: &str = "callgate";
/// The group ID of the sidecar's container.
const GID: u64 = 65532;
/// The probes and hooks of a container: the path of each one in the container, and its name in notes and records.
const HANDLERS: [(&[&str], &str); 5] = [
    (&["livenessProbe"], "livenessProbe"),
    (&["readinessProbe"], "readinessProbe"),
    (&["startupProbe"], "startupProbe"),
    (&["lifecycle", "postStart"], "lifecycle.postStart"),
    (&["lifecycle", "preStop"], "lifecycle.preStop"),
];
/// The kinds of actions of a probe or hook that have a port.
const MEANS: [&str; 3] = ["httpGet", "tcpSocket", "grpc"];

/// Adds the sidecar to a workload. A sidecar that an earlier call added is removed first. Returns the additional
/// objects that the workload needs, such as a Service.
pub(super) fn put(
    object: &mut Mapping,
    template: &[&str],
    sidecar: &Sidecar,
    said: &mut Vec<Note>,
) -> Result<Vec<Value>, String> {
    take(object, template)?;
    let workload = sidecar.name.clone().or_else(|| label::workload(object));
    let has_own_config_map = sidecar.has_own_config_map();
    let sidecar = &sidecar.named(workload.as_deref())?;
    let mut record = Record::default();
    let mut claims = object.get("spec").map(replicas::claims).unwrap_or_default();
    let pod = pod(object, template)?;
    claims.extend(replicas::has_claim(pod).then(|| STATE.to_owned()));
    let found = ports::agents(pod, sidecar)?;
    let agent_port = found.as_ref().map(|found| found.number);
    refuse(pod, sidecar)?;
    said.extend(notes::pod::all(pod, sidecar, found.as_ref())?);
    said.extend(has_own_config_map.then(|| notes::pod::own_configuration(sidecar)));
    let Parts { mut container, mut volumes } = sidecar.parts(found.as_ref().map(|found| &found.entry))?;
    foreign::refuse_mounts(pod, &volumes)?;
    keep_claims(&claims, &mut volumes)?;
    record.volumes = volumes.iter().filter_map(name).map(str::to_owned).collect();
    let own = record.list(pod, "volumes")?;
    if let Some(taken) = own.iter().filter_map(name).find(|name| record_has(&volumes, name)) {
        return Err(format!("it has a volume {taken} that `callgate inject` did not put there"));
    }
    own.extend(volumes);
    set_group(pod, &mut record)?;
    change_agent(pod, sidecar, found, &mut record, said)?;
    let names = match sidecar.replica_port {
        Some(port) => Some((port, replicas::prepare(object, template, workload.as_deref(), &mut record)?)),
        None => None,
    };
    if let Some((port, names)) = &names {
        replicas::extend(&mut container, *port, names)?;
        said.extend(replicas::notes(sidecar, *port, names, &claims));
    }
    let open = ports::all(self::pod(object, template)?)?;
    // The sidecar is the first container, so that all other containers can use it when they start.
    record.list(self::pod(object, template)?, "initContainers")?.insert(0, container.into());
    let label = labelled(object, template, workload.as_deref(), &mut record, said)?;
    let mut companions = Vec::new();
    if !sidecar.with.is_empty() {
        let name = companions::check_name(workload.as_deref())?;
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

/// Removes the sidecar's volume for the ledger if the workload has a persistent volume for it. `claims` are the names
/// in `volumeClaimTemplates`, and [`STATE`] if the pod itself has such a volume. Returns an error if a name in `claims`
/// is that of another volume of the sidecar.
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

/// Reports whether a workload has the annotation in which `callgate inject` records its changes.
pub(super) fn has_record(object: &Mapping) -> bool {
    let annotations = object.get("metadata").and_then(|metadata| metadata.get("annotations"));
    annotations.is_some_and(|annotations| annotations.get(ANNOTATION).is_some())
}

/// Returns an error if the sidecar cannot be added to this pod: if a name or a port is in use, or if the pod uses the
/// network of the node.
fn refuse(pod: &Mapping, sidecar: &Sidecar) -> Result<(), String> {
    let own = sidecar.ports();
    for list in LISTS {
        if containers(pod, list).filter_map(name).any(|name| name == CONTAINER) {
            return Err(foreign::container(CONTAINER));
        }
        for (flag, port) in &own {
            let is_taken = |other: &&DeclaredPort| other.is_tcp() && other.number == u64::from(*port);
            if let Some(taken) = declared(pod, list)?.iter().find(is_taken) {
                let words = taken.words();
                return Err(format!(
                    "port {port} is taken in this pod by {words}; use {flag} with another port"
                ));
            }
        }
    }
    for (at, (flag, port)) in own.iter().enumerate() {
        if let Some((other, _)) = own.iter().take(at).find(|(_, other)| other == port) {
            return Err(format!("{flag} is the same as {other}"));
        }
    }
    if pod.get("hostNetwork").is_some_and(yaml::is_true) {
        return Err(
            "it uses the network of the node (`hostNetwork`): its port cannot be moved, and every process of the node reaches \
                    loopback, which the sidecar trusts"
                .to_owned(),
        );
    }
    Ok(())
}

/// Returns the container of the pod with the name `wanted`.
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
    let only = || match containers(pod, "containers").collect::<Vec<_>>().as_slice() {
        [only] => name(only).map(str::to_owned),
        _ => None,
    };
    let agent = match &found {
        Some(found) => found.container.clone(),
        None if sidecar.leaves_agent() => return Ok(()),
        None => only().ok_or("which container is the agent's? None declares a port")?,
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
            notes.extend(asked_from_outside(container, number).map(|handler| {
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

/// Returns the settings of an action of a probe or hook, such as `livenessProbe.httpGet`. `means` is the kind of the
/// action.
fn means<'a>(container: &'a mut Mapping, path: &[&str], means: &str) -> Option<&'a mut Mapping> {
    let mut at = container;
    for key in path {
        at = at.get_mut(*key)?.as_mapping_mut()?;
    }
    at.get_mut(means)?.as_mapping_mut()
}

/// Replaces the name of the agent's port by its number in the probes and hooks of the agent's container. Returns the
/// names of the changed probes and hooks. The change is needed because the port was moved to the sidecar, and a probe
/// or hook can refer only to port names of its own container.
fn renumber(container: &mut Mapping, by_name: Option<&str>, number: u64) -> Vec<String> {
    let mut changed = Vec::new();
    for (path, handler) in HANDLERS {
        for kind in MEANS {
            let Some(asks) = means(container, path, kind) else { continue };
            if by_name.is_some() && asks.get("port").and_then(Value::as_str) == by_name {
                asks.insert("port".into(), number.into());
                changed.push(format!("{handler}.{kind}"));
            }
        }
    }
    changed
}

/// Returns the names of the probes and hooks that make the kubelet connect to this port at the address of the pod, such
/// as `livenessProbe.httpGet`. These probes and hooks fail if the agent listens only on loopback.
fn asked_from_outside(container: &mut Mapping, number: u64) -> impl Iterator<Item = String> {
    let mut all = Vec::new();
    for (path, handler) in HANDLERS {
        for kind in MEANS {
            let asks = means(container, path, kind);
            if asks.is_some_and(|asks| asks.get("port").and_then(Value::as_u64) == Some(number)) {
                all.push(format!("{handler}.{kind}"));
            }
        }
    }
    all.into_iter()
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
    // The workload is changed only after all checks have passed.
    let pod = pod(object, template)?;
    let own = containers(pod, "initContainers").find(|container| name(container) == Some(CONTAINER));
    sidecar::is_own(own, &record.volumes)?;
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
    if let Some(ports) = container.get_mut("ports").and_then(Value::as_sequence_mut) {
        ports.insert((*at).min(ports.len()), entry.clone().into());
    }
    for handler in &record.handlers {
        let mut path: Vec<_> = handler.split('.').collect();
        let kind = path.pop().unwrap_or_default();
        if let Some(asks) = means(container, &path, kind)
            && let Some(name) = entry.get("name")
        {
            asks.insert("port".into(), name.clone());
        }
    }
    Ok(())
}
