//! TLS of a listener: certificates by the name that is asked for, and clients that prove who they are. A reload makes
//! a new one; connections that are there go on with theirs.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use pingora::listeners::tls::Acceptor;
use pingora::tls::sign::CertifiedKey;
use pingora::tls::{
    CertificateDer, ClientCertVerifier, ClientHello, CryptoProvider, ResolvesServerCert, RootCertStore,
    ServerConfig, UnixTime, WebPkiClientVerifier, install_default_crypto_provider, load_ca_file_into_store,
    load_certs_and_key_files, version,
};
use sha2::{Digest, Sha256};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::clock::Clock;
use crate::config::{CertificateFiles, ClientAuthorities, Tls};
use crate::file::{FILE_BYTES_MAX, read};
use crate::request::ClientCertificate;
use crate::time::Timestamp;

/// What is spoken on a connection of TLS, the better one first.
const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// The TLS of a listener, ready.
pub(crate) struct TlsConfig {
    pub(crate) acceptor: Acceptor,
    /// Whether version 1.2 is accepted besides 1.3.
    pub(crate) has_1_2: bool,
    /// When each certificate ends, in Unix seconds, by its file.
    pub(crate) ends: Vec<(Box<str>, i64)>,
    /// Whose client certificates are believed; `None`: nobody's.
    pub(crate) clients: Option<Clients>,
}

/// Whose client certificates are believed.
pub(crate) struct Clients {
    verifier: Arc<dyn ClientCertVerifier>,
    /// What tells these authorities from others.
    digest: [u8; 32],
    /// Whether nobody gets in without a certificate.
    pub(crate) required: bool,
}

/// A client certificate that was believed when its connection began.
pub(crate) struct VerifiedCertificate {
    pub(crate) certificate: ClientCertificate,
    /// Leaf first.
    chain: Vec<CertificateDer<'static>>,
    /// When it ends.
    ends: Timestamp,
    /// Who was asked last, and whether it was believed.
    judged: Mutex<([u8; 32], bool)>,
}

