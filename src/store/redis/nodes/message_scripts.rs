//! The scripts for the messages of the inbox. A message is a hash with these fields: its head (`h`), its body (`b`),
//! its state (`s`), the process that holds it (`o`), the end of the lease of an attempt or a pull in Unix milliseconds
//! (`l`), its interaction, or nothing (`i`), and 1 if it does not wait for earlier messages, or nothing (`p`).
//!
//! The first key of each script contains the times at which messages are due. From its name, the scripts compute the
//! names of the other keys of the partition: the messages (`x:`), the waiting and the dead messages of each interaction
//! (`w:`, `g:`), and the number of messages that each process holds (`h`).
//!
//! While a slot of a cluster is being moved, a node has only some of its keys. A script then finds keys missing or
//! fails in the middle, and its earlier writes stay. Therefore each script first requests all of its keys with one
//! `EXISTS`. This command fails if a key is missing while the slot is being moved, and has no effect otherwise.
//!
//! The scripts that deliver, settle or move messages also work while the Redis server is full: before the first change,
//! they call `PERSIST` (see `although_full` in [`super::scripts`]). A full server stores no new messages.

use std::sync::LazyLock;

use redis::Script;

use super::scripts::{Call, TIME, call};

/// Computes the common prefix of the names of all keys of the partition. Every script of this file begins with this
/// text.
macro_rules! base {
    ($text:literal) => {
        concat!("local base = string.sub(KEYS[1], 1, -2) local ms = math.floor(now / 1000)\n", $text)
    };
}

/// Stores a message. The arguments of the message begin at the index `a`: its id, the process that accepts it, its
/// interaction, 1 if the message does not wait for the earlier messages of its interaction, its due time, its head, and
/// its body. If the message waits for earlier messages, the process that holds the first waiting message also holds the
/// new one. Sets `o` to the process that holds the new message.
macro_rules! store_message {
    ($index:literal, $before:literal, $after:literal) => {
        concat!(
            "local base = string.sub(KEYS[1], 1, -2)\n",
            $index,
            "local id, o, i, p = ARGV[a], ARGV[a + 1], ARGV[a + 2], ARGV[a + 3]
            local x, w, h = base .. 'x:' .. id, base .. 'w:' .. i, base .. 'h'
            redis.call('EXISTS', KEYS[1], x, w, h)\n",
            $before,
            "if redis.call('EXISTS', x) == 1 then o = redis.call('HGET', x, 'o')
            else
                if i ~= '' then
                    local first = redis.call('LINDEX', w, 0)
                    if first and p == '' then o = redis.call('HGET', base .. 'x:' .. first, 'o') or o end
                    redis.call('RPUSH', w, id)
                end
                redis.call('HSET', x, 'o', o, 'i', i, 'p', p, 'h', ARGV[a + 5], 'b', ARGV[a + 6])
                redis.call('ZADD', KEYS[1], ARGV[a + 4], id)
                redis.call('HINCRBY', h, o, 1)
            end\n",
            $after
        )
    };
}

call!(
    /// Generates the number of a new message. The numbers of a partition ascend, even if the Redis server has lost the
    /// last numbers. A number may stay unused.
    ///
    /// Keys: the last number that was assigned.
    NUMBER,
    "message_number",
    false,
    "local last = tonumber(redis.call('GET', KEYS[1]) or '0')
    local next = math.max(last + 1, math.floor(now / 1000))
    redis.call('SET', KEYS[1], string.format('%.0f', next))
    return {now, next}"
);

