//! `callgate providers`: lists the known providers with their signature schemes, or prints the preset of one provider.

use std::io::Write as _;

use clap::Args;
use serde_json::{Value, json};

use super::common::{EXIT_DATA, print_json};
use crate::config::{Addresses, PRESETS, Preset, PresetDefinition, preset};
use crate::signature::Scheme;

#[derive(Args)]
pub(super) struct ProvidersArgs {
    /// Name of a provider whose preset to print.
    name: Option<String>,
    /// Print JSON.
    #[arg(long, conflicts_with = "name")]
    json: bool,
    /// Print the Markdown table of docs/providers.md.
    #[arg(long, conflicts_with_all = ["name", "json"])]
    markdown: bool,
}

pub(super) fn providers(args: &ProvidersArgs) -> u8 {
    if let Some(name) = &args.name {
        return match preset(name) {
            Some((preset, _)) => print(preset.text),
            None => {
                eprintln!("error: there is no provider {name}; `callgate providers` lists them");
                EXIT_DATA
            }
        };
    }
    if args.markdown {
        return print(&provider_table());
    }
    if args.json {
        print_json(&known().map(|(preset, entry)| described(preset, &entry)).collect());
        return 0;
    }
    let line = |(preset, entry): (&Preset, PresetDefinition)| {
        format!("{:<24} {:<34} {}\n", preset.name, shortened(&entry.title), words(&entry))
    };
    print(&known().map(line).collect::<String>())
}

/// Prints a text and returns the exit code. A closed pipe is not an error, because `callgate providers | head` reads
/// only the beginning.
fn print(text: &str) -> u8 {
    u8::from(
        std::io::stdout()
            .write_all(text.as_bytes())
            .is_err_and(|error| error.kind() != std::io::ErrorKind::BrokenPipe),
    )
}

fn known() -> impl Iterator<Item = (&'static Preset, PresetDefinition)> {
    PRESETS.iter().filter_map(|preset| Some((preset, preset.read().ok()?)))
}

fn shortened(title: &str) -> String {
    title.chars().take(34).collect()
}

fn words(entry: &PresetDefinition) -> String {
    match &entry.scheme {
        Some(scheme) if scheme.has_proof() => scheme.summary(),
        _ => "no signature".to_owned(),
    }
}

/// Returns the parts of a request that the provider's signature covers.
fn covered(entry: &PresetDefinition) -> Vec<&'static str> {
    entry.scheme.as_ref().map(|scheme| scheme.covers().names()).unwrap_or_default()
}

/// Returns the gaps of the provider's signature scheme as text: parts that the signature does not cover, and other
/// known weaknesses.
fn uncovered(entry: &PresetDefinition) -> String {
    let mut open = Vec::new();
    let covers = entry.scheme.as_ref().map(Scheme::covers).unwrap_or_default();
    if !covers.body {
        open.push("body".to_owned());
    }
    if !covers.time {
        open.push("time".to_owned());
    }
    if entry.scheme.as_ref().is_some_and(Scheme::accepts_changed_replays) {
        open.push("parts that tell events apart".to_owned());
    }
    open.extend(entry.gaps.as_ref().map(ToString::to_string));
    open.join("; ")
}

/// Returns the parts of a message by which Callgate recognizes duplicates, as text.
fn identity(entry: &PresetDefinition) -> String {
    entry
        .scheme
        .as_ref()
        .filter(|scheme| scheme.has_proof())
        .map(Scheme::describe_identity)
        .unwrap_or_default()
}

fn addresses(entry: &PresetDefinition) -> Option<String> {
    match entry.addresses.as_ref()? {
        Addresses::Feed(url, _) => Some(format!("published at {url}")),
        Addresses::Fixed(networks) => Some(format!("{} documented ranges", networks.len())),
    }
}

fn described(preset: &Preset, entry: &PresetDefinition) -> Value {
    json!({
        "name": preset.name,
        "aliases": entry.aliases,
        "title": entry.title,
        "source": entry.source,
        "evidence": entry.evidence.name(),
        "secret": entry.secret,
        "scheme": words(entry),
        "covers": covered(entry),
        "does_not_cover": uncovered(entry),
        "same_event": identity(entry),
        "handshakes": handshakes(entry),
        "addresses": addresses(entry),
        "inject": entry.callback.is_some(),
    })
}

fn handshakes(entry: &PresetDefinition) -> Vec<&str> {
    entry
        .scheme
        .iter()
        .flat_map(|scheme| scheme.handshakes.iter().map(|handshake| &*handshake.name))
        .collect()
}

/// Returns the Markdown table of all providers for `docs/providers.md`.
pub fn provider_table() -> String {
    let mut table = String::from(
        "| preset | provider | scheme | covers | does not cover | same event if equal | handshakes | `allow: published` | `inject` | `secrets` | checked against |\n\
         |---|---|---|---|---|---|---|---|---|---|---|\n",
    );
    for (preset, entry) in known() {
        let mut name = format!("`{}`", preset.name);
        for alias in &entry.aliases {
            name.push_str(&format!(", `{alias}`"));
        }
        table.push_str(&format!(
            "| {name} | [{}]({}) | {} | {} | {} | {} | {} | {} | {} | {} | {} |",
            entry.title,
            entry.source,
            words(&entry),
            covered(&entry).join(", "),
            uncovered(&entry),
            identity(&entry),
            handshakes(&entry).join(", "),
            addresses(&entry).map_or("", |_| "yes"),
            if entry.callback.is_some() { "yes" } else { "" },
            entry.secret,
            entry.evidence.name(),
        ));
        table.push('\n');
    }
    table
}
