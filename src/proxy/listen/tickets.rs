//! TLS session tickets (RFC 8446 section 2.2, RFC 5077). With a ticket, a client resumes its TLS session without
//! another exchange of certificates. Callgate stores no sessions, but encrypts the session into the ticket.
//!
//! Without secrets in the configuration, the encryption keys exist only in this process and are replaced every few
//! hours. With secrets in the configuration, tickets of one replica are valid at the other replicas. From each secret,
//! a separate key is derived for each period of time.
//!
//! A ticket is bound to the settings for client certificates under which it was issued. If a reload changes the
//! certificate authorities, or if the client connects to a listener with other authorities, the client performs a full
//! handshake, in which its certificate is verified.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use hmac::{Hmac, Mac};
use parking_lot::Mutex;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use rustls::server::ProducesTickets;
use sha2::Sha256;

use crate::clock::Clock;
use crate::secret::Secret;

/// The validity period of a TLS session ticket.
const LIFETIME: Duration = Duration::from_secs(12 * 3600);
/// The period in which one key encrypts new TLS session tickets, in seconds.
const PERIOD_SECONDS: i64 = 6 * 3600;
/// The maximum time by which the clock of another replica can be ahead of this host's clock, in seconds.
const AHEAD_SECONDS: i64 = 60;
/// The length in bytes of the name at the beginning of a session ticket. The name identifies a secret.
const NAME_BYTES: usize = 16;
/// The length in bytes of the time of issue, which follows the name in a session ticket.
const TIME_BYTES: usize = 8;

/// A hash of the listener settings to which session tickets are bound.
pub(crate) type Binding = [u8; 32];

/// A secret from which the keys of TLS session tickets are derived.
struct TicketSecret {
    /// The name of the secret. Each session ticket that is encrypted with a key of this secret begins with this name.
    name: [u8; NAME_BYTES],
    secret: Secret,
}

impl TicketSecret {
    fn new(secret: Secret) -> Self {
        let mut name = [0; NAME_BYTES];
        for (byte, derived) in name.iter_mut().zip(derived(&secret, "name", 0)) {
            *byte = derived;
        }
        Self { name, secret }
    }

    /// Generates a random secret. Returns `None` only if the operating system provides no random numbers.
    fn random() -> Option<Self> {
        let mut bytes = vec![0; 32];
        getrandom::fill(&mut bytes).ok()?;
        Some(Self::new(Secret::new(bytes)))
    }

    /// Returns the key for session tickets that are issued at the time `issued`, in Unix seconds.
    fn key(&self, issued: i64) -> Option<LessSafeKey> {
        let key = derived(&self.secret, "key", issued.div_euclid(PERIOD_SECONDS));
        UnboundKey::new(&AES_256_GCM, &key).ok().map(LessSafeKey::new)
    }

    fn seal(&self, plain: &[u8], binding: &Binding, now: i64) -> Option<Vec<u8>> {
        let mut nonce = [0; NONCE_LEN];
        getrandom::fill(&mut nonce).ok()?;
        let head = [&self.name[..], &now.to_be_bytes(), &nonce].concat();
        let mut text = plain.to_vec();
        let bound = Aad::from([&head, &binding[..]].concat());
        let nonce = Nonce::assume_unique_for_key(nonce);
        self.key(now)?.seal_in_place_append_tag(nonce, bound, &mut text).ok()?;
        Some([head, text].concat())
    }

    fn open(&self, ticket: &[u8], binding: &Binding, now: i64) -> Option<Vec<u8>> {
        let (head, text) = ticket.split_at_checked(NAME_BYTES + TIME_BYTES + NONCE_LEN)?;
        let (name, rest) = head.split_first_chunk::<NAME_BYTES>()?;
        let (issued, nonce) = rest.split_first_chunk::<TIME_BYTES>()?;
        let (issued, nonce) = (i64::from_be_bytes(*issued), nonce.try_into().ok()?);
        let lifetime = i64::try_from(LIFETIME.as_secs()).unwrap_or(i64::MAX);
        let age = now.checked_sub(issued)?;
        if *name != self.name || !(-AHEAD_SECONDS..lifetime).contains(&age) {
            return None;
        }
        let bound = Aad::from([head, &binding[..]].concat());
        let mut text = text.to_vec();
        let nonce = Nonce::assume_unique_for_key(nonce);
        self.key(issued)?.open_in_place(nonce, bound, &mut text).ok().map(|plain| plain.to_vec())
    }
}

