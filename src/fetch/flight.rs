//! One flight: something is fetched, put in its place, and kept over restarts.

use arc_swap::ArcSwap;

use super::cache::Cache;
use super::certificates;
use super::client::{CERTIFICATE_BYTES_MAX, DOCUMENT_BYTES_MAX, HttpClient};
use super::errands::Errand;
use super::fetched_data::apply;
use crate::policy::{Feed, Policy};
use crate::signature::KeySet;

/// What a flight is about.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(super) enum Target {
    /// What a message asks for.
    Errand(Errand),
    /// What is had again and again.
    Lasting(Lasting),
}

/// What is fetched anew from time to time.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(super) enum Lasting {
    /// A certificate that was had once.
    Certificate(Box<str>),
    /// What the configuration names.
    Feed(Feed),
}

/// What a flight came back with: what changed, in words, or what went wrong.
pub(super) type Landed = (Target, Result<Option<String>, String>);

impl Target {
    /// What it is called in metrics and in the log.
    pub(super) fn label(&self) -> &str {
        match self {
            Self::Errand(Errand::Certificate(..)) | Self::Lasting(Lasting::Certificate(_)) => "certificate",
            Self::Errand(Errand::Confirmation(_)) => "confirmation",
            Self::Lasting(Lasting::Feed(feed)) => feed.label(),
        }
    }
}

/// Fetches one thing and puts it in its place. Blocks.
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
                return Err("it is not needed any more".to_owned());
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

/// Keeps what was fetched over a restart, if it can be.
fn keep(policy: &Policy, target: &Target, write: impl Fn(&Cache) -> std::io::Result<()>) {
    let kept = Cache::new(policy.fetching.cache.as_deref())
        .and_then(|cache| write(&cache).map_err(|error| error.to_string()));
    if let Err(error) = kept {
        log::warn!("{} could not be kept: {error}", target.label());
    }
}
