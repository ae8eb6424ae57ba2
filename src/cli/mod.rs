//! The command line: the only place that prints.
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
mod sign;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, CommandFactory, Parser, Subcommand};

use crate::config::{Config, ConfigError, ERRORS_MAX};
use crate::proxy::{Clock, FILE_BYTES_MAX, read_file};
use crate::time::Timestamp;

pub use init::first_configuration;
pub use inject::{Injected, Sidecar, inject, remove};
pub use message::Message;
pub use metrics::metrics_table;
pub use providers::provider_table;
pub use run::{Serving, serve};
pub use schema::{reference, schema};

/// Bad usage or a bad configuration (sysexits.h EX_USAGE).
pub const EXIT_USAGE: u8 = 64;
/// An input file that cannot be used (sysexits.h EX_DATAERR).
pub const EXIT_DATA: u8 = 65;
/// A service that cannot be had, such as a port that is taken (sysexits.h EX_UNAVAILABLE).
pub const EXIT_UNAVAILABLE: u8 = 69;

#[derive(Parser)]
#[command(
    name = "callgate",
    version,
    about = "The door through which outside services call back an AI agent"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serve.
    Run(ConfigArg),
    /// Compile a configuration and print every mistake in it.
    Check(check::CheckArgs),
    /// Say what would happen to a captured request, and why. Exits with 0 if it is allowed, 1 if not.
    Explain(explain::ExplainArgs),
    /// Write a configuration to begin with, for one provider.
    Init(init::InitArgs),
    /// List every metric there is: name, type, labels and what they may say, help.
    Metrics(metrics::MetricsArgs),
    /// Make a callback URL and its token.
    Mint(mint::MintArgs),
    /// Print what a shell needs to complete the commands: bash, elvish, fish, powershell or zsh.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
    /// Print the man page.
    Man,
    /// List the providers that are known, or print the preset of one.
    Providers(providers::ProvidersArgs),
    /// Print the configuration language as JSON Schema, for editors.
    Schema(schema::SchemaArgs),
    /// Put a provider's signature on a captured request.
    Sign(sign::SignArgs),
    /// Ask a running Callgate whether it lives, or takes callbacks. Exits with 0 or 69.
    Health(health::HealthArgs),
    /// Put the sidecar into Kubernetes workloads, or take it out again.
    Inject(inject::InjectArgs),
}

#[derive(Args, Clone)]
struct ConfigArg {
    /// The configuration.
    #[arg(short = 'c', long = "config", value_name = "FILE")]
    config: PathBuf,
}

/// Whether these are words that the command line understands; what is wrong with them, if not.
///
/// # Errors
/// What it would say.
pub fn understands(args: &[&str]) -> Result<(), String> {
    Cli::try_parse_from(args).map(|_| ()).map_err(|error| error.to_string())
}

/// Runs the command line.
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

    /// The configuration, or the exit code after every mistake was printed.
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
        // The last of more errors is the number of the others.
        if errors.len() <= ERRORS_MAX {
            eprintln!("{} in {}", counted(errors.len(), "mistake"), self.config.display());
        }
    }
}

#[allow(clippy::disallowed_methods, reason = "this is the environment that is handed to the configuration")]
fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// Reads `--at`: RFC 3339 or Unix seconds.
fn moment(text: &str) -> Result<Timestamp, String> {
    Timestamp::parse(text)
        .ok_or_else(|| "expected RFC 3339, such as 2026-01-01T00:00:00Z, or Unix seconds".to_owned())
}

fn now_unless(at: Option<Timestamp>) -> Timestamp {
    at.unwrap_or_else(|| Clock::System.now())
}

/// `1 route`, `2 routes`.
fn counted(number: usize, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

fn print_json(value: &serde_json::Value) {
    println!("{value:#}");
}
