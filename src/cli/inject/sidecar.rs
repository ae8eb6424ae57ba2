//! The sidecar: the container and the volumes of the kustomize component, with configured names.

use std::sync::LazyLock;

use clap::ValueEnum;

use super::label;
use super::label_selector::{CustomKind, Selector};
use super::proxied::{self, Proxied, TRUST, VOLUMES};
use super::undo::ANNOTATION;
use super::yaml::{self, Mapping, Value};

pub(super) use super::yaml::name;

/// The text of the kustomize component that defines the sidecar. No other file defines the sidecar.
const COMPONENT: &str = include_str!("../../../deploy/kustomize/component/sidecar.yaml");
/// The name of the sidecar's container in a pod.
pub(super) const CONTAINER: &str = "callgate";
/// The name of the volume with the TLS certificate. The volume and its mount are removed if no certificate is
/// configured.
const TLS: &str = "callgate-tls";
pub(super) const DAMAGED: &str = "the sidecar in this program is damaged";

/// The settings of the sidecar that `inject` adds to workloads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sidecar {
    /// The name of the workload, from its annotation `callgate.dev/name`. `None` means the name in its metadata.
    pub name: Option<String>,
    /// The container image of the sidecar.
    pub image: String,
    /// The name of the ConfigMap that contains `callgate.yaml`.
    pub config_map: String,
    /// The name of the Secret whose keys become files in `/secrets`.
    pub secret: String,
    /// The name of the Secret with the certificate and key for TLS. `None` means that the sidecar accepts plain HTTP.
    pub tls_secret: Option<String>,
    /// The port on which the sidecar receives callbacks.
    pub port: u16,
    /// The agent's port, by name or number. `None` means the only port that the pod declares.
    pub agent_port: Option<String>,
    /// The name of the agent's container, from the annotation `callgate.dev/agent-container`. `None` means the
    /// container that declares the agent's port, or the only container.
    pub agent_container: Option<String>,
    /// The container that `kubectl` uses by default, from the annotation `kubectl.kubernetes.io/default-container`. It
    /// is the agent's container if no other setting identifies the agent's container.
    pub default_container: Option<String>,
    /// The port of the sidecar for metrics and health checks.
    pub admin_port: u16,
    /// The environment variable that makes the agent listen only on the loopback address. `None` means that no variable
    /// is set.
    pub bind_env: Option<String>,
    /// The port of the sidecar for other replicas. `None` means that the workload is not prepared for several replicas.
    pub replica_port: Option<u16>,
    /// The settings of the forward proxy. `None` means that the agent does not use the sidecar as a forward proxy.
    pub proxied: Option<Proxied>,
    /// The environment variables that contain the base URLs of the agent's clients. Each base URL has a path on the
    /// egress listener.
    pub base_urls: Vec<BaseUrl>,
    /// The port of the sidecar's egress listener.
    pub egress_port: u16,
    /// The label selector for the workloads that get the sidecar.
    pub selector: Selector,
    /// The kinds of custom resources that get the sidecar, in addition to the workloads of Kubernetes.
    pub custom: Vec<CustomKind>,
    /// The Kubernetes objects that `--with` adds for each workload.
    pub with: Vec<Companion>,
    /// The networks from which callbacks come, for the NetworkPolicy. If the list is empty, everybody can send
    /// callbacks.
    pub load_balancers: Vec<String>,
}

impl Default for Sidecar {
    fn default() -> Self {
        Self {
            name: None,
            image: concat!("callgate:", env!("CARGO_PKG_VERSION")).to_owned(),
            config_map: "callgate".to_owned(),
            secret: "callgate".to_owned(),
            tls_secret: None,
            port: 8443,
            agent_port: None,
            agent_container: None,
            default_container: None,
            admin_port: 9901,
            bind_env: None,
            replica_port: None,
            proxied: None,
            base_urls: Vec::new(),
            egress_port: 8081,
            selector: Selector::default(),
            custom: Vec::new(),
            with: Vec::new(),
            load_balancers: Vec::new(),
        }
    }
}

/// An environment variable of the agent that contains the base URL of a client library. `inject` sets it to a URL on
/// the egress listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BaseUrl {
    /// The name of the environment variable, such as `OPENAI_BASE_URL`.
    pub variable: String,
    /// The path of the base URL on the egress listener. It begins with a slash.
    pub path: String,
}

impl BaseUrl {
    /// Parses a base URL in the form `VARIABLE=PATH`, such as `OPENAI_BASE_URL=/openai/v1`.
    ///
    /// # Errors
    /// Returns an explanation if the text has another form.
    pub fn parse(text: &str) -> Result<Self, String> {
        let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let is_path = |c: char| c.is_ascii_alphanumeric() || "/-._~".contains(c);
        match text.split_once('=') {
            Some((variable, path))
                if !variable.is_empty()
                    && variable.chars().all(is_name)
                    && path.starts_with('/')
                    && path.chars().all(is_path) =>
            {
                Ok(Self { variable: variable.to_owned(), path: path.to_owned() })
            }
            _ => Err("expected VARIABLE=PATH, such as OPENAI_BASE_URL=/openai/v1".to_owned()),
        }
    }
}

