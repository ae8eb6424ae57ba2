//! One fetch: gets a document, publishes it in the policy, and stores it in the cache.

use arc_swap::ArcSwap;
use tokio::sync::mpsc;

use super::cache::Cache;
use super::certificates;
use super::http_client::{CERTIFICATE_BYTES_MAX, DOCUMENT_BYTES_MAX, HttpClient};
use super::publish::apply;
use super::requested_fetches::RequestedFetch;
use crate::policy::{Feed, Policy};
use crate::signature::KeySet;

/// A document to fetch: one that a message requests, or one that is fetched at intervals.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(super) enum FetchTarget {
    /// A document that a message requests.
    Requested(RequestedFetch),
    /// A document that is fetched at intervals.
    Periodic(PeriodicFetch),
}

/// A document that is fetched at intervals.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(super) enum PeriodicFetch {
    /// A certificate at this URL. A message that named the URL caused the first fetch.
    Certificate(Box<str>),
    /// A key set or address list that the configuration names.
    Feed(Feed),
}

/// A fetch that has ended, and its result. `Ok` contains a line for the event log if there is something to log, such as
/// a changed document. `Err` contains the reason of the failure.
pub(super) type FetchEnd = (FetchTarget, Result<Option<String>, String>);

impl FetchTarget {
    /// Returns the name of the document in metrics and in the log: the label of a feed, `certificate` or
    /// `confirmation`.
    pub(super) fn label(&self) -> &str {
        match self {
            Self::Requested(RequestedFetch::Certificate(..))
            | Self::Periodic(PeriodicFetch::Certificate(_)) => "certificate",
            Self::Requested(RequestedFetch::Confirmation(_)) => "confirmation",
            Self::Periodic(PeriodicFetch::Feed(feed)) => feed.label(),
        }
    }
}

/// Starts a fetch on a thread for blocking work, and sends its result to `done`. If the fetch panics, the result is an
/// error.
pub(super) fn start_fetch(
    target: FetchTarget,
    done: mpsc::Sender<FetchEnd>,
    fetch: impl FnOnce(&FetchTarget) -> Result<Option<String>, String> + Send + 'static,
) {
    tokio::spawn(async move {
        let document = target.clone();
        let ended = tokio::task::spawn_blocking(move || fetch(&document)).await;
        // The message of a panic may contain parts of the document, so the result does not include this message.
        let result = ended.unwrap_or_else(|_| Err("the fetch ended without a result".to_owned()));
        // Sending fails only if the receiver is closed. Then no result is needed.
        let _ = done.send((target, result)).await;
    });
}

/// Fetches one document, publishes it in the policy `published`, and stores it in the cache that `policy` configures.
/// For a confirmation of a subscription, only sends the request. Blocks the thread. Returns a line for the event log if
/// there is something to log, such as a changed document.
pub(super) fn fetch(
    client: &HttpClient,
    policy: &Policy,
    published: &ArcSwap<Policy>,
    target: &FetchTarget,
) -> Result<Option<String>, String> {
    match target {
        FetchTarget::Requested(RequestedFetch::Confirmation(url)) => {
            client.get(url, DOCUMENT_BYTES_MAX)?;
            Ok(Some("a subscription was confirmed".to_owned()))
        }
        FetchTarget::Requested(RequestedFetch::Certificate(_, url))
        | FetchTarget::Periodic(PeriodicFetch::Certificate(url)) => {
            let bytes = client.get(url, CERTIFICATE_BYTES_MAX)?;
            let set = KeySet::parse(&bytes).map_err(|fault| format!("it {fault}"))?;
            if !certificates::put(published, url, &set) {
                return Err("the configuration does not need it any more".to_owned());
            }
            write_to_cache(policy, target, |cache| cache.write_certificate(url, &bytes));
            Ok(Some(format!("a certificate was fetched: {url}")))
        }
        FetchTarget::Periodic(PeriodicFetch::Feed(feed)) => {
            let bytes = client.get(&feed.url, DOCUMENT_BYTES_MAX)?;
            let change = apply(published, feed, &bytes)?;
            if !feed.url.starts_with("file:") {
                write_to_cache(policy, target, |cache| cache.write(&feed.url, &bytes));
            }
            Ok(change)
        }
    }
}

/// Stores a fetched document in the cache. A failure is logged and has no other effect.
fn write_to_cache(policy: &Policy, target: &FetchTarget, write: impl Fn(&Cache) -> std::io::Result<()>) {
    let kept = Cache::new(policy.fetching.cache.as_deref())
        .and_then(|cache| write(&cache).map_err(|error| error.to_string()));
    if let Err(error) = kept {
        log::warn!("cannot store {} in the cache: {error}", target.label());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_fetch_that_panics_ends_as_a_failure() {
        let (done, mut ended) = mpsc::channel(1);
        let target = |url: &str| FetchTarget::Requested(RequestedFetch::Confirmation(url.into()));
        start_fetch(target("panics"), done.clone(), |_| panic!("a fault of the parser"));
        start_fetch(target("succeeds"), done, |_| Ok(None));
        let mut results = Vec::new();
        while let Some((target, result)) = ended.recv().await {
            results.push((target, result.is_ok()));
        }
        results.sort_by_key(|(_, succeeded)| *succeeded);
        assert_eq!(results, [(target("panics"), false), (target("succeeds"), true)]);
    }
}
