//! Tests the log of delivered events.

use std::collections::HashMap;

use proptest::prelude::*;

use super::log::{Entry, EventLog, EventPlace, LoggedEvent, Oldest, WINDOW_MAX, WINDOWS};

fn logged(fingerprint: u64, delivered: u32, window: u32, number: u64) -> LoggedEvent {
    LoggedEvent { fingerprint, delivered, window, number }
}

#[test]
fn an_entry_stays_small() {
    assert_eq!(size_of::<Entry>(), 16);
}

/// Reads the whole log in lists of at most `max` events. Returns all events.
fn all(log: &EventLog, max: usize) -> Vec<LoggedEvent> {
    let mut place = EventPlace::default();
    let mut all = Vec::new();
    loop {
        let events = log.next_events(&mut place, max);
        assert!(events.len() <= max);
        if events.is_empty() {
            return all;
        }
        all.extend(events);
    }
}

fn goes(log: &mut EventLog, now: u32) -> Option<u64> {
    let event = log.first_to_go(now)?;
    log.remove(event.fingerprint).map(|event| event.fingerprint)
}

#[test]
fn what_cannot_be_replayed_any_more_goes_first() {
    let mut log = EventLog::new(1);
    // Event 1 can be replayed at any time, event 2 for an hour, and events 3 and 4 for five minutes.
    for (fingerprint, delivered, window) in
        [(1, 1000, u32::MAX), (2, 1001, 3600), (3, 1002, 300), (4, 1003, 300)]
    {
        log.insert(logged(fingerprint, delivered, window, fingerprint));
    }
    // While a replay of every event may pass, the oldest event is removed first. The newest event is therefore never
    // removed first.
    assert_eq!(log.first_to_go(1100).map(|event| event.fingerprint), Some(1));
    // At 1302, a replay of event 3 is denied. At 1303, a replay of event 4 is denied, too.
    let order = [1302, 1302, 1303, 1303, 4601].map(|now| goes(&mut log, now));
    assert_eq!(order, [Some(3), Some(1), Some(4), Some(2), None]);
}

#[test]
fn a_restored_event_keeps_the_end_of_its_replays_and_is_not_newer_than_the_last_delivery() {
    for window in WINDOWS {
        for age in [0, 1, 299, 300, 4000, 90_000] {
            let (delivered, latest) = (1_000_000, 1_000_000 + age);
            let event = LoggedEvent::restored(1, delivered + window, latest, 2);
            assert_eq!(event.replayable_until(), delivered + window, "{window} {age}");
            assert!((delivered..=latest).contains(&event.delivered), "{window} {age}: {event:?}");
            if age == 0 {
                assert_eq!(event, logged(1, delivered, window, 2));
            }
        }
    }
    assert_eq!(LoggedEvent::restored(1, u32::MAX, 1000, 2), logged(1, 1000, WINDOW_MAX, 2));
    assert_eq!(LoggedEvent::restored(1, 0, 1000, 2), logged(1, 0, 0, 2));
}

#[test]
fn distant_numbers_are_kept() {
    let mut log = EventLog::new(1);
    let numbers = [5, 5, 1 << 40, 3, u64::MAX, 7];
    for (fingerprint, number) in (1..).zip(numbers) {
        log.insert(logged(fingerprint, 0, 0, number));
    }
    for (fingerprint, number) in (1..).zip(numbers) {
        assert_eq!(log.get(fingerprint).map(|event| event.number), Some(number));
    }
}

#[test]
fn a_long_lived_event_does_not_keep_the_memory_of_later_ones() {
    let mut log = EventLog::new(1);
    for fingerprint in 1..100_000 {
        log.insert(logged(fingerprint, 0, 0, fingerprint));
        // Every thousandth event is not removed.
        if fingerprint % 1000 != 0 {
            log.remove(fingerprint);
        }
    }
    assert_eq!(log.len(), 99);
    assert!(log.chunks() < 8, "{}", log.chunks());
    assert!((1..100).all(|i| log.get(i * 1000).is_some() && log.get(i * 1000 + 1).is_none()));
    assert_eq!(
        all(&log, 10).iter().map(|event| event.fingerprint).collect::<Vec<_>>(),
        (1..100).map(|i| i * 1000).collect::<Vec<_>>()
    );
}

