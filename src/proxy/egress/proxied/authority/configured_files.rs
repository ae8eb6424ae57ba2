//! Reads the certificate authority of the forward proxy from the configured files.

use pingora::tls::CertificateDer;
use rcgen::{Issuer, KeyPair};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::bundle::pem;
use super::issue::Signer;
use super::name_constraints::{check_names, permitted_names};
use crate::egress::{AuthorityFiles, ForwardProxy};
use crate::proxy::pem_files;
use crate::time::Timestamp;

/// Checks that the configured certificate and key of the forward proxy's authority are usable for the intercepted
/// `hosts`.
///
/// # Errors
/// Returns a message for the operator if a file is unusable.
pub fn check_authority(proxy: &ForwardProxy, hosts: &[Box<str>], now: Timestamp) -> Result<(), String> {
    proxy.authority.as_ref().map_or(Ok(()), |files| read_authority(files, hosts, now).map(|_| ()))
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
    let not_after = check_names(certificate, hosts, now).map_err(|fault| {
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

/// Checks the additional certificates that agents must trust, and returns them without duplicates. An additional
/// certificate may have expired, and need not permit the intercepted hosts. It must have name constraints, because
/// agents would otherwise trust its authority for every host.
fn further<'c>(
    path: &str,
    certificates: impl Iterator<Item = &'c CertificateDer<'static>>,
) -> Result<Vec<CertificateDer<'static>>, String> {
    let mut further: Vec<CertificateDer<'static>> = Vec::new();
    for certificate in certificates.filter(|certificate| !certificate.is_empty()) {
        let (_, parsed) =
            X509Certificate::from_der(certificate).map_err(|_| format!("{path} is not readable"))?;
        if !parsed.is_ca() || permitted_names(&parsed).is_none() {
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

/// Returns the certificates of an earlier authority in PEM. `content` is the content of the authority's certificate
/// file `path`. Omits private keys and all other PEM blocks. The result is appended to the certificate file of the next
/// authority.
///
/// # Errors
/// Returns a message for the operator if a certificate is unusable.
pub fn previous_certificates(path: &str, content: &[u8]) -> Result<String, String> {
    let chain = pem_files::certificates_in(path, content)?;
    Ok(further(path, chain.iter())?.iter().map(|certificate| pem("CERTIFICATE", certificate)).collect())
}
