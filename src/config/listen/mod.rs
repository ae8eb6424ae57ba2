//! Reads the configuration section `listen`, and the limits and certificates that belong to listeners.

mod client_address;
mod limits;
mod listener;
mod proxy;
mod replicas;
mod tls;

use std::net::SocketAddr;
use std::sync::Arc;

use crate::config::yaml::{Cursor, Fields};
use crate::egress::ForwardProxy;
use crate::path::CanonicalPath;
use crate::secret::Secret;
use crate::source::Networks;
use limits::BODY_MEMORY_MAX;
use listener::address;
use tls::{egress_tls, tls};

pub use listener::Listener;
pub use replicas::ReplicaListener;
pub use tls::{CertificateFiles, ClientAuthorities, Resumption, Tls};

pub(super) use client_address::client_address;
pub(super) use limits::{limits, rate};
pub(super) use replicas::replicas;
pub(super) use tls::{pem, server_name, trusted_roots};

/// The maximum of the setting `listen.admin.recent`, the number of requests that the admin page can show.
const RECENT_MAX: u64 = 10_000;
/// The default of the setting `listen.admin.recent`, the number of requests that the admin page can show.
const RECENT_DEFAULT: usize = 1000;
/// The default of the setting `listen.egress.body_memory_max`, in bytes.
const EGRESS_BODY_MEMORY_DEFAULT: u64 = 64 << 20;
/// The default of the setting `listen.egress.connections_max`.
const EGRESS_CONNECTIONS_DEFAULT: usize = 1024;
/// The minimum length of the secret `listen.admin.token`, in bytes.
const TOKEN_BYTES_MIN: usize = 16;

/// The settings of the admin listener, which serves metrics, health checks, the callbacks API and the admin page.
#[derive(Clone, Debug)]
pub struct AdminListener {
    /// The address at which the admin listener accepts connections.
    pub address: SocketAddr,
    /// The bearer token of the callbacks API. If it is `None`, only callers on this host may use the API.
    pub token: Option<Secret>,
    /// The host names that the header `Host` of a request may contain, in addition to IP addresses and `localhost`.
    pub hosts: Vec<Box<str>>,
    /// The maximum number of recent requests that the admin page can show.
    pub recent: usize,
    /// True if the admin page can revoke interactions.
    pub actions: bool,
    /// True if the admin listener shows the bodies of messages in the inbox.
    pub bodies: bool,
}

/// The settings of the egress listener, which accepts requests of the agent.
#[derive(Clone, Debug)]
pub struct EgressListener {
    /// The address at which the egress listener accepts connections.
    pub address: SocketAddr,
    /// The maximum memory for the bodies of all requests to the egress listener together, in bytes.
    pub body_memory_bytes_max: u64,
    /// The maximum number of simultaneous connections to the egress listener.
    pub connections_max: usize,
    /// The host names that the header `Host` of a request may contain, in addition to IP addresses and `localhost`.
    /// The names are in lower case.
    pub hosts: Vec<Box<str>>,
    /// The settings of the forward proxy. If they are `None`, the egress listener is no forward proxy.
    pub proxy: Option<Arc<ForwardProxy>>,
    /// The TLS settings of the egress listener. If they are `None`, the listener accepts plain HTTP.
    pub tls: Option<Tls>,
}

/// The compiled settings of all listeners in the configuration section `listen`.
pub(super) struct Listeners {
    pub(super) admin: Option<AdminListener>,
    pub(super) egress: Option<EgressListener>,
    pub(super) ingress: Vec<Listener>,
}

