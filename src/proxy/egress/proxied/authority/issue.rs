//! Creates the certificate authority of the forward proxy, or reads it from files, and issues certificates for hosts.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use ::time::OffsetDateTime;
use pingora::tls::sign::CertifiedKey;
use pingora::tls::{
    CertificateDer, ClientHello, CryptoProvider, PrivateKeyDer, ResolvesServerCert, ServerConfig,
};
use rcgen::{
    BasicConstraints, CertificateParams, CidrSubnet, DistinguishedName, DnType, ExtendedKeyUsagePurpose,
    GeneralSubtree, IsCa, Issuer, KeyPair, KeyUsagePurpose, NameConstraints, SanType,
};
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::bundle::pem;
use crate::egress::{AuthorityFiles, ForwardProxy};
use crate::proxy::pem_files;
use crate::random::new_id;
use crate::time::Timestamp;

/// The validity period of a new certificate authority. The period is long, because Node and Java read their trusted
/// certificates only at start.
const LIFETIME: Duration = Duration::from_secs(400 * 24 * 3600);
/// The validity of a certificate begins this long before the certificate is issued, because a client's clock may be
/// slow.
const BACKDATED: Duration = Duration::from_secs(3600);
/// The only host name in the name constraints of an authority without intercepted hosts. No host can have this name
/// (RFC 2606).
const NO_HOST: &str = "callgate.invalid";

/// A new certificate authority and its private key, both in PEM.
pub struct NewAuthority {
    /// The certificate in PEM.
    pub certificate: String,
    /// The private key in PEM.
    pub key: String,
}

/// Creates a certificate authority that can issue certificates only for these hosts and their subdomains.
///
/// # Errors
/// Returns a message for the operator if the authority cannot be created.
pub fn create_authority(hosts: &[Box<str>], now: Timestamp) -> Result<NewAuthority, String> {
    let (key, certificate, _) = create(hosts, now)?;
    Ok(NewAuthority {
        certificate: pem("CERTIFICATE", &certificate),
        key: pem("PRIVATE KEY", key.serialized_der()),
    })
}

fn create(
    hosts: &[Box<str>],
    now: Timestamp,
) -> Result<(KeyPair, CertificateDer<'static>, CertificateParams), String> {
    let key = KeyPair::generate().map_err(|error| error.to_string())?;
    let mut params = CertificateParams::default();
    // A client may trust an old and a new authority at the same time. The random number gives each authority another
    // name.
    let number = new_id("").unwrap_or_default();
    let number = number.get(..8).unwrap_or(&number);
    params.distinguished_name = named(&format!("Callgate egress {number}"));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let no_host = [Box::from(NO_HOST)];
    let permitted = if hosts.is_empty() { &no_host } else { hosts };
    let no_address = [
        CidrSubnet::from_addr_prefix(Ipv4Addr::UNSPECIFIED.into(), 0),
        CidrSubnet::from_addr_prefix(Ipv6Addr::UNSPECIFIED.into(), 0),
    ];
    params.name_constraints = Some(NameConstraints {
        permitted_subtrees: permitted.iter().map(|host| GeneralSubtree::DnsName(host.to_string())).collect(),
        excluded_subtrees: no_address.map(GeneralSubtree::IpAddress).into(),
    });
    (params.not_before, params.not_after) = (moment(now.minus(BACKDATED))?, moment(now.plus(LIFETIME))?);
    let certificate = params.self_signed(&key).map_err(|error| error.to_string())?;
    Ok((key, certificate.der().clone(), params))
}

/// The signing key and certificate of the certificate authority.
pub(super) struct Signer {
    pub(super) issuer: Issuer<'static, KeyPair>,
    pub(super) certificate: CertificateDer<'static>,
    /// The certificates of other authorities that the agent must trust, for example while one authority replaces
    /// another.
    pub(super) further: Vec<CertificateDer<'static>>,
    pub(super) not_after: Timestamp,
}

