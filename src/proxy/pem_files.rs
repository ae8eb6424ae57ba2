//! Reads certificates and private keys from PEM files (RFC 7468).

use pingora::tls::{CertificateDer, PrivateKeyDer, RootCertStore};
use rustls_pki_types::pem::PemObject;

use crate::file::{FILE_BYTES_MAX, read};

/// Reads the certificates of a file, at least one. Other PEM blocks are ignored.
///
/// # Errors
/// Returns a message for the operator.
pub(crate) fn certificates(path: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let bytes = read(path, FILE_BYTES_MAX).map_err(|error| format!("{path} cannot be read: {error}"))?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    let found = found.map_err(|error| format!("{path} is not a PEM file: {error}"))?;
    if found.is_empty() { Err(format!("{path} contains no certificate")) } else { Ok(found) }
}

/// Reads the first private key of a file: PKCS #1, PKCS #8 or SEC 1.
///
/// # Errors
/// Returns a message for the operator. The message contains no part of the file.
pub(crate) fn private_key(path: &str) -> Result<PrivateKeyDer<'static>, String> {
    let bytes = read(path, FILE_BYTES_MAX).map_err(|error| format!("{path} cannot be read: {error}"))?;
    PrivateKeyDer::from_pem_slice(&bytes).map_err(|_| format!("{path} contains no usable private key"))
}

/// Reads the certificates of a file into a store of trusted authorities.
///
/// # Errors
/// Returns a message for the operator.
pub(crate) fn authorities(path: &str) -> Result<RootCertStore, String> {
    let mut store = RootCertStore::empty();
    for certificate in certificates(path)? {
        store.add(certificate).map_err(|error| format!("{path} cannot be used: {error}"))?;
    }
    Ok(store)
}
