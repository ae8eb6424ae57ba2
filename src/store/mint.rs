//! Minting: a new interaction, its address and its token. It is recorded before anybody gets to know the token.

use std::fmt;

use super::Store;
use crate::denial::Refusal;
use crate::observe::Metrics;
use crate::policy::{MintFault, MintRequest, Minted, Policy};
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

/// An id nobody can guess: a prefix and 128 random bits. `None` without a source of randomness.
pub fn new_id(prefix: &str) -> Option<String> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).ok()?;
    Some(format!("{prefix}{}", data_encoding::BASE32_NOPAD.encode(&bytes).to_ascii_lowercase()))
}

/// A random UUID (RFC 9562 version 4); `None` without a source of randomness.
pub fn new_uuid() -> Option<String> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).ok()?;
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let mut text = data_encoding::HEXLOWER.encode(&bytes);
    for at in [20, 16, 12, 8] {
        text.insert(at, '-');
    }
    Some(text)
}

/// Makes a callback for one interaction and records it.
///
/// # Errors
/// [`MintRefusal`].
pub async fn mint(
    store: &Store,
    policy: &Policy,
    metrics: &Metrics,
    request: &MintRequest<'_>,
    now: Timestamp,
) -> Result<Minted, MintRefusal> {
    let id = new_id("int_").ok_or(MintRefusal::Fault(MintFault::Cryptography))?;
    let minted = policy.mint(request, &id, now).map_err(MintRefusal::Fault)?;
    store.open(&minted).await.map_err(MintRefusal::Refused)?;
    metrics.minted(&minted.route.name);
    Ok(minted)
}