/// Creates a certificate authority whose private key exists only in memory.
pub(super) fn new_authority(hosts: &[Box<str>], now: Timestamp) -> Result<Signer, String> {
    let (key, certificate, params) = create(hosts, now)?;
    let (issuer, not_after) = (Issuer::new(params, key), now.plus(LIFETIME));
    Ok(Signer { issuer, certificate, further: Vec::new(), not_after })
}

/// Reads the certificate authority from the configured files. The first certificate in the file belongs to the signing
/// key. The other certificates belong to authorities that agents must also trust while one authority replaces another.
///
/// # Errors
/// Returns a message for the operator if a file is unusable.
pub(super) fn read_authority(
    files: &AuthorityFiles,
    hosts: &[Box<str>],
    now: Timestamp,
) -> Result<Signer, String> {
    let (path, key_path) = (&files.certificate.path, &files.key.path);
    let chain = pem_files::certificates_in(path, files.certificate.content.expose())?;
    let Some((certificate, others)) = chain.split_first() else {
        return Err(format!("{path} contains no certificate"));
    };
    let further = further(path, others.iter().filter(|other| *other != certificate))?;
    let not_after = check(certificate, hosts, now).map_err(|fault| {
        format!(
            "{path} cannot be used as `listen.egress.proxy.ca`: {fault}; `callgate ca` creates a usable one"
        )
    })?;
    let key = pem_files::private_key_in(key_path, files.key.content.expose())?;
    let key = KeyPair::try_from(&key).map_err(|_| format!("{key_path} contains no usable private key"))?;
    let (_, parsed) =
        X509Certificate::from_der(certificate).map_err(|_| format!("{path} is not readable"))?;
    if *parsed.public_key().subject_public_key.data != *key.public_key_raw() {
        return Err(format!("{key_path} does not go with {path}"));
    }
    let issuer = Issuer::from_ca_cert_der(certificate, key).map_err(|error| format!("{path}: {error}"))?;
    Ok(Signer { issuer, certificate: certificate.clone(), further, not_after })
}

/// Checks the additional certificates that agents must trust. Such a certificate may have expired and may permit other
/// hosts, but must have name constraints. Otherwise agents would trust its authority for every host.
fn further<'c>(
    path: &str,
    certificates: impl Iterator<Item = &'c CertificateDer<'static>>,
) -> Result<Vec<CertificateDer<'static>>, String> {
    let mut further: Vec<CertificateDer<'static>> = Vec::new();
    for certificate in certificates.filter(|certificate| !certificate.is_empty()) {
        let (_, parsed) =
            X509Certificate::from_der(certificate).map_err(|_| format!("{path} is not readable"))?;
        if !parsed.is_ca() || permitted(&parsed).is_none() {
            return Err(format!(
                "{path} contains another certificate that is not the one of an authority that is limited to names"
            ));
        }
        if !further.contains(certificate) {
            further.push(certificate.clone());
        }
    }
    Ok(further)
}

/// Returns the certificates in the file of an earlier authority as PEM, to be appended to the file of the next
/// authority. Omits other PEM blocks, such as a private key.
///
/// # Errors
/// Returns a message for the operator if a certificate is unusable.
pub fn previous_certificates(path: &str, content: &[u8]) -> Result<String, String> {
    let chain = pem_files::certificates_in(path, content)?;
    Ok(further(path, chain.iter())?.iter().map(|certificate| pem("CERTIFICATE", certificate)).collect())
}

/// Returns the host names for which an authority may issue certificates. Returns `None` if the certificate has no
/// critical name constraints.
fn permitted(certificate: &X509Certificate<'_>) -> Option<Vec<String>> {
    let constraints =
        certificate.extensions().iter().find_map(|extension| match extension.parsed_extension() {
            ParsedExtension::NameConstraints(constraints) if extension.critical => Some(constraints),
            _ => None,
        });
    let subtrees = constraints?.permitted_subtrees.as_ref()?;
    let names = subtrees.iter().filter_map(|subtree| match subtree.base {
        GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
        _ => None,
    });
    Some(names.collect())
}

