//! The other replicas that this process has found, and which of these replicas are dead.

use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::replica::{Incarnation, Owner, is_address};

/// The maximum number of replicas in the table, including dead replicas.
const MEMBERS_MAX: usize = 1024;
/// The maximum time between two consecutive refusals of a connection by the same replica. A longer gap means that this
/// process was suspended, so that it is unknown whether the replica was reachable in the meantime.
const REFUSALS_GAP_MAX: Duration = Duration::from_secs(15);

/// The description that a replica sends to other replicas, in JSON.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct About {
    pub(crate) incarnation: String,
    pub(crate) address: Box<str>,
    pub(crate) group: Box<str>,
    /// The start time of the process, in Unix milliseconds.
    pub(crate) started: i64,
    /// The ids of the replicas whose interactions were moved to the described replica.
    #[serde(default)]
    pub(crate) inherits: Vec<String>,
    /// Whether the replica is stopping, so that no interactions should be moved to this replica.
    #[serde(default)]
    pub(crate) stopping: bool,
}

/// Whether a replica can be reached.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Presence {
    /// The replica responded, and has not refused a connection since.
    Present,
    /// The replica does not accept connections, but is not considered dead yet.
    Unreachable,
    /// The replica is considered dead and does not come back.
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

/// Another replica that this process has found.
#[derive(Clone, Debug)]
pub(crate) struct Member {
    pub(crate) owner: Owner,
    /// The last description that the replica sent. `None` if the replica never responded to this process.
    pub(crate) about: Option<About>,
    /// The time of the first refused connection after the last accepted connection. `None` if the last connection was
    /// accepted.
    refused_since: Option<Instant>,
    /// Whether another process now has the address of this replica.
    is_replaced: bool,
    /// For a dead replica: whether all other replicas were asked which replica has received the interactions of the
    /// dead replica.
    heirs_are_known: bool,
    /// The time of the last attempt to connect to the replica.
    tried: Instant,
}

