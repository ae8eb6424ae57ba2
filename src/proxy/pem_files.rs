//! Reads certificates and private keys from PEM files (RFC 7468).

use pingora::tls::{CertificateDer, PrivateKeyDer, RootCertStore};
use rustls_pki_types::pem::PemObject;

use crate::file::{FILE_BYTES_MAX, read};

/// Reads the certificates in a PEM file. Ignores other PEM blocks.
///
/// # Errors
/// Returns a message for the operator if the file is unreadable or contains no certificate.
pub(crate) fn certificates(path: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    certificates_in(path, &content(path)?)
}

/// Returns the certificates in the content of the PEM file `path`. See [`certificates`].
pub(crate) fn certificates_in(path: &str, bytes: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(bytes).collect();
    let found = found.map_err(|error| format!("{path} is not a PEM file: {error}"))?;
    if found.is_empty() { Err(format!("{path} contains no certificate")) } else { Ok(found) }
}

/// Reads the first private key in a PEM file: PKCS #1, PKCS #8 or SEC 1.
///
/// # Errors
/// Returns a message for the operator, without any part of the file, if the file is unreadable or contains no usable
/// key.
pub(crate) fn private_key(path: &str) -> Result<PrivateKeyDer<'static>, String> {
    private_key_in(path, &content(path)?)
}

/// Returns the first private key in the content of the PEM file `path`. See [`private_key`].
pub(crate) fn private_key_in(path: &str, bytes: &[u8]) -> Result<PrivateKeyDer<'static>, String> {
    PrivateKeyDer::from_pem_slice(bytes).map_err(|_| format!("{path} contains no usable private key"))
}

/// Reads the certificates in a PEM file into a store of trusted authorities.
///
/// # Errors
/// Returns a message for the operator if the file or a certificate is unusable.
pub(crate) fn authorities(path: &str) -> Result<RootCertStore, String> {
    authorities_in(path, &content(path)?)
}

/// Returns the certificates in the content of the PEM file `path` as a store of trusted authorities.
pub(crate) fn authorities_in(path: &str, bytes: &[u8]) -> Result<RootCertStore, String> {
    let mut store = RootCertStore::empty();
    for certificate in certificates_in(path, bytes)? {
        store.add(certificate).map_err(|error| format!("{path} cannot be used: {error}"))?;
    }
    Ok(store)
}

fn content(path: &str) -> Result<Vec<u8>, String> {
    read(path, FILE_BYTES_MAX).map_err(|error| format!("{path} cannot be read: {error}"))
}