/// Checks that the configured certificate and key of the forward proxy's authority are usable for the intercepted
/// `hosts`.
///
/// # Errors
/// Returns a message for the operator if a file is unusable.
pub fn check_authority(proxy: &ForwardProxy, hosts: &[Box<str>], now: Timestamp) -> Result<(), String> {
    proxy.authority.as_ref().map_or(Ok(()), |files| read_authority(files, hosts, now).map(|_| ()))
}

/// Checks that a certificate belongs to an authority with name constraints, and that this authority may issue
/// certificates for all `hosts`. Returns the expiry time of the certificate.
fn check(certificate: &[u8], hosts: &[Box<str>], now: Timestamp) -> Result<Timestamp, String> {
    let (_, parsed) = X509Certificate::from_der(certificate).map_err(|_| "it is not readable".to_owned())?;
    if !parsed.is_ca() {
        return Err("it is not the certificate of an authority".to_owned());
    }
    let (begin, end) = (parsed.validity().not_before.timestamp(), parsed.validity().not_after.timestamp());
    if !(begin..end).contains(&now.unix_secs()) {
        return Err("it is not valid at this time".to_owned());
    }
    let names = permitted(&parsed).ok_or("it is not limited to names (critical name constraints)")?;
    let is_permitted = |host: &str| {
        let below = |name: &String| host.strip_suffix(name.as_str());
        names.iter().filter_map(below).any(|rest| rest.is_empty() || rest.ends_with('.'))
    };
    match hosts.iter().find(|host| !is_permitted(host)) {
        Some(host) => Err(format!("its name constraints do not permit {host}")),
        None => Ok(Timestamp::from_unix_secs(end)),
    }
}

/// Returns the TLS settings for intercepted connections. The certificate is added for each connection.
pub(super) fn server_config() -> ServerConfig {
    crate::tls_crypto::install();
    let mut config =
        ServerConfig::builder().with_no_client_auth().with_cert_resolver(Arc::new(NoCertificate));
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    // A full handshake is cheap on the same host, and sessions would only use memory.
    config.send_tls13_tickets = 0;
    config
}

/// Generates the key for the certificates of intercepted hosts.
pub(super) fn new_key() -> Result<KeyPair, String> {
    KeyPair::generate().map_err(|error| error.to_string())
}

/// Issues the certificate of an intercepted host for the key `leaf_key`.
pub(super) fn issue_leaf(
    issuer: &Issuer<'static, KeyPair>,
    leaf_key: &KeyPair,
    host: &str,
    (now, not_after): (Timestamp, Timestamp),
) -> Result<CertifiedKey, String> {
    let failed = |error: rcgen::Error| error.to_string();
    let mut params = CertificateParams::default();
    params.distinguished_name = named("Callgate egress");
    params.subject_alt_names = vec![SanType::DnsName(host.try_into().map_err(failed)?)];
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    (params.not_before, params.not_after) = (moment(now.minus(BACKDATED))?, moment(not_after)?);
    let leaf = params.signed_by(leaf_key, issuer).map_err(failed)?;
    let key = PrivateKeyDer::try_from(leaf_key.serialize_der()).map_err(ToOwned::to_owned)?;
    let provider = CryptoProvider::get_default().ok_or("no cryptography provider for TLS is installed")?;
    CertifiedKey::from_der(vec![leaf.der().clone()], key, provider).map_err(|error| error.to_string())
}

fn named(name: &str) -> DistinguishedName {
    let mut names = DistinguishedName::new();
    names.push(DnType::CommonName, name);
    names
}

fn moment(at: Timestamp) -> Result<OffsetDateTime, String> {
    OffsetDateTime::from_unix_timestamp(at.unix_secs()).map_err(|error| error.to_string())
}

/// A certificate resolver that returns no certificate. For each intercepted connection, a resolver with the certificate
/// of the host replaces this placeholder.
#[derive(Debug)]
struct NoCertificate;

impl ResolvesServerCert for NoCertificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        None
    }
}
