//! The operations on the records of interactions. A search applies the same operation to the same record very often, so
//! each result is cached.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::scene::{DEADLINE, EXPIRES, Held, Kind, Scene, TICK, Then, at, key};
use crate::interaction::shared::{LeaseId, Settled, SharedRecord, Terms};
use crate::interaction::{
    Ask, ClaimError, Event, Follow, Interaction, NoticeId, NoticeResult, Overdue, Report, State,
};
use crate::path::{CanonicalPath, Captures, Template};
use crate::time::Timestamp;

/// The number of a serialized record. The simulated Redis server stores this number instead of the text. 0 means that
/// the server stores no record.
pub(super) type Text = u32;

/// The cached result of an operation on the record of an interaction.
#[derive(Clone, Copy)]
pub(super) struct Decided {
    pub(super) then: Then,
    /// The number of the record after the operation, or 0 if the operation removes the record.
    pub(super) held: Held,
    /// The time at which a process must check the record next, in Unix milliseconds. `None` if the operation did not
    /// change the record, so that the record is not written.
    pub(super) due: Option<i64>,
}

type Question = (Kind, LeaseId, Held, i64, bool);

/// All records of a search, and the results of all operations. Each result is computed only once.
pub(super) struct Records {
    route: Arc<str>,
    captures: Captures,
    follow: Follow,
    reports: [Report; 2],
    held: Vec<SharedRecord>,
    held_numbers: HashMap<String, Held>,
    texts: Vec<String>,
    text_numbers: HashMap<String, Text>,
    decided: HashMap<Question, Decided>,
    read: HashMap<(Text, i64), Held>,
    text_of: HashMap<Held, Text>,
}

impl Records {
    /// Creates the table of records, which contains only the record with which the search begins. Also returns the
    /// number of this serialized record, and the time of its next check in Unix milliseconds.
    pub(super) fn new(scene: Scene) -> (Self, (Text, i64)) {
        let follow = Follow { deadline: Some(Duration::from_secs(DEADLINE as u64)), ..Follow::default() };
        let interaction = Interaction::new("r".into(), "".into(), at(0), at(EXPIRES)).followed(&follow, true);
        let record = SharedRecord::new(interaction.limited(scene.uses), None);
        let end = scene.is_final.then_some(Event::Completed);
        let mut records = Self {
            route: "r".into(),
            captures: Template::parse("/w").unwrap().capture(&CanonicalPath::parse("/w").unwrap()),
            follow,
            reports: [Report::default(), Report { end, ..Report::default() }],
            held: vec![record.clone()],
            held_numbers: HashMap::new(),
            texts: vec![String::new()],
            text_numbers: HashMap::new(),
            decided: HashMap::new(),
            read: HashMap::new(),
            text_of: HashMap::new(),
        };
        let due = record.next_look(at(0)).unix_ms();
        let held = records.hold(record);
        let text = records.text(held);
        (records, (text, due))
    }

    /// Stores a record and returns its number. Two records get the same number only if they are equal in all fields,
    /// including the fields that are not serialized.
    fn hold(&mut self, record: SharedRecord) -> Held {
        let number = self.held.len() as Held;
        *self.held_numbers.entry(format!("{record:?}")).or_insert_with(|| {
            self.held.push(record);
            number
        })
    }

    /// Serializes the record with this number. Returns the number of the serialized record.
    pub(super) fn text(&mut self, held: Held) -> Text {
        if let Some(text) = self.text_of.get(&held) {
            return *text;
        }
        let json = serde_json::to_string(&self.held[held as usize]).unwrap();
        let number = self.texts.len() as Text;
        let number = *self.text_numbers.entry(json.clone()).or_insert_with(|| {
            self.texts.push(json);
            number
        });
        self.text_of.insert(held, number);
        number
    }

    /// Parses the serialized record with this number.
    pub(super) fn stored(&self, text: Text) -> SharedRecord {
        serde_json::from_str(&self.texts[text as usize]).unwrap()
    }

    /// Reads a serialized record at this tick, and ends the work whose lease has ended. Returns the number of the
    /// resulting record.
    pub(super) fn read(&mut self, text: Text, tick: i64) -> Held {
        if let Some(held) = self.read.get(&(text, tick)) {
            return *held;
        }
        let mut record = self.stored(text);
        record.resume(at(tick * TICK));
        let held = self.hold(record);
        self.read.insert((text, tick), held);
        held
    }

    pub(super) fn state(&self, held: Held) -> State {
        self.held[held as usize].interaction.state
    }

    /// Applies one operation to the record with the number `held`. Returns the cached result if the same operation was
    /// applied to this record before.
    pub(super) fn decide(
        &mut self,
        kind: Kind,
        lease: LeaseId,
        held: Held,
        tick: i64,
        is_repeat: bool,
    ) -> Decided {
        let question = (kind, lease, held, tick, is_repeat);
        if let Some(decided) = self.decided.get(&question) {
            return *decided;
        }
        let mut record = self.held[held as usize].clone();
        let now = at(tick * TICK);
        let terms = Terms { id: lease, until: now.plus(Duration::from_secs(TICK as u64)) };
        let (then, writes) = self.apply(kind, &mut record, terms, now, is_repeat);
        let removes = matches!(kind, Kind::Pass) && record.interaction.pass(now).dead;
        let due = writes.then(|| record.next_look(now).unix_ms());
        let held = if removes { 0 } else { self.hold(record) };
        let decided = Decided { then, held, due };
        self.decided.insert(question, decided);
        decided
    }

    /// Applies one operation to the record of the interaction. Returns the next step of the process, and whether the
    /// record must be written.
    fn apply(
        &self,
        kind: Kind,
        record: &mut SharedRecord,
        terms: Terms,
        now: Timestamp,
        is_repeat: bool,
    ) -> (Then, bool) {
        let until = terms.until.unix_ms() / 1000 / TICK - at(0).unix_ms() / 1000 / TICK;
        match kind {
            Kind::Claim(event) => {
                let ask = Ask::new(&self.route, &self.captures, &self.follow, &self.reports[event]);
                match record.claim(&Ask { events: &[key(event)], ..ask }, terms, now, |_| false) {
                    Ok(Some(_)) => (Then::Deliver(event, until), true),
                    Ok(None) => (Then::Poll(event), false),
                    Err(ClaimError::Duplicate) => (Then::Duplicate(event), false),
                    Err(_) => (Then::Failed, false),
                }
            }
            Kind::Settle(event) => match record.settle(terms.id, &self.reports[event], None, now) {
                Settled::Recorded { .. } => (Then::Settled(event), true),
                Settled::Lost if is_repeat && record.has_delivered_all(&[key(event)], &[]) => {
                    (Then::Settled(event), false)
                }
                Settled::Lost => (Then::Failed, false),
            },
            Kind::Fail => (Then::Failed, record.fail(terms.id, now)),
            Kind::Pass => {
                let notice = record.pass(terms, now).notice;
                (notice.map_or(Then::Failed, |notice| Then::Send(notice.since, until)), true)
            }
            Kind::Noticed(since, _) => {
                record.noticed(NoticeId { cause: Overdue::Expired, since }, NoticeResult::Accepted, now);
                (Then::Noticed, true)
            }
            Kind::Revoke => {
                record.interaction.end_by(Event::Revoked, now);
                (Then::Revoked, true)
            }
        }
    }
}
