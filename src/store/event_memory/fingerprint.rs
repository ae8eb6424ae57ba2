//! The fingerprints by which the ledger recognizes delivered events.

use std::collections::hash_map::RandomState;
use std::fmt;
use std::hash::{BuildHasher, Hasher};

use crate::interaction::{EventKey, Interaction};

/// The secret key of the event fingerprints. Nobody who lacks the key can construct two events with the same
/// fingerprint.
#[derive(Clone, Copy, Eq, PartialEq)]
pub(in crate::store) struct FingerprintKey(pub(in crate::store) [u64; 2]);

impl fmt::Debug for FingerprintKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}

impl FingerprintKey {
    /// Returns a new random key.
    pub(in crate::store) fn random() -> Self {
        // The operating system provides the random keys of each `RandomState`.
        Self([RandomState::new().hash_one(0), RandomState::new().hash_one(1)])
    }

    /// Returns the fingerprint of an event: the SipHash-2-4 of the interaction's id followed by the event's key. If the
    /// event belongs to no interaction, `interaction` is empty. The result is never 0.
    #[allow(
        deprecated,
        reason = "the file has fingerprints, and DefaultHasher has neither a key nor a fixed algorithm"
    )]
    pub(in crate::store) fn fingerprint(self, interaction: &str, event: EventKey) -> u64 {
        let Self([first, second]) = self;
        let mut hasher = std::hash::SipHasher::new_with_keys(first, second);
        hasher.write(interaction.as_bytes());
        hasher.write(&event.0.to_be_bytes());
        hasher.finish().max(1)
    }
}

/// Reports whether the interaction's record contains this event among the events that were delivered by another process
/// or with another ledger.
pub(in crate::store) fn is_inherited(record: &Interaction, id: &str, event: EventKey) -> bool {
    record.inherited().iter().any(|inherited| {
        let fingerprint = FingerprintKey(inherited.key).fingerprint(id, event);
        inherited.events.contains(&fingerprint)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Compares the hash function with a test vector of the reference implementation of SipHash-2-4 for an input of 16
    /// bytes. With another function, the ledger would not recognize the events in existing files.
    #[test]
    fn fingerprints_are_siphash_2_4() {
        let key = FingerprintKey([0x0706_0504_0302_0100, 0x0f0e_0d0c_0b0a_0908]);
        let event = EventKey(0x0001_0203_0405_0607_0809_0a0b_0c0d_0e0f);
        assert_eq!(
            key.fingerprint("", event),
            u64::from_le_bytes([0xdb, 0x9b, 0xc2, 0x57, 0x7f, 0xcc, 0x2a, 0x3f])
        );
        assert_ne!(key.fingerprint("a", event), key.fingerprint("b", event));
        assert_ne!(FingerprintKey::random(), FingerprintKey::random());
    }
}
