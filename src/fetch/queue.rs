//! The queue of URLs that unverified messages ask Callgate to fetch.
//!
//! An attacker can send messages with many invented URLs. They must not delay the URL in a genuine message. Therefore
//! the client networks take turns. In addition, a URL that was requested more than once is fetched first: a provider
//! repeats its request, and a flood of invented URLs does not. A fetch in progress is called a flight.

use std::cmp::Reverse;
use std::collections::hash_map::RandomState;
use std::collections::{HashSet, VecDeque};
use std::hash::BuildHasher;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

/// Maximum number of URLs in the queue, including those in flight.
const WAITING_MAX: usize = 64;
/// Maximum number of flights at the same time.
const FLIGHTS_MAX: usize = 4;
/// Maximum number of flights for URLs that one client network requested.
const FLIGHTS_OF_A_NETWORK_MAX: usize = 3;
/// Maximum number of flights for URLs that were requested only once.
const FIRST_FLIGHTS_MAX: usize = 2;
/// Average time between the starts of two flights.
const GAP: Duration = Duration::from_millis(500);
/// Number of flights that may start without a gap after a pause.
const BURST: u32 = 8;
/// Number of attempts to fetch a URL before it is removed. A later message can request it again.
const TRIES_MAX: u32 = 4;
/// Wait after the first failure. It doubles with each further failure.
const RETRY_FIRST: Duration = Duration::from_secs(5);
/// Minimum number of recently requested URLs that are remembered.
const LATELY_MAX: usize = 1 << 15;
/// Maximum number of networks whose last turn is remembered.
const TURNS_MAX: usize = 256;

/// The URLs that wait to be fetched, and those in flight.
#[derive(Debug, Default)]
pub(super) struct FetchQueue {
    /// The URLs, sorted by network.
    entries: Vec<Entry>,
    lately: Lately,
    /// The networks that had a turn, latest first.
    turns: VecDeque<IpAddr>,
    number: u64,
    /// Time at which the gap after the last flight ends.
    free_at: Option<Instant>,
}

/// The result of [`FetchQueue::turn`].
#[derive(Debug, Eq, PartialEq)]
pub(super) enum Turn {
    /// The URL to fetch now.
    Now(Box<str>),
    /// A URL is ready, but its flight may not start before this time.
    At(Instant),
    /// No flight can start until the queue changes or a retry is due.
    Nothing,
}

#[derive(Debug)]
struct Entry {
    url: Box<str>,
    network: IpAddr,
    /// Whether the URL was requested more than once.
    again: bool,
    failures: u32,
    due: Instant,
    in_flight: bool,
    /// Sequence number of the latest request for the URL.
    number: u64,
}

/// Hashes of the recently requested URLs: at least the last [`LATELY_MAX`], and at most twice as many.
#[derive(Debug, Default)]
struct Lately {
    hasher: RandomState,
    new: HashSet<u64>,
    old: HashSet<u64>,
}

impl Lately {
    /// Remembers a URL. Returns whether it was already remembered.
    fn remember(&mut self, name: &str) -> bool {
        let hash = self.hasher.hash_one(name);
        let known = self.new.contains(&hash) || self.old.contains(&hash);
        if self.new.len() >= LATELY_MAX {
            self.old = std::mem::take(&mut self.new);
        }
        self.new.insert(hash);
        known
    }
}

impl FetchQueue {
    /// Queues a URL for a client. If the queue is full, another URL is removed first, as [`Self::make_room`] describes.
    pub(super) fn ask(&mut self, url: &str, caller: IpAddr, now: Instant) {
        let (again, network) = (self.lately.remember(url), network(caller));
        let known = self.entries.iter().position(|entry| *entry.url == *url);
        self.number += 1;
        let number = self.number;
        let entry = match known {
            None => {
                if self.is_full() {
                    self.make_room(network);
                }
                Entry { url: url.into(), network, again, failures: 0, due: now, in_flight: false, number }
            }
            Some(at) => {
                let entry = self.entries.remove(at);
                // Assigns the URL to the network whose turn comes first.
                let sooner = !entry.in_flight && self.last_turn(network) > self.last_turn(entry.network);
                Entry { again: true, network: if sooner { network } else { entry.network }, number, ..entry }
            }
        };
        let at = self.entries.partition_point(|other| other.network < entry.network);
        self.entries.insert(at, entry);
    }

