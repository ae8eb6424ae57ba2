//! `callgate check --against URL`: compares a configuration with the configuration that a running Callgate uses.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;
use serde_json::{Value, json};

use crate::cli::admin_api::AdminAddress;
use crate::cli::admin_client::Request;
use crate::cli::common::printable;
use crate::config::{Config, RestartSetting};
use crate::observe::config_version;

/// The response of the running Callgate to `GET /config`: its configuration, and the version of the program.
#[derive(Deserialize)]
struct Running {
    program: String,
    version: String,
    generation: u64,
    restart: Vec<RestartSetting>,
    /// The environment variables of the running configuration. Missing in the responses of earlier versions of
    /// Callgate.
    #[serde(default)]
    environment: BTreeMap<String, String>,
}

/// A comparison of a configuration with the configuration of the running Callgate. It shows what a reload would do.
pub(super) struct Comparison {
    url: String,
    /// Whether the running Callgate already uses a configuration with the same text.
    has_text: bool,
    /// The names of the environment variables whose values in this process and in the running Callgate differ. A reload
    /// does not change the values in the running Callgate.
    environment: Vec<String>,
    generation: u64,
    /// The version of the running Callgate. `None` if this program has the same version.
    other_program: Option<String>,
    /// The settings that differ and that only a restart can change. Each entry contains the key, the value in the
    /// running Callgate, and the new value.
    differences: Vec<(String, String, String)>,
}

/// Asks the running Callgate at `url` for its configuration, and compares `config` with it. `text` is the text of
/// `config`.
///
/// # Errors
/// Returns an explanation if there is no usable response.
pub(super) fn compare(
    url: &str,
    token: Option<&[u8]>,
    config: &Config,
    text: &str,
) -> Result<Comparison, String> {
    let request = Request { token, ..Request::to("GET", "/config") };
    let answer = address(url)?.send(&request);
    let (status, body) = answer.map_err(|error| format!("no answer from {url}: {error}"))?;
    let running: Running = match serde_json::from_str(&body) {
        Ok(running) if status == 200 => running,
        _ => {
            let line = printable(body.lines().next().unwrap_or_default());
            return Err(format!("{line} (HTTP {status} from {url})"));
        }
    };
    let own = config.startup.restart_settings();
    let value = |settings: &[RestartSetting], key: &str| {
        settings.iter().find(|setting| setting.key == key).map(|setting| setting.value.clone())
    };
    // A setting that exists in only one of the two program versions cannot be compared, so it is skipped.
    let differences = own.iter().filter_map(|new| {
        let old = value(&running.restart, &new.key)?;
        (old != new.value).then(|| (new.key.to_string(), old, new.value.clone()))
    });
    let differences = differences.collect();
    let differs = |(name, value): (&String, &String)| {
        running.environment.get(name).is_some_and(|other| other != value).then(|| name.clone())
    };
    let environment = config.environment.iter().filter_map(differs).collect();
    Ok(Comparison {
        url: url.to_owned(),
        has_text: running.version == config_version(text),
        environment,
        generation: running.generation,
        other_program: Some(running.program).filter(|program| program != env!("CARGO_PKG_VERSION")),
        differences,
    })
}

fn address(url: &str) -> Result<AdminAddress, String> {
    AdminAddress::of_url(url).ok_or_else(|| {
        "--against: expected the URL of an admin listener, such as http://127.0.0.1:9901".to_owned()
    })
}

/// Parses the value of `--against`, the URL of an admin listener.
pub(super) fn url(text: &str) -> Result<String, String> {
    address(text).map(|_| text.to_owned())
}

impl Comparison {
    /// Returns the keys of the settings that differ and that only a restart can change.
    pub(super) fn restart(&self) -> Vec<&str> {
        self.differences.iter().map(|(key, ..)| key.as_str()).collect()
    }

    /// Returns the comparison with the running Callgate as JSON.
    pub(super) fn to_json(&self) -> Value {
        let changes: Vec<_> = self
            .differences
            .iter()
            .map(|(key, running, new)| json!({ "key": key, "running": running, "new": new }))
            .collect();
        json!({
            "url": self.url,
            "in_use": self.has_text && self.environment.is_empty(),
            "environment": self.environment,
            "generation": self.generation,
            "restart": changes,
        })
    }

    /// Prints what a reload of the running Callgate would do with the configuration in `file`.
    pub(super) fn print(&self, file: &Path) {
        let Self { url, generation, .. } = self;
        if let Some(program) = self.other_program.as_deref().map(printable) {
            eprintln!(
                "warning: {url} runs version {program}, and this is version {}; the other version can read the file \
                 differently",
                env!("CARGO_PKG_VERSION")
            );
        }
        if !self.environment.is_empty() {
            eprintln!(
                "warning: {} {} in {url}: a reload does not change the environment of a process",
                self.environment.join(", "),
                if self.environment.len() == 1 { "has another value" } else { "have other values" }
            );
        }
        if self.differences.is_empty() {
            match self.has_text {
                true if !self.environment.is_empty() => {
                    println!(
                        "{url}: generation {generation} uses this text already, with another environment"
                    );
                }
                true => println!("{url}: generation {generation} uses this configuration already"),
                false => println!("{url}: a reload would replace generation {generation}"),
            }
            return;
        }
        for (key, running, new) in &self.differences {
            let (running, new) = (printable(running), printable(new));
            eprintln!("error: {}: {key}: only a restart can change {running} to {new}", file.display());
        }
        eprintln!(
            "{url}: a reload would be rejected: only a restart can change {}",
            self.restart().join(", ")
        );
    }
}
