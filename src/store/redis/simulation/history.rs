//! The observations of callers and agents about each interaction of a simulation, and the invariants that they must
//! satisfy.

use std::collections::HashMap;

use parking_lot::Mutex;

use crate::interaction::{EventKey, SharedRecord, State};

/// The observations about one interaction.
#[derive(Clone, Debug, Default)]
pub(super) struct Story {
    pub(super) uses: Option<u32>,
    pub(super) is_revoked: bool,
    pub(super) events: HashMap<u128, Seen>,
    /// The number of times that an agent has acknowledged the notice of the interaction.
    pub(super) reported: u32,
    /// The number of acknowledged notices that could not be recorded.
    pub(super) unrecorded_reports: u32,
}

/// The observations about one event.
#[derive(Clone, Debug, Default)]
pub(super) struct Seen {
    /// The number of times that an agent has accepted the event.
    pub(super) accepted: u32,
    /// The number of accepted deliveries of the event that were recorded.
    pub(super) settled: u32,
    /// The number of accepted deliveries of the event that could not be recorded.
    pub(super) unrecorded: u32,
    /// Whether the provider received 200 for the event.
    pub(super) is_acknowledged: bool,
}

/// The observations about all interactions of one ledger.
#[derive(Default)]
pub(super) struct History {
    stories: Mutex<HashMap<String, Story>>,
    faults: Mutex<Vec<String>>,
}

impl History {
    /// Changes the observations about an interaction. Returns the result of `change`.
    pub(super) fn note<T>(&self, id: &str, change: impl FnOnce(&mut Story) -> T) -> T {
        change(self.stories.lock().entry(id.to_owned()).or_default())
    }

    pub(super) fn event<T>(&self, id: &str, event: u128, change: impl FnOnce(&mut Seen) -> T) -> T {
        self.note(id, |story| change(story.events.entry(event).or_default()))
    }

    pub(super) fn fault(&self, fault: String) {
        self.faults.lock().push(fault);
    }

    pub(super) fn ids(&self) -> Vec<String> {
        let mut ids: Vec<_> = self.stories.lock().keys().cloned().collect();
        ids.sort();
        ids
    }

    pub(super) fn faults(&self) -> Vec<String> {
        self.faults.lock().clone()
    }

    /// Compares the observations about an interaction with its record at the end of the simulation.
    pub(super) fn check(&self, id: &str, record: Option<&SharedRecord>) {
        let story = self.note(id, |story| story.clone());
        let Some(record) = record else {
            return self.fault(format!("{id} is missing: {story:?}"));
        };
        for fault in faults(&story, record) {
            self.fault(format!("{id}: {fault}: {story:?} {record:?}"));
        }
    }
}

fn faults(story: &Story, record: &SharedRecord) -> Vec<&'static str> {
    let (mut faults, interaction) = (Vec::new(), &record.interaction);
    let settled: u32 = story.events.values().map(|seen| seen.settled).sum();
    if story.events.values().any(|seen| seen.settled > 1) {
        faults.push("an event was settled twice");
    }
    if story.events.values().any(|seen| seen.accepted > seen.settled + seen.unrecorded) {
        faults.push("an event was delivered again");
    }
    if story.uses.is_some_and(|uses| settled > uses || interaction.deliveries > uses) {
        faults.push("more uses than allowed");
    }
    if interaction.deliveries < settled {
        faults.push("a delivery is missing");
    }
    let is_missing = |event: u128| !record.has_delivered(EventKey(event));
    if story.events.iter().any(|(event, seen)| seen.is_acknowledged && is_missing(*event)) {
        faults.push("an acknowledged event is missing");
    }
    if story.is_revoked && interaction.state != State::Revoked {
        faults.push("it was revoked, and is not");
    }
    if interaction.state.is_open() {
        faults.push("its deadline was not applied");
    }
    if interaction.state == State::Expired && story.reported == 0 {
        faults.push("its deadline was not reported");
    }
    if story.reported > 1 + story.unrecorded_reports {
        faults.push("its deadline was reported again");
    }
    faults
}
