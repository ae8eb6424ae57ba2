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
    let Some(path) = &args.output else {
        return u8::from(std::io::stdout().write_all(text.as_bytes()).is_err());
    };
    let written = OpenOptions::new().write(true).create_new(true).open(path);
    match written.and_then(|mut file| file.write_all(text.as_bytes())) {
        Ok(()) => {
            eprintln!("wrote {}; its comments say what to change", path.display());
            0
        }
        Err(error) => {
            eprintln!("error: {}: {error}", path.display());
            EXIT_USAGE
        }
    }
}
