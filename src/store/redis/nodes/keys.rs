//! The names of the keys in Redis or Valkey. The part in braces determines the slot in a cluster, so that all keys of
//! one partition are on the same node.

/// The number of partitions of a shared ledger.
pub(in crate::store) const PARTITIONS: usize = 64;
/// The number of slots of a Redis cluster.
pub(in crate::store::redis) const SLOTS: u16 = 16_384;

/// Computes the names of the keys of one ledger.
#[derive(Clone, Debug)]
pub(in crate::store::redis) struct Keys {
    prefix: Box<str>,
}

/// A part of a shared ledger whose keys are on one node.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(in crate::store::redis) enum Partition {
    /// One of [`PARTITIONS`] parts of the interactions, events and messages.
    Number(u8),
    /// The part with the list of processes that share the ledger, and with the description of the ledger.
    Members,
}

impl Partition {
    /// Returns the partition of an interaction's id, or of a route's name.
    #[allow(clippy::cast_possible_truncation, reason = "the remainder is below 64")]
    pub(in crate::store::redis) fn of(text: &str) -> Self {
        let hash = fnv1a(FNV_BASIS, text);
        Self::Number(((hash ^ (hash >> 32)) % PARTITIONS as u64) as u8)
    }

    /// Returns all partitions that contain interactions.
    pub(in crate::store::redis) fn all() -> impl Iterator<Item = Self> {
        (0..PARTITIONS).filter_map(|number| u8::try_from(number).ok()).map(Self::Number)
    }

    /// Returns the partition of the message with this number.
    #[allow(clippy::cast_possible_truncation, reason = "the remainder is below 64")]
    pub(in crate::store::redis) fn of_message(number: u64) -> Self {
        Self::Number((number % PARTITIONS as u64) as u8)
    }

    /// Returns the slot of the partition in a cluster.
    pub(in crate::store::redis) fn slot(self) -> u16 {
        crc16(self.tag().as_bytes()) % SLOTS
    }

    fn tag(self) -> String {
        match self {
            Self::Number(number) => format!("{number:02}"),
            Self::Members => "m".to_owned(),
        }
    }
}

impl Keys {
    pub(in crate::store::redis) fn new(prefix: &str) -> Self {
        Self { prefix: prefix.into() }
    }

    fn name(&self, partition: Partition, rest: &str) -> String {
        format!("{}{{{}}}{rest}", self.prefix, partition.tag())
    }

    /// Returns the name of the Redis key with the record of an interaction.
    pub(in crate::store::redis) fn record(&self, id: &str) -> String {
        self.name(Partition::of(id), &format!("i:{id}"))
    }

    /// Returns the name of the Redis key with the delivered events of an interaction that do not fit into its record.
    pub(in crate::store::redis) fn events(&self, id: &str) -> String {
        self.name(Partition::of(id), &format!("e:{id}"))
    }

    /// Returns the name of the Redis key with the times at which the interactions of a partition must be checked.
    pub(in crate::store::redis) fn due(&self, partition: Partition) -> String {
        self.name(partition, "due")
    }

    /// Returns the name of the Redis key with the delivered events that belong to no interaction, for a route and the
    /// other routes in its partition.
    pub(in crate::store::redis) fn delivered(&self, route: &str) -> String {
        self.delivered_of(Partition::of(route))
    }

    /// Returns the name of the Redis key with the events that are being delivered and belong to no interaction, for a
    /// route and the other routes in its partition.
    pub(in crate::store::redis) fn delivering(&self, route: &str) -> String {
        self.name(Partition::of(route), "c")
    }

    /// Returns the name of the Redis key with a partition's delivered events that belong to no interaction.
    pub(in crate::store::redis) fn delivered_of(&self, partition: Partition) -> String {
        self.name(partition, "l")
    }

    /// Returns the partition and the name of the Redis key in which a copied fingerprint is stored. Fingerprints of
    /// delivered events are copied from ledgers in files.
    #[allow(clippy::cast_possible_truncation, reason = "the remainder is below 64")]
    pub(in crate::store::redis) fn copied(&self, fingerprint: u64) -> (Partition, String) {
        let partition = Partition::Number((fingerprint % PARTITIONS as u64) as u8);
        (partition, self.copied_of(partition))
    }

    /// Returns the name of the Redis key with the copied fingerprints of a partition. Fingerprints of delivered events
    /// are copied from ledgers in files.
    pub(in crate::store::redis) fn copied_of(&self, partition: Partition) -> String {
        self.name(partition, "f")
    }

    /// Returns the name of the Redis key that stores secrets: those with which the copied fingerprints were computed.
    pub(in crate::store::redis) fn copied_keys(&self) -> String {
        self.name(Partition::Members, "keys")
    }

