//! `callgate check`: reports every mistake in a configuration, and does not start to serve.

mod against;

use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::json;

use self::against::Comparison;
use super::common::{EXIT_UNAVAILABLE, EXIT_USAGE, counted, print_json, printable_lines};
use super::describe::describe;
use super::read::ConfigArg;
use super::read::{Read, Root};
use crate::agent::ONLY_AGENT;
use crate::clock::Clock;
use crate::config::{CertificateFiles, ClientAuthorities, Config, ConfigError, Step, Tls, to_yaml};
use crate::proxy::{check_agent, check_authority, check_tls};

/// The exit code if a reload would be rejected, because a changed setting needs a restart.
const EXIT_RESTART: u8 = 1;

#[derive(Args)]
pub(super) struct CheckArgs {
    #[command(flatten)]
    config: ConfigArg,
    /// Print every setting, including defaults, and what each route does. Secrets are hidden.
    #[arg(long)]
    print: bool,
    /// Look up absolute paths below this folder: `/tls/tls.crt` in the configuration becomes `DIR/tls/tls.crt`.
    #[arg(long, value_name = "DIR")]
    root: Option<PathBuf>,
    /// The configuration that a running Callgate uses. Report which settings need a restart to change from it.
    #[arg(long, value_name = "FILE")]
    running: Option<PathBuf>,
    /// The admin listener of a running Callgate, such as http://127.0.0.1:9901. Report what a reload would do there.
    #[arg(long, value_name = "URL", conflicts_with = "running", value_parser = against::url)]
    against: Option<String>,
    /// File with the token of the running Callgate's admin listener. Default: the token that FILE names.
    #[arg(long, value_name = "FILE", requires = "against")]
    token: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub(super) fn check(args: &CheckArgs) -> u8 {
    let root = Root(args.root.clone());
    let Read { texts, config, .. } = Read::below(&args.config, &root);
    let config = match config.and_then(|config| with_usable_tls(config, &root)) {
        Ok(config) => config,
        Err(errors) if args.json => {
            let errors: Vec<_> = errors.iter().map(error_json).collect();
            print_json(&json!({ "ok": false, "errors": errors }));
            return EXIT_USAGE;
        }
        Err(errors) => {
            args.config.print_errors(&errors);
            return EXIT_USAGE;
        }
    };
    let comparison =
        match args.against.as_deref().map(|url| args.compare(url, &config, &texts.whole())).transpose() {
            Ok(comparison) => comparison,
            Err(error) => {
                eprintln!("error: {error}");
                return EXIT_UNAVAILABLE;
            }
        };
    let restart = match &args.running {
        Some(running) => match needs_restart(&config, running, &root) {
            Ok(keys) => keys,
            Err(code) => return code,
        },
        None => comparison.as_ref().map(Comparison::restart).unwrap_or_default(),
    };
    args.report(&config, &restart, comparison.as_ref());
    match (restart.is_empty(), &comparison) {
        (true, _) => 0,
        (false, Some(_)) => EXIT_USAGE,
        (false, None) => EXIT_RESTART,
    }
}

impl CheckArgs {
    /// Compares the configuration with that of the running Callgate at `url`.
    fn compare(&self, url: &str, config: &Config, text: &str) -> Result<Comparison, String> {
        let stated = self.token.as_ref().map(std::fs::read).transpose();
        let stated = stated.map_err(|error| format!("cannot read the file of the token: {error}"))?;
        let configured = config.startup.admin.as_ref().and_then(|admin| admin.token.as_ref());
        let token = stated.as_deref().map(<[u8]>::trim_ascii).or_else(|| Some(configured?.expose()));
        against::compare(url, token, config, text)
    }

