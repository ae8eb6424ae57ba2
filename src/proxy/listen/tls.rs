//! TLS of listeners: selects a certificate by server name, and verifies client certificates. A reload creates a new TLS
//! configuration for new connections.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use pingora::listeners::tls::Acceptor;
use pingora::tls::sign::CertifiedKey;
use pingora::tls::{
    CertificateDer, ClientCertVerifier, ClientHello, CryptoProvider, ResolvesServerCert, ServerConfig,
    UnixTime, WebPkiClientVerifier, version,
};
use sha2::{Digest, Sha256};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::tickets::{Binding, TicketKeys};
use crate::clock::Clock;
use crate::config::{CertificateFiles, ClientAuthorities, Resumption, Tls};
use crate::file::{FILE_BYTES_MAX, read};
use crate::proxy::pem_files;
use crate::request::ClientCertificate;
use crate::time::Timestamp;
use crate::tls_crypto;

/// The ALPN protocols of an ingress listener, in order of preference.
pub(crate) const INGRESS_PROTOCOLS: &[&[u8]] = &[b"h2", b"http/1.1"];
/// The ALPN protocols of the egress listener and the replica listener, which support only HTTP/1.1.
pub(crate) const EGRESS_PROTOCOLS: &[&[u8]] = &[b"http/1.1"];

/// The TLS configuration of a listener, created from the contents of its certificate files.
pub(crate) struct TlsConfig {
    pub(crate) acceptor: Acceptor,
    /// Whether TLS 1.2 is allowed in addition to TLS 1.3.
    pub(crate) allows_tls_1_2: bool,
    /// The path and the expiry time in Unix seconds of each server certificate.
    pub(crate) expiries: Vec<(Box<str>, i64)>,
    /// The IP addresses in the subject alternative names of the first server certificate.
    pub(crate) addresses: Vec<IpAddr>,
    /// The verifier of client certificates. `None` if the listener does not request client certificates.
    pub(crate) clients: Option<ClientVerifier>,
}

/// Verifies client certificates with the configured authorities.
pub(crate) struct ClientVerifier {
    verifier: Arc<dyn ClientCertVerifier>,
    /// The SHA-256 of the file that contains the authorities.
    digest: [u8; 32],
    /// Whether connections without a client certificate are denied.
    pub(crate) required: bool,
}

/// The client certificate of a connection, and the result of its verification.
pub(crate) struct VerifiedCertificate {
    pub(crate) certificate: ClientCertificate,
    /// The certificate chain. The leaf certificate comes first.
    chain: Vec<CertificateDer<'static>>,
    /// The earliest expiry time of all certificates in the chain.
    not_after: Timestamp,
    /// The digest of the authorities in the last verification, and whether the chain was accepted. `None` if the chain
    /// was not verified yet.
    last_result: Mutex<Option<([u8; 32], bool)>>,
}

impl VerifiedCertificate {
    /// Parses a client's certificate chain, without verifying the chain. [`ClientVerifier::still_trusts`] verifies the
    /// chain later, because a handshake that resumes a session verifies no certificates. Returns `None` if a
    /// certificate cannot be parsed.
    pub(crate) fn new(chain: &[CertificateDer<'static>]) -> Option<Self> {
        let (_, leaf) = X509Certificate::from_der(chain.first()?).ok()?;
        let certificate = ClientCertificate { names: alternative_names(&leaf) };
        let expiries = chain.iter().map(expiry).collect::<Option<Vec<_>>>()?;
        let not_after = Timestamp::from_unix_secs(expiries.into_iter().min()?);
        Some(Self { certificate, not_after, chain: chain.to_vec(), last_result: Mutex::default() })
    }
}

impl ClientVerifier {
    /// Reports whether a client certificate is still valid. The certificate may have expired since the TLS handshake,
    /// and a reload may have replaced the authorities.
    pub(crate) fn still_trusts(&self, certificate: &VerifiedCertificate, clock: &Clock) -> bool {
        let now = clock.now();
        if now > certificate.not_after {
            return false;
        }
        let mut last_result = certificate.last_result.lock();
        if let Some((_, trusted)) = last_result.filter(|(digest, _)| *digest == self.digest) {
            return trusted;
        }
        let trusted = certificate
            .chain
            .split_first()
            .is_some_and(|(leaf, rest)| self.verifier.verify_client_cert(leaf, rest, unix_time(now)).is_ok());
        *last_result = Some((self.digest, trusted));
        trusted
    }
}

/// Returns the expiry time of a certificate in Unix seconds.
pub(crate) fn expiry(der: &CertificateDer<'static>) -> Option<i64> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    Some(certificate.validity().not_after.timestamp())
}

/// Converts a time to the type that rustls uses.
fn unix_time(now: Timestamp) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_millis(u64::try_from(now.unix_ms()).unwrap_or_default()))
}

