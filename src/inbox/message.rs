//! The states of a message of the inbox, and the next state after each attempt to deliver the message.
//!
//! Each row is something that happens. Each column is the present state, and the cell is the next state.
//!
//! | | due | leased | delivered | dead |
//! |---|---|---|---|---|
//! | an attempt or a pull begins | leased | | | |
//! | the agent responds with 2xx, or acknowledges the pulled message | delivered | delivered | | |
//! | the attempt fails, the agent returns the pulled message, or its lease expires | | due, later | | |
//! | the agent responds with 410, or with another 4xx three times | | dead | | |
//! | the period for attempts ends | dead | dead, after the attempt | | |
//! | an operator revokes the interaction | dead | the outcome of the attempt decides | | |
//! | an operator replays the message | | | due | due |

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::outcome::Outcome;
use super::settings::Backoff;
use crate::time::Timestamp;

/// The number of rejections (4xx responses of the agent) after which a message is dead.
const REJECTIONS_MAX: u8 = 3;
/// The period after the first rejection of a message by the agent. A rejection after this period makes the message
/// dead.
const REJECTED_FOR: Duration = Duration::from_secs(600);
/// The maximum number of times that the upper bound of the delay doubles.
const DOUBLINGS_MAX: u32 = 32;

/// The state of a message of the inbox.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum MessageState {
    /// The agent accepted the message.
    Delivered,
    /// Callgate does not try to deliver the message any more.
    Dead,
    /// The message waits for its next attempt or pull.
    Due,
    /// An attempt to deliver the message is in progress, or an agent has pulled the message and works on it.
    Leased,
}

impl MessageState {
    /// All states of a message.
    pub const ALL: [Self; 4] = [Self::Delivered, Self::Dead, Self::Due, Self::Leased];

    /// Returns the stable snake_case name of the state. The name is a metric label and a value in the admin API.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::Dead => "dead",
            Self::Due => "due",
            Self::Leased => "leased",
        }
    }

    /// Returns the state with this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.name() == name)
    }

    /// Reports whether the message is neither delivered nor dead.
    pub const fn is_waiting(self) -> bool {
        matches!(self, Self::Due | Self::Leased)
    }
}

/// The reason why a message is dead (a dead letter).
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// The period for attempts ended before the agent accepted the message.
    GivenUp,
    /// The agent responded with 410.
    Gone,
    /// The agent rejected the message (with a 4xx status other than 408, 410, 425 and 429) three times, or again at
    /// least ten minutes after the first rejection.
    Rejected,
    /// An operator revoked the interaction.
    Revoked,
    /// The configuration does not contain the route of the message any more.
    RouteRemoved,
}

impl Cause {
    /// All reasons why a message is dead.
    pub const ALL: [Self; 5] = [Self::GivenUp, Self::Gone, Self::Rejected, Self::Revoked, Self::RouteRemoved];

    /// Returns the stable snake_case name of the reason.
    pub const fn name(self) -> &'static str {
        match self {
            Self::GivenUp => "given_up",
            Self::Gone => "gone",
            Self::Rejected => "rejected",
            Self::Revoked => "revoked",
            Self::RouteRemoved => "route_removed",
        }
    }
}

/// The counters of the attempts to deliver a message.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Tries {
    /// The number of attempts that may have reached the agent.
    pub attempts: u16,
    /// The number of failed attempts that lengthen the backoff.
    failures: u8,
    /// The number of times that the agent rejected the message with 4xx.
    rejections: u8,
    /// The time of the first rejection by the agent, in Unix seconds.
    rejected_at: u32,
}

/// What happens to a message after an attempt to deliver it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Next {
    /// The message is dead.
    Dead(Cause),
    /// The message was delivered.
    Delivered,
    /// The next attempt may begin at this time.
    Due(Timestamp),
}

/// The circumstances of an attempt to deliver a message.
#[derive(Clone, Copy, Debug)]
pub struct Attempted {
    /// The current time.
    pub now: Timestamp,
    /// The time at which the period for attempts to deliver the message ends.
    pub ends: Timestamp,
    /// Whether the circuit of the agent is open, so that this attempt is a probe. A failed probe does not lengthen the
    /// backoff.
    pub is_probe: bool,
    /// A random number for the jitter of the delay.
    pub random: u64,
}

