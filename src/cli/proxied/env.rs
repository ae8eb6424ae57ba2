//! `callgate env`: prints the environment variables that make the clients of an agent use the forward proxy.

use std::path::Path;

use clap::{Args, ValueEnum};

use crate::cli::common::{EXIT_USAGE, environment, print_json};
use crate::file::{FILE_BYTES_MAX, read};
use crate::guard::Url;

/// Hosts that clients reach directly: this host, and names of a Kubernetes cluster. Without loopback addresses, an agent
/// would lose its local servers.
const DIRECT: [&str; 5] = ["localhost", "127.0.0.1", "::1", ".svc", ".cluster.local"];
/// The variables with the URL of the proxy. `ALL_PROXY` is not one of them, because it also applies to other protocols.
const PROXY: [&str; 4] = ["HTTPS_PROXY", "HTTP_PROXY", "https_proxy", "http_proxy"];
/// The variables with hosts that are reached directly.
const NO_PROXY: [&str; 2] = ["NO_PROXY", "no_proxy"];
/// The variables with a file that replaces the trusted roots of a program.
const ROOTS: [&str; 6] = [
    "SSL_CERT_FILE",
    "REQUESTS_CA_BUNDLE",
    "CURL_CA_BUNDLE",
    "GIT_SSL_CAINFO",
    "AWS_CA_BUNDLE",
    "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH",
];
/// The variables with a file of certificates that a program trusts in addition.
const MORE: [&str; 2] = ["NODE_EXTRA_CA_CERTS", "DENO_CERT"];

#[derive(Args)]
pub(in crate::cli) struct EnvArgs {
    /// URL of the forward proxy. If it has a password: `http://callgate:PASSWORD@127.0.0.1:8081`.
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8081")]
    proxy: String,
    /// Folder in `listen.egress.proxy.bundle`, as the agent sees it.
    #[arg(long, value_name = "DIR", default_value = "/run/callgate/trust")]
    bundle: String,
    /// Another host that clients reach directly, such as a network of the cluster. Can be repeated.
    #[arg(long, value_name = "HOST")]
    direct: Vec<String>,
    /// Format of the output.
    #[arg(long, value_enum, default_value = "sh")]
    format: Format,
}

/// Formats of the output.
#[derive(Clone, Copy, ValueEnum)]
enum Format {
    /// Commands for a shell: `eval "$(callgate env)"`.
    Sh,
    /// One `NAME=value` per line, for `docker run --env-file`.
    Dotenv,
    /// A JSON object.
    Json,
}

pub(in crate::cli) fn env(args: &EnvArgs) -> u8 {
    let Some(proxy) = ProxyUrl::parse(&args.proxy) else {
        eprintln!(
            "error: `{}` is not the URL of a proxy, such as http://127.0.0.1:8081",
            without_password(&args.proxy)
        );
        return EXIT_USAGE;
    };
    let file = |path: &str| {
        read(Path::new(path), FILE_BYTES_MAX).ok().and_then(|bytes| String::from_utf8(bytes).ok())
    };
    let covers = |ours: &str, theirs: &str| contains(file(ours), file(theirs));
    let (variables, warnings) = variables(&proxy, &args.bundle, &args.direct, environment, covers);
    for warning in warnings {
        eprintln!("warning: {warning}");
    }
    match args.format {
        Format::Json => {
            let members =
                variables.into_iter().map(|(name, value)| (name.to_owned(), value.into())).collect();
            print_json(&serde_json::Value::Object(members));
        }
        Format::Sh => {
            for (name, value) in variables {
                println!("export {name}='{}'", value.replace('\'', "'\\''"));
            }
        }
        Format::Dotenv => {
            for (name, value) in variables {
                println!("{name}={value}");
            }
        }
    }
    0
}

/// The URL of the proxy, with its host and its port.
pub(in crate::cli) struct ProxyUrl {
    text: String,
    url: Url,
}

impl ProxyUrl {
    fn parse(text: &str) -> Option<Self> {
        let url = Url::parse(&without_password(text)).ok()?;
        (url.target() == "/").then(|| Self { text: text.trim_end_matches('/').to_owned(), url })
    }

    /// Returns the URL of a proxy on this host.
    pub(in crate::cli) fn local(port: u16) -> Option<Self> {
        Self::parse(&format!("http://127.0.0.1:{port}"))
    }
}

/// Returns a URL without a user name and a password.
fn without_password(url: &str) -> String {
    match (url.split_once("://"), url.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, host))) => format!("{scheme}://{host}"),
        _ => url.to_owned(),
    }
}