#[test]
fn events_are_found_after_the_numbers_of_chunks_have_begun_again() {
    // Many fingerprints have the same first slot in the index. Their tags differ.
    let fingerprint = |number: u64| (number + 1) << 32 | (number % 8) << 9;
    for chunks in 0..=8 {
        let mut log = EventLog::ending_after(chunks);
        // Every seventh event of seven chunks remains, so the queue is rebuilt once, at the end.
        for number in 0..7 * 512 {
            log.insert(logged(fingerprint(number), 0, 0, number));
        }
        for number in (0..7 * 512).filter(|number| number % 7 != 0) {
            assert_eq!(log.chunks(), 7);
            assert!(log.remove(fingerprint(number)).is_some(), "{chunks}: {number}");
        }
        assert_eq!((log.chunks(), log.len()), (1, 512), "{chunks}");
        for number in 0..7 * 512 {
            let found = log.get(fingerprint(number)).map(|event| event.number);
            assert_eq!(found, (number % 7 == 0).then_some(number), "{chunks}");
        }
    }
}

#[test]
fn every_event_is_read_while_others_come_and_go() {
    let mut log = EventLog::new(1);
    // The fingerprints are evenly distributed, as real fingerprints are.
    let fingerprint = |number: u64| number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let window = |number: u64| [0, 300, u32::MAX][usize::try_from(number % 3).unwrap()];
    for number in 1..20_000 {
        log.insert(logged(fingerprint(number), 0, window(number), number));
    }
    let (mut place, mut read, mut next) = (EventPlace::default(), HashMap::new(), 20_000);
    loop {
        let events = log.next_events(&mut place, 100);
        if events.is_empty() {
            break;
        }
        for event in events {
            assert_eq!(read.insert(event.number, event), None, "{event:?} was read twice");
        }
        // Nine of ten events are removed, so that the queues are rebuilt during the test.
        for number in next - 20_000..next - 19_950 {
            if number % 10 != 0 {
                log.remove(fingerprint(number));
            }
            let new = number + 20_000;
            log.insert(logged(fingerprint(new), 0, window(new), new));
        }
        next += 50;
    }
    assert!((1..2000).all(|i| read.contains_key(&(i * 10))));
}

proptest! {
    /// Random insertions and removals have the same results as with a map. The fingerprints collide in their low bits,
    /// which determine the slot.
    #[test]
    fn the_log_is_a_map(steps in prop::collection::vec((0..4u8, 0..40u64, 0..WINDOWS.len()), 0..600), tables in 1..4usize, max in 1..50usize) {
        let (mut log, mut map) = (EventLog::new(tables), HashMap::new());
        for (number, (step, key, window)) in (0..).zip(steps) {
            let fingerprint = (key % 5 + 1) | (key << 59);
            match step {
                0 => prop_assert_eq!(log.remove(fingerprint), map.remove(&fingerprint)),
                1 => {
                    let now = u32::try_from(number).unwrap();
                    let first = log.first_to_go(now);
                    let rank = |event: &LoggedEvent| Oldest::of(event).rank(now);
                    prop_assert_eq!(first.as_ref().map(rank), map.values().map(rank).min());
                    let oldest = Oldest::from_bits(log.oldest().to_bits());
                    prop_assert_eq!(first.map_or(Oldest::NONE.rank(now), |first| rank(&first)), oldest.rank(now));
                    if let Some(event) = first {
                        prop_assert_eq!(log.remove(event.fingerprint), map.remove(&event.fingerprint));
                    }
                }
                _ => {
                    let event = logged(fingerprint, u32::try_from(number).unwrap(), WINDOWS[window], number);
                    prop_assert_eq!(log.insert(event), map.insert(fingerprint, event));
                }
            }
            prop_assert_eq!(log.len(), map.len());
        }
        let mut all = all(&log, max);
        all.sort_by_key(|event| event.number);
        let mut expected: Vec<_> = map.values().copied().collect();
        expected.sort_by_key(|event| event.number);
        prop_assert_eq!(all, expected);
        for event in map.values() {
            prop_assert_eq!(log.get(event.fingerprint), Some(*event));
        }
    }
}
