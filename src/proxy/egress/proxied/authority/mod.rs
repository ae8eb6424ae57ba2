//! The certificate authority of the forward proxy. Its name constraints contain only the intercepted hosts. Callgate
//! issues a certificate for each intercepted host. Callgate also writes a folder with the certificates that the agent
//! must trust.

mod bundle;
mod configured_files;
mod issue;
mod name_constraints;
mod trust_store;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use pingora::tls::sign::CertifiedKey;
use pingora::tls::{CertificateDer, ServerConfig};
use rcgen::{Issuer, KeyPair};

use crate::egress::ForwardProxy;
use crate::time::Timestamp;

use issue::Signer;

pub use configured_files::{check_authority, previous_certificates};
pub use issue::{NewAuthority, create_authority};

/// The validity period of the certificate of an intercepted host.
const LEAF_LIFETIME: Duration = Duration::from_secs(24 * 3600);
/// The remaining validity below which the certificate of an intercepted host is replaced.
const LEAF_RENEWAL: Duration = Duration::from_secs(3600);
/// The maximum number of cached certificates of intercepted hosts.
const LEAVES_MAX: usize = 1024;

/// The certificate authority of the forward proxy, and the certificates that it has issued.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
    /// The certificates of additional authorities that the agent must trust, for example while one authority replaces
    /// another.
    further: Vec<CertificateDer<'static>>,
    not_after: Timestamp,
    /// The path of the certificate file, for the metrics.
    file: Box<str>,
    /// Whether the authority's certificate and key were read from configured files.
    is_from_files: bool,
    hosts: Vec<Box<str>>,
    bundle: Box<str>,
    /// The TLS settings for intercepted connections, without a certificate.
    config: ServerConfig,
    /// The private key of the certificates of all intercepted hosts.
    leaf_key: KeyPair,
    leaves: Mutex<HashMap<Box<str>, Leaf>>,
}

/// The certificate of an intercepted host, with its private key.
struct Leaf {
    key: Arc<CertifiedKey>,
    not_after: Timestamp,
}

impl Authority {
    /// Returns the certificate authority for the intercepted `hosts`. Reads the authority from the configured files, if
    /// there are any. Otherwise returns `current` if its hosts and folder are unchanged, or creates a new authority.
    ///
    /// # Errors
    /// Returns a message for the operator if the files are unusable.
    pub(crate) fn for_proxy(
        proxy: &ForwardProxy,
        hosts: Vec<Box<str>>,
        current: Option<Arc<Self>>,
        now: Timestamp,
    ) -> Result<Arc<Self>, String> {
        if let Some(files) = &proxy.authority {
            let signer = configured_files::read_authority(files, &hosts, now)?;
            let file = files.certificate.path.clone();
            return Self::new(signer, file, true, proxy, hosts).map(Arc::new);
        }
        let is_right = |current: &Arc<Self>| {
            !current.is_from_files && current.hosts == hosts && current.bundle == proxy.bundle
        };
        if let Some(current) = current {
            if is_right(&current) {
                return Ok(current);
            }
            log::warn!(
                "the intercepted hosts have changed, so that Callgate has created another certificate authority: restart the agent, because many clients read the certificates only at their start"
            );
        }
        let signer = issue::new_authority(&hosts, now)?;
        let file = format!("{}/ca.pem", proxy.bundle).into();
        Self::new(signer, file, false, proxy, hosts).map(Arc::new)
    }

    fn new(
        signer: Signer,
        file: Box<str>,
        is_from_files: bool,
        proxy: &ForwardProxy,
        hosts: Vec<Box<str>>,
    ) -> Result<Self, String> {
        let Signer { issuer, certificate, further, not_after } = signer;
        Ok(Self {
            issuer,
            certificate,
            further,
            not_after,
            file,
            is_from_files,
            hosts,
            bundle: proxy.bundle.clone(),
            config: issue::server_config(),
            leaf_key: issue::new_key()?,
            leaves: Mutex::default(),
        })
    }

    /// Returns the path and the expiry time in Unix seconds of the authority's certificate.
    pub(crate) fn expiry(&self) -> (&str, i64) {
        (&self.file, self.not_after.unix_secs())
    }

    /// Writes `ca.pem`, `bundle.pem` and `trust.p12` to the configured folder. These files contain the certificates
    /// that the agent must trust.
    ///
    /// # Errors
    /// Returns a message for the operator if the files cannot be written.
    pub(crate) fn publish(&self) -> Result<(), String> {
        bundle::write(&self.bundle, &self.certificate, &self.further)
    }

    /// Returns the TLS settings for intercepted connections, without a certificate.
    pub(crate) fn server_config(&self) -> ServerConfig {
        self.config.clone()
    }

    /// Returns the certificate for an intercepted host, from the cache or newly issued.
    ///
    /// # Errors
    /// Returns a message for the operator if the certificate cannot be issued.
    pub(crate) fn leaf(&self, host: &str, now: Timestamp) -> Result<Arc<CertifiedKey>, String> {
        let is_usable =
            |leaf: &Leaf| leaf.not_after > now.plus(LEAF_RENEWAL) || leaf.not_after == self.not_after;
        if let Some(leaf) = self.leaves.lock().get(host).filter(|leaf| is_usable(leaf)) {
            return Ok(Arc::clone(&leaf.key));
        }
        let not_after = now.plus(LEAF_LIFETIME).min(self.not_after);
        let key = Arc::new(issue::issue_leaf(&self.issuer, &self.leaf_key, host, (now, not_after))?);
        let mut leaves = self.leaves.lock();
        if leaves.len() >= LEAVES_MAX && !leaves.contains_key(host) {
            let oldest = leaves.iter().min_by_key(|(_, leaf)| leaf.not_after).map(|(host, _)| host.clone());
            oldest.and_then(|host| leaves.remove(&host));
        }
        leaves.insert(host.into(), Leaf { key: Arc::clone(&key), not_after });
        Ok(key)
    }
}

#[cfg(test)]
mod tests;
