//! A server certificate for HTTPS. The certificate can be replaced while the server runs.

use arc_swap::ArcSwap;

use crate::config::{CertificateFiles, Resumption, Tls};
use crate::proxy::listen::{EGRESS_PROTOCOLS, TlsConfig, load_tls};

/// The paths of the files of a server certificate, and the TLS configuration that was created from these files.
pub struct ServedCertificate {
    tls: Tls,
    pub(super) current: ArcSwap<TlsConfig>,
}

impl ServedCertificate {
    /// Reads a certificate chain and its private key, both in PEM.
    ///
    /// # Errors
    /// Returns a message that names the unusable file.
    pub fn read(certificate: &str, key: &str) -> Result<Self, String> {
        let files = CertificateFiles { certificate: certificate.into(), key: key.into() };
        let tls = Tls {
            certificates: vec![files],
            tls_1_2: true,
            clients: None,
            resumption: Resumption::Remembered,
        };
        let current = ArcSwap::from_pointee(load_tls(&tls, EGRESS_PROTOCOLS, None)?);
        Ok(Self { tls, current })
    }

    /// Reads the certificate files again. New connections use the new certificate.
    ///
    /// # Errors
    /// Returns a message that names the unusable file. The server then continues to use the previous certificate.
    pub fn renew(&self) -> Result<(), String> {
        self.current.store(std::sync::Arc::new(load_tls(&self.tls, EGRESS_PROTOCOLS, None)?));
        Ok(())
    }
}
