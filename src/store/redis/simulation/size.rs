//! The size of a simulated installation.

/// The size of a simulated installation.
#[derive(Clone, Copy)]
pub(super) struct Size {
    /// The number of ledgers. Each ledger is used by the processes of one agent.
    pub(super) groups: u64,
    /// The number of processes that share each ledger.
    pub(super) members: u64,
    /// The number of interactions of all ledgers together.
    pub(super) interactions: u64,
    /// Whether primaries fail and processes restart during the simulation.
    pub(super) is_troubled: bool,
    /// Whether the response to a write is sent only when a replica has the write.
    pub(super) waits: bool,
}
