//! The components that serve requests of the agent.

use std::sync::Arc;

use arc_swap::ArcSwap;

use super::egress_limits::EgressLimits;
use super::provider_client::Providers;
use crate::policy::Policy;
use crate::proxy::listen::LogThrottle;
use crate::proxy::runtime::{Clocks, Drain, Recorder};
use crate::store::Store;

/// The components that serve requests to the egress listener.
pub(crate) struct EgressContext {
    /// The policy. A reload replaces the policy, but each request uses one policy from beginning to end.
    pub(crate) policy: Arc<ArcSwap<Policy>>,
    pub(crate) clocks: Clocks,
    pub(crate) recorder: Arc<Recorder>,
    /// The ledger.
    pub(crate) store: Arc<Store>,
    /// The HTTP client for providers. A reload that changes the trusted roots replaces the client.
    pub(crate) providers: Arc<ArcSwap<Providers>>,
    pub(crate) limits: EgressLimits,
    pub(crate) log_throttle: Arc<LogThrottle>,
    pub(crate) drain: Drain,
    /// Counts the connections on which no request has begun yet.
    pub(crate) new_connections: Drain,
}
