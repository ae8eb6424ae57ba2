//! The queue of URLs that messages ask Callgate to fetch.
//!
//! An attacker can send forged messages with many invented URLs. These URLs must not delay the URL in a genuine
//! message. A provider usually repeats its message, so URLs that were requested more than once are fetched first.
//! Within each of the two groups of URLs, the networks of the clients take turns.

use std::cmp::Reverse;
use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use super::recent_requests::RecentRequests;

/// The maximum number of URLs in the fetch queue, including the URLs that are being fetched.
const ENTRIES_MAX: usize = 64;
/// The maximum number of fetches from one queue that run at the same time.
const RUNNING_MAX: usize = 4;
/// The maximum number of fetches that run at the same time for clients of one network.
const RUNNING_PER_NETWORK_MAX: usize = 3;
/// The maximum number of fetches that run at the same time for URLs that were requested only once.
const RUNNING_FIRST_REQUESTS_MAX: usize = 2;
/// The minimum average time between the starts of two fetches from one queue.
const START_INTERVAL: Duration = Duration::from_millis(500);
/// The maximum number of fetches from one queue that can start at once after a pause.
const BURST: u32 = 8;
/// The number of failed attempts after which a URL leaves the queue. A later message can request the URL again.
const ATTEMPTS_MAX: u32 = 4;
/// The delay before the first retry of a failed fetch. The delay doubles with each further failure.
const FIRST_RETRY_DELAY: Duration = Duration::from_secs(5);
/// The maximum number of client networks for which the queue records when it last started a fetch.
const SERVED_MAX: usize = 256;

/// A queue of URLs to fetch. It contains the waiting URLs and the URLs that are being fetched.
#[derive(Debug, Default)]
pub(super) struct FetchQueue {
    /// The URLs in the queue, sorted by the network of the client that requested them.
    entries: Vec<Entry>,
    recent: RecentRequests,
    /// The client networks for which a fetch was started, latest fetch first.
    served: VecDeque<IpAddr>,
    /// The sequence number of the latest request to the queue.
    sequence: u64,
    /// The earliest time at which the next fetch could start if bursts were not allowed.
    next_start: Option<Instant>,
}

/// The result of [`FetchQueue::start_next`]: the next URL to fetch, or how long to wait.
#[derive(Debug, Eq, PartialEq)]
pub(super) enum NextFetch {
    /// The URL must be fetched now.
    Start(Box<str>),
    /// A URL waits, but the rate limit does not allow its fetch before this time.
    WaitUntil(Instant),
    /// No fetch can start until the queue changes or a retry is due.
    Nothing,
}

#[derive(Debug)]
struct Entry {
    url: Box<str>,
    network: IpAddr,
    /// Whether messages requested the URL more than once.
    repeated: bool,
    failures: u32,
    due: Instant,
    running: bool,
    /// The sequence number of the latest request for this URL.
    sequence: u64,
}

impl FetchQueue {
    /// Queues a URL that a message of `client` names. If the queue is full, [`Self::make_room`] removes another URL.
    pub(super) fn request(&mut self, url: &str, client: IpAddr, now: Instant) {
        let (repeated, network) = (self.recent.record(url), network(client));
        let known = self.entries.iter().position(|entry| *entry.url == *url);
        self.sequence += 1;
        let sequence = self.sequence;
        let entry = match known {
            None => {
                if self.is_full() {
                    self.make_room(network);
                }
                Entry { url: url.into(), network, repeated, failures: 0, due: now, running: false, sequence }
            }
            Some(at) => {
                let entry = self.entries.remove(at);
                // Moves the URL to the network of `client` if the queue will serve this network earlier.
                let sooner = !entry.running && self.served_since(network) > self.served_since(entry.network);
                let network = if sooner { network } else { entry.network };
                Entry { repeated: true, network, sequence, ..entry }
            }
        };
        let at = self.entries.partition_point(|other| other.network < entry.network);
        self.entries.insert(at, entry);
    }

    /// Reports whether the fetch queue has its maximum number of URLs.
    pub(super) fn is_full(&self) -> bool {
        self.entries.len() >= ENTRIES_MAX
    }

    /// Reports whether the queue is empty: no URL waits and no fetch runs.
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Reports whether the URL is in the fetch queue, waiting or being fetched.
    pub(super) fn contains(&self, url: &str) -> bool {
        self.entries.iter().any(|entry| *entry.url == *url)
    }