call!(
    /// Replaces the record of an interaction as the script `cas` does, and stores a message in the same step.
    ///
    /// Keys: the sorted set of the due times of messages, the record, the due times of records, the sorted set of the
    /// delivered events that do not fit into the record. Arguments: the first five arguments of `cas`, the number of
    /// events to add, these events, and the arguments of the message.
    ///
    /// Returns 1 if the Redis server has the new record, and the process that holds the message. Also returns the first
    /// waiting message of the interaction, and the waiting message before the new one. The holder must have both in its
    /// index before it delivers the new message.
    ACCEPT,
    "accept",
    true,
    store_message!(
        "local a = 7 + ARGV[6]\n",
        "local old = redis.call('GET', KEYS[2])
        local version = old and string.sub(old, 1, 8) or ''
        if version == string.sub(ARGV[2], 1, 8) then return {now, 1} end
        if version ~= ARGV[1] then return {now, 0} end
        redis.call('SET', KEYS[2], ARGV[2])
        redis.call('ZADD', KEYS[3], ARGV[3], ARGV[4])
        for n = 7, a - 1 do redis.call('ZADD', KEYS[4], now, ARGV[n]) end
        if a > 7 then redis.call('ZREMRANGEBYRANK', KEYS[4], 0, -(ARGV[5] + 1)) end\n",
        "return {now, 1, o, redis.call('LINDEX', w, 0) or '', redis.call('LINDEX', w, -2) or ''}"
    )
);

call!(
    /// Records that the callback of an event without an interaction was queued in the inbox, and stores its message in
    /// the same step.
    ///
    /// Keys: the sorted set of the due times of messages, the delivered events, the events that are being delivered.
    /// Arguments: the retention of the event in microseconds, the maximum number of events, the number of the event's
    /// keys, the keys, and the arguments of the message. Returns the process that holds the message.
    ACCEPT_EVENT,
    "accept_event",
    true,
    store_message!(
        "local a = 4 + ARGV[3]\n",
        "for n = 4, a - 1 do
            redis.call('ZADD', KEYS[2], string.format('%.0f', now + ARGV[1]), ARGV[n])
            redis.call('ZREM', KEYS[3], ARGV[n])
        end
        if a > 4 then redis.call('ZREMRANGEBYRANK', KEYS[2], 0, -(ARGV[2] + 1)) end\n",
        "return {now, o}"
    )
);

call!(
    /// Begins an attempt or a pull of a message, or only reads the message. Replicas do not confirm the lease. If a
    /// failover loses the lease, the attempt ends like any other attempt.
    ///
    /// Keys: the sorted set of the due times of the partition. Arguments: the id, the process that must hold the
    /// message (empty: any process), the duration of the lease in milliseconds (0: no lease), the new state (empty: no
    /// new state).
    ///
    /// Returns 1, the head, the body and the state, or 0 if the process does not hold the message.
    BEGIN,
    "message_begin",
    false,
    base!(
        "local x = base .. 'x:' .. ARGV[1]
        redis.call('EXISTS', KEYS[1], x)
        local m = redis.call('HMGET', x, 'o', 'h', 'b', 's')
        if not m[2] or (ARGV[2] ~= '' and m[1] ~= ARGV[2]) then return {now, 0} end
        if ARGV[3] ~= '0' or ARGV[4] ~= '' then redis.call('PERSIST', KEYS[1]) end
        if ARGV[3] ~= '0' then redis.call('HSET', x, 'l', string.format('%.0f', ms + ARGV[3])) end
        if ARGV[4] ~= '' then redis.call('HSET', x, 's', ARGV[4]) end
        return {now, 1, m[2], m[3], m[4]}"
    )
);

call!(
    /// Changes the states of messages, or removes messages.
    ///
    /// Keys: the sorted set of the due times of the partition. Arguments: the process that must hold the messages, and
    /// four values for each change: the id, the new state (empty: the message is removed), the due time, and `1` (the
    /// message waits), `d` (the message is dead) or nothing (delivered or removed).
    ///
    /// Returns for each change 0 if the process does not hold the message, and otherwise a list. If the message still
    /// waits, the list is empty. Otherwise, the list contains the next waiting messages of the interaction.
    APPLY,
    "message_apply",
    true,
    base!(
        "local results, me, h = {}, ARGV[1], base .. 'h'
        for n = 2, #ARGV, 4 do
            local x = base .. 'x:' .. ARGV[n]
            redis.call('EXISTS', KEYS[1], h, x)
            local i = redis.call('HGET', x, 'i')
            if i and i ~= '' then redis.call('EXISTS', KEYS[1], base .. 'w:' .. i, base .. 'g:' .. i) end
        end
        for n = 2, #ARGV, 4 do
            local id, state, at, waits = ARGV[n], ARGV[n + 1], ARGV[n + 2], ARGV[n + 3] == '1'
            local x = base .. 'x:' .. id
            local m = redis.call('HMGET', x, 'o', 'i')
            local result = 0
            if m[1] == me then
                redis.call('PERSIST', KEYS[1])
                local lane = m[2] ~= '' and base .. 'w:' .. m[2]
                if state == '' then
                    redis.call('DEL', x)
                    redis.call('ZREM', KEYS[1], id)
                    if redis.call('HINCRBY', h, me, -1) <= 0 then redis.call('HDEL', h, me) end
                else
                    redis.call('HSET', x, 's', state)
                    redis.call('HDEL', x, 'l')
                    redis.call('ZADD', KEYS[1], at, id)
                end
                result = {}
                if lane then redis.call(ARGV[n + 3] == 'd' and 'SADD' or 'SREM', base .. 'g:' .. m[2], id) end
                if lane and waits then
                    if not redis.call('LPOS', lane, id) then redis.call('RPUSH', lane, id) end
                elseif lane then
                    redis.call('LREM', lane, 1, id)
                    result = redis.call('LRANGE', lane, 0, 7)
                end
            end
            table.insert(results, result)
        end
        return {now, results}"
    )
);

