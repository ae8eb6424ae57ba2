//! A message of the inbox that is stored in the same step as the change of a record.

use bytes::Bytes;

use crate::time::Timestamp;

/// A message that is stored together with its event and its interaction.
#[derive(Clone, Debug)]
pub(in crate::store) struct NewMessage {
    pub(in crate::store) id: Box<str>,
    pub(in crate::store) interaction: Option<Box<str>>,
    /// Whether the message waits for the earlier ones of its interaction.
    pub(in crate::store) is_ordered: bool,
    pub(in crate::store) due: Timestamp,
    pub(in crate::store) head: Bytes,
    pub(in crate::store) body: Bytes,
}

impl NewMessage {
    /// Returns the arguments of the scripts that store a message.
    pub(in crate::store::redis) fn arguments(&self, holder: &str) -> [Vec<u8>; 7] {
        [
            self.id.as_bytes().to_vec(),
            holder.as_bytes().to_vec(),
            self.interaction.as_deref().unwrap_or_default().as_bytes().to_vec(),
            if self.is_ordered { Vec::new() } else { b"1".to_vec() },
            self.due.unix_ms().to_string().into_bytes(),
            self.head.to_vec(),
            self.body.to_vec(),
        ]
    }
}