/// Reads the configuration section `listen`.
pub(super) fn listeners(at: &Cursor<'_>) -> Option<Listeners> {
    let mut fields = at.fields()?;
    let ingress = fields.required("ingress").and_then(|at| self::ingress(&at));
    let admin = fields.optional("admin").map(|at| self::admin(&at));
    if admin.is_none() {
        fields.at().warn("there is no admin listener, so there are no metrics and no health checks");
    }
    let egress = fields.optional("egress");
    let egress_read = egress.as_ref().map(self::egress);
    let egress_address = egress_read.as_ref().and_then(|read| read.as_ref()).map(|egress| egress.address);
    if let (Some(at), Some(address)) = (egress, egress_address)
        && !address.ip().is_loopback()
    {
        at.warn(
            "not a loopback address: whoever reaches it can send requests with the providers' credentials",
        );
    }
    fields.finish();
    let admin_address = admin.as_ref().and_then(|admin| admin.as_ref()).map(|admin| admin.address);
    let taken = doubled(ingress.as_deref().unwrap_or_default(), [admin_address, egress_address]);
    if let Some(address) = taken {
        return at.error(format!("two listeners have the address {address}"), "");
    }
    Some(Listeners {
        admin: admin.map_or(Some(None), |read| read.map(Some))?,
        egress: egress_read.map_or(Some(None), |read| read.map(Some))?,
        ingress: ingress?,
    })
}

fn admin(at: &Cursor<'_>) -> Option<AdminListener> {
    let mut fields = at.fields()?;
    let address = fields.required("address").and_then(|at| address(&at));
    let token = fields.optional("token").map(|at| match at.secret()? {
        token if token.len() < TOKEN_BYTES_MIN => {
            at.error("the token is shorter than 16 bytes", "openssl rand -hex 32")
        }
        token => Some(token),
    });
    let hosts = hosts(&mut fields);
    let recent = fields.optional("recent").map_or(Some(RECENT_DEFAULT), |at| {
        at.whole_number(0..=RECENT_MAX).and_then(|number| usize::try_from(number).ok())
    });
    let actions = fields.optional("actions").map_or(Some(false), |at| at.boolean());
    let bodies = fields.optional("bodies").map_or(Some(false), |at| at.boolean());
    fields.finish();
    let token = token.map_or(Some(None), |read| read.map(Some))?;
    Some(AdminListener {
        address: address?,
        token,
        hosts: hosts?,
        recent: recent?,
        actions: actions?,
        bodies: bodies?,
    })
}

/// Reads the setting `hosts` of a listener, and converts the host names to lower case.
fn hosts(fields: &mut Fields<'_>) -> Option<Vec<Box<str>>> {
    let Some(at) = fields.optional("hosts") else { return Some(Vec::new()) };
    let read: Vec<_> = at.list()?.iter().map(|at| at.text().map(|t| t.to_ascii_lowercase().into())).collect();
    read.into_iter().collect()
}

fn egress(at: &Cursor<'_>) -> Option<EgressListener> {
    let mut fields = at.fields()?;
    let address = fields.required("address").and_then(|at| address(&at));
    let body_memory = fields.optional("body_memory_max").map_or(Some(EGRESS_BODY_MEMORY_DEFAULT), |at| {
        match at.size(BODY_MEMORY_MAX)? {
            0 => at.error("must be more than nothing", ""),
            size => Some(size),
        }
    });
    let connections = fields.optional("connections_max").map_or(Some(EGRESS_CONNECTIONS_DEFAULT), |at| {
        at.whole_number(1..=1_000_000).and_then(|number| usize::try_from(number).ok())
    });
    let hosts = hosts(&mut fields);
    let proxy = fields.optional("proxy").map(|at| proxy::proxy(&at));
    let tls = fields.optional("tls").map(|at| egress_tls(&at));
    fields.finish();
    Some(EgressListener {
        address: address?,
        body_memory_bytes_max: body_memory?,
        connections_max: connections?,
        hosts: hosts?,
        proxy: proxy.map_or(Some(None), |read| read.map(Some))?,
        tls: tls.map_or(Some(None), |read| read.map(Some))?,
    })
}

fn ingress(at: &Cursor<'_>) -> Option<Vec<Listener>> {
    let read: Vec<_> = at.list()?.iter().map(listener).collect();
    read.into_iter().collect()
}

