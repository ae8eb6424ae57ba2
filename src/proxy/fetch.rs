//! What is kept elsewhere: key sets, address lists, certificates. Fetched before it is needed, again from time to
//! time, one flight for each at a time; the last good one stays. Nothing is fetched because a message says so, but for
//! certificates at addresses that their provider's scheme lists.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use tokio::sync::mpsc;

use super::cache::Cache;
use super::clock::instant;
use super::http_client::HttpClient;
use crate::feed::FeedId;
use crate::ingress::Outside;
use crate::observe::Metrics;
use crate::policy::{Feed, FeedKind, Policy};
use crate::secret::Secret;
use crate::signature::KeySet;

/// How often it is looked whether something is due.
const TICK: Duration = Duration::from_secs(1);
/// The first wait after a failure; it doubles until it is the usual one.
const RETRY_FIRST: Duration = Duration::from_secs(5);
/// Most flights at once.
const FLIGHTS_MAX: usize = 4;
/// Most certificates that messages may make us fetch.
const CERTIFICATES_MAX: usize = 64;
/// Most errands that wait.
const ERRANDS_MAX: usize = 64;

/// Something that somebody asks for.
enum Errand {
    Certificate(Box<str>),
    Confirm(Box<str>),
}

/// What a flight is about.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
enum Target {
    Certificate(Box<str>),
    Confirm(Box<str>),
    Feed(usize),
}

/// Where a target stands.
#[derive(Default)]
struct State {
    in_flight: bool,
    failures: u32,
    due: Option<Instant>,
    succeeded: Option<Instant>,
}

/// Brings what is fetched.
pub(super) struct Fetcher {
    errands: mpsc::Sender<Errand>,
    policy: Arc<ArcSwap<Policy>>,
}

/// What the fetching task works with.
pub(super) struct Work {
    errands: mpsc::Receiver<Errand>,
    policy: Arc<ArcSwap<Policy>>,
    client: Option<HttpClient>,
    metrics: Arc<Metrics>,
    states: HashMap<Target, State>,
}

impl Fetcher {
    /// A fetcher, and what its task runs with. What is in the cache is there at once.
    ///
    /// # Errors
    /// The trusted roots cannot be used, or the cache's folder.
    pub(super) fn new(
        policy: &Arc<ArcSwap<Policy>>,
        roots: Option<&str>,
        metrics: &Arc<Metrics>,
    ) -> Result<(Self, Work), String> {
        let (errands, receiver) = mpsc::channel(ERRANDS_MAX);
        let now = policy.load_full();
        let verifiers = now.providers.iter().filter_map(|provider| provider.verifier.as_ref());
        let names = verifiers.into_iter().any(|verifier| verifier.fetches());
        let client = match now.feeds.is_empty() && !names {
            true => None,
            false => Some(HttpClient::new(roots, now.fetching.timeout)?),
        };
        let mut work = Work {
            errands: receiver,
            policy: Arc::clone(policy),
            client,
            metrics: Arc::clone(metrics),
            states: HashMap::new(),
        };
        work.start(&now)?;
        Ok((Self { errands, policy: Arc::clone(policy) }, work))
    }

    /// Asks for a certificate that a message names.
    pub(super) fn want(&self, url: &str) {
        // Whoever asks too often is not heard: the provider will try again.
        let _ = self.errands.try_send(Errand::Certificate(url.into()));
    }

    /// Agrees to a subscription.
    pub(super) fn confirm(&self, url: &str) {
        if self.errands.try_send(Errand::Confirm(url.into())).is_err() {
            log::warn!("a subscription was not confirmed: too much is to be fetched");
        }
    }

    /// Keeps the secret that a handshake handed over. The first one stays.
    pub(super) async fn learn(&self, id: FeedId, secret: &Secret) -> Result<(), String> {
        let policy = self.policy.load_full();
        let Some(path) = policy.feeds.get(id.0).and_then(|feed| feed.url.strip_prefix("file:")) else {
            return Err("there is no file for it".to_owned());
        };
        let (path, bytes) = (path.to_owned(), secret.clone());
        let written = tokio::task::spawn_blocking(move || Cache::keep_secret(&path, &bytes)).await;
        written.map_err(|error| error.to_string())??;
        update(&self.policy, |outside| outside.keyring.put_secret(id, secret.clone()));
        Ok(())
    }
}