/// Checks that the files of a TLS configuration are usable and belong together.
///
/// # Errors
/// Returns a message for the operator that names the unusable file.
pub fn check(tls: &Tls) -> Result<(), String> {
    load(tls, INGRESS_PROTOCOLS, None).map(|_| ())
}

/// Reads the files of a TLS configuration. `protocols` are the ALPN protocols, and `keys` are the keys of session
/// tickets.
///
/// # Errors
/// Returns a message for the operator that names the unusable file.
pub(crate) fn load(
    tls: &Tls,
    protocols: &[&[u8]],
    keys: Option<&Arc<TicketKeys>>,
) -> Result<TlsConfig, String> {
    tls_crypto::install();
    let mut names = CertificatesByName::default();
    let (mut expiries, mut addresses) = (Vec::new(), Vec::new());
    for files in &tls.certificates {
        let key = Arc::new(load_certified_key(files)?);
        let leaf =
            key.cert.first().ok_or_else(|| format!("{} contains no certificate", files.certificate))?;
        let (_, parsed) = X509Certificate::from_der(leaf)
            .map_err(|_| format!("{} contains no readable certificate", files.certificate))?;
        if expiries.is_empty() {
            addresses = alternative_addresses(&parsed);
        }
        expiries.push((files.certificate.clone(), parsed.validity().not_after.timestamp()));
        names.add(&alternative_names(&parsed), &key);
    }
    let versions: &[_] = if tls.tls_1_2 { &[&version::TLS13, &version::TLS12] } else { &[&version::TLS13] };
    let builder = ServerConfig::builder_with_protocol_versions(versions);
    let clients = tls.clients.as_ref().map(client_verifier).transpose()?;
    let builder = match &clients {
        None => builder.with_no_client_auth(),
        Some(clients) => builder.with_client_cert_verifier(Arc::clone(&clients.verifier)),
    };
    let mut config = builder.with_cert_resolver(Arc::new(names));
    config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
    if let (Resumption::Tickets(secrets), Some(keys)) = (&tls.resumption, keys) {
        config.ticketer = keys.for_listener(secrets, binding(clients.as_ref()));
        // One ticket per handshake is enough, because most callers open a connection for each callback, and a resumed
        // connection gets a new ticket.
        config.send_tls13_tickets = 1;
    }
    let acceptor = Acceptor::from_server_config(Arc::new(config));
    Ok(TlsConfig { acceptor, allows_tls_1_2: tls.tls_1_2, expiries, addresses, clients })
}

/// Returns a hash of the settings to which session tickets are bound: the authorities for client certificates, and
/// whether a client certificate is required. rustls does not verify client certificates when a session is resumed.
fn binding(clients: Option<&ClientVerifier>) -> Binding {
    let Some(clients) = clients else { return [0; 32] };
    Sha256::new().chain_update(clients.digest).chain_update([u8::from(clients.required)]).finalize().into()
}

