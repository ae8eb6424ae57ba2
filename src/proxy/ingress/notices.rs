//! Advances the time of the ledger, and sends notices to the agent about callbacks that did not arrive before a
//! deadline.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::time::timeout;

use super::agents::Agents;
use super::deliver::{Delivery, deliver};
use super::notice_queue::NoticeQueue;
use crate::agent::Agent;
use crate::clock::instant;
use crate::denial::Denial;
use crate::ingress::Notice;
use crate::interaction::NoticeResult;
use crate::policy::Policy;
use crate::proxy::replicas::Replication;
use crate::proxy::runtime::{Clocks, Drain, Recorder};
use crate::replica::Owner;
use crate::store::{DueNotice, Store, Walk};
use crate::token::Stamp;

/// The interval between two updates of the ledger's time.
const TICK: Duration = Duration::from_millis(250);
/// The pause between two steps in which expired deadlines are applied. During the pause, callbacks can use the ledger.
const STEP_PAUSE: Duration = Duration::from_millis(1);
/// The maximum number of bytes that Callgate reads from the response to a notice.
const RESPONSE_BYTES_MAX: usize = 64 << 10;

/// The components that deliver notices to the agents.
pub(crate) struct Notices {
    pub(crate) policy: Arc<ArcSwap<Policy>>,
    pub(crate) clocks: Clocks,
    pub(crate) recorder: Arc<Recorder>,
    /// The ledger.
    pub(crate) store: Arc<Store>,
    pub(crate) agents: Arc<Agents>,
    /// Counts the deliveries of notices in progress.
    pub(crate) drain: Drain,
    /// The connections to the other replicas. `None` if there is only one replica.
    pub(crate) replication: Option<Arc<Replication>>,
}

impl Notices {
    /// Asks other replicas to apply the expired deadlines of the interactions that they own. If an owner does not
    /// respond, this process applies the deadlines.
    fn pass_on(&self, elsewhere: Vec<(Owner, Box<str>)>) {
        let Some(replication) = &self.replication else {
            return self.store.apply_here(elsewhere.into_iter().map(|(_, id)| id));
        };
        let mut by_owner = HashMap::<Box<str>, (Owner, Vec<Box<str>>)>::new();
        for (owner, id) in elsewhere {
            by_owner.entry(owner.address.clone()).or_insert_with(|| (owner, Vec::new())).1.push(id);
        }
        for (owner, ids) in by_owner.into_values() {
            let (store, replication) = (Arc::clone(&self.store), Arc::clone(replication));
            tokio::spawn(async move {
                if !replication.pass_on_deadlines(&owner, &ids).await {
                    store.apply_here(ids.into_iter());
                }
            });
        }
    }
}

/// The queues of pending notices, by route.
type Queues = HashMap<Arc<str>, Arc<NoticeQueue>>;

/// Advances the time of the ledger and delivers notices. Runs until the task is aborted.
pub(crate) async fn run(notices: Arc<Notices>) {
    let mut queues = Queues::new();
    let mut walk = Walk::default();
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        // Very many deadlines may expire at once, so they are applied in several steps.
        while pass(&notices, &mut queues).await {
            tokio::time::sleep(STEP_PAUSE).await;
        }
        queues.retain(|_, queue| !queue.is_idle());
        let now = notices.clocks.ledger_now(instant());
        notices.store.walk(&mut walk, &notices.recorder.metrics, now).await;
    }
}

/// Applies expired deadlines in the ledger and starts deliveries of notices. Returns whether there may be more expired
/// deadlines.
async fn pass(notices: &Arc<Notices>, queues: &mut Queues) -> bool {
    let passed = notices.store.pass(notices.clocks.ledger_now(instant())).await;
    notices.pass_on(passed.elsewhere);
    for due in passed.notices {
        queues.entry(Arc::clone(&due.route)).or_default().push(due);
    }
    for queue in queues.values() {
        start_deliveries(notices, queue);
    }
    passed.has_more
}

/// Starts as many delivery tasks as the queue allows. Each task delivers notices one after the other until no notice is
/// waiting.
fn start_deliveries(notices: &Arc<Notices>, queue: &Arc<NoticeQueue>) {
    while let Some(slot) = queue.slot() {
        let notices = Arc::clone(notices);
        tokio::spawn(async move {
            while let Some(due) = slot.next() {
                deliver_due(&notices, &due).await;
            }
        });
    }
}

