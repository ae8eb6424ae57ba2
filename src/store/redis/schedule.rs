//! The schedule of this process for the deadlines in a shared ledger: which partitions and interactions it checks next.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use parking_lot::Mutex;

use super::nodes::keys::{PARTITIONS, Partition};
use crate::interaction::LeaseId;
use crate::random::random;
use crate::time::Timestamp;

/// The interval at which a process checks all deadlines of the partitions that it watches.
const WATCH_INTERVAL: Duration = Duration::from_secs(10);
/// A number of milliseconds. The deadlines that this process has written are rounded up to a multiple of this number. A
/// busy process therefore does not check each deadline separately.
const STEP_MS: i64 = 250;

/// The maximum number of scheduled deadlines that this process has written. If there are more, the schedule drops the
/// latest deadlines. The processes that watch the partitions find the dropped deadlines in the ledger.
const OWN_MAX: usize = 65_536;

/// The maximum number of interactions that wait for a check. Further interactions are dropped. The Redis server returns
/// their ids again later.
const WAITING_MAX: usize = 16_384;

/// An interaction whose deadlines must be checked.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Waiting {
    pub(super) id: Box<str>,
    /// The id of the lease under which a notice is sent. Repeated checks of the interaction use the same lease. If an
    /// earlier check has taken the lease, but its result was lost, the next check can therefore still send the notice.
    pub(super) lease: LeaseId,
    /// Whether another process has decided that this process must send the notice.
    pub(super) is_passed_on: bool,
    /// The earliest time of the check, in Unix milliseconds.
    at: i64,
}

impl Waiting {
    /// Creates a check that may begin at once. Returns `None` if the system provides no random numbers.
    pub(super) fn new(id: Box<str>, is_passed_on: bool) -> Option<Self> {
        let lease = random::<8>().map(u64::from_be_bytes)?;
        Some(Self { id, lease, is_passed_on, at: 0 })
    }
}

/// The schedule of the deadlines in a shared ledger.
#[derive(Debug)]
pub(super) struct Schedule {
    /// The deadlines that this process has written: the time in Unix milliseconds, and the partition.
    pub(super) own: Mutex<BTreeSet<(i64, u8)>>,
    /// The time of the next check of each partition that this process watches, in Unix milliseconds.
    next: Mutex<[i64; PARTITIONS]>,
    /// The interactions that another process has passed to this one, or whose check has failed.
    waiting: Mutex<BTreeMap<Box<str>, Waiting>>,
}

impl Default for Schedule {
    fn default() -> Self {
        Self { own: Mutex::default(), next: Mutex::new([0; PARTITIONS]), waiting: Mutex::default() }
    }
}

impl Schedule {
    /// Records a deadline that this process has written.
    pub(super) fn expect(&self, partition: Partition, at: Timestamp) {
        if let Partition::Number(number) = partition
            && at.unix_ms() < i64::MAX
        {
            let rounded = at.unix_ms().saturating_add(STEP_MS - 1) / STEP_MS * STEP_MS;
            let mut own = self.own.lock();
            own.insert((rounded, number));
            if own.len() > OWN_MAX {
                own.pop_last();
            }
        }
    }

    /// Returns the numbers of the partitions whose deadlines must be checked at `now`. Removes the deadlines that
    /// caused these checks from the schedule. If a regular check was due, schedules the next one.
    pub(super) fn take(&self, now: Timestamp, watched: &[bool; PARTITIONS]) -> Vec<u8> {
        let mut partitions = BTreeSet::new();
        let mut own = self.own.lock();
        while let Some(first) = own.first().copied().filter(|(at, _)| *at <= now.unix_ms()) {
            own.remove(&first);
            partitions.insert(first.1);
        }
        let mut next = self.next.lock();
        let sweep = now.plus(WATCH_INTERVAL).unix_ms();
        for ((number, next), watched) in (0_u8..).zip(next.iter_mut()).zip(watched) {
            if *watched && *next <= now.unix_ms() {
                *next = sweep;
                partitions.insert(number);
            }
        }
        partitions.into_iter().collect()
    }

    /// Records that a partition was checked. `first` is its first remaining deadline, in Unix milliseconds. If the next
    /// check of the partition is later than `first`, moves the check to `first`.
    pub(super) fn looked(&self, number: u8, first: Option<i64>) {
        if let (Some(first), Some(next)) = (first, self.next.lock().get_mut(usize::from(number))) {
            *next = first.min(*next);
        }
    }