/// Publishes a policy in which other things are fetched.
fn update(policy: &ArcSwap<Policy>, change: impl Fn(&mut Outside)) {
    policy.rcu(|old| {
        let mut outside = old.ingress.edge().outside.clone();
        change(&mut outside);
        old.with_outside(outside)
    });
}

impl Work {
    /// Takes what is in the cache, and what is in files.
    fn start(&mut self, policy: &Policy) -> Result<(), String> {
        let cache = Cache::new(policy.fetching.cache.as_deref())?;
        for (i, feed) in policy.feeds.iter().enumerate() {
            let id = FeedId(i);
            if feed.kind == FeedKind::Secret {
                if let Some(secret) = feed.url.strip_prefix("file:").and_then(Cache::secret) {
                    update(&self.policy, |outside| outside.keyring.put_secret(id, secret.clone()));
                }
                continue;
            }
            let state = self.states.entry(Target::Feed(i)).or_default();
            state.due = Some(instant());
            let Some((bytes, age)) = cache.read(&feed.url) else { continue };
            if feed.kind == FeedKind::Keys && age > policy.fetching.stale_ok {
                continue;
            }
            if apply(&self.policy, id, feed, &bytes).is_ok() {
                state.succeeded = instant().checked_sub(age);
                state.due = Some(instant() + policy.fetching.every.saturating_sub(age).min(RETRY_FIRST));
            }
        }
        Ok(())
    }