fn listener(at: &Cursor<'_>) -> Option<Listener> {
    let mut fields = at.fields()?;
    let address = fields.required("address").and_then(|at| address(&at));
    let tls = fields.optional("tls").map(|at| tls(&at));
    let proxied_by = fields.optional("proxy_protocol").map(|at| proxied_by(&at));
    let health = fields.optional("health").map(|at| health(&at));
    fields.finish();
    Some(Listener {
        address: address?,
        tls: tls.map_or(Some(None), |read| read.map(Some))?,
        proxied_by: proxied_by.map_or(Some(None), |read| read.map(Some))?,
        health: health.map_or(Some(None), |read| read.map(Some))?,
    })
}

/// Reads the setting `health` of an ingress listener: the path of health checks.
fn health(at: &Cursor<'_>) -> Option<Box<str>> {
    let path = at.text()?;
    match CanonicalPath::parse(path) {
        // A path with an encoded character such as `%61` has a second spelling. Callgate would not recognize health
        // checks that use the second spelling.
        Ok(_) if !path.contains(['%', '{', '?', '#', '*']) => Some(path.into()),
        _ => at.error(format!("`{path}` is not a path in canonical form"), "such as /healthz"),
    }
}

/// Reads the setting `proxy_protocol: {trusted_proxies: [...]}` of an ingress listener.
fn proxied_by(at: &Cursor<'_>) -> Option<Networks> {
    let mut fields = at.fields()?;
    let trusted = fields.required("trusted_proxies").and_then(|at| at.networks());
    fields.finish();
    let trusted = Networks::new(trusted?);
    if trusted.is_everything() {
        at.warn("every address is trusted: any caller can claim any address");
    }
    Some(trusted)
}

/// Returns the first address that two listeners have in common. Addresses with port 0 are ignored, because port 0
/// selects a free port for each listener.
fn doubled(ingress: &[Listener], others: [Option<SocketAddr>; 2]) -> Option<SocketAddr> {
    let all: Vec<_> =
        ingress.iter().map(|listener| listener.address).chain(others.into_iter().flatten()).collect();
    all.iter()
        .enumerate()
        .find(|(i, a)| a.port() != 0 && all.iter().take(*i).any(|b| b == *a))
        .map(|(_, a)| *a)
}

#[cfg(test)]
mod tests {
    use crate::config::tests::{MINIMAL, mistake, parse};

    #[test]
    fn what_the_page_shows_and_may() {
        let admin = "admin: { address: 127.0.0.1:0";
        let with = |fields: &str| format!("{admin}{fields}");
        let wrong = |fields: &str, at: &str, message: &str| mistake(admin, &with(fields), at, message);
        wrong(", recent: 10001", "listen.admin.recent", "must be a whole number from 0 to 10000");
        wrong(", actions: maybe", "listen.admin.actions", "expected true or false");
        let page = |fields: &str| {
            let startup = parse(&MINIMAL.replacen(admin, &with(fields), 1)).unwrap().startup;
            startup.admin.map(|admin| (admin.recent, admin.actions))
        };
        assert_eq!(page(""), Some((1000, false)));
        assert_eq!(page(", recent: 0, actions: true"), Some((0, true)));
    }

    #[test]
    fn what_the_egress_listener_takes() {
        let admin = "admin: { address: 127.0.0.1:0";
        let with = |fields: &str| format!("egress: {{ address: 127.0.0.1:0{fields} }}, {admin}");
        let wrong = |fields: &str, at: &str, message: &str| mistake(admin, &with(fields), at, message);
        wrong(", hosts: [1]", "listen.egress.hosts[0]", "expected text");
        wrong(", connections_max: 0", "listen.egress.connections_max", "from 1");
        wrong(", body_memory_max: 0", "listen.egress.body_memory_max", "more than nothing");
        let listener = |fields: &str| {
            let startup = parse(&MINIMAL.replacen(admin, &with(fields), 1)).unwrap().startup;
            startup.egress.map(|l| (l.connections_max, l.body_memory_bytes_max, l.hosts.concat()))
        };
        assert_eq!(listener(""), Some((1024, 64 << 20, String::new())));
        let stated = listener(", connections_max: 7, body_memory_max: 2KiB, hosts: [Gate.example]");
        assert_eq!(stated, Some((7, 2 << 10, "gate.example".to_owned())));
    }
}
