//! Compares and merges two copies of the record of one interaction, for example after a ledger was copied.

use super::interaction::Interaction;
use super::more::Inherited;
use super::state::State;

/// The maximum number of inherited fingerprints in the record of one interaction. The fingerprints belong to events
/// that were delivered with other ledgers.
const INHERITED_MAX: usize = 2_000;

/// The result of comparing two copies of the record of one interaction.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Copies {
    /// None of the compared values differs.
    Equal,
    /// The interaction was changed only in this copy after the record was copied.
    Newer,
    /// The interaction was changed only in the other copy after the record was copied.
    Older,
    /// The interaction was changed in both copies after the record was copied.
    Diverged,
}

impl Interaction {
    /// Compares this copy of the record with the copy `other`. The result is [`Copies::Newer`] if at least one counter
    /// or time is greater in this copy, and none is smaller.
    pub fn compare(&self, other: &Self) -> Copies {
        let pairs = self.growth().into_iter().zip(other.growth());
        let (mut newer, mut older) = (false, false);
        for (own, other) in pairs {
            newer |= own > other;
            older |= own < other;
        }
        match (newer, older) {
            (false, false) => Copies::Equal,
            (true, false) => Copies::Newer,
            (false, true) => Copies::Older,
            (true, true) => Copies::Diverged,
        }
    }

    /// Returns the counters and times by which two copies of the record are compared. A greater value means a later
    /// state of the interaction. No change of the record decreases a value.
    fn growth(&self) -> [i64; 9] {
        let end = match self.state {
            State::Revoked => 2,
            state if !state.is_open() => 1,
            _ => 0,
        };
        let more = self.more.as_deref();
        let asked = more.map_or(0, |more| more.questions_asked);
        // An answered question can be removed from the record. Therefore, the answered questions are not counted
        // themselves: closed questions are all asked questions minus the unanswered ones.
        let unanswered = self.questions().iter().filter(|question| !question.answered).count();
        let closed = i64::from(asked).saturating_sub(i64::try_from(unanswered).unwrap_or(i64::MAX));
        [
            end,
            self.deliveries.into(),
            u32::MAX.wrapping_sub(self.uses_left).into(),
            i64::from(self.provider_id().is_some()),
            asked.into(),
            closed,
            self.last_event.map_or(0, std::num::NonZero::get),
            more.map_or(0, |more| more.changes).into(),
            self.informed().last().map_or(0, |informed| informed.at().unix_ms()),
        ]
    }

    /// Adds the fingerprints of events that were delivered with another ledger. Returns the number of fingerprints that
    /// were not added because the record has no room for them.
    pub fn inherit(&mut self, events: Inherited) -> usize {
        if events.events.is_empty() {
            return 0;
        }
        let mut room = INHERITED_MAX.saturating_sub(self.inherited_count());
        let mut left = 0;
        let more = self.more();
        let at = match more.inherited.iter().position(|known| known.key == events.key) {
            Some(at) => at,
            None => {
                more.inherited.push(Inherited { key: events.key, events: Vec::new() });
                more.inherited.len() - 1
            }
        };
        let Some(known) = more.inherited.get_mut(at) else { return 0 };
        // The newest events are added first, because the provider is most likely to repeat these events. In both lists,
        // the newest event is the last one.
        let mut newest = Vec::new();
        for event in events.events.into_iter().rev() {
            if known.events.contains(&event) || newest.contains(&event) {
                continue;
            }
            if room == 0 {
                left += 1;
                continue;
            }
            room -= 1;
            newest.push(event);
        }
        known.events.extend(newest.into_iter().rev());
        left
    }

    /// Adds the missing fingerprints, as [`Self::inherit_from`] does. Returns whether the record was changed.
    pub fn inherit_missing(&mut self, other: &Self) -> bool {
        let before = self.inherited_count();
        self.inherit_from(other);
        self.inherited_count() != before
    }

    fn inherited_count(&self) -> usize {
        self.inherited().iter().map(|known| known.events.len()).sum()
    }