/// Reads a certificate chain and a private key, and checks that the key belongs to the certificate.
fn load_certified_key(files: &CertificateFiles) -> Result<CertifiedKey, String> {
    let CertificateFiles { certificate, key } = files;
    let (chain, private) = (pem_files::certificates(certificate)?, pem_files::private_key(key)?);
    let provider = CryptoProvider::get_default().ok_or("no cryptography provider for TLS is installed")?;
    CertifiedKey::from_der(chain, private, provider)
        .map_err(|error| format!("{key} does not go with {certificate}: {error}"))
}

fn client_verifier(authorities: &ClientAuthorities) -> Result<ClientVerifier, String> {
    let file = &authorities.file;
    let bytes = read(&**file, FILE_BYTES_MAX).map_err(|error| format!("{file} cannot be read: {error}"))?;
    let roots = pem_files::authorities(file)?;
    let builder = WebPkiClientVerifier::builder(Arc::new(roots));
    let builder = if authorities.required { builder } else { builder.allow_unauthenticated() };
    let verifier = builder.build().map_err(|error| format!("{file} cannot be used: {error}"))?;
    Ok(ClientVerifier { verifier, digest: Sha256::digest(bytes).into(), required: authorities.required })
}

/// Selects the server certificate by the server name in the TLS handshake (SNI).
#[derive(Debug, Default)]
struct CertificatesByName {
    exact: HashMap<Box<str>, Arc<CertifiedKey>>,
    /// The certificates for wildcard names, by name without `*.`.
    wildcard: HashMap<Box<str>, Arc<CertifiedKey>>,
    first: Option<Arc<CertifiedKey>>,
}

impl CertificatesByName {
    fn add(&mut self, names: &[Box<str>], key: &Arc<CertifiedKey>) {
        for name in names {
            let name = name.to_ascii_lowercase();
            match name.strip_prefix("*.") {
                Some(parent) => self.wildcard.entry(parent.into()).or_insert_with(|| Arc::clone(key)),
                None => self.exact.entry(name.into()).or_insert_with(|| Arc::clone(key)),
            };
        }
        self.first.get_or_insert_with(|| Arc::clone(key));
    }
}

impl ResolvesServerCert for CertificatesByName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let server_name = hello.server_name().map(str::to_ascii_lowercase);
        let named = server_name.as_deref().and_then(|name| {
            let wildcard = || self.wildcard.get(name.split_once('.')?.1);
            self.exact.get(name).or_else(wildcard)
        });
        // A client that requests an unknown server name receives the first certificate, and will reject it.
        named.or(self.first.as_ref()).map(Arc::clone)
    }
}

/// Returns the DNS names and URIs in the subject alternative names of a certificate.
fn alternative_names(certificate: &X509Certificate<'_>) -> Vec<Box<str>> {
    let extension = certificate.subject_alternative_name().ok().flatten();
    let names = extension.map(|extension| extension.value.general_names.as_slice()).unwrap_or_default();
    let text = |name: &GeneralName<'_>| match name {
        GeneralName::DNSName(name) | GeneralName::URI(name) => Some((*name).into()),
        _ => None,
    };
    names.iter().filter_map(text).collect()
}

/// Returns the IP addresses in the subject alternative names of a certificate.
fn alternative_addresses(certificate: &X509Certificate<'_>) -> Vec<IpAddr> {
    let extension = certificate.subject_alternative_name().ok().flatten();
    let names = extension.map(|extension| extension.value.general_names.as_slice()).unwrap_or_default();
    let address = |name: &GeneralName<'_>| match name {
        GeneralName::IPAddress(bytes) => match bytes.len() {
            4 => <[u8; 4]>::try_from(*bytes).ok().map(IpAddr::from),
            _ => <[u8; 16]>::try_from(*bytes).ok().map(IpAddr::from),
        },
        _ => None,
    };
    names.iter().filter_map(address).collect()
}