/// Returns the HMAC-SHA-256 of `purpose` and `number`, with the key `secret`.
fn derived(secret: &Secret, purpose: &str, number: i64) -> [u8; 32] {
    let text = format!("callgate tls ticket, version 1, {purpose} {number}");
    // An HMAC accepts a key of any length, so no error can occur.
    let mac = Hmac::<Sha256>::new_from_slice(secret.expose());
    mac.map_or([0; 32], |mac| mac.chain_update(text).finalize().into_bytes().into())
}

/// The random ticket keys that exist only in this process.
#[derive(Default)]
struct Rotation {
    current: Option<TicketSecret>,
    /// The secret that decrypts session tickets from the previous period.
    previous: Option<TicketSecret>,
    /// The number of the period in which `current` encrypts tickets. A period lasts [`PERIOD_SECONDS`].
    period: i64,
}

impl Rotation {
    /// Replaces the ticket keys of past periods. After the deletion of the keys, recorded connections can no longer be
    /// decrypted. Returns `None` if the operating system provides no random numbers.
    fn advance(&mut self, now: i64) -> Option<()> {
        let period = now.div_euclid(PERIOD_SECONDS);
        if self.current.is_some() && self.period == period {
            return Some(());
        }
        let next = TicketSecret::random()?;
        let is_adjacent = self.period + 1 == period;
        self.previous = self.current.replace(next).filter(|_| is_adjacent);
        self.period = period;
        Some(())
    }
}

/// The random ticket keys of this process, which all listeners share.
pub(crate) struct TicketKeys {
    clock: Clock,
    rotation: Mutex<Rotation>,
}

impl TicketKeys {
    pub(crate) fn new(clock: Clock) -> Arc<Self> {
        Arc::new(Self { clock, rotation: Mutex::default() })
    }

    /// Returns the producer of session tickets for a listener. `binding` is the hash of the listener settings to which
    /// the tickets are bound. Without secrets, the tickets are encrypted with the random keys of this process.
    pub(crate) fn for_listener(
        self: &Arc<Self>,
        secrets: &[Secret],
        binding: Binding,
    ) -> Arc<dyn ProducesTickets> {
        let secrets = secrets.iter().cloned().map(TicketSecret::new).collect();
        Arc::new(Tickets { keys: Arc::clone(self), secrets, binding })
    }

    fn now(&self) -> i64 {
        self.clock.now().unix_secs()
    }
}

/// Issues and accepts the session tickets of a listener.
struct Tickets {
    keys: Arc<TicketKeys>,
    /// The configured secrets. The first secret encrypts new tickets. If no secrets are configured, the random keys of
    /// this process encrypt the tickets.
    secrets: Vec<TicketSecret>,
    binding: Binding,
}

/// Formats only the name of the type, because the keys are secret.
impl fmt::Debug for Tickets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tickets")
    }
}

