//! The settings of a listener, and the properties of an accepted connection.

use std::net::IpAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use pingora::protocols::Ssl;

use super::connection_limits::ConnectionSlot;
use super::tickets::TicketKeys;
use super::tls::{self, TlsConfig, VerifiedCertificate};
use crate::clock::Clock;
use crate::config::Listener;
use crate::http::Caller;
use crate::proxy::runtime::{Drain, InFlight};
use crate::request::{ClientCertificate, RequestHead};
use crate::source::Networks;

/// The settings of an ingress listener or of the replica listener. A reload can replace these settings.
pub(crate) struct ListenerConfig {
    pub(crate) tls: Option<TlsConfig>,
    pub(super) proxied_by: Option<Networks>,
    /// The request path of a load balancer's health checks.
    health: Option<Box<str>>,
}

impl ListenerConfig {
    /// Reads the certificate files of an ingress listener. `keys` are the keys of session tickets.
    ///
    /// # Errors
    /// Returns a message for the operator that names the unusable file.
    pub(crate) fn new(listener: &Listener, keys: &Arc<TicketKeys>) -> Result<Self, String> {
        Self::with_protocols(listener, tls::INGRESS_PROTOCOLS, Some(keys))
    }

    /// Reads the certificate files of the replica listener, which serves HTTP/1 only.
    ///
    /// # Errors
    /// Returns a message for the operator that names the unusable file.
    pub(crate) fn for_members(listener: &Listener) -> Result<Self, String> {
        Self::with_protocols(listener, tls::EGRESS_PROTOCOLS, None)
    }

    fn with_protocols(
        listener: &Listener,
        protocols: &[&[u8]],
        keys: Option<&Arc<TicketKeys>>,
    ) -> Result<Self, String> {
        let tls = listener.tls.as_ref().map(|tls| tls::load(tls, protocols, keys)).transpose()?;
        Ok(Self { tls, proxied_by: listener.proxied_by.clone(), health: listener.health.clone() })
    }
}

/// The properties of an accepted connection.
pub(crate) struct ConnInfo {
    /// The IP address of the caller: the peer of the socket, or the address in the PROXY protocol header.
    pub(crate) peer: IpAddr,
    pub(super) certificate: Option<VerifiedCertificate>,
    /// The address of the load balancer that sent the PROXY protocol header. `None` if the listener expects no such
    /// header.
    pub(super) load_balancer: Option<IpAddr>,
    /// The TLS version of the connection.
    pub(super) tls_version: TlsVersion,
    pub(super) config: Arc<ArcSwap<ListenerConfig>>,
    pub(super) new: NewConnection,
    /// Counts the connection as open until this value is dropped.
    pub(super) _slot: ConnectionSlot,
}

/// An accepted connection on which no request has begun. A stopping server waits a short time for the first request,
/// because the caller may already have sent this request.
pub(crate) struct NewConnection(Mutex<Option<InFlight>>);

impl NewConnection {
    pub(crate) fn begin(drain: &Drain) -> Self {
        Self(Mutex::new(drain.begin()))
    }

    /// Records that the first request on the connection has begun, or that no request will arrive.
    pub(crate) fn end(&self) {
        self.0.lock().take();
    }
}

/// The TLS version of a connection.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum TlsVersion {
    None,
    Tls1_2,
    Tls1_3,
}

impl TlsVersion {
    /// Returns the TLS version of a stream after its handshake.
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
    /// Returns the caller. Includes the client certificate if the current settings still trust the certificate.
    pub(crate) fn caller(&self, clock: &Clock) -> Caller<'_> {
        let is_tls = self.tls_version != TlsVersion::None;
        Caller::at(self.peer).with_certificate(self.certificate(clock)).with_tls(is_tls)
    }

    /// Reports whether a request is a health check of a load balancer.
    pub(crate) fn is_health_check(&self, head: &RequestHead<'_>) -> bool {
        let config = self.config.load();
        matches!(head.method, "GET" | "HEAD") && config.health.as_deref() == Some(head.raw_path())
    }

    /// Records that a request on this connection has begun.
    pub(crate) fn request_began(&self) {
        self.new.end();
    }

    /// Reports whether the current settings of the listener would accept this connection. The settings must trust the
    /// load balancer of the connection and allow the TLS version of the connection. If the settings require a client
    /// certificate, the connection must have a client certificate that is still trusted.
    pub(crate) fn is_still_allowed(&self, clock: &Clock) -> bool {
        let config = self.config.load();
        let tls_matches = match (self.tls_version, &config.tls) {
            (TlsVersion::None, None) | (TlsVersion::Tls1_3, Some(_)) => true,
            (TlsVersion::Tls1_2, Some(tls)) => tls.allows_tls_1_2,
            (TlsVersion::None, Some(_)) | (TlsVersion::Tls1_2 | TlsVersion::Tls1_3, None) => false,
        };
        let trusted = match (self.load_balancer, &config.proxied_by) {
            (Some(load_balancer), Some(trusted)) => trusted.contains(load_balancer),
            (None, None) => true,
            _ => false,
        };
        let required = config.tls.as_ref().and_then(|tls| tls.clients.as_ref()).is_some_and(|c| c.required);
        tls_matches && trusted && (!required || self.certificate(clock).is_some())
    }

    /// Returns the client certificate of the connection if the current settings still trust the certificate.
    pub(crate) fn certificate(&self, clock: &Clock) -> Option<&ClientCertificate> {
        let verified = self.certificate.as_ref()?;
        let config = self.config.load();
        let clients = config.tls.as_ref().and_then(|tls| tls.clients.as_ref())?;
        clients.still_trusts(verified, clock).then_some(&verified.certificate)
    }
}
