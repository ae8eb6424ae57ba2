//! The task that fetches key sets, address lists and certificates.
//!
//! Documents that the configuration names are fetched before they are needed, and then at intervals. If a fetch fails,
//! the last good document stays in use. At most one fetch of each document runs at a time. A message cannot make
//! Callgate fetch an arbitrary URL: the provider's scheme restricts the URLs of certificates and of confirmations.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc};

use super::cache::Cache;
use super::certificates;
use super::http_client::HttpClient;
use super::one_fetch::{FetchEnd, FetchTarget, PeriodicFetch, fetch, start_fetch};
use super::publish::{load_cached_feeds, put, update};
use super::requested_fetches::{RequestedFetch, RequestedFetches};
use crate::clock::instant;
use crate::feed::FeedId;
use crate::ingress::Seen;
use crate::observe::Metrics;
use crate::policy::{Feed, FeedKind, Policy};
use crate::secret::Secret;
use crate::signature::Verifier;

/// The interval at which the fetching task checks whether a document must be fetched.
const TICK: Duration = Duration::from_secs(1);
/// The delay before the first retry of a failed fetch. It doubles with each further failure, up to the normal interval.
const FIRST_RETRY_DELAY: Duration = Duration::from_secs(5);
/// The maximum number of fetches that run at the same time for documents that are fetched at intervals.
const RUNNING_MAX: usize = 4;

/// The state of a document that is fetched at intervals.
#[derive(Default)]
struct State {
    running: bool,
    failures: u32,
    due: Option<Instant>,
    /// The time at which the document was last loaded, and the age of the document at that time.
    loaded: Option<(Instant, Duration)>,
}

impl State {
    fn age(&self, now: Instant) -> Option<Duration> {
        self.loaded.map(|(at, age)| now.saturating_duration_since(at) + age)
    }
}

/// The fetches that a provider's request made necessary, and the signal that wakes the fetching task.
#[derive(Default)]
struct Requests {
    fetches: Mutex<RequestedFetches>,
    wake: Notify,
}

/// A handle to the fetching task. The code that verifies messages uses this handle to request fetches.
pub struct Fetcher {
    requests: Arc<Requests>,
    policy: Arc<ArcSwap<Policy>>,
}

/// The state of the task that fetches key sets, address lists and certificates.
pub struct Work {
    requests: Arc<Requests>,
    policy: Arc<ArcSwap<Policy>>,
    /// The HTTP client of the fetching task. It is created at first use.
    client: Option<HttpClient>,
    metrics: Arc<Metrics>,
    states: HashMap<PeriodicFetch, State>,
}

/// Returns the policy with the documents from files and from the cache folder. Uses no network.
///
/// # Errors
/// Returns the reason as text if the cache folder cannot be used.
pub fn with_cached(policy: Policy) -> Result<Policy, String> {
    let policy = ArcSwap::from_pointee(policy);
    load_cached_feeds(&policy)?;
    certificates::load_cached_certificates(&policy)?;
    Ok(Policy::clone(&policy.load()))
}

impl Fetcher {
    /// Creates the fetching task and the handle for requests to this task. Loads the cached documents before it
    /// returns.
    ///
    /// # Errors
    /// Returns the reason as text if the trusted roots or the cache folder cannot be used.
    pub fn new(policy: &Arc<ArcSwap<Policy>>, metrics: &Arc<Metrics>) -> Result<(Self, Work), String> {
        let now = policy.load_full();
        let requests = Arc::<Requests>::default();
        let mut work = Work {
            requests: Arc::clone(&requests),
            policy: Arc::clone(policy),
            client: None,
            metrics: Arc::clone(metrics),
            states: HashMap::new(),
        };
        if !now.feeds.is_empty() || now.verifiers().any(Verifier::fetches) {
            work.connect(&now)?;
        }
        work.load(&now)?;
        Ok((Self { requests, policy: Arc::clone(policy) }, work))
    }

