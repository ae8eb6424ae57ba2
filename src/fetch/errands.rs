//! Fetches that a message causes: the certificate that it names, or the confirmation of a subscription.
//!
//! Each provider has a queue of its own for certificates, so that a flood of invented URLs for one provider does not
//! delay the others.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Instant;

use super::queue::{FetchQueue, Turn};
use crate::signature::Verifier;

/// A fetch that a message causes.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(super) enum Errand {
    /// The name of a provider, and the URL of a certificate that its message names.
    Certificate(Arc<str>, Box<str>),
    /// The URL that confirms a subscription when it is fetched.
    Confirmation(Box<str>),
}

/// The queues of fetches that messages cause.
#[derive(Debug, Default)]
pub(super) struct Errands {
    certificates: BTreeMap<Arc<str>, FetchQueue>,
    confirmations: FetchQueue,
}

impl Errands {
    /// Queues the certificate that a message of a provider names. `caller` is the client address of the message.
    pub(super) fn certificate(&mut self, provider: &Arc<str>, url: &str, caller: IpAddr, now: Instant) {
        self.certificates.entry(Arc::clone(provider)).or_default().ask(url, caller, now);
    }

    /// Queues a confirmation. Returns `false` if the queue is full. A waiting confirmation is never dropped for a new
    /// one, because each belongs to a verified message.
    pub(super) fn confirmation(&mut self, url: &str, now: Instant) -> bool {
        let room = !self.confirmations.is_full() || self.confirmations.holds(url);
        if room {
            self.confirmations.ask(url, IpAddr::V4(Ipv4Addr::UNSPECIFIED), now);
        }
        room
    }

    /// Reports whether all queues are empty.
    pub(super) fn is_empty(&self) -> bool {
        self.confirmations.is_empty() && self.certificates.values().all(FetchQueue::is_empty)
    }

    /// Returns the fetches to start now, and the time at which the next one may start.
    pub(super) fn take_off(&mut self, now: Instant) -> (Vec<Errand>, Option<Instant>) {
        let (mut errands, mut more) = (Vec::new(), None::<Instant>);
        let mut drain = |queue: &mut FetchQueue, errand: &dyn Fn(Box<str>) -> Errand| loop {
            match queue.turn(now) {
                Turn::Now(url) => errands.push(errand(url)),
                Turn::At(at) => break more = Some(more.map_or(at, |more| more.min(at))),
                Turn::Nothing => break,
            }
        };
        for (provider, queue) in &mut self.certificates {
            drain(queue, &|url| Errand::Certificate(Arc::clone(provider), url));
        }
        drain(&mut self.confirmations, &Errand::Confirmation);
        (errands, more)
    }

    /// Records that a fetch has ended. `had`: it succeeded. A certificate that was fetched is removed from all queues.
    pub(super) fn land(&mut self, errand: &Errand, had: bool, now: Instant) {
        match errand {
            Errand::Confirmation(url) => self.confirmations.land(url, had, now),
            Errand::Certificate(_, url) if had => {
                self.certificates.values_mut().for_each(|queue| queue.land(url, true, now));
            }
            Errand::Certificate(provider, url) => {
                if let Some(queue) = self.certificates.get_mut(provider) {
                    queue.land(url, false, now);
                }
            }
        }
    }

    /// Removes certificates that no message may name any more. `verifier` returns the verifier of a provider.
    pub(super) fn keep<'p>(&mut self, verifier: impl Fn(&str) -> Option<&'p Verifier>) {
        self.certificates.retain(|provider, queue| {
            let Some(verifier) = verifier(provider) else { return false };
            queue.keep(|url| verifier.may_name(url));
            true
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::instant;

    const CALLER: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    #[test]
    fn neither_another_provider_nor_a_confirmation_waits_for_a_flood() {
        let (mut errands, now) = (Errands::default(), instant());
        let (flooded, other): (Arc<str>, Arc<str>) = ("flooded".into(), "other".into());
        for i in 0..10_000 {
            errands.certificate(&flooded, &format!("none-{}", i / 2), CALLER, now);
        }
        // All running fetches of that provider hang.
        errands.take_off(now);
        errands.certificate(&other, "real", CALLER, now);
        assert!(errands.confirmation("agreed", now));
        let (taken, _) = errands.take_off(now);
        assert!(taken.contains(&Errand::Certificate(other, "real".into())), "{taken:?}");
        assert!(taken.contains(&Errand::Confirmation("agreed".into())), "{taken:?}");
    }

    #[test]
    fn a_confirmation_that_was_promised_makes_room_for_no_other() {
        let (mut errands, now) = (Errands::default(), instant());
        let taken = (0..100).filter(|i| errands.confirmation(&format!("agreed-{i}"), now)).count();
        assert_eq!(taken, 64);
        assert!(errands.confirmation("agreed-0", now) && !errands.confirmation("agreed-99", now));
    }
}
