//! What serving callbacks needs.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use arc_swap::ArcSwap;

use super::agent_pool::AgentPool;
use super::rate_limits::RateLimits;
use crate::fetch::Fetcher;
use crate::http::BodyMemory;
use crate::policy::Policy;
use crate::proxy::runtime::{Clocks, Drain, Recorder};
use crate::store::Store;

/// The components that serve callbacks.
pub(crate) struct IngressContext {
    /// The policy. A reload replaces it; each request uses one from beginning to end.
    pub(crate) policy: Arc<ArcSwap<Policy>>,
    pub(crate) clocks: Clocks,
    pub(crate) recorder: Arc<Recorder>,
    /// The ledger.
    pub(crate) store: Arc<Store>,
    pub(crate) agent_pool: Arc<AgentPool>,
    pub(crate) fetcher: Fetcher,
    pub(crate) rate_limits: RateLimits,
    pub(crate) body_memory: BodyMemory,
    /// The beginning of the agent's local URL for answers to questions.
    pub(crate) actions_url: Box<str>,
    pub(crate) drain: IngressDrain,
}

/// What is in flight on the ingress, and whether the server is stopping.
#[derive(Default)]
pub(crate) struct IngressDrain {
    pub(crate) requests: Drain,
    /// Connections of HTTP/2: their responses leave after their requests have ended.
    pub(crate) http2: Drain,
    /// Whether each response is the last one of its connection.
    pub(crate) leaving: AtomicBool,
}
