//! Reads the configuration section `store`: the location and the limits of the ledger.

use std::time::Duration;

use super::redis::{RedisSettings, redis};
use super::yaml::{Cursor, Fields};

/// The location and the limits of the ledger.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct StoreSettings {
    /// The path of the ledger file. `None` if the ledger is not in a file.
    pub path: Option<Box<str>>,
    /// The settings of the connection to Redis or Valkey. `None` if the ledger is not on Redis or Valkey. If `path` is
    /// `None` as well, the ledger is only in memory.
    pub redis: Option<RedisSettings>,
    /// What Callgate does with a callback whose token is valid, but whose interaction is not in the ledger.
    pub unknown: Unknown,
    /// The maximum number of interactions in the ledger.
    pub interactions_max: usize,
    /// The maximum number of delivered events in the ledger. Events without an interaction are included.
    pub events_max: usize,
    /// How long the ledger retains a delivered event that belongs to no interaction. During this time, Callgate
    /// recognizes duplicates of the event.
    pub remember: Duration,
    /// How long the ledger retains an interaction after its end. The ledger retains the interaction at least until the
    /// callback token expires.
    pub keep_ended: Duration,
    /// For a ledger in a file, the maximum time that a request waits until its changes are saved. If saving takes
    /// longer, Callgate accepts no new requests. For a ledger on Redis, the time for which Redis can fail before the
    /// process reports that it is not ready.
    pub grace: Duration,
}

/// What Callgate does with a callback whose token is valid, but whose interaction is not in the ledger.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Unknown {
    /// Callgate creates the interaction from the content of the callback token.
    Adopt,
    /// Callgate denies the callback.
    Refuse,
}

/// The location of the ledger.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Kind {
    File,
    Memory,
    Redis,
}

const INTERACTIONS_DEFAULT: u64 = 1_000_000;
const EVENTS_DEFAULT: u64 = 3_000_000;
const INTERACTIONS_MAX: u64 = 100_000_000;
const REMEMBER_DEFAULT: Duration = Duration::from_secs(3 * 86_400);
const KEEP_ENDED_DEFAULT: Duration = Duration::from_secs(86_400);
const GRACE_DEFAULT: Duration = Duration::from_secs(10);

/// Reads the configuration section `store`. If the section is missing, the ledger is only in memory.
pub(super) fn store(at: Option<Cursor<'_>>) -> Option<StoreSettings> {
    let Some(at) = at else {
        return Some(settings(None, Unknown::Adopt));
    };
    let mut fields = at.fields()?;
    let kind = fields
        .required("kind")
        .and_then(|at| at.one_of(&[("file", Kind::File), ("memory", Kind::Memory), ("redis", Kind::Redis)]));
    let path_at = fields.optional("path");
    let path = path_at.as_ref().map(|at| at.text().map(Box::from));
    let redis_at = fields.optional("redis");
    let redis = redis_at.as_ref().map(redis);
    place(&fields, kind, path_at.as_ref(), redis_at.as_ref());
    let words = [("adopt", Unknown::Adopt), ("refuse", Unknown::Refuse)];
    // A ledger in a file contains every interaction that Callgate has created, so Callgate denies callbacks of unknown
    // interactions. A ledger in memory is empty after each restart, and Redis can lose its last changes, so Callgate
    // then creates unknown interactions from their tokens.
    let unknown = if kind == Some(Kind::File) { Unknown::Refuse } else { Unknown::Adopt };
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
        redis: redis.map_or(Some(None), |read| read.map(Some))?,
        unknown: unknown?,
        interactions_max: interactions_max?,
        events_max: events_max?,
        remember: remember?,
        keep_ended: keep_ended?,
        grace: grace?,
    })
}

/// Reports an error if the setting `path` or `redis` is missing although the `kind` of the store needs it, or present
/// although the `kind` does not allow it.
fn place(fields: &Fields<'_>, kind: Option<Kind>, path: Option<&Cursor<'_>>, redis: Option<&Cursor<'_>>) {
    let Some(kind) = kind else { return };
    let _: Option<()> = match (kind, path, redis) {
        (Kind::File, None, _) => {
            fields.at().error("`kind: file` needs a `path`", "such as /var/lib/callgate/ledger")
        }
        (Kind::Memory, Some(path), _) => path.error("`kind: memory` has no path", ""),
        (Kind::Redis, Some(path), _) => path.error("`kind: redis` has no path", ""),
        (Kind::Redis, None, None) => fields
            .at()
            .error("`kind: redis` needs `redis`", "such as redis: { nodes: [redis.example.com:6379] }"),
        (Kind::File | Kind::Memory, _, Some(redis)) => redis.error("`redis` is only for `kind: redis`", ""),
        _ => None,
    };
}

fn settings(path: Option<Box<str>>, unknown: Unknown) -> StoreSettings {
    let count = |count: u64| usize::try_from(count).unwrap_or(usize::MAX);
    StoreSettings {
        path,
        redis: None,
        unknown,
        interactions_max: count(INTERACTIONS_DEFAULT),
        events_max: count(EVENTS_DEFAULT),
        remember: REMEMBER_DEFAULT,
        keep_ended: KEEP_ENDED_DEFAULT,
        grace: GRACE_DEFAULT,
    }
}
