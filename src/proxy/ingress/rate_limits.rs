//! Rate limits: per client address, and per route.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use governor::clock::MonotonicClock;
use governor::state::keyed::HashMapStateStore;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};
use parking_lot::RwLock;

use crate::proxy::listen::rate_limit_key;
use crate::time::Rate;

/// Number of calls between two sweeps of the recorded addresses.
const CHECKS_PER_SWEEP: usize = 10_000;
/// Maximum number of addresses that are kept after a sweep.
const CALLERS_MAX: usize = 200_000;

type CallerLimiter = RateLimiter<IpAddr, HashMapStateStore<IpAddr>, MonotonicClock>;
type RouteLimiter = RateLimiter<NotKeyed, InMemoryState, MonotonicClock>;

/// A rate and its limiter.
type WithRate<L> = (Rate, Arc<L>);

/// The rate limiters.
#[derive(Debug, Default)]
pub(crate) struct RateLimits {
    callers: RwLock<Option<WithRate<CallerLimiter>>>,
    routes: RwLock<HashMap<Arc<str>, WithRate<RouteLimiter>>>,
    checks: AtomicUsize,
}

impl RateLimits {
    /// Counts a request of an address. Reports whether it is within the rate.
    pub(crate) fn allow_caller(&self, rate: Rate, address: IpAddr) -> bool {
        let known =
            self.callers.read().as_ref().filter(|(known, _)| *known == rate).map(|(_, c)| Arc::clone(c));
        let callers = known.unwrap_or_else(|| {
            let callers = Arc::new(RateLimiter::hashmap_with_clock(quota(rate), MonotonicClock));
            *self.callers.write() = Some((rate, Arc::clone(&callers)));
            callers
        });
        if self.checks.fetch_add(1, Ordering::Relaxed).is_multiple_of(CHECKS_PER_SWEEP) {
            callers.retain_recent();
            callers.shrink_to_fit();
            if callers.len() > CALLERS_MAX {
                // Removing all addresses bounds the memory. Each address then has its full quota again.
                *self.callers.write() = None;
            }
        }
        callers.check_key(&rate_limit_key(address)).is_ok()
    }

    /// Counts a callback of a route. Reports whether it is within the rate.
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
    let each = rate.per / rate.requests.get();
    Quota::with_period(each).unwrap_or_else(|| Quota::per_second(rate.requests)).allow_burst(rate.requests)
}

#[cfg(test)]
mod tests {
    use std::num::NonZero;
    use std::time::Duration;

    use super::*;

    #[test]
    fn requests_beyond_the_rate_are_denied() {
        let rate = Rate { requests: NonZero::new(3).unwrap(), per: Duration::from_secs(3600) };
        let rates = RateLimits::default();
        let address = |text: &str| text.parse().unwrap();
        let may = |text: &str| (0..5).filter(|_| rates.allow_caller(rate, address(text))).count();
        assert_eq!((may("192.0.2.1"), may("192.0.2.2"), may("192.0.2.1")), (3, 3, 0));
        assert_eq!((may("2001:db8::1"), may("2001:db8::2"), may("2001:db8:1::")), (3, 0, 3));
        let name: Arc<str> = "r".into();
        assert_eq!((0..5).filter(|_| rates.allow_route(&name, rate)).count(), 3);
        // After a change of the rate, the limiter begins with a full quota.
        let other = Rate { requests: NonZero::new(1).unwrap(), ..rate };
        assert_eq!((0..5).filter(|_| rates.allow_route(&name, other)).count(), 1);
    }
}
