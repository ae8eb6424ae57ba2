//! `callgate inject`: adds the sidecar to Kubernetes workloads, and removes it.

mod checks;
mod companions;
mod document;
mod foreign;
mod label;
mod label_selector;
mod notes;
mod object;
mod ports;
mod proxied;
mod replicas;
mod scaling;
mod sidecar;
mod undo;
mod workload;
mod yaml;

use std::io::{Read as _, Write as _};
use std::path::PathBuf;

use clap::Args;

use super::common::{EXIT_DATA, EXIT_UNAVAILABLE, printable_lines};
use crate::file::without_byte_order_mark;
use crate::source::parse_network;

pub use document::{Injected, inject, remove, remove_from};
pub use label_selector::{CustomKind, Selector};
pub(super) use object::admission::{Operation, Rewritten, inject_object, is_left};
pub(super) use object::kinds::template;
pub use proxied::Proxied;
pub use sidecar::{BaseUrl, Companion, Sidecar};
pub(super) use yaml::shortened;

#[derive(Args)]
pub(super) struct InjectArgs {
    /// The manifests, with one or more documents. `-` is standard input.
    #[arg(short = 'f', long = "filename", value_name = "FILE")]
    file: PathBuf,
    /// Remove the sidecar and restore the previous workload.
    #[arg(long, conflicts_with = "selector")]
    remove: bool,
    /// Add these objects for each workload, separated by commas.
    #[arg(long, value_name = "OBJECTS", value_delimiter = ',')]
    with: Vec<Companion>,
    /// With `network-policy`: a network from which callbacks come, such as that of the load balancers. Can be repeated.
    #[arg(long, value_name = "NETWORK", value_parser = network, requires = "with")]
    load_balancer: Vec<String>,
    /// Print nothing and end with exit code 65 if a kind with a pod stays without the sidecar, unless it has the
    /// annotation `callgate.dev/inject: "false"` or `-l` does not select it.
    #[arg(long, conflicts_with = "remove")]
    strict: bool,
    #[command(flatten)]
    sidecar: SidecarArgs,
}

fn network(text: &str) -> Result<String, String> {
    parse_network(text).map(|network| network.to_string()).map_err(|fault| format!("`{text}` {fault}"))
}

/// The settings of the sidecar, for `inject` and for `webhook`.
#[derive(Args)]
pub(super) struct SidecarArgs {
    /// Only workloads with these labels get the sidecar, such as `app=agent,tier in (a, b)`.
    #[arg(short = 'l', long, value_name = "LABELS", value_parser = Selector::parse)]
    selector: Option<Selector>,
    /// The image of the sidecar.
    #[arg(long, value_name = "IMAGE", default_value = concat!("callgate:", env!("CARGO_PKG_VERSION")))]
    image: String,
    /// The ConfigMap with `callgate.yaml`. `{name}` is the name of the workload.
    #[arg(long, value_name = "NAME", default_value = "callgate")]
    config_map: String,
    /// The Secret whose keys become files in /secrets. `{name}` is the name of the workload.
    #[arg(long, value_name = "NAME", default_value = "callgate")]
    secret: String,
    /// The Secret with `tls.crt` and `tls.key`, which become files in /tls. Leave it out if a load balancer terminates
    /// TLS.
    #[arg(long, value_name = "NAME")]
    tls_secret: Option<String>,
    /// The port of the sidecar, as in `listen.ingress`. The annotation `callgate.dev/port` of a workload takes precedence.
    #[arg(long, value_name = "PORT", default_value_t = 8443, value_parser = clap::value_parser!(u16).range(1..))]
    port: u16,
    /// The port of the agent, by name or number. Not needed if the pod declares only one port. The annotation
    /// `callgate.dev/agent-port` of a workload takes precedence.
    #[arg(long, value_name = "PORT")]
    agent_port: Option<String>,
    /// The port for metrics and health checks, as in `listen.admin`.
    #[arg(long, value_name = "PORT", default_value_t = 9901, value_parser = clap::value_parser!(u16).range(1..))]
    admin_port: u16,
    /// The environment variable that makes the agent listen only on 127.0.0.1.
    #[arg(long, value_name = "NAME")]
    bind_env: Option<String>,
    /// A variable of the agent's clients that becomes the URL of this path on the egress listener. Can be repeated.
    #[arg(long, value_name = "VARIABLE=PATH", value_parser = BaseUrl::parse)]
    base_url: Vec<BaseUrl>,
    /// A kind of custom resource that gets the sidecar, too: KIND.GROUP=PATH of its pod template. Can be repeated.
    #[arg(long, value_name = "KIND.GROUP=PATH", value_parser = CustomKind::parse)]
    pod_template: Vec<CustomKind>,
    /// Prepare the workload for several replicas: environment variables, a port, a headless Service and a
    /// NetworkPolicy.
    #[arg(long)]
    replicas: bool,
    /// The port for other replicas, as in `replicas.address`.
    #[arg(long, value_name = "PORT", default_value_t = 8446, value_parser = clap::value_parser!(u16).range(1..))]
    replica_port: u16,
    /// Make the clients of the agent use the sidecar as their forward proxy.
    #[arg(long)]
    proxied: bool,
    /// With --proxied: the Secret with `ca.crt` and `ca.key`, which become files in /ca of the sidecar.
    #[arg(long, value_name = "NAME", default_value = "callgate-ca", requires = "proxied")]
    ca_secret: String,
    /// The port in `listen.egress.address`, for --proxied and --base-url.
    #[arg(long, value_name = "PORT", default_value_t = 8081, value_parser = clap::value_parser!(u16).range(1..))]
    egress_port: u16,
    /// With --proxied: another host that clients reach directly, such as a network of the cluster. Can be repeated.
    #[arg(long, value_name = "HOST", requires = "proxied")]
    direct: Vec<String>,
}

