//! The certificate authority of the forward proxy. It is limited by name to the intercepted hosts. Callgate issues a
//! certificate for each of them, and writes the certificates that the agent must trust.

mod bundle;
mod issue;
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

pub use issue::{NewAuthority, check_authority, create_authority, previous_certificates};

/// How long the certificate of an intercepted host is valid.
const LEAF_LIFETIME: Duration = Duration::from_secs(24 * 3600);
/// A certificate is replaced when it is valid for less than this time.
const LEAF_RENEWAL: Duration = Duration::from_secs(3600);
/// Maximum number of certificates in the cache.
const LEAVES_MAX: usize = 1024;

/// The certificate authority and the certificates that it has issued.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
    /// Other authorities that the agent must trust, too.
    further: Vec<CertificateDer<'static>>,
    not_after: Timestamp,
    /// The file of the certificate, for the metrics.
    file: Box<str>,
    /// Whether the certificate and its key were read from files.
    is_from_files: bool,
    hosts: Vec<Box<str>>,
    bundle: Box<str>,
    /// The TLS settings, without a certificate.
    config: ServerConfig,
    /// The key of all certificates of hosts.
    leaf_key: KeyPair,
    leaves: Mutex<HashMap<Box<str>, Leaf>>,
}

/// The certificate of an intercepted host.
struct Leaf {
    key: Arc<CertifiedKey>,
    not_after: Timestamp,
}

impl Authority {
    /// Returns the authority for the intercepted `hosts`: the one in the files of the configuration, `current` if it is
    /// still right, or a new one.
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
            let signer = issue::read_authority(files, &hosts, now)?;
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

    /// Returns the file of the certificate, and its expiry time in Unix seconds.
    pub(crate) fn expiry(&self) -> (&str, i64) {
        (&self.file, self.not_after.unix_secs())
    }

    /// Writes the certificates that the agent must trust.
    ///
    /// # Errors
    /// Returns a message for the operator.
    pub(crate) fn publish(&self) -> Result<(), String> {
        bundle::write(&self.bundle, &self.certificate, &self.further)
    }

    /// Returns the TLS settings for intercepted connections, without a certificate.
    pub(crate) fn server_config(&self) -> ServerConfig {
        self.config.clone()
    }

    /// Returns the certificate for a host.
    ///
    /// # Errors
    /// Returns a message for the operator.
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
