//! Reads the configuration section `replicas`: how several replicas of one installation reach each other.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::listener::{Listener, address};
use super::tls::{CertificateFiles, ClientAuthorities, Resumption, Tls, pem, server_name};
use crate::agent::{AgentTls, ClientCertificateFiles};
use crate::config::yaml::{Cursor, Fields, is_name};
use crate::jose::SHARED_KEY_BYTES_MIN;
use crate::replica::{Gone, OwnerSealer, Prover, Replicas, is_address};
use crate::secret::Secret;

/// The maximum number of secrets that replicas share: the new secret and the old secret during a rotation.
const SECRETS_MAX: usize = 2;
/// The margin in the default of `replicas.timeout`, the time that Callgate waits for the response of another replica.
/// The default is the longest time that Callgate waits for an agent, plus this margin.
const TIMEOUT_MARGIN: Duration = Duration::from_secs(5);
const GONE_AFTER_DEFAULT: Duration = Duration::from_secs(60);
const PATIENCE_DEFAULT: Duration = Duration::from_secs(2);

/// The settings of the replica listener, which accepts requests of other replicas of the same installation.
#[derive(Clone, Debug)]
pub struct ReplicaListener {
    /// The address and the TLS settings of the replica listener.
    pub listener: Listener,
    /// The address at which other replicas reach this process. The port is 0 if the operating system chooses the port
    /// when the process starts.
    pub advertise: Box<str>,
}

/// The compiled configuration section `replicas`: the replica listener and the other settings.
pub(in crate::config) struct Section {
    pub(in crate::config) listener: ReplicaListener,
    pub(in crate::config) settings: Replicas,
}

/// Reads the configuration section `replicas`. `agent_patience` is the longest time that Callgate waits for the
/// response head of an agent.
pub(in crate::config) fn replicas(at: &Cursor<'_>, agent_patience: Duration) -> Option<Section> {
    let mut fields = at.fields()?;
    let own_address = fields.required("address").and_then(|at| address(&at));
    let port = own_address.map_or(0, |address| address.port());
    let advertise = fields.required("advertise").and_then(|at| advertise(&at, port));
    let secrets = fields.required("secrets").and_then(|at| secrets(&at));
    let mint = fields.optional("mint").map_or(Some(false), |at| at.boolean());
    let group = fields.optional("group").map_or(Some("default"), |at| group(&at));
    let discover = fields.optional("discover").map_or(Some(Vec::new()), |at| discover(&at, port));
    let words = [("any", Gone::Any), ("refuse", Gone::Refuse), ("retry", Gone::Retry)];
    let gone = fields.optional("gone").map_or(Some(Gone::Any), |at| at.one_of(&words));
    let gone_after = duration(&mut fields, "gone_after", GONE_AFTER_DEFAULT);
    let patience = duration(&mut fields, "patience", PATIENCE_DEFAULT);
    let timeout = duration(&mut fields, "timeout", agent_patience + TIMEOUT_MARGIN);
    let tls_at = fields.optional("tls");
    let tls = tls_at.as_ref().map(tls);
    fields.finish();
    if tls_at.is_none() && own_address.is_some_and(|address| !address.ip().is_loopback()) {
        at.warn(
            "without `tls`, callbacks and their tokens travel between the members unencrypted, unless a service mesh encrypts the connections",
        );
    }
    let (listener_tls, client_tls) = tls.map_or(Some(None), |read| read.map(Some))?.unzip();
    let secrets = secrets?;
    Some(Section {
        listener: ReplicaListener {
            listener: Listener { address: own_address?, tls: listener_tls, proxied_by: None, health: None },
            advertise: advertise.clone()?,
        },
        settings: Replicas {
            own: None,
            advertise: advertise?,
            sealer: OwnerSealer::new(&secrets),
            prover: Prover::new(&secrets),
            mint: mint?,
            group: group?.into(),
            discover: discover?,
            gone: gone?,
            gone_after: gone_after?,
            patience: patience?,
            timeout: timeout?,
            tls: client_tls,
        },
    })
}

fn duration(fields: &mut Fields<'_>, key: &'static str, default: Duration) -> Option<Duration> {
    fields.optional(key).map_or(Some(default), |at| at.duration())
}

fn group<'n>(at: &Cursor<'n>) -> Option<&'n str> {
    let name = at.text()?;
    if is_name(name) { Some(name) } else { at.bad_name(name) }
}

