//! The ledger's clock: lets time pass in it, and tells the agent what did not come.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::time::timeout;

use super::agent_pool::AgentPool;
use super::deliver::{Delivery, deliver, finish};
use crate::clock::instant;
use crate::ingress::Notice;
use crate::policy::Policy;
use crate::proxy::runtime::{Clocks, Drain, Recorder};
use crate::store::{DueNotice, Store, Walk};
use crate::token::Stamp;

/// How often time passes.
const TICK: Duration = Duration::from_millis(250);
/// Most notices of one route under way at once: one agent's slow path must not hold up another's.
const NOTICES_MAX: usize = 16;
/// Most bytes that are read of an answer to a notice.
const ANSWER_BYTES_MAX: usize = 64 << 10;

/// The notices of one route that wait for their turn.
#[derive(Default)]
struct Queue {
    waiting: VecDeque<DueNotice>,
    under_way: Arc<AtomicUsize>,
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

/// Lets time pass in the ledger, and delivers the notices that become due. Runs until it is aborted.
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
            send(&notices, queue);
        }
        queues.retain(|_, queue| !queue.waiting.is_empty() || queue.under_way.load(Ordering::SeqCst) > 0);
        notices.store.walk(&mut walk, &notices.recorder.metrics, now);
    }
}

fn send(notices: &Arc<Notices>, queue: &mut Queue) {
    while queue.under_way.load(Ordering::SeqCst) < NOTICES_MAX
        && let Some(due) = queue.waiting.pop_front()
    {
        queue.under_way.fetch_add(1, Ordering::SeqCst);
        let (notices, under_way) = (Arc::clone(notices), Arc::clone(&queue.under_way));
        tokio::spawn(async move {
            tell(&notices, &due).await;
            under_way.fetch_sub(1, Ordering::SeqCst);
        });
    }
}

async fn tell(notices: &Notices, due: &DueNotice) {
    // One that does not begin any more is owed still, and told after the next start where the ledger has a file.
    let Some(_under_way) = notices.drain.begin() else { return };
    let cause = due.notice.cause.name();
    let agent = &notices.policy.load().agent;
    let patience = agent.connect_timeout + agent.response_timeout;
    let answered = timeout(patience, deliver_notice(notices, due)).await.unwrap_or(Some(false));
    let outcome = match answered {
        Some(true) => "answered",
        Some(false) => "failed",
        // A callback came meanwhile, or somebody revoked it: there is nothing to tell any more.
        None if notices.store.read(&due.id).is_none_or(|record| !record.owes(due.notice)) => return,
        None => "given_up",
    };
    notices.recorder.metrics.notice(&due.route, cause, outcome);
    if outcome != "answered" {
        log::warn!("{}: the agent could not be told that it is {cause}: {outcome}", due.id);
    }
    let now = notices.clocks.ledger_now(instant());
    if let Err(refusal) = notices.store.noticed(due, answered != Some(false), now).await {
        log::error!("{}: {}", due.id, refusal.detail);
    }
}

/// Whether the agent answered with 2xx; `None` where nobody is to be told any more.
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
    let Ok(mut answer) = deliver(&notices.agent_pool, &policy.agent, delivery, instant()).await else {
        return Some(false);
    };
    let success = answer.is_success();
    if answer.gather(ANSWER_BYTES_MAX).await.is_ok() {
        finish(&notices.agent_pool, &policy.agent, answer, instant());
    }
    Some(success)
}
