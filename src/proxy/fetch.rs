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
/// Most of them for certificates and confirmations, which messages ask for.
const ERRAND_FLIGHTS_MAX: usize = 2;
/// Most certificates that are remembered, and most errands under way.
const CERTIFICATES_MAX: usize = 64;
/// How often an errand is tried before it is given up: whoever needs it will ask again.
const ERRAND_TRIES_MAX: u32 = 4;
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
    /// When it was had last, and how old it was then.
    had: Option<(Instant, Duration)>,
}

impl State {
    fn age(&self, now: Instant) -> Option<Duration> {
        self.had.map(|(at, age)| now.saturating_duration_since(at) + age)
    }
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

/// The policy with what is in files and in the cache, and how old each of those is; for commands that fetch nothing.
///
/// # Errors
/// The cache's folder cannot be used, in words.
pub fn with_cached(policy: Policy) -> Result<Policy, String> {
    let policy = ArcSwap::from_pointee(policy);
    take_cached(&policy)?;
    Ok(Policy::clone(&policy.load()))
}

/// Takes what is in files and in the cache. Returns how old each thing is that could be used.
fn take_cached(policy: &ArcSwap<Policy>) -> Result<Vec<Option<Duration>>, String> {
    let now = policy.load_full();
    let cache = Cache::new(now.fetching.cache.as_deref())?;
    let take = |(i, feed): (usize, &Feed)| {
        let id = FeedId(i);
        if feed.kind == FeedKind::Secret {
            let secret = feed.url.strip_prefix("file:").and_then(Cache::secret)?;
            update(policy, |outside| outside.keyring.put_secret(id, secret.clone()));
            return None;
        }
        let (bytes, age) = match feed.url.strip_prefix("file:") {
            Some(path) => (std::fs::read(path).ok()?, Duration::ZERO),
            None => cache.read(&feed.url)?,
        };
        let stale = feed.kind == FeedKind::Keys && age > now.fetching.stale_ok;
        (!stale && apply(policy, id, feed, &bytes).is_ok()).then_some(age)
    };
    Ok(now.feeds.iter().enumerate().map(take).collect())
}

impl Work {
    /// Takes what is there already, and has everything fetched.
    fn start(&mut self, policy: &Policy) -> Result<(), String> {
        let ages = take_cached(&self.policy)?;
        for (i, (feed, age)) in policy.feeds.iter().zip(ages).enumerate() {
            if feed.kind == FeedKind::Secret {
                continue;
            }
            let state = self.states.entry(Target::Feed(i)).or_default();
            state.due = Some(instant());
            // What is there is used at once, and fetched anew soon: nobody knows what became of it meanwhile.
            if let Some(age) = age {
                state.had = Some((instant(), age));
            }
        }
        Ok(())
    }

    /// Runs until it is aborted.
    pub(super) async fn run(mut self) {
        let (done, mut landed) = mpsc::channel::<Landed>(FLIGHTS_MAX);
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
        if let Target::Certificate(url) = &target
            && self.policy.load().ingress.edge().outside.keyring.certificate(url).is_some()
        {
            return;
        }
        let errands = self.states.keys().filter(|known| !matches!(known, Target::Feed(_))).count();
        if !self.states.contains_key(&target) && errands >= CERTIFICATES_MAX {
            log::warn!(
                "not fetched: {CERTIFICATES_MAX} certificates and confirmations are known or under way"
            );
            return;
        }
        let state = self.states.entry(target).or_default();
        // One that failed lately is tried again when its time comes.
        state.due.get_or_insert_with(instant);
    }

    fn take_off(&mut self, done: &mpsc::Sender<Landed>) {
        let Some(client) = &self.client else { return };
        let policy = self.policy.load_full();
        let now = instant();
        let flying = |states: &HashMap<Target, State>, errands: bool| {
            let fits = |target: &Target| !matches!(target, Target::Feed(_)) == errands;
            states.iter().filter(|(target, state)| state.in_flight && fits(target)).count()
        };
        let (feeds, errands) = (flying(&self.states, false), flying(&self.states, true));
        let mut room = (FLIGHTS_MAX.saturating_sub(feeds), ERRAND_FLIGHTS_MAX.saturating_sub(errands));
        for (target, state) in &mut self.states {
            let left = if matches!(target, Target::Feed(_)) { &mut room.0 } else { &mut room.1 };
            if *left == 0 || state.in_flight || state.due.is_none_or(|due| due > now) {
                continue;
            }
            (*left, state.in_flight) = (*left - 1, true);
            let (client, done, target) = (client.clone(), done.clone(), target.clone());
            let (policy, published) = (Arc::clone(&policy), Arc::clone(&self.policy));
            tokio::task::spawn_blocking(move || {
                let result = fetch(&client, &policy, &published, &target);
                // When nobody is there any more, nobody needs it.
                let _ = done.blocking_send((target, result));
            });
        }
    }

