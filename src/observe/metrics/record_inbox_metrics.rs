//! Records the metrics of the inbox.

use prometheus::core::Collector;

use super::inbox_metrics::{RESULTS, ends};
use super::metrics::Metrics;

fn number(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

impl Metrics {
    /// Counts a callback that was stored in the inbox.
    pub fn message_accepted(&self, route: &str) {
        self.inbox.accepted.with_label_values(&[route]).inc();
    }

    /// Counts an attempt to deliver a message of the inbox. `result` is a value such as `accepted` or `unreachable`.
    pub fn message_attempt(&self, route: &str, result: &str) {
        self.inbox.attempts.with_label_values(&[route, result]).inc();
    }

    /// Counts a message of the inbox that no longer waits for the agent. `outcome` is `delivered`, `taken`,
    /// `overtaken`, `erased` or the cause for which the message is dead.
    pub fn message_settled(&self, route: &str, outcome: &str) {
        self.inbox.settled.with_label_values(&[route, outcome]).inc();
    }

    /// Records the time from the acceptance of a message of the inbox to its delivery, in seconds.
    pub fn message_delivered(&self, route: &str, seconds: f64) {
        self.inbox.delay.with_label_values(&[route]).observe(seconds);
    }

    /// Sets the numbers of waiting, dead and delivered messages of a route in the inbox, and the age of the oldest
    /// waiting message in seconds.
    pub fn inbox(&self, route: &str, [waiting, dead, delivered]: [usize; 3], oldest: f64) {
        self.inbox.waiting.with_label_values(&[route]).set(number(waiting));
        self.inbox.dead.with_label_values(&[route]).set(number(dead));
        self.inbox.delivered.with_label_values(&[route]).set(number(delivered));
        self.inbox.oldest.with_label_values(&[route]).set(oldest);
    }

    /// Creates the time series of the inbox for a route, each with the value 0. An alert can then detect even the first
    /// event, as an increase from 0.
    pub fn expect_inbox(&self, route: &str) {
        self.inbox.accepted.with_label_values(&[route]);
        for result in RESULTS {
            self.inbox.attempts.with_label_values(&[route, result]);
        }
        for end in ends() {
            self.inbox.settled.with_label_values(&[route, end]);
        }
        self.inbox(route, [0; 3], 0.0);
    }

    /// Sets the size of all messages in the inbox, in bytes.
    pub fn inbox_bytes(&self, bytes: u64) {
        self.inbox.bytes.set(i64::try_from(bytes).unwrap_or(i64::MAX));
    }

    /// Sets the maximum number of messages in the inbox, and their maximum total size in bytes.
    pub fn inbox_limits(&self, messages_max: usize, bytes_max: u64) {
        self.inbox.messages_max.set(number(messages_max));
        self.inbox.bytes_max.set(i64::try_from(bytes_max).unwrap_or(i64::MAX));
    }

    /// Sets whether the inbox has paused the deliveries to an agent because the agent does not respond.
    pub fn inbox_circuit(&self, agent: &str, is_open: bool) {
        self.inbox.circuit_open.with_label_values(&[agent]).set(i64::from(is_open));
    }

    /// Returns the names of the agents to which the inbox has paused the deliveries.
    pub fn paused_agents(&self) -> Vec<String> {
        let families = self.inbox.circuit_open.collect();
        let series = families.iter().flat_map(|family| family.get_metric());
        let open = series.filter(|series| series.get_gauge().get_value() > 0.0);
        open.flat_map(|series| series.get_label()).map(|label| label.value().to_owned()).collect()
    }

    /// Counts a request to `agent.wake`, which wakes an agent. `result` is `sent` or `failed`.
    pub fn inbox_wake(&self, agent: &str, result: &str) {
        self.inbox.wakes.with_label_values(&[agent, result]).inc();
    }
}
