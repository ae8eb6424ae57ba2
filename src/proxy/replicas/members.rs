//! The members that this process knows, and which of them are gone.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::replica::{Incarnation, Owner, is_address};

/// Maximum number of members that are remembered, including those that are gone.
const MEMBERS_MAX: usize = 1024;

/// What a member says about itself, in JSON.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct About {
    pub(crate) incarnation: String,
    pub(crate) address: Box<str>,
    pub(crate) group: Box<str>,
    /// The start of the process, in Unix milliseconds.
    pub(crate) started: i64,
    /// The members whose interactions were handed over to this one.
    #[serde(default)]
    pub(crate) inherits: Vec<String>,
    /// Whether the member is stopping, so that nothing should be handed over to it.
    #[serde(default)]
    pub(crate) stopping: bool,
}

/// Whether a member can be reached.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Presence {
    /// It answered, and has not refused a connection since.
    Present,
    /// It does not accept connections, but may come back.
    Unreachable,
    /// It does not come back.
    Gone,
}

impl Presence {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Present => "present",
            Self::Unreachable => "unreachable",
            Self::Gone => "gone",
        }
    }
}

/// A known member.
#[derive(Clone, Debug)]
pub(crate) struct Member {
    pub(crate) owner: Owner,
    /// What the member last said about itself. `None` if it never answered this process.
    pub(crate) about: Option<About>,
    /// Since when its address refuses connections.
    refused_since: Option<Instant>,
    /// Whether another process has its address.
    is_replaced: bool,
    /// The last time at which a connection was tried.
    tried: Instant,
}

impl Member {
    pub(crate) fn presence(&self, gone_after: Duration, now: Instant) -> Presence {
        match self.refused_since {
            _ if self.is_replaced => Presence::Gone,
            Some(since) if now.saturating_duration_since(since) >= gone_after => Presence::Gone,
            Some(_) => Presence::Unreachable,
            None if self.about.is_none() => Presence::Unreachable,
            None => Presence::Present,
        }
    }

    fn inherits(&self, incarnation: Incarnation) -> bool {
        let name = incarnation.to_string();
        self.about.as_ref().is_some_and(|about| about.inherits.contains(&name))
    }
}

/// The members that this process knows, except itself.
#[derive(Default)]
pub(crate) struct Members {
    table: Mutex<HashMap<Incarnation, Member>>,
}

impl Members {
    /// Records what a member says about itself. Returns the member, or `None` if the statement is malformed.
    pub(crate) fn answered(&self, about: About, now: Instant) -> Option<Owner> {
        let incarnation = Incarnation::parse(&about.incarnation)?;
        if !is_address(&about.address) {
            return None;
        }
        let owner = Owner { incarnation, address: about.address.clone() };
        let mut table = self.table.lock();
        // A process has one address, so the former processes at this address are gone.
        for other in table.values_mut().filter(|other| other.owner.incarnation != incarnation) {
            other.is_replaced |= other.owner.address == owner.address;
        }
        let member = Member {
            owner: owner.clone(),
            about: Some(about),
            refused_since: None,
            is_replaced: false,
            tried: now,
        };
        insert(&mut table, member);
        Some(owner)
    }

    /// Records that a member did not accept a connection. Returns whether it is gone.
    pub(crate) fn refused(&self, owner: &Owner, gone_after: Duration, now: Instant) -> bool {
        let mut table = self.table.lock();
        let member = Self::known(&mut table, owner, now);
        member.tried = now;
        member.refused_since.get_or_insert(now);
        member.presence(gone_after, now) == Presence::Gone
    }

    /// Records that a member answered.
    pub(crate) fn reached(&self, owner: &Owner) {
        if let Some(member) = self.table.lock().get_mut(&owner.incarnation) {
            member.refused_since = None;
        }
    }

    /// Records that another process has the address of a member.
    pub(crate) fn replaced(&self, owner: &Owner, now: Instant) {
        Self::known(&mut self.table.lock(), owner, now).is_replaced = true;
    }

    fn known<'t>(table: &'t mut HashMap<Incarnation, Member>, owner: &Owner, now: Instant) -> &'t mut Member {
        make_room(table, owner.incarnation);
        table.entry(owner.incarnation).or_insert_with(|| Member {
            owner: owner.clone(),
            about: None,
            refused_since: None,
            is_replaced: false,
            tried: now,
        })
    }

    /// Returns the address of a member.
    pub(crate) fn address(&self, incarnation: Incarnation) -> Option<Box<str>> {
        self.table.lock().get(&incarnation).map(|member| member.owner.address.clone())
    }

    /// Reports whether a member is gone.
    pub(crate) fn is_gone(&self, incarnation: Incarnation, gone_after: Duration, now: Instant) -> bool {
        let table = self.table.lock();
        table.get(&incarnation).is_some_and(|member| member.presence(gone_after, now) == Presence::Gone)
    }

    /// Returns the present member to which the interactions of `incarnation` were handed over.
    pub(crate) fn heir(&self, incarnation: Incarnation, gone_after: Duration, now: Instant) -> Option<Owner> {
        let table = self.table.lock();
        let heirs = table.values().filter(|member| member.inherits(incarnation));
        let heirs = heirs.filter(|member| member.presence(gone_after, now) == Presence::Present);
        heirs.max_by_key(|member| member.owner.incarnation).map(|member| member.owner.clone())
    }

    /// Returns the present members of a group that are not stopping, the youngest first.
    pub(crate) fn successors(&self, group: &str, gone_after: Duration, now: Instant) -> Vec<Owner> {
        let mut found: Vec<_> = self.all();
        found.retain(|member| {
            member.presence(gone_after, now) == Presence::Present
                && member.about.as_ref().is_some_and(|about| *about.group == *group && !about.stopping)
        });
        found.sort_by_key(|member| std::cmp::Reverse(member.about.as_ref().map(|about| about.started)));
        found.into_iter().map(|member| member.owner).collect()
    }

    /// Returns all members, ordered by address.
    pub(crate) fn all(&self) -> Vec<Member> {
        let mut members: Vec<_> = self.table.lock().values().cloned().collect();
        members.sort_by(|a, b| {
            (&a.owner.address, a.owner.incarnation).cmp(&(&b.owner.address, b.owner.incarnation))
        });
        members
    }
}

