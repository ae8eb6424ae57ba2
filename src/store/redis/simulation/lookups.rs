//! The data of a simulated Redis server outside the records of interactions: the provider's ids, the outstanding
//! responses, the copied events and the messages of the inbox.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use redis::Value;

use crate::store::redis::nodes::Request;
use crate::store::redis::nodes::scripts::{COPY_BINDING, COPY_EVENTS, COPY_KEY};

/// The maximum number of members of a sorted set that one call of a scan returns.
pub(in crate::store::redis) const SCANNED_MAX: usize = 150;

/// The data of a simulated Redis server outside the records of interactions. Failovers do not change this data.
#[derive(Default)]
pub(super) struct Lookups {
    /// Maps the name of a Redis key to the id of an interaction. There is one Redis key for each provider's id.
    bindings: HashMap<String, Vec<u8>>,
    /// The sorted sets of copied events, and of requests whose response is outstanding.
    sets: HashMap<String, BTreeMap<Vec<u8>, i64>>,
    /// The secret keys of the copied fingerprints.
    secrets: BTreeSet<Vec<u8>>,
    /// The messages of the inbox. The first key is the name of the Redis key with the due times of a partition. The
    /// second key is the message id.
    messages: HashMap<String, BTreeMap<String, HeldMessage>>,
}

/// A message of the inbox that a process holds.
pub(super) struct HeldMessage {
    /// The id of the process that holds the message.
    pub(super) holder: String,
    /// The interaction of the message, if it has one.
    pub(super) interaction: Option<Box<str>>,
    pub(super) head: Vec<u8>,
    /// The end of the lease of an attempt or a pull, in Unix milliseconds.
    pub(super) leased_until: i64,
}

impl Lookups {
    /// Adds a message of the inbox. `key` is the Redis key with the due times of the message's partition.
    pub(super) fn add_message(&mut self, key: &str, id: &str, message: HeldMessage) {
        self.messages.entry(key.to_owned()).or_default().insert(id.to_owned(), message);
    }

    pub(super) fn set(&self, key: &str) -> BTreeMap<Vec<u8>, i64> {
        self.sets.get(key).cloned().unwrap_or_default()
    }

    /// Executes a script at the time `us` (Unix microseconds), and adds its results to `values`.
    pub(super) fn execute(&mut self, request: &Request, us: i64, values: &mut Vec<Value>) {
        let is = |call| std::ptr::eq(request.call, call);
        let keys: Vec<_> = request.keys.iter().map(String::as_str).collect();
        match (request.call.name, keys.as_slice(), request.arguments.as_slice()) {
            ("find", [binding, awaited], []) => {
                let awaited = self.sets.get(*awaited).into_iter().flat_map(BTreeMap::values);
                let count = awaited.filter(|until| **until >= us).count();
                values.push(self.bindings.get(*binding).cloned().map_or(Value::Nil, Value::BulkString));
                values.push(Value::Int(i64::try_from(count).unwrap()));
            }
            ("bind", [binding], [id]) => {
                self.bindings.insert((*binding).to_owned(), id.clone());
            }
            ("unbind", [binding], [id]) => {
                self.bindings.retain(|key, known| key != binding || known != id);
            }
            ("await", [awaited], [request, patience]) => {
                let awaited = self.sets.entry((*awaited).to_owned()).or_default();
                awaited.insert(request.clone(), us + number(patience));
                awaited.retain(|_, until| *until > us);
            }
            ("copy", [binding], [id]) if is(&COPY_BINDING) => {
                let known = self.bindings.entry((*binding).to_owned()).or_insert_with(|| id.clone());
                values.push(Value::BulkString(known.clone()));
            }
            ("copy", [key], pairs) if is(&COPY_EVENTS) => {
                let set = self.sets.entry((*key).to_owned()).or_default();
                for [until, event] in pairs.as_chunks::<2>().0 {
                    let known = set.entry(event.clone()).or_insert(i64::MIN);
                    *known = number(until).max(*known);
                }
            }
            ("copy", _, [secret]) if is(&COPY_KEY) => {
                self.secrets.insert(secret.clone());
            }
            ("find_copied", _, []) => {
                let secrets = self.secrets.iter().cloned().map(Value::BulkString);
                values.push(Value::Array(secrets.collect()));
            }
            ("find_copied", [key], fingerprints) => {
                let set = self.sets.get(*key);
                let is_copied = |event| set.and_then(|set| set.get(event)).is_some_and(|until| *until > us);
                values.push(Value::Int(fingerprints.iter().any(is_copied).into()));
            }
            _ => self.execute_on_messages(request, values),
        }
    }

