//! The health of the Redis or Valkey nodes: whether they respond and accept changes. Also the clock of the Redis
//! server.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::nodes::Failure;
use crate::clock::instant;
use crate::store::file::Health;
use crate::time::Timestamp;

/// The time after a failed write for which a node counts as not writable. This time is longer than the interval between
/// two heartbeats of a process, and each heartbeat is a write.
const WRITE_RECENT: Duration = Duration::from_secs(12);
/// After the last change that a full node refused, Callgate waits for this time. It then checks whether the node has
/// memory again.
const FULL_RECENT: Duration = Duration::from_secs(10);

/// The health of the Redis or Valkey nodes: which nodes respond and accept changes.
#[derive(Debug)]
pub(super) struct EngineHealth {
    grace: Duration,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The nodes whose last call failed, each with the time since which no call has succeeded. The address is empty if
    /// no node is known.
    failing_since: HashMap<Box<str>, Instant>,
    /// The nodes whose last write failed, each with the time since which no write has succeeded and the time of the
    /// last failed write. Such a node may still respond to reads, for example if its replicas do not confirm writes.
    unwritten: HashMap<Box<str>, (Instant, Instant)>,
    /// The nodes that have no memory for new records, each with the time since which the node is full and the time of
    /// the last change that it refused for this reason.
    full: HashMap<Box<str>, (Instant, Instant)>,
    /// The reason why the Redis server must not be used.
    unusable: Option<String>,
}

impl State {
    fn is_well(&self) -> bool {
        self.failing_since.is_empty() && self.unwritten.is_empty()
    }

    fn is_node_well(&self, node: &str) -> bool {
        !self.failing_since.contains_key(node) && !self.unwritten.contains_key(node)
    }
}

impl EngineHealth {
    pub(super) fn new(grace: Duration) -> Self {
        Self { grace, state: Mutex::default() }
    }

    /// Records the result of a call to a node. `node` returns the address of the node. `node` is not called if the call
    /// has succeeded and no earlier failure is recorded.
    pub(super) fn called(&self, node: impl FnOnce() -> Box<str>, is_write: bool, failure: Option<&Failure>) {
        if failure.is_none() && self.state.lock().is_well() {
            return;
        }
        // A full node does not count as failing, because it responds and accepts changes to its existing records.
        if let Some(failure) = failure
            && let Some(node) = &failure.full_node
        {
            return self.refused_as_full(node, &failure.reason);
        }
        let node = node();
        let mut state = self.state.lock();
        let was_well = state.is_node_well(&node);
        let now = instant();
        if is_write {
            match failure {
                None => drop(state.unwritten.remove(&node)),
                Some(_) => state.unwritten.entry(node.clone()).or_insert((now, now)).1 = now,
            }
        }
        match failure {
            None => {
                // The empty address means that no node is known. A response shows that a node is known.
                state.failing_since.remove("");
                state.failing_since.remove(&node);
            }
            Some(_) => {
                state.failing_since.entry(node.clone()).or_insert(now);
            }
        }
        // Reads may succeed while writes fail. Only the first failure and the end of all failures are logged.
        let is_well = state.is_node_well(&node);
        drop(state);
        match failure {
            Some(failure) if was_well => log::error!("the store does not answer: {}", failure.reason),
            None if is_well && !was_well => log::info!("the store answers again at {node}"),
            _ => {}
        }
    }

    fn refused_as_full(&self, node: &str, reason: &str) {
        let now = instant();
        let mut state = self.state.lock();
        if let Some((_, last)) = state.full.get_mut(node) {
            *last = now;
            return;
        }
        state.full.insert(node.into(), (now, now));
        drop(state);
        log::error!("the store is full, and takes nothing new: {reason}");
    }

    /// Reports whether a node has no memory for new records.
    pub(super) fn is_full(&self, node: &str) -> bool {
        self.state.lock().full.contains_key(node)
    }

    /// Returns the addresses of the full nodes whose memory must be checked again. These nodes have refused no change
    /// for [`FULL_RECENT`]. A more recent refusal shows that the node is still full, although it may have memory for a
    /// moment when a key is removed.
    pub(super) fn perhaps_not_full(&self) -> Vec<Box<str>> {
        let state = self.state.lock();
        let full = state.full.iter().filter(|(_, (_, last))| has_refused_nothing_since(*last));
        full.map(|(node, _)| node.clone()).collect()
    }