pub(super) fn run(args: &InjectArgs) -> u8 {
    let text = match args.text() {
        Ok(text) => text,
        Err(message) => return args.refuse(&message),
    };
    let (with, load_balancers) = (args.with.clone(), args.load_balancer.clone());
    let sidecar = Sidecar { with, load_balancers, ..args.sidecar.settings() };
    let done = if args.remove { remove_from(&text, &sidecar.custom) } else { inject(&text, &sidecar) };
    match done {
        Ok(injected) => {
            for note in &injected.notes {
                eprintln!("note: {}", printable_lines(note));
            }
            if args.strict && !injected.missed.is_empty() {
                return args
                    .refuse(&format!("--strict: without the sidecar: {}", injected.missed.join(", ")));
            }
            match std::io::stdout().write_all(injected.text.as_bytes()) {
                Ok(()) => 0,
                Err(error) => {
                    eprintln!("error: cannot write: {error}");
                    EXIT_UNAVAILABLE
                }
            }
        }
        Err(message) => args.refuse(&message),
    }
}

impl InjectArgs {
    fn text(&self) -> Result<String, String> {
        let mut bytes = Vec::new();
        let read = match self.file.as_os_str() == "-" {
            true => std::io::stdin().read_to_end(&mut bytes).map(|_| bytes),
            false => std::fs::read(&self.file),
        };
        let text = read
            .map(without_byte_order_mark)
            .and_then(|bytes| String::from_utf8(bytes).map_err(std::io::Error::other));
        text.map_err(|error| format!("cannot be read: {error}"))
    }

    fn refuse(&self, message: &str) -> u8 {
        eprintln!("error: {}: {}", self.file.display(), printable_lines(message));
        EXIT_DATA
    }
}

impl SidecarArgs {
    /// Returns the settings of the sidecar from the command line.
    pub(super) fn settings(&self) -> Sidecar {
        Sidecar {
            name: None,
            image: self.image.clone(),
            config_map: self.config_map.clone(),
            secret: self.secret.clone(),
            tls_secret: self.tls_secret.clone(),
            port: self.port,
            agent_port: self.agent_port.clone(),
            agent_container: None,
            default_container: None,
            admin_port: self.admin_port,
            bind_env: self.bind_env.clone(),
            replica_port: self.replicas.then_some(self.replica_port),
            proxied: self
                .proxied
                .then(|| Proxied { ca_secret: self.ca_secret.clone(), direct: self.direct.clone() }),
            base_urls: self.base_url.clone(),
            egress_port: self.egress_port,
            selector: self.selector.clone().unwrap_or_default(),
            custom: self.pod_template.clone(),
            with: Vec::new(),
            load_balancers: Vec::new(),
        }
    }
}
