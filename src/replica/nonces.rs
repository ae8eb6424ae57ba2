//! The nonces of accepted proofs, so that a recorded request between replicas cannot be replayed.

use std::collections::HashSet;
use std::time::Duration;

use super::proof::AGE_MAX;
use crate::time::Timestamp;

/// The maximum number of nonces that are stored in one period. This number bounds the memory to about 50 MB, and allows
/// 16,000 requests per second from other replicas.
const NONCES_MAX: usize = 1_000_000;

/// The result of [`Nonces::accept`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum SeenNonce {
    /// The nonce was not accepted before.
    New,
    /// The nonce was accepted before.
    Repeated,
    /// The table of nonces is full.
    Full,
}

/// The nonces of proofs that were accepted in the current period and in the period before. A period is as long as a
/// proof can be valid: from [`AGE_MAX`] before the time of the proof to [`AGE_MAX`] after this time.
#[derive(Debug)]
pub struct Nonces {
    current: HashSet<u128>,
    former: HashSet<u128>,
    until: Timestamp,
}

impl Default for Nonces {
    fn default() -> Self {
        Self { current: HashSet::new(), former: HashSet::new(), until: Timestamp::from_unix_ms(0) }
    }
}

impl Nonces {
    /// Accepts and stores a nonce, if the nonce was not accepted before and the table is not full.
    pub fn accept(&mut self, nonce: u128, now: Timestamp) -> SeenNonce {
        const PERIOD: Duration = Duration::from_secs(2 * AGE_MAX.as_secs() + 1);
        // If the clock was set back, the stored nonces must not be retained for longer than one period.
        if now >= self.until || now.plus(PERIOD) < self.until {
            // After a pause of more than one period, the nonces of the current period have expired, too.
            let is_next = now < self.until.plus(PERIOD);
            let former = std::mem::take(&mut self.current);
            self.former = if is_next { former } else { HashSet::new() };
            self.until = now.plus(PERIOD);
        }
        if self.former.contains(&nonce) || self.current.contains(&nonce) {
            return SeenNonce::Repeated;
        }
        if self.current.len() >= NONCES_MAX {
            return SeenNonce::Full;
        }
        self.current.insert(nonce);
        SeenNonce::New
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nonce_is_accepted_once_while_its_proof_is_valid() {
        let (mut nonces, start) = (Nonces::default(), Timestamp::from_unix_secs(1_000_000));
        let at = |secs| start.plus(Duration::from_secs(secs));
        assert_eq!(nonces.accept(1, at(0)), SeenNonce::New);
        // The time of a proof can be 30 s in the future, so a proof can be valid for 60 s.
        for secs in [0, 30, 60, 61, 100] {
            assert_eq!(nonces.accept(1, at(secs)), SeenNonce::Repeated, "{secs}");
        }
        assert_eq!(nonces.accept(2, at(100)), SeenNonce::New);
        assert_eq!(nonces.accept(2, at(160)), SeenNonce::Repeated);
        assert_eq!(nonces.accept(1, at(160)), SeenNonce::New, "its proof has expired");
        assert_eq!(nonces.accept(2, at(10_000)), SeenNonce::New, "after a long pause");
        // The time is earlier than before, as if the clock was set back.
        assert_eq!(nonces.accept(3, at(500)), SeenNonce::New);
        assert_eq!(nonces.until, at(561));
        assert_eq!(nonces.accept(3, at(530)), SeenNonce::Repeated);
        assert_eq!(nonces.accept(2, at(500)), SeenNonce::Repeated);
    }
}