    /// Records that a full node has memory again, or that it has no keys any more. Does nothing if the node has refused
    /// a change within [`FULL_RECENT`].
    pub(super) fn record_room(&self, node: &str) {
        let mut state = self.state.lock();
        if state.full.get(node).is_some_and(|(_, last)| has_refused_nothing_since(*last)) {
            state.full.remove(node);
            drop(state);
            log::info!("the store has room again at {node}");
        }
    }

    /// Returns the health of the store for health probes and metrics. `nodes` contains the addresses of the nodes that
    /// have keys. If only some nodes fail, most callbacks are accepted, so this process stays ready.
    pub(super) fn health(&self, nodes: &[Box<str>]) -> Health {
        let mut state = self.state.lock();
        if state.unusable.is_some() {
            return Health::Unusable;
        }
        let now = instant();
        let since = |at: Instant| now.saturating_duration_since(at);
        let is_full = state.full.values().any(|(first, _)| since(*first) >= self.grace);
        let if_not_silent = if is_full { Health::Partial } else { Health::Healthy };
        if state.is_well() {
            return if_not_silent;
        }
        // A node that is not in `nodes` has no keys any more, so its failures are ignored.
        state.failing_since.retain(|node, _| node.is_empty() || nodes.contains(node));
        state.unwritten.retain(|node, (_, last)| nodes.contains(node) && since(*last) < WRITE_RECENT);
        let mut failing: HashMap<&str, Instant> = HashMap::new();
        let unwritten = state.unwritten.iter().map(|(node, (first, _))| (node, *first));
        for (node, first) in state.failing_since.iter().map(|(node, at)| (node, *at)).chain(unwritten) {
            let at = failing.entry(node).or_insert(first);
            *at = first.min(*at);
        }
        match failing.values().filter(|at| since(**at) >= self.grace).count() {
            _ if failing.is_empty() => if_not_silent,
            0 if is_full => Health::Partial,
            0 => Health::Busy,
            away if away >= nodes.len() || failing.contains_key("") => Health::Away,
            _ => Health::Partial,
        }
    }

    /// Reports whether the last call to a node failed.
    pub(super) fn is_failing(&self, node: &str) -> bool {
        self.state.lock().failing_since.contains_key(node)
    }

    /// Reports whether the last calls to all of these nodes failed.
    pub(super) fn is_silent(&self, nodes: &[Box<str>]) -> bool {
        let state = self.state.lock();
        !state.failing_since.is_empty() && nodes.iter().all(|node| state.failing_since.contains_key(node))
    }

    /// Reports whether the last call to any node failed.
    pub(super) fn is_any_failing(&self) -> bool {
        !self.state.lock().failing_since.is_empty()
    }

    /// Records the reason why the Redis server must not be used. `None` means that the server may be used.
    pub(super) fn judged(&self, fault: Option<String>) {
        let mut state = self.state.lock();
        if let Some(fault) = fault.as_ref().filter(|fault| state.unusable.as_ref() != Some(*fault)) {
            log::error!("the store cannot be used: {fault}");
        }
        state.unusable = fault;
    }

    /// Returns the reason why the Redis server must not be used, if there is one.
    pub(super) fn why_unusable(&self) -> Option<String> {
        self.state.lock().unusable.clone()
    }
}

/// Reports whether [`FULL_RECENT`] has passed since `last`, the time at which a full node last refused a change.
fn has_refused_nothing_since(last: Instant) -> bool {
    instant().saturating_duration_since(last) >= FULL_RECENT
}

/// The clock of the Redis server. All processes that share the ledger use this clock.
#[derive(Debug, Default)]
pub(super) struct EngineClock(Mutex<Option<(i64, Instant)>>);

impl EngineClock {
    /// Records the time that the Redis server has returned, in Unix microseconds.
    pub(super) fn observe(&self, us: i64) {
        *self.0.lock() = Some((us, instant()));
    }

