//! The size of a simulated installation.

/// The size of an installation.
#[derive(Clone, Copy)]
pub(super) struct Size {
    /// The number of ledgers. Each is used by the members of one agent.
    pub(super) groups: u64,
    pub(super) members: u64,
    /// The interactions of all groups.
    pub(super) interactions: u64,
    /// Whether the primaries fail, and processes restart.
    pub(super) is_troubled: bool,
    pub(super) waits: bool,
}
