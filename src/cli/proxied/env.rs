//! `callgate env`: prints the environment variables that make the clients of an agent use the forward proxy.

use std::path::Path;

use clap::{Args, ValueEnum};

use super::java::{java, merge};
use crate::cli::common::{EXIT_USAGE, environment, print_json};
use crate::egress::DIRECT_HOSTS;
use crate::file::{FILE_BYTES_MAX, read};
use crate::guard::Url;

/// The environment variables for the URL of the forward proxy. `ALL_PROXY` is not among them, because it also applies
/// to other protocols than HTTP.
const PROXY: [&str; 4] = ["HTTPS_PROXY", "HTTP_PROXY", "https_proxy", "http_proxy"];
/// The environment variables for the hosts that clients reach directly, without the proxy.
const NO_PROXY: [&str; 2] = ["NO_PROXY", "no_proxy"];
/// The environment variables for a certificate file that replaces the trusted roots of a program.
const ROOTS: [&str; 6] = [
    "SSL_CERT_FILE",
    "REQUESTS_CA_BUNDLE",
    "CURL_CA_BUNDLE",
    "GIT_SSL_CAINFO",
    "AWS_CA_BUNDLE",
    "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH",
];
/// The environment variables for a certificate file that a program trusts in addition to its own roots.
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
    let covers = |ours: &str, theirs: &str| file(ours).map(|ours| contains(Some(ours), file(theirs)));
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

/// The URL of the forward proxy, as text and parsed. Only the text contains the password.
pub(in crate::cli) struct ProxyUrl {
    text: String,
    url: Url,
}

impl ProxyUrl {
    fn parse(text: &str) -> Option<Self> {
        let url = Url::parse(&without_password(text)).ok()?;
        (url.target() == "/").then(|| Self { text: text.trim_end_matches('/').to_owned(), url })
    }

    /// Returns the URL of a forward proxy on this host.
    pub(in crate::cli) fn local(port: u16) -> Option<Self> {
        Self::parse(&format!("http://127.0.0.1:{port}"))
    }
}

/// Returns a URL without its user name and password.
fn without_password(url: &str) -> String {
    match (url.split_once("://"), url.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, host))) => format!("{scheme}://{host}"),
        _ => url.to_owned(),
    }
}

