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

    /// Returns the number of messages that were not delivered.
    pub(super) fn undelivered(&self) -> usize {
        self.known.values().filter(|(_, state)| !is_delivered(state.as_deref())).count()
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

#[cfg(test)]
mod tests {
    use super::*;

    const DUE: Option<&str> = Some(r#"{"state":"due"}"#);
    const LEASED: Option<&str> = Some(r#"{"state":"leased"}"#);
    const DELIVERED: Option<&str> = Some(r#"{"state":"delivered"}"#);
    const DEAD: Option<&str> = Some(r#"{"state":"dead"}"#);

    /// Returns messages with these numbers, heads and states. `number` is the highest assigned message number.
    fn messages(number: u64, all: &[(u64, &str, Option<&str>)]) -> Messages {
        let mut messages = Messages { number, ..Messages::default() };
        for (number, head, state) in all {
            messages.add(*number, head.as_bytes().to_vec(), state.map(|state| state.as_bytes().to_vec()));
        }
        messages
    }

    #[test]
    fn only_delivered_messages_do_not_count_as_lost() {
        let states = [None, DUE, LEASED, DELIVERED, DEAD, DELIVERED, Some("damaged")];
        let all: Vec<_> = (1..).zip(states).map(|(number, state)| (number, "a", state)).collect();
        assert_eq!(messages(7, &all).undelivered(), 5);
        assert_eq!(messages(7, &all[3..4]).undelivered(), 0);
    }

    #[test]
    fn different_messages_with_the_same_number_are_conflicts() {
        let to = messages(3, &[(1, "a", None), (2, "b", DUE), (3, "c", None)]);
        let from = messages(4, &[(1, "a", DUE), (2, "x", DUE), (3, "y", None), (4, "d", None)]);
        assert_eq!((from.conflicts(&to), to.conflicts(&from), to.conflicts(&to)), (2, 2, 0));
    }

    #[test]
    fn messages_are_newer_if_the_other_file_lacks_one_of_their_changes() {
        let known = [(1, "a", None), (2, "b", DEAD)];
        let other = messages(2, &known);
        for (name, number, all, is_newer) in [
            ("the same", 2, &known[..], false),
            ("fewer", 2, &known[..1], false),
            ("a lower number", 1, &known, false),
            ("a higher number", 3, &known, true),
            ("another message", 2, &[(1, "x", None)], true),
            ("a message that the other file lacks", 2, &[(3, "c", None)], true),
            ("an attempt", 2, &[(1, "a", DUE)], false),
            ("delivered", 2, &[(1, "a", DELIVERED)], true),
            ("dead", 2, &[(1, "a", DEAD)], true),
            ("dead there", 2, &[(2, "b", DUE)], false),
            ("dead there, delivered here", 2, &[(2, "b", DELIVERED)], false),
        ] {
            assert_eq!(messages(number, all).newer_than(&other), is_newer, "{name}");
        }
    }

    #[test]
    fn a_copy_takes_new_messages_with_their_states_and_the_ends_of_waiting_ones() {
        let to = messages(3, &[(1, "a", DUE), (2, "b", DEAD)]);
        let message = |number| Change::Message(number, b"a"[..].into(), b"body"[..].into());
        let state =
            |number, state: Option<&str>| Change::MessageState(number, state.unwrap().as_bytes().to_vec());
        let mut from = None;
        for (name, change, takes) in [
            ("known", message(1), false),
            ("still waiting", state(1, DUE), false),
            ("delivered meanwhile", state(1, DELIVERED), true),
            ("dead meanwhile", state(1, DEAD), true),
            ("dead", message(2), false),
            ("delivered after it was dead", state(2, DELIVERED), false),
            ("removed from the target", message(3), false),
            ("its state", state(3, DELIVERED), false),
            ("new", message(4), true),
            ("the state of the new message", state(4, DUE), true),
            ("the state of another message", state(5, DUE), false),
        ] {
            assert_eq!(to.takes(&change, &mut from), takes, "{name}");
        }
    }
}