    fn land(&mut self, target: &Target, result: Result<Option<String>, String>) {
        let policy = self.policy.load_full();
        let label = label(&policy, target);
        self.metrics.fetched(&label, result.is_ok());
        let state = self.states.entry(target.clone()).or_default();
        state.in_flight = false;
        match result {
            Ok(change) => {
                change.into_iter().for_each(|change| log::info!("{change}"));
                (state.failures, state.had) = (0, Some((instant(), Duration::ZERO)));
                // A certificate is fetched anew before it is let go of.
                let again = match target {
                    Target::Feed(_) => policy.fetching.every,
                    _ => policy.fetching.stale_ok / 2,
                };
                state.due = Some(instant() + again);
                if matches!(target, Target::Confirm(_)) {
                    self.states.remove(target);
                }
            }
            Err(error) => {
                log::warn!("{label} could not be fetched: {error}");
                let wait = RETRY_FIRST * 2_u32.saturating_pow(state.failures.min(16));
                state.failures += 1;
                state.due = Some(instant() + wait.min(policy.fetching.every));
                if !matches!(target, Target::Feed(_))
                    && state.failures >= ERRAND_TRIES_MAX
                    && state.had.is_none()
                {
                    self.states.remove(target);
                }
            }
        }
    }

    /// Tells how old things are, and lets go of keys that are too old.
    fn age(&mut self) {
        let policy = self.policy.load_full();
        let now = instant();
        for (i, feed) in policy.feeds.iter().enumerate().filter(|(_, feed)| feed.kind != FeedKind::Secret) {
            let Some(state) = self.states.get(&Target::Feed(i)) else { continue };
            let age = state.age(now);
            self.metrics.feed_age(feed.label(), age.map(|age| age.as_secs_f64()));
            let stale = age.is_some_and(|age| age > policy.fetching.stale_ok);
            let held = policy.ingress.edge().outside.keyring.set(FeedId(i)).is_some();
            if stale && held {
                log::error!("{} is too old: nothing is verified with these keys any more", feed.label());
                update(&self.policy, |outside| outside.keyring.drop_set(FeedId(i)));
            }
        }
        let old: Vec<_> = self
            .states
            .iter()
            .filter(|(target, state)| {
                let age = state.age(now);
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

/// What a flight came back with: what changed, in words, or what went wrong.
type Landed = (Target, Result<Option<String>, String>);

/// What a target is called in metrics and in the log.
fn label(policy: &Policy, target: &Target) -> String {
    match target {
        Target::Certificate(_) => "certificate".to_owned(),
        Target::Confirm(_) => "confirmation".to_owned(),
        Target::Feed(i) => policy.feeds.get(*i).map_or("none", |feed| feed.label()).to_owned(),
    }
}

/// Fetches one thing and puts it in its place. Blocks.
fn fetch(
    client: &HttpClient,
    policy: &Policy,
    published: &ArcSwap<Policy>,
    target: &Target,
) -> Result<Option<String>, String> {
    match target {
        Target::Confirm(url) => {
            client.get(url)?;
            Ok(Some("a subscription was confirmed".to_owned()))
        }
        Target::Certificate(url) => {
            let set = KeySet::parse(&client.get(url)?).map_err(|fault| format!("it {fault}"))?;
            update(published, |outside| outside.keyring.put_certificate(url, set.clone()));
            Ok(Some(format!("a certificate was fetched: {url}")))
        }
        Target::Feed(i) => {
            let feed = policy.feeds.get(*i).ok_or_else(|| "it is not known any more".to_owned())?;
            let bytes = client.get(&feed.url)?;
            let change = apply(published, FeedId(*i), feed, &bytes)?;
            if !feed.url.starts_with("file:") {
                let kept = Cache::new(policy.fetching.cache.as_deref())
                    .and_then(|cache| cache.write(&feed.url, &bytes).map_err(|error| error.to_string()));
                if let Err(error) = kept {
                    log::warn!("{} could not be kept: {error}", feed.label());
                }
            }
            Ok(change)
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
            Ok((known != Some(count)).then(|| format!("{}: {count} keys", feed.label())))
        }
        FeedKind::Addresses(selection) => {
            let networks = selection.read(bytes)?;
            let known = outside.lists.get(id);
            let changed = known.is_none_or(|known| known.nets() != networks.nets());
            let said = changed.then(|| {
                let (now, before) = (networks.len(), known.map_or(0, |known| known.len()));
                format!("{}: the addresses changed, {now} ranges instead of {before}", feed.label())
            });
            update(policy, |outside| outside.lists.put(id, networks.clone()));
            Ok(said)
        }
        FeedKind::Secret => Ok(None),
    }
}
