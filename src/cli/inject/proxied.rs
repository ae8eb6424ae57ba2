//! `inject --proxied`: makes the clients of the agent use the sidecar as their forward proxy.

use super::notes::Note;
use super::undo::Record;
use super::yaml::{Mapping, Sequence, Value, name};
use crate::cli::proxied::{ProxyUrl, variables};

/// The name of the volume with the certificates that the agent must trust.
pub(super) const TRUST: &str = "callgate-trust";
/// The mount path of the volume [`TRUST`] in the agent's container and in the sidecar's container.
const TRUST_FOLDER: &str = "/run/callgate/trust";
/// The name of the volume with the certificate authority.
const CA: &str = "callgate-ca";
/// The mount path of the volume [`CA`] in the sidecar.
const CA_FOLDER: &str = "/ca";
/// The mode of the files of a mounted Secret. If the pod has an `fsGroup`, Kubernetes also lets this group read the
/// files.
const SECRET_MODE: u32 = 0o400;
/// The volumes that `inject --proxied` adds to a pod.
pub(super) const VOLUMES: [&str; 2] = [CA, TRUST];

/// The settings of `inject --proxied`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proxied {
    /// The name of the Secret with `ca.crt` and `ca.key`. Only the sidecar mounts it.
    pub ca_secret: String,
    /// The hosts that clients reach directly, without the proxy, such as the networks of the cluster.
    pub direct: Vec<String>,
}

fn mapping(members: &[(&str, Value)]) -> Mapping {
    let mut mapping = Mapping::new();
    for (key, value) in members {
        mapping.insert((*key).into(), value.clone());
    }
    mapping
}

fn mount(volume: &str, folder: &str, is_read_only: bool) -> Value {
    let mut mount = mapping(&[("name", volume.into()), ("mountPath", folder.into())]);
    if is_read_only {
        mount.insert("readOnly".into(), true.into());
    }
    mount.into()
}

/// Adds the volumes of the forward proxy, and their mounts in the sidecar's container.
pub(super) fn extend(proxied: &Proxied, container: &mut Mapping, volumes: &mut Vec<Value>) -> Option<()> {
    let secret =
        mapping(&[("secretName", proxied.ca_secret.as_str().into()), ("defaultMode", SECRET_MODE.into())]);
    volumes.push(mapping(&[("name", CA.into()), ("secret", secret.into())]).into());
    let empty = mapping(&[("sizeLimit", "16Mi".into())]);
    volumes.push(mapping(&[("name", TRUST.into()), ("emptyDir", empty.into())]).into());
    let mounts = container.get_mut("volumeMounts")?.as_sequence_mut()?;
    mounts.push(mount(CA, CA_FOLDER, true));
    mounts.push(mount(TRUST, TRUST_FOLDER, false));
    Some(())
}

/// Sets the environment variables of the forward proxy in the agent's container, and mounts the proxy's certificates
/// there. A variable whose value is not in the manifest does not change.
pub(super) fn set(
    proxied: &Proxied,
    egress_port: u16,
    agent: &mut Mapping,
    record: &mut Record,
    notes: &mut Vec<Note>,
) -> Result<(), String> {
    let url = ProxyUrl::local(egress_port).ok_or("the egress port is not usable")?;
    let env: &Sequence = record.list(agent, "env")?;
    // A variable with `valueFrom` has no value in the manifest, so its value cannot be extended.
    let is_indirect = |entry: &Value| entry.get("value").and_then(Value::as_str).is_none();
    let find = |variable: &str| env.iter().find(|entry| name(entry) == Some(variable));
    let existing =
        |variable: &str| find(variable).and_then(|entry| entry.get("value")?.as_str().map(str::to_owned));
    let (set, warnings) = variables(&url, TRUST_FOLDER, &proxied.direct, existing, |_, _| Some(false));
    notes.extend(warnings.into_iter().map(Note::same));
    let indirect: Vec<_> = set
        .iter()
        .filter(|(variable, _)| find(variable).is_some_and(is_indirect))
        .map(|(name, _)| *name)
        .collect();
    for (variable, value) in &set {
        if indirect.contains(variable) {
            notes.push(Note::same(format!(
                "{variable} keeps its value, because it is not in the manifest: it should be `{value}`"
            )));
            continue;
        }
        record.set(agent, variable, value)?;
    }
    record.list(agent, "volumeMounts")?.push(mount(TRUST, TRUST_FOLDER, true));
    if agent.contains_key("envFrom") {
        notes.push(Note::same("the agent has `envFrom`: variables from there with the names of those for the proxy are replaced"));
    }
    notes.push(Note::same(format!(
        "`callgate.yaml` must have `listen.egress: {{ address: 127.0.0.1:{}, proxy: {{ bundle: {TRUST_FOLDER}, ca: {{ certificate: {CA_FOLDER}/ca.crt, key: {CA_FOLDER}/ca.key }} }} }}`; `callgate ca` creates the files of the Secret {}",
        egress_port, proxied.ca_secret
    )));
    Ok(())
}

/// Removes the mount of the certificates from the agent's container.
pub(super) fn restore(agent: &mut Mapping, record: &Record) {
    if !record.volumes.iter().any(|volume| volume == TRUST) {
        return;
    }
    if let Some(mounts) = agent.get_mut("volumeMounts").and_then(Value::as_sequence_mut) {
        mounts.retain(|mount| name(mount) != Some(TRUST));
    }
    record.unmake(agent, "volumeMounts");
}
