//! A Redis server that is simulated in memory, together with the faults of a network. It executes the calls of the
//! store after a delay, loses requests and responses, executes some requests late, and fails over to a replica that
//! lacks the last writes.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use redis::Value;
use tokio::time::{Instant, sleep, sleep_until};

use super::lookups::{HeldMessage, Lookups, page};
use crate::clock::instant;
use crate::random::splitmix::Random;
use crate::store::redis::nodes::scripts::EVENTS;
use crate::store::redis::nodes::{Failure, Request};

/// The Unix time in microseconds at which the simulation begins.
pub(super) const BEGIN_US: i64 = 1_800_000_000_000_000;
/// The time after which a caller gives up a call.
const PATIENCE: Duration = Duration::from_secs(1);
/// The time for which no node responds during a failover.
const OUTAGE: Duration = Duration::from_secs(3);

/// The faults of a simulated Redis server. The frequency of a fault is a number of affected calls per 10,000 calls.
#[derive(Clone, Copy)]
pub(super) struct Faults {
    pub(super) lost_requests: u64,
    pub(super) lost_responses: u64,
    pub(super) late: u64,
    /// Whether the response to a write is sent only when a replica has the write.
    pub(super) waits: bool,
    /// The maximum time until the replica has a write, in milliseconds.
    pub(super) lag_ms: u64,
}

impl Faults {
    /// No faults: the Redis server executes every call, and no response is lost.
    pub(super) const NONE: Self =
        Self { lost_requests: 0, lost_responses: 0, late: 0, waits: false, lag_ms: 1 };
}

/// The number of calls of each script, and the number of transferred bytes.
#[derive(Clone, Default)]
pub(super) struct Cost {
    pub(super) calls: BTreeMap<&'static str, u64>,
    pub(super) bytes: u64,
}

/// The simulated Redis server with the data of one ledger.
pub(in crate::store::redis) struct StandIn {
    begin: Instant,
    faults: Faults,
    state: Mutex<State>,
}

struct State {
    random: Random,
    data: Data,
    cost: Cost,
    /// The writes that the replica does not have yet.
    unreplicated: Vec<Write>,
    /// A number that increases with each failover.
    epoch: u64,
    /// The time at which the last write so far reaches the replica. Later writes do not arrive before this time.
    replicated: Instant,
    away_until: Option<Instant>,
    /// The script whose next response is lost.
    lost_response_of: Option<&'static str>,
}

/// A sorted set: the pairs of score and id in order, and the score of each id.
type Scores = (BTreeSet<(i64, String)>, HashMap<String, i64>);

#[derive(Default)]
struct Data {
    records: HashMap<String, Vec<u8>>,
    /// The delivered events that are stored outside the records.
    events: HashMap<String, HashMap<Vec<u8>, i64>>,
    due: HashMap<String, Scores>,
    members: BTreeMap<Vec<u8>, Vec<u8>>,
    lookups: Lookups,
}

/// A write to a record, and the values that it has replaced.
struct Write {
    replicated: Instant,
    key: String,
    old: Option<Vec<u8>>,
    due_key: String,
    id: String,
    old_due: Option<i64>,
}

impl Data {
    fn set_due(&mut self, key: &str, id: &str, at: Option<i64>) {
        let (times, ids) = self.due.entry(key.to_owned()).or_default();
        if let Some(former) = ids.remove(id) {
            times.remove(&(former, id.to_owned()));
        }
        if let Some(at) = at {
            times.insert((at, id.to_owned()));
            ids.insert(id.to_owned(), at);
        }
    }

    /// Returns the members of a sorted set with their scores.
    fn scores(&self, key: &str) -> BTreeMap<Vec<u8>, i64> {
        let due = self.due.get(key).into_iter().flat_map(|(_, ids)| ids);
        due.map(|(id, at)| (id.clone().into_bytes(), *at)).chain(self.lookups.set(key)).collect()
    }
}

impl StandIn {
    pub(super) fn new(seed: u64, faults: Faults) -> Arc<Self> {
        let state = State {
            random: Random(seed),
            data: Data::default(),
            cost: Cost::default(),
            unreplicated: Vec::new(),
            epoch: 0,
            replicated: Instant::from_std(instant()),
            away_until: None,
            lost_response_of: None,
        };
        Arc::new(Self { begin: Instant::from_std(instant()), faults, state: Mutex::new(state) })
    }

    pub(super) fn cost(&self) -> Cost {
        self.state.lock().cost.clone()
    }

