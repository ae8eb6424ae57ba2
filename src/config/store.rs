//! Parses `store`: the location and the limits of the ledger.

use super::yaml::Cursor;

use std::time::Duration;

/// The location and the limits of the ledger.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct StoreSettings {
    /// The path of the file. If it is `None`, the ledger is only in memory.
    pub path: Option<Box<str>>,
    /// What Callgate does with a callback whose token is valid, but whose interaction is not in the ledger.
    pub unknown: Unknown,
    /// The largest number of interactions.
    pub interactions_max: usize,
    /// The largest number of delivered events, with and without an interaction.
    pub events_max: usize,
    /// How long the ledger keeps a delivered event that belongs to no interaction. Within this time, it recognizes
    /// duplicates of the event.
    pub remember: Duration,
    /// How long the ledger keeps an interaction after its end. It keeps the interaction at least until the token expires.
    pub keep_ended: Duration,
    /// The longest time that a request waits until its changes are saved. If the disk takes longer, Callgate accepts
    /// nothing new.
    pub grace: Duration,
}

/// What Callgate does with a callback whose token is valid, but whose interaction is not in the ledger.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Unknown {
    /// Callgate records the interaction from the content of its token.
    Adopt,
    /// Callgate denies the callback.
    Refuse,
}

const INTERACTIONS_DEFAULT: u64 = 1_000_000;
const EVENTS_DEFAULT: u64 = 3_000_000;
const INTERACTIONS_MAX: u64 = 100_000_000;
const REMEMBER_DEFAULT: Duration = Duration::from_secs(3 * 86_400);
const KEEP_ENDED_DEFAULT: Duration = Duration::from_secs(86_400);
const GRACE_DEFAULT: Duration = Duration::from_secs(10);

/// Parses `store`. If the section is missing, the ledger is only in memory.
pub(super) fn store(at: Option<Cursor<'_>>) -> Option<StoreSettings> {
    let Some(at) = at else {
        return Some(settings(None, Unknown::Adopt));
    };
    let mut fields = at.fields()?;
    let file = fields.required("kind").and_then(|at| at.one_of(&[("file", true), ("memory", false)]));
    let path_at = fields.optional("path");
    let path = path_at.as_ref().map(|at| at.text().map(Box::from));
    match (file, &path_at) {
        (Some(true), None) => {
            let _: Option<()> =
                fields.at().error("`kind: file` needs a `path`", "such as /var/lib/callgate/ledger");
        }
        (Some(false), Some(path)) => {
            let _: Option<()> = path.error("`kind: memory` has no path", "");
        }
        _ => {}
    }
    let words = [("adopt", Unknown::Adopt), ("refuse", Unknown::Refuse)];
    // A ledger with a file contains every interaction that Callgate has minted, so Callgate denies unknown
    // interactions. A ledger without a file is empty after each restart, so Callgate adopts unknown interactions.
    let unknown = if file == Some(true) { Unknown::Refuse } else { Unknown::Adopt };
    let unknown = fields.optional("unknown").map_or(Some(unknown), |at| at.one_of(&words));
    let count = |at: Option<Cursor<'_>>, default| {
        at.map_or(Some(default), |at| at.whole_number(1..=INTERACTIONS_MAX))
            .and_then(|count| usize::try_from(count).ok())
    };
    let interactions_max = count(fields.optional("interactions_max"), INTERACTIONS_DEFAULT);
    let events_max = count(fields.optional("events_max"), EVENTS_DEFAULT);
    let remember = fields.optional("remember").map_or(Some(REMEMBER_DEFAULT), |at| at.duration());
    let keep_ended =
        fields.optional("keep_ended").map_or(Some(KEEP_ENDED_DEFAULT), |at| at.duration_or_zero());
    let grace = fields.optional("grace").map_or(Some(GRACE_DEFAULT), |at| at.duration());
    fields.finish();
    Some(StoreSettings {
        path: path.map_or(Some(None), |read| read.map(Some))?,
        unknown: unknown?,
        interactions_max: interactions_max?,
        events_max: events_max?,
        remember: remember?,
        keep_ended: keep_ended?,
        grace: grace?,
    })
}

fn settings(path: Option<Box<str>>, unknown: Unknown) -> StoreSettings {
    let count = |count: u64| usize::try_from(count).unwrap_or(usize::MAX);
    StoreSettings {
        path,
        unknown,
        interactions_max: count(INTERACTIONS_DEFAULT),
        events_max: count(EVENTS_DEFAULT),
        remember: REMEMBER_DEFAULT,
        keep_ended: KEEP_ENDED_DEFAULT,
        grace: GRACE_DEFAULT,
    }
}
