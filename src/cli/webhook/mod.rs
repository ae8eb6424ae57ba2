//! `callgate webhook`: a mutating admission webhook of Kubernetes that adds the sidecar, with the same code as
//! `callgate inject`.

mod head;
mod message;
mod outcomes;
mod patch;
mod review;
mod size;
mod workers;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use super::common::{EXIT_UNAVAILABLE, EXIT_USAGE};
use super::inject::SidecarArgs;
use super::read::{Stamp, stamp};
use crate::admin::{AdminRequest, AdminResponse, ServedCertificate, serve_tls};
use crate::observe::install_logger;

use outcomes::{Outcome, Outcomes};
use review::decide;
use workers::{THREADS_MAX, Workers};

pub use review::{Policy, answer};

/// The interval at which the files of the webhook's certificate are checked for changes.
const LOOK: Duration = Duration::from_secs(1);
/// The maximum number of connections to the webhook.
const CONNECTIONS_MAX: usize = 512;
/// The maximum size of a request to the webhook, in bytes. A request contains the object before and after the change,
/// and etcd limits an object to 1.5 MiB.
const BODY_BYTES_MAX: u64 = 4 << 20;
/// The maximum memory for the bodies of all requests to the webhook together, in bytes. Its pod has 256 MiB.
const BODIES_BYTES_MAX: u64 = 32 << 20;

#[derive(Args)]
pub(super) struct WebhookArgs {
    /// The address on which the webhook accepts TLS.
    #[arg(long, value_name = "ADDRESS", default_value = "0.0.0.0:9443")]
    listen: SocketAddr,
    /// PEM file with the certificate chain. It is read again when it changes.
    #[arg(long, value_name = "FILE", default_value = "/tls/tls.crt")]
    certificate: String,
    /// PEM file with the private key.
    #[arg(long, value_name = "FILE", default_value = "/tls/tls.key")]
    key: String,
    /// Admit workloads that cannot have the sidecar, with a warning. Otherwise they are denied.
    #[arg(long)]
    admit_unusable: bool,
    #[command(flatten)]
    sidecar: SidecarArgs,
}

pub(super) fn webhook(args: &WebhookArgs) -> u8 {
    install_logger();
    let certificate = match ServedCertificate::read(&args.certificate, &args.key) {
        Ok(certificate) => Arc::new(certificate),
        Err(error) => {
            log::error!("{error}");
            return EXIT_USAGE;
        }
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(THREADS_MAX)
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            log::error!("cannot start the worker threads: {error}");
            return EXIT_UNAVAILABLE;
        }
    };
    let code = runtime.block_on(serve(args, certificate));
    runtime.shutdown_timeout(Duration::from_millis(100));
    code
}

/// Serves the webhook until SIGTERM or SIGINT arrives. Returns the exit code.
async fn serve(args: &WebhookArgs, certificate: Arc<ServedCertificate>) -> u8 {
    let bound = async {
        let listener = TcpListener::bind(args.listen).await?;
        let address = listener.local_addr()?;
        Ok::<_, std::io::Error>((listener, address))
    };
    let (listener, address) = match bound.await {
        Ok(bound) => bound,
        Err(error) => {
            log::error!("cannot listen on {}: {error}", args.listen);
            return EXIT_UNAVAILABLE;
        }
    };
    let signals = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()));
    let (Ok(mut terminate), Ok(mut interrupt)) = signals else {
        log::error!("cannot set up the signal handlers");
        return EXIT_UNAVAILABLE;
    };
    log::info!("webhook on {address}");
    let policy = Policy { sidecar: args.sidecar.settings(), admits_unusable: args.admit_unusable };
    let shared = Arc::new((policy, Outcomes::default()));
    let workers = Arc::new(Workers::default());
    let respond = move |request: AdminRequest| {
        let (shared, workers) = (Arc::clone(&shared), Arc::clone(&workers));
        async move {
            match request.path.as_str() {
                "/mutate" => workers.run(move || respond(&shared.0, &shared.1, &request)).await,
                _ => respond(&shared.0, &shared.1, &request),
            }
        }
    };
    let (stop, stopping) = watch::channel(false);
    let limits = (CONNECTIONS_MAX, BODY_BYTES_MAX, BODIES_BYTES_MAX);
    let served = tokio::spawn(serve_tls(listener, Arc::clone(&certificate), limits, respond, stopping));
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        () = rotate(args, &certificate) => {}
    }
    log::info!("stopping");
    let _ = stop.send(true);
    let _ = served.await;
    0
}

/// Reads the webhook's certificate again whenever its file or the file of its key changes. Never returns.
async fn rotate(args: &WebhookArgs, certificate: &ServedCertificate) {
    let now = || -> [Stamp; 2] { [&args.certificate, &args.key].map(|file| stamp(Path::new(file))) };
    let mut known = now();
    let mut looks = tokio::time::interval(LOOK);
    loop {
        looks.tick().await;
        let found = now();
        if found == known {
            continue;
        }
        known = found;
        match certificate.renew() {
            Ok(()) => log::info!("reloaded the certificate {}", args.certificate),
            Err(error) => log::error!("the certificate is not reloaded: {error}"),
        }
    }
}

/// Returns the response to one request to the webhook.
fn respond(policy: &Policy, outcomes: &Outcomes, request: &AdminRequest) -> AdminResponse {
    let text =
        |status, body: &str| AdminResponse::new(status, "text/plain; charset=utf-8", format!("{body}\n"));
    let reads = matches!(request.method.as_str(), "GET" | "HEAD");
    match request.path.as_str() {
        "/livez" | "/readyz" if reads => text(200, "ok"),
        "/metrics" if reads => {
            AdminResponse::new(200, "text/plain; version=0.0.4; charset=utf-8", outcomes.text())
        }
        "/livez" | "/metrics" | "/readyz" => {
            AdminResponse { allow: "GET, HEAD", ..text(405, "method not allowed") }
        }
        "/mutate" if request.method == "POST" => {
            let decided = request.json().and_then(|body| decide(policy, body).map_err(|error| (400, error)));
            match decided {
                Ok((outcome, review)) => {
                    outcomes.count(outcome);
                    AdminResponse::new(200, "application/json", review.to_string())
                }
                Err((status, error)) => {
                    outcomes.count(Outcome::Invalid);
                    text(status, error)
                }
            }
        }
        "/mutate" => AdminResponse { allow: "POST", ..text(405, "method not allowed") },
        _ => text(404, "not found: /livez, /metrics, /mutate, /readyz"),
    }
}
