//! The TLS settings of connections to an agent. These settings contain the contents of the PEM files, so that a reload
//! replaces the files together with all other settings.

use sha2::{Digest, Sha256};

use crate::secret::Secret;

/// The TLS settings of connections to an agent.
#[derive(Clone, Debug)]
pub struct AgentTls {
    /// The authorities that may issue the agent's certificate. `None` means the authorities of the operating system.
    pub authorities: Option<Pem>,
    /// The client certificate of Callgate. `None` if Callgate presents no certificate to the agent.
    pub certificate: Option<ClientCertificateFiles>,
    /// The host name or IP address that the agent's certificate must have.
    pub name: Box<str>,
    /// The SHA-256 of all settings and files. Equal settings have the same digest.
    pub digest: [u8; 32],
}

/// The content of a PEM file.
#[derive(Clone, Debug)]
pub struct Pem {
    /// The path of the file, for messages and metrics.
    pub path: Box<str>,
    /// The content of the file, which can be a private key.
    pub content: Secret,
}

/// A client certificate and its private key.
#[derive(Clone, Debug)]
pub struct ClientCertificateFiles {
    /// The certificate chain. The leaf certificate comes first.
    pub certificate: Pem,
    /// The private key.
    pub key: Pem,
}

impl AgentTls {
    /// Creates the TLS settings and computes the digest of the settings and files.
    pub fn new(
        authorities: Option<Pem>,
        certificate: Option<ClientCertificateFiles>,
        name: Box<str>,
    ) -> Self {
        let (chain, key) = certificate.as_ref().map(|files| (&files.certificate, &files.key)).unzip();
        let mut hash = Sha256::new();
        for file in [authorities.as_ref(), chain, key] {
            // The presence and the length of each file are hashed, so that different settings have different digests.
            let bytes = file.map(|file| file.content.expose());
            hash.update([u8::from(bytes.is_some())]);
            hash.update(bytes.map_or(0, <[u8]>::len).to_be_bytes());
            hash.update(bytes.unwrap_or_default());
        }
        hash.update(name.as_bytes());
        Self { authorities, certificate, name, digest: hash.finalize().into() }
    }
}
