//! The agents that wait for messages to pull.

use tokio::sync::Notify;
use tokio::sync::futures::Notified;

use super::entry::NO_LANE;

/// The number of groups into which waiting agents are divided by interaction.
const GROUPS: usize = 64;

/// Wakes agents that wait for messages. With a shared ledger, an agent that wakes up causes a call to a Redis server.
/// An agent that waits for one interaction is therefore woken only by changes of the interactions in the same group.
#[derive(Debug)]
pub(super) struct PullWaiters {
    /// Wakes the agents that wait for messages of any interaction.
    any: Notify,
    /// Wakes the agents that wait for messages of one interaction.
    groups: [Notify; GROUPS],
}

impl Default for PullWaiters {
    fn default() -> Self {
        Self { any: Notify::new(), groups: std::array::from_fn(|_| Notify::new()) }
    }
}

impl PullWaiters {
    /// Returns a future that ends when the interaction with this fingerprint has changed. For [`NO_LANE`], the future
    /// ends when any interaction has changed.
    pub(super) fn wait(&self, lane: u64) -> Notified<'_> {
        match lane {
            NO_LANE => self.any.notified(),
            lane => self.group(lane).notified(),
        }
    }

    /// Wakes the agents that wait for the interaction with this fingerprint, and the agents that wait for any
    /// interaction.
    pub(super) fn wake(&self, lane: u64) {
        self.any.notify_waiters();
        if lane != NO_LANE {
            self.group(lane).notify_waiters();
        }
    }

    /// Wakes all waiting agents.
    pub(super) fn wake_all(&self) {
        self.any.notify_waiters();
        self.groups.iter().for_each(Notify::notify_waiters);
    }

    fn group(&self, lane: u64) -> &Notify {
        let group = usize::try_from(lane % GROUPS as u64).unwrap_or_default();
        self.groups.get(group).unwrap_or(&self.any)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_those_are_woken_whom_a_change_concerns() {
        let waiters = PullWaiters::default();
        let woken = |wake: &dyn Fn()| {
            let waits = [NO_LANE, 7, 8].map(|lane| Box::pin(waiters.wait(lane)));
            wake();
            waits.map(|mut wait| wait.as_mut().enable())
        };
        assert_eq!(woken(&|| {}), [false, false, false]);
        assert_eq!(woken(&|| waiters.wake(7)), [true, true, false]);
        assert_eq!(woken(&|| waiters.wake(NO_LANE)), [true, false, false]);
        assert_eq!(woken(&|| waiters.wake_all()), [true, true, true]);
    }
}