    /// Adds the fingerprints of events that were delivered with other ledgers. `other` is a copy of this record that
    /// contains these fingerprints. Returns the number of fingerprints that were not added because this record has no
    /// room for them.
    pub fn inherit_from(&mut self, other: &Self) -> usize {
        other.inherited().iter().map(|events| self.inherit(events.clone())).sum()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::{Ask, Claim, Event, EventKey, Follow, NoticeResult, Report};
    use super::*;
    use crate::path::{CanonicalPath, Template};
    use crate::random::splitmix::Random;
    use crate::time::Timestamp;

    fn record(uses: Option<u32>) -> Interaction {
        let at = Timestamp::from_unix_secs;
        Interaction::new("r".into(), "".into(), at(1_000), at(2_000)).limited(uses)
    }

    #[test]
    fn a_copy_that_was_used_since_is_newer() {
        let changes: [fn(&mut Interaction); 5] = [
            |record| {
                record.go(Event::Completed);
            },
            |record| {
                record.go(Event::Revoked);
            },
            |record| record.deliveries += 1,
            |record| record.uses_left -= 1,
            |record| record.bind("job-1"),
        ];
        for uses in [Some(3), None] {
            for (number, change) in changes.iter().enumerate() {
                if uses.is_none() && number == 3 {
                    continue;
                }
                let (old, mut new) = (record(uses), record(uses));
                assert_eq!(new.compare(&old), Copies::Equal);
                change(&mut new);
                assert_eq!(
                    (new.compare(&old), old.compare(&new)),
                    (Copies::Newer, Copies::Older),
                    "{number}"
                );
            }
        }
        let (mut one, mut other) = (record(Some(3)), record(Some(3)));
        one.go(Event::Revoked);
        other.deliveries += 1;
        assert_eq!(one.compare(&other), Copies::Diverged);
    }

    #[test]
    fn inherited_events_are_kept_once_and_within_a_limit() {
        let mut record = record(None);
        let events = |events: &[u64]| Inherited { key: [1, 2], events: events.to_vec() };
        assert_eq!(record.inherit(events(&[])), 0);
        assert_eq!(record.inherited().len(), 0);
        assert_eq!(record.inherit(events(&[5, 6])), 0);
        assert_eq!(record.inherit(events(&[5, 6, 7])), 0);
        assert_eq!(record.inherited()[0].events.len(), 3);
        let many: Vec<_> = (100..100 + INHERITED_MAX as u64).collect();
        assert_eq!(record.inherit(events(&many)), 3);
        assert!(record.inherited()[0].events.contains(many.last().unwrap()), "the newest are kept");
    }

    #[test]
    fn a_record_without_room_inherits_the_newest_events_also_from_a_copy() {
        let [mut first, mut second] = [record(None), record(None)];
        let numbers = |range: std::ops::Range<u64>| range.collect::<Vec<_>>();
        let all = numbers(0..INHERITED_MAX as u64);
        assert_eq!(first.inherit(Inherited { key: [1, 2], events: all.clone() }), 0);
        assert_eq!(first.inherited()[0].events, all, "the newest event stays the last one");
        assert_eq!(second.inherit(Inherited { key: [3, 4], events: numbers(0..5) }), 0);
        assert_eq!(second.inherit_from(&first), 5);
        assert_eq!(second.inherited()[1].events, all[5..]);
    }

    #[test]
    fn a_copy_whose_agent_accepted_a_failed_callback_later_is_newer() {
        let mut copied = record(None);
        copied.lose_message(Timestamp::from_unix_secs(1_100));
        let mut used = copied.clone();
        assert_eq!(used.compare(&record(None)), Copies::Newer);
        assert_eq!(record(None).compare(&used), Copies::Older);
        used.deliveries += 1;
        used.receive_all(Timestamp::from_unix_secs(1_200));
        assert_eq!(used.undelivered(), None);
        assert_eq!((used.compare(&copied), copied.compare(&used)), (Copies::Newer, Copies::Older));
    }

    /// Applies one random change to a record, as the ledger does while an interaction goes on.
    fn change(record: &mut Interaction, claims: &mut Vec<Claim>, random: &mut Random, now: Timestamp) {
        let (route, follow) = ("r".into(), Follow::default());
        let captures = Template::parse("/w").unwrap().capture(&CanonicalPath::parse("/w").unwrap());
        let question = (random.below(2) == 0).then(|| "https://a/".into());
        let report = Report { question, ..Report::default() };
        let ask = Ask::new(&route, &captures, &follow, &report);
        match random.below(12) {
            0..3 => {
                let events = &[EventKey(u128::from(random.next()))];
                if let Ok(Some(claim)) = record.claim(&Ask { events, ..ask }, now, |_| false) {
                    claims.push(claim);
                }
            }
            3..5 => {
                if let Some(claim) = claims.pop() {
                    record.settle(&claim, &report, None, now, |_| 0);
                }
            }
            5 => {
                if let Some(claim) = claims.pop() {
                    match random.below(2) {
                        0 => record.release(&claim),
                        _ => record.fail(&claim, now),
                    }
                }
            }
            6 if random.below(3) == 0 => record.receive_all(now),
            6 => record.lose_message(now),
            7 => {
                if let Some(notice) = record.pass(now).notice {
                    let results = [NoticeResult::Accepted, NoticeResult::Abandoned, NoticeResult::Failed];
                    record.noticed(notice, results[random.below(3) as usize], now);
                }
            }
            8..10 => {
                if let Ok((number, _)) = record.take_question(None, now) {
                    record.answer(number, random.below(4) > 0);
                }
            }
            10 => {
                let events = [Event::Completed, Event::Failed, Event::Revoked];
                if random.below(20) == 0 {
                    record.end_by(events[random.below(3) as usize], now);
                }
            }
            _ => record.bind("job-1"),
        }
    }

    #[test]
    fn every_change_makes_a_copy_newer_or_leaves_it_equal() {
        for seed in 0..500 {
            let mut random = Random(seed);
            let mut now = Timestamp::from_unix_secs(1_000);
            let follow = Follow {
                deadline: Some(Duration::from_secs(200)),
                stalled_after: Some(Duration::from_secs(3)),
                ..Follow::default()
            };
            let uses = (seed % 2 == 0).then_some(30);
            let mut record = record(uses).followed(&follow, seed % 3 > 0);
            let (mut copies, mut claims) = (vec![record.clone()], Vec::new());
            for _ in 0..80 {
                // The clock often stands still, and is sometimes set back.
                let step = Duration::from_millis(random.below(4) * random.below(2_000));
                now = if random.below(20) == 0 { now.minus(step) } else { now.plus(step) };
                change(&mut record, &mut claims, &mut random, now);
                for copy in [copies.last().unwrap(), &copies[random.below(copies.len() as u64) as usize]] {
                    let compared = record.compare(copy);
                    assert!(
                        matches!(compared, Copies::Newer | Copies::Equal),
                        "seed {seed}: {compared:?}: {:?} {:?}",
                        record.growth(),
                        copy.growth()
                    );
                }
                copies.push(record.clone());
            }
        }
    }

    #[test]
    fn a_change_that_matters_makes_a_copy_newer_while_the_clock_stands_still() {
        let now = Timestamp::from_unix_secs(1_000);
        let mut record = record(None).followed(&Follow::default(), true);
        let steps: [fn(&mut Interaction, Timestamp); 8] = [
            |record, now| record.lose_message(now),
            |record, now| {
                let notice = record.pass(now).notice.unwrap();
                record.noticed(notice, NoticeResult::Accepted, now);
            },
            |record, now| record.receive_all(now),
            |record, now| {
                record.end_by(Event::Completed, now);
            },
            |record, now| record.lose_message(now),
            |record, now| record.lose_message(now),
            |record, now| {
                let notice = record.pass(now).notice.unwrap();
                record.noticed(notice, NoticeResult::Abandoned, now);
            },
            |record, now| record.receive_all(now),
        ];
        for (number, step) in steps.iter().enumerate() {
            let before = record.clone();
            step(&mut record, now);
            assert_eq!(
                (record.compare(&before), before.compare(&record)),
                (Copies::Newer, Copies::Older),
                "{number}"
            );
        }
    }
}
