//! What the operations of the ledger return.

use std::sync::Arc;

use crate::interaction::{Interaction, NoticeId};
use crate::replica::Owner;

/// The route of an interaction that was revoked before the ledger knew it.
pub(crate) const NO_ROUTE: &str = "-";

/// The result of [`Store::revoke`](super::Store::revoke).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Revoked {
    /// The ledger knew the interaction.
    Known,
    /// The ledger did not know the interaction, and has recorded the revocation.
    Remembered,
    /// The ledger does not know the interaction, and has recorded nothing.
    Unknown,
}

/// An interaction and, in a ledger that several processes share, the address of its owner.
pub type OwnedInteraction = (Interaction, Option<Box<str>>);

/// The result of [`Store::pass`](super::Store::pass).
#[derive(Debug, Default)]
pub struct Passed {
    /// The notices that must be sent.
    pub notices: Vec<DueNotice>,
    /// Interactions of other members, which must apply the deadlines themselves. They send the notices to their agents.
    pub elsewhere: Vec<(Owner, Box<str>)>,
    /// Whether more deadlines may have passed.
    pub has_more: bool,
}

/// A notice that must be sent to the agent.
#[derive(Clone, Debug)]
pub struct DueNotice {
    /// The id of the interaction.
    pub id: Arc<str>,
    /// The route of the interaction.
    pub route: Arc<str>,
    /// The id of the notice.
    pub notice: NoticeId,
    /// Whether an earlier attempt to deliver the notice has failed.
    pub is_retry: bool,
}
