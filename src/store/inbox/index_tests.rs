//! Tests of the index of the messages, without their heads and bodies.

use std::sync::Arc;
use std::time::Duration;

use super::entry::Entry;
use super::index::Index;
use super::tests::{NOW, open, routes};
use crate::inbox::{MessageState, Tries};
use crate::store::Leased;

/// In an ordered route, a message is available exactly if it is the first waiting message of its interaction, and no
/// other message of the interaction is being delivered.
#[test]
fn only_one_message_of_an_interaction_is_available() {
    let mut index = Index::default();
    index.configure(&[("r".into(), true)], false);
    let (mut random, due, leased) = (1_u64, MessageState::Due, MessageState::Leased);
    for _ in 0..20_000 {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let (number, at, step) = (1 + (random >> 33) % 40, NOW.unix_ms() + (random % 7) as i64, random >> 60);
        match step {
            // A message arrives, perhaps late, or is replayed.
            0..=5 if !index.waiting.contains_key(&number) => {
                let old = index.take_out(number);
                let new = Entry { lane: number % 4, ..entry() };
                index.add(number, Entry { state: due, at, ..old.unwrap_or(new) });
            }
            6..=9 => {
                let first = index.routes[0].due.first().copied();
                first.and_then(|(_, number)| index.change(number, |entry| entry.state = leased));
            }
            10..=12 => drop(index.change(number, |entry| (entry.state, entry.at) = (due, at))),
            13 | 14 => {
                let dead = (MessageState::Dead, Some(crate::inbox::Cause::Gone));
                index.settle(number, dead, Duration::ZERO, NOW);
            }
            15 => drop(index.remove(number)),
            _ => {}
        }
        let others = |lane| index.waiting.iter().filter(move |(_, other)| other.lane == lane);
        let is_next = |number: u64, lane| {
            let is_first = others(lane).next().is_some_and(|(first, _)| *first == number);
            lane == 0 || (is_first && others(lane).all(|(_, other)| other.state == due))
        };
        let mut available: Vec<_> = index.waiting.iter().map(|(number, entry)| (*number, *entry)).collect();
        available.retain(|(number, entry)| entry.state == due && is_next(*number, entry.lane));
        let mut available: Vec<_> = available.iter().map(|(number, entry)| (entry.at, *number)).collect();
        available.sort_unstable();
        assert_eq!(index.routes[0].due.iter().copied().collect::<Vec<_>>(), available);
    }
    assert!(index.waiting.len() > 5, "messages are left");
}

#[tokio::test]
async fn very_many_messages_are_changed_in_parts() {
    const MANY: usize = 5_000;
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder.path().join("ledger"));
    let (inbox, all) = (store.inbox(), crate::store::MessageFilter::default());
    for number in 1..=MANY as u64 {
        let dead = Entry { lane: number % 3, state: MessageState::Dead, ..entry() };
        inbox.index.lock().add(number, dead);
    }
    let waiting = || inbox.counts()[0].1.waiting;
    assert_eq!(inbox.replay_many(&all, None, None, NOW).await.unwrap(), MANY);
    assert_eq!((waiting(), inbox.route_removed("r", NOW), waiting()), (MANY, MANY, 0));
    assert_eq!(inbox.replay_many(&all, None, None, NOW).await.unwrap(), MANY);
    // All leases end at the same time.
    inbox.configure(Arc::default(), &[("r".into(), false)]);
    let leased = inbox.lease(None, &routes(), (MANY, u64::MAX), NOW);
    assert_eq!(leased.len(), MANY);
    leased.into_iter().for_each(Leased::received);
    let due = || inbox.list(&all, MANY).iter().filter(|view| view.state == MessageState::Due).count();
    let mut now = NOW.plus(inbox.settings().lease);
    for expected in [2_000, 4_000, MANY] {
        inbox.pass(now);
        assert_eq!(due(), expected);
    }
    // Each attempt causes a pass, but a pass searches the messages only if the last search was at least 250 ms ago.
    now = NOW.plus(inbox.settings().tried_for);
    for given_up in [2_000, 2_000, 1_000, 0] {
        assert_eq!(inbox.pass(now).given_up.len(), given_up);
        assert_eq!(inbox.pass(now.plus(Duration::from_millis(249))).given_up, Vec::<u64>::new());
        now = now.plus(Duration::from_millis(250));
    }
}

fn entry() -> Entry {
    Entry {
        lane: 0,
        at: NOW.unix_ms(),
        since: NOW.unix_ms(),
        bytes: 0,
        route: 0,
        tries: Tries::default(),
        state: MessageState::Due,
        cause: None,
        is_progress: false,
        is_replayed: false,
        is_pulled: false,
    }
}
