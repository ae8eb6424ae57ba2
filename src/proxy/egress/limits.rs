//! Limits of the egress listener: connections, and the memory of request bodies.

use std::sync::Arc;

use arc_swap::ArcSwapOption;

use crate::config::EgressListener;
use crate::http::{BodyMemory, Reserved};
use crate::proxy::listen::ConnectionLimits;

/// The egress listener. What it holds is held apart from what callers of the ingress have, so that neither side can use up
/// what is the other's.
pub(crate) struct EgressLimits {
    /// A reload replaces it. `None`: there is no such listener.
    pub(crate) settings: ArcSwapOption<EgressListener>,
    pub(super) slots: Arc<ConnectionLimits>,
    body_memory: BodyMemory,
}

impl EgressLimits {
    pub(crate) fn new(settings: Option<EgressListener>) -> Self {
        Self {
            settings: ArcSwapOption::new(settings.map(Arc::new)),
            slots: Arc::default(),
            body_memory: BodyMemory::default(),
        }
    }

    /// Most connections at one time.
    pub(crate) fn connections_max(&self) -> usize {
        self.settings.load().as_ref().map_or(0, |settings| settings.connections_max)
    }

    /// Most bytes of all bodies that are held at one time.
    pub(crate) fn body_memory_bytes_max(&self) -> u64 {
        self.settings.load().as_ref().map_or(0, |settings| settings.body_memory_bytes_max)
    }

    /// Nothing so far, of the memory for bodies.
    pub(crate) fn reserve(&self) -> Reserved {
        self.body_memory.reserve(self.body_memory_bytes_max())
    }
}
