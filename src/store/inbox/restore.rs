//! Loads the messages of the ledger's file into memory, without their bodies.

use std::sync::atomic::Ordering;

use super::Inbox;
use super::entry::StoredState;
use crate::ingress::Kept;

impl Inbox {
    /// Records that the message numbers up to `number` were assigned.
    pub(in crate::store) fn continue_after(&self, number: u64) {
        self.number.fetch_max(number, Ordering::SeqCst);
    }

    /// Adds a message of the ledger's file to the index. A message whose head cannot be read stays in the file, and is
    /// logged.
    pub(in crate::store) fn restore(&self, number: u64, head: &[u8], state: Option<&[u8]>) {
        self.continue_after(number);
        let kept = match Kept::from_bytes(head) {
            Ok(kept) => kept,
            Err(error) => {
                return log::error!("the message {} cannot be read: {error}", self.id(number));
            }
        };
        let bytes = (head.len() as u64).saturating_add(kept.body_bytes.into());
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        let mut entry = self.entry(&kept, bytes);
        if let Some(stored) = state.and_then(|state| serde_json::from_slice::<StoredState>(state).ok()) {
            entry.resume(&stored);
        }
        let mut index = self.index.lock();
        index.count += 1;
        index.bytes += u64::from(bytes);
        index.add(number, entry);
    }
}