fn insert(table: &mut HashMap<Incarnation, Member>, member: Member) {
    make_room(table, member.owner.incarnation);
    table.insert(member.owner.incarnation, member);
}

/// Makes room for one more member: removes the one that was tried least recently.
fn make_room(table: &mut HashMap<Incarnation, Member>, incarnation: Incarnation) {
    if table.len() >= MEMBERS_MAX && !table.contains_key(&incarnation) {
        let oldest = table.values().min_by_key(|member| member.tried).map(|member| member.owner.incarnation);
        if let Some(oldest) = oldest {
            table.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GONE_AFTER: Duration = Duration::from_secs(60);

    fn owner(byte: u8, address: &str) -> Owner {
        Owner { incarnation: Incarnation::from_bytes([byte; 8]), address: address.into() }
    }

    fn about(owner: &Owner, inherits: &[&Owner], started: i64) -> About {
        About {
            incarnation: owner.incarnation.to_string(),
            address: owner.address.clone(),
            group: "default".into(),
            started,
            inherits: inherits.iter().map(|one| one.incarnation.to_string()).collect(),
            stopping: false,
        }
    }

    #[test]
    fn a_member_is_gone_after_a_while_and_comes_back_with_an_answer() {
        let (members, start, a) = (Members::default(), crate::clock::instant(), owner(1, "a:1"));
        assert!(!members.is_gone(a.incarnation, GONE_AFTER, start), "it was never tried");
        assert!(!members.refused(&a, GONE_AFTER, start));
        let later = start + GONE_AFTER - Duration::from_millis(1);
        assert!(!members.refused(&a, GONE_AFTER, later));
        assert!(members.refused(&a, GONE_AFTER, start + GONE_AFTER));
        assert!(members.is_gone(a.incarnation, GONE_AFTER, start + GONE_AFTER));
        members.answered(about(&a, &[], 1), start + GONE_AFTER).unwrap();
        assert!(!members.is_gone(a.incarnation, GONE_AFTER, start + 9 * GONE_AFTER));
        assert!(!members.refused(&a, GONE_AFTER, start + 9 * GONE_AFTER), "the count begins anew");
    }

    #[test]
    fn the_former_process_at_an_address_is_gone() {
        let (members, now) = (Members::default(), crate::clock::instant());
        let (a, b, c) = (owner(1, "a:1"), owner(2, "a:1"), owner(3, "c:1"));
        members.answered(about(&a, &[], 1), now).unwrap();
        members.answered(about(&c, &[], 1), now).unwrap();
        members.answered(about(&b, &[], 2), now).unwrap();
        let gone = |owner: &Owner| members.is_gone(owner.incarnation, GONE_AFTER, now);
        assert_eq!((gone(&a), gone(&b), gone(&c)), (true, false, false));
        members.reached(&a);
        assert!(gone(&a), "an answer on an old connection does not change it");
    }

    #[test]
    fn the_heir_is_present_and_the_successor_is_the_youngest_of_the_group() {
        let (members, now) = (Members::default(), crate::clock::instant());
        let (a, b, c, d) = (owner(1, "a:1"), owner(2, "b:1"), owner(3, "c:1"), owner(4, "d:1"));
        members.answered(about(&b, &[&a], 1), now).unwrap();
        members.answered(about(&c, &[], 2), now).unwrap();
        members.answered(About { group: "other".into(), ..about(&d, &[], 3) }, now).unwrap();
        assert_eq!(members.heir(a.incarnation, GONE_AFTER, now), Some(b.clone()));
        assert_eq!(members.heir(c.incarnation, GONE_AFTER, now), None);
        assert_eq!(members.successors("default", GONE_AFTER, now), [c.clone(), b.clone()]);
        members.answered(About { stopping: true, ..about(&c, &[], 2) }, now).unwrap();
        assert_eq!(members.successors("default", GONE_AFTER, now), std::slice::from_ref(&b));
        members.refused(&b, GONE_AFTER, now);
        assert_eq!(members.heir(a.incarnation, GONE_AFTER, now), None);
    }

    #[test]
    fn the_table_is_bounded() {
        let (members, now) = (Members::default(), crate::clock::instant());
        for number in 0..2000_u64 {
            let incarnation = Incarnation::from_bytes(number.to_be_bytes());
            let owner = Owner { incarnation, address: format!("h{number}:1").into() };
            members.refused(&owner, GONE_AFTER, now + Duration::from_millis(number));
        }
        assert_eq!(members.all().len(), MEMBERS_MAX);
        let last = Incarnation::from_bytes(1999_u64.to_be_bytes());
        assert!(members.is_gone(last, Duration::ZERO, now + GONE_AFTER));
        assert!(
            members
                .answered(About { address: "nonsense".into(), ..about(&owner(1, "a:1"), &[], 1) }, now)
                .is_none()
        );
    }
}