/// An object that is added for each workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Companion {
    /// The ConfigMap with a first `callgate.yaml`.
    Config,
    /// A Secret whose values are to be filled in.
    SecretTemplate,
    /// The Service in front of the sidecar.
    Service,
    /// The NetworkPolicy for connections to the pods.
    NetworkPolicy,
    /// The NetworkPolicy for connections from the pods to other addresses.
    EgressPolicy,
}

/// The container and the volumes of the sidecar in a pod.
pub(super) struct Parts {
    pub(super) container: Mapping,
    pub(super) volumes: Vec<Value>,
}

/// The placeholder for the name of the workload in the names of ConfigMaps and Secrets.
const NAME: &str = "{name}";

impl Sidecar {
    /// Returns the settings of the sidecar for one workload. In the names of ConfigMaps and Secrets, the placeholder
    /// `{name}` is replaced by the name of the workload.
    pub(super) fn named(&self, workload: Option<&str>) -> Result<Self, String> {
        let mut own = self.clone();
        for field in [&mut own.config_map, &mut own.secret].into_iter().chain(&mut own.tls_secret) {
            if field.contains(NAME) {
                *field = field.replace(NAME, workload.ok_or_else(|| label::nameless(NAME))?);
            }
        }
        Ok(own)
    }

    /// Returns the ports of the sidecar, each with its command-line option. The port of the egress listener is included
    /// only if the agent uses it, or if the first configuration contains it.
    pub(super) fn ports(&self) -> Vec<(&'static str, u16)> {
        let has_egress =
            self.proxied.is_some() || !self.base_urls.is_empty() || self.with.contains(&Companion::Config);
        let all = [
            ("--port", Some(self.port)),
            ("--admin-port", Some(self.admin_port)),
            ("--replica-port", self.replica_port),
            ("--egress-port", has_egress.then_some(self.egress_port)),
        ];
        all.into_iter().filter_map(|(flag, port)| Some((flag, port?))).collect()
    }

    /// Reports whether each workload has a ConfigMap of its own, because its name contains the placeholder `{name}`.
    pub(super) fn has_own_config_map(&self) -> bool {
        self.config_map.contains(NAME)
    }

    /// Reports whether `--with` adds the NetworkPolicy that restricts connections to the pods.
    pub(super) fn has_policy(&self) -> bool {
        self.with.contains(&Companion::NetworkPolicy)
    }

    /// Reports whether the settings require no change of the agent's container except the move of its port.
    pub(super) fn leaves_agent(&self) -> bool {
        self.bind_env.is_none() && self.proxied.is_none() && self.base_urls.is_empty()
    }

    /// Returns the container and the volumes of the sidecar. `public` is the entry of the agent's port, which becomes a
    /// port of the sidecar.
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

/// Returns the container and the volumes of the sidecar as the kustomize component defines them.
fn component() -> Option<Parts> {
    let component = yaml::read(COMPONENT).ok()?;
    let pod = component.get("spec")?.get("template")?.get("spec")?;
    let container = pod.get("initContainers")?.get(0)?.as_mapping()?.clone();
    Some(Parts { container, volumes: pod.get("volumes")?.as_sequence()?.clone() })
}

/// The names of all volumes that `inject` can add to a pod.
static OWN_VOLUMES: LazyLock<Vec<String>> = LazyLock::new(|| {
    let made = component().map(|made| made.volumes).unwrap_or_default();
    made.iter().filter_map(name).chain(VOLUMES).map(str::to_owned).collect()
});

/// Reports whether `inject` adds a volume of this name to pods.
pub(super) fn is_own_volume(volume: &str) -> bool {
    OWN_VOLUMES.iter().any(|own| own == volume)
}

/// Returns the volume mounts of the sidecar's container `own`, except mounts of volumes that other containers may
/// mount.
pub(super) fn private_volumes(own: &Mapping) -> Vec<Value> {
    let mounts = own.get("volumeMounts").and_then(Value::as_sequence).into_iter().flatten();
    let is_private = |mount: &&Value| name(mount).is_some_and(|name| is_own_volume(name) && name != TRUST);
    mounts.filter(is_private).cloned().collect()
}

/// Checks that a container and volumes belong to a sidecar that `inject` added. `volumes` contains the names of volumes
/// from an annotation of the workload. The check is needed because anybody can write the annotation, and `--remove`
/// deletes the listed volumes. Settings that somebody added to the container later are accepted.
pub(super) fn is_own(container: Option<&Value>, volumes: &[String]) -> Result<(), String> {
    let made = component().ok_or(DAMAGED)?;
    if let Some(other) = volumes.iter().find(|volume| !is_own_volume(volume)) {
        return Err(format!(
            "the annotation {ANNOTATION} names the volume {}, which `callgate inject` does not make",
            yaml::shortened(other)
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
