//! Reads the configuration section `inbox`: how long and how often Callgate tries to deliver a stored callback, and
//! how many callbacks it stores.

use std::sync::Arc;
use std::time::Duration;

use super::yaml::{Cursor, Fields};
use crate::inbox::{Backoff, BodySealer, InboxSettings};

/// The maximum of the setting `inbox.messages_max`. Callgate holds an index of all messages in memory.
const MESSAGES_MAX: u64 = 10_000_000;
/// The maximum of the setting `inbox.bytes_max`, in bytes.
const BYTES_MAX: u64 = 1 << 50;
/// The maximum of the setting `inbox.body_store_max`, the size of one stored body, in bytes. Redis or Valkey holds
/// stored bodies in memory.
const BODY_STORE_MAX: u64 = 16 << 20;
/// The maximum of the setting `inbox.concurrency`.
const CONCURRENCY_MAX: u64 = 1024;
/// The accepted words of `inbox.removed_routes`. The word `drop` (true) means that a reload of the configuration may
/// remove routes that have waiting messages.
const DROP: &[(&str, bool)] = &[("drop", true), ("keep", false)];

/// Reads the configuration section `inbox`. Without the section, the defaults apply. `inbox: drop` stands for `inbox:
/// {removed_routes: drop}` with the defaults for all other settings.
pub(super) fn inbox(at: Option<Cursor<'_>>) -> Option<Arc<InboxSettings>> {
    at.map_or_else(|| Some(InboxSettings::default()), |at| settings(&at)).map(Arc::new)
}

fn settings(at: &Cursor<'_>) -> Option<InboxSettings> {
    let default = InboxSettings::default();
    if !at.is_map() {
        let drops_removed_routes = at.one_of(DROP)?;
        return Some(InboxSettings { drops_removed_routes, ..default });
    }
    let mut fields = at.fields()?;
    let tried_for = fields.optional("for").map_or(Some(default.tried_for), |at| at.duration());
    let backoff = fields.optional("backoff").map_or(Some(default.backoff), |at| backoff(&at));
    let words = [("interaction", true), ("none", false)];
    let is_ordered = fields.optional("order").map_or(Some(true), |at| at.one_of(&words));
    let words = [("progress", true), ("none", false)];
    let coalesces_progress = fields.optional("coalesce").map_or(Some(false), |at| at.one_of(&words));
    let number = |at: Option<Cursor<'_>>, default, max| {
        let read = at.map_or(Some(default), |at| at.whole_number(1..=max));
        read.and_then(|number| usize::try_from(number).ok())
    };
    let concurrency = number(fields.optional("concurrency"), default.concurrency as u64, CONCURRENCY_MAX);
    let lease = fields.optional("lease").map_or(Some(default.lease), |at| at.duration());
    let keep = keep(&mut fields, &default);
    let messages_max = number(fields.optional("messages_max"), default.messages_max as u64, MESSAGES_MAX);
    let bytes_max = fields.optional("bytes_max").map_or(Some(default.bytes_max), |at| at.size(BYTES_MAX));
    let body_store_max =
        fields.optional("body_store_max").map_or(Some(default.body_store_max), |at| at.size(BODY_STORE_MAX));
    let may_lose = fields.optional("may_lose").map_or(Some(false), |at| at.boolean());
    let sealer = fields.optional("seal").map(|at| sealer(&at));
    let words = [("keep", true), ("drop", false)];
    let keeps_signature = fields.optional("original_signature").map_or(Some(false), |at| at.one_of(&words));
    let drops_removed_routes = fields.optional("removed_routes").map_or(Some(false), |at| at.one_of(DROP));
    fields.finish();
    let (keep_delivered, keep_dead) = keep?;
    Some(InboxSettings {
        tried_for: tried_for?,
        backoff: backoff?,
        is_ordered: is_ordered?,
        coalesces_progress: coalesces_progress?,
        concurrency: concurrency?,
        lease: lease?,
        keep_delivered,
        keep_dead,
        messages_max: messages_max?,
        bytes_max: bytes_max?,
        body_store_max: body_store_max?,
        may_lose: may_lose?,
        sealer: sealer.map_or(Some(None), |read| read.map(Some))?,
        keeps_signature: keeps_signature?,
        drops_removed_routes: drops_removed_routes?,
    })
}

/// Reads `inbox.backoff: {first, most}`. `first` is the upper bound of the random delay after the first failed attempt
/// to deliver a message. The bound doubles after each failed attempt, up to `most`.
fn backoff(at: &Cursor<'_>) -> Option<Backoff> {
    let default = InboxSettings::default().backoff;
    let mut fields = at.fields()?;
    let first = fields.optional("first").map_or(Some(default.first), |at| at.duration());
    let most = fields.optional("most").map_or(Some(default.most), |at| at.duration());
    fields.finish();
    let (first, most) = (first?, most?);
    if first > most {
        return at.error("`first` is longer than `most`", "such as `backoff: { first: 1s, most: 1h }`");
    }
    Some(Backoff { first, most })
}

/// Reads `inbox.keep: {delivered, dead}`: how long the inbox retains delivered messages and dead messages.
fn keep(fields: &mut Fields<'_>, default: &InboxSettings) -> Option<(Duration, Duration)> {
    let (mut delivered, mut dead) = (Some(default.keep_delivered), Some(default.keep_dead));
    if let Some(at) = fields.optional("keep") {
        let mut fields = at.fields()?;
        delivered = fields.optional("delivered").map_or(delivered, |at| at.duration_or_zero());
        dead = fields.optional("dead").map_or(dead, |at| at.duration_or_zero());
        fields.finish();
    }
    Some((delivered?, dead?))
}

fn sealer(at: &Cursor<'_>) -> Option<BodySealer> {
    let secret = at.secret()?;
    match BodySealer::new(&secret) {
        Some(sealer) => Some(sealer),
        None => at.error("the key is shorter than 16 bytes", "openssl rand -base64 32"),
    }
}
