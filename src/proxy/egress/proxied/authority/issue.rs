//! Creates the certificate authority of the forward proxy, and issues certificates for hosts.

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

use super::bundle::pem;
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
    // A client may trust an old and a new authority at the same time. The random number gives each authority a
    // different name.
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
    /// The certificates of additional authorities that the agent must trust, for example while one authority replaces
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
