//! `callgate check --against URL`: compares a configuration with the one that a running Callgate uses.

use std::net::ToSocketAddrs;
use std::path::Path;

use serde::Deserialize;
use serde_json::{Value, json};

use crate::cli::admin_client::{Request, send};
use crate::config::{RestartSetting, Startup};
use crate::observe::config_version;

/// What the running Callgate reports about its configuration.
#[derive(Deserialize)]
struct Running {
    program: String,
    version: String,
    generation: u64,
    restart: Vec<RestartSetting>,
}

/// What a reload of the running Callgate would do.
pub(super) struct Comparison {
    url: String,
    /// Whether the running Callgate uses this text already.
    is_in_use: bool,
    generation: u64,
    /// The version of the running program if it is another one than this program's.
    other_program: Option<String>,
    /// Each setting that only a restart can change and that differs: its key, its running value and its new value.
    differences: Vec<(String, String, String)>,
}

/// Asks the running Callgate at `url` for its configuration, and compares.
///
/// # Errors
/// Returns an explanation if there is no usable answer.
pub(super) fn compare(
    url: &str,
    token: Option<&[u8]>,
    startup: &Startup,
    text: &str,
) -> Result<Comparison, String> {
    let authority = authority(url)?;
    let failed = |error: &dyn std::fmt::Display| format!("no answer from {url}: {error}");
    let addresses: Vec<_> = authority.to_socket_addrs().map_err(|error| failed(&error))?.collect();
    let mut answer = Err(failed(&"the name has no address"));
    for address in addresses {
        answer = send(address, &Request { host: Some(authority), token, ..Request::to("GET", "/config") })
            .map_err(|error| failed(&error));
        if answer.is_ok() {
            break;
        }
    }
    let (status, body) = answer?;
    let running: Running = match serde_json::from_str(&body) {
        Ok(running) if status == 200 => running,
        _ => {
            let line: String =
                body.lines().next().unwrap_or_default().chars().filter(|c| !c.is_control()).collect();
            return Err(format!("{line} (HTTP {status} from {url})"));
        }
    };
    let own = startup.restart_settings();
    let value = |settings: &[RestartSetting], key: &str| {
        settings.iter().find(|setting| setting.key == key).map(|setting| setting.value.clone())
    };
    // A setting that only one of two program versions has cannot be compared.
    let differences = own.iter().filter_map(|new| {
        let old = value(&running.restart, &new.key)?;
        (old != new.value).then(|| (new.key.to_string(), old, new.value.clone()))
    });
    let differences = differences.collect();
    Ok(Comparison {
        url: url.to_owned(),
        is_in_use: running.version == config_version(text),
        generation: running.generation,
        other_program: Some(running.program).filter(|program| program != env!("CARGO_PKG_VERSION")),
        differences,
    })
}

/// Returns the host and the port of the URL of an admin listener.
fn authority(url: &str) -> Result<&str, String> {
    let rest = url.strip_prefix("http://").map(|rest| rest.strip_suffix('/').unwrap_or(rest));
    let is_port = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    rest.filter(|rest| !rest.contains(['/', '?', '#', '@']) && !rest.contains(char::is_whitespace))
        .filter(|rest| rest.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && is_port(port)))
        .ok_or_else(|| {
            "--against: expected the URL of an admin listener, such as http://127.0.0.1:9901".to_owned()
        })
}

/// Checks the value of `--against`.
pub(super) fn url(text: &str) -> Result<String, String> {
    authority(text).map(|_| text.to_owned())
}

impl Comparison {
    /// Returns the settings that need a restart.
    pub(super) fn restart(&self) -> Vec<&str> {
        self.differences.iter().map(|(key, ..)| key.as_str()).collect()
    }

    /// Returns the comparison as JSON.
    pub(super) fn to_json(&self) -> Value {
        let changes: Vec<_> = self
            .differences
            .iter()
            .map(|(key, running, new)| json!({ "key": key, "running": running, "new": new }))
            .collect();
        json!({
            "url": self.url,
            "in_use": self.is_in_use,
            "generation": self.generation,
            "restart": changes,
        })
    }

    /// Prints what a reload would do.
    pub(super) fn print(&self, file: &Path) {
        let Self { url, generation, .. } = self;
        if let Some(program) = &self.other_program {
            eprintln!(
                "warning: {url} runs version {program}, and this is version {}; the other version can read the file \
                 differently",
                env!("CARGO_PKG_VERSION")
            );
        }
        if self.differences.is_empty() {
            match self.is_in_use {
                true => println!("{url}: generation {generation} uses this configuration already"),
                false => println!("{url}: a reload would replace generation {generation}"),
            }
            return;
        }
        for (key, running, new) in &self.differences {
            eprintln!("error: {}: {key}: only a restart can change {running} to {new}", file.display());
        }
        eprintln!(
            "{url}: a reload would be rejected: only a restart can change {}",
            self.restart().join(", ")
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_url_of_an_admin_listener() {
        for (url, expected) in [
            ("http://127.0.0.1:9901", "127.0.0.1:9901"),
            ("http://[::1]:9901/", "[::1]:9901"),
            ("http://callgate-admin:9901", "callgate-admin:9901"),
        ] {
            assert_eq!(authority(url), Ok(expected));
        }
        for url in [
            "127.0.0.1:9901",
            "https://h:1",
            "http://h",
            "http://:1",
            "http://h:x",
            "http://h:1/x",
            "http://a@h:1",
        ] {
            assert!(authority(url).is_err(), "{url}");
        }
    }
}
