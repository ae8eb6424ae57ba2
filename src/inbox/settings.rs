//! The settings of the inbox.

use std::time::Duration;

use super::seal::BodySealer;

/// The delays between two attempts to deliver a message.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Backoff {
    /// The upper bound of the delay after the first failed attempt. The bound doubles after each further one.
    pub first: Duration,
    /// The largest bound.
    pub most: Duration,
}

/// The settings of the inbox. A reload can change all of them.
#[derive(Clone, Debug)]
pub struct InboxSettings {
    /// How long Callgate tries to deliver a message.
    pub tried_for: Duration,
    /// The delays between two attempts.
    pub backoff: Backoff,
    /// Whether the messages of one interaction are delivered one after another.
    pub is_ordered: bool,
    /// Whether progress that a later message overtakes is dropped.
    pub coalesces_progress: bool,
    /// Maximum number of concurrent deliveries to one agent.
    pub concurrency: usize,
    /// How long the agent may work on a message that it has pulled.
    pub lease: Duration,
    /// How long a delivered message is kept.
    pub keep_delivered: Duration,
    /// How long a dead message is kept.
    pub keep_dead: Duration,
    /// Maximum number of messages.
    pub messages_max: usize,
    /// Maximum size of all messages together, in bytes.
    pub bytes_max: u64,
    /// Maximum size of a body in a shared ledger, in bytes.
    pub body_store_max: u64,
    /// Whether messages may be kept in a shared ledger whose last changes can be lost.
    pub may_lose: bool,
    /// Encrypts the bodies. `None` if bodies are stored as they are.
    pub sealer: Option<BodySealer>,
    /// Whether the agent receives the signature headers of the provider.
    pub keeps_signature: bool,
    /// Whether a reload may remove routes that have waiting messages. The messages are then dead.
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
