//! Collects the newest interactions of a ledger in one pass.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::store::outcome::OwnedInteraction;
use crate::time::Timestamp;

/// The maximum number of listed interactions that were created at the same time as the oldest listed one.
const TIES_MAX: usize = 10_000;

/// The newest interactions that were found so far. The number may exceed the limit, because all interactions that were
/// created at the same time as the oldest one are included. Otherwise the next page could not begin before this time.
pub(super) struct Newest {
    limit: usize,
    count: usize,
    by_time: BTreeMap<Timestamp, Vec<(Arc<str>, OwnedInteraction)>>,
}

impl Newest {
    /// Creates an empty collection for at least `limit` interactions.
    pub(super) fn new(limit: usize) -> Self {
        Self { limit, count: 0, by_time: BTreeMap::new() }
    }

    /// Reports whether an interaction that was created at this time is one of the newest so far.
    pub(super) fn has_room(&self, created: Timestamp) -> bool {
        match self.by_time.first_key_value() {
            Some((oldest, ties)) if self.count >= self.limit => {
                created > *oldest || (created == *oldest && ties.len() < TIES_MAX)
            }
            _ => true,
        }
    }

    /// Adds an interaction for which [`Newest::has_room`] returns true. Removes the oldest interactions that are not
    /// needed any more.
    pub(super) fn add(&mut self, id: Arc<str>, one: OwnedInteraction) {
        self.by_time.entry(one.0.created()).or_default().push((id, one));
        self.count += 1;
        while let Some(oldest) = self.by_time.first_entry()
            && self.count - oldest.get().len() >= self.limit
        {
            self.count -= oldest.remove().len();
        }
    }

    /// Returns the collected interactions by their ids.
    pub(super) fn into_found(self) -> BTreeMap<Arc<str>, OwnedInteraction> {
        self.by_time.into_values().flatten().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::interaction::Interaction;

    fn newest(limit: usize, times: &[i64]) -> Vec<i64> {
        let mut newest = Newest::new(limit);
        for (number, time) in times.iter().enumerate() {
            let created = Timestamp::from_unix_ms(*time);
            if newest.has_room(created) {
                let one = Interaction::new("r".into(), "".into(), created, Timestamp::from_unix_ms(1 << 40));
                newest.add(format!("{number}").into(), (one, None));
            }
        }
        let mut found: Vec<_> =
            newest.into_found().values().map(|(one, _)| one.created().unix_ms()).collect();
        found.sort_unstable_by(|a, b| b.cmp(a));
        found
    }

    #[test]
    fn the_newest_are_found_in_any_order_with_all_others_of_the_same_time() {
        for period in [1, 3, 20, 1000] {
            for factor in [1, 7, 389] {
                let times: Vec<i64> = (0..200).map(|number| number * factor % period).collect();
                let mut sorted = times.clone();
                sorted.sort_unstable_by(|a, b| b.cmp(a));
                for limit in [1, 2, 10, 199, 200, 201] {
                    let last = sorted.get(limit - 1).copied().unwrap_or(i64::MIN);
                    let expected: Vec<_> = sorted.iter().copied().filter(|time| *time >= last).collect();
                    assert_eq!(newest(limit, &times), expected, "{period} {factor} {limit}");
                }
            }
        }
        assert_eq!(newest(5, &[]), [0; 0]);
    }

    #[test]
    fn the_number_of_interactions_of_the_same_time_is_limited() {
        let same = vec![5; TIES_MAX + 10];
        assert_eq!(newest(3, &same).len(), TIES_MAX);
        assert_eq!(newest(3, &[same.as_slice(), &[6, 6]].concat()).len(), TIES_MAX + 2);
        assert_eq!(newest(3, &[same.as_slice(), &[6, 6, 6]].concat()), [6, 6, 6]);
    }
}