    /// Removes one waiting URL, so that a URL from the network `newcomer` can be added. Removes a URL of the network
    /// that would then have the most URLs. In this network, prefers a URL that was requested only once, then a URL
    /// whose fetch has failed, and then the URL with the oldest request.
    fn make_room(&mut self, newcomer: IpAddr) {
        let runs = self.entries.chunk_by(|a, b| a.network == b.network);
        let rated = runs.flat_map(|run| {
            let own = run.first().is_some_and(|entry| entry.network == newcomer);
            let share = run.len() + usize::from(own);
            run.iter().map(move |entry| (share, entry))
        });
        let worst = rated
            .filter(|(_, entry)| !entry.running)
            .max_by_key(|(share, entry)| {
                (*share, !entry.repeated, entry.failures > 0, Reverse(entry.sequence))
            })
            .map(|(_, entry)| entry.sequence);
        self.entries.retain(|entry| Some(entry.sequence) != worst);
    }

    /// Chooses the next URL of the queue to fetch, and marks it as running until [`Self::finish`] is called.
    pub(super) fn start_next(&mut self, now: Instant) -> NextFetch {
        let running: Vec<_> = self.entries.iter().filter(|entry| entry.running).collect();
        if running.len() >= RUNNING_MAX {
            return NextFetch::Nothing;
        }
        let first_requests = running.iter().filter(|entry| !entry.repeated).count();
        let running_for = |network: IpAddr| running.iter().filter(|entry| entry.network == network).count();
        let may_start = |entry: &&Entry| {
            !entry.running
                && entry.due <= now
                && (entry.repeated || first_requests < RUNNING_FIRST_REQUESTS_MAX)
                && running_for(entry.network) < RUNNING_PER_NETWORK_MAX
        };
        let mut ready = self.entries.iter().filter(may_start).peekable();
        if ready.peek().is_none() {
            return NextFetch::Nothing;
        }
        let next_start = self.next_start.unwrap_or(now).max(now);
        let (ahead, burst) = (next_start.saturating_duration_since(now), START_INTERVAL * (BURST - 1));
        if ahead > burst {
            return NextFetch::WaitUntil(now + (ahead - burst));
        }
        let rank = |entry: &&Entry| {
            // The rank compares the networks before the failures. Otherwise a flood of new URLs would prevent every
            // retry of a genuine URL.
            let served = Reverse(self.served_since(entry.network));
            (!entry.repeated, served, entry.failures > 0, Reverse(entry.sequence))
        };
        let next = ready.min_by_key(rank).map(|entry| entry.sequence);
        let Some(entry) = self.entries.iter_mut().find(|entry| Some(entry.sequence) == next) else {
            return NextFetch::Nothing;
        };
        entry.running = true;
        let (url, network) = (entry.url.clone(), entry.network);
        self.next_start = Some(next_start + START_INTERVAL);
        self.served.retain(|other| *other != network);
        self.served.truncate(SERVED_MAX - 1);
        self.served.push_front(network);
        NextFetch::Start(url)
    }

    /// Records that the fetch of a URL has ended. Removes the URL after a success, or after [`ATTEMPTS_MAX`] failures.
    /// Otherwise schedules a retry.
    pub(super) fn finish(&mut self, url: &str, succeeded: bool, now: Instant) {
        let Some(at) = self.entries.iter().position(|entry| *entry.url == *url) else { return };
        let Some(entry) = self.entries.get_mut(at) else { return };
        entry.running = false;
        entry.due = now + FIRST_RETRY_DELAY * 2_u32.saturating_pow(entry.failures.min(ATTEMPTS_MAX));
        entry.failures += 1;
        if succeeded || entry.failures >= ATTEMPTS_MAX {
            self.entries.remove(at);
        }
    }

    /// Removes each waiting URL for which `needed` returns `false`. Running fetches are not interrupted.
    pub(super) fn retain(&mut self, needed: impl Fn(&str) -> bool) {
        self.entries.retain(|entry| entry.running || needed(&entry.url));
    }

    /// Returns the number of other networks for which a fetch was started after the last fetch for this network.
    /// Returns `usize::MAX` if no fetch for this network is recorded, so that this network comes first.
    fn served_since(&self, network: IpAddr) -> usize {
        self.served.iter().position(|other| *other == network).unwrap_or(usize::MAX)
    }
}

