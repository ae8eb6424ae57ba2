//! The options that make Java use the forward proxy and trust its certificates (`JAVA_TOOL_OPTIONS`).

use crate::egress::DIRECT_HOSTS;
use crate::guard::Url;

/// Returns the value of `JAVA_TOOL_OPTIONS` for the forward proxy. `existing` is the current value. Retains its hosts
/// and its trust store. Also returns a warning if the current value names a trust store other than Callgate's.
pub(super) fn java(
    proxy: &Url,
    bundle: &str,
    direct: &[String],
    existing: Option<String>,
) -> (String, Option<String>) {
    const TRUST_STORE: &str = "-Djavax.net.ssl.trustStore=";
    const HOSTS: &str = "-Dhttp.nonProxyHosts=";
    let (host, port) = (proxy.host(), proxy.port());
    let address = [
        ("-Dhttps.proxyHost=", host.to_owned()),
        ("-Dhttps.proxyPort=", port.to_string()),
        ("-Dhttp.proxyHost=", host.to_owned()),
        ("-Dhttp.proxyPort=", port.to_string()),
    ];
    let store =
        [format!("{TRUST_STORE}{bundle}/trust.p12"), "-Djavax.net.ssl.trustStoreType=PKCS12".to_owned()];
    // Java separates hosts with `|`, and expects `*.example.com` instead of `.example.com`.
    let ours = DIRECT_HOSTS.into_iter().chain(direct.iter().map(String::as_str));
    let ours: Vec<_> =
        ours.map(|host| if host.starts_with('.') { format!("*{host}") } else { host.to_owned() }).collect();
    let mut hosts: Vec<&str> = ours.iter().map(String::as_str).collect();
    let existing = existing.unwrap_or_default();
    // If an option occurs twice, Java uses the last one. An existing option is therefore replaced, not repeated.
    let mut kept = Vec::new();
    let options: Vec<_> =
        options(&existing).into_iter().map(|raw| (raw, raw.replace(['"', '\''], ""))).collect();
    for (raw, option) in &options {
        match option.strip_prefix(HOSTS) {
            Some(listed) => merge(&mut hosts, listed.split('|')),
            None if address.iter().any(|(name, _)| option.starts_with(name)) => {}
            None if store.contains(option) => {}
            None => kept.push(*raw),
        }
    }
    let has_store = options.iter().any(|(raw, option)| option.starts_with(TRUST_STORE) && kept.contains(raw));
    let mut all: Vec<String> = kept.into_iter().map(str::to_owned).collect();
    all.extend(address.map(|(name, value)| name.to_owned() + &value));
    all.push(format!("{HOSTS}{}", hosts.join("|")));
    if has_store {
        let warning = format!(
            "JAVA_TOOL_OPTIONS names a trust store of its own: add {bundle}/ca.pem to it with `keytool -importcert`"
        );
        return (all.join(" "), Some(warning));
    }
    all.extend(store);
    (all.join(" "), None)
}

/// Appends to `hosts` the hosts of `more` that `hosts` does not contain yet.
pub(super) fn merge<'h>(hosts: &mut Vec<&'h str>, more: impl Iterator<Item = &'h str>) {
    for host in more.map(str::trim).filter(|host| !host.is_empty()) {
        if !hosts.contains(&host) {
            hosts.push(host);
        }
    }
}

/// Splits the value of `JAVA_TOOL_OPTIONS` into options. As in Java, white space separates options, except in quotes.
fn options(text: &str) -> Vec<&str> {
    let mut quote = None;
    let is_end = |c: char| {
        match quote {
            None if matches!(c, '"' | '\'') => quote = Some(c),
            Some(open) if open == c => quote = None,
            _ => {}
        }
        quote.is_none() && c.is_whitespace()
    };
    text.split(is_end).filter(|option| !option.is_empty()).collect()
}
