//! The states of an interaction, and the next state for each event.
//!
//! | event | open | progressing | asking | done, failed, expired, not sent | revoked |
//! |---|---|---|---|---|---|
//! | a callback reports progress | progressing | progressing | asking | over | over |
//! | a callback asks a question | asking | asking | asking | over | over |
//! | the agent answers the last open question | progressing | progressing | progressing | over | over |
//! | a callback reports success, or is the last one allowed | done | done | done | over | over |
//! | a callback reports failure | failed | failed | failed | over | over |
//! | the deadline, or the expiry of the token, passes | expired | expired | expired | over | over |
//! | the provider did not accept the request | not sent | not sent | not sent | over | over |
//! | somebody revokes the interaction | revoked | revoked | revoked | revoked | revoked |
//!
//! *Over* means that the event changes nothing. An interaction that has ended never becomes open again. It can still be
//! revoked, because its token may still be valid after the work has ended.

use serde::{Deserialize, Serialize};

/// The state of an interaction.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// The provider asked a question, and the agent has not answered it.
    Asking,
    /// A callback reported success.
    Done,
    /// The deadline or the expiry of the token passed before a final callback arrived.
    Expired,
    /// A callback reported failure.
    Failed,
    /// The request did not reach the provider, or the provider did not accept it.
    NotSent,
    /// No callback has arrived yet.
    Open,
    /// A callback has arrived, but no final callback has arrived yet.
    Progressing,
    /// Somebody revoked the interaction.
    Revoked,
}

/// An event that can change the state of an interaction.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Event {
    /// The agent answered the last open question.
    Answered,
    /// A callback asked a question.
    Asked,
    /// A callback reported success, or was the last callback that the token allows.
    Completed,
    /// A callback reported failure.
    Failed,
    /// The deadline or the expiry of the token passed.
    Lapsed,
    /// The request did not reach the provider, or the provider did not accept it.
    NotSent,
    /// A callback that is neither final nor a question arrived.
    Progressed,
    /// Somebody revoked the interaction.
    Revoked,
}

/// The error for an event that came too late, because the interaction has ended. The field is the state of the
/// interaction.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Over(pub State);

impl State {
    /// All states, in alphabetical order.
    pub const ALL: [Self; 8] = [
        Self::Asking,
        Self::Done,
        Self::Expired,
        Self::Failed,
        Self::NotSent,
        Self::Open,
        Self::Progressing,
        Self::Revoked,
    ];

    /// Reports whether the interaction still accepts callbacks.
    pub const fn is_open(self) -> bool {
        matches!(self, Self::Asking | Self::Open | Self::Progressing)
    }

    /// Returns the stable name in snake_case. The name is a metric label, a log field and a value in the callbacks API.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Asking => "asking",
            Self::Done => "done",
            Self::Expired => "expired",
            Self::Failed => "failed",
            Self::NotSent => "not_sent",
            Self::Open => "open",
            Self::Progressing => "progressing",
            Self::Revoked => "revoked",
        }
    }

    /// Returns the state with this name, or `None` if there is no such state.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.name() == name)
    }
}

/// Returns the state of an interaction after an event.
///
/// # Errors
/// Returns [`Over`] if the interaction has ended. The state then stays as it is.
pub const fn next(state: State, event: Event) -> Result<State, Over> {
    match (state, event) {
        (_, Event::Revoked) => Ok(State::Revoked),
        (over, _) if !over.is_open() => Err(Over(over)),
        (_, Event::Completed) => Ok(State::Done),
        (_, Event::Failed) => Ok(State::Failed),
        (_, Event::Lapsed) => Ok(State::Expired),
        (_, Event::NotSent) => Ok(State::NotSent),
        (_, Event::Asked) | (State::Asking, Event::Progressed) => Ok(State::Asking),
        (_, Event::Answered | Event::Progressed) => Ok(State::Progressing),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVENTS: [Event; 8] = [
        Event::Answered,
        Event::Asked,
        Event::Completed,
        Event::Failed,
        Event::Lapsed,
        Event::NotSent,
        Event::Progressed,
        Event::Revoked,
    ];

    #[test]
    fn what_is_over_stays_over_and_can_only_be_revoked() {
        for state in State::ALL.into_iter().filter(|state| !state.is_open()) {
            for event in EVENTS {
                let after = if event == Event::Revoked { Ok(State::Revoked) } else { Err(Over(state)) };
                assert_eq!(next(state, event), after, "{state:?} {event:?}");
            }
        }
    }

    #[test]
    fn the_open_states_follow_the_table() {
        for state in State::ALL.into_iter().filter(|state| state.is_open()) {
            for (event, after) in [
                (Event::Answered, State::Progressing),
                (Event::Asked, State::Asking),
                (Event::Completed, State::Done),
                (Event::Failed, State::Failed),
                (Event::Lapsed, State::Expired),
                (Event::NotSent, State::NotSent),
                (Event::Revoked, State::Revoked),
            ] {
                assert_eq!(next(state, event), Ok(after), "{state:?} {event:?}");
            }
        }
        assert_eq!(next(State::Open, Event::Progressed), Ok(State::Progressing));
        assert_eq!(next(State::Asking, Event::Progressed), Ok(State::Asking));
    }

    #[test]
    fn names_are_unique_and_read_back() {
        assert!(State::ALL.into_iter().all(|state| State::from_name(state.name()) == Some(state)));
    }
}