/// Returns the network of a client address: `/24` for IPv4, `/48` for IPv6. One party usually owns the whole network.
fn network(client: IpAddr) -> IpAddr {
    match client.to_canonical() {
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
    use crate::fetch::recent_requests::RECENT_MAX;

    const FLOOD: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 7));
    const PROVIDER: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 7));

    /// Queues 100 URLs from `flood` before each of `count` fetches. Every fetch fails. Returns the fetched URLs.
    fn turns(
        queue: &mut FetchQueue,
        mut now: Instant,
        count: usize,
        flood: impl Fn(usize) -> (String, IpAddr),
    ) -> Vec<Box<str>> {
        let mut taken = Vec::new();
        for turn in 0..count {
            for i in 0..100 {
                let (name, client) = flood(turn * 100 + i);
                queue.request(&name, client, now);
            }
            now += START_INTERVAL;
            if let NextFetch::Start(url) = queue.start_next(now) {
                queue.finish(&url, false, now);
                taken.push(url);
            }
        }
        taken
    }

    #[test]
    fn a_flood_from_one_network_leaves_turns_for_others() {
        // The flood requests each URL once, or five times.
        for times in [1, 5] {
            let (mut queue, now) = (FetchQueue::default(), instant());
            turns(&mut queue, now, 20, |i| (format!("none-{}", i / times), FLOOD));
            queue.request("real", PROVIDER, now);
            queue.request("real", PROVIDER, now);
            let taken =
                turns(&mut queue, now + START_INTERVAL * 20, 2, |i| (format!("more-{}", i / times), FLOOD));
            assert!(taken.contains(&"real".into()), "{times}: {taken:?}");
        }
    }

    #[test]
    fn networks_that_repeat_requests_take_turns() {
        let (mut queue, now) = (FetchQueue::default(), instant());
        // The provider's network had many fetches before the flood.
        turns(&mut queue, now, 50, |i| (format!("old-{}", i / 5), PROVIDER));
        let from = |i: usize| IpAddr::V4(Ipv4Addr::from(u32::try_from(i % 10 * 256).unwrap()));
        let flood = |i: usize| (format!("none-{}", i / 100 * 10 + i % 10), from(i));
        turns(&mut queue, now + START_INTERVAL * 50, 20, flood);
        queue.request("real", PROVIDER, now);
        queue.request("real", PROVIDER, now);
        let taken = turns(&mut queue, now + START_INTERVAL * 70, 11, |i| flood(i + 2000));
        assert!(taken.contains(&"real".into()), "{taken:?}");
    }

    #[test]
    fn a_url_that_is_requested_again_is_fetched_before_new_urls_from_any_network() {
        let (mut queue, now) = (FetchQueue::default(), instant());
        let from = |i: usize| IpAddr::V4(Ipv4Addr::from(u32::try_from(i * 256).unwrap()));
        turns(&mut queue, now, 20, |i| (format!("none-{i}"), from(i)));
        queue.request("real", PROVIDER, now);
        let between = turns(&mut queue, now + START_INTERVAL * 20, 20, |i| (format!("more-{i}"), from(i)));
        queue.request("real", PROVIDER, now);
        let taken = turns(&mut queue, now + START_INTERVAL * 40, 1, |i| (format!("last-{i}"), from(i)));
        assert!(taken == [Box::from("real")] || between.contains(&Box::from("real")), "{taken:?}");
    }

    #[test]
    fn fetches_that_hang_leave_capacity_for_others() {
        let (mut queue, now) = (FetchQueue::default(), instant());
        let take = |queue: &mut FetchQueue| match queue.start_next(now) {
            NextFetch::Start(url) => Some(url),
            _ => None,
        };
        for i in 0..10 {
            queue.request(&format!("none-{i}"), FLOOD, now);
        }
        assert_eq!([take(&mut queue), take(&mut queue), take(&mut queue)].iter().flatten().count(), 2);
        for i in 0..10 {
            queue.request(&format!("none-{i}"), FLOOD, now);
        }
        // All URLs were requested again, so a third fetch for this network can start. A fourth fetch cannot start.
        assert_eq!([take(&mut queue), take(&mut queue)].iter().flatten().count(), 1);
        queue.request("real", PROVIDER, now);
        queue.request("real", PROVIDER, now);
        assert_eq!(take(&mut queue), Some("real".into()));
        assert_eq!(queue.start_next(now), NextFetch::Nothing);
    }

    #[test]
    fn the_rate_the_size_and_the_attempts_are_bounded() {
        let (mut queue, now) = (FetchQueue::default(), instant());
        let mut count = 0;
        for i in 0..1000 {
            queue.request(&format!("none-{i}"), FLOOD, now);
            if let NextFetch::Start(url) = queue.start_next(now) {
                queue.finish(&url, false, now);
                count += 1;
            }
        }
        assert_eq!((count, queue.entries.len()), (8, ENTRIES_MAX));
        assert_eq!(queue.start_next(now), NextFetch::WaitUntil(now + START_INTERVAL));
        let mut queue = FetchQueue::default();
        queue.request("real", PROVIDER, now);
        let mut tries = 0;
        for second in 0..300 {
            let now = now + Duration::from_secs(second);
            if let NextFetch::Start(url) = queue.start_next(now) {
                queue.finish(&url, false, now);
                tries += 1;
            }
        }
        assert_eq!((tries, queue.contains("real")), (ATTEMPTS_MAX, false));
    }

    #[test]
    fn an_attacker_who_requests_the_genuine_url_does_not_delay_it() {
        let (mut queue, now) = (FetchQueue::default(), instant());
        turns(&mut queue, now, 20, |i| (format!("none-{}", i / 5), FLOOD));
        queue.request("real", FLOOD, now);
        queue.request("real", PROVIDER, now);
        queue.request("real", FLOOD, now);
        let taken = turns(&mut queue, now + START_INTERVAL * 20, 1, |i| (format!("more-{}", i / 5), FLOOD));
        assert_eq!(taken, [Box::from("real")]);
    }

    #[test]
    fn a_failed_fetch_is_retried_during_a_slow_flood_of_new_urls() {
        let from = |i: usize| IpAddr::V4(Ipv4Addr::from(u32::try_from(i * 256).unwrap()));
        // The flood comes from `networks` networks, and requests `names` new URLs before each fetch. The provider
        // requests its URL `requests` times.
        for (networks, names, requests) in [(1, 1, 1), (1, 2, 1), (1, 2, 2), (1000, 1, 2), (1000, 3, 2)] {
            let (mut queue, mut now) = (FetchQueue::default(), instant());
            for _ in 0..requests {
                queue.request("real", PROVIDER, now);
            }
            assert_eq!(queue.start_next(now), NextFetch::Start("real".into()));
            queue.finish("real", false, now);
            let mut taken = Vec::new();
            for i in 0..24 {
                now += START_INTERVAL;
                for j in 0..names {
                    queue.request(&format!("none-{i}-{j}"), from((i * names + j) % networks), now);
                }
                if let NextFetch::Start(url) = queue.start_next(now) {
                    queue.finish(&url, false, now);
                    taken.push(url);
                }
            }
            assert!(taken.contains(&"real".into()), "{networks} {names} {requests}: {taken:?}");
        }
    }

    #[test]
    fn a_failed_url_stays_in_the_queue_during_a_flood_of_new_urls() {
        let from = |i: usize| IpAddr::V4(Ipv4Addr::from(u32::try_from(i % 1000 * 256).unwrap()));
        for many in [false, true] {
            let (mut queue, now) = (FetchQueue::default(), instant());
            queue.request("real", PROVIDER, now);
            queue.request("real", PROVIDER, now);
            assert_eq!(queue.start_next(now), NextFetch::Start("real".into()));
            queue.finish("real", false, now);
            let flood = |i: usize| (format!("none-{i}"), if many { from(i) } else { FLOOD });
            let taken = turns(&mut queue, now, 12, flood);
            assert!(taken.contains(&"real".into()), "{many}: {taken:?}");
        }
    }

    #[test]
    fn a_queued_url_that_is_requested_again_is_marked_as_repeated() {
        let (mut queue, now) = (FetchQueue::default(), instant());
        let forget = |queue: &mut FetchQueue| {
            for i in 0..RECENT_MAX * 3 {
                queue.recent.record(&format!("forget-{i}"));
            }
        };
        // In each round, the URL is still in the queue, but no longer among the recently requested URLs.
        queue.request("real", PROVIDER, now);
        for _ in 0..2 {
            forget(&mut queue);
            queue.request("real", PROVIDER, now);
            assert!(queue.entries.iter().all(|entry| entry.repeated));
        }
    }
}
