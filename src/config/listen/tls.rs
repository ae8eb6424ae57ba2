//! Reads the setting `tls` of a listener: certificates, versions, and the authorities that issue client certificates.

use sha2::{Digest, Sha256};

use crate::agent::Pem;
use crate::config::yaml::Cursor;
use crate::outbound::TrustedRoots;
use crate::secret::Secret;

/// The minimum length of a secret for TLS session tickets, in bytes.
const TICKET_SECRET_BYTES_MIN: usize = 32;

/// The TLS settings of a listener.
#[derive(Clone, Debug)]
pub struct Tls {
    /// The certificates of the listener. The listener selects a certificate by the server name that the client sends
    /// (SNI). If no certificate has this name, the listener uses the first certificate.
    pub certificates: Vec<CertificateFiles>,
    /// True if the listener accepts TLS 1.2 in addition to TLS 1.3.
    pub tls_1_2: bool,
    /// The authorities whose client certificates the listener accepts. If they are `None`, the listener requests no
    /// client certificate.
    pub clients: Option<ClientAuthorities>,
    /// How clients resume TLS sessions.
    pub resumption: Resumption,
}

/// How clients resume TLS sessions.
#[derive(Clone, Debug)]
pub enum Resumption {
    /// The listener stores TLS sessions in memory. A reload of the listener's settings discards the stored sessions.
    Remembered,
    /// Clients store TLS sessions as encrypted session tickets. The keys of the tickets are derived from these
    /// secrets. The first secret encrypts new tickets. If the list is empty, the process generates keys that no other
    /// process has.
    Tickets(Vec<Secret>),
}

/// The files of a TLS certificate and its private key.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct CertificateFiles {
    /// The path of a PEM file with the certificate chain. The leaf certificate comes first.
    pub certificate: Box<str>,
    /// The path of a PEM file with the private key.
    pub key: Box<str>,
}

/// The certificate authorities that issue accepted client certificates.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ClientAuthorities {
    /// The path of a PEM file with the certificates of the authorities.
    pub file: Box<str>,
    /// True if the listener denies clients without a certificate.
    pub required: bool,
}

/// Reads the setting `tls` of an ingress listener.
pub(super) fn tls(at: &Cursor<'_>) -> Option<Tls> {
    let mut fields = at.fields()?;
    let certificate = fields.required("certificate").and_then(|at| path(&at, "CERTIFICATE"));
    let key = fields.required("key").and_then(|at| path(&at, "PRIVATE KEY"));
    let more = fields.optional("certificates").map_or(Some(Vec::new()), |at| {
        let read: Vec<_> = at.list()?.iter().map(files).collect();
        read.into_iter().collect()
    });
    let versions = [("1.2", true), ("1.3", false)];
    let tls_1_2 = fields.optional("min_version").map_or(Some(true), |at| {
        let word = at.scalar_text()?;
        let known = versions.iter().find(|(name, _)| *name == &*word);
        known.map_or_else(
            || at.error(format!("`{word}` is not a supported version"), "use 1.2 or 1.3"),
            |v| Some(v.1),
        )
    });
    let clients = fields.optional("client_certificates").map(|at| clients(&at));
    let tickets = fields.optional("tickets").map_or(Some(Vec::new()), |at| tickets(&at));
    fields.finish();
    let mut certificates = vec![CertificateFiles { certificate: certificate?, key: key? }];
    certificates.extend(more?);
    Some(Tls {
        certificates,
        tls_1_2: tls_1_2?,
        clients: clients.map_or(Some(None), |read| read.map(Some))?,
        resumption: Resumption::Tickets(tickets?),
    })
}

/// Reads `tickets`, the secrets of TLS session tickets. An attacker who has one of these secrets can decrypt recorded
/// connections.
fn tickets(at: &Cursor<'_>) -> Option<Vec<Secret>> {
    let secrets = at.secrets()?;
    match secrets.iter().find(|secret| secret.len() < TICKET_SECRET_BYTES_MIN) {
        Some(_) => at.error(
            format!("a secret of tickets must have at least {TICKET_SECRET_BYTES_MIN} bytes"),
            "such as the output of `openssl rand -base64 32`",
        ),
        None => Some(secrets),
    }
}

/// Reads the setting `tls` of the egress listener, which has one certificate and requests no client certificates.
pub(super) fn egress_tls(at: &Cursor<'_>) -> Option<Tls> {
    let resumption = Resumption::Remembered;
    files(at).map(|files| Tls { certificates: vec![files], tls_1_2: true, clients: None, resumption })
}

fn files(at: &Cursor<'_>) -> Option<CertificateFiles> {
    let mut fields = at.fields()?;
    let certificate = fields.required("certificate").and_then(|at| path(&at, "CERTIFICATE"));
    let key = fields.required("key").and_then(|at| path(&at, "PRIVATE KEY"));
    fields.finish();
    Some(CertificateFiles { certificate: certificate?, key: key? })
}

fn clients(at: &Cursor<'_>) -> Option<ClientAuthorities> {
    let mut fields = at.fields()?;
    let file = fields.required("authorities").and_then(|at| path(&at, "CERTIFICATE"));
    let required = fields.optional("required").map_or(Some(false), |at| at.boolean());
    fields.finish();
    Some(ClientAuthorities { file: file?, required: required? })
}

/// Reads the configuration section `trusted_roots`, the certificate authorities for connections to providers.
pub(crate) fn trusted_roots(at: &Cursor<'_>) -> Option<TrustedRoots> {
    let Pem { path, content } = pem(at, "CERTIFICATE")?;
    Some(TrustedRoots { path, digest: Sha256::digest(content.expose()).into() })
}

/// Reads the path of a PEM file with at least one block whose label ends with `label`. See [`pem`].
fn path(at: &Cursor<'_>, label: &str) -> Option<Box<str>> {
    pem(at, label).map(|file| file.path)
}

/// Reads a PEM file with at least one block whose label ends with `label`, such as `CERTIFICATE`. This function does
/// not compare a private key with its certificate. Callgate compares them when it sets up TLS, before it opens a port.
pub(crate) fn pem(at: &Cursor<'_>, label: &str) -> Option<Pem> {
    let (path, bytes) = at.file()?;
    let text = String::from_utf8_lossy(&bytes);
    let begins =
        |line: &str| line.starts_with("-----BEGIN ") && line.trim_end().ends_with(&format!("{label}-----"));
    if text.lines().any(begins) {
        return Some(Pem { path: path.into(), content: Secret::new(bytes) });
    }
    at.error(format!("{path} contains no PEM block `{label}`"), "")
}

/// Reads the name that the certificate of a server must contain: a host name or an IP address.
pub(crate) fn server_name<'n>(at: &Cursor<'n>) -> Option<&'n str> {
    let name = at.text()?;
    let is_host = name.bytes().all(|b| b.is_ascii_alphanumeric() || b".-_".contains(&b));
    if is_host || name.parse::<std::net::IpAddr>().is_ok() {
        return Some(name);
    }
    at.error(format!("`{name}` is not the name of a host"), "such as agent.internal, without a port")
}
