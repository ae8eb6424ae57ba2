//! The HTTP client for documents. It verifies TLS with the configured or the platform's trusted roots, follows no
//! redirects, uses no proxy, and limits the size of documents.

use std::sync::Arc;
use std::time::Duration;

use crate::file::{FILE_BYTES_MAX, read, without_byte_order_mark};
use ureq::Agent;
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};

/// Maximum size of a document, in bytes.
pub(super) const DOCUMENT_BYTES_MAX: u64 = 8 << 20;
/// Maximum size of a certificate that a message names, in bytes.
pub(super) const CERTIFICATE_BYTES_MAX: u64 = 64 << 10;

/// A client that fetches documents from URLs and files.
#[derive(Clone)]
pub(super) struct HttpClient {
    agent: Agent,
}

impl HttpClient {
    /// Creates a client. `roots` is a PEM file with trusted roots; `None` selects the roots of the platform.
    ///
    /// # Errors
    /// Returns the reason as text if the trusted roots cannot be read.
    pub(super) fn new(roots: Option<&str>, timeout: Duration) -> Result<Self, String> {
        let certificates = match roots {
            Some(path) => from_file(path)?,
            None => rustls_native_certs::load_native_certs()
                .map_err(|error| format!("cannot read the trusted roots of the platform: {error}"))?
                .iter()
                .map(|der| Certificate::from_der(der).to_owned())
                .collect(),
        };
        let tls = TlsConfig::builder().root_certs(RootCerts::Specific(Arc::new(certificates))).build();
        let config = Agent::config_builder()
            .tls_config(tls)
            .timeout_global(Some(timeout))
            .max_redirects(0)
            .proxy(None)
            .user_agent(concat!("callgate/", env!("CARGO_PKG_VERSION")))
            .build();
        Ok(Self { agent: config.new_agent() })
    }

    /// Fetches the document at an `https:` or `file:` URL, without a byte order mark at its beginning. Blocks the thread.
    ///
    /// # Errors
    /// Returns the reason as text. A document of more than `bytes_max` bytes is an error, and so is every HTTP status
    /// except 200.
    pub(super) fn get(&self, url: &str, bytes_max: u64) -> Result<Vec<u8>, String> {
        if let Some(path) = url.strip_prefix("file:") {
            return read(path, bytes_max).map_err(|error| error.to_string());
        }
        let mut response = self.agent.get(url).call().map_err(|error| error.to_string())?;
        if response.status() != 200 {
            return Err(format!("HTTP {}", response.status().as_u16()));
        }
        let body = response.body_mut().with_config().limit(bytes_max);
        body.read_to_vec().map(without_byte_order_mark).map_err(|error| error.to_string())
    }
}

fn from_file(path: &str) -> Result<Vec<Certificate<'static>>, String> {
    let bytes = read(path, FILE_BYTES_MAX).map_err(|error| format!("{path}: {error}"))?;
    let mut certificates = Vec::new();
    for item in parse_pem(&bytes) {
        if let PemItem::Certificate(certificate) = item.map_err(|error| format!("{path}: {error}"))? {
            certificates.push(certificate);
        }
    }
    Ok(certificates)
}
