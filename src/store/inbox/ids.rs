//! The ids of messages. A message id consists of a number and a fingerprint. It cannot be guessed, and no other
//! installation has the same id.

use std::collections::HashMap;
use std::sync::OnceLock;

use parking_lot::Mutex;

use crate::interaction::EventKey;
use crate::store::event_memory::FingerprintKey;

/// The prefix of a message id.
pub(super) const ID: &str = "msg_";

/// Converts message numbers to message ids.
#[derive(Debug, Default)]
pub(super) struct Ids {
    /// The secret key of the fingerprints in message ids. In a shared ledger, the key is known once Redis or Valkey has
    /// responded.
    key: OnceLock<FingerprintKey>,
    /// Maps message numbers to message ids whose fingerprint was computed with another secret key than `key`. Another
    /// process created these ids before the data of the Redis server was replaced.
    foreign: Mutex<HashMap<u64, Box<str>>>,
}

impl Ids {
    pub(super) fn has_key(&self) -> bool {
        self.key.get().is_some()
    }

    pub(super) fn set_key(&self, key: FingerprintKey) {
        let _ = self.key.set(key);
    }

    /// Records a message id whose fingerprint was computed with another secret key than the key of this ledger.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_message_with_a_foreign_id_has_another_id() {
        let ids = Ids::default();
        assert!(!ids.has_key());
        ids.set_key(FingerprintKey([1, 2]));
        assert!(ids.has_key());
        let own = [ids.id(7), ids.id(8)];
        assert!(own[0].starts_with("msg_7_") && own[1].starts_with("msg_8_"), "{own:?}");
        ids.add_foreign(7, "msg_7_00000000000000ff");
        assert_eq!([ids.id(7), ids.id(8)], ["msg_7_00000000000000ff", &own[1]]);
    }
}
