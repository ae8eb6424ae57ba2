//! A message of the inbox that is stored in the same step as the change of a record.

use bytes::Bytes;
use redis::Value;

use crate::time::Timestamp;

/// A message of the inbox that is stored together with its event and its interaction.
#[derive(Clone, Debug)]
pub(in crate::store) struct NewMessage {
    pub(in crate::store) id: Box<str>,
    pub(in crate::store) interaction: Option<Box<str>>,
    /// Whether the message waits for the earlier messages of its interaction.
    pub(in crate::store) is_ordered: bool,
    pub(in crate::store) due: Timestamp,
    pub(in crate::store) head: Bytes,
    pub(in crate::store) body: Bytes,
}

/// Where a message was stored in a shared ledger: its holder, and the earlier messages of its interaction.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(in crate::store) struct Placed {
    /// The id of the process that holds (delivers) the message.
    pub(in crate::store::redis) holder: Vec<u8>,
    /// The ids of the first waiting message of the interaction and of the message before this one. The holder must have
    /// both in its index before it delivers this message.
    pub(in crate::store) earlier: Vec<String>,
}

impl Placed {
    /// Returns the result of storing a message that this process holds.
    #[cfg(test)]
    pub(in crate::store) fn at(holder: &crate::store::redis::RedisStore, earlier: Vec<String>) -> Self {
        Self { holder: holder.incarnation.as_bytes().to_vec(), earlier }
    }

    /// Parses the values that a script has returned after it has stored a message. Returns `None` if the values do not
    /// contain the holder of the message.
    pub(in crate::store::redis) fn read(values: impl Iterator<Item = Value>) -> Option<Self> {
        let mut values = values.map_while(|value| match value {
            Value::BulkString(bytes) => Some(bytes),
            _ => None,
        });
        let holder = values.next()?;
        let earlier =
            values.filter_map(|id| String::from_utf8(id).ok()).filter(|id| !id.is_empty()).collect();
        Some(Self { holder, earlier })
    }
}

impl NewMessage {
    /// Returns the arguments of this message for the scripts that store a message.
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
