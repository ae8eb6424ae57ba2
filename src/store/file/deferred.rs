//! Deferred changes: changes that nobody waits for, such as the expiry of an interaction. The writer adds only a few
//! deferred changes to each commit. Even a very large number of deferred changes therefore delays no acknowledgement.
//!
//! Each change replaces or removes one whole record of the file. Therefore, only the last change of a record must be
//! written. The order of changes to different records does not matter. A change that somebody waits for is written
//! before all deferred changes. If the same record has a deferred change, that change is older and is discarded.

use std::collections::{HashMap, VecDeque};

use super::change::{Change, RecordKey};

/// The deferred changes, at most one for each record of the file.
#[derive(Debug, Default)]
pub(super) struct Deferred {
    changes: HashMap<RecordKey, Change>,
    /// The keys of the records, in the order of their first deferred change. The list may also contain keys of records
    /// whose deferred change was removed.
    order: VecDeque<RecordKey>,
}

impl Deferred {
    pub(super) fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.changes.len()
    }

    /// Adds a change. Replaces the deferred change of the same record.
    pub(super) fn push(&mut self, change: Change) {
        let key = change.key();
        if self.changes.insert(key, change).is_none() {
            self.order.push_back(key);
        }
    }

    /// Discards the deferred change of a record, because a later change of this record is written first.
    pub(super) fn supersede(&mut self, key: RecordKey) {
        if !self.changes.is_empty() {
            self.changes.remove(&key);
        }
    }

    /// Moves up to `max` deferred changes to the end of `batch`, the oldest first.
    pub(super) fn take(&mut self, max: usize, batch: &mut Vec<Change>) {
        let end = batch.len().saturating_add(max);
        while batch.len() < end
            && let Some(key) = self.order.pop_front()
        {
            batch.extend(self.changes.remove(&key));
        }
        if self.changes.is_empty() {
            *self = Self::default();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(batch: &[Change]) -> Vec<u64> {
        batch.iter().map(|change| change.key().number).collect()
    }

    #[test]
    fn the_last_change_of_a_record_is_taken_once_and_in_order() {
        let mut deferred = Deferred::default();
        for number in [1, 2, 3, 4] {
            deferred.push(Change::Interaction(number, "int_a".into(), Vec::new()));
        }
        deferred.push(Change::InteractionGone(2));
        deferred.supersede(Change::Interaction(3, "int_a".into(), Vec::new()).key());
        // The event with the number 1 and the interaction with the number 1 have different keys.
        deferred.supersede(Change::EventGone(1).key());
        let mut batch = Vec::new();
        deferred.take(2, &mut batch);
        assert_eq!(numbers(&batch), [1, 2]);
        assert!(matches!(batch.as_slice(), [_, Change::InteractionGone(2)]));
        assert_eq!(deferred.len(), 1);
        deferred.take(2, &mut batch);
        assert_eq!((numbers(&batch), deferred.is_empty()), (vec![1, 2, 4], true));
    }
}
