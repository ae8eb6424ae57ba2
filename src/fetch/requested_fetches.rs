//! Fetches that messages request: certificates that a message names, and confirmations of subscriptions.
//!
//! Each provider has a queue of its own for certificates, so that a flood of invented URLs for one provider does not
//! delay the certificates of the other providers.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Instant;

use super::queue::{FetchQueue, NextFetch};
use crate::signature::Verifier;

/// A fetch that a message requests: of a certificate, or of a URL that confirms a subscription.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(super) enum RequestedFetch {
    /// A certificate that a message names. Contains the name of the message's provider and the URL of the certificate.
    Certificate(Arc<str>, Box<str>),
    /// A confirmation of a subscription. Contains the URL whose fetch confirms the subscription.
    Confirmation(Box<str>),
}

/// The queues of fetches that messages request.
#[derive(Debug, Default)]
pub(super) struct RequestedFetches {
    certificates: BTreeMap<Arc<str>, FetchQueue>,
    confirmations: FetchQueue,
}

impl RequestedFetches {
    /// Queues the fetch of the certificate at `url`. A message of `provider` names this URL. `client` is the client
    /// address of the message.
    pub(super) fn certificate(&mut self, provider: &Arc<str>, url: &str, client: IpAddr, now: Instant) {
        self.certificates.entry(Arc::clone(provider)).or_default().request(url, client, now);
    }

    /// Queues the fetch of a URL that confirms a subscription. Returns `false` if the queue is full. No waiting
    /// confirmation is removed to make room, because each waiting confirmation belongs to a verified message.
    pub(super) fn confirmation(&mut self, url: &str, now: Instant) -> bool {
        let room = !self.confirmations.is_full() || self.confirmations.contains(url);
        if room {
            self.confirmations.request(url, IpAddr::V4(Ipv4Addr::UNSPECIFIED), now);
        }
        room
    }

    /// Reports whether the queues of certificates and of confirmations are all empty.
    pub(super) fn is_empty(&self) -> bool {
        self.confirmations.is_empty() && self.certificates.values().all(FetchQueue::is_empty)
    }

    /// Returns the fetches to start now, and the earliest time at which another fetch can start.
    pub(super) fn start_due(&mut self, now: Instant) -> (Vec<RequestedFetch>, Option<Instant>) {
        let (mut fetches, mut next_start) = (Vec::new(), None::<Instant>);
        let mut drain = |queue: &mut FetchQueue, fetch: &dyn Fn(Box<str>) -> RequestedFetch| loop {
            match queue.start_next(now) {
                NextFetch::Start(url) => fetches.push(fetch(url)),
                NextFetch::WaitUntil(at) => {
                    break next_start = Some(next_start.map_or(at, |next| next.min(at)));
                }
                NextFetch::Nothing => break,
            }
        };
        for (provider, queue) in &mut self.certificates {
            drain(queue, &|url| RequestedFetch::Certificate(Arc::clone(provider), url));
        }
        drain(&mut self.confirmations, &RequestedFetch::Confirmation);
        (fetches, next_start)
    }

    /// Records that a fetch has ended. A certificate that was fetched is removed from the queues of all providers.
    pub(super) fn finish(&mut self, fetch: &RequestedFetch, succeeded: bool, now: Instant) {
        match fetch {
            RequestedFetch::Confirmation(url) => self.confirmations.finish(url, succeeded, now),
            RequestedFetch::Certificate(_, url) if succeeded => {
                self.certificates.values_mut().for_each(|queue| queue.finish(url, true, now));
            }
            RequestedFetch::Certificate(provider, url) => {
                if let Some(queue) = self.certificates.get_mut(provider) {
                    queue.finish(url, false, now);
                }
            }
        }
    }

    /// Removes queued fetches of certificates that their provider may no longer use. `verifier` returns the verifier of
    /// a provider.
    pub(super) fn retain<'p>(&mut self, verifier: impl Fn(&str) -> Option<&'p Verifier>) {
        self.certificates.retain(|provider, queue| {
            let Some(verifier) = verifier(provider) else { return false };
            queue.retain(|url| verifier.may_name(url));
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
    fn a_flood_delays_neither_another_provider_nor_a_confirmation() {
        let (mut fetches, now) = (RequestedFetches::default(), instant());
        let (flooded, other): (Arc<str>, Arc<str>) = ("flooded".into(), "other".into());
        for i in 0..10_000 {
            fetches.certificate(&flooded, &format!("none-{}", i / 2), CALLER, now);
        }
        // Starts fetches for the flooded provider. These fetches do not end during the test.
        fetches.start_due(now);
        fetches.certificate(&other, "real", CALLER, now);
        assert!(fetches.confirmation("agreed", now));
        let (taken, _) = fetches.start_due(now);
        assert!(taken.contains(&RequestedFetch::Certificate(other, "real".into())), "{taken:?}");
        assert!(taken.contains(&RequestedFetch::Confirmation("agreed".into())), "{taken:?}");
    }

    #[test]
    fn a_queued_confirmation_is_not_removed_for_another() {
        let (mut fetches, now) = (RequestedFetches::default(), instant());
        let taken = (0..100).filter(|i| fetches.confirmation(&format!("agreed-{i}"), now)).count();
        assert_eq!(taken, 64);
        assert!(fetches.confirmation("agreed-0", now) && !fetches.confirmation("agreed-99", now));
    }
}
