//! `callgate init`: writes a first configuration for one or more providers. The configuration is compiled before it is
//! written.

mod configuration;

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::PathBuf;

use clap::Args;

use super::common::{EXIT_DATA, EXIT_USAGE};
use crate::config::{PresetDefinition, preset};

pub use configuration::first_configuration;

#[derive(Args)]
pub(super) struct InitArgs {
    /// A provider. Repeat the option for each provider. `callgate providers` lists all names.
    #[arg(long = "provider", value_name = "NAME", required = true)]
    providers: Vec<String>,
    /// For the first minutes with `callgate run --dev`: no other machine can reach the listeners, and callback URLs
    /// begin with an address of this host.
    #[arg(long)]
    dev: bool,
    /// The file to write, which must not exist. Default: standard output.
    #[arg(short = 'o', long, value_name = "FILE")]
    output: Option<PathBuf>,
}

pub(super) fn init(args: &InitArgs) -> u8 {
    let mut known: Vec<(&str, PresetDefinition)> = Vec::new();
    let mut presets = Vec::new();
    for name in &args.providers {
        let Some((found, entry)) = preset(name) else {
            eprintln!("error: there is no provider {name}; `callgate providers` lists them");
            return EXIT_DATA;
        };
        if presets.contains(&found.name) {
            let preset = if found.name == name { String::new() } else { format!(" ({})", found.name) };
            eprintln!("error: the provider {name}{preset} is given twice");
            return EXIT_DATA;
        }
        presets.push(found.name);
        known.push((name, entry));
    }
    let Some(text) = first_configuration(&known) else {
        let titles: Vec<_> = known.iter().map(|(_, entry)| &*entry.title).collect();
        let titles = titles.join(" and ");
        eprintln!("error: no first configuration can be made for {titles}: see docs/providers.md");
        return EXIT_DATA;
    };
    let text = if args.dev { for_this_host(&text) } else { text };
    let Some(path) = &args.output else {
        return u8::from(std::io::stdout().write_all(text.as_bytes()).is_err());
    };
    let written = OpenOptions::new().write(true).create_new(true).open(path);
    match written.and_then(|mut file| file.write_all(text.as_bytes())) {
        Ok(()) => {
            eprintln!("wrote {}; its comments say what to change", path.display());
            let variables = variables(&text);
            if !variables.is_empty() {
                eprintln!("set these environment variables before you run it: {}", variables.join(", "));
            }
            0
        }
        Err(error) => {
            eprintln!("error: {}: {error}", path.display());
            EXIT_USAGE
        }
    }
}

/// Changes a configuration so that only this host can reach its listeners, and returns its text.
fn for_this_host(text: &str) -> String {
    let lines = text.lines().map(|line| match line.trim_start() {
        begin if begin.starts_with("public_url: ") => {
            "public_url: http://127.0.0.1:8080  # behind a tunnel: the URL of the tunnel (docs/laptops.md)"
                .to_owned()
        }
        begin if begin.starts_with("ingress: ") => {
            "  ingress: [ { address: 127.0.0.1:8080 } ]  # only this host; a tunnel connects from here"
                .to_owned()
        }
        _ => line.to_owned(),
    });
    lines.map(|line| line + "\n").collect()
}

/// Returns the names of the environment variables in the text of a configuration. Ignores comments.
fn variables(text: &str) -> Vec<&str> {
    let active = text.lines().filter(|line| !line.trim_start().starts_with('#'));
    let mut names: Vec<_> = active
        .flat_map(|line| line.split("{ env: ").skip(1))
        .filter_map(|rest| rest.split_once(" }").map(|(name, _)| name))
        .collect();
    names.sort_unstable();
    names.dedup();
    names
}
