//! Tests the search for messages that no process delivers, and for messages that the agent has not received.

use std::time::Duration;

use serde_json::json;
use tokio::time::{advance, sleep};

use super::adopt::{KnownMessages, Orphans, Suspects, TakenOver};
use crate::interaction::{Interaction, State};
use crate::store::redis::nodes::keys::{PARTITIONS, Partition};
use crate::store::redis::simulation::SimulatedLedger;
use crate::store::redis::store::RedisStore;

const PLACE: u8 = 7;

/// An index with the messages of one partition.
struct Index<'n>(&'n [u64]);

impl KnownMessages for Index<'_> {
    fn counts(&self) -> Vec<usize> {
        let mut counts = vec![0; PARTITIONS];
        counts[usize::from(PLACE)] = self.0.len();
        counts
    }

    fn idle(&self, partition: u8) -> Vec<u64> {
        assert_eq!(partition, PLACE, "only this partition differs");
        self.0.to_vec()
    }
}

/// Adds a message to the partition of the tests.
fn add(ledger: &SimulatedLedger, id: &str, holder: Option<&RedisStore>) {
    ledger.add_message((PLACE.into(), id), holder, &[], Duration::ZERO);
}

/// Lets some time pass, lets the processes send heartbeats, and searches for messages at the last process.
async fn search(stores: &[&RedisStore], seconds: u64, suspects: &mut Suspects, index: &Index<'_>) -> Orphans {
    advance(Duration::from_secs(seconds)).await;
    for store in stores {
        assert!(store.beat().await);
    }
    stores[stores.len() - 1].take_over_orphans(suspects, index).await
}

fn ids(found: &[TakenOver]) -> Vec<&str> {
    assert!(found.iter().all(|taken| taken.partition == u64::from(PLACE)), "{found:?}");
    found.iter().flat_map(|taken| &taken.ids).map(String::as_str).collect()
}

#[tokio::test(start_paused = true)]
async fn the_messages_of_a_process_that_stays_away_are_taken_over_once() {
    let (ledger, [store]) = SimulatedLedger::start(|_| {}).await;
    add(&ledger, "msg_own", Some(&store));
    add(&ledger, "msg_a", None);
    add(&ledger, "msg_b", None);
    let (mut suspects, index) = (Suspects::default(), Index(&[7]));
    for seconds in [0, 1] {
        let orphans = search(&[&store], seconds, &mut suspects, &index).await;
        assert_eq!(ids(&orphans.found), Vec::<&str>::new(), "the process may still send a heartbeat");
    }
    let orphans = search(&[&store], 1, &mut suspects, &index).await;
    assert_eq!(ids(&orphans.found), ["msg_a", "msg_b"]);
    let index = Index(&[7, 71, 135]);
    for seconds in [1, 10, 10] {
        let orphans = search(&[&store], seconds, &mut suspects, &index).await;
        assert!(orphans.found.is_empty() && orphans.held.is_empty(), "{orphans:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_process_that_was_suspected_and_lives_keeps_its_messages() {
    let (ledger, [store, other]) = SimulatedLedger::start(|_| {}).await;
    add(&ledger, "msg_a", Some(&other));
    let (mut suspects, index) = (Suspects::default(), Index(&[]));
    // The other process sends no heartbeat for 15 s, and sends one before its messages are taken over.
    for silent in [5, 5, 5, 1] {
        let orphans = search(&[&store], silent, &mut suspects, &index).await;
        assert_eq!(ids(&orphans.found), Vec::<&str>::new());
    }
    for seconds in [1, 5, 5, 5] {
        let orphans = search(&[&other, &store], seconds, &mut suspects, &index).await;
        assert_eq!(ids(&orphans.found), Vec::<&str>::new());
    }
    // When the other process is silent again, it gets the same time again before its messages are taken over.
    for (silent, expected) in [(5, &[][..]), (5, &[]), (5, &[]), (1, &[]), (1, &["msg_a"])] {
        let orphans = search(&[&store], silent, &mut suspects, &index).await;
        assert_eq!(ids(&orphans.found), expected);
    }
}

#[tokio::test(start_paused = true)]
async fn an_index_that_differs_twice_is_compared_with_the_ledger() {
    let (ledger, [store]) = SimulatedLedger::start(|_| {}).await;
    add(&ledger, "msg_own", Some(&store));
    for (known, differs) in [(&[][..], true), (&[7], false), (&[7, 71], true)] {
        let (mut suspects, index) = (Suspects::default(), Index(known));
        let first = search(&[&store], 0, &mut suspects, &index).await;
        let early = search(&[&store], 9, &mut suspects, &index).await;
        assert!(first.held.is_empty() && early.held.is_empty(), "a message may be in progress");
        let orphans = search(&[&store], 1, &mut suspects, &index).await;
        let expected = differs.then(|| (known.to_vec(), vec!["msg_own".to_owned()]));
        assert_eq!(orphans.held, Vec::from_iter(expected));
        assert_eq!(ids(&orphans.found), if differs { vec!["msg_own"] } else { Vec::new() });
    }
}

/// The responses of the Redis server are lost one after the other. The process then looks again.
#[tokio::test(start_paused = true)]
async fn an_interaction_without_messages_has_no_undelivered_callbacks_any_more() {
    for lost in [None, Some("load"), Some("messages_undelivered"), Some("cas")] {
        let (ledger, [store, other]) = SimulatedLedger::start(|_| {}).await;
        let begin = SimulatedLedger::BEGIN;
        for id in ["int_a", "int_b"] {
            let mut record =
                Interaction::new("r".into(), "".into(), begin, begin.plus(Duration::from_secs(3600)));
            record.state = State::Done;
            store.open(id, record).await.unwrap();
            store.undelivered(id).await.unwrap();
        }
        let Partition::Number(place) = Partition::of("int_b") else { panic!("not a partition of messages") };
        let head = json!({
            "route": "r", "interaction": "int_b", "client": "127.0.0.1", "is_tls": false, "method": "POST",
            "target": "/in", "headers": [], "received": begin.unix_ms(), "body_bytes": 0, "is_progress": false,
        });
        let head = serde_json::to_vec(&head).unwrap();
        ledger.add_message((place.into(), "msg_b"), Some(&other), &head, Duration::ZERO);
        if let Some(script) = lost {
            ledger.engine.lose_next_response(script);
        }
        for (id, waits) in [("int_a", false), ("int_b", true)] {
            store.message_received(id);
            sleep(Duration::from_secs(30)).await;
            let record = other.read(id).await.unwrap().unwrap().interaction;
            assert_eq!(record.undelivered().is_some(), waits, "{id}, {lost:?}");
            assert_eq!(record.lacks_final_callback(), waits, "{id}, {lost:?}");
        }
    }
}