    /// Reports whether the queue is full.
    pub(super) fn is_full(&self) -> bool {
        self.entries.len() >= WAITING_MAX
    }

    /// Reports whether no URL waits and none is in flight.
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Reports whether a URL waits or is in flight.
    pub(super) fn holds(&self, url: &str) -> bool {
        self.entries.iter().any(|entry| *entry.url == *url)
    }

    /// Removes one waiting URL. The criteria are, in this order: its network has the most URLs, where the new URL
    /// counts for `newcomer`; it was requested only once; its fetch has failed before; its latest request is the oldest.
    fn make_room(&mut self, newcomer: IpAddr) {
        let runs = self.entries.chunk_by(|a, b| a.network == b.network);
        let rated = runs.flat_map(|run| {
            let own = run.first().is_some_and(|entry| entry.network == newcomer);
            let share = run.len() + usize::from(own);
            run.iter().map(move |entry| (share, entry))
        });
        let worst = rated
            .filter(|(_, entry)| !entry.in_flight)
            .max_by_key(|(share, entry)| (*share, !entry.again, entry.failures > 0, Reverse(entry.number)))
            .map(|(_, entry)| entry.number);
        self.entries.retain(|entry| Some(entry.number) != worst);
    }

    /// Chooses the next URL to fetch. The URL is in flight from this call until [`Self::land`].
    pub(super) fn turn(&mut self, now: Instant) -> Turn {
        let flights: Vec<_> = self.entries.iter().filter(|entry| entry.in_flight).collect();
        if flights.len() >= FLIGHTS_MAX {
            return Turn::Nothing;
        }
        let first_may = flights.iter().filter(|entry| !entry.again).count() < FIRST_FLIGHTS_MAX;
        let of = |network: IpAddr| flights.iter().filter(|entry| entry.network == network).count();
        let may = |entry: &&Entry| {
            !entry.in_flight
                && entry.due <= now
                && (entry.again || first_may)
                && of(entry.network) < FLIGHTS_OF_A_NETWORK_MAX
        };
        let mut ready = self.entries.iter().filter(may).peekable();
        if ready.peek().is_none() {
            return Turn::Nothing;
        }
        let free_at = self.free_at.unwrap_or(now).max(now);
        let (ahead, burst) = (free_at.saturating_duration_since(now), GAP * (BURST - 1));
        if ahead > burst {
            return Turn::At(now + (ahead - burst));
        }
        let rank = |entry: &&Entry| {
            // Failures are compared after the networks: otherwise a flood of new URLs would prevent every retry of a genuine one.
            let served = Reverse(self.last_turn(entry.network));
            (!entry.again, served, entry.failures > 0, Reverse(entry.number))
        };
        let next = ready.min_by_key(rank).map(|entry| entry.number);
        let Some(entry) = self.entries.iter_mut().find(|entry| Some(entry.number) == next) else {
            return Turn::Nothing;
        };
        entry.in_flight = true;
        let (url, network) = (entry.url.clone(), entry.network);
        self.free_at = Some(free_at + GAP);
        self.turns.retain(|other| *other != network);
        self.turns.truncate(TURNS_MAX - 1);
        self.turns.push_front(network);
        Turn::Now(url)
    }

    /// Ends a flight. `had`: the fetch succeeded, and the URL is removed. Otherwise it is tried again later, up to
    /// [`TRIES_MAX`] times in total.
    pub(super) fn land(&mut self, url: &str, had: bool, now: Instant) {
        let Some(at) = self.entries.iter().position(|entry| *entry.url == *url) else { return };
        let Some(entry) = self.entries.get_mut(at) else { return };
        entry.in_flight = false;
        entry.due = now + RETRY_FIRST * 2_u32.saturating_pow(entry.failures.min(TRIES_MAX));
        entry.failures += 1;
        if had || entry.failures >= TRIES_MAX {
            self.entries.remove(at);
        }
    }

    /// Removes the waiting URLs for which `needed` returns `false`. Flights are not interrupted.
    pub(super) fn keep(&mut self, needed: impl Fn(&str) -> bool) {
        self.entries.retain(|entry| entry.in_flight || needed(&entry.url));
    }

    /// Returns the number of other networks that had a turn after this network's last turn. Returns `usize::MAX` for a
    /// network without a remembered turn, so that it comes first.
    fn last_turn(&self, network: IpAddr) -> usize {
        self.turns.iter().position(|turn| *turn == network).unwrap_or(usize::MAX)
    }
}

