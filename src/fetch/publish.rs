//! Publishes fetched documents. Each update replaces the policy with a copy that differs only in the fetched data.
//!
//! A feed (a key set, an address list or a secret) is looked up by its URL and kind, not by its index, because a reload
//! can change the index.

use std::time::Duration;

use arc_swap::ArcSwap;

use super::cache::Cache;
use super::http_client::DOCUMENT_BYTES_MAX;
use crate::feed::FeedId;
use crate::file::read;
use crate::ingress::FetchedData;
use crate::policy::{Feed, FeedKind, Policy};
use crate::signature::KeySet;

/// Publishes a copy of the policy in which `change` has changed the fetched data.
pub(super) fn update(policy: &ArcSwap<Policy>, change: impl Fn(&mut FetchedData)) {
    policy.rcu(|old| {
        let mut data = old.ingress.edge().fetched_data.clone();
        change(&mut data);
        old.with_fetched_data(data)
    });
}

/// Publishes a copy of the policy in which `change` has changed the fetched data of one feed (a key set, an address
/// list or a secret). Has no effect if the current policy does not contain the feed.
pub(super) fn put(policy: &ArcSwap<Policy>, feed: &Feed, change: impl Fn(&mut FetchedData, FeedId)) {
    policy.rcu(|old| {
        let Some(id) = old.feed(feed) else { return Policy::clone(old) };
        let mut data = old.ingress.edge().fetched_data.clone();
        change(&mut data, id);
        old.with_fetched_data(data)
    });
}

/// Loads every feed of the policy (a key set, an address list or a secret) from its file or from the cache. Returns the
/// ages of the feeds, in the order of `Policy::feeds`. The age is `None` for a secret, for a feed that could not be
/// loaded, and for a key set in the cache that is older than `fetch.stale_ok`.
///
/// # Errors
/// Returns the reason as text if the cache folder cannot be used.
pub(super) fn load_cached_feeds(policy: &ArcSwap<Policy>) -> Result<Vec<Option<Duration>>, String> {
    let now = policy.load_full();
    let cache = Cache::new(now.fetching.cache.as_deref())?;
    let take = |feed: &Feed| {
        if feed.kind == FeedKind::Secret {
            let secret = feed.url.strip_prefix("file:").and_then(Cache::secret)?;
            put(policy, feed, |data, id| data.keyring.put_secret(id, secret.clone()));
            return None;
        }
        let (bytes, age) = match feed.url.strip_prefix("file:") {
            Some(path) => (read(path, DOCUMENT_BYTES_MAX).ok()?, Duration::ZERO),
            None => cache.read(&feed.url)?,
        };
        let stale = feed.kind == FeedKind::Keys && age > now.fetching.stale_ok;
        (!stale && apply(policy, feed, &bytes).is_ok()).then_some(age)
    };
    Ok(now.feeds.iter().map(take).collect())
}

/// Parses a fetched key set or address list, and publishes it in the policy. Publishes nothing if any part of the
/// document cannot be parsed. Returns a line for the event log if the number of keys or the addresses changed.
///
/// # Errors
/// Returns the reason as text if the document cannot be parsed, or if the current policy does not contain the feed.
pub(super) fn apply(policy: &ArcSwap<Policy>, feed: &Feed, bytes: &[u8]) -> Result<Option<String>, String> {
    let before = policy.load_full();
    let data = &before.ingress.edge().fetched_data;
    let id = before.feed(feed).ok_or_else(|| "the configuration does not need it any more".to_owned())?;
    match &feed.kind {
        FeedKind::Keys => {
            let set = KeySet::parse(bytes).map_err(|fault| format!("it {fault}"))?;
            let (count, known) = (set.keys().len(), data.keyring.set(id).map(|set| set.keys().len()));
            put(policy, feed, |data, id| data.keyring.put(id, set.clone()));
            Ok((known != Some(count)).then(|| format!("{}: {count} keys", feed.label())))
        }
        FeedKind::Addresses(selection) => {
            let networks = selection.read(bytes)?;
            let known = data.lists.get(id);
            let changed = known.is_none_or(|known| known.nets() != networks.nets());
            let said = changed.then(|| {
                let (now, before) = (networks.len(), known.map_or(0, |known| known.len()));
                format!("{}: the addresses changed, {now} ranges instead of {before}", feed.label())
            });
            put(policy, feed, |data, id| data.lists.put(id, networks.clone()));
            Ok(said)
        }
        FeedKind::Secret => Ok(None),
    }
}