impl ProducesTickets for Tickets {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        u32::try_from(LIFETIME.as_secs()).unwrap_or_default()
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        let now = self.keys.now();
        if let Some(first) = self.secrets.first() {
            return first.seal(plain, &self.binding, now);
        }
        let mut rotation = self.keys.rotation.lock();
        rotation.advance(now)?;
        rotation.current.as_ref()?.seal(plain, &self.binding, now)
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        let now = self.keys.now();
        if !self.secrets.is_empty() {
            return self.secrets.iter().find_map(|secret| secret.open(ticket, &self.binding, now));
        }
        let mut rotation = self.keys.rotation.lock();
        rotation.advance(now)?;
        let keys = [rotation.current.as_ref(), rotation.previous.as_ref()];
        keys.into_iter().flatten().find_map(|secret| secret.open(ticket, &self.binding, now))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicI64, Ordering};

    use super::*;

    const START: i64 = 1_800_000_000;
    const HOUR: i64 = 3600;

    /// Returns ticket keys, and the time of their clock in milliseconds. A test changes this time.
    fn keys() -> (Arc<TicketKeys>, Arc<AtomicI64>) {
        let now = Arc::new(AtomicI64::new(START * 1000));
        (TicketKeys::new(Clock::Set(Arc::clone(&now))), now)
    }

    fn secret(text: &str) -> Secret {
        Secret::new(text.repeat(32).into_bytes())
    }

    #[test]
    fn a_ticket_opens_only_under_the_same_settings() {
        let (keys, _) = keys();
        let one = keys.for_listener(&[], [1; 32]);
        let ticket = one.encrypt(b"session").unwrap();
        assert!(!ticket.windows(7).any(|window| window == b"session"));
        assert_eq!(one.decrypt(&ticket).as_deref(), Some(&b"session"[..]));
        assert_eq!(keys.for_listener(&[], [1; 32]).decrypt(&ticket).as_deref(), Some(&b"session"[..]));
        assert_eq!(keys.for_listener(&[], [2; 32]).decrypt(&ticket), None, "other authorities");
        assert_eq!(TicketKeys::new(Clock::System).for_listener(&[], [1; 32]).decrypt(&ticket), None);
        for at in 0..ticket.len() {
            let mut changed = ticket.clone();
            changed[at] ^= 1;
            assert_eq!(one.decrypt(&changed), None, "byte {at}");
            assert_eq!(one.decrypt(&ticket[..at]), None, "{at} bytes");
        }
    }

    #[test]
    fn keys_of_the_process_are_replaced() {
        let (keys, now) = keys();
        let tickets = keys.for_listener(&[], [0; 32]);
        let first = tickets.encrypt(b"session").unwrap();
        let pass = |hours: i64| now.fetch_add(hours * HOUR * 1000, Ordering::SeqCst);
        pass(6);
        assert!(tickets.decrypt(&first).is_some(), "the previous key");
        let second = tickets.encrypt(b"session").unwrap();
        assert_ne!(first[..NAME_BYTES], second[..NAME_BYTES]);
        pass(6);
        assert!(tickets.decrypt(&first).is_none() && tickets.decrypt(&second).is_some());
        pass(100);
        assert!(tickets.decrypt(&second).is_none());
    }

    #[test]
    fn replicas_with_the_same_secret_accept_the_tickets_of_each_other() {
        let (keys, now) = keys();
        let (old, new) = (secret("o"), secret("n"));
        let one = keys.for_listener(std::slice::from_ref(&old), [0; 32]);
        let other = TicketKeys::new(Clock::Set(Arc::clone(&now)));
        let both = other.for_listener(&[new.clone(), old], [0; 32]);
        let ticket = one.encrypt(b"session").unwrap();
        assert!(both.decrypt(&ticket).is_some());
        assert!(one.decrypt(&both.encrypt(b"session").unwrap()).is_none(), "the first secret encrypts");
        assert!(other.for_listener(&[new], [0; 32]).decrypt(&ticket).is_none());
        assert!(other.for_listener(&[], [0; 32]).decrypt(&ticket).is_none());
        now.fetch_add(11 * HOUR * 1000, Ordering::SeqCst);
        assert!(both.decrypt(&ticket).is_some());
        now.fetch_add(HOUR * 1000, Ordering::SeqCst);
        assert!(both.decrypt(&ticket).is_none(), "it has expired");
        now.store((START - 2 * AHEAD_SECONDS) * 1000, Ordering::SeqCst);
        assert!(both.decrypt(&ticket).is_none(), "it is from the future");
    }
}