    /// Loses the response to the next call of a script. The script is executed.
    pub(in crate::store::redis) fn lose_next_response(&self, script: &'static str) {
        self.state.lock().lost_response_of = Some(script);
    }

    /// Adds a message of the inbox. `key` is the Redis key with the due times of the message's partition.
    pub(super) fn add_message(&self, key: &str, id: &str, message: HeldMessage) {
        self.state.lock().data.lookups.add_message(key, id, message);
    }

    /// Replaces the primary by its replica.
    pub(super) fn fail_over(&self) {
        let now = Instant::from_std(instant());
        let mut state = self.state.lock();
        state.epoch += 1;
        state.away_until = Some(now + OUTAGE);
        let writes = std::mem::take(&mut state.unreplicated);
        for write in writes.into_iter().rev().filter(|write| write.replicated > now) {
            match write.old {
                Some(old) => state.data.records.insert(write.key, old),
                None => state.data.records.remove(&write.key),
            };
            state.data.set_due(&write.due_key, &write.id, write.old_due);
        }
    }

    /// Executes a call like a Redis node, with the simulated faults. Returns the values of the response.
    pub(in crate::store::redis) async fn call(
        self: &Arc<Self>,
        request: &Request,
    ) -> Result<Vec<Value>, Failure> {
        let name = request.call.name;
        let (there, back, fault, is_away) = {
            let mut state = self.state.lock();
            *state.cost.calls.entry(name).or_default() += 1;
            let sent: usize = request.keys.iter().map(String::len).sum();
            let sent = sent + request.arguments.iter().map(Vec::len).sum::<usize>();
            state.cost.bytes += sent as u64;
            let delays = (state.random.millis(0, 2), state.random.millis(0, 2));
            let is_away = state.away_until.is_some_and(|until| Instant::from_std(instant()) < until);
            (delays.0, delays.1, state.random.below(10_000), is_away)
        };
        if is_away {
            sleep(PATIENCE).await;
            return Err(Failure::not_executed("the connection is refused".to_owned()));
        }
        sleep(there).await;
        let Faults { lost_requests, lost_responses, late, waits, .. } = self.faults;
        let unknown = || Failure::unknown("the engine did not answer in time");
        if fault < lost_requests {
            sleep(PATIENCE).await;
            return Err(unknown());
        }
        if fault < lost_requests + late && request.call.writes && name != "beat" {
            let (engine, request) = (Arc::clone(self), request.copy());
            tokio::spawn(async move {
                sleep(PATIENCE * 2).await;
                engine.execute(&request);
            });
            sleep(PATIENCE).await;
            return Err(unknown());
        }
        let (values, replicated, epoch) = self.execute(request);
        let is_lost = self.state.lock().lost_response_of.take_if(|lost| *lost == name).is_some();
        if is_lost || fault < lost_requests + late + lost_responses {
            sleep(PATIENCE).await;
            return Err(unknown());
        }
        if waits && request.call.writes {
            sleep_until(replicated).await;
            if self.state.lock().epoch != epoch {
                return Err(unknown());
            }
        }
        sleep(back).await;
        Ok(values)
    }

    fn execute(&self, request: &Request) -> (Vec<Value>, Instant, u64) {
        let now = Instant::from_std(instant());
        let us = BEGIN_US + i64::try_from((now - self.begin).as_micros()).unwrap();
        let mut guard = self.state.lock();
        let state = &mut *guard;
        let replicated = state.replicated.max(now + state.random.millis(0, self.faults.lag_ms));
        if request.call.writes {
            state.replicated = replicated;
        }
        state.unreplicated.retain(|write| write.replicated > now);
        let mut values = vec![Value::Int(us)];
        let keys: Vec<_> = request.keys.iter().map(String::as_str).collect();
        let arguments = &request.arguments;
        match (request.call.name, keys.as_slice()) {
            ("load", [record, events]) => {
                let found = state.data.records.get(*record).cloned();
                state.cost.bytes += found.as_ref().map_or(0, |bytes| bytes.len() as u64);
                values.push(found.map_or(Value::Nil, Value::BulkString));
                let known = state.data.events.get(*events);
                let score =
                    |event| known.and_then(|known| known.get(event)).map_or(Value::Nil, |at| Value::Int(*at));
                values.push(Value::Array(match known {
                    Some(_) => arguments.iter().map(score).collect(),
                    None => Vec::new(),
                }));
            }
            ("cas", [record, due, events]) => {
                let done = compare_and_set(state, (record, due, events), arguments, us, replicated);
                values.push(Value::Int(done.into()));
            }
            ("read", records) => {
                let found = records.iter().map(|record| state.data.records.get(*record).cloned());
                values.push(Value::Array(
                    found.map(|bytes| bytes.map_or(Value::Nil, Value::BulkString)).collect(),
                ));
            }
            ("touch", _) => values.push(Value::Int(1)),
            ("due", [due]) => due_ids(&mut state.data, due, arguments, us / 1000, &mut values),
            ("beat", _) => beat(&mut state.data, arguments, us / 1000, &mut values),
            ("count", [due]) => {
                let count = state.data.due.get(*due).map_or(0, |(times, _)| times.len());
                values.push(Value::Int(i64::try_from(count).unwrap()));
            }
            ("scan", [key]) => page(&state.data.scores(key), arguments, &mut values),
            ("copy", [events]) if std::ptr::eq(request.call, &EVENTS) => {
                let events = state.data.events.get(*events).into_iter().flat_map(HashMap::keys);
                values.push(Value::Array(events.cloned().map(Value::BulkString).collect()));
            }
            _ => state.data.lookups.execute(request, us, &mut values),
        }
        (values, replicated, state.epoch)
    }
}