/// Reads `replicas.secrets`, the one or two secrets that all replicas share.
fn secrets(at: &Cursor<'_>) -> Option<Vec<Secret>> {
    let one = |at: &Cursor<'_>| {
        let secret = at.secret()?;
        if secret.len() >= SHARED_KEY_BYTES_MIN {
            return Some(secret);
        }
        at.error(
            format!("the secret has {} bytes; at least {SHARED_KEY_BYTES_MIN} are needed", secret.len()),
            "openssl rand -hex 32",
        )
    };
    let list = at.list()?;
    let read: Vec<_> = list.iter().map(one).collect();
    if list.is_empty() || list.len() > SECRETS_MAX {
        return at.error("expected one secret, or two during a rotation", "the first one signs, both verify");
    }
    read.into_iter().collect()
}

/// Reads `replicas.advertise`, the address at which other replicas reach this process. Returns `HOST:PORT`. An address
/// without a port gets `port`, the port of the replica listener. If this port is 0, the operating system chooses the
/// port when the process starts.
fn advertise(at: &Cursor<'_>, port: u16) -> Option<Box<str>> {
    let text = at.text()?;
    match port {
        0 if !is_address(text) => {
            let with_port = member_address(at, text, 1)?;
            with_port.strip_suffix(":1").map(|host| format!("{host}:0").into())
        }
        _ => member_address(at, text, port),
    }
}

/// Reads `replicas.discover`: a DNS name, with or without a port, or a list of addresses of replicas.
fn discover(at: &Cursor<'_>, port: u16) -> Option<Vec<Box<str>>> {
    let one = |at: &Cursor<'_>| member_address(at, at.text()?, port);
    let list = at.list_or_one()?;
    let read: Vec<_> = list.iter().map(one).collect();
    read.into_iter().collect()
}

/// Returns the address of one or more replicas as `HOST:PORT`. Adds `port` if `text` has no port. Reports an error if
/// no replica can connect to the address, such as `0.0.0.0`.
fn member_address(at: &Cursor<'_>, text: &str, port: u16) -> Option<Box<str>> {
    let hint = "such as 10.2.3.4:8446, or {env: POD_IP}";
    let ip = text.parse::<IpAddr>().or_else(|_| text.parse::<SocketAddr>().map(|address| address.ip()));
    if ip.is_ok_and(|ip| ip.is_unspecified()) {
        return at.error(format!("no other member can connect to `{text}`"), hint);
    }
    let with_port = match text.parse::<std::net::Ipv6Addr>() {
        Ok(ip) => format!("[{ip}]:{port}"),
        Err(_) if is_address(text) => text.to_owned(),
        Err(_) => format!("{text}:{port}"),
    };
    if is_address(&with_port) {
        return Some(with_port.into());
    }
    if port == 0 && is_address(&format!("{text}:1")) {
        return at.error(
            "the address needs a port, because the port of `replicas.address` is chosen at start",
            hint,
        );
    }
    at.error(format!("`{text}` is not an address of a member"), hint)
}

/// Reads `replicas.tls`. Returns the settings for incoming connections from replicas, and the settings for outgoing
/// connections to replicas. Both sides of a connection present a certificate that `authorities` has issued.
fn tls(at: &Cursor<'_>) -> Option<(Tls, AgentTls)> {
    let mut fields = at.fields()?;
    let certificate = fields.required("certificate").and_then(|at| pem(&at, "CERTIFICATE"));
    let key = fields.required("key").and_then(|at| pem(&at, "PRIVATE KEY"));
    let authorities = fields.required("authorities").and_then(|at| pem(&at, "CERTIFICATE"));
    let name = fields.optional("name").map_or(Some(""), |at| server_name(&at));
    fields.finish();
    let (certificate, key, authorities) = (certificate?, key?, authorities?);
    let server = Tls {
        certificates: vec![CertificateFiles { certificate: certificate.path.clone(), key: key.path.clone() }],
        tls_1_2: false,
        clients: Some(ClientAuthorities { file: authorities.path.clone(), required: true }),
        resumption: Resumption::Remembered,
    };
    let own = ClientCertificateFiles { certificate, key };
    Some((server, AgentTls::new(Some(authorities), Some(own), name?.into())))
}
