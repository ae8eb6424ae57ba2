//! One fetch: gets a document, publishes it in the policy, and stores it in the cache.

use arc_swap::ArcSwap;
use tokio::sync::mpsc;

use super::cache::Cache;
use super::certificates;
use super::client::{CERTIFICATE_BYTES_MAX, DOCUMENT_BYTES_MAX, HttpClient};
use super::errands::Errand;
use super::fetched_data::apply;
use crate::policy::{Feed, Policy};
use crate::signature::KeySet;

/// The document to fetch.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(super) enum Target {
    /// A document that a message asks for.
    Errand(Errand),
    /// A document that is fetched at intervals.
    Lasting(Lasting),
}

/// A document that is fetched at intervals.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(super) enum Lasting {
    /// URL of a certificate that was fetched once because a message named it.
    Certificate(Box<str>),
    /// A key set or address list that the configuration names.
    Feed(Feed),
}

/// The result of a fetch: a log line if something changed, or the reason of the failure.
pub(super) type Landed = (Target, Result<Option<String>, String>);

impl Target {
    /// Returns the name of the document in metrics and in the log.
    pub(super) fn label(&self) -> &str {
        match self {
            Self::Errand(Errand::Certificate(..)) | Self::Lasting(Lasting::Certificate(_)) => "certificate",
            Self::Errand(Errand::Confirmation(_)) => "confirmation",
            Self::Lasting(Lasting::Feed(feed)) => feed.label(),
        }
    }
}

/// Starts a fetch on a thread that may block. Sends its result to `done`, also if the fetch panics or never runs.
pub(super) fn start(
    target: Target,
    done: mpsc::Sender<Landed>,
    fetch: impl FnOnce(&Target) -> Result<Option<String>, String> + Send + 'static,
) {
    tokio::spawn(async move {
        let document = target.clone();
        let ended = tokio::task::spawn_blocking(move || fetch(&document)).await;
        // The message of a panic may contain parts of the document, so it is not repeated here.
        let result = ended.unwrap_or_else(|_| Err("the fetch ended without a result".to_owned()));
        // Sending fails only if the task has ended, and then nobody needs the result.
        let _ = done.send((target, result)).await;
    });
}

/// Fetches one document, publishes it in `published`, and stores it in the cache that `policy` configures. Blocks.
/// Returns a log line if something changed.
pub(super) fn fetch(
    client: &HttpClient,
    policy: &Policy,
    published: &ArcSwap<Policy>,
    target: &Target,
) -> Result<Option<String>, String> {
    match target {
        Target::Errand(Errand::Confirmation(url)) => {
            client.get(url, DOCUMENT_BYTES_MAX)?;
            Ok(Some("a subscription was confirmed".to_owned()))
        }
        Target::Errand(Errand::Certificate(_, url)) | Target::Lasting(Lasting::Certificate(url)) => {
            let bytes = client.get(url, CERTIFICATE_BYTES_MAX)?;
            let set = KeySet::parse(&bytes).map_err(|fault| format!("it {fault}"))?;
            if !certificates::put(published, url, &set) {
                return Err("the configuration does not need it any more".to_owned());
            }
            keep(policy, target, |cache| cache.keep_certificate(url, &bytes));
            Ok(Some(format!("a certificate was fetched: {url}")))
        }
        Target::Lasting(Lasting::Feed(feed)) => {
            let bytes = client.get(&feed.url, DOCUMENT_BYTES_MAX)?;
            let change = apply(published, feed, &bytes)?;
            if !feed.url.starts_with("file:") {
                keep(policy, target, |cache| cache.write(&feed.url, &bytes));
            }
            Ok(change)
        }
    }
}

/// Stores a fetched document in the cache. A failure is logged and has no other effect.
fn keep(policy: &Policy, target: &Target, write: impl Fn(&Cache) -> std::io::Result<()>) {
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
        let target = |url: &str| Target::Errand(Errand::Confirmation(url.into()));
        start(target("panics"), done.clone(), |_| panic!("a fault of the parser"));
        start(target("succeeds"), done, |_| Ok(None));
        let mut results = Vec::new();
        while let Some((target, result)) = ended.recv().await {
            results.push((target, result.is_ok()));
        }
        results.sort_by_key(|(_, succeeded)| *succeeded);
        assert_eq!(results, [(target("panics"), false), (target("succeeds"), true)]);
    }
}
