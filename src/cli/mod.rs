//! The command line: arguments, exit codes and output of each subcommand.
//!
//! No other module prints to standard output or standard error. Each subcommand has a file of its own. The files parse
//! arguments and print results; the work is done in the modules that they call.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "printing is what a command line does")]

mod check;
mod describe;
mod explain;
mod health;
mod init;
mod inject;
mod message;
mod metrics;
mod mint;
mod providers;
mod read;
mod reload;
mod run;
mod schema;
mod serving;
mod sign;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, CommandFactory, Parser, Subcommand};

use crate::clock::Clock;
use crate::config::{Config, ConfigError, ERRORS_MAX};
use crate::file::{FILE_BYTES_MAX, read as read_file};
use crate::time::Timestamp;

pub use init::first_configuration;
pub use inject::{Injected, Sidecar, inject, remove};
pub use message::Message;
pub use metrics::metrics_table;
pub use providers::provider_table;
pub use schema::{reference, schema};
pub use serving::{Serving, serve};

/// Exit code for wrong usage or a wrong configuration (`EX_USAGE` in sysexits.h).
pub const EXIT_USAGE: u8 = 64;
/// Exit code for an input file that cannot be used (`EX_DATAERR` in sysexits.h).
pub const EXIT_DATA: u8 = 65;
/// Exit code for a resource that is unavailable, such as a port in use (`EX_UNAVAILABLE` in sysexits.h).
pub const EXIT_UNAVAILABLE: u8 = 69;

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
    Run(ConfigArg),
    /// Check a configuration and print every mistake in it.
    Check(check::CheckArgs),
    /// Show the result of each check for a captured request, and the verdict. Exits with 0 if the request is allowed,
    /// and with 1 if it is denied.
    Explain(explain::ExplainArgs),
    /// Write a first configuration for one provider.
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
    /// Add the sidecar to Kubernetes workloads, or remove it.
    Inject(inject::InjectArgs),
}

#[derive(Args, Clone)]
struct ConfigArg {
    /// Configuration file.
    #[arg(short = 'c', long = "config", value_name = "FILE")]
    config: PathBuf,
}

/// Checks whether the command line accepts these arguments, without running them.
///
/// # Errors
/// Returns the message that the command line would print.
pub fn understands(args: &[&str]) -> Result<(), String> {
    Cli::try_parse_from(args).map(|_| ()).map_err(|error| error.to_string())
}

/// Parses the arguments, runs the subcommand, and returns its exit code.
pub fn main(args: impl Iterator<Item = String>) -> ExitCode {
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
        Command::Inject(args) => inject::run(&args),
    };
    ExitCode::from(code)
}

impl ConfigArg {
    fn text(&self) -> Result<String, Vec<ConfigError>> {
        let read = read_file(&self.config, FILE_BYTES_MAX);
        let text = read.and_then(|bytes| String::from_utf8(bytes).map_err(std::io::Error::other));
        text.map_err(|error| {
            let message = format!("cannot read {}: {error}", self.config.display());
            vec![ConfigError { path: String::new(), position: None, message, hint: String::new() }]
        })
    }

    fn parse(&self) -> Result<Config, Vec<ConfigError>> {
        read::Read::new(self).config
    }

    /// Returns the configuration. If it has mistakes, prints all of them and returns the exit code.
    fn load(&self) -> Result<Config, u8> {
        self.parse().map_err(|errors| {
            self.print_errors(&errors);
            EXIT_USAGE
        })
    }

    fn print_errors(&self, errors: &[ConfigError]) {
        for error in errors {
            eprintln!("error: {}: {error}", self.config.display());
        }
        // If there are too many errors, the last entry is the number of the omitted ones.
        if errors.len() <= ERRORS_MAX {
            eprintln!("{} in {}", counted(errors.len(), "mistake"), self.config.display());
        }
    }
}

#[allow(
    clippy::disallowed_methods,
    reason = "the configuration receives the environment as an argument, from here"
)]
fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// Parses the value of `--at`: RFC 3339 or Unix seconds.
fn moment(text: &str) -> Result<Timestamp, String> {
    Timestamp::parse(text)
        .ok_or_else(|| "expected RFC 3339, such as 2026-01-01T00:00:00Z, or Unix seconds".to_owned())
}

fn now_unless(at: Option<Timestamp>) -> Timestamp {
    at.unwrap_or_else(|| Clock::System.now())
}

/// Returns a number with its noun in singular or plural: `1 route`, `2 routes`.
fn counted(number: usize, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

fn print_json(value: &serde_json::Value) {
    println!("{value:#}");
}
