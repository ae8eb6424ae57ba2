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
use crate::proxy::listen::bind;

use outcomes::{Outcome, Outcomes};
use review::{Decision, decide};
use workers::{THREADS_MAX, Workers};

pub use review::{Policy, answer};

/// The interval at which the files of the webhook's certificate are checked for changes.
const LOOK: Duration = Duration::from_secs(1);
/// The maximum number of connections to the webhook.
const CONNECTIONS_MAX: usize = 512;
/// The maximum size of a request to the webhook, in bytes. A request contains the object before and after the change,
/// and etcd limits an object to 1.5 MiB.
const BODY_BYTES_MAX: u64 = 4 << 20;
/// The maximum memory for the bodies of all requests to the webhook together, in bytes. The memory limit of the
/// webhook's pod is 256 MiB.
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
    let bound = bind(args.listen).and_then(|bound| {
        let address = bound.address;
        Ok((TcpListener::from_std(bound.into_listener())?, address))
    });
    let (listener, address) = match bound {
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
            if request.path != "/mutate" || request.method != "POST" {
                return respond(&shared.1, &request);
            }
            let for_worker = Arc::clone(&shared);
            let reviewed = workers.run(move || reviewed(&for_worker.0, &request)).await;
            answered(&shared.1, reviewed)
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

/// Reads the certificate and the key of the webhook again whenever one of the two files changes. Never returns.
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

fn text(status: u16, body: &str) -> AdminResponse {
    AdminResponse::new(status, "text/plain; charset=utf-8", format!("{body}\n"))
}

/// Returns the response to a webhook request other than an AdmissionReview, such as `GET /readyz`.
fn respond(outcomes: &Outcomes, request: &AdminRequest) -> AdminResponse {
    let reads = matches!(request.method.as_str(), "GET" | "HEAD");
    match request.path.as_str() {
        "/livez" | "/readyz" if reads => text(200, "ok"),
        "/metrics" if reads => {
            AdminResponse::new(200, "text/plain; version=0.0.4; charset=utf-8", outcomes.text())
        }
        "/livez" | "/metrics" | "/readyz" => {
            AdminResponse { allow: "GET, HEAD", ..text(405, "method not allowed") }
        }
        "/mutate" => AdminResponse { allow: "POST", ..text(405, "method not allowed") },
        _ => text(404, "not found: /livez, /metrics, /mutate, /readyz"),
    }
}

/// The response to a request to `/mutate`, the outcome to count, and the line to log with its level.
type Reviewed = (AdminResponse, Outcome, Option<(log::Level, String)>);

/// Returns the response to a request to `/mutate`. The caller of this function counts and logs the response, because
/// only the caller knows whether the response was ready in time.
fn reviewed(policy: &Policy, request: &AdminRequest) -> Reviewed {
    match request.json().and_then(|body| decide(policy, body).map_err(|error| (400, error))) {
        Ok(Decision { outcome, answer, line }) => {
            (AdminResponse::new(200, "application/json", answer.to_string()), outcome, line)
        }
        Err((status, error)) => (text(status, error), Outcome::Invalid, None),
    }
}

/// Counts and logs the response to a request to `/mutate`, and returns it. If the response was not ready in time,
/// `reviewed` is `None`, and the returned response has the status 503.
fn answered(outcomes: &Outcomes, reviewed: Option<Reviewed>) -> AdminResponse {
    let (response, outcome, line) = reviewed.unwrap_or_else(|| {
        let line = "a request to /mutate received 503, because the response took too long";
        (text(503, "too busy"), Outcome::Late, Some((log::Level::Warn, line.to_owned())))
    });
    outcomes.count(outcome);
    if let Some((level, line)) = line {
        log::log!(level, "{line}");
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_response_is_counted_as_what_was_sent() {
        let outcomes = Outcomes::default();
        assert_eq!(answered(&outcomes, None).status, 503);
        assert_eq!(answered(&outcomes, Some((text(200, "{}"), Outcome::Patched, None))).status, 200);
        let text = outcomes.text();
        for line in ["{outcome=\"late\"} 1\n", "{outcome=\"patched\"} 1\n"] {
            assert!(text.contains(line), "{text}");
        }
    }
}
