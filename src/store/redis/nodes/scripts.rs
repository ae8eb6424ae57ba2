//! The scripts that the engine executes. They read, compare and write; they contain no rule about interactions. Every
//! script touches the keys of one partition only, and returns the engine's time in microseconds first.
//!
//! A script with the same arguments can be executed twice, because a call whose response is lost may have been executed.

use std::sync::LazyLock;

use redis::Script;

/// The beginning of each script.
pub(super) const TIME: &str = "local t = redis.call('TIME') local now = t[1] * 1000000 + t[2]\n";

/// A script and the name of its calls in the metrics.
#[derive(Debug)]
pub(in crate::store::redis) struct Call {
    /// The name in the metrics.
    pub(in crate::store::redis) name: &'static str,
    /// Whether the caller relies on what the script writes. Replicas then confirm it.
    pub(in crate::store::redis) writes: bool,
    pub(super) text: &'static str,
    pub(super) script: LazyLock<(String, Script)>,
}

impl Call {
    /// Returns the text of the script.
    pub(in crate::store::redis) fn text(&self) -> &str {
        &self.script.0
    }

    /// Returns the hash by which the engine knows the script.
    pub(in crate::store::redis) fn hash(&self) -> &str {
        self.script.1.get_hash()
    }
}

macro_rules! call {
    ($(#[$doc:meta])* $constant:ident, $name:literal, $writes:literal, $text:expr) => {
        $(#[$doc])*
        pub(in crate::store::redis) static $constant: Call = Call {
            name: $name,
            writes: $writes,
            text: $text,
            script: LazyLock::new(|| {
                let text = format!("{TIME}{}", $constant.text);
                let script = Script::new(&text);
                (text, script)
            }),
        };
    };
}

pub(super) use call;

/// Begins a script that works while the engine is full: it frees memory, or belongs to something that the engine has
/// already. A full engine refuses a command that needs memory only if the script has written nothing before. `PERSIST` is
/// a write that needs no memory, and has no effect on a key without a time to live.
macro_rules! although_full {
    ($text:literal) => {
        concat!("redis.call('PERSIST', KEYS[1])\n", $text)
    };
}

call!(
    /// Reads a record, and which of some events are known beside it.
    /// Keys: the record, its events. Arguments: events.
    LOAD,
    "load",
    false,
    "local known = {}
    if #ARGV > 0 and redis.call('EXISTS', KEYS[2]) == 1 then known = redis.call('ZMSCORE', KEYS[2], unpack(ARGV)) end
    return {now, redis.call('GET', KEYS[1]), known}"
);

call!(
    /// Reads records. Keys: the records.
    READ,
    "read",
    false,
    "return {now, redis.call('MGET', unpack(KEYS))}"
);

call!(
    /// Replaces a record if it still has the expected version. The version is the first 8 bytes of a record.
    /// Keys: the record, the due times, its events. Arguments: the expected version (empty: the record does not exist),
    /// the new record (empty: it is removed), its due time, the id, the maximum number of events, and events to add.
    /// Returns 1 if the engine has the new record.
    CAS,
    "cas",
    true,
    "local old = redis.call('GET', KEYS[1])
    local version = old and string.sub(old, 1, 8) or ''
    if ARGV[2] ~= '' and version == string.sub(ARGV[2], 1, 8) then return {now, 1} end
    if version ~= ARGV[1] then return {now, 0} end
    if old then redis.call('PERSIST', KEYS[1]) end
    if ARGV[2] == '' then
        redis.call('DEL', KEYS[1], KEYS[3])
        redis.call('ZREM', KEYS[2], ARGV[4])
    else
        redis.call('SET', KEYS[1], ARGV[2])
        redis.call('ZADD', KEYS[2], ARGV[3], ARGV[4])
        for i = 6, #ARGV do redis.call('ZADD', KEYS[3], now, ARGV[i]) end
        if #ARGV > 5 then redis.call('ZREMRANGEBYRANK', KEYS[3], 0, -(ARGV[5] + 1)) end
    end
    return {now, 1}"
);

call!(
    /// Writes a record again, so that the replicas confirm it, and every earlier change of the node.
    /// Keys: the record.
    TOUCH,
    "touch",
    true,
    although_full!("local old = redis.call('GET', KEYS[1])
    if not old then return {now, 0} end
    redis.call('SET', KEYS[1], old)
    return {now, 1}")
);

call!(
    /// Returns ids whose time has come, and hides them from other members for a time. Then returns the next time.
    /// Keys: the due times. Arguments: the maximum number, the time for which they are hidden in milliseconds.
    DUE,
    "due",
    true,
    although_full!("local ms = math.floor(now / 1000)
    local ids = redis.call('ZRANGE', KEYS[1], '-inf', ms, 'BYSCORE', 'LIMIT', 0, ARGV[1])
    for _, id in ipairs(ids) do redis.call('ZADD', KEYS[1], 'XX', ms + ARGV[2], id) end
    local first = redis.call('ZRANGE', KEYS[1], 0, 0, 'WITHSCORES')
    return {now, ids, first[2]}")
);

call!(
    /// Claims an event without an interaction. The end of a lease is a whole second, plus the number of the lease in
    /// microseconds. A full engine refuses the claim, and removes the events that have expired.
    /// Keys: the delivered events, the events that are being delivered. Arguments: the duration of the lease in
    /// microseconds, its number (below 1,000,000), and the events.
    /// Returns 0, 1 if the event was delivered, or 2 if another lease exists.
    CLAIM_EVENT,
    "claim_event",
    true,
    "local function score(key, event)
        local at = tonumber(redis.call('ZSCORE', key, event) or 0)
        return at > now and at
    end
    local until_ = math.ceil((now + ARGV[1]) / 1000000) * 1000000 + ARGV[2]
    for i = 3, #ARGV do
        if score(KEYS[1], ARGV[i]) then return {now, 1} end
        local other = score(KEYS[2], ARGV[i])
        if other and other % 1000000 ~= tonumber(ARGV[2]) then return {now, 2} end
    end
    local refused
    for i = 3, #ARGV do
        local added = redis.pcall('ZADD', KEYS[2], string.format('%.0f', until_), ARGV[i])
        if type(added) == 'table' and added.err then refused = added break end
    end
    redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
    redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', now)
    return refused or {now, 0}"
);

call!(
    /// Records that an event without an interaction was delivered.
    /// Keys: the delivered events, the events that are being delivered. Arguments: how long it is remembered, in
    /// microseconds, the maximum number of events, and the events.
    SETTLE_EVENT,
    "settle_event",
    true,
    although_full!("for i = 3, #ARGV do
        redis.call('ZADD', KEYS[1], string.format('%.0f', now + ARGV[1]), ARGV[i])
        redis.call('ZREM', KEYS[2], ARGV[i])
    end
    redis.call('ZREMRANGEBYRANK', KEYS[1], 0, -(ARGV[2] + 1))
    return {now, 1}")
);

call!(
    /// Releases the claim of an event without an interaction, if it still has this lease.
    /// Keys: the events that are being delivered. Arguments: the number of the lease, and the events.
    RELEASE_EVENT,
    "release_event",
    true,
    "for i = 2, #ARGV do
        local until_ = redis.call('ZSCORE', KEYS[1], ARGV[i])
        if until_ and tonumber(until_) % 1000000 == tonumber(ARGV[1]) then redis.call('ZREM', KEYS[1], ARGV[i]) end
    end
    return {now, 1}"
);

call!(
    /// Finds the interaction that has a provider's id.
    /// Keys: the interaction of the id, the requests whose response is awaited.
    /// Returns the interaction, and the number of awaited responses.
    FIND,
    "find",
    false,
    "return {now, redis.call('GET', KEYS[1]), redis.call('ZCOUNT', KEYS[2], now, '+inf')}"
);

call!(
    /// Records the interaction that has a provider's id.
    /// Keys: the interaction of the id. Arguments: the interaction.
    BIND,
    "bind",
    true,
    although_full!("redis.call('SET', KEYS[1], ARGV[1]) return {now, 1}")
);

call!(
    /// Forgets the interaction of a provider's id, unless another interaction has the id.
    /// Keys: the interaction of the id. Arguments: the interaction.
    UNBIND,
    "unbind",
    true,
    "if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end return {now, 1}"
);

call!(
    /// Records that a response is awaited, or no longer.
    /// Keys: the requests whose response is awaited. Arguments: the request, and for how long, in microseconds (0: no
    /// longer).
    AWAIT,
    "await",
    true,
    although_full!("redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
    if ARGV[2] == '0' then redis.call('ZREM', KEYS[1], ARGV[1])
    else redis.call('ZADD', KEYS[1], string.format('%.0f', now + ARGV[2]), ARGV[1]) end
    return {now, 1}")
);

call!(
    /// Records that a member lives, and reads who else does.
    /// Keys: the members, what the ledger says about itself. Arguments: the incarnation (empty: only reads), what the
    /// member says about itself (empty: it leaves), a random name for a new ledger, and the format of the records.
    /// Returns the name of the ledger, and for each member its incarnation and its last beat with what it says.
    BEAT,
    "beat",
    true,
    although_full!("if ARGV[1] ~= '' and ARGV[2] == '' then redis.call('HDEL', KEYS[1], ARGV[1])
    elseif ARGV[1] ~= '' then
        redis.call('HSET', KEYS[1], ARGV[1], string.format('%.0f', math.floor(now / 1000)) .. ' ' .. ARGV[2])
    end
    if redis.call('EXISTS', KEYS[2]) == 0 then
        redis.call('HSET', KEYS[2], 'name', ARGV[3], 'format', ARGV[4], 'since', string.format('%.0f', now))
    end
    return {now, redis.call('HGET', KEYS[2], 'name'), redis.call('HGET', KEYS[2], 'format'), redis.call('HGETALL', KEYS[1])}")
);

call!(
    /// Forgets members. Keys: the members. Arguments: incarnations.
    FORGET,
    "forget",
    true,
    "redis.call('HDEL', KEYS[1], unpack(ARGV)) return {now, 1}"
);

call!(
    /// Returns the number of records of a partition. Keys: the due times.
    COUNT,
    "count",
    false,
    "return {now, redis.call('ZCARD', KEYS[1])}"
);

call!(
    /// Reads some ids of a partition. Keys: the due times. Arguments: the place to continue from, the approximate number.
    SCAN,
    "scan",
    false,
    "local found = redis.call('ZSCAN', KEYS[1], ARGV[1], 'COUNT', ARGV[2]) return {now, found[1], found[2]}"
);

call!(
    /// Records delivered events that another ledger has copied. Keys: the events. Arguments: pairs of the time until which
    /// an event is remembered, in microseconds, and the event.
    COPY_EVENTS,
    "copy",
    true,
    "for i = 1, #ARGV, 2 do redis.call('ZADD', KEYS[1], 'GT', ARGV[i], ARGV[i + 1]) end return {now, 1}"
);

call!(
    /// Records the interaction that has a provider's id, unless one has it. Keys: the interaction of the id. Arguments: the
    /// interaction. Returns the interaction that has the id.
    COPY_BINDING,
    "copy",
    true,
    "redis.call('SET', KEYS[1], ARGV[1], 'NX') return {now, redis.call('GET', KEYS[1])}"
);

call!(
    /// Records the secret key of copied fingerprints. Keys: the secret keys. Arguments: the secret key.
    COPY_KEY,
    "copy",
    true,
    "redis.call('SADD', KEYS[1], ARGV[1]) return {now, 1}"
);

call!(
    /// Returns the secret keys of copied fingerprints. Keys: the secret keys.
    COPIED_KEYS,
    "find_copied",
    false,
    "return {now, redis.call('SMEMBERS', KEYS[1])}"
);

call!(
    /// Returns whether one of some fingerprints was copied and is still remembered. Keys: the fingerprints. Arguments:
    /// fingerprints.
    FIND_COPIED,
    "find_copied",
    true,
    "redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
    for i = 1, #ARGV do if redis.call('ZSCORE', KEYS[1], ARGV[i]) then return {now, 1} end end
    return {now, 0}"
);

call!(
    /// Returns all events of an interaction that are beside its record. Keys: its events.
    EVENTS,
    "copy",
    false,
    "return {now, redis.call('ZRANGE', KEYS[1], 0, -1)}"
);
