//! The ledger's clock: lets time pass in it, and tells the agent what did not come.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::time::timeout;

use super::clock::instant;
use super::deliver::{Delivery, deliver, finish};
use super::exchange::Shared;
use crate::ingress::Notice;
use crate::store::{DueNotice, Walk};
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

/// Runs until it is aborted.
pub(super) async fn run(shared: Arc<Shared>) {
    let mut queues: HashMap<Arc<str>, Queue> = HashMap::new();
    let mut walk = Walk::default();
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        shared.pool.sweep(instant());
        shared.providers.load().sweep();
        shared.metrics.held(shared.slots.count(), shared.body_memory.bytes());
        let now = shared.ledger_clock.now(instant());
        for due in shared.store.pass(now) {
            queues.entry(Arc::clone(&due.route)).or_default().waiting.push_back(due);
        }
        for queue in queues.values_mut() {
            send(&shared, queue);
        }
        queues.retain(|_, queue| !queue.waiting.is_empty() || queue.under_way.load(Ordering::SeqCst) > 0);
        shared.store.walk(&mut walk, &shared.metrics, now);
    }
}

fn send(shared: &Arc<Shared>, queue: &mut Queue) {
    while queue.under_way.load(Ordering::SeqCst) < NOTICES_MAX
        && let Some(due) = queue.waiting.pop_front()
    {
        queue.under_way.fetch_add(1, Ordering::SeqCst);
        let (shared, under_way) = (Arc::clone(shared), Arc::clone(&queue.under_way));
        tokio::spawn(async move {
            tell(&shared, &due).await;
            under_way.fetch_sub(1, Ordering::SeqCst);
        });
    }
}

async fn tell(shared: &Shared, due: &DueNotice) {
    // One that does not begin any more is owed still, and told after the next start where the ledger has a file.
    let Some(_under_way) = shared.notices.begin() else { return };
    let cause = due.notice.cause.name();
    let agent = &shared.policy.load().agent;
    let patience = agent.connect_timeout + agent.response_timeout;
    let answered = timeout(patience, deliver_notice(shared, due)).await.unwrap_or(Some(false));
    let outcome = match answered {
        Some(true) => "answered",
        Some(false) => "failed",
        // A callback came meanwhile, or somebody revoked it: there is nothing to tell any more.
        None if shared.store.read(&due.id).is_none_or(|record| !record.owes(due.notice)) => return,
        None => "given_up",
    };
    shared.metrics.notice(&due.route, cause, outcome);
    if outcome != "answered" {
        log::warn!("{}: the agent could not be told that it is {cause}: {outcome}", due.id);
    }
    let now = shared.ledger_clock.now(instant());
    if let Err(refusal) = shared.store.noticed(due, answered != Some(false), now).await {
        log::error!("{}: {}", due.id, refusal.detail);
    }
}

/// Whether the agent answered with 2xx; `None` where nobody is to be told any more.
async fn deliver_notice(shared: &Shared, due: &DueNotice) -> Option<bool> {
    let policy = shared.policy.load_full();
    let interaction = shared.store.read(&due.id).filter(|record| record.owes(due.notice))?;
    let delivery = Delivery::notice(&Notice {
        route: policy.route(&due.route)?,
        id: &due.id,
        interaction: &interaction,
        cause: due.notice.cause,
        authority: &policy.ingress.edge().authority,
        stamp: Stamp { id: &shared.request_ids.next(), now: shared.clock.now() },
    })?;
    let Ok(mut answer) = deliver(&shared.pool, &policy.agent, delivery, instant()).await else {
        return Some(false);
    };
    let success = answer.is_success();
    if answer.gather(ANSWER_BYTES_MAX).await.is_ok() {
        finish(&shared.pool, &policy.agent, answer, instant());
    }
    Some(success)
}
