//! Rate limits: for requests per client address, and for callbacks per route.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use governor::clock::MonotonicClock;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};
use parking_lot::{Mutex, RwLock};

use crate::proxy::listen::rate_limit_key;
use crate::time::Rate;

/// The maximum number of client addresses in the rate limiter.
const CALLERS_MAX: usize = 200_000;
/// The number of shards into which the client addresses are divided. Each shard has its own lock, so that an eviction
/// delays few requests.
const SHARDS: usize = 16;

type RouteLimiter = RateLimiter<NotKeyed, InMemoryState, MonotonicClock>;

/// The rate of a route, and the limiter that was created for this rate.
type RouteRate = (Rate, Arc<RouteLimiter>);

/// The rate limiters for client addresses and for routes.
#[derive(Debug, Default)]
pub(crate) struct RateLimits {
    callers: Callers,
    routes: RwLock<HashMap<Arc<str>, RouteRate>>,
}

impl RateLimits {
    /// Counts a request of a client address. Returns false if the request exceeds the rate. `now` is the time of the
    /// monotonic clock.
    pub(crate) fn allow_caller(&self, rate: Rate, address: IpAddr, now: Instant) -> bool {
        self.callers.allow(rate, rate_limit_key(address), now)
    }

    /// Counts a callback of a route. Returns false if the callback exceeds the rate.
    pub(crate) fn allow_route(&self, name: &Arc<str>, rate: Rate) -> bool {
        let known =
            self.routes.read().get(name).filter(|(known, _)| *known == rate).map(|(_, all)| Arc::clone(all));
        let all = known.unwrap_or_else(|| {
            let all = Arc::new(RateLimiter::direct_with_clock(quota(rate), MonotonicClock));
            self.routes.write().insert(Arc::clone(name), (rate, Arc::clone(&all)));
            all
        });
        all.check().is_ok()
    }
}

fn quota(rate: Rate) -> Quota {
    Quota::with_period(interval(rate))
        .unwrap_or_else(|| Quota::per_second(rate.requests))
        .allow_burst(rate.requests)
}

/// Returns the time after which an exhausted quota allows one more request.
fn interval(rate: Rate) -> Duration {
    (rate.per / rate.requests.get()).max(Duration::from_nanos(1))
}

/// The client addresses that have used a part of their quota, and the state of each quota. The number of addresses is
/// bounded.
#[derive(Debug)]
struct Callers {
    shards: [Mutex<Shard>; SHARDS],
    /// Assigns client addresses to shards. The assignment is random, so that an attacker cannot choose addresses that
    /// all belong to the same shard.
    hasher: RandomState,
    shard_max: usize,
}

/// The quotas of the client addresses that belong to one shard.
#[derive(Debug, Default)]
struct Shard {
    /// The rate for which the times in `full_at` were computed. When the rate changes, every address has its full quota
    /// again.
    rate: Option<Rate>,
    /// The time at which each client address has its full quota again (generic cell rate algorithm).
    full_at: HashMap<IpAddr, Instant>,
}

impl Default for Callers {
    fn default() -> Self {
        Self::with_max(CALLERS_MAX)
    }
}

impl Callers {
    fn with_max(callers_max: usize) -> Self {
        Self {
            shards: std::array::from_fn(|_| Mutex::default()),
            hasher: RandomState::new(),
            shard_max: callers_max / SHARDS,
        }
    }

    fn allow(&self, rate: Rate, key: IpAddr, now: Instant) -> bool {
        let index = usize::try_from(self.hasher.hash_one(key) % SHARDS as u64).unwrap_or_default();
        let Some(shard) = self.shards.get(index) else { return true };
        shard.lock().allow(rate, key, now, self.shard_max)
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().full_at.len()).sum()
    }
}

impl Shard {
    fn allow(&mut self, rate: Rate, key: IpAddr, now: Instant, max: usize) -> bool {
        if self.rate != Some(rate) {
            *self = Self { rate: Some(rate), ..Self::default() };
        }
        if self.full_at.len() >= max && !self.full_at.contains_key(&key) {
            self.evict(now, max);
        }
        let interval = interval(rate);
        let full_at = self.full_at.entry(key).or_insert(now);
        let next = (*full_at).max(now) + interval;
        let is_allowed = next.saturating_duration_since(now) <= interval * rate.requests.get();
        if is_allowed {
            *full_at = next;
        }
        is_allowed
    }

