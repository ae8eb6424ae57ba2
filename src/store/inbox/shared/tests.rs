//! Tests of the messages in a shared ledger, with a simulated Redis server.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use super::partitions::PARTITIONS;
use super::queue::SharedMessages;
use crate::clock::instant;
use crate::inbox::{MessageState, Tries};
use crate::ingress::Kept;
use crate::store::event_memory::FingerprintKey;
use crate::store::file::Change;
use crate::store::inbox::entry::{Entry, NO_LANE};
use crate::store::inbox::{Backing, Inbox};
use crate::store::redis::{KnownMessages, RedisStore, SimulatedLedger, TakenOver};
use crate::time::Timestamp;

const NOW: Timestamp = SimulatedLedger::BEGIN;
/// The number of a partition of the messages.
const PLACE: u64 = 7;

/// Creates the inbox of the first of two processes that share a ledger on these nodes. No task writes the changes of
/// its messages.
pub(super) async fn inbox(nodes: &[&str]) -> (SimulatedLedger, Inbox) {
    let (ledger, inbox, _) = inbox_and_other(nodes).await;
    (ledger, inbox)
}

/// Creates the inbox of the first of two processes, as [`inbox`] does. Also returns the store of the other process.
pub(super) async fn inbox_and_other(nodes: &[&str]) -> (SimulatedLedger, Inbox, Arc<RedisStore>) {
    let nodes = nodes.iter().map(|node| (*node).into()).collect();
    let start = SimulatedLedger::start(|settings| settings.redis.as_mut().unwrap().nodes = nodes);
    let (ledger, [store, other]) = start.await;
    let messages = SharedMessages::new(store, ledger.settings.grace);
    let (key, metrics) = (FingerprintKey::random(), Arc::clone(&ledger.metrics));
    let inbox = Inbox::new(key, Backing::Shared(messages), metrics);
    (ledger, inbox, other)
}

fn shared(inbox: &Inbox) -> &SharedMessages {
    inbox.backing.shared().unwrap()
}

pub(super) fn entry(state: MessageState) -> Entry {
    Entry {
        lane: NO_LANE,
        at: NOW.unix_ms(),
        since: NOW.unix_ms(),
        bytes: 0,
        route: 0,
        tries: Tries::default(),
        state,
        cause: None,
        is_progress: false,
        is_replayed: false,
        is_pulled: false,
    }
}

/// Returns the head of a message that belongs to no interaction.
pub(super) fn head() -> Vec<u8> {
    let head = json!({
        "route": "r", "client": "127.0.0.1", "is_tls": false, "method": "POST", "target": "/in", "headers": [],
        "received": NOW.unix_ms(), "body_bytes": 0, "is_progress": false,
    });
    Kept::from_bytes(&serde_json::to_vec(&head).unwrap()).unwrap().to_bytes()
}

/// Records a change of the message with this number, which is then not durable yet.
fn change(inbox: &Inbox, number: u64) {
    assert!(inbox.record([Change::MessageGone(number)]) > 0);
}

/// Records that the queued changes are durable.
fn write_all(inbox: &Inbox) {
    for (partition, batch) in shared(inbox).take() {
        shared(inbox).written(partition, &batch);
    }
}

#[tokio::test(start_paused = true)]
async fn a_message_is_changing_until_its_change_is_durable() {
    let (_, inbox) = inbox(&["a:1"]).await;
    let [one, same, other] = [PLACE, PLACE + PARTITIONS, PLACE + 1];
    let changing = || [one, same, other].map(|number| inbox.is_changing(number));
    assert_eq!(changing(), [false, false, false]);
    change(&inbox, one);
    assert_eq!(changing(), [true, false, false], "queued");
    let batches = shared(&inbox).take();
    assert_eq!(changing(), [true, false, false], "being written");
    change(&inbox, same);
    assert_eq!(changing(), [true, true, false], "the next batch waits");
    assert_eq!(shared(&inbox).take().len(), 0, "a partition has one call at a time");
    shared(&inbox).refused(PLACE, false);
    assert_eq!(changing(), [true, true, false], "refused changes are written later");
    for (partition, batch) in &batches {
        shared(&inbox).written(*partition, batch);
    }
    assert_eq!(changing(), [false, true, false]);
    write_all(&inbox);
    assert_eq!(changing(), [false, false, false]);
}

#[tokio::test(start_paused = true)]
async fn no_attempt_begins_where_the_results_of_others_may_be_lost() {
    let (_, inbox) = inbox(&["a:1", "b:1"]).await;
    let messages = shared(&inbox);
    let node = |number| messages.store.node_of_partition(number % PARTITIONS);
    let with_node = |is_same| (1..PARTITIONS).find(|other| (node(*other) == node(0)) == is_same).unwrap();
    let numbers = [0, PARTITIONS, with_node(true), with_node(false)];
    let is_refused = || numbers.map(|number| messages.is_refused(number));
    assert_eq!(is_refused(), [false; 4]);
    change(&inbox, 0);
    let batches = messages.take();
    messages.refused(0, false);
    assert_eq!(is_refused(), [true, true, false, false], "only this partition");
    messages.refused(0, true);
    assert_eq!(is_refused(), [true, true, true, false], "the whole node");
    messages.refused(0, false);
    assert_eq!(is_refused(), [true, true, true, false], "an earlier call may have made the changes");
    messages.written(0, &batches[0].1);
    assert_eq!(is_refused(), [false; 4]);
}