/// One attempt to deliver a notice. An attempt that ends without a result, for example in a panic, is recorded as
/// failed.
struct Attempt<'n> {
    notices: &'n Notices,
    due: &'n DueNotice,
    has_ended: bool,
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        if !self.has_ended {
            self.notices.store.notice_failed(self.due, self.notices.clocks.ledger_now(instant()));
        }
    }
}

/// The result of an attempt to deliver a notice.
enum Attempted {
    /// The attempt has a result: `Ok` if the agent responded with 2xx, and otherwise an error with the status or the
    /// reason.
    Completed(Result<(), String>),
    /// The ledger does not contain the notice as pending.
    NotPending,
    /// The notice cannot be written, for example because the configuration no longer contains its route.
    Impossible,
}

async fn deliver_due(notices: &Notices, due: &DueNotice) {
    // Notices that could not be sent before shutdown stay pending. With a `file` store, Callgate sends these notices
    // after the next start.
    let Some(_in_flight) = notices.drain.begin() else { return };
    let mut attempt = Attempt { notices, due, has_ended: false };
    let cause = due.notice.cause.name();
    let attempted = deliver_notice(notices, due).await;
    attempt.has_ended = true;
    let (outcome, result, detail) = match attempted {
        Attempted::Completed(Ok(())) => ("answered", NoticeResult::Accepted, String::new()),
        Attempted::Completed(Err(reason)) => ("failed", NoticeResult::Failed, format!(", result {reason}")),
        // If a callback arrived in the meantime, or the interaction was revoked, the notice is no longer needed. During
        // a failover of Redis, a former primary can return an earlier state of the interaction. The second read detects
        // this case.
        Attempted::NotPending if !is_owed(notices, due).await => return,
        Attempted::NotPending => {
            ("failed", NoticeResult::Failed, ", the ledger has returned an earlier state".to_owned())
        }
        Attempted::Impossible => ("given_up", NoticeResult::Abandoned, String::new()),
    };
    notices.recorder.metrics.notice(&due.route, cause, outcome);
    if result != NoticeResult::Accepted {
        log::warn!(
            "{}: the notice `{cause}` of the route {} was not delivered to the agent: {outcome}{detail}",
            due.id,
            due.route
        );
    }
    let now = notices.clocks.ledger_now(instant());
    if let Err(refusal) = notices.store.noticed(due, result, now).await {
        log::error!("{}: {}", due.id, refusal.detail);
    }
}

/// Reports whether a notice is still pending in the ledger. Returns false if the ledger cannot be read.
async fn is_owed(notices: &Notices, due: &DueNotice) -> bool {
    let record = notices.store.read(&due.id).await;
    record.is_ok_and(|record| record.is_some_and(|record| record.owes(due.notice)))
}

/// Delivers a notice to the agent, if the notice is still pending.
async fn deliver_notice(notices: &Notices, due: &DueNotice) -> Attempted {
    let policy = notices.policy.load_full();
    // If the store cannot be read at the moment, the notice is sent later.
    let Ok(interaction) = notices.store.read(&due.id).await else {
        return Attempted::Completed(Err(Denial::StoreUnavailable.code().to_owned()));
    };
    let Some(interaction) = interaction.filter(|record| record.owes(due.notice)) else {
        return Attempted::NotPending;
    };
    let Some(route) = policy.route(&due.route) else { return Attempted::Impossible };
    let delivery = Delivery::notice(&Notice {
        route,
        id: &due.id,
        interaction: &interaction,
        cause: due.notice.cause,
        edge: policy.ingress.edge(),
        stamp: Stamp { id: &notices.recorder.request_ids.next(), now: notices.clocks.now() },
    });
    let Some(delivery) = delivery else { return Attempted::Impossible };
    let sent = timeout(route.agent.patience(), send(notices, &route.agent, delivery)).await;
    Attempted::Completed(sent.unwrap_or_else(|_| Err(Denial::AgentTimeout.code().to_owned())))
}

/// Sends a notice to an agent. Returns an error with the status or the reason if the agent did not respond with 2xx.
async fn send(notices: &Notices, agent: &Arc<Agent>, delivery: Delivery) -> Result<(), String> {
    let client = notices.agents.client(agent);
    let metrics = &notices.recorder.metrics;
    let sent = deliver(metrics, &client, agent, delivery, instant()).await;
    let mut response = sent.map_err(|denial| denial.code().to_owned())?;
    let (success, status) = (response.is_success(), response.status());
    if response.read_up_to(RESPONSE_BYTES_MAX).await.is_ok()
        && let Some(connection) = response.take_connection()
    {
        client.keep(agent.idle_timeout, connection, instant());
    }
    if success { Ok(()) } else { Err(status.as_u16().to_string()) }
}
