//! The results of the operations of the ledger.

use std::sync::Arc;

use crate::interaction::{Interaction, NoticeId};
use crate::replica::Owner;

/// The name of the route of an interaction that was revoked before the ledger contained the interaction.
pub(crate) const NO_ROUTE: &str = "-";

/// The result of revoking an interaction ([`Store::revoke`](super::Store::revoke)).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Revoked {
    /// The ledger contained the interaction.
    Known,
    /// The ledger did not contain the interaction. It has recorded the revocation.
    Remembered,
    /// The ledger does not contain the interaction. It has recorded nothing.
    Unknown,
}

/// An interaction and the address of its owner. The address is `None` unless several processes share the ledger.
pub type OwnedInteraction = (Interaction, Option<Box<str>>);

/// The result of applying deadlines ([`Store::pass`](super::Store::pass)).
#[derive(Debug, Default)]
pub struct Passed {
    /// The notices that must be sent to agents.
    pub notices: Vec<DueNotice>,
    /// The ids of interactions that other processes own, each after its owner. The owner must apply the deadlines and
    /// send the notices to its agents.
    pub elsewhere: Vec<(Owner, Box<str>)>,
    /// Whether the caller must call again soon, because this call may not have applied all deadlines.
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
