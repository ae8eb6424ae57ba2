//! The components that deliver the messages of the inbox to the agents.

use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::sync::Notify;

use super::circuits::Circuits;
use crate::clock::instant;
use crate::ingress::{Deliver, Route};
use crate::policy::Policy;
use crate::proxy::egress::Providers;
use crate::proxy::ingress::agents::Agents;
use crate::proxy::ingress::caller_rate_limits::RateLimits;
use crate::proxy::listen::LogThrottle;
use crate::proxy::runtime::{Clocks, Drain, Recorder};
use crate::store::{Inbox, Store};

/// The components that deliver the messages of the inbox to the agents.
pub(crate) struct Deliveries {
    pub(crate) policy: Arc<ArcSwap<Policy>>,
    pub(crate) clocks: Clocks,
    pub(crate) recorder: Arc<Recorder>,
    /// The ledger, which also contains the inbox.
    pub(crate) store: Arc<Store>,
    pub(crate) agents: Arc<Agents>,
    /// Counts the deliveries in progress.
    pub(crate) drain: Drain,
    /// The HTTP client for the requests of `agent.wake`.
    pub(super) providers: Arc<ArcSwap<Providers>>,
    pub(super) rate_limits: RateLimits,
    pub(super) circuits: Circuits,
    pub(super) log_throttle: LogThrottle,
    /// Notified when a delivery has ended.
    pub(super) ended: Notify,
}

impl Deliveries {
    pub(crate) fn new(
        policy: Arc<ArcSwap<Policy>>,
        clocks: Clocks,
        recorder: Arc<Recorder>,
        store: Arc<Store>,
        (agents, providers): (Arc<Agents>, Arc<ArcSwap<Providers>>),
    ) -> Self {
        let (drain, rate_limits) = (Drain::default(), RateLimits::default());
        let (circuits, ended, log_throttle) = (Circuits::default(), Notify::new(), LogThrottle::default());
        Self {
            policy,
            clocks,
            recorder,
            store,
            agents,
            drain,
            providers,
            rate_limits,
            circuits,
            log_throttle,
            ended,
        }
    }

    pub(super) fn inbox(&self) -> &Arc<Inbox> {
        self.store.inbox()
    }

    /// Applies a new policy to the inbox: its settings, and the routes whose messages are delivered in order. If the
    /// policy does not contain the route of a message, the message becomes dead or waits until the route is back,
    /// depending on `drops_removed_routes`.
    pub(crate) fn install(&self, policy: &Policy) {
        let (settings, metrics) = (&policy.inbox, &self.recorder.metrics);
        let routes = policy.ingress.routes();
        let ordered = |route: &Arc<Route>| {
            let is_ordered = settings.is_ordered && route.deliver != Deliver::Pull;
            (Arc::clone(&route.name), is_ordered)
        };
        let ordered: Vec<_> = routes.iter().map(ordered).collect();
        self.inbox().configure(Arc::clone(settings), &ordered);
        metrics.inbox_limits(settings.messages_max, settings.bytes_max);
        routes
            .iter()
            .filter(|route| route.deliver.keeps())
            .for_each(|route| metrics.expect_inbox(&route.name));
        for name in self.inbox().waiting_routes().iter().filter(|name| policy.route(name).is_none()) {
            if settings.drops_removed_routes {
                let count = self.inbox().route_removed(name, self.clocks.ledger_now(instant()));
                log::warn!("{count} messages of the removed route {name} are dead");
            } else {
                log::warn!("messages of the route {name} wait, but the configuration does not contain it");
            }
        }
    }
}