    /// Returns the name of the Redis key with the id of the interaction to which a provider's id belongs.
    pub(in crate::store::redis) fn provider_id(&self, route: &str, id: &str) -> String {
        self.name(Partition::of(route), &format!("p:{route}:{id}"))
    }

    /// Returns the name of the Redis key with the outstanding requests of a route. The provider has not responded to
    /// these requests.
    pub(in crate::store::redis) fn awaited(&self, route: &str) -> String {
        self.name(Partition::of(route), &format!("a:{route}"))
    }

    /// Returns the name of the Redis key with the due times of the messages of a partition.
    pub(in crate::store::redis) fn messages_due(&self, partition: Partition) -> String {
        self.name(partition, "d")
    }

    /// Returns the name of the Redis key with the last message number that was assigned in a partition.
    pub(in crate::store::redis) fn message_number(&self, partition: Partition) -> String {
        self.name(partition, "n")
    }

    /// Returns the name of the Redis key with the list of processes that share the ledger.
    pub(in crate::store::redis) fn members(&self) -> String {
        self.name(Partition::Members, "")
    }

    /// Returns the name of the Redis key with the description of the ledger: its name and the format of its records.
    pub(in crate::store::redis) fn about(&self) -> String {
        self.name(Partition::Members, "about")
    }
}

/// The initial value of the hash function FNV-1a.
pub(in crate::store::redis) const FNV_BASIS: u64 = 0xcbf2_9ce4_8422_2325;

/// Computes the hash FNV-1a. All processes must compute the same values, so this function must never change.
pub(in crate::store::redis) fn fnv1a(basis: u64, text: &str) -> u64 {
    text.bytes().fold(basis, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// Computes the CRC-16/XMODEM, by which a cluster distributes keys to slots.
fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc, byte| {
        (0..8).fold(crc ^ (u16::from(*byte) << 8), |crc, _| match crc & 0x8000 {
            0 => crc << 1,
            _ => (crc << 1) ^ 0x1021,
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_slots_are_fixed() {
        let keys = Keys::new("cg");
        let id = "int_aaaaaaaaaaaaaaaaaaaaaaaaaa";
        assert_eq!(Partition::of(id), Partition::of(id));
        let partition = Partition::Number(7);
        assert_eq!(keys.due(partition), "cg{07}due");
        assert_eq!((keys.members(), keys.about()), ("cg{m}".to_owned(), "cg{m}about".to_owned()));
        assert_eq!(crc16(b"123456789"), 0x31C3, "the check value of the specification of Redis Cluster");
        assert!(keys.record(id).ends_with("}i:int_aaaaaaaaaaaaaaaaaaaaaaaaaa"));
    }

    #[test]
    fn a_message_is_in_the_partition_of_its_number() {
        for (number, partition) in [(0, 0), (1, 1), (63, 63), (64, 0), (64 * 1_800_000_000_000 + 7, 7)] {
            assert_eq!(Partition::of_message(number), Partition::Number(partition), "{number}");
        }
    }

    #[test]
    fn every_key_has_a_name_of_its_own_in_its_partition() {
        let keys = Keys::new("cg");
        let (id, route, partition) = ("int_a", "jobs", Partition::Number(7));
        let in_partition_of = |text| Partition::of(text).tag();
        let names = [
            (keys.record(id), in_partition_of(id), "i:int_a"),
            (keys.events(id), in_partition_of(id), "e:int_a"),
            (keys.delivered(route), in_partition_of(route), "l"),
            (keys.delivering(route), in_partition_of(route), "c"),
            (keys.provider_id(route, "task 1"), in_partition_of(route), "p:jobs:task 1"),
            (keys.awaited(route), in_partition_of(route), "a:jobs"),
            (keys.due(partition), "07".to_owned(), "due"),
            (keys.delivered_of(partition), "07".to_owned(), "l"),
            (keys.copied_of(partition), "07".to_owned(), "f"),
            (keys.messages_due(partition), "07".to_owned(), "d"),
            (keys.message_number(partition), "07".to_owned(), "n"),
            (keys.members(), "m".to_owned(), ""),
            (keys.about(), "m".to_owned(), "about"),
            (keys.copied_keys(), "m".to_owned(), "keys"),
        ];
        for (name, tag, rest) in names {
            assert_eq!(name, format!("cg{{{tag}}}{rest}"));
        }
        assert_eq!(keys.copied(64 * 1_000 + 7), (partition, keys.copied_of(partition)));
    }

    #[test]
    fn ids_are_spread_over_all_partitions() {
        let mut counts = [0_u32; PARTITIONS];
        for number in 0..64_000 {
            if let Partition::Number(partition) = Partition::of(&format!("int_{number:026}")) {
                counts[usize::from(partition)] += 1;
            }
        }
        assert!(counts.iter().all(|count| (700..1300).contains(count)), "{counts:?}");
    }
}
