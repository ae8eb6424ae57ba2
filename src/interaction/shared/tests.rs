//! Tests of records that several processes share.

use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::interaction::{Event, Follow, State};
use crate::path::{CanonicalPath, Captures, Template};

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_unix_secs(seconds)
}

fn terms(id: LeaseId, until: i64) -> Terms {
    Terms { id, until: at(until) }
}

fn record(uses: Option<u32>) -> SharedRecord {
    let follow = Follow { deadline: Some(Duration::from_secs(100)), ..Follow::default() };
    let interaction = Interaction::new("r".into(), "".into(), at(1), at(1000)).followed(&follow, true);
    SharedRecord::new(interaction.limited(uses), None)
}

/// Returns the record as another process reads it from the store.
fn read(record: &SharedRecord, now: i64) -> SharedRecord {
    let mut read: SharedRecord = serde_json::from_slice(&serde_json::to_vec(record).unwrap()).unwrap();
    read.resume(at(now));
    read
}

struct Fixture {
    route: Arc<str>,
    captures: Captures,
    follow: Follow,
    report: Report,
    events: [EventKey; 1],
}

impl Fixture {
    fn new(event: u128) -> Self {
        Self {
            route: "r".into(),
            captures: Template::parse("/w").unwrap().capture(&CanonicalPath::parse("/w").unwrap()),
            follow: Follow::default(),
            report: Report::default(),
            events: [EventKey(event)],
        }
    }

    fn ask(&self) -> Ask<'_> {
        let ask = Ask::new(&self.route, &self.captures, &self.follow, &self.report);
        Ask { events: &self.events, ..ask }
    }
}

#[test]
fn a_claim_of_one_process_holds_for_all_until_its_lease_ends() {
    let (one, other) = (Fixture::new(1), Fixture::new(2));
    let mut first = record(Some(1));
    first.claim(&one.ask(), terms(7, 20), at(10), |_| false).unwrap().unwrap();
    // A second callback with the same event must wait. A callback with another event must wait, too, because no use is
    // left.
    let mut second = read(&first, 11);
    assert!(second.claim(&one.ask(), terms(8, 30), at(11), |_| false).unwrap().is_none());
    assert!(second.claim(&other.ask(), terms(9, 30), at(11), |_| false).unwrap().is_none());
    // A repeated call returns the same claim, because the response to the first call may have been lost.
    assert!(second.claim(&one.ask(), terms(7, 30), at(11), |_| false).unwrap().is_some());
    // After the end of the lease, another process delivers the callback, and the first process cannot settle it any
    // more.
    let mut second = read(&first, 20);
    second.claim(&one.ask(), terms(8, 40), at(20), |_| false).unwrap().unwrap();
    let mut first = read(&second, 21);
    assert_eq!(first.settle(7, &one.report, None, at(21)), Settled::Lost);
    let ended = Settled::Recorded { ended: true, surplus: Vec::new() };
    assert_eq!(second.settle(8, &one.report, None, at(22)), ended, "it was the last use");
    let mut third = read(&second, 23);
    assert_eq!(third.claim(&one.ask(), terms(1, 50), at(23), |_| false).unwrap_err(), ClaimError::Duplicate);
}

#[test]
fn a_released_claim_leaves_no_trace_and_a_failed_one_is_counted() {
    let one = Fixture::new(1);
    let mut first = record(Some(1));
    let before = serde_json::to_value(&first).unwrap()["i"]["uses_left"].clone();
    first.claim(&one.ask(), terms(7, 20), at(10), |_| false).unwrap().unwrap();
    let mut second = read(&first, 11);
    assert!(second.release(7) && !second.release(7) && !second.fail(7, at(12)));
    assert_eq!(serde_json::to_value(&second).unwrap()["i"]["uses_left"], before);
    second.claim(&one.ask(), terms(8, 20), at(12), |_| false).unwrap().unwrap();
    let mut third = read(&second, 13);
    assert!(third.fail(8, at(13)));
    assert_eq!(third.interaction.undelivered().unwrap().count, 1);
    third.claim(&one.ask(), terms(9, 20), at(14), |_| false).unwrap().unwrap();
}

