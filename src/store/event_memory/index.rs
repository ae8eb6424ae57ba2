//! Finds events by their fingerprint. The index consists of hash tables with the 32-bit positions of the events in the
//! log (`log.rs`). Only the log contains the fingerprints themselves. A slot of a table therefore has only five bytes:
//! the position of the event, and one byte of its fingerprint as a tag.
//!
//! Each table grows independently of the others, so that no single growth takes long.

/// The tag of an empty slot.
const EMPTY: u8 = 0;
/// The first number of slots of a table. Each growth of the table doubles the number, so it is a power of two.
const SLOTS_MIN: usize = 8;

/// The position of an event in the log.
pub(super) type Position = u32;

/// The positions of all events, by fingerprint.
#[derive(Debug)]
pub(super) struct EventIndex {
    tables: Box<[Table]>,
}

/// A hash table with open addressing and linear probing.
#[derive(Debug, Default)]
struct Table {
    tags: Vec<u8>,
    positions: Vec<Position>,
    len: usize,
}

impl EventIndex {
    /// Creates an empty index with this number of tables.
    pub(super) fn new(tables: usize) -> Self {
        Self { tables: (0..tables.max(1)).map(|_| Table::default()).collect() }
    }

    /// Returns the position of the event with this fingerprint. `fingerprint_at` reads the fingerprint at a position of
    /// the log.
    pub(super) fn find(
        &self,
        fingerprint: u64,
        fingerprint_at: impl Fn(Position) -> Option<u64>,
    ) -> Option<Position> {
        let table = self.tables.get(self.table(fingerprint))?;
        let slot = table.find(fingerprint, fingerprint_at)?;
        table.positions.get(slot).copied()
    }

    /// Adds an event that the index does not contain yet.
    pub(super) fn insert(
        &mut self,
        fingerprint: u64,
        position: Position,
        fingerprint_at: impl Fn(Position) -> Option<u64>,
    ) {
        let number = self.table(fingerprint);
        if let Some(table) = self.tables.get_mut(number) {
            table.insert(fingerprint, position, fingerprint_at);
        }
    }

    /// Removes an event from the index. The log must still contain the fingerprint of the event. Returns the position
    /// of the event.
    pub(super) fn remove(
        &mut self,
        fingerprint: u64,
        fingerprint_at: impl Fn(Position) -> Option<u64>,
    ) -> Option<Position> {
        let number = self.table(fingerprint);
        let table = self.tables.get_mut(number)?;
        let slot = table.find(fingerprint, &fingerprint_at)?;
        let position = table.positions.get(slot).copied();
        table.remove(slot, fingerprint_at);
        position
    }

    /// Changes the position of an event that was moved in the log from `from` to `to`.
    pub(super) fn replace(&mut self, fingerprint: u64, from: Position, to: Position) {
        let number = self.table(fingerprint);
        if let Some(table) = self.tables.get_mut(number) {
            table.replace(fingerprint, from, to);
        }
    }

    /// Returns the number of the table for a fingerprint. The highest bits of the fingerprint determine the table.
    fn table(&self, fingerprint: u64) -> usize {
        let product = u128::from(fingerprint) * self.tables.len() as u128;
        usize::try_from(product >> 64).unwrap_or(0)
    }
}

/// Returns the tag of a fingerprint. It is never [`EMPTY`].
fn tag(fingerprint: u64) -> u8 {
    let [.., byte] = (fingerprint >> 32).to_be_bytes();
    byte.max(1)
}

impl Table {
    /// Returns the slot in which the search for a fingerprint begins.
    fn home(&self, fingerprint: u64) -> usize {
        usize::try_from(fingerprint & u64::from(u32::MAX)).unwrap_or(0) & self.mask()
    }

    fn mask(&self) -> usize {
        self.tags.len().wrapping_sub(1)
    }

    fn find(&self, fingerprint: u64, fingerprint_at: impl Fn(Position) -> Option<u64>) -> Option<usize> {
        let (mut slot, tag) = (self.home(fingerprint), tag(fingerprint));
        // A table is never full, so the search ends. An empty table has no slots.
        loop {
            match *self.tags.get(slot)? {
                EMPTY => return None,
                found if found == tag && fingerprint_at(*self.positions.get(slot)?) == Some(fingerprint) => {
                    return Some(slot);
                }
                _ => {}
            }
            slot = (slot + 1) & self.mask();
        }
    }

    fn insert(
        &mut self,
        fingerprint: u64,
        position: Position,
        fingerprint_at: impl Fn(Position) -> Option<u64>,
    ) {
        if (self.len + 1) * 4 > self.tags.len() * 3 {
            let slots = (self.tags.len() * 2).max(SLOTS_MIN);
            let tags = std::mem::replace(&mut self.tags, vec![EMPTY; slots]);
            let positions = std::mem::replace(&mut self.positions, vec![0; slots]);
            for (_, position) in tags.into_iter().zip(positions).filter(|(tag, _)| *tag != EMPTY) {
                if let Some(fingerprint) = fingerprint_at(position) {
                    self.put(fingerprint, position);
                }
            }
        }
        self.put(fingerprint, position);
        self.len += 1;
    }

    fn put(&mut self, fingerprint: u64, position: Position) {
        let mut slot = self.home(fingerprint);
        while self.tags.get(slot).is_some_and(|tag| *tag != EMPTY) {
            slot = (slot + 1) & self.mask();
        }
        self.set(slot, tag(fingerprint), position);
    }

    fn set(&mut self, slot: usize, tag: u8, position: Position) {
        if let (Some(to), Some(at)) = (self.tags.get_mut(slot), self.positions.get_mut(slot)) {
            (*to, *at) = (tag, position);
        }
    }

    /// Removes the entry in a slot. Then moves later entries in adjacent slots back, so that a search still finds them.
    fn remove(&mut self, slot: usize, fingerprint_at: impl Fn(Position) -> Option<u64>) {
        let (mut hole, mut next) = (slot, (slot + 1) & self.mask());
        while let (Some(&tag), Some(&position)) = (self.tags.get(next), self.positions.get(next))
            && tag != EMPTY
        {
            let home = fingerprint_at(position).map_or(next, |fingerprint| self.home(fingerprint));
            let distance = |from: usize| next.wrapping_sub(from) & self.mask();
            if distance(home) >= distance(hole) {
                self.set(hole, tag, position);
                hole = next;
            }
            next = (next + 1) & self.mask();
        }
        self.set(hole, EMPTY, 0);
        self.len = self.len.saturating_sub(1);
    }

    fn replace(&mut self, fingerprint: u64, from: Position, to: Position) {
        let mut slot = self.home(fingerprint);
        while let (Some(&tag), Some(position)) = (self.tags.get(slot), self.positions.get_mut(slot))
            && tag != EMPTY
        {
            if *position == from {
                *position = to;
                return;
            }
            slot = (slot + 1) & self.mask();
        }
    }
}
