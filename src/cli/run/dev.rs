//! `callgate run --dev`: a development mode for the first minutes with Callgate on a laptop. Callers learn why a
//! request was denied, and no other machine can reach the listeners.

use std::net::SocketAddr;

use crate::config::{Config, Startup};
use crate::policy::Policy;
use crate::proxy::Server;
use crate::source::reachable;

/// The settings of the development mode (`callgate run --dev`).
#[derive(Clone, Copy, Debug)]
pub(super) struct Dev {
    /// Whether Callgate runs in development mode.
    pub(super) is_on: bool,
    /// Whether development mode accepts listeners that other machines can reach.
    pub(super) any_address: bool,
}

impl Dev {
    /// Returns the configuration with the changes of the development mode.
    pub(super) fn apply(self, mut config: Config) -> Config {
        config.policy.explain_denials |= self.is_on;
        config
    }

    /// Checks that no other machine can reach the listeners in development mode. Does not check this if `any_address`
    /// is true.
    ///
    /// # Errors
    /// Returns a message for each listener that other machines could reach.
    pub(super) fn check(self, startup: &Startup) -> Result<(), Vec<String>> {
        if !self.is_on || self.any_address {
            return Ok(());
        }
        let ingress = startup.ingress.iter().enumerate();
        let ingress = ingress.map(|(i, listener)| (format!("listen.ingress[{i}].address"), listener.address));
        let egress =
            startup.egress.as_ref().map(|egress| ("listen.egress.address".to_owned(), egress.address));
        let admin = startup.admin.as_ref().map(|admin| ("listen.admin.address".to_owned(), admin.address));
        let replicas = startup.replicas.as_ref();
        let replicas = replicas.map(|replicas| ("replicas.address".to_owned(), replicas.listener.address));
        let all = ingress.chain(egress).chain(admin).chain(replicas);
        let reached = all.filter(|(_, address)| !address.ip().to_canonical().is_loopback());
        let message = |(key, address): (String, SocketAddr)| {
            format!(
                "{key}: with --dev, other machines must not reach {address}; use a loopback address such as \
                 127.0.0.1:{}, or add --any-address",
                address.port()
            )
        };
        let messages: Vec<_> = reached.map(message).collect();
        if messages.is_empty() { Ok(()) } else { Err(messages) }
    }

    /// Prints the addresses of the listeners and what the development mode does, if the mode is on.
    pub(super) fn announce(self, server: &Server, policy: &Started) {
        if self.is_on {
            eprint!("{}", banner(&server.ingress, server.egress, server.admin, policy));
        }
    }
}

/// The facts about a configuration that the banner of the development mode contains.
pub(super) struct Started {
    /// Whether the first ingress listener has TLS.
    has_tls: bool,
    /// The method and the path of the first route, with `test` in place of each path capture. `None` if there is no
    /// route.
    request: Option<(String, String)>,
}

impl Started {
    pub(super) fn new(startup: &Startup, policy: &Policy) -> Self {
        let has_tls = startup.ingress.first().is_some_and(|listener| listener.tls.is_some());
        let request = policy.ingress.routes().first().and_then(|route| {
            let path = route.path.fill(|_| Some("test"))?;
            Some((route.methods.first().map_or("POST", http::Method::as_str).to_owned(), path))
        });
        Self { has_tls, request }
    }
}

fn banner(
    ingress: &[SocketAddr],
    egress: Option<SocketAddr>,
    admin: Option<SocketAddr>,
    started: &Started,
) -> String {
    let scheme = if started.has_tls { "https" } else { "http" };
    let mut lines = vec![
        "DEVELOPMENT MODE: callers learn why a request was denied. Do not use --dev in production."
            .to_owned(),
    ];
    lines.extend(ingress.iter().map(|address| format!("callbacks   {scheme}://{}", reachable(*address))));
    lines.extend(egress.map(|address| format!("egress      http://{}", reachable(address))));
    lines.extend(admin.map(|address| format!("admin page  http://{}/", reachable(address))));
    if let (Some(address), Some((method, path))) = (ingress.first(), &started.request) {
        let insecure = if started.has_tls { "k" } else { "" };
        let url = format!("{scheme}://{}{path}", reachable(*address));
        lines.push(format!("try         curl -i{insecure} -X {method} {url}"));
    }
    let width = lines.iter().map(String::len).max().unwrap_or_default();
    let rule = format!("+-{}-+\n", "-".repeat(width));
    let boxed: String = lines.iter().map(|line| format!("| {line:width$} |\n")).collect();
    format!("{rule}{boxed}{rule}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_banner_names_the_listeners_and_a_command() {
        let at = |port| SocketAddr::from(([127, 0, 0, 1], port));
        let started = Started { has_tls: false, request: Some(("POST".to_owned(), "/a/test".to_owned())) };
        let banner = banner(&[at(8080)], Some(at(8081)), Some(at(9901)), &started);
        for words in [
            "DEVELOPMENT MODE",
            "http://127.0.0.1:8081 ",
            "http://127.0.0.1:9901/",
            "curl -i -X POST http://127.0.0.1:8080/a/test",
        ] {
            assert!(banner.contains(words), "{words}: {banner}");
        }
        let widths: Vec<_> = banner.lines().map(str::len).collect();
        assert!(widths.iter().all(|width| *width == widths[0]), "{banner}");
    }
}
