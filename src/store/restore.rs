//! Fills the memory of the ledger with the content of its file, record by record. The file may be much larger than the
//! memory that a second copy of its records could use.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::file::{Change, NO_OWNER, Record};
use super::memory::{Memory, NO_ROUTE};
use crate::interaction::{EventKey, Interaction};
use crate::time::Timestamp;

/// The memory while it is being filled.
pub(super) struct Restore<'m> {
    memory: &'m Memory,
    /// The numbers of the interactions and their ids, in the order of the numbers.
    owners: Vec<(u64, Arc<str>)>,
    /// Events whose interaction is not in the file.
    orphans: Vec<u64>,
    number_max: u64,
}

impl<'m> Restore<'m> {
    pub(super) fn new(memory: &'m Memory) -> Self {
        Self { memory, owners: Vec::new(), orphans: Vec::new(), number_max: 0 }
    }

    /// Adds a record. The interactions must come before the events, in the order of their numbers.
    pub(super) fn add(&mut self, record: Record) {
        match record {
            Record::Interaction(number, id, interaction) => {
                self.number_max = self.number_max.max(number);
                self.owners.push((number, self.memory.restore(number, id, interaction)));
            }
            Record::Event(number, event, until, owner) => {
                self.number_max = self.number_max.max(number);
                let found = self.owners.binary_search_by_key(&owner, |(number, _)| *number);
                match found.ok().and_then(|at| self.owners.get(at)) {
                    Some((_, id)) => self.memory.restore_event(number, event, until, Some(id)),
                    None if owner == NO_OWNER => self.memory.restore_event(number, event, until, None),
                    None => self.orphans.push(number),
                }
            }
        }
    }

    /// Removes events without their interaction from the file. Returns the highest number of the file.
    pub(super) fn finish(self) -> u64 {
        if let Some(journal) = &self.memory.journal {
            journal.defer(self.orphans.into_iter().map(Change::EventGone));
        }
        self.number_max
    }
}

impl Memory {
    /// Loads an interaction from the file. Returns its id.
    fn restore(&self, number: u64, id: Box<str>, mut record: Interaction) -> Arc<str> {
        let count = if *record.route == *NO_ROUTE { &self.tombstones } else { &self.interactions };
        count.fetch_add(1, Ordering::Relaxed);
        let id: Arc<str> = id.into();
        let mut shard = self.shard(Self::index(&id));
        // There are few routes, so each shard shares one copy of each name.
        match shard.names.get(&record.route) {
            Some(name) => record.route = Arc::clone(name),
            None => drop(shard.names.insert(Arc::clone(&record.route))),
        }
        self.insert(&mut shard, &id, record, number);
        id
    }

    /// Loads a delivered event from the file. `owner` is the id of its interaction.
    fn restore_event(&self, number: u64, event: EventKey, until: Timestamp, owner: Option<&str>) {
        let Some(id) = owner else {
            self.dedup.lock().remember(event, until, number);
            return;
        };
        let mut shard = self.shard(Self::index(id));
        if let Some(slot) = shard.interactions.get_mut(id) {
            slot.record.restore_event(event, number);
            self.events.fetch_add(1, Ordering::Relaxed);
        }
    }
}
