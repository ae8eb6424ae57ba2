//! The settings of a listener, and what is known of a connection that it accepted.

use std::net::IpAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;
use pingora::protocols::Ssl;

use super::connection_limits::ConnectionSlot;
use super::tls::{self, TlsConfig, VerifiedCertificate};
use crate::config::Listener;
use crate::http::Caller;
use crate::request::ClientCertificate;
use crate::source::Networks;

/// How connections begin at a listener; a reload replaces it.
pub(crate) struct ListenerConfig {
    pub(crate) tls: Option<TlsConfig>,
    pub(super) proxied_by: Option<Networks>,
}

impl ListenerConfig {
    /// Reads the files of a listener.
    ///
    /// # Errors
    /// What is wrong with them, in words.
    pub(crate) fn new(listener: &Listener) -> Result<Self, String> {
        let tls = listener.tls.as_ref().map(tls::ready).transpose()?;
        Ok(Self { tls, proxied_by: listener.proxied_by.clone() })
    }
}

/// What is known of a connection.
pub(crate) struct ConnInfo {
    /// Who is at the other end, or whom a trusted balancer says it passes on.
    pub(crate) peer: IpAddr,
    pub(super) certificate: Option<VerifiedCertificate>,
    /// The balancer that says so.
    pub(super) passed_on_by: Option<IpAddr>,
    /// How the connection is protected.
    pub(super) protection: Protection,
    pub(super) config: Arc<ArcSwap<ListenerConfig>>,
    /// Its room, for as long as it lasts.
    pub(super) _slot: ConnectionSlot,
}

/// How a connection is protected.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Protection {
    None,
    Tls1_2,
    Tls1_3,
}

impl Protection {
    /// Returns that of a stream whose handshake, if it has one, is over.
    pub(super) fn of(stream: &impl Ssl) -> Self {
        match stream.get_ssl_digest() {
            None => Self::None,
            // rustls writes `TLSv1_3`, other libraries `TLSv1.3`.
            Some(digest) if digest.version.ends_with('3') => Self::Tls1_3,
            Some(_) => Self::Tls1_2,
        }
    }
}

impl ConnInfo {
    /// Returns the caller, with its client certificate if the certificate is still trusted.
    pub(crate) fn caller(&self) -> Caller<'_> {
        Caller::at(self.peer).with_certificate(self.certificate())
    }

    /// Whether the connection could still be made as it was: its balancer is trusted, its client is believed where
    /// nobody gets in without, and the listener accepts its version of TLS.
    pub(crate) fn holds(&self) -> bool {
        let config = self.config.load();
        let protected = match (self.protection, &config.tls) {
            (Protection::None, None) | (Protection::Tls1_3, Some(_)) => true,
            (Protection::Tls1_2, Some(tls)) => tls.has_1_2,
            (Protection::None, Some(_)) | (Protection::Tls1_2 | Protection::Tls1_3, None) => false,
        };
        let trusted = match (self.passed_on_by, &config.proxied_by) {
            (Some(balancer), Some(trusted)) => trusted.contains(balancer),
            (None, None) => true,
            _ => false,
        };
        let required = config.tls.as_ref().and_then(|tls| tls.clients.as_ref()).is_some_and(|c| c.required);
        protected && trusted && (!required || self.certificate().is_some())
    }

    /// What the caller proved to be, as long as those who vouch for it are believed.
    pub(crate) fn certificate(&self) -> Option<&ClientCertificate> {
        let shown = self.certificate.as_ref()?;
        let config = self.config.load();
        let clients = config.tls.as_ref().and_then(|tls| tls.clients.as_ref())?;
        clients.believe(shown).then_some(&shown.certificate)
    }
}