impl Member {
    /// Returns whether the replica can be reached. The replica is considered dead in two cases: it has refused all
    /// connections for at least `gone_after`, or another process has its address.
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

/// The other replicas that this process has found.
#[derive(Default)]
pub(crate) struct Members {
    table: Mutex<HashMap<Incarnation, Member>>,
    /// The addresses in `discover` at which no replica responds, each with the time of the first failed attempt.
    silent: Mutex<HashMap<Box<str>, Instant>>,
}

impl Members {
    /// Records the description that a replica sent. Returns the id and address of the replica, or `None` if the
    /// description is malformed.
    pub(crate) fn answered(&self, about: About, now: Instant) -> Option<Owner> {
        let incarnation = Incarnation::parse(&about.incarnation)?;
        if !is_address(&about.address) {
            return None;
        }
        let owner = Owner { incarnation, address: about.address.clone() };
        let mut table = self.table.lock();
        // A process has only one address, so former processes at this address are dead.
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

    /// Records that a replica refused a connection. Returns whether the replica is now considered dead.
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

    /// Records the addresses in `discover` at which no replica responds.
    pub(crate) fn are_silent(&self, addresses: BTreeSet<Box<str>>, now: Instant) {
        let mut silent = self.silent.lock();
        let before = std::mem::take(&mut *silent);
        let since = |address: &str| before.get(address).copied().unwrap_or(now);
        *silent = addresses.into_iter().map(|address| (address.clone(), since(&address))).collect();
    }

    /// Returns the addresses in `discover` that no known replica has, and at which the first failed attempt was less
    /// than `gone_after` ago.
    pub(crate) fn silent(&self, gone_after: Duration, now: Instant) -> Vec<Box<str>> {
        let is_known = |address: &str| self.table.lock().values().any(|one| *one.owner.address == *address);
        let silent = self.silent.lock();
        let recent = silent.iter().filter(|(_, since)| now.saturating_duration_since(**since) < gone_after);
        recent.map(|(address, _)| address.clone()).filter(|address| !is_known(address)).collect()
    }

    /// Records that a replica accepted a connection and responded.
    pub(crate) fn reached(&self, owner: &Owner) {
        if let Some(member) = self.table.lock().get_mut(&owner.incarnation) {
            member.refused_since = None;
        }
    }

    /// Records that a new process responds at the address of a replica.
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

    /// Returns the address of the replica with this replica id, or `None` if no such replica was found.
    pub(crate) fn address(&self, incarnation: Incarnation) -> Option<Box<str>> {
        self.table.lock().get(&incarnation).map(|member| member.owner.address.clone())
    }

    /// Reports whether a replica is considered dead.
    pub(crate) fn is_gone(&self, incarnation: Incarnation, gone_after: Duration) -> bool {
        let table = self.table.lock();
        table.get(&incarnation).is_some_and(|member| member.presence(gone_after) == Presence::Gone)
    }

    /// Reports whether the last attempt to connect to a replica failed. Returns false if another process now has the
    /// address of the replica.
    pub(crate) fn is_refusing(&self, incarnation: Incarnation) -> bool {
        let table = self.table.lock();
        table.get(&incarnation).is_some_and(|member| member.refused_since.is_some() && !member.is_replaced)
    }

    /// Returns a replica with its current address. A process that restarts with the same ledger can get another
    /// address. A token from before the restart still contains the former address.
    pub(crate) fn current(&self, owner: &Owner) -> Owner {
        let table = self.table.lock();
        let known = table.get(&owner.incarnation).filter(|member| member.about.is_some());
        known.map_or_else(|| owner.clone(), |member| member.owner.clone())
    }

    /// Returns the replicas that can have the interactions of `owner`: the replicas to which the interactions were
    /// moved, and the owner itself. Omits dead replicas. Reachable replicas come first.
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

    /// Reports whether the interactions of a replica were moved to another replica.
    pub(crate) fn has_heir(&self, incarnation: Incarnation) -> bool {
        let name = incarnation.to_string();
        self.table.lock().values().any(|member| member.inherits(&name))
    }

    /// Reports whether all other replicas were already asked which replica has received the interactions of a dead
    /// replica.
    pub(crate) fn heirs_are_known(&self, incarnation: Incarnation) -> bool {
        self.table.lock().get(&incarnation).is_some_and(|member| member.heirs_are_known)
    }

    /// Records that the other replicas were asked which replica has received the interactions of a dead replica.
    pub(crate) fn asked_for_heirs(&self, incarnation: Incarnation) {
        if let Some(member) = self.table.lock().get_mut(&incarnation) {
            member.heirs_are_known = true;
        }
    }

    /// Returns the reachable replicas of a group that are not stopping. The most recently started replica comes first.
    pub(crate) fn successors(&self, group: &str, gone_after: Duration) -> Vec<Owner> {
        let mut found: Vec<_> = self.all();
        found.retain(|member| {
            member.presence(gone_after) == Presence::Present
                && member.about.as_ref().is_some_and(|about| *about.group == *group && !about.stopping)
        });
        found.sort_by_key(|member| std::cmp::Reverse(member.about.as_ref().map(|about| about.started)));
        found.into_iter().map(|member| member.owner).collect()
    }

    /// Returns the replicas that are not considered dead.
    pub(crate) fn all_but_gone(&self, gone_after: Duration) -> Vec<Member> {
        let mut members = self.all();
        members.retain(|member| member.presence(gone_after) != Presence::Gone);
        members
    }

    /// Returns all replicas that this process has found, ordered by address.
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

/// Makes room in the table for the replica `incarnation`. If the table is full, removes the replica with the oldest
/// last connection attempt.
fn make_room(table: &mut HashMap<Incarnation, Member>, incarnation: Incarnation) {
    if table.len() >= MEMBERS_MAX && !table.contains_key(&incarnation) {
        let oldest = table.values().min_by_key(|member| member.tried).map(|member| member.owner.incarnation);
        if let Some(oldest) = oldest {
            table.remove(&oldest);
        }
    }
}

#[cfg(test)]
#[path = "liveness_tests.rs"]
mod tests;
