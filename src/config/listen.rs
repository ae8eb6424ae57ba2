//! The startup: what is bound before anything is decided, and what only a restart changes.

use std::net::SocketAddr;
use std::time::Duration;

use super::reader::{Cursor, Fields};
use super::store::StoreSettings;
use crate::secret::Secret;

/// Longest delay, and longest grace.
const SHUTDOWN_MAX: Duration = Duration::from_secs(3600);
/// Fewest bytes the token of the callbacks API may have.
const TOKEN_BYTES_MIN: usize = 16;

/// What only a restart changes.
#[derive(Clone, Debug)]
pub struct Startup {
    /// Where each access-log line goes.
    pub access_log: AccessLog,
    /// Where metrics, health and the callbacks API are served; `None`: nowhere.
    pub admin: Option<AdminListener>,
    /// Where the agent's own requests come in; `None`: nowhere.
    pub egress: Option<SocketAddr>,
    /// Where callbacks come in.
    pub ingress: Vec<Listener>,
    /// From being asked to stop to taking no connection any more.
    pub shutdown_delay: Duration,
    /// How long exchanges may take that have begun by then.
    pub shutdown_grace: Duration,
    /// Where the ledger of interactions is kept.
    pub store: StoreSettings,
    /// The certificates of authorities that providers are believed by; `None`: the platform's.
    pub trusted_roots: Option<Box<str>>,
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

/// Where metrics, health and the callbacks API are served.
#[derive(Clone, Debug)]
pub struct AdminListener {
    /// The address.
    pub address: SocketAddr,
    /// The bearer token of the callbacks API; `None`: the API is for callers on this host alone.
    pub token: Option<Secret>,
    /// Names under which the callbacks API may be asked for, besides addresses and `localhost`.
    pub hosts: Vec<Box<str>>,
}

/// The files of a certificate.
#[derive(Clone, Debug)]
pub struct TlsFiles {
    /// PEM, leaf first.
    pub certificate: Box<str>,
    /// PEM.
    pub key: Box<str>,
}

/// Reads `listen`, `access_log`, `shutdown`, `store`, `threads` and `trusted_roots`.
pub(super) fn startup(root: &mut Fields<'_>) -> Option<Startup> {
    let words = [("off", AccessLog::Off), ("stdout", AccessLog::Stdout)];
    let access_log = root.optional("access_log").map_or(Some(AccessLog::Stdout), |at| at.one_of(&words));
    let threads = root
        .optional("threads")
        .map_or(Some(None), |at| at.whole_number(1..=256).map(|n| usize::try_from(n).ok()));
    let store = super::store::store(root.optional("store"));
    let shutdown = shutdown(root.optional("shutdown"));
    let roots = root.optional("trusted_roots").map(|at| pem(&at, "CERTIFICATE"));
    let at = root.required("listen")?;
    let mut fields = at.fields()?;
    let ingress = fields.required("ingress").and_then(|at| listeners(&at));
    let admin = fields.optional("admin").map(|at| self::admin(&at));
    if admin.is_none() {
        fields.at().warn("no admin listener: no metrics, no health checks");
    }
    let egress = fields.optional("egress");
    let egress_read = egress.as_ref().map(plain);
    if let (Some(at), Some(Some(address))) = (egress, egress_read)
        && !address.ip().is_loopback()
    {
        at.warn(
            "not a loopback address: whoever reaches it can send requests with the providers' credentials",
        );
    }
    fields.finish();
    let admin_address = admin.as_ref().and_then(|admin| admin.as_ref()).map(|admin| admin.address);
    let taken = doubled(ingress.as_deref().unwrap_or_default(), [admin_address, egress_read.flatten()]);
    if let Some(address) = taken {
        return at.error(format!("{address} is listened on twice"), "");
    }
    let (shutdown_delay, shutdown_grace) = shutdown?;
    Some(Startup {
        access_log: access_log?,
        admin: admin.map_or(Some(None), |read| read.map(Some))?,
        egress: egress_read.map_or(Some(None), |read| read.map(Some))?,
        ingress: ingress?,
        shutdown_delay,
        shutdown_grace,
        store: store?,
        trusted_roots: roots.map_or(Some(None), |read| read.map(Some))?,
        threads: threads?,
    })
}

/// `shutdown`: the delay and the grace, less together than the 30 s after which Kubernetes kills.
fn shutdown(at: Option<Cursor<'_>>) -> Option<(Duration, Duration)> {
    let (mut delay, mut grace) = (Some(Duration::from_secs(2)), Some(Duration::from_secs(10)));
    if let Some(at) = at {
        let mut fields = at.fields()?;
        let mut read = |key, default| {
            fields.optional(key).map_or(default, |at: Cursor<'_>| match at.duration_or_zero()? {
                long if long > SHUTDOWN_MAX => at.error("longer than an hour", ""),
                duration => Some(duration),
            })
        };
        (delay, grace) = (read("delay", delay), read("grace", grace));
        fields.finish();
    }
    Some((delay?, grace?))
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
    let hosts = fields.optional("hosts").map_or(Some(Vec::new()), |at| {
        let read: Vec<_> =
            at.list()?.iter().map(|at| at.text().map(|t| t.to_ascii_lowercase().into())).collect();
        read.into_iter().collect()
    });
    fields.finish();
    let token = token.map_or(Some(None), |read| read.map(Some))?;
    Some(AdminListener { address: address?, token, hosts: hosts? })
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::tests::{MINIMAL, mistake, parse};

    #[test]
    fn how_long_stopping_takes() {
        let agent = "agent:";
        let with = |fields: &str| format!("shutdown: {{ {fields} }}\n{agent}");
        mistake(agent, &with("delay: 2h"), "shutdown.delay", "longer than an hour");
        mistake(agent, &with("grace: soon"), "shutdown.grace", "");
        let times = |text: &str| {
            let startup = parse(text).unwrap().startup;
            (startup.shutdown_delay.as_millis(), startup.shutdown_grace)
        };
        assert_eq!(times(MINIMAL), (2000, Duration::from_secs(10)));
        let stated = MINIMAL.replacen(agent, &with("delay: 0s, grace: 30s"), 1);
        assert_eq!(times(&stated), (0, Duration::from_secs(30)));
    }
}