impl VerifiedCertificate {
    /// A chain that these have verified.
    pub(crate) fn new(chain: &[CertificateDer<'static>], by: &Clients) -> Option<Self> {
        let (_, leaf) = X509Certificate::from_der(chain.first()?).ok()?;
        let certificate = ClientCertificate { names: alternative_names(&leaf) };
        let ends = Timestamp::from_unix_secs(leaf.validity().not_after.timestamp());
        Some(Self { certificate, ends, chain: chain.to_vec(), judged: Mutex::new((by.digest, true)) })
    }
}

impl Clients {
    /// Whether a certificate is still believed: a connection may have lasted longer than an authority.
    pub(crate) fn believe(&self, shown: &VerifiedCertificate) -> bool {
        if Clock::System.now() > shown.ends {
            return false;
        }
        let mut judged = shown.judged.lock();
        if judged.0 != self.digest {
            let verified = shown.chain.split_first().is_some_and(|(leaf, rest)| {
                self.verifier.verify_client_cert(leaf, rest, UnixTime::now()).is_ok()
            });
            *judged = (self.digest, verified);
        }
        judged.1
    }
}

/// Whether everything that TLS needs can be used and goes together.
///
/// # Errors
/// What is wrong, in words.
pub fn check(tls: &Tls) -> Result<(), String> {
    ready(tls).map(|_| ())
}

/// Reads the files.
///
/// # Errors
/// What is wrong with them, in words.
pub(crate) fn ready(tls: &Tls) -> Result<TlsConfig, String> {
    install_default_crypto_provider();
    let mut names = Names::default();
    let mut ends = Vec::new();
    for files in &tls.certificates {
        let key = Arc::new(certified(files)?);
        let leaf = key.cert.first().ok_or_else(|| format!("{} is empty", files.certificate))?;
        let (_, parsed) = X509Certificate::from_der(leaf)
            .map_err(|_| format!("{} holds no certificate that can be read", files.certificate))?;
        ends.push((files.certificate.clone(), parsed.validity().not_after.timestamp()));
        names.add(&alternative_names(&parsed), &key);
    }
    let versions: &[_] = if tls.tls_1_2 { &[&version::TLS13, &version::TLS12] } else { &[&version::TLS13] };
    let builder = ServerConfig::builder_with_protocol_versions(versions);
    let clients = tls.clients.as_ref().map(clients).transpose()?;
    let builder = match &clients {
        None => builder.with_no_client_auth(),
        Some(clients) => builder.with_client_cert_verifier(Arc::clone(&clients.verifier)),
    };
    let mut config = builder.with_cert_resolver(Arc::new(names));
    config.alpn_protocols = PROTOCOLS.iter().map(|name| name.to_vec()).collect();
    let acceptor = Acceptor::from_server_config(Arc::new(config));
    Ok(TlsConfig { acceptor, has_1_2: tls.tls_1_2, ends, clients })
}

/// A certificate and its key, which belong together.
fn certified(files: &CertificateFiles) -> Result<CertifiedKey, String> {
    let CertificateFiles { certificate, key } = files;
    let Ok(Some((chain, private))) = load_certs_and_key_files(certificate, key) else {
        return Err(format!("{certificate} and {key} hold no usable certificate and key"));
    };
    let provider = CryptoProvider::get_default().ok_or("no cryptography for TLS")?;
    CertifiedKey::from_der(chain, private, provider)
        .map_err(|error| format!("{key} does not go with {certificate}: {error}"))
}

fn clients(clients: &ClientAuthorities) -> Result<Clients, String> {
    let file = &clients.file;
    let bytes = read(&**file, FILE_BYTES_MAX).map_err(|error| format!("{file} cannot be read: {error}"))?;
    let mut roots = RootCertStore::empty();
    load_ca_file_into_store(&**file, &mut roots)
        .map_err(|error| format!("{file} cannot be used: {error}"))?;
    let builder = WebPkiClientVerifier::builder(Arc::new(roots));
    let builder = if clients.required { builder } else { builder.allow_unauthenticated() };
    let verifier = builder.build().map_err(|error| format!("{file} cannot be used: {error}"))?;
    Ok(Clients { verifier, digest: Sha256::digest(bytes).into(), required: clients.required })
}

/// Which certificate is shown for which name.
#[derive(Debug, Default)]
struct Names {
    exact: HashMap<Box<str>, Arc<CertifiedKey>>,
    /// Behind `*.`.
    below: HashMap<Box<str>, Arc<CertifiedKey>>,
    first: Option<Arc<CertifiedKey>>,
}

impl Names {
    fn add(&mut self, names: &[Box<str>], key: &Arc<CertifiedKey>) {
        for name in names {
            let name = name.to_ascii_lowercase();
            match name.strip_prefix("*.") {
                Some(parent) => self.below.entry(parent.into()).or_insert_with(|| Arc::clone(key)),
                None => self.exact.entry(name.into()).or_insert_with(|| Arc::clone(key)),
            };
        }
        self.first.get_or_insert_with(|| Arc::clone(key));
    }
}

impl ResolvesServerCert for Names {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let asked = hello.server_name().map(str::to_ascii_lowercase);
        let named = asked.as_deref().and_then(|name| {
            let below = || self.below.get(name.split_once('.')?.1);
            self.exact.get(name).or_else(below)
        });
        // Whoever asks for another name gets a certificate that it will not believe.
        named.or(self.first.as_ref()).map(Arc::clone)
    }
}

/// The DNS names and URIs of a certificate.
fn alternative_names(certificate: &X509Certificate<'_>) -> Vec<Box<str>> {
    let extension = certificate.subject_alternative_name().ok().flatten();
    let names = extension.map(|extension| extension.value.general_names.as_slice()).unwrap_or_default();
    let text = |name: &GeneralName<'_>| match name {
        GeneralName::DNSName(name) | GeneralName::URI(name) => Some((*name).into()),
        _ => None,
    };
    names.iter().filter_map(text).collect()
}
