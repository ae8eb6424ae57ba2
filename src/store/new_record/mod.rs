//! Creates the records of interactions that are minted or adopted.

use std::sync::Arc;

use crate::config::Unknown;
use crate::denial::{Denial, Refusal};
use crate::interaction::{Ask, Interaction, pairs};
use crate::policy::Minted;
use crate::time::Timestamp;
use crate::token::Granted;

/// Returns the record of a minted interaction that begins at `now`.
pub(super) fn opened_record(minted: &Minted, now: Timestamp) -> Interaction {
    let route = &minted.route;
    let record = Interaction::new(Arc::clone(&route.name), minted.captures.clone(), now, minted.expires);
    let record = record.followed(&route.follow, route.notify.is_some());
    let mut record = record.limited(minted.uses);
    if route.follow.matching.is_some() {
        record = record.matched();
    }
    record.provider = route.provider.as_ref().map(|provider| Arc::clone(&provider.name));
    record
}

/// Makes the record of an interaction that the ledger does not contain. `ask` contains the content of the interaction's
/// token.
///
/// # Errors
/// Returns a denial if the ledger does not adopt the interaction.
pub(super) fn adopted_record(
    ask: &Ask<'_>,
    unknown: Unknown,
    now: Timestamp,
) -> Result<Interaction, Refusal> {
    // An opaque token does not contain its expiry, so no record can be made from it.
    let adoptable = |granted: &&Granted| !granted.is_opaque && (unknown == Unknown::Adopt || ask.adopts);
    let granted = ask.granted.filter(adoptable).ok_or_else(|| {
        Refusal::new(Denial::InteractionUnknown, "the ledger does not know the interaction")
    })?;
    let captures = pairs(ask.captures.iter());
    let record = Interaction::new(Arc::clone(ask.route), captures, granted.issued, granted.expires);
    let mut record = record.followed(ask.follow, ask.notifies).limited(granted.uses);
    record.provider = ask.provider.cloned();
    // If the deadline has already passed, the interaction needs no record and no notice.
    if now >= record.deadline() {
        return Err(Refusal::new(Denial::InteractionOver, "its deadline has passed"));
    }
    Ok(record)
}
