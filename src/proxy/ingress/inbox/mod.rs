//! Delivers the messages of the inbox to the agents. The messages of an interaction are delivered in order, a limited
//! number of deliveries run at the same time, and deliveries pause while an agent does not respond.

mod attempt;
mod circuits;
mod deliveries;
mod wake;

use std::sync::Arc;
use std::time::Duration;

use crate::clock::instant;
use crate::inbox::Start;
use crate::ingress::{Deliver, Route};
use crate::policy::Policy;
use crate::time::Timestamp;

pub(crate) use deliveries::Deliveries;

/// The maximum interval between two checks of the inbox. Leases, retention and gauges are accurate to this interval.
const TICK: Duration = Duration::from_millis(250);

/// Delivers the messages of the inbox to the agents. Runs until the task is aborted.
pub(crate) async fn run(deliveries: Arc<Deliveries>) {
    let mut reported_at = instant();
    loop {
        let now = deliveries.clocks.ledger_now(instant());
        let next = step(&deliveries, now);
        if instant().saturating_duration_since(reported_at) >= TICK {
            reported_at = instant();
            deliveries.inbox().report(now);
            deliveries.circuits.report(&deliveries.recorder.metrics);
        }
        let wait = next.map_or(TICK, |at| {
            let ms = at.unix_ms().saturating_sub(now.unix_ms()).max(1);
            Duration::from_millis(u64::try_from(ms).unwrap_or(1)).min(TICK)
        });
        tokio::select! {
            () = deliveries.inbox().changed() => {}
            () = deliveries.ended.notified() => {}
            () = tokio::time::sleep(wait) => {}
        }
    }
}

/// Advances the time of the inbox, and begins all deliveries that can begin now. Returns the time of the next delivery.
fn step(deliveries: &Arc<Deliveries>, now: Timestamp) -> Option<Timestamp> {
    let inbox = deliveries.inbox();
    let passed = inbox.pass(now);
    if let Some(by) = passed.set_back {
        deliveries.circuits.set_back(by);
    }
    for number in passed.given_up {
        let deliveries = Arc::clone(deliveries);
        tokio::spawn(async move { attempt::tell_given_up(&deliveries, number).await });
    }
    if !inbox.accepts_changes() {
        return None;
    }
    let policy = deliveries.policy.load_full();
    let waiting = inbox.waiting_routes();
    let routes: Vec<_> = waiting.iter().filter_map(|name| policy.route(name)).collect();
    let mut next: Option<Timestamp> = None;
    for agent in &policy.agents {
        let of_agent =
            |route: &&&Arc<Route>| route.agent.name == agent.name && route.deliver != Deliver::Pull;
        let names: Vec<_> = routes.iter().filter(of_agent).map(|route| Arc::clone(&route.name)).collect();
        let at = start_attempts(deliveries, &policy, &agent.name, &names, now);
        let is_due = || inbox.next_due(&names).is_some_and(|at| at <= now);
        if let Some(wake) = &agent.wake
            && deliveries.circuits.may_wake(&agent.name, now, is_due)
        {
            let (deliveries, agent, wake) = (Arc::clone(deliveries), Arc::clone(agent), wake.clone());
            tokio::spawn(async move { wake::wake(&deliveries, &agent, &wake).await });
        }
        next = earlier(next, at);
    }
    next
}

fn earlier(one: Option<Timestamp>, other: Option<Timestamp>) -> Option<Timestamp> {
    one.into_iter().chain(other).min()
}

/// Begins all deliveries to one agent that can begin now. Returns the time of the next delivery.
fn start_attempts(
    deliveries: &Arc<Deliveries>,
    policy: &Policy,
    agent: &str,
    routes: &[Arc<str>],
    now: Timestamp,
) -> Option<Timestamp> {
    let mut routes = routes.to_vec();
    // For the routes whose rate limit is reached: the earliest time of the next delivery.
    let mut paced = None;
    while !routes.is_empty() {
        let is_probe = match deliveries.circuits.start(agent, policy.inbox.concurrency, now) {
            Start::Free => false,
            Start::Probe => true,
            Start::Wait(at) => return earlier(at, paced),
        };
        // While the process stops, no delivery begins.
        let in_flight = deliveries.drain.begin()?;
        let Some(started) = deliveries.inbox().start(&routes, now) else {
            return earlier(deliveries.inbox().next_due(&routes), paced);
        };
        let route = policy.route(&started.route)?;
        if let Some(rate) = route.rate
            && !deliveries.rate_limits.allow_route(&route.name, rate)
        {
            // This step examines no other message of the route, because very many messages may be waiting.
            let interval = (rate.per / rate.requests.get()).max(Duration::from_millis(1));
            paced = earlier(paced, Some(now.plus(interval)));
            routes.retain(|name| *name != started.route);
            started.put_back();
            continue;
        }
        let slot = deliveries.circuits.began(agent, started.number);
        let (deliveries, route) = (Arc::clone(deliveries), Arc::clone(&route.name));
        tokio::spawn(async move {
            attempt::attempt(&deliveries, started, &route, is_probe, &slot).await;
            deliveries.circuits.ended(slot);
            drop(in_flight);
            deliveries.ended.notify_one();
        });
    }
    paced
}