    /// Prints the result for a configuration without mistakes.
    fn report(&self, config: &Config, restart: &[&str], comparison: Option<&Comparison>) {
        if self.json {
            let policy = self.print.then(|| describe(config));
            // Without the configuration of a running Callgate, it is unknown whether a restart is needed.
            let needed = (self.running.is_some() || comparison.is_some()).then_some(restart);
            print_json(&json!({
                "ok": restart.is_empty(),
                "warnings": config.warnings,
                "policy": policy,
                "restart": needed,
                "against": comparison.map(Comparison::to_json),
            }));
            return;
        }
        for warning in &config.warnings {
            eprintln!("warning: {}", printable_lines(warning));
        }
        if self.print {
            print!("{}", to_yaml(&describe(config)).unwrap_or_default());
        } else {
            let policy = &config.policy;
            let rules = policy.egress.rules().len();
            println!(
                "{}: ok, {}, {}{}",
                self.config.config.display(),
                counted(policy.ingress.routes().len(), "route"),
                counted(policy.providers.len(), "provider"),
                if rules == 0 { String::new() } else { format!(", {}", counted(rules, "egress rule")) }
            );
        }
        match comparison {
            Some(comparison) => comparison.print(&self.config.config),
            None if restart.is_empty() => {}
            None => eprintln!("a reload would be rejected: only a restart can change {}", restart.join(", ")),
        }
    }
}

/// Returns the keys of the settings that only a restart can change, and whose values in `config` and in the
/// configuration file `running` differ. If `running` has mistakes, prints the mistakes and returns the exit code.
fn needs_restart(config: &Config, running: &Path, root: &Root) -> Result<Vec<&'static str>, u8> {
    let file = ConfigArg { config: running.to_owned() };
    let running = Read::below(&file, root).config.map_err(|errors| {
        file.print_errors(&errors);
        EXIT_USAGE
    })?;
    Ok(running.startup.differences(&config.startup))
}

fn error_json(error: &ConfigError) -> serde_json::Value {
    json!({
        "file": error.file,
        "path": error.path,
        "line": error.position.map(|position| position.line),
        "message": error.message,
        "hint": error.hint,
    })
}

/// Returns the configuration if all its TLS files are usable. Otherwise returns an error for each section `tls` whose
/// files are unusable or do not belong together.
fn with_usable_tls(config: Config, root: &Root) -> Result<Config, Vec<ConfigError>> {
    let hint = "look at the files: a key must belong to the certificate beside it";
    let outlines = config.sources.outlines();
    let with_hint =
        |path: &[Step], message, hint: &str| ConfigError::at(path, &outlines, message, hint.to_owned());
    let error = |path: &[Step], message| with_hint(path, message, hint);
    let key = |name: &str| Step::Key(name.to_owned());
    let listeners = config.startup.ingress.iter().enumerate();
    let ingress = listeners.map(|(i, listener)| {
        (vec![key("listen"), key("ingress"), Step::Index(i), key("tls")], listener.tls.as_ref())
    });
    let egress = config.startup.egress.iter();
    let egress = egress.map(|egress| (vec![key("listen"), key("egress"), key("tls")], egress.tls.as_ref()));
    let listeners = ingress
        .chain(egress)
        .filter_map(|(path, tls)| Some(error(&path, check_tls(&below(root, tls?)).err()?)));
    let agents = config.policy.agents.iter().filter_map(|agent| {
        let path = match &*agent.name {
            ONLY_AGENT => vec![key("agent"), key("tls")],
            name => vec![key("agents"), key(name), key("tls")],
        };
        Some(error(&path, check_agent(agent).err()?))
    });
    let hosts = config.policy.egress.intercepted_hosts();
    let proxy = config.startup.egress.iter().find_map(|egress| egress.proxy.as_ref());
    let authority = proxy.and_then(|proxy| {
        let path = ["listen", "egress", "proxy", "ca"].map(key);
        let hint = "create an authority for all hosts of rules with `proxied: true`: `callgate ca HOST...`";
        Some(with_hint(&path, check_authority(proxy, &hosts, Clock::System.now()).err()?, hint))
    });
    let errors: Vec<_> = listeners.chain(agents).chain(authority).collect();
    if errors.is_empty() { Ok(config) } else { Err(errors) }
}

/// Returns the TLS settings with all file paths resolved below `root`.
fn below(root: &Root, tls: &Tls) -> Tls {
    let find = |path: &str| Box::from(root.find(path).to_string_lossy());
    let files = |files: &CertificateFiles| CertificateFiles {
        certificate: find(&files.certificate),
        key: find(&files.key),
    };
    Tls {
        certificates: tls.certificates.iter().map(files).collect(),
        clients: tls
            .clients
            .as_ref()
            .map(|clients| ClientAuthorities { file: find(&clients.file), ..clients.clone() }),
        ..tls.clone()
    }
}
