//! Copies the messages of the inbox from one file to another. Both files belong to the same ledger: they have the same
//! fingerprint key, and a message has the same number in both files.

use std::collections::HashMap;

use serde::Deserialize;

use crate::inbox::MessageState;
use crate::store::file::{Change, LedgerFile};

/// The head of a message, and its state. The state is `None` if no attempt to deliver the message was made.
type Stored = (Vec<u8>, Option<Vec<u8>>);

/// The heads and states of the messages in a ledger's file.
#[derive(Debug, Default)]
pub(super) struct Messages {
    /// The highest message number that was ever assigned.
    pub(super) number: u64,
    known: HashMap<u64, Stored>,
}

#[derive(Deserialize)]
struct State {
    state: MessageState,
}

/// Parses the state of a message (JSON), and reports whether the state is `delivered`.
fn is_delivered(state: Option<&[u8]>) -> bool {
    let state = state.and_then(|state| serde_json::from_slice::<State>(state).ok());
    state.is_some_and(|state| state.state == MessageState::Delivered)
}

fn is_settled(state: Option<&[u8]>) -> bool {
    let state = state.and_then(|state| serde_json::from_slice::<State>(state).ok());
    state.is_some_and(|state| !state.state.is_waiting())
}

impl Messages {
    pub(super) fn add(&mut self, number: u64, head: Vec<u8>, state: Option<Vec<u8>>) {
        self.known.insert(number, (head, state));
    }

    /// Returns the number of messages that were not delivered, and the number of delivered messages.
    pub(super) fn counts(&self) -> (usize, usize) {
        let delivered = self.known.values().filter(|(_, state)| is_delivered(state.as_deref())).count();
        (self.known.len() - delivered, delivered)
    }

    /// Returns the number of messages that cannot be copied to another file, which contains the messages `to`. A
    /// message cannot be copied if the other file has a different message with the same number.
    pub(super) fn conflicts(&self, to: &Self) -> usize {
        let differs = |(number, (head, _)): &(&u64, &Stored)| {
            to.known.get(number).is_some_and(|(other, _)| other != head)
        };
        self.known.iter().filter(differs).count()
    }

    /// Reports whether these messages are newer than the messages `other` of another file. This is the case if `other`
    /// lacks a message or a message number, or has a different message with the same number. It is also the case if a
    /// message is waiting in `other`, but delivered or dead here.
    pub(super) fn newer_than(&self, other: &Self) -> bool {
        self.number > other.number
            || self.known.iter().any(|(number, (head, state))| match other.known.get(number) {
                Some((other_head, other_state)) => {
                    head != other_head
                        || (is_settled(state.as_deref()) && !is_settled(other_state.as_deref()))
                }
                None => true,
            })
    }

    /// Reports whether a change must be copied to the target file. `self` contains the messages of the target file
    /// before the copy. A new message is copied together with its state, which is the next change. For this purpose,
    /// `from` stores the number of the last message if the message is new in the target file, and `None` otherwise.
    fn takes(&self, change: &Change, from: &mut Option<u64>) -> bool {
        match change {
            // Every number up to `self.number` was already assigned in the target file. If the target file lacks a
            // message with such a number, it has removed the message, and the message is not copied again.
            Change::Message(number, ..) => {
                let is_new = *number > self.number;
                *from = is_new.then_some(*number);
                is_new
            }
            Change::MessageState(number, _) if *from == Some(*number) => true,
            // The message is not new in the target file. The state is replaced only if the message still waits in the
            // target file, and is delivered or dead in the source file.
            Change::MessageState(number, state) => self
                .known
                .get(number)
                .is_some_and(|(_, own)| is_settled(Some(state)) && !is_settled(own.as_deref())),
            _ => true,
        }
    }
}

/// Copies the messages from one file to another. Returns the number of copied messages.
pub(super) fn copy_messages(
    from: &LedgerFile,
    to: &mut LedgerFile,
    known: &Messages,
) -> Result<usize, String> {
    let text = |fault: crate::store::file::Fault| fault.message;
    let number = from.message_number().map_err(text)?;
    let (mut last, mut copied, mut taken) = (0, 0, None);
    loop {
        let messages = from.messages_after(last).map_err(text)?;
        let Some(next) = messages.last() else { break };
        last = next.key().number;
        let messages: Vec<_> =
            messages.into_iter().filter(|change| known.takes(change, &mut taken)).collect();
        copied += messages.iter().filter(|change| matches!(change, Change::Message(..))).count();
        to.apply(&messages).map_err(text)?;
    }
    to.apply(&[Change::MessageNumber(number)]).map_err(text)?;
    Ok(copied)
}