    /// Runs until it is aborted.
    pub(super) async fn run(mut self) {
        let (done, mut landed) = mpsc::channel::<(Target, Result<Vec<u8>, String>)>(FLIGHTS_MAX);
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                Some(errand) = self.errands.recv() => self.take(errand),
                Some((target, result)) = landed.recv() => self.land(&target, result),
            }
            self.age();
            self.take_off(&done);
        }
    }

    fn take(&mut self, errand: Errand) {
        let target = match errand {
            Errand::Certificate(url) => Target::Certificate(url),
            Errand::Confirm(url) => Target::Confirm(url),
        };
        let known = self.states.keys().filter(|known| matches!(known, Target::Certificate(_))).count();
        if !self.states.contains_key(&target) && known >= CERTIFICATES_MAX {
            log::warn!("no certificate is fetched: {CERTIFICATES_MAX} were asked for already");
            return;
        }
        let state = self.states.entry(target).or_default();
        // One that failed lately is tried again when its time comes.
        state.due.get_or_insert_with(instant);
    }

    fn take_off(&mut self, done: &mpsc::Sender<(Target, Result<Vec<u8>, String>)>) {
        let policy = self.policy.load();
        let now = instant();
        let mut flights = self.states.values().filter(|state| state.in_flight).count();
        for (target, state) in &mut self.states {
            if flights >= FLIGHTS_MAX || state.in_flight || state.due.is_none_or(|due| due > now) {
                continue;
            }
            let url = match target {
                Target::Certificate(url) | Target::Confirm(url) => url.clone(),
                Target::Feed(i) => match policy.feeds.get(*i) {
                    Some(feed) => feed.url.clone(),
                    None => continue,
                },
            };
            let Some(client) = self.client.clone() else { continue };
            (state.in_flight, flights) = (true, flights + 1);
            let (done, target) = (done.clone(), target.clone());
            tokio::task::spawn_blocking(move || {
                let result = client.get(&url);
                // When nobody is there any more, nobody needs it.
                let _ = done.blocking_send((target, result));
            });
        }
    }

    fn land(&mut self, target: &Target, result: Result<Vec<u8>, String>) {
        let policy = self.policy.load_full();
        let (label, applied) = match (target, result) {
            (_, Err(error)) => (self.label(&policy, target), Err(error)),
            (Target::Confirm(_), Ok(_)) => {
                log::info!("a subscription was confirmed");
                self.states.remove(target);
                return;
            }
            (Target::Certificate(url), Ok(bytes)) => {
                let set = KeySet::parse(&bytes).map_err(|fault| format!("it {fault}"));
                let applied = set.map(|set| {
                    update(&self.policy, |outside| outside.keyring.put_certificate(url, set.clone()));
                });
                ("certificate".to_owned(), applied)
            }
            (Target::Feed(i), Ok(bytes)) => {
                let Some(feed) = policy.feeds.get(*i) else { return };
                let applied = apply(&self.policy, FeedId(*i), feed, &bytes);
                if applied.is_ok()
                    && let Ok(cache) = Cache::new(policy.fetching.cache.as_deref())
                    && let Err(error) = cache.write(&feed.url, &bytes)
                {
                    log::warn!("{} could not be kept: {error}", feed.url);
                }
                (
                    feed.url.to_string(),
                    applied.map(|change| change.into_iter().for_each(|c| log::info!("{c}"))),
                )
            }
        };
        self.metrics.fetched(&label, applied.is_ok());
        let state = self.states.entry(target.clone()).or_default();
        state.in_flight = false;
        match applied {
            Ok(()) => {
                (state.failures, state.succeeded) = (0, Some(instant()));
                state.due = matches!(target, Target::Feed(_)).then(|| instant() + policy.fetching.every);
            }
            Err(error) => {
                log::warn!("{label} could not be fetched: {error}");
                let wait = RETRY_FIRST * 2_u32.saturating_pow(state.failures.min(16));
                state.failures += 1;
                state.due = Some(instant() + wait.min(policy.fetching.every));
                // A confirmation is tried a few times, and then left to the provider to ask again.
                if matches!(target, Target::Confirm(_)) && state.failures >= 5 {
                    self.states.remove(target);
                }
            }
        }
    }

    fn label(&self, policy: &Policy, target: &Target) -> String {
        match target {
            Target::Certificate(_) => "certificate".to_owned(),
            Target::Confirm(_) => "confirmation".to_owned(),
            Target::Feed(i) => policy.feeds.get(*i).map_or_else(String::new, |feed| feed.url.to_string()),
        }
    }

    /// Tells how old things are, and lets go of keys that are too old.
    fn age(&mut self) {
        let policy = self.policy.load_full();
        let now = instant();
        for (i, feed) in policy.feeds.iter().enumerate().filter(|(_, feed)| feed.kind != FeedKind::Secret) {
            let Some(state) = self.states.get(&Target::Feed(i)) else { continue };
            let age = state.succeeded.map(|at| now.saturating_duration_since(at));
            self.metrics.feed_age(&feed.url, age.map(|age| age.as_secs_f64()));
            let stale = age.is_some_and(|age| age > policy.fetching.stale_ok);
            let held = policy.ingress.edge().outside.keyring.set(FeedId(i)).is_some();
            if stale && held {
                log::error!("{} is too old: nothing is verified with these keys any more", feed.url);
                update(&self.policy, |outside| outside.keyring.drop_set(FeedId(i)));
            }
        }
        let old: Vec<_> = self
            .states
            .iter()
            .filter(|(target, state)| {
                let age = state.succeeded.map(|at| now.saturating_duration_since(at));
                matches!(target, Target::Certificate(_))
                    && age.is_some_and(|age| age > policy.fetching.stale_ok)
            })
            .map(|(target, _)| target.clone())
            .collect();
        for target in old {
            self.states.remove(&target);
            if let Target::Certificate(url) = &target {
                update(&self.policy, |outside| outside.keyring.drop_certificate(url));
            }
        }
    }
}

/// Reads what was fetched and puts it in its place, whole or not at all. Returns what changed, in words.
fn apply(policy: &ArcSwap<Policy>, id: FeedId, feed: &Feed, bytes: &[u8]) -> Result<Option<String>, String> {
    let before = policy.load_full();
    let outside = &before.ingress.edge().outside;
    match &feed.kind {
        FeedKind::Keys => {
            let set = KeySet::parse(bytes).map_err(|fault| format!("it {fault}"))?;
            let (count, known) = (set.keys().len(), outside.keyring.set(id).map(|set| set.keys().len()));
            update(policy, |outside| outside.keyring.put(id, set.clone()));
            Ok((known != Some(count)).then(|| format!("{}: {count} keys", feed.url)))
        }
        FeedKind::Addresses(selection) => {
            let networks = selection.read(bytes)?;
            let known = outside.lists.get(id);
            let changed = known.is_none_or(|known| known.nets() != networks.nets());
            let said = changed.then(|| {
                let (now, before) = (networks.len(), known.map_or(0, |known| known.len()));
                format!("{}: the addresses changed, {now} ranges instead of {before}", feed.url)
            });
            update(policy, |outside| outside.lists.put(id, networks.clone()));
            Ok(said)
        }
        FeedKind::Secret => Ok(None),
    }
}