impl Tries {
    /// Records an attempt with its outcome. Returns what happens to the message.
    pub fn after(&mut self, outcome: Outcome, backoff: Backoff, attempted: Attempted) -> Next {
        let Attempted { now, ends, is_probe, random } = attempted;
        if outcome.was_sent() {
            self.attempts = self.attempts.saturating_add(1);
        }
        let delay = match outcome {
            Outcome::Accepted => return Next::Delivered,
            Outcome::Gone => return Next::Dead(Cause::Gone),
            Outcome::Rejected => match self.rejected(backoff, now) {
                Some(delay) => delay,
                None => return Next::Dead(Cause::Rejected),
            },
            // The circuit breaker of the agent determines when the next attempt may begin.
            Outcome::Unreachable => Duration::ZERO,
            Outcome::Busy(asked) | Outcome::Failed(asked) => {
                if !is_probe {
                    self.failures = self.failures.saturating_add(1);
                }
                asked.unwrap_or_else(|| jitter(bound(backoff, self.failures), random))
            }
        };
        if now >= ends { Next::Dead(Cause::GivenUp) } else { Next::Due(now.plus(delay)) }
    }

    /// Records that the agent rejected the message with 4xx. Returns the delay before the next attempt, or `None` if
    /// the message is dead. The delay is longer than after other failures and has no jitter, because the agent may be
    /// in the middle of a deployment.
    fn rejected(&mut self, backoff: Backoff, now: Timestamp) -> Option<Duration> {
        let at = u32::try_from(now.unix_secs()).unwrap_or(u32::MAX);
        if self.rejections == 0 {
            self.rejected_at = at;
        }
        self.rejections = self.rejections.saturating_add(1);
        let lasts = u64::from(at.saturating_sub(self.rejected_at));
        if self.rejections >= REJECTIONS_MAX || lasts >= REJECTED_FOR.as_secs() {
            return None;
        }
        let delay = backoff.first.saturating_mul(4_u32.saturating_pow(self.rejections.into()));
        Some(delay.min(backoff.most).min(REJECTED_FOR / 2))
    }

    /// Records that the agent has returned a pulled message. Returns the delay before the message can be pulled again.
    pub fn freed(&mut self, backoff: Backoff, random: u64) -> Duration {
        self.failures = self.failures.saturating_add(1);
        jitter(bound(backoff, self.failures), random)
    }

    /// Records that the agent has pulled the message.
    pub fn pulled(&mut self) {
        self.attempts = self.attempts.saturating_add(1);
    }

    /// Resets the failures and rejections, because an operator replays the message. Does not reset the number of
    /// attempts.
    pub fn replayed(&mut self) {
        *self = Self { attempts: self.attempts, ..Self::default() };
    }
}

/// Returns the upper bound of the delay after `failures` failed attempts.
fn bound(backoff: Backoff, failures: u8) -> Duration {
    let doublings = u32::from(failures).saturating_sub(1).min(DOUBLINGS_MAX);
    let factor = 2_u32.saturating_pow(doublings);
    backoff.first.saturating_mul(factor).min(backoff.most)
}

