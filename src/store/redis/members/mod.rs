//! The processes that share the ledger. Each process regularly writes a heartbeat, and reads the heartbeats of the
//! other processes.

pub(super) mod beat;

use std::time::Duration;

use redis::Value;
use serde::{Deserialize, Serialize};

use super::nodes::keys::{FNV_BASIS, PARTITIONS, fnv1a};
use crate::replica::{Incarnation, Owner};
use crate::time::Timestamp;

/// The interval between two heartbeats of a process.
pub(super) const BEAT_INTERVAL: Duration = Duration::from_secs(5);
/// The time without a heartbeat after which a process counts as dead.
const SILENCE_MAX: Duration = Duration::from_secs(15);
/// The number of processes that check all deadlines of a partition.
const WATCHERS: usize = 2;

/// The description of a process that shares the ledger, as stored with its heartbeat (JSON).
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(super) struct About {
    pub(super) address: Box<str>,
    pub(super) version: Box<str>,
}

/// A process that shares the ledger.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Member {
    pub(super) incarnation: Box<str>,
    pub(super) address: Box<str>,
    pub(super) beat: Timestamp,
}

impl std::fmt::Display for Member {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &*self.address {
            "" => write!(f, "the process {}", self.incarnation),
            address => write!(f, "the process at {address}"),
        }
    }
}

/// The processes that share the ledger, as read with the last heartbeat.
#[derive(Clone, Debug, Default)]
pub(super) struct Members {
    pub(super) all: Vec<Member>,
    /// The name of the ledger. `None` before the first heartbeat.
    pub(super) ledger: Option<Vec<u8>>,
    /// The time of the Redis server when it returned the list.
    pub(super) read_at: Option<Timestamp>,
}

impl Members {
    /// Returns the processes that are alive at `now`. A process is alive if it has sent a heartbeat within 15 s.
    ///
    /// A list that is older than 5 s is evaluated as if it were 5 s old. While the node with the list does not respond,
    /// no process can send a heartbeat, so no further processes count as dead.
    pub(super) fn living(&self, now: Timestamp) -> impl Iterator<Item = &Member> {
        let known = self.read_at.map_or(now, |at| now.min(at.plus(BEAT_INTERVAL)));
        self.all.iter().filter(move |member| member.beat > known.minus(SILENCE_MAX))
    }

    /// Reports whether the list is too old to decide which processes are dead.
    pub(super) fn is_outdated(&self, now: Timestamp) -> bool {
        self.read_at.is_none_or(|at| now > at.plus(2 * BEAT_INTERVAL))
    }

    /// Returns the ids of the processes that are alive at `now`, in ascending order.
    pub(super) fn names(&self, now: Timestamp) -> Vec<Box<str>> {
        let mut names: Vec<_> = self.living(now).map(|member| member.incarnation.clone()).collect();
        names.sort_unstable();
        names
    }

    /// Returns the number of processes that are alive at `now`.
    pub(super) fn count(&self, now: Timestamp) -> usize {
        self.living(now).count()
    }

    /// Reports whether a process is alive at `now`. A process that is not in the list counts as dead.
    pub(super) fn lives(&self, incarnation: &str, now: Timestamp) -> bool {
        self.living(now).any(|member| *member.incarnation == *incarnation)
    }

    /// Returns for each partition whether the process `incarnation` watches the partition. All processes compute the
    /// same result without communication: each partition is watched by the living processes whose ids have the highest
    /// hashes for this partition.
    pub(super) fn watched(&self, incarnation: &str, now: Timestamp) -> [bool; PARTITIONS] {
        self.among_first(WATCHERS, incarnation, now)
    }

    /// Returns for each partition whether the process `incarnation` alone is responsible for the partition. The living
    /// process whose id has the highest hash for a partition is responsible for this partition.
    pub(super) fn first_watched(&self, incarnation: &str, now: Timestamp) -> [bool; PARTITIONS] {
        self.among_first(1, incarnation, now)
    }

    fn among_first(&self, count: usize, incarnation: &str, now: Timestamp) -> [bool; PARTITIONS] {
        let mut watched = [false; PARTITIONS];
        for (number, watched) in watched.iter_mut().enumerate() {
            let own = rank(incarnation, number);
            let others = self.living(now).filter(|member| *member.incarnation != *incarnation);
            *watched = others.filter(|member| rank(&member.incarnation, number) > own).count() < count;
        }
        watched
    }
}