    /// Schedules checks of interactions that another process has passed to this one.
    pub(super) fn pass_on(&self, ids: impl Iterator<Item = Box<str>>) {
        ids.filter_map(|id| Waiting::new(id, true)).for_each(|one| self.wait(one));
    }

    /// Schedules another check of an interaction at the time `at`.
    pub(super) fn look_again(&self, one: Waiting, at: Timestamp) {
        self.wait(Waiting { at: at.unix_ms(), ..one });
    }

    fn wait(&self, one: Waiting) {
        let mut waiting = self.waiting.lock();
        if let Some(known) = waiting.get_mut(&one.id) {
            known.is_passed_on |= one.is_passed_on;
        } else if waiting.len() < WAITING_MAX {
            waiting.insert(one.id.clone(), one);
        }
    }

    /// Returns the interactions whose deadlines must be checked at `now`, and removes them from the schedule.
    pub(super) fn take_waiting(&self, now: Timestamp) -> Vec<Waiting> {
        let mut waiting = self.waiting.lock();
        let is_due = |one: &Waiting| one.at <= now.unix_ms();
        if !waiting.values().any(is_due) {
            return Vec::new();
        }
        let (due, later) = std::mem::take(&mut *waiting).into_iter().partition(|(_, one)| is_due(one));
        *waiting = later;
        let due: BTreeMap<_, _> = due;
        due.into_values().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_of_own_deadlines_is_limited_and_the_earliest_stay() {
        let schedule = Schedule::default();
        for step in (0..100_000).rev() {
            schedule.expect(Partition::Number(7), Timestamp::from_unix_ms(step * STEP_MS));
        }
        assert_eq!(schedule.own.lock().len(), OWN_MAX);
        assert_eq!(schedule.own.lock().first(), Some(&(0, 7)));
    }

    #[test]
    fn interactions_wait_until_their_time_and_their_number_is_limited() {
        let at = |ms| Timestamp::from_unix_ms(ms);
        let schedule = Schedule::default();
        schedule.pass_on(["a".into()].into_iter());
        let passed_on = schedule.take_waiting(at(1));
        assert!(passed_on.len() == 1 && passed_on[0].is_passed_on);
        schedule.look_again(passed_on[0].clone(), at(2_000));
        assert!(schedule.take_waiting(at(1_999)).is_empty());
        let again = schedule.take_waiting(at(2_000));
        assert_eq!((again[0].lease, again[0].is_passed_on), (passed_on[0].lease, true));
        assert!(schedule.take_waiting(at(2_000)).is_empty());
        schedule.look_again(passed_on[0].clone(), at(3_000));
        schedule.pass_on(["a".into()].into_iter());
        let once = schedule.take_waiting(at(3_000));
        assert_eq!((once.len(), once[0].lease), (1, passed_on[0].lease));
        schedule.pass_on((0..WAITING_MAX + 1).map(|number| number.to_string().into()));
        assert_eq!(schedule.take_waiting(at(2_000)).len(), WAITING_MAX);
    }

    #[test]
    fn own_and_watched_partitions_are_looked_at_in_time() {
        let at = |ms| Timestamp::from_unix_ms(ms);
        let schedule = Schedule::default();
        let mut watched = [false; PARTITIONS];
        watched[5] = true;
        schedule.expect(Partition::Number(3), at(1_001));
        schedule.expect(Partition::Number(3), at(1_002));
        schedule.expect(Partition::Number(4), at(i64::MAX));
        assert_eq!(schedule.own.lock().len(), 1, "deadlines close together are one look");
        assert_eq!(schedule.take(at(1_100), &watched), [5]);
        assert_eq!(schedule.take(at(1_250), &watched), [3]);
        assert_eq!(schedule.take(at(1_250), &watched), [0_u8; 0]);
        schedule.looked(5, Some(2_000));
        assert_eq!(schedule.take(at(2_000), &watched), [5], "the first deadline that was left");
        assert_eq!(schedule.take(at(11_000), &watched), [0_u8; 0]);
        assert_eq!(schedule.take(at(12_000), &watched), [5], "after the interval");
    }
}
