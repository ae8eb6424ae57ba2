//! The handover of an interaction to another process. The record of the interaction then contains the id of the process
//! that minted its token, and the events that its former owners have delivered.

use super::interaction::Interaction;
use super::more::Inherited;
use super::state::{Event, State};

/// The maximum number of events that one process adds to the record of an interaction when it hands over the
/// interaction.
const EVENTS_MAX: usize = 256;
/// The maximum number of former owners whose delivered events the record of one interaction stores.
const MEMBERS_MAX: usize = 8;

impl Interaction {
    /// Returns the events that were delivered by other processes or with other ledgers.
    pub fn inherited(&self) -> &[Inherited] {
        self.more.as_ref().map_or(&[], |more| &more.inherited)
    }

    /// Returns the id of the process that minted the token. Returns `None` if that process never handed over the
    /// interaction.
    pub fn origin(&self) -> Option<&str> {
        self.more.as_ref().and_then(|more| more.origin.as_deref())
    }

    /// Prepares the record of the interaction for the handover to another process. `origin` is the id of this process.
    /// `own` contains the events that this process has delivered.
    pub fn leave(&mut self, origin: &str, mut own: Inherited) {
        let more = self.more();
        more.origin.get_or_insert_with(|| origin.into());
        let surplus = own.events.len().saturating_sub(EVENTS_MAX);
        own.events.drain(..surplus);
        if !own.events.is_empty() {
            more.inherited.push(own);
            let surplus = more.inherited.len().saturating_sub(MEMBERS_MAX);
            more.inherited.drain(..surplus);
        }
        // This process may be sending the notice now. The process that receives the record does not learn the result,
        // so it sends the notice again.
        if let Some(notice) = &mut more.notice {
            notice.reset();
        }
    }

    /// Merges another record of the same interaction into this one. The merged interaction is revoked if one of the two
    /// records is revoked, and has ended if one of the two has ended. It has the lower number of remaining uses.
    /// Merging the same record again changes neither the state nor the uses.
    pub fn merge(&mut self, other: &Self) {
        if other.state == State::Revoked {
            self.go(Event::Revoked);
        } else if self.state.is_open() && !other.state.is_open() {
            self.state = other.state;
        }
        self.uses_left = self.uses_left.min(other.uses_left);
        if let Some(ended) = other.more.as_ref().and_then(|more| more.ended) {
            self.more().ended.get_or_insert(ended);
        }
        let (origin, inherited) = (other.origin().map(Box::from), other.inherited());
        let more = self.more();
        more.origin = more.origin.take().or(origin);
        more.changes = more.changes.max(other.more.as_ref().map_or(0, |more| more.changes));
        more.count_change();
        for one in inherited {
            match more.inherited.iter_mut().find(|known| known.key == one.key) {
                Some(known) => {
                    let missing = one.events.iter().filter(|event| !known.events.contains(event));
                    let missing: Vec<_> = missing.copied().collect();
                    known.events.extend(missing);
                }
                None => more.inherited.push(one.clone()),
            }
        }
        let surplus = more.inherited.len().saturating_sub(MEMBERS_MAX);
        more.inherited.drain(..surplus);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Timestamp;

    fn record(uses: u32) -> Interaction {
        let at = Timestamp::from_unix_secs;
        Interaction::new("r".into(), "".into(), at(1_000), at(2_000)).limited(Some(uses))
    }

    #[test]
    fn two_records_of_an_interaction_become_one_however_often() {
        let (mut here, mut there) = (record(3), record(2));
        there.leave("a", Inherited { key: [1, 2], events: vec![5, 6] });
        here.merge(&there);
        there.go(Event::Completed);
        for _ in 0..20 {
            here.merge(&there);
        }
        assert_eq!((here.state, here.uses_left(), here.origin()), (State::Done, Some(2), Some("a")));
        assert_eq!(here.inherited().len(), 1);
        assert_eq!(here.inherited()[0].events, [5, 6]);
        there.go(Event::Revoked);
        here.merge(&there);
        assert_eq!(here.state, State::Revoked);
        // An interaction that has ended stays ended, even if the other record is still open.
        here.merge(&record(1));
        assert_eq!((here.state, here.uses_left()), (State::Revoked, Some(1)));
    }
}
