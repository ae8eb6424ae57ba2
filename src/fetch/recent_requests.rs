//! Stores hashes of recently requested URLs, so that repeated requests are recognized. The number of hashes is limited.

use std::collections::HashSet;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;

/// The maximum number of hashes in each of the two sets of [`RecentRequests`].
pub(super) const RECENT_MAX: usize = 1 << 15;

/// The hashes of the URLs that were requested last. When the set `new` is full, it replaces the set `old`, so that
/// hashes of at least [`RECENT_MAX`] URLs are stored.
#[derive(Debug, Default)]
pub(super) struct RecentRequests {
    hasher: RandomState,
    new: HashSet<u64>,
    old: HashSet<u64>,
}

impl RecentRequests {
    /// Records that a URL was requested. Returns whether the URL had already been recorded.
    pub(super) fn record(&mut self, url: &str) -> bool {
        let hash = self.hasher.hash_one(url);
        let known = self.new.contains(&hash) || self.old.contains(&hash);
        if self.new.len() >= RECENT_MAX {
            self.old = std::mem::take(&mut self.new);
        }
        self.new.insert(hash);
        known
    }
}
