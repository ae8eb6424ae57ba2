//! The delivered events in the record of their interaction.

use super::interaction::Interaction;

impl Interaction {
    /// Adds the fingerprint of a delivered event that was read from the file store.
    pub fn restore_event(&mut self, fingerprint: u64) {
        self.more().events.restore(fingerprint);
    }

    /// Returns the fingerprints of the delivered events. The ledger may have forgotten some of these events.
    pub fn delivered_events(&self) -> &[u64] {
        self.more.as_ref().map_or(&[], |more| more.events.delivered())
    }

    /// Removes the fingerprints of events that the ledger has forgotten, if their list would grow otherwise.
    pub fn prune_events(&mut self, is_known: impl Fn(u64) -> bool) {
        if let Some(more) = &mut self.more {
            more.events.prune(is_known);
        }
    }

    /// Removes and returns the fingerprints of the delivered events, if the interaction is over. It then accepts no
    /// callback any more, so that none is delivered twice.
    pub fn forget_events(&mut self) -> Vec<u64> {
        match &mut self.more {
            Some(more) if !self.state.is_open() => {
                more.events_forgotten = true;
                more.events.take()
            }
            _ => Vec::new(),
        }
    }
}
