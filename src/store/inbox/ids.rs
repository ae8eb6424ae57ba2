//! The ids of messages. An id has a number and a fingerprint, so that nobody can guess it, and no other installation has
//! the same one.

use std::collections::HashMap;
use std::sync::OnceLock;

use parking_lot::Mutex;

use crate::interaction::EventKey;
use crate::store::event_memory::FingerprintKey;

/// The beginning of an id.
pub(super) const ID: &str = "msg_";

/// The ids of messages.
#[derive(Debug, Default)]
pub(super) struct Ids {
    /// The key of the fingerprints. In a shared ledger, it is known once the engine has answered.
    key: OnceLock<FingerprintKey>,
    /// The ids that another key has made, by number: another process had it before the data of the engine was replaced.
    foreign: Mutex<HashMap<u64, Box<str>>>,
}

impl Ids {
    pub(super) fn has_key(&self) -> bool {
        self.key.get().is_some()
    }

    pub(super) fn set_key(&self, key: FingerprintKey) {
        let _ = self.key.set(key);
    }

    /// Records an id that another key has made.
    pub(super) fn add_foreign(&self, number: u64, id: &str) {
        self.foreign.lock().insert(number, id.into());
    }

    /// Returns the id of the message with this number.
    pub(super) fn id(&self, number: u64) -> String {
        let foreign = self.foreign.lock();
        if !foreign.is_empty()
            && let Some(id) = foreign.get(&number)
        {
            return id.to_string();
        }
        drop(foreign);
        let fingerprint = self.key.get().map(|key| key.fingerprint("inbox", EventKey(number.into())));
        format!("{ID}{number}_{:016x}", fingerprint.unwrap_or_default())
    }
}