#[test]
fn old_events_leave_the_record_and_the_store_keeps_them() {
    let mut record = record(None);
    for event in 1..=10 {
        let one = Fixture::new(event);
        record = read(&record, 10);
        record.claim(&one.ask(), terms(7, 20), at(10), |_| false).unwrap().unwrap();
        let surplus = if event > 8 { vec![EventKey(event - 8)] } else { Vec::new() };
        let settled = record.settle(7, &one.report, None, at(10));
        assert_eq!(settled, Settled::Recorded { ended: false, surplus });
    }
    assert_eq!(record.events().len(), 8);
    let first = Fixture::new(1);
    let again = record.claim(&first.ask(), terms(7, 20), at(10), |event| event == EventKey(1));
    assert_eq!(again.unwrap_err(), ClaimError::Duplicate);
}

#[test]
fn an_answer_has_a_lease_and_is_recorded_also_after_it() {
    let mut one = Fixture::new(1);
    one.report.question = Some("https://a.example/answer".into());
    let mut first = record(None);
    let claim = first.claim(&one.ask(), terms(7, 20), at(10), |_| false).unwrap().unwrap();
    assert_eq!(claim.question, Some(1));
    let mut second = read(&first, 11);
    assert_eq!(second.take_question(None, terms(8, 15), at(11)).unwrap().0, 1);
    assert_eq!(read(&second, 12).take_question(None, terms(9, 30), at(12)), Err(QuestionFault::Answered));
    assert_eq!(second.take_question(None, terms(8, 15), at(11)).unwrap().0, 1, "the same work again");
    // The callback is not delivered, and the answer fails afterwards. The question is then removed.
    let mut third = read(&second, 13);
    assert!(third.release(7));
    let mut third = read(&third, 14);
    assert!(third.release(8));
    assert!(third.interaction.questions().is_empty());
    // The callback is delivered. The provider accepts the answer after the end of the answer's lease.
    let mut second = read(&second, 13);
    second.settle(7, &one.report, None, at(13));
    let mut second = read(&second, 16);
    assert_eq!(second.interaction.state, State::Asking);
    second.answered(8, 1);
    assert_eq!(second.interaction.state, State::Progressing);
}

#[test]
fn a_notice_is_sent_by_one_process_and_again_after_its_lease() {
    let mut first = record(None);
    assert_eq!((first.next_look(at(1)), first.pass(terms(1, 5), at(100)).notice), (at(101), None));
    let notice = first.pass(terms(7, 200), at(101)).notice.unwrap();
    assert!(first.has_lease(7) && first.next_look(at(101)) == at(200));
    let mut second = read(&first, 102);
    assert_eq!(second.pass(terms(8, 300), at(102)).notice, None);
    let mut second = read(&first, 200);
    assert_eq!(second.pass(terms(8, 300), at(200)).notice, Some(notice));
    // A call with the same lease id is a repetition, because the response to the first call may have been lost.
    assert_eq!(second.pass(terms(8, 300), at(200)).notice, Some(notice));
    assert_eq!(second.pass(terms(9, 300), at(200)).notice, None);
    second.noticed(notice, NoticeResult::Accepted, at(201));
    let mut third = read(&second, 202);
    assert_eq!((third.pass(terms(9, 300), at(202)).notice, third.next_look(at(202))), (None, at(1000)));
    assert!(third.pass(terms(9, 300), at(1000)).dead);
}

#[test]
fn an_interaction_does_not_expire_while_another_process_delivers() {
    let one = Fixture::new(1);
    let mut first = record(None);
    first.claim(&one.ask(), terms(7, 150), at(99), |_| false).unwrap().unwrap();
    let mut second = read(&first, 120);
    assert!(!second.pass(terms(8, 200), at(120)).lapsed);
    let mut third = read(&second, 150);
    assert!(third.pass(terms(9, 200), at(150)).lapsed);
    third.interaction.go(Event::Revoked);
    assert_eq!(read(&third, 151).interaction.state, State::Revoked);
}
