//! Mints callbacks: creates an interaction, its callback URL and its token. The interaction is recorded before anybody
//! receives the token.

use std::fmt;

use super::ledger::Store;
use crate::denial::Refusal;
use crate::observe::Metrics;
use crate::policy::{MintFault, MintRequest, Minted, Policy};
use crate::random::new_id;
use crate::time::Timestamp;

/// The reason why no callback URL was minted.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum MintRefusal {
    /// The request to mint is invalid.
    Fault(MintFault),
    /// The ledger does not accept the interaction.
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

/// Mints a callback URL and a token for a new interaction, and records the interaction. `now` is the time of the wall
/// clock, for the times in the token. `ledger_now` is the time of the ledger's clock, for the times in the record.
///
/// # Errors
/// Returns [`MintRefusal`] if nothing was minted.
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
