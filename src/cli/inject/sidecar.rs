//! The sidecar: the container and the volumes of the kustomize component, with configured names.

use super::proxied::{self, Proxied, VOLUMES};
use super::undo::ANNOTATION;
use super::yaml::{self, Mapping, Value};

pub(super) use super::yaml::name;

/// The file of the component. It is the only definition of the sidecar.
const COMPONENT: &str = include_str!("../../../deploy/kustomize/component/sidecar.yaml");
/// The name of the volume and of its mount, which are removed if no certificate is configured.
const TLS: &str = "callgate-tls";
pub(super) const DAMAGED: &str = "the sidecar in this program is damaged";

/// The settings of the sidecar.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sidecar {
    /// The image.
    pub image: String,
    /// The ConfigMap with `callgate.yaml`.
    pub config_map: String,
    /// The Secret whose keys are files in `/secrets`.
    pub secret: String,
    /// The Secret with the certificate and key for TLS. `None` means that the sidecar accepts plain HTTP.
    pub tls_secret: Option<String>,
    /// The port for callbacks.
    pub port: u16,
    /// The agent's port, by name or number. `None` means the only port that the pod declares.
    pub agent_port: Option<String>,
    /// The port for metrics and health checks.
    pub admin_port: u16,
    /// The environment variable that makes the agent listen on loopback. `None` means that no variable is set.
    pub bind_env: Option<String>,
    /// The port for other replicas. `None` means that the workload is not prepared for several replicas.
    pub replica_port: Option<u16>,
    /// The settings of the forward proxy. `None` means that the agent does not use it.
    pub proxied: Option<Proxied>,
}

/// The parts of the sidecar in a pod.
pub(super) struct Parts {
    pub(super) container: Mapping,
    pub(super) volumes: Vec<Value>,
}

impl Sidecar {
    /// Returns the container and the volumes. `public` is the entry of the agent's port, which the sidecar takes over.
    pub(super) fn parts(&self, public: Option<&Mapping>) -> Result<Parts, String> {
        self.read(public).ok_or_else(|| DAMAGED.to_owned())
    }

    fn read(&self, public: Option<&Mapping>) -> Option<Parts> {
        let Parts { mut container, mut volumes } = component()?;
        *container.get_mut("image")? = self.image.as_str().into();
        let ports = container.get_mut("ports")?;
        let own = ports.get_mut(0)?;
        if let Some(public) = public {
            let mut moved = public.clone();
            if !moved.contains_key("name") {
                moved.insert("name".into(), own.get("name")?.clone());
            }
            *own = moved.into();
        }
        *own.get_mut("containerPort")? = self.port.into();
        *ports.get_mut(1)?.get_mut("containerPort")? = self.admin_port.into();
        if self.tls_secret.is_none() {
            volumes.retain(|volume| name(volume) != Some(TLS));
            let mounts = container.get_mut("volumeMounts")?.as_sequence_mut()?;
            mounts.retain(|mount| name(mount) != Some(TLS));
        }
        for volume in &mut volumes {
            match (name(volume)?.to_owned().as_str(), &self.tls_secret) {
                ("callgate-config", _) => {
                    *volume.get_mut("configMap")?.get_mut("name")? = self.config_map.as_str().into();
                }
                ("callgate-secrets", _) => {
                    *volume.get_mut("secret")?.get_mut("secretName")? = self.secret.as_str().into();
                }
                (TLS, Some(secret)) => {
                    *volume.get_mut("secret")?.get_mut("secretName")? = secret.as_str().into();
                }
                _ => {}
            }
        }
        if let Some(proxied) = &self.proxied {
            proxied::extend(proxied, &mut container, &mut volumes)?;
        }
        Some(Parts { container, volumes })
    }
}

/// Returns the container and the volumes of the component.
fn component() -> Option<Parts> {
    let component = yaml::read(COMPONENT).ok()?;
    let pod = component.get("spec")?.get("template")?.get("spec")?;
    let container = pod.get("initContainers")?.get(0)?.as_mapping()?.clone();
    Some(Parts { container, volumes: pod.get("volumes")?.as_sequence()?.clone() })
}

/// Checks that a container and volumes belong to a sidecar that `inject` added. The check is needed because anybody can
/// write the annotation, and `--remove` deletes what the annotation names. The container may have settings that
/// somebody added later.
pub(super) fn is_own(container: Option<&Value>, volumes: &[String]) -> Result<(), String> {
    let made = component().ok_or(DAMAGED)?;
    let is_made = |volume: &&String| {
        made.volumes.iter().any(|own| name(own) == Some(volume)) || VOLUMES.contains(&volume.as_str())
    };
    if let Some(other) = volumes.iter().find(|volume| !is_made(volume)) {
        return Err(format!(
            "the annotation {ANNOTATION} names the volume {other}, which `callgate inject` does not make"
        ));
    }
    let Some(container) = container else { return Ok(()) };
    let mounts = |container: &Value| {
        let mounts = container.get("volumeMounts").and_then(Value::as_sequence).cloned().unwrap_or_default();
        let place =
            |mount: &Value| Some((name(mount)?.to_owned(), mount.get("mountPath")?.as_str()?.to_owned()));
        mounts.iter().filter_map(place).collect::<Vec<_>>()
    };
    let (has, own) = (mounts(container), Value::from(made.container));
    let has_all = mounts(&own).iter().all(|mount| mount.0 == TLS || has.contains(mount));
    if has_all && container.get("args") == own.get("args") {
        return Ok(());
    }
    Err(format!(
        "it has the annotation {ANNOTATION}, but its container callgate is not what `callgate inject` makes: it has \
         other `args` or `volumeMounts`; remove the annotation or the container by hand"
    ))
}
