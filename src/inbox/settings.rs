//! The settings of the inbox.

use std::time::Duration;

use super::seal::BodySealer;

/// The delays between two attempts to deliver a message.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Backoff {
    /// The upper bound of the delay after the first failed attempt. The bound doubles after each further failed
    /// attempt.
    pub first: Duration,
    /// The upper bound of the delay does not grow above this duration.
    pub most: Duration,
}

/// The settings of the inbox. A reload can change all of them.
#[derive(Clone, Debug)]
pub struct InboxSettings {
    /// The period for which Callgate tries to deliver a message.
    pub tried_for: Duration,
    /// The delays between two attempts to deliver a message.
    pub backoff: Backoff,
    /// Whether the messages of one interaction are delivered one after another.
    pub is_ordered: bool,
    /// Whether a waiting progress message is removed when a later progress message of its interaction arrives.
    pub coalesces_progress: bool,
    /// The maximum number of concurrent deliveries to one agent.
    pub concurrency: usize,
    /// The time for which an agent may work on a pulled message before the message is due again.
    pub lease: Duration,
    /// The time for which a delivered message is retained.
    pub keep_delivered: Duration,
    /// The time for which a dead message is retained.
    pub keep_dead: Duration,
    /// The maximum number of messages in the inbox.
    pub messages_max: usize,
    /// The maximum size of all messages together, in bytes.
    pub bytes_max: u64,
    /// The maximum size of a message body in a shared ledger, in bytes.
    pub body_store_max: u64,
    /// Whether messages may be stored in a shared ledger that can lose its latest changes.
    pub may_lose: bool,
    /// Encrypts the message bodies at rest. `None` if the bodies are stored without encryption.
    pub sealer: Option<BodySealer>,
    /// Whether the agent receives the signature headers of the provider.
    pub keeps_signature: bool,
    /// Whether a reload may remove a route that has waiting messages. These messages are then dead.
    pub drops_removed_routes: bool,
}

impl Default for InboxSettings {
    fn default() -> Self {
        const DAY: Duration = Duration::from_secs(86_400);
        Self {
            tried_for: 3 * DAY,
            backoff: Backoff { first: Duration::from_secs(1), most: Duration::from_secs(3600) },
            is_ordered: true,
            coalesces_progress: false,
            concurrency: 16,
            lease: Duration::from_secs(60),
            keep_delivered: Duration::ZERO,
            keep_dead: 7 * DAY,
            messages_max: 100_000,
            bytes_max: 1 << 30,
            body_store_max: 64 << 10,
            may_lose: false,
            sealer: None,
            keeps_signature: false,
            drops_removed_routes: false,
        }
    }
}
