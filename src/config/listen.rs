//! The startup: what is bound before anything is decided, and what only a restart changes.

use std::net::SocketAddr;

use super::reader::{Cursor, Fields};

/// What only a restart changes.
#[derive(Clone, Debug)]
pub struct Startup {
    /// Where each access-log line goes.
    pub access_log: AccessLog,
    /// Where metrics, health and the callbacks API are served; `None`: nowhere.
    pub admin: Option<SocketAddr>,
    /// Where callbacks come in.
    pub ingress: Vec<Listener>,
    /// Worker threads; `None`: one for each processor, two at most.
    pub threads: Option<usize>,
}

/// Where each access-log line goes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum AccessLog {
    /// Nowhere.
    Off,
    /// One JSON line per request on standard output.
    Stdout,
}

/// Where callbacks come in.
#[derive(Clone, Debug)]
pub struct Listener {
    /// The address; port 0 takes a free one.
    pub address: SocketAddr,
    /// Where TLS ends here: the certificate and its key.
    pub tls: Option<TlsFiles>,
}

/// The files of a certificate.
#[derive(Clone, Debug)]
pub struct TlsFiles {
    /// PEM, leaf first.
    pub certificate: Box<str>,
    /// PEM.
    pub key: Box<str>,
}

/// Reads `listen`, `access_log` and `threads`.
pub(super) fn startup(root: &mut Fields<'_>) -> Option<Startup> {
    let words = [("off", AccessLog::Off), ("stdout", AccessLog::Stdout)];
    let access_log = root.optional("access_log").map_or(Some(AccessLog::Stdout), |at| at.one_of(&words));
    let threads = root
        .optional("threads")
        .map_or(Some(None), |at| at.whole_number(1..=256).map(|n| usize::try_from(n).ok()));
    let at = root.required("listen")?;
    let mut fields = at.fields()?;
    let ingress = fields.required("ingress").and_then(|at| listeners(&at));
    let admin = fields.optional("admin").map(|at| plain(&at));
    if admin.is_none() {
        fields.at().warn("no admin listener: no metrics, no health checks");
    }
    let egress = fields.optional("egress");
    let egress_read = egress.as_ref().map(plain);
    if let Some(at) = egress {
        at.warn("this version does not serve egress yet: nothing will listen there");
    }
    fields.finish();
    let taken = doubled(ingress.as_deref().unwrap_or_default(), [admin.flatten(), egress_read.flatten()]);
    if let Some(address) = taken {
        return at.error(format!("{address} is listened on twice"), "");
    }
    let optional = |read: Option<Option<SocketAddr>>| read.map_or(Some(None), |address| address.map(Some));
    Some(Startup { access_log: access_log?, admin: optional(admin)?, ingress: ingress?, threads: threads? })
}

fn listeners(at: &Cursor<'_>) -> Option<Vec<Listener>> {
    let read: Vec<_> = at.list()?.iter().map(listener).collect();
    read.into_iter().collect()
}

fn listener(at: &Cursor<'_>) -> Option<Listener> {
    let mut fields = at.fields()?;
    let address = fields.required("address").and_then(|at| address(&at));
    let tls = fields.optional("tls").map(|at| tls(&at));
    fields.finish();
    Some(Listener { address: address?, tls: tls.map_or(Some(None), |files| files.map(Some))? })
}

fn plain(at: &Cursor<'_>) -> Option<SocketAddr> {
    let mut fields = at.fields()?;
    let read = fields.required("address").and_then(|at| address(&at));
    fields.finish();
    read
}

fn address(at: &Cursor<'_>) -> Option<SocketAddr> {
    let text = at.text()?;
    match text.parse() {
        Ok(address) => Some(address),
        Err(_) => at.error(format!("`{text}` is not an address"), "such as 0.0.0.0:8443 or [::]:8443"),
    }
}

fn tls(at: &Cursor<'_>) -> Option<TlsFiles> {
    let mut fields = at.fields()?;
    let certificate = fields.required("certificate").and_then(|at| pem(&at, "CERTIFICATE"));
    let key = fields.required("key").and_then(|at| pem(&at, "PRIVATE KEY"));
    fields.finish();
    Some(TlsFiles { certificate: certificate?, key: key? })
}

/// A readable PEM file that holds at least one block of this kind. Whether key and certificate belong
/// together is found out where TLS is set up, before anything is bound.
fn pem(at: &Cursor<'_>, label: &str) -> Option<Box<str>> {
    let (path, bytes) = at.file()?;
    let text = String::from_utf8_lossy(&bytes);
    let begins =
        |line: &str| line.starts_with("-----BEGIN ") && line.trim_end().ends_with(&format!("{label}-----"));
    if text.lines().any(begins) {
        return Some(path.into());
    }
    at.error(format!("{path} holds no PEM block `{label}`"), "")
}

/// The first address with a port of its own that is used twice.
fn doubled(ingress: &[Listener], others: [Option<SocketAddr>; 2]) -> Option<SocketAddr> {
    let all: Vec<_> =
        ingress.iter().map(|listener| listener.address).chain(others.into_iter().flatten()).collect();
    all.iter()
        .enumerate()
        .find(|(i, a)| a.port() != 0 && all.iter().take(*i).any(|b| b == *a))
        .map(|(_, a)| *a)
}