    /// Removes the addresses that have their full quota again. Removing these addresses does not change the result of
    /// any check. If more than three quarters of `max` addresses then remain, also removes the addresses that have used
    /// the least of their quota, until three quarters remain. Therefore an address that has reached its limit stays
    /// limited, however many other addresses send single requests.
    fn evict(&mut self, now: Instant, max: usize) {
        self.full_at.retain(|_, full_at| *full_at > now);
        let keep = max - max / 4;
        if self.full_at.len() <= keep {
            return;
        }
        let mut times: Vec<_> = self.full_at.values().copied().collect();
        let surplus = times.len() - keep;
        let (_, last_removed, _) = times.select_nth_unstable(surplus.saturating_sub(1));
        let last_removed = *last_removed;
        let mut left = surplus;
        self.full_at.retain(|_, full_at| {
            let is_removed = *full_at <= last_removed && left > 0;
            left -= usize::from(is_removed);
            !is_removed
        });
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv6Addr;
    use std::num::NonZero;

    use super::*;
    use crate::clock::instant;

    fn rate(requests: u32, secs: u64) -> Rate {
        Rate { requests: NonZero::new(requests).unwrap(), per: Duration::from_secs(secs) }
    }

    /// Returns one of many addresses, each in its own /64 network.
    fn network(number: u32) -> IpAddr {
        IpAddr::V6(Ipv6Addr::from(u128::from(number) << 64 | 0x2001_0db8 << 96))
    }

    #[test]
    fn requests_beyond_the_rate_are_denied() {
        let (hourly, now) = (rate(3, 3600), instant());
        let rates = RateLimits::default();
        let address = |text: &str| text.parse().unwrap();
        let may = |text: &str| (0..5).filter(|_| rates.allow_caller(hourly, address(text), now)).count();
        assert_eq!((may("192.0.2.1"), may("192.0.2.2"), may("192.0.2.1")), (3, 3, 0));
        assert_eq!((may("2001:db8::1"), may("2001:db8::2"), may("2001:db8:1::")), (3, 0, 3));
        let name: Arc<str> = "r".into();
        assert_eq!((0..5).filter(|_| rates.allow_route(&name, hourly)).count(), 3);
        // With another rate, every address and route has its full quota again.
        let other = rate(1, 3600);
        assert_eq!((0..5).filter(|_| rates.allow_route(&name, other)).count(), 1);
        assert!(rates.allow_caller(other, address("192.0.2.1"), now));
    }

    #[test]
    fn quota_becomes_available_again_over_time() {
        let (two, began) = (rate(2, 10), instant());
        let callers = Callers::with_max(1600);
        let may = |secs: u64| {
            let now = began + Duration::from_secs(secs);
            (0..5).filter(|_| callers.allow(two, network(1), now)).count()
        };
        assert_eq!([may(0), may(4), may(5), may(9), may(10), may(1000)], [2, 0, 1, 0, 1, 2]);
    }

    #[test]
    fn a_limited_address_stays_limited_whoever_else_calls() {
        let (ten, now) = (rate(10, 3600), instant());
        let callers = Callers::with_max(1600);
        let attacker = network(0);
        assert_eq!((0..20).filter(|_| callers.allow(ten, attacker, now)).count(), 10);
        for number in 1..50_000 {
            assert!(callers.allow(ten, network(number), now));
        }
        assert!(!callers.allow(ten, attacker, now), "other addresses give nobody a new quota");
        assert!(callers.len() <= 1600, "{}", callers.len());
    }

    #[test]
    fn addresses_with_a_full_quota_are_removed_first() {
        let (ten, began) = (rate(10, 10), instant());
        let callers = Callers::with_max(1600);
        assert!((0..800).all(|number| callers.allow(ten, network(number), began)));
        let later = began + Duration::from_secs(60);
        for number in 1000..1400 {
            assert_eq!((0..20).filter(|_| callers.allow(ten, network(number), later)).count(), 10);
        }
        assert!((2000..4000).all(|number| callers.allow(ten, network(number), later)));
        for number in 1000..1400 {
            assert!(!callers.allow(ten, network(number), later), "{number}");
        }
        assert!(callers.len() <= 1600);
    }
}
