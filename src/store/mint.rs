//! Minting: a new interaction, its address and its token. It is recorded before anybody gets to know the token.

use std::fmt;

use super::Store;
use crate::denial::Refusal;
use crate::observe::Metrics;
use crate::policy::{MintFault, MintRequest, Minted, Policy};
use crate::random::new_id;
use crate::time::Timestamp;

/// Why nothing was minted.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum MintRefusal {
    /// What was asked for cannot be minted.
    Fault(MintFault),
    /// The ledger does not take it.
    Refused(Refusal),
}

impl fmt::Display for MintRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fault(fault) => fault.fmt(f),
            Self::Refused(refusal) => f.write_str(&refusal.detail),
        }
    }
}

/// Makes a callback for one interaction and records it. The token goes by `now`, the wall clock; the record by the
/// ledger's clock.
///
/// # Errors
/// [`MintRefusal`].
pub async fn mint(
    store: &Store,
    policy: &Policy,
    metrics: &Metrics,
    request: &MintRequest<'_>,
    now: Timestamp,
    ledger_now: Timestamp,
) -> Result<Minted, MintRefusal> {
    let id = new_id("int_").ok_or(MintRefusal::Fault(MintFault::Cryptography))?;
    let minted = policy.mint(request, &id, now).map_err(MintRefusal::Fault)?;
    store.open(&minted, ledger_now).await.map_err(MintRefusal::Refused)?;
    metrics.minted(&minted.route.name);
    Ok(minted)
}