    /// Executes a script that reads or moves messages of the inbox, and adds its results to `values`.
    fn execute_on_messages(&mut self, request: &Request, values: &mut Vec<Value>) {
        let keys: Vec<_> = request.keys.iter().map(String::as_str).collect();
        match (request.call.name, keys.as_slice(), request.arguments.as_slice()) {
            ("message_holders", [due], []) => {
                let mut holders = BTreeMap::<_, u32>::new();
                for message in self.messages.get(*due).into_iter().flat_map(BTreeMap::values) {
                    *holders.entry(&message.holder).or_default() += 1;
                }
                let pairs = holders.iter().flat_map(|(holder, count)| [bulk(holder), bulk(count)]);
                values.push(Value::Array(pairs.collect()));
            }
            ("message_adopt", [due], [gone, to, offset, most]) => {
                self.adopt(due, [gone, to], number(offset), number(most), values);
            }
            ("messages_undelivered", [due], [interaction]) => {
                let messages = self.messages.get(*due).into_iter().flat_map(BTreeMap::values);
                let of_it = |message: &&HeldMessage| {
                    message.interaction.as_ref().is_some_and(|id| id.as_bytes() == interaction.as_slice())
                };
                values.push(Value::Int(i64::try_from(messages.filter(of_it).count()).unwrap()));
            }
            ("messages", [due], [holder, ids @ ..]) => values.push(self.heads(due, holder, ids)),
            (name, ..) => panic!("the simulation does not know the call {name}"),
        }
    }

    /// Executes the script `ADOPT`, which moves the messages of one process to another.
    fn adopt(&mut self, due: &str, [gone, to]: [&[u8]; 2], offset: i64, most: i64, values: &mut Vec<Value>) {
        let [gone, to] = [gone, to].map(|name| std::str::from_utf8(name).unwrap());
        let (mut found, mut seen) = (Vec::new(), 0);
        let messages = self.messages.entry(due.to_owned()).or_default().iter_mut();
        for (id, message) in messages.skip(offset as usize).take(most as usize) {
            seen += 1;
            if message.holder == gone {
                to.clone_into(&mut message.holder);
                found.push(bulk(id));
            }
        }
        values.extend([Value::Array(found), Value::Int(seen)]);
    }

    /// Executes the script `MESSAGES`, which returns messages of one process without their bodies.
    fn heads(&self, due: &str, holder: &[u8], ids: &[Vec<u8>]) -> Value {
        let head = |id: &Vec<u8>| {
            let message = self.messages.get(due)?.get(std::str::from_utf8(id).unwrap())?;
            let [id, head, state] = [id.clone(), message.head.clone(), Vec::new()].map(Value::BulkString);
            let parts = vec![id, head, Value::Int(0), state, bulk(message.leased_until)];
            (message.holder.as_bytes() == holder).then_some(Value::Array(parts))
        };
        Value::Array(ids.iter().filter_map(head).collect())
    }
}

/// Executes the script `SCAN`. The cursor is the number of members that were returned before. Like a real Redis server,
/// the simulated one may return fewer members than the call asks for.
pub(super) fn page(scores: &BTreeMap<Vec<u8>, i64>, arguments: &[Vec<u8>], values: &mut Vec<Value>) {
    let [cursor, count] = arguments else { panic!("too few arguments") };
    let (cursor, count) = (number(cursor) as usize, SCANNED_MAX.min(number(count) as usize));
    let next = if cursor + count < scores.len() { cursor + count } else { 0 };
    let pairs = scores.iter().skip(cursor).take(count);
    let pairs = pairs.flat_map(|(member, at)| [Value::BulkString(member.clone()), bulk(at)]);
    values.extend([bulk(next), Value::Array(pairs.collect())]);
}

fn bulk(text: impl ToString) -> Value {
    Value::BulkString(text.to_string().into_bytes())
}

fn number(text: &[u8]) -> i64 {
    std::str::from_utf8(text).unwrap().parse().unwrap()
}