call!(
    /// Reads the messages that a process holds, without their bodies.
    ///
    /// Keys: the sorted set of the due times of the partition. Arguments: the process, and message ids.
    ///
    /// Returns for each message that the process holds the id, the head, the size of the body, the state, and the end
    /// of the lease.
    MESSAGES,
    "messages",
    false,
    base!(
        "local found = {}
        for n = 2, #ARGV do
            local x = base .. 'x:' .. ARGV[n]
            redis.call('EXISTS', KEYS[1], x)
            local m = redis.call('HMGET', x, 'o', 'h', 's', 'l')
            if m[1] == ARGV[1] and m[2] then
                table.insert(found, {ARGV[n], m[2], redis.call('HSTRLEN', x, 'b'), m[3] or '', m[4] or '0'})
            end
        end
        return {now, found}"
    )
);

call!(
    /// Returns the processes that hold messages of this partition, each with the number of messages that it holds.
    ///
    /// Keys: the sorted set of the due times of the partition.
    HOLDERS,
    "message_holders",
    false,
    base!("return {now, redis.call('HGETALL', base .. 'h')}")
);

call!(
    /// Takes over messages of a dead process. All ordered messages of one interaction go to the process that holds the
    /// first of these messages. If the dead process and the process that takes over are the same, only returns the
    /// messages of this process.
    ///
    /// Keys: the sorted set of the due times of the partition. Arguments: the dead process, the process that takes
    /// over, the offset to continue from, and the maximum number. Returns the ids of the messages that the process
    /// holds now, and the number of messages that were checked.
    ADOPT,
    "message_adopt",
    true,
    base!(
        "local gone, me, found = ARGV[1], ARGV[2], {}
        local h = base .. 'h'
        local function give(id, to)
            redis.call('PERSIST', KEYS[1])
            redis.call('HSET', base .. 'x:' .. id, 'o', to)
            redis.call('HINCRBY', h, to, 1)
            if redis.call('HINCRBY', h, gone, -1) <= 0 then redis.call('HDEL', h, gone) end
            if to == me then table.insert(found, id) end
        end
        local ids = redis.call('ZRANGE', KEYS[1], ARGV[3], ARGV[3] + ARGV[4] - 1)
        for _, id in ipairs(ids) do
            local x = base .. 'x:' .. id
            redis.call('EXISTS', KEYS[1], h, x)
            local i = redis.call('HGET', x, 'i')
            if i and i ~= '' then redis.call('EXISTS', KEYS[1], base .. 'w:' .. i) end
        end
        for _, id in ipairs(ids) do
            local m = redis.call('HMGET', base .. 'x:' .. id, 'o', 'i', 'p')
            if m[1] == gone and gone == me then table.insert(found, id)
            elseif m[1] == gone then
                local to = me
                local first = m[2] ~= '' and m[3] == '' and redis.call('LINDEX', base .. 'w:' .. m[2], 0)
                if first and first ~= id then
                    local holder = redis.call('HGET', base .. 'x:' .. first, 'o')
                    if holder == gone then give(first, me) elseif holder then to = holder end
                end
                give(id, to)
            end
        end
        return {now, found, #ids}"
    )
);

call!(
    /// Moves the waiting messages of an interaction to a process, except the messages that another process has leased.
    /// Replicas do not confirm the move. If a failover loses the move, the former process holds the messages again.
    ///
    /// Keys: the sorted set of the due times of the partition. Arguments: the interaction, the process that gets the
    /// messages, and 1 to move only messages that do not wait for the earlier messages of their interaction (otherwise
    /// empty).
    ///
    /// Returns the ids of the waiting messages that the process holds now, and the number of waiting messages that
    /// other processes hold. The ids include messages that the process held before this call, because the response to
    /// an earlier call may have been lost.
    TAKE,
    "message_take",
    false,
    base!(
        "local me, found, left = ARGV[2], {}, 0
        local h, w = base .. 'h', base .. 'w:' .. ARGV[1]
        redis.call('EXISTS', KEYS[1], h, w)
        local ids = redis.call('LRANGE', w, 0, -1)
        for _, id in ipairs(ids) do redis.call('EXISTS', KEYS[1], base .. 'x:' .. id) end
        for _, id in ipairs(ids) do
            local x = base .. 'x:' .. id
            local m = redis.call('HMGET', x, 'o', 'l', 'p')
            if m[1] == me then table.insert(found, id)
            elseif m[1] then
                if (not m[2] or tonumber(m[2]) <= ms) and (ARGV[3] == '' or m[3] == '1') then
                    redis.call('PERSIST', KEYS[1])
                    redis.call('HSET', x, 'o', me)
                    redis.call('HINCRBY', h, me, 1)
                    if redis.call('HINCRBY', h, m[1], -1) <= 0 then redis.call('HDEL', h, m[1]) end
                    table.insert(found, id)
                else left = left + 1 end
            end
        end
        return {now, found, left}"
    )
);

call!(
    /// Moves one message to the process at which the agent acknowledges or returns the message. Does not move a message
    /// that waits for earlier messages of its interaction. Replicas do not confirm the move. If a failover loses the
    /// move, the former process holds the message again.
    ///
    /// Keys: the sorted set of the due times of the partition. Arguments: the id, the interaction of the message
    /// (empty: any), the process that gets the message.
    ///
    /// Returns 1 if the process holds the message now, 2 if another process holds the message, and 0 if the message
    /// does not exist. Also returns the interaction of the message (empty: none).
    TAKE_ONE,
    "message_take_one",
    false,
    base!(
        "local x, h = base .. 'x:' .. ARGV[1], base .. 'h'
        redis.call('EXISTS', KEYS[1], x, h)
        local m = redis.call('HMGET', x, 'o', 'i', 'p')
        if not m[1] then return {now, 0} end
        if m[1] ~= ARGV[3] then
            if m[3] ~= '1' or (ARGV[2] ~= '' and m[2] ~= ARGV[2]) then return {now, 2, m[2]} end
            redis.call('PERSIST', KEYS[1])
            redis.call('HSET', x, 'o', ARGV[3])
            redis.call('HINCRBY', h, ARGV[3], 1)
            if redis.call('HINCRBY', h, m[1], -1) <= 0 then redis.call('HDEL', h, m[1]) end
        end
        return {now, 1, m[2]}"
    )
);

call!(
    /// Returns the number of waiting and dead messages of an interaction. Keys: the sorted set of the due times of the
    /// partition. Arguments: the interaction.
    UNDELIVERED,
    "messages_undelivered",
    false,
    base!(
        "local w, g = base .. 'w:' .. ARGV[1], base .. 'g:' .. ARGV[1]
        redis.call('EXISTS', KEYS[1], w, g)
        return {now, redis.call('LLEN', w) + redis.call('SCARD', g)}"
    )
);

call!(
    /// Returns the ids of the waiting messages of an interaction.
    ///
    /// Keys: the sorted set of the due times of the partition. Arguments: the interaction.
    WAITING,
    "messages_waiting",
    false,
    base!(
        "local w = base .. 'w:' .. ARGV[1]
        redis.call('EXISTS', KEYS[1], w)
        return {now, redis.call('LRANGE', w, 0, -1)}"
    )
);