/// Returns the network of a client address: `/24` for IPv4 and `/48` for IPv6. One party usually owns all of it.
fn network(caller: IpAddr) -> IpAddr {
    match caller.to_canonical() {
        IpAddr::V4(v4) => {
            let [a, b, c, _] = v4.octets();
            IpAddr::V4(Ipv4Addr::new(a, b, c, 0))
        }
        IpAddr::V6(v6) => {
            let [a, b, c, ..] = v6.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, 0, 0, 0, 0, 0))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::instant;

    const FLOOD: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 7));
    const PROVIDER: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 7));

    /// Queues 100 URLs from `flood` before each of `count` turns, and lets every fetch fail. Returns the fetched URLs.
    fn turns(
        queue: &mut FetchQueue,
        mut now: Instant,
        count: usize,
        flood: impl Fn(usize) -> (String, IpAddr),
    ) -> Vec<Box<str>> {
        let mut taken = Vec::new();
        for turn in 0..count {
            for i in 0..100 {
                let (name, caller) = flood(turn * 100 + i);
                queue.ask(&name, caller, now);
            }
            now += GAP;
            if let Turn::Now(url) = queue.turn(now) {
                queue.land(&url, false, now);
                taken.push(url);
            }
        }
        taken
    }

    #[test]
    fn a_flood_of_one_network_leaves_the_turns_of_others() {
        // The flood requests each URL once, or five times.
        for times in [1, 5] {
            let (mut queue, now) = (FetchQueue::default(), instant());
            turns(&mut queue, now, 20, |i| (format!("none-{}", i / times), FLOOD));
            queue.ask("real", PROVIDER, now);
            queue.ask("real", PROVIDER, now);
            let taken = turns(&mut queue, now + GAP * 20, 2, |i| (format!("more-{}", i / times), FLOOD));
            assert!(taken.contains(&"real".into()), "{times}: {taken:?}");
        }
    }

    #[test]
    fn the_turns_go_round_among_the_networks_that_ask_again_and_again() {
        let (mut queue, now) = (FetchQueue::default(), instant());
        // The provider's network had many turns before the flood.
        turns(&mut queue, now, 50, |i| (format!("old-{}", i / 5), PROVIDER));
        let from = |i: usize| IpAddr::V4(Ipv4Addr::from(u32::try_from(i % 10 * 256).unwrap()));
        let flood = |i: usize| (format!("none-{}", i / 100 * 10 + i % 10), from(i));
        turns(&mut queue, now + GAP * 50, 20, flood);
        queue.ask("real", PROVIDER, now);
        queue.ask("real", PROVIDER, now);
        let taken = turns(&mut queue, now + GAP * 70, 11, |i| flood(i + 2000));
        assert!(taken.contains(&"real".into()), "{taken:?}");
    }

    #[test]
    fn what_is_asked_for_again_goes_before_new_names_wherever_they_come_from() {
        let (mut queue, now) = (FetchQueue::default(), instant());
        let from = |i: usize| IpAddr::V4(Ipv4Addr::from(u32::try_from(i * 256).unwrap()));
        turns(&mut queue, now, 20, |i| (format!("none-{i}"), from(i)));
        queue.ask("real", PROVIDER, now);
        let between = turns(&mut queue, now + GAP * 20, 20, |i| (format!("more-{i}"), from(i)));
        queue.ask("real", PROVIDER, now);
        let taken = turns(&mut queue, now + GAP * 40, 1, |i| (format!("last-{i}"), from(i)));
        assert!(taken == ["real".into()] || between.contains(&"real".into()), "{taken:?}");
    }

    #[test]
    fn what_hangs_leaves_flights_for_others() {
        let (mut queue, now) = (FetchQueue::default(), instant());
        let take = |queue: &mut FetchQueue| match queue.turn(now) {
            Turn::Now(url) => Some(url),
            _ => None,
        };
        for i in 0..10 {
            queue.ask(&format!("none-{i}"), FLOOD, now);
        }
        assert_eq!([take(&mut queue), take(&mut queue), take(&mut queue)].iter().flatten().count(), 2);
        for i in 0..10 {
            queue.ask(&format!("none-{i}"), FLOOD, now);
        }
        // URLs that were requested again may start, but one flight stays free for another network.
        assert_eq!([take(&mut queue), take(&mut queue)].iter().flatten().count(), 1);
        queue.ask("real", PROVIDER, now);
        queue.ask("real", PROVIDER, now);
        assert_eq!(take(&mut queue), Some("real".into()));
        assert_eq!(queue.turn(now), Turn::Nothing);
    }

    #[test]
    fn the_rate_the_room_and_the_tries_are_bounded() {
        let (mut queue, now) = (FetchQueue::default(), instant());
        let mut count = 0;
        for i in 0..1000 {
            queue.ask(&format!("none-{i}"), FLOOD, now);
            if let Turn::Now(url) = queue.turn(now) {
                queue.land(&url, false, now);
                count += 1;
            }
        }
        assert_eq!((count, queue.entries.len()), (8, WAITING_MAX));
        assert_eq!(queue.turn(now), Turn::At(now + GAP));
        let mut queue = FetchQueue::default();
        queue.ask("real", PROVIDER, now);
        let mut tries = 0;
        for second in 0..300 {
            let now = now + Duration::from_secs(second);
            if let Turn::Now(url) = queue.turn(now) {
                queue.land(&url, false, now);
                tries += 1;
            }
        }
        assert_eq!((tries, queue.holds("real")), (TRIES_MAX, false));
    }

    #[test]
    fn a_stranger_who_names_the_genuine_one_does_not_hold_it_back() {
        let (mut queue, now) = (FetchQueue::default(), instant());
        turns(&mut queue, now, 20, |i| (format!("none-{}", i / 5), FLOOD));
        queue.ask("real", FLOOD, now);
        queue.ask("real", PROVIDER, now);
        queue.ask("real", FLOOD, now);
        let taken = turns(&mut queue, now + GAP * 20, 1, |i| (format!("more-{}", i / 5), FLOOD));
        assert_eq!(taken, ["real".into()]);
    }

    #[test]
    fn a_failed_fetch_is_retried_during_a_slow_flood_of_new_names() {
        let from = |i: usize| IpAddr::V4(Ipv4Addr::from(u32::try_from(i * 256).unwrap()));
        // The flood comes from one network or from many, and requests one to three new URLs between two fetches. The
        // provider requests its URL twice, or only once if the flood comes from one network.
        for (networks, names, requests) in [(1, 1, 1), (1, 2, 1), (1, 2, 2), (1000, 1, 2), (1000, 3, 2)] {
            let (mut queue, mut now) = (FetchQueue::default(), instant());
            for _ in 0..requests {
                queue.ask("real", PROVIDER, now);
            }
            assert_eq!(queue.turn(now), Turn::Now("real".into()));
            queue.land("real", false, now);
            let mut taken = Vec::new();
            for i in 0..24 {
                now += GAP;
                for j in 0..names {
                    queue.ask(&format!("none-{i}-{j}"), from((i * names + j) % networks), now);
                }
                if let Turn::Now(url) = queue.turn(now) {
                    queue.land(&url, false, now);
                    taken.push(url);
                }
            }
            assert!(taken.contains(&"real".into()), "{networks} {names} {requests}: {taken:?}");
        }
    }

    #[test]
    fn a_failed_fetch_keeps_its_room_during_a_flood_of_new_names() {
        let from = |i: usize| IpAddr::V4(Ipv4Addr::from(u32::try_from(i % 1000 * 256).unwrap()));
        for many in [false, true] {
            let (mut queue, now) = (FetchQueue::default(), instant());
            queue.ask("real", PROVIDER, now);
            queue.ask("real", PROVIDER, now);
            assert_eq!(queue.turn(now), Turn::Now("real".into()));
            queue.land("real", false, now);
            let flood = |i: usize| (format!("none-{i}"), if many { from(i) } else { FLOOD });
            let taken = turns(&mut queue, now, 12, flood);
            assert!(taken.contains(&"real".into()), "{many}: {taken:?}");
        }
    }

    #[test]
    fn a_waiting_url_that_is_asked_for_again_stays_first_however_long_ago_it_was_first() {
        let (mut queue, now) = (FetchQueue::default(), instant());
        let forget = |queue: &mut FetchQueue| {
            for i in 0..LATELY_MAX * 3 {
                queue.lately.remember(&format!("forget-{i}"));
            }
        };
        // The URL waits with one request, and then with more.
        queue.ask("real", PROVIDER, now);
        for _ in 0..2 {
            forget(&mut queue);
            queue.ask("real", PROVIDER, now);
            assert!(queue.entries.iter().all(|entry| entry.again));
        }
    }
}