/// Returns the environment variables with which clients use the forward proxy, and warnings. `existing` returns the
/// current value of a variable. `covers(a, b)` reports whether the file `a` contains every certificate of the file `b`.
/// It returns `None` if the file `a` does not exist yet.
pub(in crate::cli) fn variables(
    proxy: &ProxyUrl,
    bundle: &str,
    direct: &[String],
    existing: impl Fn(&str) -> Option<String>,
    covers: impl Fn(&str, &str) -> Option<bool>,
) -> (Vec<(&'static str, String)>, Vec<String>) {
    let existing = |name: &str| existing(name).filter(|value| !value.is_empty());
    let (all, own) = (format!("{bundle}/bundle.pem"), format!("{bundle}/ca.pem"));
    let mut set: Vec<(&'static str, String)> = PROXY.map(|name| (name, proxy.text.clone())).into();
    let mut warnings: Vec<_> = replaced(proxy, existing).into_iter().collect();
    // A client reads either `NO_PROXY` or `no_proxy`, so each of them needs the hosts of both.
    let listed = NO_PROXY.map(|name| existing(name).unwrap_or_default());
    let mut hosts: Vec<&str> = DIRECT_HOSTS.into_iter().chain(direct.iter().map(String::as_str)).collect();
    merge(&mut hosts, listed.iter().flat_map(|listed| listed.split(',')));
    set.extend(NO_PROXY.map(|name| (name, hosts.join(","))));
    if hosts.contains(&"*") {
        warnings
            .push("NO_PROXY contains `*`: clients reach every host directly, without Callgate".to_owned());
    }
    // If a variable already names a file with trusted certificates, its value changes only to a file that contains all
    // of these certificates.
    let mut kept: Vec<(&str, String)> = Vec::new();
    for (names, files) in [(&ROOTS[..], &[&all][..]), (&MORE[..], &[&own, &all])] {
        let Some(ours) = files.first() else { continue };
        for name in names {
            let theirs = existing(name).filter(|theirs| !files.contains(&theirs));
            let covering = |theirs: &String| files.iter().find(|ours| covers(ours, theirs) == Some(true));
            match (theirs.as_ref(), theirs.as_ref().and_then(covering)) {
                (None, _) => set.push((*name, ours.to_string())),
                (Some(_), Some(file)) => set.push((*name, file.to_string())),
                (Some(theirs), None) => kept.push((*name, theirs.clone())),
            }
        }
    }
    warnings.extend(kept_roots(&kept, bundle, covers(&all, &all).is_some()));
    set.push(("NODE_USE_ENV_PROXY", "1".to_owned()));
    let (java, warning) = java(&proxy.url, bundle, direct, existing("JAVA_TOOL_OPTIONS"));
    set.push(("JAVA_TOOL_OPTIONS", java));
    warnings.extend(warning);
    (set, warnings)
}

/// Returns a warning if the variables in [`PROXY`] currently name another forward proxy. The URL of Callgate's forward
/// proxy replaces the URL of this other proxy.
fn replaced(proxy: &ProxyUrl, existing: impl Fn(&str) -> Option<String>) -> Option<String> {
    let own = PROXY.into_iter().filter_map(|name| {
        let url = existing(name).filter(|url| url.trim_end_matches('/') != proxy.text)?;
        Some((name, without_password(&url)))
    });
    let (names, urls): (Vec<_>, Vec<_>) = own.unzip();
    let url = urls.first()?;
    Some(format!(
        "the proxy of Callgate replaces {url} in {}: if Callgate itself must connect through that proxy, write `outbound_proxy: {{ url: {url} }}` into its configuration",
        names.join(", ")
    ))
}

/// Returns warnings about the variables in `kept`, each with the path of its certificate file. These variables keep
/// their values, because `bundle.pem` does not contain all certificates of their files. `has_bundle` is true if
/// `bundle.pem` exists.
fn kept_roots(kept: &[(&str, String)], bundle: &str, has_bundle: bool) -> Vec<String> {
    let mut files: Vec<(&String, Vec<&str>)> = Vec::new();
    for (name, theirs) in kept {
        match files.iter_mut().find(|(file, _)| *file == theirs) {
            Some((_, names)) => names.push(name),
            None => files.push((theirs, vec![name])),
        }
    }
    let named = |names: &[&str]| {
        format!("{} {}", names.join(", "), if names.len() == 1 { "keeps its" } else { "keep their" })
    };
    if !has_bundle && let Some((first, _)) = files.first() {
        let names: Vec<_> = kept.iter().map(|(name, _)| *name).collect();
        return vec![format!(
            "{bundle}/bundle.pem does not exist yet, so {} other trusted roots: start Callgate with SSL_CERT_FILE={first}, so that bundle.pem contains them, and then run `callgate env` again",
            named(&names)
        )];
    }
    let warning = |(theirs, names): &(&String, Vec<&str>)| {
        format!(
            "{} value {theirs}, which has certificates that {bundle}/bundle.pem lacks: run Callgate with SSL_CERT_FILE={theirs}, so that bundle.pem contains them, or append {bundle}/ca.pem to the file",
            named(names)
        )
    };
    files.iter().map(warning).collect()
}

/// Reports whether the PEM text `ours` contains every certificate of the PEM text `theirs`. `None` stands for a file
/// that cannot be read, which counts as a file without certificates.
fn contains(ours: Option<String>, theirs: Option<String>) -> bool {
    let certificates = |text: &str| -> Vec<String> {
        let blocks = text.split("-----BEGIN CERTIFICATE-----").skip(1);
        let bodies = blocks.filter_map(|block| block.split("-----END").next());
        bodies.map(|body| body.chars().filter(|c| !c.is_whitespace()).collect()).collect()
    };
    let ours = certificates(&ours.unwrap_or_default());
    certificates(&theirs.unwrap_or_default()).iter().all(|one| ours.contains(one))
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
        let covers = |ours: &str, theirs: &str| {
            find(files, ours).map(|ours| contains(Some(ours), find(files, theirs)))
        };
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
    fn both_spellings_have_the_hosts_of_both() {
        for own in [
            &[("NO_PROXY", "a.example,b.example")][..],
            &[("no_proxy", "a.example,b.example")],
            &[("NO_PROXY", "a.example, localhost"), ("no_proxy", "b.example,a.example")],
        ] {
            let (all, warnings) = of("http://h:1", own, &[]);
            for name in NO_PROXY {
                let value = value(&all, name).unwrap();
                assert!(value.ends_with(",10.0.0.0/8,a.example,b.example"), "{own:?} {value}");
            }
            assert!(warnings.is_empty(), "{warnings:?}");
        }
        let (_, warnings) = of("http://h:1", &[("no_proxy", "*")], &[]);
        assert!(warnings.len() == 1 && warnings[0].contains("every host directly"), "{warnings:?}");
    }

    #[test]
    fn a_proxy_that_is_replaced_is_named() {
        let own =
            [("HTTPS_PROXY", "http://u:secret@corp-proxy:3128"), ("https_proxy", "http://corp-proxy:3128")];
        let (all, warnings) = of("http://h:1", &own, &[]);
        assert_eq!(value(&all, "HTTPS_PROXY").unwrap(), "http://h:1");
        assert_eq!(warnings.len(), 1, "{warnings:?}");
        let warning = &warnings[0];
        assert!(warning.contains("http://corp-proxy:3128 in HTTPS_PROXY, https_proxy"), "{warning}");
        assert!(warning.contains("`outbound_proxy: { url: http://corp-proxy:3128 }`"), "{warning}");
        assert!(!warning.contains("secret"), "{warning}");
        let (_, warnings) = of("http://h:1", &[("HTTPS_PROXY", "http://h:1/")], &[]);
        assert!(warnings.is_empty(), "{warnings:?}");
    }

    #[test]
    fn java_keeps_the_hosts_that_it_reaches_directly() {
        for own in [
            "-Xmx1g -Dhttp.nonProxyHosts=*.corp|10.* -Dhttps.proxyHost=corp -Dhttps.proxyPort=3128",
            "-Xmx1g '-Dhttp.nonProxyHosts=*.corp|10.*'",
            "-Xmx1g -Dhttp.nonProxyHosts=\"*.corp|localhost|10.*\"",
        ] {
            let (all, _) = of("http://h:1", &[("JAVA_TOOL_OPTIONS", own)], &[]);
            let options = value(&all, "JAVA_TOOL_OPTIONS").unwrap();
            assert!(options.starts_with("-Xmx1g -Dhttps.proxyHost=h -Dhttps.proxyPort=1 "), "{options}");
            assert!(options.contains("|10.0.0.0/8|*.corp|10.* "), "{options}");
            assert_eq!(options.matches("nonProxyHosts").count(), 1, "{options}");
            assert!(!options.contains("corp -D") && !options.contains("3128"), "{options}");
            let (again, _) = of("http://h:1", &[("JAVA_TOOL_OPTIONS", &options)], &[]);
            assert_eq!(value(&again, "JAVA_TOOL_OPTIONS").unwrap(), options);
        }
        let spaced = "-Dagent=\"a b\" '-Dx=c d'";
        let (all, _) = of("http://h:1", &[("JAVA_TOOL_OPTIONS", spaced)], &[]);
        assert!(value(&all, "JAVA_TOOL_OPTIONS").unwrap().starts_with(spaced));
    }

    #[test]
    fn a_missing_bundle_is_one_warning() {
        let own: Vec<_> = ROOTS.iter().chain(&MORE).map(|name| (*name, "/corp.pem")).collect();
        let (_, warnings) = of("http://h:1", &own, &[("/corp.pem", "x")]);
        assert_eq!(warnings.len(), 1, "{warnings:?}");
        assert!(warnings[0].starts_with("/trust/bundle.pem does not exist yet"), "{warnings:?}");
        assert!(ROOTS.iter().chain(&MORE).all(|name| warnings[0].contains(name)), "{warnings:?}");
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
        // `NODE_EXTRA_CA_CERTS` names a file with another certificate. It must change to `bundle.pem`, which contains
        // both this certificate and the certificate of Callgate.
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
