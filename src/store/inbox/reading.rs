//! Reads messages, and encrypts and decrypts their bodies.

use std::time::Duration;

use bytes::Bytes;

use super::backing::Parts;
use super::{Inbox, Message, MessageHead, entry};
use crate::denial::{Denial, Refusal};
use crate::ingress::Kept;

impl Inbox {
    /// Reads a message and decrypts its body. Returns `None` if the ledger does not contain the message.
    ///
    /// # Errors
    /// Returns an explanation if the message cannot be read or decrypted now.
    pub async fn read(&self, number: u64) -> Result<Option<Message>, String> {
        self.read_to_watch(number).await?
    }

    /// Reads a message for a client that only watches. Returns `Ok(Err(…))` with an explanation if the message itself cannot
    /// be read, for example because it was encrypted with another secret.
    ///
    /// # Errors
    /// Returns an explanation if the ledger does not respond now.
    pub async fn read_to_watch(&self, number: u64) -> Result<Result<Option<Message>, String>, String> {
        let stored = self.backing.read(number, &self.id(number)).await?;
        Ok(stored.map(|stored| self.open(number, stored)).transpose())
    }

    /// Reads a message for an attempt that lasts up to `patience`, or for an agent that has pulled the message. In a
    /// shared ledger, no other process begins an attempt meanwhile. Returns `None` if the message does not exist any
    /// more, or if another process has taken over the message.
    ///
    /// # Errors
    /// Returns an explanation if the message cannot be read or decrypted now.
    pub async fn begin(&self, number: u64, patience: Duration) -> Result<Option<Message>, String> {
        let (lease, pulled) = self.terms(number, patience);
        match self.backing.begin(number, &self.id(number), lease, pulled).await? {
            Some(stored) => self.open(number, stored).map(Some),
            None => {
                self.forget(&[number]);
                Ok(None)
            }
        }
    }

    fn open(&self, number: u64, stored: Parts) -> Result<Message, String> {
        let kept = Kept::from_bytes(&stored.head)?;
        let body = match kept.is_sealed {
            false => stored.body,
            true => {
                let (settings, id) = (self.settings(), self.id(number));
                let opened = settings.sealer.as_ref().and_then(|sealer| sealer.open(&id, &stored.body));
                opened.ok_or("the key in `inbox.seal` does not decrypt the body")?
            }
        };
        Ok(Message { kept, body: body.into() })
    }

    /// Reads the head and the state of a message. Returns `None` if the ledger does not contain the message.
    ///
    /// # Errors
    /// Returns an explanation if the message cannot be read now.
    pub async fn read_head(&self, number: u64) -> Result<Option<MessageHead>, String> {
        let Some(stored) = self.backing.read_head(number, &self.id(number)).await? else { return Ok(None) };
        let kept = Kept::from_bytes(&stored.head)?;
        let state = stored.state.and_then(|state| serde_json::from_slice::<entry::StoredState>(&state).ok());
        Ok(Some(MessageHead { kept, last_result: state.and_then(|state| state.last) }))
    }

    /// Returns the body in the form in which the ledger stores it: encrypted if the settings contain a key.
    pub(super) fn sealed(&self, id: &str, body: Bytes) -> Result<Bytes, Refusal> {
        let settings = self.settings();
        let sealed = match &settings.sealer {
            None => Some(body),
            Some(sealer) => sealer.seal(id, &body).map(Bytes::from),
        };
        let detail = "the body could not be encrypted: the system has no random numbers";
        sealed.ok_or_else(|| Refusal::new(Denial::StoreUnavailable, detail))
    }
}
