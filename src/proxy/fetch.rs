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
use super::outside::{apply, put, take_cached, update};
use crate::feed::FeedId;
use crate::observe::Metrics;
use crate::policy::{Feed, FeedKind, Policy, TrustedRoots};
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
    Feed(Feed),
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
    /// The way to elsewhere, how long a fetch may take, and who is believed; made when it is needed first.
    client: Option<(Duration, Option<TrustedRoots>, HttpClient)>,
    metrics: Arc<Metrics>,
    states: HashMap<Target, State>,
}

impl Fetcher {
    /// A fetcher, and what its task runs with. What is in the cache is there at once.
    ///
    /// # Errors
    /// The trusted roots cannot be used, or the cache's folder.
    pub(super) fn new(policy: &Arc<ArcSwap<Policy>>, metrics: &Arc<Metrics>) -> Result<(Self, Work), String> {
        let (errands, receiver) = mpsc::channel(ERRANDS_MAX);
        let now = policy.load_full();
        let verifiers = now.providers.iter().filter_map(|provider| provider.verifier.as_ref());
        let names = verifiers.into_iter().any(|verifier| verifier.fetches());
        let mut work = Work {
            errands: receiver,
            policy: Arc::clone(policy),
            client: None,
            metrics: Arc::clone(metrics),
            states: HashMap::new(),
        };
        if !now.feeds.is_empty() || names {
            work.connect(&now)?;
        }
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
    pub(super) async fn learn(&self, policy: &Policy, id: FeedId, secret: &Secret) -> Result<(), String> {
        let feed = policy.feeds.get(id.0).cloned();
        let Some((feed, path)) = feed.as_ref().and_then(|feed| Some((feed, feed.url.strip_prefix("file:")?)))
        else {
            return Err("there is no file for it".to_owned());
        };
        let (path, bytes) = (path.to_owned(), secret.clone());
        let written = tokio::task::spawn_blocking(move || Cache::keep_secret(&path, &bytes)).await;
        written.map_err(|error| error.to_string())??;
        put(&self.policy, feed, |outside, id| outside.keyring.put_secret(id, secret.clone()));
        Ok(())
    }
}

impl Work {
    /// Takes what is there already, and has everything fetched.
    fn start(&mut self, policy: &Policy) -> Result<(), String> {
        let ages = take_cached(&self.policy)?;
        for (feed, age) in policy.feeds.iter().zip(ages) {
            if feed.kind == FeedKind::Secret {
                continue;
            }
            let state = self.states.entry(Target::Feed(feed.clone())).or_default();
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
            self.follow();
            self.age();
            self.take_off(&done);
        }
    }

    /// Takes up what a reload asks for, and lets go of what nobody needs any more.
    fn follow(&mut self) {
        let policy = self.policy.load_full();
        let needed = |feed: &Feed| feed.kind != FeedKind::Secret && policy.feeds.contains(feed);
        self.states.retain(|target, _| match target {
            Target::Feed(feed) if !needed(feed) => {
                self.metrics.feed_gone(feed.label());
                false
            }
            _ => true,
        });
        for feed in policy.feeds.iter().filter(|feed| needed(feed)) {
            let target = Target::Feed(feed.clone());
            self.states.entry(target).or_insert_with(|| {
                // What the reload took from the cache is as old as it is there.
                let age = match feed.url.starts_with("file:") {
                    true => Some(Duration::ZERO),
                    false => Cache::new(policy.fetching.cache.as_deref())
                        .ok()
                        .and_then(|cache| cache.age(&feed.url)),
                };
                State { due: Some(instant()), had: age.map(|age| (instant(), age)), ..State::default() }
            });
        }
    }

    /// The way to elsewhere, as the policy of the moment says.
    fn connect(&mut self, policy: &Policy) -> Result<HttpClient, String> {
        let (timeout, roots) = (policy.fetching.timeout, &policy.trusted_roots);
        if let Some((of, with, client)) = &self.client
            && (*of, with) == (timeout, roots)
        {
            return Ok(client.clone());
        }
        let client = HttpClient::new(roots.as_ref().map(|roots| &*roots.path), timeout)?;
        self.client = Some((timeout, roots.clone(), client.clone()));
        Ok(client)
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
        let policy = self.policy.load_full();
        let now = instant();
        let is_due = |state: &State| !state.in_flight && state.due.is_some_and(|due| due <= now);
        if !self.states.values().any(is_due) {
            return;
        }
        let client = match self.connect(&policy) {
            Ok(client) => client,
            Err(error) => return log::error!("nothing can be fetched: {error}"),
        };
        let flying = |states: &HashMap<Target, State>, errands: bool| {
            let fits = |target: &Target| !matches!(target, Target::Feed(_)) == errands;
            states.iter().filter(|(target, state)| state.in_flight && fits(target)).count()
        };
        let (feeds, errands) = (flying(&self.states, false), flying(&self.states, true));
        let mut room = (FLIGHTS_MAX.saturating_sub(feeds), ERRAND_FLIGHTS_MAX.saturating_sub(errands));
        for (target, state) in &mut self.states {
            let left = if matches!(target, Target::Feed(_)) { &mut room.0 } else { &mut room.1 };
            if *left == 0 || !is_due(state) {
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
        if let Target::Feed(feed) = target
            && !policy.feeds.contains(feed)
        {
            return;
        }
        let label = label(target).to_owned();
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
            let Some(state) = self.states.get(&Target::Feed(feed.clone())) else { continue };
            let age = state.age(now);
            self.metrics.feed_age(feed.label(), age.map(|age| age.as_secs_f64()));
            let stale = age.is_some_and(|age| age > policy.fetching.stale_ok);
            let held = policy.ingress.edge().outside.keyring.set(FeedId(i)).is_some();
            if stale && held {
                log::error!("{} is too old: nothing is verified with these keys any more", feed.label());
                put(&self.policy, feed, |outside, id| outside.keyring.drop_set(id));
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
fn label(target: &Target) -> &str {
    match target {
        Target::Certificate(_) => "certificate",
        Target::Confirm(_) => "confirmation",
        Target::Feed(feed) => feed.label(),
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
        Target::Feed(feed) => {
            let bytes = client.get(&feed.url)?;
            let change = apply(published, feed, &bytes)?;
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
