//! Fills the memory of the ledger with the content of its file.

use std::collections::HashMap;

use super::file::{Contents, NO_OWNER};
use super::memory::Memory;

/// Loads the contents of a file into memory.
pub(super) fn restore(contents: Contents, memory: &Memory) {
    let interactions = contents.interactions.into_iter();
    let owners: HashMap<_, _> =
        interactions.map(|(number, id, record)| (number, memory.restore(number, id, record))).collect();
    for (number, event, until, owner) in contents.events {
        match owners.get(&owner) {
            Some(id) => memory.restore_event(number, event, until, Some(id)),
            None if owner == NO_OWNER => memory.restore_event(number, event, until, None),
            None => {}
        }
    }
}
