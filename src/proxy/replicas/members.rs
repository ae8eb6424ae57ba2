//! The members that this process knows, and which of them are gone.

use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::replica::{Incarnation, Owner, is_address};

/// Maximum number of members that are remembered, including those that are gone.
const MEMBERS_MAX: usize = 1024;
/// Two refusals of a member belong together if no more time is between them. After a longer gap, this process was
/// suspended, and does not know whether the member could be reached.
const REFUSALS_GAP_MAX: Duration = Duration::from_secs(15);

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
    /// Whether the other members were asked who has taken over the member's interactions, since the member is gone.
    heirs_are_known: bool,
    /// The last time at which a connection was tried.
    tried: Instant,
}

impl Member {
    /// Reports whether the member can be reached. A member is gone if its address refused connections for `gone_after`,
    /// from the first refusal to the last one.
    pub(crate) fn presence(&self, gone_after: Duration) -> Presence {
        match self.refused_since {
            _ if self.is_replaced => Presence::Gone,
            Some(since) if self.tried.saturating_duration_since(since) >= gone_after => Presence::Gone,
            Some(_) => Presence::Unreachable,
            None if self.about.is_none() => Presence::Unreachable,
            None => Presence::Present,
        }
    }

    fn inherits(&self, incarnation: &str) -> bool {
        self.about.as_ref().is_some_and(|about| about.inherits.iter().any(|one| one == incarnation))
    }
}

/// The members that this process knows, except itself.
#[derive(Default)]
pub(crate) struct Members {
    table: Mutex<HashMap<Incarnation, Member>>,
    /// The addresses of `discover` at which no member answers, and since when.
    silent: Mutex<HashMap<Box<str>, Instant>>,
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
            heirs_are_known: false,
            tried: now,
        };
        insert(&mut table, member);
        Some(owner)
    }

    /// Records that a member did not accept a connection. Returns whether it is gone.
    pub(crate) fn refused(&self, owner: &Owner, gone_after: Duration, now: Instant) -> bool {
        let mut table = self.table.lock();
        let member = Self::known(&mut table, owner, now);
        let is_interrupted = now.saturating_duration_since(member.tried) > REFUSALS_GAP_MAX;
        if member.presence(gone_after) != Presence::Gone && (is_interrupted || member.refused_since.is_none())
        {
            member.refused_since = Some(now);
        }
        member.tried = now;
        member.presence(gone_after) == Presence::Gone
    }

    /// Records the addresses of `discover` at which no member answers.
    pub(crate) fn are_silent(&self, addresses: BTreeSet<Box<str>>, now: Instant) {
        let mut silent = self.silent.lock();
        let before = std::mem::take(&mut *silent);
        let since = |address: &str| before.get(address).copied().unwrap_or(now);
        *silent = addresses.into_iter().map(|address| (address.clone(), since(&address))).collect();
    }

    /// Returns the addresses of `discover` at which no member answers, for less than `gone_after`, and which no known
    /// member has.
    pub(crate) fn silent(&self, gone_after: Duration, now: Instant) -> Vec<Box<str>> {
        let is_known = |address: &str| self.table.lock().values().any(|one| *one.owner.address == *address);
        let silent = self.silent.lock();
        let recent = silent.iter().filter(|(_, since)| now.saturating_duration_since(**since) < gone_after);
        recent.map(|(address, _)| address.clone()).filter(|address| !is_known(address)).collect()
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
            heirs_are_known: false,
            tried: now,
        })
    }

    /// Returns the address of a member.
    pub(crate) fn address(&self, incarnation: Incarnation) -> Option<Box<str>> {
        self.table.lock().get(&incarnation).map(|member| member.owner.address.clone())
    }

    /// Reports whether a member is gone.
    pub(crate) fn is_gone(&self, incarnation: Incarnation, gone_after: Duration) -> bool {
        let table = self.table.lock();
        table.get(&incarnation).is_some_and(|member| member.presence(gone_after) == Presence::Gone)
    }

    /// Reports whether the last attempt to connect to a member failed, and the member is not gone.
    pub(crate) fn is_refusing(&self, incarnation: Incarnation) -> bool {
        let table = self.table.lock();
        table.get(&incarnation).is_some_and(|member| member.refused_since.is_some() && !member.is_replaced)
    }

    /// Returns a member with its present address. A process that has kept its ledger can have another address than at
    /// the time when it minted a token.
    pub(crate) fn current(&self, owner: &Owner) -> Owner {
        let table = self.table.lock();
        let known = table.get(&owner.incarnation).filter(|member| member.about.is_some());
        known.map_or_else(|| owner.clone(), |member| member.owner.clone())
    }

    /// Returns the members that can have the interactions of `owner`: those to which they were handed over, and the owner
    /// itself. Members that are gone are omitted. Members that are present come first.
    pub(crate) fn holders(&self, owner: &Owner, gone_after: Duration) -> Vec<Owner> {
        let name = owner.incarnation.to_string();
        let table = self.table.lock();
        let heirs = table.values().filter(|member| member.inherits(&name));
        let mut found: Vec<_> = heirs
            .map(|member| (member.presence(gone_after), true, member.owner.clone()))
            .filter(|(presence, ..)| *presence != Presence::Gone)
            .collect();
        let known = table.get(&owner.incarnation);
        let presence = known.map_or(Presence::Unreachable, |member| member.presence(gone_after));
        drop(table);
        if presence != Presence::Gone {
            found.push((presence, false, self.current(owner)));
        }
        found.sort_by_key(|(presence, is_heir, member)| {
            (*presence != Presence::Present, !is_heir, std::cmp::Reverse(member.incarnation))
        });
        found.into_iter().map(|(.., member)| member).collect()
    }

    /// Reports whether a member has taken over interactions of another one.
    pub(crate) fn has_heir(&self, incarnation: Incarnation) -> bool {
        let name = incarnation.to_string();
        self.table.lock().values().any(|member| member.inherits(&name))
    }

    /// Reports whether the other members were asked who has taken over the interactions of a member that is gone.
    pub(crate) fn heirs_are_known(&self, incarnation: Incarnation) -> bool {
        self.table.lock().get(&incarnation).is_some_and(|member| member.heirs_are_known)
    }

    /// Records that the other members were asked who has taken over the interactions of a member that is gone.
    pub(crate) fn asked_for_heirs(&self, incarnation: Incarnation) {
        if let Some(member) = self.table.lock().get_mut(&incarnation) {
            member.heirs_are_known = true;
        }
    }

    /// Returns the present members of a group that are not stopping, the youngest first.
    pub(crate) fn successors(&self, group: &str, gone_after: Duration) -> Vec<Owner> {
        let mut found: Vec<_> = self.all();
        found.retain(|member| {
            member.presence(gone_after) == Presence::Present
                && member.about.as_ref().is_some_and(|about| *about.group == *group && !about.stopping)
        });
        found.sort_by_key(|member| std::cmp::Reverse(member.about.as_ref().map(|about| about.started)));
        found.into_iter().map(|member| member.owner).collect()
    }

    /// Returns the members that are not gone.
    pub(crate) fn all_but_gone(&self, gone_after: Duration) -> Vec<Member> {
        let mut members = self.all();
        members.retain(|member| member.presence(gone_after) != Presence::Gone);
        members
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
#[path = "members_tests.rs"]
mod tests;
