//! Finds the interaction of a callback without a token by the provider's id of the work.
//!
//! Egress learns the id from the provider's response. A callback can arrive before the response was read, so it waits for
//! a short time if a request of its route has no id yet.

use std::collections::HashMap;
use std::sync::Arc;

use crate::interaction::Interaction;

/// The interactions that callbacks find by the provider's id. A lock of it is taken only while the shard of the
/// interaction is locked, and never the other way round.
#[derive(Debug, Default)]
pub(super) struct Matching {
    /// The interactions by route and provider's id.
    pub(super) known: HashMap<(Arc<str>, Box<str>), Arc<str>>,
    /// The number of open interactions of each route whose provider's id is not known yet.
    pub(super) pending: HashMap<Arc<str>, usize>,
}

impl Matching {
    /// Adds an interaction.
    pub(super) fn add(&mut self, id: &Arc<str>, record: &Interaction) {
        match record.provider_id() {
            Some(provider_id) => {
                self.known.insert((Arc::clone(&record.route), provider_id.into()), Arc::clone(id));
            }
            None if record.state.is_open() => {
                *self.pending.entry(Arc::clone(&record.route)).or_default() += 1;
            }
            None => {}
        }
    }

    /// Removes an interaction.
    pub(super) fn remove(&mut self, id: &Arc<str>, record: &Interaction) {
        match record.provider_id() {
            Some(provider_id) => {
                let key = (Arc::clone(&record.route), provider_id.into());
                // A later interaction can have the same id.
                if self.known.get(&key) == Some(id) {
                    self.known.remove(&key);
                }
            }
            None if record.state.is_open() => self.no_longer_pending(record),
            None => {}
        }
    }

    /// Records that an interaction has ended.
    pub(super) fn ended(&mut self, record: &Interaction) {
        if record.provider_id().is_none() {
            self.no_longer_pending(record);
        }
    }

    /// Removes an interaction whose provider's id is about to change.
    pub(super) fn unbind(&mut self, record: &Interaction) {
        match record.provider_id() {
            Some(provider_id) => {
                self.known.remove(&(Arc::clone(&record.route), provider_id.into()));
            }
            None if record.state.is_open() => self.no_longer_pending(record),
            None => {}
        }
    }

    /// Adds an interaction whose provider's id has become known.
    pub(super) fn bind(&mut self, id: &str, record: &Interaction) {
        if let Some(provider_id) = record.provider_id() {
            self.known.insert((Arc::clone(&record.route), provider_id.into()), id.into());
        }
    }

    fn no_longer_pending(&mut self, record: &Interaction) {
        if let Some(pending) = self.pending.get_mut(&record.route) {
            *pending = pending.saturating_sub(1);
        }
    }
}
