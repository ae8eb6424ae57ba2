//! The components that serve requests to the ingress listeners.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use arc_swap::ArcSwap;

use super::agents::Agents;
use super::caller_rate_limits::RateLimits;
use crate::fetch::Fetcher;
use crate::http::BodyMemory;
use crate::policy::Policy;
use crate::proxy::replicas::Replication;
use crate::proxy::runtime::{Clocks, Drain, Recorder};
use crate::store::Store;

/// The components that serve requests to the ingress listeners.
pub(crate) struct IngressContext {
    /// The policy. A reload replaces the policy, but each request uses one policy from beginning to end.
    pub(crate) policy: Arc<ArcSwap<Policy>>,
    pub(crate) clocks: Clocks,
    pub(crate) recorder: Arc<Recorder>,
    /// The ledger.
    pub(crate) store: Arc<Store>,
    pub(crate) agents: Arc<Agents>,
    /// The connections to the other replicas. `None` if there is only one replica.
    pub(crate) replication: Option<Arc<Replication>>,
    pub(crate) fetcher: Fetcher,
    pub(crate) rate_limits: RateLimits,
    pub(crate) body_memory: BodyMemory,
    /// The URL prefix at which the agent answers questions of providers.
    pub(crate) actions_url: Box<str>,
    pub(crate) drain: IngressDrain,
}

/// Counts the ingress requests in flight and the open HTTP/2 connections.
#[derive(Default)]
pub(crate) struct IngressDrain {
    pub(crate) requests: Drain,
    /// Counts the open HTTP/2 connections. A stopping server also waits for these connections, because a connection may
    /// still be sending a response after its request was processed.
    pub(crate) http2: Drain,
    /// Whether every response closes its HTTP/1 connection. True while the server is stopping.
    pub(crate) close_connections: AtomicBool,
}
