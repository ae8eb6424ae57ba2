//! The scripts that the Redis server executes. They read, compare and write, and contain no rules about interactions.
//! Every script uses the keys of one partition only. The first value that it returns is the time of the Redis server in
//! microseconds.
//!
//! A process can repeat a call if its response is lost. The script must therefore have the right effect even if it is
//! executed twice with the same arguments.

use std::sync::LazyLock;

use redis::Script;

/// The text with which each script begins. It sets `now` to the time of the Redis server in microseconds.
pub(super) const TIME: &str = "local t = redis.call('TIME') local now = t[1] * 1000000 + t[2]\n";

/// A script, and the name of its calls in the metrics.
#[derive(Debug)]
pub(in crate::store::redis) struct Call {
    /// The name of the script's calls in the metrics.
    pub(in crate::store::redis) name: &'static str,
    /// Whether the caller relies on the changes of the script, so that replicas must confirm them.
    pub(in crate::store::redis) writes: bool,
    pub(super) text: &'static str,
    pub(super) script: LazyLock<(String, Script)>,
}

impl Call {
    /// Returns the text of the script.
    pub(in crate::store::redis) fn text(&self) -> &str {
        &self.script.0
    }

    /// Returns the hash by which the Redis server finds the script.
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

/// Begins a script that works while the Redis server is full. Such a script frees memory, or belongs to a record that
/// the server already has. A full server refuses a command that needs memory, unless the script has written something
/// before. Therefore the script first executes `PERSIST`. This write needs no memory, and has no effect on a key
/// without a time to live.
macro_rules! although_full {
    ($text:literal) => {
        concat!("redis.call('PERSIST', KEYS[1])\n", $text)
    };
}

call!(
    /// Reads the record of an interaction, and which of the given events are in the sorted set of the interaction. This
    /// set contains the delivered events that do not fit into the record.
    ///
    /// Keys: the record, the sorted set of the interaction. Arguments: the keys of the events.
    LOAD,
    "load",
    false,
    "local known = {}
    if #ARGV > 0 and redis.call('EXISTS', KEYS[2]) == 1 then known = redis.call('ZMSCORE', KEYS[2], unpack(ARGV)) end
    return {now, redis.call('GET', KEYS[1]), known}"
);

call!(
    /// Reads the records of several interactions. Keys: the records.
    READ,
    "read",
    false,
    "return {now, redis.call('MGET', unpack(KEYS))}"
);

call!(
    /// Replaces or removes the record of an interaction if the record still has the expected version. The version is
    /// the first 8 bytes of a record.
    ///
    /// Keys: the record, the due times, the sorted set of the delivered events that do not fit into the record.
    /// Arguments: the expected version (empty: the record does not exist), the new record (empty: the record is
    /// removed), its due time, the id, the maximum number of events, and the events to add.
    ///
    /// Returns 1 if the Redis server has the new record.
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
    /// Writes a record again without a change. When the replicas confirm this write, they also have every earlier write
    /// of the node. Keys: the record.
    TOUCH,
    "touch",
    true,
    although_full!("local old = redis.call('GET', KEYS[1])
    if not old then return {now, 0} end
    redis.call('SET', KEYS[1], old)
    return {now, 1}")
);

call!(
    /// Returns the ids of the interactions whose due time has come. Postpones these due times, so that the next calls
    /// of other processes do not return the same ids. Also returns the next due time.
    ///
    /// Keys: the due times. Arguments: the maximum number of ids, and the duration of the postponement in milliseconds.
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
    /// Claims an event that belongs to no interaction. The claim is stored with the end of its lease: a whole second,
    /// plus the number of the lease in microseconds. A full Redis server refuses the claim, but expired events are
    /// removed nevertheless.
    ///
    /// Keys: the delivered events, the events that are being delivered. Arguments: the duration of the lease in
    /// microseconds, the number of the lease (below 1,000,000), and the keys of the event.
    ///
    /// Returns 0 if the event is claimed now, 1 if the event was delivered, or 2 if another lease exists.
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
    /// Records that an event that belongs to no interaction was delivered.
    ///
    /// Keys: the delivered events, the events that are being delivered. Arguments: the retention of the event in
    /// microseconds, the maximum number of events, and the keys of the event.
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
    /// Releases the claim of an event that belongs to no interaction, if the claim still has this lease.
    ///
    /// Keys: the events that are being delivered. Arguments: the number of the lease, and the keys of the event.
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
    /// Finds the interaction to which a provider's id belongs.
    ///
    /// Keys: the key with the interaction of this provider's id, the requests whose response is outstanding. Returns
    /// the id of the interaction, and the number of outstanding responses.
    FIND,
    "find",
    false,
    "return {now, redis.call('GET', KEYS[1]), redis.call('ZCOUNT', KEYS[2], now, '+inf')}"
);

call!(
    /// Records that a provider's id belongs to an interaction. Keys: the key with the interaction of this provider's
    /// id. Arguments: the id of the interaction.
    BIND,
    "bind",
    true,
    although_full!("redis.call('SET', KEYS[1], ARGV[1]) return {now, 1}")
);

call!(
    /// Removes the entry that maps a provider's id to an interaction. Does nothing if the entry maps the provider's id
    /// to another interaction.
    ///
    /// Keys: the key with the interaction of this provider's id. Arguments: the id of the interaction.
    UNBIND,
    "unbind",
    true,
    "if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end return {now, 1}"
);

call!(
    /// Records that the response to a request is outstanding, or that it is not outstanding any more.
    ///
    /// Keys: the requests whose response is outstanding. Arguments: the request, and the maximum time for which its
    /// response counts as outstanding, in microseconds (0: the response is not outstanding any more).
    AWAIT,
    "await",
    true,
    although_full!("redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
    if ARGV[2] == '0' then redis.call('ZREM', KEYS[1], ARGV[1])
    else redis.call('ZADD', KEYS[1], string.format('%.0f', now + ARGV[2]), ARGV[1]) end
    return {now, 1}")
);

call!(
    /// Writes the heartbeat of a process, and reads the heartbeats of all processes that share the ledger.
    ///
    /// Keys: the list of processes, the description of the ledger. Arguments: the process id (empty: only reads), the
    /// description of the process (empty: the process is removed), a random name for a new ledger, and the format of
    /// the records.
    ///
    /// Returns the name and the format of the ledger. Also returns the id of each process, with the time of its last
    /// heartbeat and its description.
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
    /// Removes processes from the list of processes. Keys: the list of processes. Arguments: process ids.
    FORGET,
    "forget",
    true,
    "redis.call('HDEL', KEYS[1], unpack(ARGV)) return {now, 1}"
);

call!(
    /// Returns the number of interaction records in a partition. Keys: the due times.
    COUNT,
    "count",
    false,
    "return {now, redis.call('ZCARD', KEYS[1])}"
);

call!(
    /// Reads some interaction ids of a partition. Keys: the due times. Arguments: the cursor to continue from, the
    /// approximate number of ids.
    SCAN,
    "scan",
    false,
    "local found = redis.call('ZSCAN', KEYS[1], ARGV[1], 'COUNT', ARGV[2]) return {now, found[1], found[2]}"
);

call!(
    /// Records delivered events that are copied from another ledger.
    ///
    /// Keys: the sorted set of events. Arguments: pairs of the end of an event's retention in microseconds, and the
    /// event.
    COPY_EVENTS,
    "copy",
    true,
    "for i = 1, #ARGV, 2 do redis.call('ZADD', KEYS[1], 'GT', ARGV[i], ARGV[i + 1]) end return {now, 1}"
);

call!(
    /// Records that a provider's id belongs to an interaction, unless the provider's id belongs to an interaction
    /// already.
    ///
    /// Keys: the key with the interaction of this provider's id. Arguments: the id of the interaction. Returns the id
    /// of the interaction to which the provider's id belongs now.
    COPY_BINDING,
    "copy",
    true,
    "redis.call('SET', KEYS[1], ARGV[1], 'NX') return {now, redis.call('GET', KEYS[1])}"
);

call!(
    /// Records the secret key of fingerprints that are copied from another ledger. Keys: the set of secret keys.
    /// Arguments: the secret key.
    COPY_KEY,
    "copy",
    true,
    "redis.call('SADD', KEYS[1], ARGV[1]) return {now, 1}"
);

call!(
    /// Returns the secret keys of the copied fingerprints. Keys: the set of secret keys.
    COPIED_KEYS,
    "find_copied",
    false,
    "return {now, redis.call('SMEMBERS', KEYS[1])}"
);

call!(
    /// Returns 1 if one of the given fingerprints was copied and its retention has not ended, and otherwise 0.
    ///
    /// Keys: the copied fingerprints. Arguments: fingerprints.
    FIND_COPIED,
    "find_copied",
    true,
    "redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
    for i = 1, #ARGV do if redis.call('ZSCORE', KEYS[1], ARGV[i]) then return {now, 1} end end
    return {now, 0}"
);

call!(
    /// Returns all events of an interaction that are stored outside its record. Keys: the events of the interaction.
    EVENTS,
    "copy",
    false,
    "return {now, redis.call('ZRANGE', KEYS[1], 0, -1)}"
);
