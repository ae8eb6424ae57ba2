//! Settings and limits of the egress listener: TLS, connections and memory for bodies.

use std::net::SocketAddr;
use std::sync::Arc;

use arc_swap::ArcSwapOption;

use super::own_addresses::OwnAddresses;
use super::proxied::authority::Authority;
use crate::config::EgressListener;
use crate::egress::{Egress, ForwardProxy};
use crate::guard::Url;
use crate::http::{BodyMemory, MemoryReservation};
use crate::proxy::listen::{ConnectionLimits, EGRESS_PROTOCOLS, TlsConfig, load_tls};
use crate::time::Timestamp;

/// The settings and limits of the egress listener. Ingress and egress have separate limits, so that neither side can
/// use up the resources of the other.
pub(crate) struct EgressLimits {
    /// The settings of the egress listener. A reload replaces these settings. `None` if there is no egress listener.
    pub(crate) settings: ArcSwapOption<EgressListener>,
    /// The TLS configuration for new connections. A reload replaces this configuration. `None` if the listener accepts
    /// plain HTTP.
    pub(crate) tls: ArcSwapOption<TlsConfig>,
    /// The certificate authority of the forward proxy. A reload can replace the authority. `None` if the listener is no
    /// forward proxy.
    pub(crate) authority: ArcSwapOption<Authority>,
    /// Counts and limits the open tunnels of the forward proxy.
    pub(super) tunnels: Arc<ConnectionLimits>,
    pub(super) connections: Arc<ConnectionLimits>,
    /// The bound address of the egress listener.
    own_address: OwnAddresses,
    body_memory: BodyMemory,
}

/// The settings of the egress listener, and the contents of its certificate files.
pub(crate) struct EgressSettings {
    listener: Arc<EgressListener>,
    tls: Option<Arc<TlsConfig>>,
    authority: Option<Arc<Authority>>,
}

impl EgressSettings {
    /// Reads the certificate files of the egress listener. `current` is the current certificate authority of the
    /// forward proxy.
    ///
    /// # Errors
    /// Returns a message for the operator that names the unusable file.
    pub(crate) fn load(
        listener: &EgressListener,
        egress: &Egress,
        current: Option<Arc<Authority>>,
        now: Timestamp,
    ) -> Result<Self, String> {
        let tls = listener.tls.as_ref().map(|tls| load_tls(tls, EGRESS_PROTOCOLS, None)).transpose()?;
        let authority = listener
            .proxy
            .as_ref()
            .map(|proxy| Authority::for_proxy(proxy, egress.intercepted_hosts(), current, now))
            .transpose()?;
        Ok(Self { listener: Arc::new(listener.clone()), tls: tls.map(Arc::new), authority })
    }

    /// Writes `ca.pem`, `bundle.pem` and `trust.p12` to the folder of the forward proxy. These files contain the
    /// certificates that the agent must trust.
    ///
    /// # Errors
    /// Returns a message for the operator if the files cannot be written.
    pub(crate) fn publish(&self) -> Result<(), String> {
        self.authority.as_ref().map_or(Ok(()), |authority| authority.publish())
    }

    /// Reports whether the egress listener accepts TLS instead of plain HTTP.
    pub(crate) fn has_tls(&self) -> bool {
        self.tls.is_some()
    }
}

impl EgressLimits {
    /// Creates the limits of the egress listener. `address` is the bound address, or `None` without an egress listener.
    pub(crate) fn new(settings: Option<EgressSettings>, address: Option<SocketAddr>) -> Self {
        let limits = Self {
            settings: ArcSwapOption::empty(),
            tls: ArcSwapOption::empty(),
            authority: ArcSwapOption::empty(),
            tunnels: Arc::default(),
            connections: Arc::default(),
            own_address: OwnAddresses::new(address.into_iter().collect()),
            body_memory: BodyMemory::default(),
        };
        limits.install(settings);
        limits
    }

    /// Replaces the settings of the egress listener.
    pub(crate) fn install(&self, settings: Option<EgressSettings>) {
        let (listener, tls, authority) =
            settings.map_or((None, None, None), |new| (Some(new.listener), new.tls, new.authority));
        self.settings.store(listener);
        self.tls.store(tls);
        self.authority.store(authority);
    }

    /// Returns the settings of the forward proxy, or `None` if the egress listener is no forward proxy.
    pub(crate) fn forward_proxy(&self) -> Option<Arc<ForwardProxy>> {
        self.settings.load().as_ref()?.proxy.clone()
    }

    /// Reports whether the egress listener accepts TLS instead of plain HTTP.
    pub(super) fn has_tls(&self) -> bool {
        self.tls.load().is_some()
    }

    /// Reports whether a URL leads to the egress listener: by its address, by `localhost`, or by a name in
    /// `listen.egress.hosts`.
    pub(super) fn is_own(&self, url: &Url) -> bool {
        let (host, port) = (url.host(), url.port());
        let settings = self.settings.load();
        let hosts = settings.as_ref().map_or(&[] as &[_], |settings| &settings.hosts);
        match url.address() {
            Some(address) => self.own_address.contains((address, port).into(), &[]),
            None if host == "localhost" => self.own_address.has_port(port),
            None => hosts.iter().any(|listed| **listed == *host || **listed == *format!("{host}:{port}")),
        }
    }

    /// Returns the maximum number of concurrent connections to the egress listener.
    pub(crate) fn connections_max(&self) -> usize {
        self.settings.load().as_ref().map_or(0, |settings| settings.connections_max)
    }

    /// Returns the maximum memory for all request bodies on the egress listener, in bytes.
    pub(crate) fn body_memory_bytes_max(&self) -> u64 {
        self.settings.load().as_ref().map_or(0, |settings| settings.body_memory_bytes_max)
    }

    /// Creates an empty reservation in the memory for request bodies.
    pub(crate) fn reserve(&self) -> MemoryReservation {
        self.body_memory.reserve(self.body_memory_bytes_max())
    }
}
