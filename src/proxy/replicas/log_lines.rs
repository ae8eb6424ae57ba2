//! The lines of the event log about other replicas. The lines contain addresses, replica ids and interaction ids, and
//! no tokens or secrets.

use std::collections::BTreeMap;

use log::Level;

use super::liveness::Presence;
use super::replication::Replication;
use crate::clock::instant;
use crate::replica::{Incarnation, Owner, Replicas};

impl Replication {
    /// Returns the address of a replica, or the replica id if the address is unknown.
    pub(crate) fn name_of(&self, incarnation: Incarnation) -> Box<str> {
        match self.members.address(incarnation) {
            Some(address) => address,
            None => format!("member {incarnation}").into(),
        }
    }

    /// Logs that this process adopts an interaction because the owner is dead. Does nothing if the ledger already
    /// contains the interaction, so that further callbacks of the interaction are not logged.
    pub(crate) fn log_adoption(&self, owner: &Owner, interaction: &str) {
        if !self.store().knows(interaction) {
            let Owner { address, incarnation } = owner;
            log::warn!(
                "adopts {interaction}: its owner {address} (incarnation {incarnation}) is gone and has not handed it over"
            );
        }
    }

    /// Logs that another replica moves its interactions to this process. The interactions arrive in many requests, but
    /// only the first request is logged.
    pub(super) fn log_take_over(&self, from: Incarnation) {
        if self.logged.taken_over_from.lock().replace(from) != Some(from) {
            log::info!(
                "takes over the interactions of {} (incarnation {from}), which stops",
                self.name_of(from)
            );
        }
    }

    /// Logs each replica that was found, stopped responding or was considered dead since the last call. `errors`
    /// contains the reason why an address did not respond. Addresses without a known replica are logged at most once a
    /// minute.
    pub(super) fn log_presences(&self, replicas: &Replicas, errors: &BTreeMap<Box<str>, String>) {
        let (now, members) = (instant(), self.members.all());
        let mut logged = self.logged.presences.lock();
        let before = std::mem::take(&mut *logged);
        for member in &members {
            let presence = member.presence(replicas.gone_after);
            let Owner { incarnation, address } = &member.owner;
            let was = before.get(incarnation).copied();
            logged.insert(*incarnation, presence);
            if was == Some(presence) || (was.is_none() && presence != Presence::Present) {
                continue;
            }
            let has_left = member.about.as_ref().is_some_and(|about| about.stopping)
                || self.members.has_heir(*incarnation);
            let level = if presence == Presence::Present || has_left { Level::Info } else { Level::Warn };
            let change = match presence {
                Presence::Present => "is present",
                Presence::Unreachable => "does not answer",
                Presence::Gone => "is gone",
            };
            let why = errors.get(address).filter(|_| presence != Presence::Present);
            let why = why.map_or_else(String::new, |why| format!(": {why}"));
            log::log!(level, "the member at {address} (incarnation {incarnation}) {change}{why}");
        }
        drop(logged);
        let is_known = |address: &str| members.iter().any(|member| *member.owner.address == *address);
        let stranger = errors.iter().find(|(address, _)| !is_known(address));
        if let Some((address, error)) = stranger.filter(|_| self.logged.throttle.should_log("stranger", now))
        {
            log::info!(
                "no member answers at {address}: {error}; further such addresses are not logged for a minute"
            );
        }
    }
}