    /// Returns the present time of the Redis server. Returns `None` if the server has never responded.
    pub(super) fn now(&self) -> Option<Timestamp> {
        let (us, at) = (*self.0.lock())?;
        let since = i64::try_from(instant().saturating_duration_since(at).as_micros()).unwrap_or(i64::MAX);
        Some(Timestamp::from_unix_ms(us.saturating_add(since) / 1000))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_silent_node_of_several_is_noticed_although_the_others_answer() {
        let nodes: Vec<Box<str>> = vec!["a:1".into(), "b:1".into()];
        let health = EngineHealth::new(Duration::ZERO);
        let failure = Failure::unknown("silent");
        health.called(|| "a:1".into(), false, Some(&failure));
        health.called(|| "b:1".into(), false, None);
        assert_eq!(health.health(&nodes), Health::Partial);
        assert!(health.is_failing("a:1") && !health.is_failing("b:1") && health.is_any_failing());
        assert!(!health.is_silent(&nodes) && health.is_silent(&nodes[..1]));
        health.called(|| "b:1".into(), false, Some(&failure));
        assert_eq!(health.health(&nodes), Health::Away);
        health.called(|| "b:1".into(), false, None);
        assert_eq!(health.health(&nodes[1..]), Health::Healthy, "the keys are on another node now");
        health.called(|| "".into(), false, Some(&failure));
        assert_eq!(health.health(&nodes), Health::Away, "no node is known");
        health.called(|| "a:1".into(), false, None);
        assert_eq!(health.health(&nodes), Health::Healthy);
        assert!(!health.is_any_failing());
    }

    /// Every call of a healthy store would otherwise copy an address.
    #[test]
    fn a_successful_call_asks_for_its_node_only_while_a_failure_is_recorded() {
        let health = EngineHealth::new(Duration::ZERO);
        let asks = |is_write, failure: Option<&Failure>| {
            let mut asked = false;
            health.called(|| (asked = true, "a:1".into()).1, is_write, failure);
            asked
        };
        let failure = Failure::unknown("silent");
        for is_write in [false, true] {
            assert!(!asks(is_write, None));
            assert!(asks(is_write, Some(&failure)) && asks(is_write, None));
        }
        assert!(!asks(true, None));
    }

    #[test]
    fn a_short_outage_is_no_reason_to_be_unready() {
        let health = EngineHealth::new(Duration::from_secs(3600));
        health.called(|| "a:1".into(), false, Some(&Failure::unknown("silent")));
        assert_eq!(health.health(&["a:1".into()]), Health::Busy);
    }

    #[test]
    fn a_node_that_answers_and_takes_no_change_is_no_reason_to_be_ready() {
        let nodes: Vec<Box<str>> = vec!["a:1".into()];
        let health = EngineHealth::new(Duration::ZERO);
        let failure = Failure::unknown("too few replicas");
        health.called(|| "a:1".into(), true, Some(&failure));
        health.called(|| "a:1".into(), false, None);
        assert_eq!(health.health(&nodes), Health::Away);
        assert!(!health.is_any_failing(), "it can be read");
        health.called(|| "a:1".into(), true, None);
        assert_eq!(health.health(&nodes), Health::Healthy);
        health.called(|| "a:1".into(), true, Some(&failure));
        assert_eq!(health.health(&["b:1".into()]), Health::Healthy, "another node has the keys");
    }

    #[tokio::test(start_paused = true)]
    async fn a_write_that_failed_long_ago_says_nothing() {
        let nodes: Vec<Box<str>> = vec!["a:1".into()];
        let health = EngineHealth::new(Duration::from_secs(10));
        let failure = Failure::unknown("too few replicas");
        health.called(|| "a:1".into(), true, Some(&failure));
        health.called(|| "a:1".into(), false, None);
        assert_eq!(health.health(&nodes), Health::Busy);
        tokio::time::advance(Duration::from_secs(11)).await;
        assert_eq!(health.health(&nodes), Health::Away);
        tokio::time::advance(Duration::from_secs(2)).await;
        assert_eq!(health.health(&nodes), Health::Healthy);
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_node_is_full_until_it_has_refused_nothing_for_some_time() {
        let nodes: Vec<Box<str>> = vec!["a:1".into()];
        let health = EngineHealth::new(Duration::from_secs(10));
        let full = Failure { full_node: Some("a:1".into()), ..Failure::refused("OOM") };
        let pass = |seconds| tokio::time::advance(Duration::from_secs(seconds));
        for _ in 0..3 {
            health.called(|| "b:1".into(), true, Some(&full));
            health.called(|| "a:1".into(), true, None);
            assert!(health.is_full("a:1") && !health.is_any_failing());
            // A node near its limit has memory for a moment when something is removed, and then refuses changes again.
            pass(5).await;
            health.record_room("a:1");
            assert_eq!(health.perhaps_not_full(), Vec::<Box<str>>::new());
        }
        assert_eq!(health.health(&nodes), Health::Partial);
        pass(5).await;
        assert_eq!(health.perhaps_not_full(), nodes);
        health.record_room("a:1");
        assert_eq!((health.health(&nodes), health.is_full("a:1")), (Health::Healthy, false));
        health.called(|| "a:1".into(), true, Some(&full));
        assert_eq!(health.health(&nodes), Health::Healthy, "it is full for a moment only");
    }
}