#[tokio::test(start_paused = true)]
async fn the_end_of_an_attempt_waits_for_its_result_unless_its_partition_refuses_it() {
    let number = PLACE + PARTITIONS;
    for (name, refused, is_written, expected) in [
        ("written", None, true, (true, 0)),
        ("refused", Some(PLACE), false, (true, 1)),
        ("refused, and written then", Some(PLACE), true, (true, 0)),
        ("refused elsewhere", Some(1), false, (false, 10)),
        ("not answered", None, false, (false, 10)),
    ] {
        let (_, inbox) = inbox(&["a:1"]).await;
        let messages = shared(&inbox);
        let sequence = inbox.record([Change::MessageGone(number)]);
        let batches = messages.take();
        refused.into_iter().for_each(|partition| messages.refused(partition, false));
        if is_written {
            batches.iter().for_each(|(partition, batch)| messages.written(*partition, batch));
        }
        let began = instant();
        let has_ended = messages.ended(sequence, number).await;
        assert_eq!((has_ended, (instant() - began).as_secs()), expected, "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_messages_of_the_index_are_known_by_partition() {
    let (_, inbox) = inbox(&["a:1"]).await;
    let numbers =
        [PLACE, PLACE + PARTITIONS, PLACE + 2 * PARTITIONS, PLACE + 3 * PARTITIONS, 2, PARTITIONS - 1];
    let (due, leased, dead) = (MessageState::Due, MessageState::Leased, MessageState::Dead);
    for (number, state) in numbers.into_iter().zip([due, leased, dead, due, due, dead]) {
        inbox.index.lock().add(number, entry(state));
    }
    let mut expected = vec![0; PARTITIONS as usize];
    (expected[7], expected[2], expected[63]) = (4, 1, 1);
    assert_eq!(KnownMessages::counts(&inbox), expected);
    change(&inbox, PLACE);
    let idle = |partition: u8| KnownMessages::idle(&inbox, partition);
    assert_eq!(idle(7), [numbers[3], numbers[2]], "not the leased one, and not the changing one");
    assert_eq!((idle(2), idle(63), idle(0)), (vec![2], vec![PARTITIONS - 1], vec![]));
    write_all(&inbox);
    assert_eq!(idle(7), [numbers[0], numbers[3], numbers[2]]);
}

#[tokio::test(start_paused = true)]
async fn a_process_adds_the_messages_that_it_holds_and_that_its_index_lacks() {
    let (ledger, inbox) = inbox(&["a:1"]).await;
    let (store, minute) = (&shared(&inbox).store, Duration::from_secs(60));
    assert!(inbox.hold(store, &TakenOver { partition: PLACE, ids: Vec::new() }).await, "it learns the key");
    inbox.pass(NOW);
    let head = head();
    let numbers: Vec<u64> = (0..6).map(|count| PLACE + count * PARTITIONS).collect();
    let [new, leased, known, changing, foreign, elsewhere] = numbers[..] else { panic!("six numbers") };
    let foreign_id = format!("msg_{foreign}_00000000000000ff");
    let id = |number| if number == foreign { foreign_id.clone() } else { inbox.id(number) };
    let ids: Vec<_> = numbers.iter().map(|number| id(*number)).collect();
    for number in numbers {
        let lease = if number == leased { minute } else { Duration::ZERO };
        let holder = (number != elsewhere).then_some(&**store);
        ledger.add_message((number, &id(number)), holder, &head, lease);
    }
    inbox.index.lock().add(known, Entry { bytes: 1, ..entry(MessageState::Due) });
    change(&inbox, changing);
    assert!(inbox.hold(store, &TakenOver { partition: PLACE, ids: ids.clone() }).await);
    let waiting = || inbox.index.lock().waiting.keys().copied().collect::<Vec<_>>();
    assert_eq!(waiting(), [new, leased, known, foreign]);
    let at = |number| inbox.view(number).unwrap().at;
    assert_eq!(at(new), NOW);
    let until = NOW.plus(minute);
    // The call has lasted a few milliseconds, by which the lease is shorter.
    assert!(at(leased) <= until && at(leased) > until.minus(Duration::from_secs(1)), "{}", at(leased));
    assert_eq!(inbox.view(known).map(|view| view.bytes), Some(1), "it was not read again");
    assert_eq!(inbox.number_of(&foreign_id), Some(foreign));
    // The change of the message `changing` is durable now. Therefore this message is added to the index, which lacks
    // it.
    write_all(&inbox);
    assert!(inbox.hold(store, &TakenOver { partition: PLACE, ids }).await);
    assert_eq!(waiting(), [new, leased, known, changing, foreign]);
}
