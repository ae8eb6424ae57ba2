//! The command line: arguments, exit codes and output of each subcommand.
//!
//! No other module prints to standard output or standard error. Each subcommand has a file of its own. The files parse
//! arguments and print results. The modules that they call do the work.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "printing is what a command line does")]

mod admin_api;
mod admin_client;
mod audit;
mod check;
mod common;
mod describe;
mod explain;
mod health;
mod inbox;
mod init;
mod inject;
mod members;
mod message;
mod metrics;
mod mint;
mod providers;
mod proxied;
mod read;
mod revoke;
mod run;
mod schema;
mod sign;
mod store;
mod webhook;

use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

pub use common::{EXIT_DATA, EXIT_UNAVAILABLE, EXIT_USAGE};
pub use init::first_configuration;
pub use inject::{
    BaseUrl, Companion, CustomKind, Injected, Proxied, Selector, Sidecar, inject, remove, remove_from,
};
pub use message::Message;
pub use metrics::metrics_table;
pub use providers::provider_table;
pub use run::{Serving, serve};
pub use schema::{reference, schema};
pub use webhook::{Policy as WebhookPolicy, answer as answer_review};

#[derive(Parser)]
#[command(
    name = "callgate",
    version,
    about = "A reverse proxy that verifies the callbacks outside services send to an AI agent"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serve until SIGTERM or SIGINT.
    Run(run::RunArgs),
    /// Check a configuration and print every mistake in it.
    Check(check::CheckArgs),
    /// Show the result of each check for a captured request, and the verdict. Exits with 0 if the request is allowed,
    /// and with 1 if it is denied.
    Explain(explain::ExplainArgs),
    /// Write a first configuration for one or more providers.
    Init(init::InitArgs),
    /// List every metric with its type, labels, label values and help text.
    Metrics(metrics::MetricsArgs),
    /// Mint a callback URL and its token.
    Mint(mint::MintArgs),
    /// Print the completions for a shell: bash, elvish, fish, powershell or zsh.
    Completions {
        /// Name of the shell.
        shell: clap_complete::Shell,
    },
    /// Print the man page.
    Man,
    /// List the known providers, or print the preset of one of them.
    Providers(providers::ProvidersArgs),
    /// Print the configuration language as JSON Schema, for editors.
    Schema(schema::SchemaArgs),
    /// Sign a captured request as a provider does.
    Sign(sign::SignArgs),
    /// Ask a running Callgate whether it is alive, or whether it accepts callbacks. Exits with 0 for yes and 69 for no.
    Health(health::HealthArgs),
    /// Report from an access log who calls each route, and what it denies or would deny.
    Audit(audit::AuditArgs),
    /// Show, deliver again or remove the callbacks in the inbox of a running Callgate.
    Inbox(inbox::InboxArgs),
    /// Print the callbacks of an interaction while they arrive. Exits with 0 if it is done, 1 failed, 2 expired, 3
    /// revoked, 4 not sent, and 69 if it is unknown or Callgate is unreachable.
    Wait(inbox::WaitArgs),
    /// Show the other replicas that a running Callgate has found.
    Members(members::MembersArgs),
    /// Revoke an interaction of a running Callgate: its token is denied from now on.
    Revoke(revoke::RevokeArgs),
    /// Copy a ledger to another store, or make and restore backups of it.
    Store(store::StoreArgs),
    /// Create the certificate authority of the forward proxy.
    Ca(proxied::CaArgs),
    /// Find out what works on this machine.
    Doctor(proxied::DoctorArgs),
    /// Print the environment variables with which clients use the forward proxy.
    Env(proxied::EnvArgs),
    /// Add the sidecar to Kubernetes workloads, or remove it.
    Inject(inject::InjectArgs),
    /// Serve a mutating admission webhook of Kubernetes that adds the sidecar.
    Webhook(webhook::WebhookArgs),
}

/// Checks whether the `callgate` command accepts these arguments, without running a subcommand.
///
/// # Errors
/// Returns the message that the command line would print.
pub fn understands(args: &[&str]) -> Result<(), String> {
    Cli::try_parse_from(args).map(|_| ()).map_err(|error| error.to_string())
}

/// Parses the arguments of the `callgate` command, runs the subcommand, and returns its exit code.
pub fn main(args: impl Iterator<Item = String>) -> ExitCode {
    crate::tls_crypto::install();
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { EXIT_USAGE } else { 0 });
        }
    };
    let code = match cli.command {
        Command::Run(args) => run::run(&args),
        Command::Check(args) => check::check(&args),
        Command::Explain(args) => explain::explain(&args),
        Command::Init(args) => init::init(&args),
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "callgate", &mut std::io::stdout());
            0
        }
        Command::Man => {
            u8::from(clap_mangen::Man::new(Cli::command()).render(&mut std::io::stdout()).is_err())
        }
        Command::Metrics(args) => metrics::metrics(&args),
        Command::Mint(args) => mint::mint(&args),
        Command::Providers(args) => providers::providers(&args),
        Command::Schema(args) => schema::print(&args),
        Command::Sign(args) => sign::sign(&args),
        Command::Health(args) => health::health(&args),
        Command::Audit(args) => audit::audit(&args),
        Command::Inbox(args) => inbox::inbox(&args),
        Command::Wait(args) => inbox::wait(&args),
        Command::Members(args) => members::members(&args),
        Command::Revoke(args) => revoke::revoke(&args),
        Command::Store(args) => store::store(&args),
        Command::Ca(args) => proxied::ca(&args),
        Command::Doctor(args) => proxied::doctor(&args),
        Command::Env(args) => proxied::env(&args),
        Command::Inject(args) => inject::run(&args),
        Command::Webhook(args) => webhook::webhook(&args),
    };
    ExitCode::from(code)
}