/// Returns the variables, and warnings. `existing` returns the value that a variable already has. `covers` reports whether
/// the first file contains every certificate of the second one.
pub(in crate::cli) fn variables(
    proxy: &ProxyUrl,
    bundle: &str,
    direct: &[String],
    existing: impl Fn(&str) -> Option<String>,
    covers: impl Fn(&str, &str) -> bool,
) -> (Vec<(&'static str, String)>, Vec<String>) {
    let existing = |name: &str| existing(name).filter(|value| !value.is_empty());
    let (all, own) = (format!("{bundle}/bundle.pem"), format!("{bundle}/ca.pem"));
    let mut warnings = Vec::new();
    let mut set: Vec<(&'static str, String)> = PROXY.map(|name| (name, proxy.text.clone())).into();
    for name in NO_PROXY {
        let listed = existing(name).unwrap_or_default();
        let mut hosts: Vec<&str> = DIRECT.into_iter().chain(direct.iter().map(String::as_str)).collect();
        for host in listed.split(',').map(str::trim).filter(|host| !host.is_empty()) {
            if !hosts.contains(&host) {
                hosts.push(host);
            }
        }
        set.push((name, hosts.join(",")));
    }
    // A program that trusts other certificates already may also need a file with both.
    for (names, files) in [(&ROOTS[..], &[&all][..]), (&MORE[..], &[&own, &all])] {
        let Some(ours) = files.first() else { continue };
        for name in names {
            let theirs = existing(name).filter(|theirs| !files.contains(&theirs));
            let covering = |theirs: &String| files.iter().find(|ours| covers(ours, theirs));
            match (theirs.as_ref(), theirs.as_ref().and_then(covering)) {
                (None, _) => set.push((*name, ours.to_string())),
                (Some(_), Some(file)) => set.push((*name, file.to_string())),
                (Some(theirs), None) => warnings.push(format!(
                    "{name} keeps its value {theirs}, which has certificates that {all} lacks: run Callgate with SSL_CERT_FILE={theirs}, so that bundle.pem contains them, or append {own} to the file"
                )),
            }
        }
    }
    set.push(("NODE_USE_ENV_PROXY", "1".to_owned()));
    let (java, warning) = java(proxy, bundle, direct, existing("JAVA_TOOL_OPTIONS"));
    set.push(("JAVA_TOOL_OPTIONS", java));
    warnings.extend(warning);
    (set, warnings)
}

/// Reports whether the file `ours` contains every certificate of the file `theirs`. A file that cannot be read has no
/// certificates.
fn contains(ours: Option<String>, theirs: Option<String>) -> bool {
    let certificates = |text: &str| -> Vec<String> {
        let blocks = text.split("-----BEGIN CERTIFICATE-----").skip(1);
        let bodies = blocks.filter_map(|block| block.split("-----END").next());
        bodies.map(|body| body.chars().filter(|c| !c.is_whitespace()).collect()).collect()
    };
    let ours = certificates(&ours.unwrap_or_default());
    certificates(&theirs.unwrap_or_default()).iter().all(|one| ours.contains(one))
}

/// Returns the options for Java, and a warning. A trust store that the options already name is kept.
fn java(
    proxy: &ProxyUrl,
    bundle: &str,
    direct: &[String],
    existing: Option<String>,
) -> (String, Option<String>) {
    const TRUST_STORE: &str = "-Djavax.net.ssl.trustStore=";
    let (host, port) = (proxy.url.host(), proxy.url.port());
    // Java separates hosts with `|` and writes `*` for all names below a name.
    let hosts = DIRECT.into_iter().chain(direct.iter().map(String::as_str));
    let hosts: Vec<_> =
        hosts.map(|host| if host.starts_with('.') { format!("*{host}") } else { host.to_owned() }).collect();
    let ours = format!(
        "-Dhttps.proxyHost={host} -Dhttps.proxyPort={port} -Dhttp.proxyHost={host} -Dhttp.proxyPort={port} -Dhttp.nonProxyHosts={}",
        hosts.join("|")
    );
    let store = format!("{TRUST_STORE}{bundle}/trust.p12 -Djavax.net.ssl.trustStoreType=PKCS12");
    match existing {
        Some(existing) if existing.contains(&ours) && existing.contains(TRUST_STORE) => (existing, None),
        Some(existing) if existing.contains(TRUST_STORE) => {
            let warning = format!(
                "JAVA_TOOL_OPTIONS names a trust store of its own: add {bundle}/ca.pem to it with `keytool -importcert`"
            );
            (format!("{existing} {ours}"), Some(warning))
        }
        Some(existing) => (format!("{existing} {ours} {store}"), None),
        None => (format!("{ours} {store}"), None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(
        proxy: &str,
        existing: &[(&str, &str)],
        files: &[(&str, &str)],
    ) -> (Vec<(&'static str, String)>, Vec<String>) {
        let find = |all: &[(&str, &str)], name: &str| {
            all.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_owned())
        };
        let proxy = ProxyUrl::parse(proxy).unwrap();
        let covers = |ours: &str, theirs: &str| contains(find(files, ours), find(files, theirs));
        variables(&proxy, "/trust", &["10.0.0.0/8".to_owned()], |name| find(existing, name), covers)
    }

    fn value(all: &[(&'static str, String)], name: &str) -> Option<String> {
        all.iter().find(|(n, _)| *n == name).map(|(_, value)| value.clone())
    }

    #[test]
    fn existing_values_are_kept() {
        let (all, warnings) = of("http://u:p@127.0.0.1:8081/", &[], &[]);
        assert!(warnings.is_empty());
        assert_eq!(value(&all, "HTTPS_PROXY").unwrap(), "http://u:p@127.0.0.1:8081");
        assert_eq!(
            value(&all, "no_proxy").unwrap(),
            "localhost,127.0.0.1,::1,.svc,.cluster.local,10.0.0.0/8"
        );
        assert_eq!(value(&all, "SSL_CERT_FILE").unwrap(), "/trust/bundle.pem");
        assert_eq!(value(&all, "NODE_EXTRA_CA_CERTS").unwrap(), "/trust/ca.pem");
        assert!(!value(&all, "JAVA_TOOL_OPTIONS").unwrap().contains("p@"));
        assert!(value(&all, "ALL_PROXY").is_none());
        let own = [("NO_PROXY", "a.example, localhost"), ("JAVA_TOOL_OPTIONS", "-Xmx1g")];
        let (all, _) = of("http://h:1", &own, &[]);
        assert!(value(&all, "NO_PROXY").unwrap().ends_with(",10.0.0.0/8,a.example"));
        let options = value(&all, "JAVA_TOOL_OPTIONS").unwrap();
        assert!(options.starts_with("-Xmx1g -Dhttps.proxyHost=h -Dhttps.proxyPort=1 "), "{options}");
        assert!(options.contains(" -Djavax.net.ssl.trustStore=/trust/trust.p12 "), "{options}");
        let own = "-Djavax.net.ssl.trustStore=/own.p12";
        let (all, warnings) = of("http://h:1", &[("JAVA_TOOL_OPTIONS", own)], &[]);
        let kept = value(&all, "JAVA_TOOL_OPTIONS").unwrap();
        assert!(kept.starts_with(own) && !kept.contains("/trust/trust.p12"), "{kept}");
        assert!(warnings[0].contains("add /trust/ca.pem to it"), "{warnings:?}");
        let (again, _) = of("http://h:1", &[("JAVA_TOOL_OPTIONS", &options)], &[]);
        assert_eq!(value(&again, "JAVA_TOOL_OPTIONS").unwrap(), options);
    }

    #[test]
    fn no_trusted_root_is_lost() {
        let pem = |body: &str| format!("-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----\n");
        let (ours, theirs) = (pem("AA\nBB") + &pem("CC"), pem("AABB"));
        let with = |theirs: &str| {
            let files = [("/trust/bundle.pem", &*ours), ("/corp.pem", theirs)];
            of("http://h:1", &[("SSL_CERT_FILE", "/corp.pem")], &files)
        };
        let (all, warnings) = with(&theirs);
        assert_eq!(
            (value(&all, "SSL_CERT_FILE").unwrap(), warnings.len()),
            ("/trust/bundle.pem".to_owned(), 0)
        );
        let (all, warnings) = with(&pem("DD"));
        assert!(value(&all, "SSL_CERT_FILE").is_none() && warnings[0].contains("SSL_CERT_FILE=/corp.pem"));
        // Node trusts more certificates than those of Callgate: the file with both replaces theirs.
        let files = [("/trust/bundle.pem", &*ours), ("/trust/ca.pem", &*pem("CC")), ("/corp.pem", &*theirs)];
        let (all, warnings) = of("http://h:1", &[("NODE_EXTRA_CA_CERTS", "/corp.pem")], &files);
        let node = value(&all, "NODE_EXTRA_CA_CERTS").unwrap();
        assert_eq!((node, warnings.len()), ("/trust/bundle.pem".to_owned(), 0));
    }

    #[test]
    fn only_the_url_of_a_proxy_is_accepted() {
        for bad in ["", "127.0.0.1:8081", "socks5://127.0.0.1:1", "http://h/path", "http://127.1"] {
            assert!(ProxyUrl::parse(bad).is_none(), "{bad}");
        }
        assert_eq!(without_password("http://u:p@h:1"), "http://h:1");
    }
}
