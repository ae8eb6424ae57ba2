//! Limits of the egress listener: connections and memory for bodies.

use std::sync::Arc;

use arc_swap::ArcSwapOption;

use crate::config::EgressListener;
use crate::http::{BodyMemory, MemoryReservation};
use crate::proxy::listen::ConnectionLimits;

/// The settings and limits of the egress listener. Ingress and egress have separate limits, so that neither side can
/// use up the resources of the other.
pub(crate) struct EgressLimits {
    /// The settings. A reload replaces them. `None` if there is no egress listener.
    pub(crate) settings: ArcSwapOption<EgressListener>,
    pub(super) connections: Arc<ConnectionLimits>,
    body_memory: BodyMemory,
}

impl EgressLimits {
    pub(crate) fn new(settings: Option<EgressListener>) -> Self {
        Self {
            settings: ArcSwapOption::new(settings.map(Arc::new)),
            connections: Arc::default(),
            body_memory: BodyMemory::default(),
        }
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
