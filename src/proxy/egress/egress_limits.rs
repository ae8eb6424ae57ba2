//! Settings and limits of the egress listener: TLS, connections and memory for bodies.

use std::sync::Arc;

use arc_swap::ArcSwapOption;

use crate::config::EgressListener;
use crate::http::{BodyMemory, MemoryReservation};
use crate::proxy::listen::{ConnectionLimits, EGRESS_PROTOCOLS, TlsConfig, load_tls};

/// The settings and limits of the egress listener. Ingress and egress have separate limits, so that neither side can
/// use up the resources of the other.
pub(crate) struct EgressLimits {
    /// The settings. A reload replaces them. `None` if there is no egress listener.
    pub(crate) settings: ArcSwapOption<EgressListener>,
    /// The certificate for new connections. A reload replaces it. `None` if the listener accepts plain HTTP.
    pub(crate) tls: ArcSwapOption<TlsConfig>,
    pub(super) connections: Arc<ConnectionLimits>,
    body_memory: BodyMemory,
}

/// The settings of the egress listener, with its certificate files read.
pub(crate) struct EgressSettings {
    listener: Arc<EgressListener>,
    tls: Option<Arc<TlsConfig>>,
}

impl EgressSettings {
    /// Reads the certificate files of the listener.
    ///
    /// # Errors
    /// Returns a message for the operator that names the unusable file.
    pub(crate) fn load(listener: &EgressListener) -> Result<Self, String> {
        let tls = listener.tls.as_ref().map(|tls| load_tls(tls, EGRESS_PROTOCOLS)).transpose()?;
        Ok(Self { listener: Arc::new(listener.clone()), tls: tls.map(Arc::new) })
    }

    /// Reports whether the listener accepts TLS instead of plain HTTP.
    pub(crate) fn has_tls(&self) -> bool {
        self.tls.is_some()
    }
}

impl EgressLimits {
    pub(crate) fn new(settings: Option<EgressSettings>) -> Self {
        let limits = Self {
            settings: ArcSwapOption::empty(),
            tls: ArcSwapOption::empty(),
            connections: Arc::default(),
            body_memory: BodyMemory::default(),
        };
        limits.install(settings);
        limits
    }

    /// Replaces the settings.
    pub(crate) fn install(&self, settings: Option<EgressSettings>) {
        let (listener, tls) = settings.map_or((None, None), |new| (Some(new.listener), new.tls));
        self.settings.store(listener);
        self.tls.store(tls);
    }

    /// Returns the maximum number of concurrent connections.
    pub(crate) fn connections_max(&self) -> usize {
        self.settings.load().as_ref().map_or(0, |settings| settings.connections_max)
    }

    /// Returns the maximum memory for all bodies together, in bytes.
    pub(crate) fn body_memory_bytes_max(&self) -> u64 {
        self.settings.load().as_ref().map_or(0, |settings| settings.body_memory_bytes_max)
    }

    /// Creates an empty reservation in the memory for bodies.
    pub(crate) fn reserve(&self) -> MemoryReservation {
        self.body_memory.reserve(self.body_memory_bytes_max())
    }
}