/// Executes the script `CAS`, which compares and sets a record. Returns whether the server has the new record.
fn compare_and_set(
    state: &mut State,
    (record, due, events): (&str, &str, &str),
    arguments: &[Vec<u8>],
    us: i64,
    replicated: Instant,
) -> bool {
    let [expected, new, at, id, _, surplus @ ..] = arguments else { panic!("too few arguments") };
    let old = state.data.records.get(record).cloned();
    let version = old.as_ref().map_or(&[][..], |old| &old[..8]);
    if !new.is_empty() && version == &new[..8] {
        return true;
    }
    if version != expected.as_slice() {
        return false;
    }
    let id = std::str::from_utf8(id).unwrap();
    let old_due = state.data.due.get(due).and_then(|(_, ids)| ids.get(id).copied());
    let (key, due_key) = (record.to_owned(), due.to_owned());
    state.unreplicated.push(Write { replicated, key, old, due_key, id: id.to_owned(), old_due });
    if new.is_empty() {
        state.data.records.remove(record);
        state.data.events.remove(events);
        state.data.set_due(due, id, None);
        return true;
    }
    state.data.records.insert(record.to_owned(), new.clone());
    let at = std::str::from_utf8(at).unwrap().parse().unwrap();
    state.data.set_due(due, id, Some(at));
    for event in surplus {
        state.data.events.entry(events.to_owned()).or_default().insert(event.clone(), us);
    }
    true
}

/// Executes the script `DUE`, which returns due interactions.
fn due_ids(data: &mut Data, due: &str, arguments: &[Vec<u8>], ms: i64, values: &mut Vec<Value>) {
    let number = |at: usize| std::str::from_utf8(&arguments[at]).unwrap().parse::<i64>().unwrap();
    let (most, hidden) = (number(0) as usize, number(1));
    let times = data.due.get(due).map(|(times, _)| times);
    let ids: Vec<_> = times.map_or_else(Vec::new, |times| {
        times.iter().take_while(|(at, _)| *at <= ms).take(most).map(|(_, id)| id.clone()).collect()
    });
    ids.iter().for_each(|id| data.set_due(due, id, Some(ms + hidden)));
    values.push(Value::Array(ids.into_iter().map(|id| Value::BulkString(id.into_bytes())).collect()));
    let first = data.due.get(due).and_then(|(times, _)| times.first());
    values.push(first.map_or(Value::Nil, |(at, _)| Value::BulkString(at.to_string().into_bytes())));
}

/// Executes the script `BEAT`, which writes a heartbeat.
fn beat(data: &mut Data, arguments: &[Vec<u8>], ms: i64, values: &mut Vec<Value>) {
    let [incarnation, about, ..] = arguments else { panic!("too few arguments") };
    if about.is_empty() {
        data.members.remove(incarnation);
    } else {
        let text = [format!("{ms} ").as_bytes(), about].concat();
        data.members.insert(incarnation.clone(), text);
    }
    let all = data.members.iter().flat_map(|(name, text)| [name.clone(), text.clone()]);
    let all = all.map(Value::BulkString).collect();
    values.extend([Value::BulkString(b"ledger".to_vec()), Value::Nil, Value::Array(all)]);
}