    /// Queues the fetch of a certificate that a message names, if the message could not be verified because this
    /// certificate is missing. `seen` describes the message.
    pub fn want(&self, seen: &Seen) {
        let provider = seen.route.as_ref().and_then(|route| route.provider.as_ref());
        let (Some(url), Some(provider)) = (&seen.wanted, provider) else { return };
        // The certificate may have been fetched since the decision about the message.
        if self.policy.load().ingress.edge().fetched_data.keyring.certificate(url).is_some() {
            return;
        }
        let client = seen.client.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
        self.requests.fetches.lock().certificate(&provider.name, url, client, instant());
        self.requests.wake.notify_one();
    }

    /// Queues a request to the URL that confirms a subscription. Returns `false` if too many confirmations are waiting.
    pub fn confirm(&self, url: &str) -> bool {
        let taken = self.requests.fetches.lock().confirmation(url, instant());
        self.requests.wake.notify_one();
        taken
    }

    /// Stores the secret that a provider sent in a handshake, and publishes the secret in the policy.
    ///
    /// # Errors
    /// Returns the reason as text if the secret cannot be stored, or if a secret is already stored.
    pub async fn learn(&self, policy: &Policy, id: FeedId, secret: &Secret) -> Result<(), String> {
        let feed = policy.feeds.get(id.0).cloned();
        let Some((feed, path)) = feed.as_ref().and_then(|feed| Some((feed, feed.url.strip_prefix("file:")?)))
        else {
            return Err("no file is configured for the secret".to_owned());
        };
        let (path, bytes) = (path.to_owned(), secret.clone());
        let written = tokio::task::spawn_blocking(move || Cache::write_secret(&path, &bytes)).await;
        written.map_err(|error| error.to_string())??;
        put(&self.policy, feed, |data, id| data.keyring.put_secret(id, secret.clone()));
        Ok(())
    }
}

impl Work {
    /// Loads the documents from files and from the cache, and schedules a fetch of every key set and address list.
    fn load(&mut self, policy: &Policy) -> Result<(), String> {
        let ages = load_cached_feeds(&self.policy)?;
        for (feed, age) in policy.feeds.iter().zip(ages) {
            if feed.kind == FeedKind::Secret {
                continue;
            }
            let state = self.states.entry(PeriodicFetch::Feed(feed.clone())).or_default();
            state.due = Some(instant());
            // A cached document is used at once. It is also fetched again soon, because it may have changed.
            if let Some(age) = age {
                state.loaded = Some((instant(), age));
            }
        }
        certificates::load_cached_certificates(&self.policy)?;
        let now = self.policy.load_full();
        let keyring = &now.ingress.edge().fetched_data.keyring;
        Cache::new(policy.fetching.cache.as_deref())?.retain_certificates(keyring.certificate_urls());
        Ok(())
    }

