//! The ledger's clock: lets time pass in it, and tells the agent what did not come.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::clock::{Clock, instant};
use super::deliver::{Delivery, deliver, finish};
use super::exchange::Shared;
use super::session::InFlight;
use crate::ingress::Notice;
use crate::store::DueNotice;
use crate::time::{Steady, Timestamp};

/// How often time passes.
const TICK: Duration = Duration::from_millis(250);
/// Most notices under way at once.
const NOTICES_MAX: usize = 64;
/// The gauges that take a walk through the ledger are brought up to date with every tick up to this many
/// interactions, and the more seldom the more there are.
const MEASURE_QUIET_MAX: usize = 10_000;
/// Most bytes that are read of an answer to a notice.
const ANSWER_BYTES_MAX: usize = 64 << 10;

/// Runs until it is aborted.
pub(super) async fn run(shared: Arc<Shared>) {
    let began = instant();
    let mut steady = Steady::default();
    let under_way = Arc::new(AtomicUsize::new(0));
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    for tick in 0_u64.. {
        ticks.tick().await;
        let now = now(&shared.clock, &mut steady, began);
        let room = NOTICES_MAX.saturating_sub(under_way.load(Ordering::SeqCst));
        for notice in shared.store.pass(now, room) {
            under_way.fetch_add(1, Ordering::SeqCst);
            let (shared, under_way) = (Arc::clone(&shared), Arc::clone(&under_way));
            tokio::spawn(async move {
                tell(&shared, &notice).await;
                under_way.fetch_sub(1, Ordering::SeqCst);
            });
        }
        let (interactions, _) = shared.store.counts();
        if tick % (1 + interactions / MEASURE_QUIET_MAX) as u64 == 0 {
            shared.store.measure(&shared.metrics, now);
        }
    }
}

/// What ends for good ends by a clock that is not believed when it jumps.
fn now(clock: &Clock, steady: &mut Steady, began: Instant) -> Timestamp {
    match clock {
        Clock::System => steady.look(clock.now(), instant().saturating_duration_since(began)),
        Clock::Fixed(_) | Clock::Set(_) => clock.now(),
    }
}

async fn tell(shared: &Shared, notice: &DueNotice) {
    let _in_flight = InFlight::new(&shared.in_flight);
    let (route, cause) = (&notice.interaction.route, notice.cause.name());
    let answered = deliver_notice(shared, notice).await;
    let outcome = match answered {
        Some(true) => "answered",
        Some(false) => "failed",
        None => "given_up",
    };
    shared.metrics.notice(route, cause, outcome);
    if outcome != "answered" {
        log::warn!("{}: the agent could not be told that it is {cause}: {outcome}", notice.id);
    }
    let settled = shared.store.noticed(notice, answered != Some(false), shared.clock.now()).await;
    if let Err(refusal) = settled {
        log::error!("{}: {}", notice.id, refusal.detail);
    }
}

/// Whether the agent answered with 2xx; `None` where nobody is to be told any more.
async fn deliver_notice(shared: &Shared, notice: &DueNotice) -> Option<bool> {
    let policy = shared.policy.load_full();
    let route = policy.route(&notice.interaction.route)?;
    let delivery = Delivery::notice(&Notice {
        route,
        id: &notice.id,
        interaction: &notice.interaction,
        cause: notice.cause,
        authority: &policy.ingress.edge().authority,
        now: shared.clock.now(),
    })?;
    let Ok(mut answer) = deliver(&shared.pool, &policy.agent, delivery, instant()).await else {
        return Some(false);
    };
    let success = answer.is_success();
    if answer.gather(ANSWER_BYTES_MAX).await.is_ok() {
        finish(&shared.pool, &policy.agent, answer, instant()).await;
    }
    Some(success)
}
