//! Tests of the index of the messages, without their heads and bodies.

use std::sync::Arc;
use std::time::Duration;

use super::entry::Entry;
use super::index::{Counts, Index};
use super::tests::{NOW, open, routes};
use crate::inbox::{InboxSettings, MessageState, Tries};
use crate::store::{Leased, MessageFilter};

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
                let settled = if step == 13 { dead } else { (MessageState::Delivered, None) };
                index.settle(number, settled, Duration::ZERO, NOW);
            }
            15 => drop(index.remove(number)),
            _ => {}
        }
        assert_eq!(index.routes[0].counts, counted(&index));
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

/// Counts the messages of the index in each state.
fn counted(index: &Index) -> Counts {
    let all = || index.waiting.values().chain(index.settled.values());
    let with = |state| all().filter(|entry| entry.state == state).count();
    let leased = with(MessageState::Leased);
    let (dead, delivered) = (with(MessageState::Dead), with(MessageState::Delivered));
    Counts { waiting: with(MessageState::Due) + leased, leased, dead, delivered }
}

#[tokio::test]
async fn a_list_contains_exactly_the_messages_that_its_filter_selects() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder.path().join("ledger"));
    let inbox = store.inbox();
    let (due, dead) = (MessageState::Due, MessageState::Dead);
    for (number, route, state, interaction) in [
        (1, "r", due, Some("a")),
        (2, "r", dead, Some("a")),
        (3, "other", due, Some("b")),
        (4, "r", due, None),
        (5, "other", dead, Some("a")),
        (6, "r", due, Some("b")),
    ] {
        let lane = inbox.lane(interaction);
        let mut index = inbox.index.lock();
        let route = index.route(&route.into());
        index.add(number, Entry { route, state, lane, ..entry() });
    }
    let all = MessageFilter::default;
    let (of_a, of_c) = (Some("a".into()), Some("c".into()));
    for (name, filter, expected) in [
        ("all", all(), &[1, 2, 3, 4, 5, 6][..]),
        ("route", MessageFilter { route: Some("other".into()), ..all() }, &[3, 5]),
        ("state", MessageFilter { state: Some(dead), ..all() }, &[2, 5]),
        ("interaction", MessageFilter { interaction: of_a.clone(), ..all() }, &[1, 2, 5]),
        ("unknown interaction", MessageFilter { interaction: of_c, ..all() }, &[]),
        ("after", MessageFilter { after: 4, ..all() }, &[5, 6]),
        (
            "several conditions",
            MessageFilter { route: Some("r".into()), state: Some(due), interaction: of_a, after: 0 },
            &[1],
        ),
    ] {
        for limit in 0..=6 {
            let found: Vec<_> = inbox.list(&filter, limit).iter().map(|view| view.number).collect();
            assert_eq!(found, &expected[..limit.min(expected.len())], "{name}, at most {limit}");
        }
    }
}

#[tokio::test]
async fn a_route_is_waiting_while_a_message_of_it_is_due_or_leased() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder.path().join("ledger"));
    let inbox = store.inbox();
    let (due, leased) = (MessageState::Due, MessageState::Leased);
    let (dead, delivered) = (MessageState::Dead, MessageState::Delivered);
    let messages = [
        ("due", due),
        ("leased", leased),
        ("dead", dead),
        ("delivered", delivered),
        ("both", due),
        ("both", leased),
        ("both", dead),
    ];
    for (number, (route, state)) in (1..).zip(messages) {
        let mut index = inbox.index.lock();
        let route = index.route(&route.into());
        index.add(number, Entry { route, state, ..entry() });
    }
    let waiting = || inbox.waiting_routes().iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(waiting(), ["due", "leased", "both"]);
    for (number, expected) in [(5, &["due", "leased", "both"][..]), (6, &["due", "leased"]), (1, &["leased"])]
    {
        inbox.index.lock().remove(number).unwrap();
        assert_eq!(waiting(), expected, "{number} is removed");
    }
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

#[tokio::test]
async fn the_oldest_message_of_a_route_is_its_first_waiting_message() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder.path().join("ledger"));
    let inbox = store.inbox();
    let (due, leased, dead) = (MessageState::Due, MessageState::Leased, MessageState::Dead);
    let messages = [("a", dead), ("b", leased), ("c", dead), ("a", due), ("b", due), ("a", due), ("d", due)];
    for (number, (route, state)) in (1..).zip(messages) {
        let mut index = inbox.index.lock();
        let route = index.route(&route.into());
        index.add(number, Entry { route, state, since: NOW.unix_ms() + number as i64, ..entry() });
    }
    let overview = inbox.overview().0;
    let oldest = |name: &str| {
        let route = overview.iter().find(|route| *route.route == *name).unwrap();
        route.oldest.map(|at| at.unix_ms() - NOW.unix_ms())
    };
    assert_eq!(["a", "b", "c", "d"].map(oldest), [Some(4), Some(2), None, Some(7)]);
}

#[test]
fn a_message_arrives_while_it_is_accepted_and_until_it_is_durable() {
    let mut index = Index::default();
    let storing = [1, 1, 2].map(|lane| (1, 10 + lane, Entry { lane, ..entry() }));
    index.storing.extend(storing);
    index.accepting.extend([1, 3]);
    assert_eq!([1, 2, 3, 4].map(|lane| index.arriving(lane)), [3, 1, 1, 0]);
}

#[test]
fn a_replayed_message_with_time_left_does_not_hide_later_messages_without() {
    let (settings, mut index) = (InboxSettings::default(), Index::default());
    index.configure(&[("r".into(), true)], false);
    let later = NOW.plus(Duration::from_secs(1)).unix_ms();
    let (new, replayed) = (Entry { since: later, ..entry() }, Entry { is_replayed: true, ..entry() });
    for (number, message) in (1..).zip([
        replayed,
        Entry { since: later, ..replayed },
        Entry { state: MessageState::Leased, ..entry() },
        entry(),
        new,
    ]) {
        index.add(number, message);
    }
    assert_eq!(index.given_up(&settings, NOW.plus(settings.tried_for), 9), [1, 4]);
}

/// The clock is set back while an attempt and a pull are in progress. Small differences are normal.
#[tokio::test]
async fn an_attempt_that_ends_after_the_clock_was_set_back_delays_its_message_by_nothing() {
    let ms = Duration::from_millis;
    for (by, back) in [(0, 0), (2_000, 0), (2_001, 2_001), (3_600_000, 3_600_000)] {
        let folder = tempfile::tempdir().unwrap();
        let store = open(&folder.path().join("ledger"));
        let inbox = store.inbox();
        (1..=2).for_each(|number| inbox.index.lock().add(number, entry()));
        inbox.pass(NOW);
        let started = inbox.start(&routes(), NOW).unwrap();
        let leased = inbox.lease(None, &routes(), (1, 1 << 20), NOW);
        assert_eq!((started.number, leased[0].number), (1, 2));
        inbox.pass(NOW.minus(ms(by)));
        drop((started, leased));
        let due = [1, 2].map(|number| inbox.view(number).unwrap().at);
        assert_eq!(due, [NOW.minus(ms(back)); 2], "{by} ms");
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
