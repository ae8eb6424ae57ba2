//! Advances the time of the ledger, and delivers the notices that become due.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::time::timeout;

use super::agent_connections::{self, AgentPool};
use super::deliver::{Delivery, deliver};
use crate::clock::instant;
use crate::ingress::Notice;
use crate::policy::Policy;
use crate::proxy::runtime::{Clocks, Drain, Recorder};
use crate::store::{DueNotice, Store, Walk};
use crate::token::Stamp;

/// Interval between two updates of the ledger's time.
const TICK: Duration = Duration::from_millis(250);
/// Maximum number of notices of one route that are delivered concurrently. The limit is per route, so that a slow path
/// of the agent delays only the notices of its own route.
const NOTICES_MAX: usize = 16;
/// Maximum number of bytes of a response to a notice that are read.
const RESPONSE_BYTES_MAX: usize = 64 << 10;

/// The pending notices of one route.
#[derive(Default)]
struct Queue {
    waiting: VecDeque<DueNotice>,
    in_flight: Arc<AtomicUsize>,
}

/// The components that deliver notices.
pub(crate) struct Notices {
    pub(crate) policy: Arc<ArcSwap<Policy>>,
    pub(crate) clocks: Clocks,
    pub(crate) recorder: Arc<Recorder>,
    /// The ledger.
    pub(crate) store: Arc<Store>,
    pub(crate) agent_pool: Arc<AgentPool>,
    /// The notices that are being delivered.
    pub(crate) drain: Drain,
}

/// Advances the time of the ledger and delivers due notices. Runs until it is aborted.
pub(crate) async fn run(notices: Arc<Notices>) {
    let mut queues: HashMap<Arc<str>, Queue> = HashMap::new();
    let mut walk = Walk::default();
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let now = notices.clocks.ledger_now(instant());
        for due in notices.store.pass(now) {
            queues.entry(Arc::clone(&due.route)).or_default().waiting.push_back(due);
        }
        for queue in queues.values_mut() {
            start_deliveries(&notices, queue);
        }
        queues.retain(|_, queue| !queue.waiting.is_empty() || queue.in_flight.load(Ordering::SeqCst) > 0);
        notices.store.walk(&mut walk, &notices.recorder.metrics, now);
    }
}

fn start_deliveries(notices: &Arc<Notices>, queue: &mut Queue) {
    while queue.in_flight.load(Ordering::SeqCst) < NOTICES_MAX
        && let Some(due) = queue.waiting.pop_front()
    {
        queue.in_flight.fetch_add(1, Ordering::SeqCst);
        let (notices, in_flight) = (Arc::clone(notices), Arc::clone(&queue.in_flight));
        tokio::spawn(async move {
            deliver_due(&notices, &due).await;
            in_flight.fetch_sub(1, Ordering::SeqCst);
        });
    }
}

async fn deliver_due(notices: &Notices, due: &DueNotice) {
    // Notices that could not be sent before shutdown stay pending. With a `file` store, Callgate sends them after the
    // next start.
    let Some(_in_flight) = notices.drain.begin() else { return };
    let cause = due.notice.cause.name();
    let agent = &notices.policy.load().agent;
    let deadline = agent.connect_timeout + agent.response_timeout;
    let accepted = timeout(deadline, deliver_notice(notices, due)).await.unwrap_or(Some(false));
    let outcome = match accepted {
        Some(true) => "answered",
        Some(false) => "failed",
        // A callback arrived meanwhile, or the interaction was revoked: the notice is no longer needed.
        None if notices.store.read(&due.id).is_none_or(|record| !record.owes(due.notice)) => return,
        None => "given_up",
    };
    notices.recorder.metrics.notice(&due.route, cause, outcome);
    if outcome != "answered" {
        log::warn!("{}: the notice `{cause}` was not delivered to the agent: {outcome}", due.id);
    }
    let now = notices.clocks.ledger_now(instant());
    if let Err(refusal) = notices.store.noticed(due, accepted != Some(false), now).await {
        log::error!("{}: {}", due.id, refusal.detail);
    }
}

/// Delivers a notice. Reports whether the agent responded with 2xx. Returns `None` if the notice is no longer needed or
/// cannot be written.
async fn deliver_notice(notices: &Notices, due: &DueNotice) -> Option<bool> {
    let policy = notices.policy.load_full();
    let interaction = notices.store.read(&due.id).filter(|record| record.owes(due.notice))?;
    let delivery = Delivery::notice(&Notice {
        route: policy.route(&due.route)?,
        id: &due.id,
        interaction: &interaction,
        cause: due.notice.cause,
        authority: &policy.ingress.edge().authority,
        stamp: Stamp { id: &notices.recorder.request_ids.next(), now: notices.clocks.now() },
    })?;
    let Ok(mut response) = deliver(&notices.agent_pool, &policy.agent, delivery, instant()).await else {
        return Some(false);
    };
    let success = response.is_success();
    if response.read_up_to(RESPONSE_BYTES_MAX).await.is_ok()
        && let Some(connection) = response.take_connection()
    {
        agent_connections::keep(&notices.agent_pool, &policy.agent, connection, instant());
    }
    Some(success)
}