    /// Runs the fetching task. Never returns; abort the task to stop it.
    pub async fn run(mut self) {
        let (done, mut ended) = mpsc::channel::<FetchEnd>(RUNNING_MAX);
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let requests = Arc::clone(&self.requests);
        let mut next_start = None::<Instant>;
        loop {
            let opens = async {
                match next_start {
                    Some(at) => tokio::time::sleep_until(at.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                _ = ticks.tick() => self.maintain(),
                Some((target, result)) = ended.recv() => {
                    self.finish(&target, result);
                    self.maintain();
                }
                // Any client can cause this wake-up, so the wake-up must be cheap: it only starts fetches.
                () = requests.wake.notified() => {}
                () = opens => {}
            }
            next_start = self.start_due(&done);
        }
    }

    /// Adapts the fetching task to the current policy, and removes stale keys and certificates.
    fn maintain(&mut self) {
        self.sync_feeds();
        self.sync_certificates();
        self.expire();
    }

    /// Schedules fetches of the documents that a reload has added. Drops the state of removed documents.
    fn sync_feeds(&mut self) {
        let policy = self.policy.load_full();
        let needed = |feed: &Feed| feed.kind != FeedKind::Secret && policy.feeds.contains(feed);
        self.states.retain(|periodic, _| match periodic {
            PeriodicFetch::Feed(feed) if !needed(feed) => {
                self.metrics.feed_gone(feed.label());
                false
            }
            _ => true,
        });
        for feed in policy.feeds.iter().filter(|feed| needed(feed)) {
            self.states.entry(PeriodicFetch::Feed(feed.clone())).or_insert_with(|| {
                // The reload loaded this document from the cache, so the document is as old as its cache file.
                let age = match feed.url.starts_with("file:") {
                    true => Some(Duration::ZERO),
                    false => Cache::new(policy.fetching.cache.as_deref())
                        .ok()
                        .and_then(|cache| cache.age(&feed.url)),
                };
                State { due: Some(instant()), loaded: age.map(|age| (instant(), age)), ..State::default() }
            });
        }
    }

    /// Deletes cache files of certificates that are no longer in use. Removes queued fetches of certificates that their
    /// provider may no longer use. Schedules the next fetch of each certificate that has no schedule yet.
    fn sync_certificates(&mut self) {
        let policy = self.policy.load_full();
        let keyring = &policy.ingress.edge().fetched_data.keyring;
        let verifier = |provider: &str| policy.provider(provider).and_then(|known| known.verifier.as_ref());
        self.requests.fetches.lock().retain(verifier);
        let cache = || Cache::new(policy.fetching.cache.as_deref()).ok();
        self.states.retain(|periodic, _| match periodic {
            PeriodicFetch::Certificate(url) if keyring.certificate(url).is_none() => {
                cache().iter().for_each(|cache| cache.remove_certificate(url));
                false
            }
            _ => true,
        });
        for url in keyring.certificate_urls() {
            self.states.entry(PeriodicFetch::Certificate(url.into())).or_insert_with(|| {
                let age = cache().and_then(|cache| cache.certificate_age(url)).unwrap_or_default();
                let again = instant() + (policy.fetching.stale_ok / 2).saturating_sub(age);
                State { due: Some(again), loaded: Some((instant(), age)), ..State::default() }
            });
        }
    }

    /// Returns the HTTP client for the settings of `policy`. Creates a new client if the settings have changed.
    fn connect(&mut self, policy: &Policy) -> Result<HttpClient, String> {
        if let Some(client) = self.client.as_ref().filter(|client| client.fits(policy)) {
            return Ok(client.clone());
        }
        let client = HttpClient::new(policy)?;
        self.client = Some(client.clone());
        Ok(client)
    }

    /// Starts the fetches that are due, as long as the limits of concurrent fetches and the rate limit allow it.
    /// Returns the time of the next attempt if the rate limit delays a fetch, or if the HTTP client cannot be created.
    fn start_due(&mut self, done: &mpsc::Sender<FetchEnd>) -> Option<Instant> {
        let policy = self.policy.load_full();
        let now = instant();
        let is_due = |state: &State| !state.running && state.due.is_some_and(|due| due <= now);
        if self.requests.fetches.lock().is_empty() && !self.states.values().any(is_due) {
            return None;
        }
        let client = match self.connect(&policy) {
            Ok(client) => client,
            Err(error) => {
                log::error!("cannot fetch anything: {error}");
                return Some(now + TICK);
            }
        };
        let running = self.states.values().filter(|state| state.running).count();
        let mut due: Vec<_> = self.states.iter_mut().filter(|(_, state)| is_due(state)).collect();
        due.sort_by_key(|(_, state)| state.due);
        let periodic = due.into_iter().take(RUNNING_MAX.saturating_sub(running)).map(|(periodic, state)| {
            state.running = true;
            FetchTarget::Periodic(periodic.clone())
        });
        let (requested, next_start) = self.requests.fetches.lock().start_due(now);
        for target in periodic.chain(requested.into_iter().map(FetchTarget::Requested)) {
            let (client, policy, published) = (client.clone(), Arc::clone(&policy), Arc::clone(&self.policy));
            start_fetch(target, done.clone(), move |target| fetch(&client, &policy, &published, target));
        }
        next_start
    }

    /// Records the result of a fetch in metrics and log, and schedules the next fetch of the document.
    fn finish(&mut self, target: &FetchTarget, result: Result<Option<String>, String>) {
        let policy = self.policy.load_full();
        let label = target.label().to_owned();
        self.metrics.fetched(&label, result.is_ok());
        match &result {
            Ok(change) => change.iter().for_each(|change| log::info!("{change}")),
            Err(error) if policy.lacks(&label) => {
                log::warn!(
                    "{label} could not be fetched: {error}; without it, callbacks that need it get 503"
                );
            }
            Err(error) => log::warn!("{label} could not be fetched: {error}"),
        }
        let periodic = match target {
            FetchTarget::Periodic(periodic) => periodic.clone(),
            FetchTarget::Requested(requested) => {
                self.requests.fetches.lock().finish(requested, result.is_ok(), instant());
                match requested {
                    RequestedFetch::Certificate(_, url) if result.is_ok() => {
                        PeriodicFetch::Certificate(url.clone())
                    }
                    _ => return,
                }
            }
        };
        let needed = match &periodic {
            PeriodicFetch::Feed(feed) => policy.feeds.contains(feed),
            PeriodicFetch::Certificate(url) => {
                policy.ingress.edge().fetched_data.keyring.certificate(url).is_some()
            }
        };
        // `running` is reset even if the document is not needed now, because a reload may add the document again.
        if let Some(state) = self.states.get_mut(&periodic) {
            state.running = false;
        }
        if !needed {
            return;
        }
        let state = self.states.entry(periodic.clone()).or_default();
        if result.is_ok() {
            (state.failures, state.loaded) = (0, Some((instant(), Duration::ZERO)));
            // A certificate is fetched again before it becomes so old that Callgate removes it.
            let again = match periodic {
                PeriodicFetch::Feed(_) => policy.fetching.every,
                PeriodicFetch::Certificate(_) => policy.fetching.stale_ok / 2,
            };
            state.due = Some(instant() + again);
        } else {
            let wait = FIRST_RETRY_DELAY * 2_u32.saturating_pow(state.failures.min(16));
            state.failures += 1;
            state.due = Some(instant() + wait.min(policy.fetching.every));
        }
        if let PeriodicFetch::Certificate(url) = &periodic {
            let (states, now) = (&self.states, instant());
            let age = |url: &str| states.get(&PeriodicFetch::Certificate(url.into()))?.age(now);
            certificates::make_room(&self.policy, url, |url| age(url).unwrap_or_default());
        }
    }

    /// Updates the metrics of key sets and address lists. Removes keys and certificates that are older than `stale_ok`.
    fn expire(&mut self) {
        let policy = self.policy.load_full();
        let now = instant();
        for (i, feed) in policy.feeds.iter().enumerate().filter(|(_, feed)| feed.kind != FeedKind::Secret) {
            let Some(state) = self.states.get(&PeriodicFetch::Feed(feed.clone())) else { continue };
            let age = state.age(now);
            self.metrics.feed_age(feed.label(), age.map(|age| age.as_secs_f64()));
            self.metrics.feed_available(feed.label(), !policy.lacks(feed.label()));
            let stale = age.is_some_and(|age| age > policy.fetching.stale_ok);
            let held = policy.ingress.edge().fetched_data.keyring.set(FeedId(i)).is_some();
            if stale && held {
                log::error!("{} is older than fetch.stale_ok: its keys are not used any more", feed.label());
                put(&self.policy, feed, |data, id| data.keyring.drop_set(id));
            }
        }
        for (periodic, state) in &self.states {
            if let PeriodicFetch::Certificate(url) = periodic
                && state.age(now).is_some_and(|age| age > policy.fetching.stale_ok)
            {
                update(&self.policy, |data| data.keyring.drop_certificate(url));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fetch_whose_document_is_no_longer_needed_does_not_stay_running() {
        let document = PeriodicFetch::Certificate("https://removed.example".into());
        let mut work = Work {
            requests: Arc::default(),
            policy: Arc::new(certificates::tests::policy()),
            client: None,
            metrics: Arc::new(Metrics::new().unwrap()),
            states: HashMap::from([(document.clone(), State { running: true, ..State::default() })]),
        };
        work.finish(&FetchTarget::Periodic(document), Ok(None));
        assert!(work.states.values().all(|state| !state.running));
    }
}