/// Returns a random delay from 0 to `most`, so that messages that failed at the same time are retried at different
/// times.
fn jitter(most: Duration, random: u64) -> Duration {
    let ms = u64::try_from(most.as_millis()).unwrap_or(u64::MAX);
    Duration::from_millis(random % ms.saturating_add(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    const BACKOFF: Backoff = Backoff { first: Duration::from_secs(1), most: Duration::from_secs(3600) };

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_unix_secs(1_000_000 + seconds)
    }

    fn attempted(seconds: i64, random: u64) -> Attempted {
        Attempted { now: at(seconds), ends: at(259_200), is_probe: false, random }
    }

    #[test]
    fn each_outcome_has_its_consequence() {
        let minute = Duration::from_secs(60);
        for (outcome, next, attempts) in [
            (Outcome::Accepted, Next::Delivered, 1),
            (Outcome::Gone, Next::Dead(Cause::Gone), 1),
            (Outcome::Rejected, Next::Due(at(4)), 1),
            (Outcome::Busy(Some(minute)), Next::Due(at(60)), 1),
            (Outcome::Failed(Some(minute)), Next::Due(at(60)), 1),
            (Outcome::Failed(None), Next::Due(at(0).plus(Duration::from_millis(500))), 1),
            (Outcome::Unreachable, Next::Due(at(0)), 0),
        ] {
            let mut tries = Tries::default();
            assert_eq!(tries.after(outcome, BACKOFF, attempted(0, 500)), next, "{outcome:?}");
            assert_eq!(tries.attempts, attempts, "{outcome:?}");
        }
    }

    #[test]
    fn the_backoff_doubles_up_to_its_maximum_with_full_jitter() {
        let mut tries = Tries::default();
        for doublings in 0..40 {
            let most = 1000 * 2_u64.pow(doublings.min(20)).min(3600);
            for random in [0, most] {
                let mut copy = tries;
                let Next::Due(due) = copy.after(Outcome::Failed(None), BACKOFF, attempted(0, random)) else {
                    panic!("it is due again")
                };
                assert_eq!(due, at(0).plus(Duration::from_millis(random)), "{doublings}");
                // A random number that exceeds the upper bound by 1 results in the delay 0.
                let mut copy = tries;
                let wrapped = copy.after(Outcome::Failed(None), BACKOFF, attempted(0, most + 1));
                assert_eq!(wrapped, Next::Due(at(0)));
            }
            tries.after(Outcome::Failed(None), BACKOFF, attempted(0, 0));
        }
        assert_eq!(tries.attempts, 40);
    }

    #[test]
    fn a_rejected_message_is_tried_three_times_within_ten_minutes() {
        let mut tries = Tries::default();
        let mut after = |seconds| tries.after(Outcome::Rejected, BACKOFF, attempted(seconds, 0));
        assert_eq!([after(0), after(4)], [Next::Due(at(4)), Next::Due(at(20))]);
        assert_eq!(after(20), Next::Dead(Cause::Rejected));
        let mut tries = Tries::default();
        tries.after(Outcome::Rejected, BACKOFF, attempted(0, 0));
        tries.after(Outcome::Failed(None), BACKOFF, attempted(4, 0));
        assert_eq!(
            tries.after(Outcome::Rejected, BACKOFF, attempted(600, 0)),
            Next::Dead(Cause::Rejected),
            "ten minutes have passed"
        );
    }

    #[test]
    fn attempts_end_with_their_time_and_not_with_their_number() {
        let mut tries = Tries::default();
        for _ in 0..1000 {
            let next = tries.after(Outcome::Failed(None), BACKOFF, attempted(259_199, 0));
            assert_eq!(next, Next::Due(at(259_199)));
        }
        let last = tries.after(Outcome::Failed(None), BACKOFF, attempted(259_200, 0));
        assert_eq!(last, Next::Dead(Cause::GivenUp));
        assert_eq!(tries.after(Outcome::Accepted, BACKOFF, attempted(259_200, 0)), Next::Delivered);
    }

    #[test]
    fn probes_of_an_open_circuit_do_not_lengthen_the_backoff() {
        let mut tries = Tries::default();
        let probe = Attempted { is_probe: true, ..attempted(0, 999) };
        for _ in 0..10 {
            tries.after(Outcome::Failed(None), BACKOFF, probe);
        }
        let next = tries.after(Outcome::Failed(None), BACKOFF, attempted(0, 1000));
        assert_eq!((next, tries.attempts), (Next::Due(at(1)), 11));
    }

    #[test]
    fn a_replayed_message_begins_anew_and_keeps_the_number_of_its_attempts() {
        let mut tries = Tries::default();
        for _ in 0..3 {
            tries.after(Outcome::Rejected, BACKOFF, attempted(0, 0));
        }
        tries.replayed();
        assert_eq!(tries.after(Outcome::Rejected, BACKOFF, attempted(0, 0)), Next::Due(at(4)));
        assert_eq!(tries.attempts, 4);
        assert_eq!(tries.freed(BACKOFF, 1000), Duration::from_secs(1));
        tries.pulled();
        assert_eq!(tries.attempts, 5);
    }

    #[test]
    fn names_are_unique_and_read_back() {
        for state in MessageState::ALL {
            assert_eq!(MessageState::from_name(state.name()), Some(state));
        }
        let names: std::collections::HashSet<_> = Cause::ALL.map(Cause::name).into_iter().collect();
        assert_eq!(names.len(), Cause::ALL.len());
    }
}