/// Returns the hash of a process id and a partition. The hashes determine which processes watch the partition. All
/// processes must compute the same values, so this function must never change.
fn rank(incarnation: &str, partition: usize) -> u64 {
    let hash = fnv1a(FNV_BASIS ^ partition as u64, incarnation);
    // The last bytes of a text influence only few bits of its FNV-1a hash, so the bits of the hash are mixed once more.
    (hash ^ (hash >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9).rotate_left(31)
}

/// Returns an owner in the text form that the record of an interaction contains.
pub(super) fn owner_text(owner: &Owner) -> Box<str> {
    format!("{} {}", owner.incarnation, owner.address).into()
}

/// Parses the owner in the record of an interaction.
pub(super) fn parse_owner(text: &str) -> Option<Owner> {
    let (incarnation, address) = text.split_once(' ')?;
    Some(Owner { incarnation: Incarnation::parse(incarnation)?, address: address.into() })
}

pub(super) fn member([incarnation, text]: &[Value; 2]) -> Option<Member> {
    let (Value::BulkString(incarnation), Value::BulkString(text)) = (incarnation, text) else { return None };
    let (beat, about) = std::str::from_utf8(text).ok()?.split_once(' ')?;
    let about: About = serde_json::from_str(about).ok()?;
    Some(Member {
        incarnation: std::str::from_utf8(incarnation).ok()?.into(),
        address: about.address,
        beat: Timestamp::from_unix_ms(beat.parse().ok()?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn members(beats: &[(&str, i64)]) -> Members {
        let member = |(incarnation, beat): &(&str, i64)| Member {
            incarnation: (*incarnation).into(),
            address: "10.0.0.1:1".into(),
            beat: Timestamp::from_unix_secs(*beat),
        };
        Members { all: beats.iter().map(member).collect(), ..Members::default() }
    }

    #[test]
    fn two_living_members_watch_over_each_partition() {
        let names = ["00aa", "01bb", "02cc", "03dd", "04ee"];
        let beats: Vec<_> = names.iter().map(|name| (*name, 100)).collect();
        let all = members(&beats);
        let now = Timestamp::from_unix_secs(110);
        let mut counts = [0; PARTITIONS];
        for name in names {
            let watched = all.watched(name, now);
            let own = watched.iter().filter(|watched| **watched).count();
            assert!((10..45).contains(&own), "{name} watches over {own}");
            counts.iter_mut().zip(watched).for_each(|(count, watched)| *count += u8::from(watched));
        }
        assert!(counts.iter().all(|count| *count == 2), "{counts:?}");
        // When a process is silent, the other processes watch its partitions.
        let silent = members(&[("00aa", 80), ("01bb", 100), ("02cc", 100)]);
        assert!(!silent.lives("00aa", now) && silent.lives("01bb", now) && !silent.lives("zz", now));
        for name in ["01bb", "02cc"] {
            assert!(silent.watched(name, now).iter().all(|watched| *watched));
        }
        assert_eq!((silent.count(now), members(&[]).watched("00aa", now)), (2, [true; PARTITIONS]));
    }

    /// With other ranks, a new version could leave partitions to a process of an earlier version that does not watch
    /// them.
    #[test]
    fn all_versions_compute_the_same_ranks() {
        for (incarnation, partition, expected) in [
            ("00aa", 0, 0xd7c2_a938_5f3a_0f2d),
            ("00aa", 63, 0xd430_0dee_6fcc_283a),
            ("0123456789abcdef", 7, 0x06ef_7f9e_de2e_9fc9),
        ] {
            assert_eq!(rank(incarnation, partition), expected, "{incarnation}, {partition}");
        }
    }

    #[test]
    fn nobody_is_gone_because_the_list_cannot_be_read() {
        let at = Timestamp::from_unix_secs;
        let members = Members { read_at: Some(at(100)), ..members(&[("00aa", 98), ("01bb", 84)]) };
        for now in [100, 110, 1000] {
            assert!(members.lives("00aa", at(now)) && !members.lives("zz", at(now)), "{now}");
        }
        assert!(members.lives("01bb", at(98)) && !members.lives("01bb", at(100)));
        assert!(!members.is_outdated(at(110)) && members.is_outdated(at(111)));
        assert!(Members::default().is_outdated(at(1)));
    }

    #[test]
    fn an_owner_reads_back() {
        let owner = Owner { incarnation: Incarnation::from_bytes([1; 8]), address: "[fd00::1]:8446".into() };
        assert_eq!(parse_owner(&owner_text(&owner)), Some(owner));
        assert_eq!(parse_owner("x y"), None);
    }
}
