//! The simulated processes of one agent, the callbacks that they receive, and the failures of processes and servers.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::{Instant, sleep};

use super::history::History;
use super::process::{settings, start};
use super::simulated_redis::{Faults, StandIn};
use super::size::Size;
use crate::clock::instant;
use crate::denial::Denial;
use crate::interaction::{Ask, ClaimError, Event, EventKey, Follow, Interaction, NoticeResult, Report};
use crate::observe::Metrics;
use crate::path::{CanonicalPath, Captures, Template};
use crate::random::splitmix::Random;
use crate::store::redis::store::RedisStore;
use crate::token::Granted;

/// The average pause between the beginnings of two interactions of a group, in milliseconds.
const PAUSE_MS: u64 = 100;
const DEADLINE: Duration = Duration::from_secs(30);
const TTL: Duration = Duration::from_secs(100_000);
/// The time for which the simulation continues after the deadline of the last interaction.
const REST: Duration = Duration::from_secs(120);
/// The maximum time for which a claim of a callback waits while another process delivers the same event.
const PATIENCE: Duration = Duration::from_secs(10);
/// The maximum duration of a delivery. The lease of a claim ends 5 s later.
const DELIVERY_MAX: Duration = Duration::from_secs(5);

/// A simulated process.
struct Member {
    store: Arc<RedisStore>,
    is_dead: AtomicBool,
}

pub(super) struct Group {
    size: Size,
    route: Arc<str>,
    captures: Captures,
    follow: Follow,
    pub(super) engine: Arc<StandIn>,
    pub(super) history: History,
    metrics: Arc<Metrics>,
    members: Mutex<Vec<Arc<Member>>>,
    random: Mutex<Random>,
    /// The number of interactions that have begun.
    begun: AtomicU64,
    is_over: AtomicBool,
}

impl Group {
    pub(super) fn start(size: Size, faults: Faults, seed: u64, metrics: &Arc<Metrics>) -> Arc<Self> {
        let group = Self {
            size,
            route: "r".into(),
            captures: Template::parse("/w").unwrap().capture(&CanonicalPath::parse("/w").unwrap()),
            follow: Follow { deadline: Some(DEADLINE), ..Follow::default() },
            engine: StandIn::new(seed, faults),
            history: History::default(),
            metrics: Arc::clone(metrics),
            members: Mutex::default(),
            random: Mutex::new(Random(seed)),
            begun: AtomicU64::new(0),
            is_over: AtomicBool::new(false),
        };
        Arc::new(group)
    }

    pub(super) fn begun(&self) -> u64 {
        self.begun.load(Ordering::Relaxed)
    }

    fn below(&self, end: u64) -> u64 {
        self.random.lock().below(end)
    }

    fn millis(&self, from: u64, to: u64) -> Duration {
        self.random.lock().millis(from, to)
    }

    /// Starts a simulated process, which sends heartbeats and applies deadlines until it ends.
    fn start_member(self: &Arc<Self>) -> Arc<Member> {
        let store = start(&self.engine, &self.metrics, &settings(), None);
        let member = Arc::new(Member { store, is_dead: AtomicBool::new(false) });
        tokio::spawn(Arc::clone(self).background(Arc::clone(&member)));
        member
    }

    async fn background(self: Arc<Self>, member: Arc<Member>) {
        let is_over = || member.is_dead.load(Ordering::SeqCst) || self.is_over.load(Ordering::SeqCst);
        let mut beats = Instant::from_std(instant());
        sleep(self.millis(0, 500)).await;
        while !is_over() {
            if Instant::from_std(instant()) >= beats {
                member.store.beat().await;
                beats = Instant::from_std(instant()) + Duration::from_secs(5);
            }
            let found = member.store.pass().await;
            for notice in found.notices {
                sleep(self.millis(1, 20)).await;
                // The agent has received the notice. Perhaps the process dies before it records this.
                self.history.note(&notice.id, |story| story.reported += 1);
                let is_recorded =
                    !is_over() && member.store.noticed(&notice, NoticeResult::Accepted).await.is_ok();
                if !is_recorded {
                    self.history.note(&notice.id, |story| story.unrecorded_reports += 1);
                }
            }
            if !found.has_more {
                sleep(Duration::from_millis(500)).await;
            }
        }
    }

    fn some_member(&self) -> Arc<Member> {
        let number = self.below(self.size.members) as usize;
        Arc::clone(&self.members.lock()[number])
    }

    /// Runs the simulation of this group until all interactions have ended.
    pub(super) async fn run(self: Arc<Self>) {
        for _ in 0..self.size.members {
            let member = self.start_member();
            self.members.lock().push(member);
        }
        // The time of the Redis server is known once the server has responded.
        sleep(Duration::from_secs(1)).await;
        if self.size.is_troubled {
            tokio::spawn(Arc::clone(&self).trouble());
        }
        let count = self.size.interactions / self.size.groups;
        for number in 0..count {
            tokio::spawn(Arc::clone(&self).interaction(format!("int_{number}")));
            self.begun.fetch_add(1, Ordering::Relaxed);
            sleep(self.millis(0, 2 * PAUSE_MS)).await;
        }
        sleep(DEADLINE + REST).await;
        self.check().await;
        self.is_over.store(true, Ordering::SeqCst);
    }

    /// Restarts one process after another, and sometimes replaces the primary of the Redis server.
    async fn trouble(self: Arc<Self>) {
        while !self.is_over.load(Ordering::SeqCst) {
            sleep(self.millis(5_000, 15_000)).await;
            if self.below(4) == 0 {
                self.engine.fail_over();
                continue;
            }
            let number = self.below(self.size.members) as usize;
            let former = Arc::clone(&self.members.lock()[number]);
            if self.below(2) == 0 {
                former.store.end().await;
            }
            former.is_dead.store(true, Ordering::SeqCst);
            let next = self.start_member();
            self.members.lock()[number] = next;
        }
    }

    async fn check(&self) {
        for id in self.history.ids() {
            let member = self.some_member();
            let mut read = member.store.read(&id).await;
            for _ in 0..100 {
                if read.is_ok() {
                    break;
                }
                sleep(Duration::from_secs(1)).await;
                read = member.store.read(&id).await;
            }
            self.history.check(&id, read.unwrap().as_ref());
        }
    }

    /// Mints an interaction, and sends its callbacks as a provider does.
    async fn interaction(self: Arc<Self>, id: String) {
        let member = self.some_member();
        // A process that has just started does not have the time of the Redis server yet.
        let Some(now) = member.store.clock.now() else { return };
        let uses = (self.below(10) == 0).then(|| 1 + self.below(2) as u32);
        let record = Interaction::new(Arc::clone(&self.route), "".into(), now, now.plus(TTL));
        let record = record.followed(&self.follow, true).limited(uses);
        if member.store.open(&id, record).await.is_err() {
            // The agent receives an error. The record may exist.
            return;
        }
        let is_silent = self.below(10) == 0;
        self.history.note(&id, |story| story.uses = uses);
        let granted = Granted {
            interaction: id.as_str().into(),
            issued: now,
            expires: now.plus(TTL),
            uses,
            owner: None,
            is_opaque: false,
        };
        let granted = Arc::new(granted);
        let count = 1 + self.below(3);
        for event in 1..=count {
            sleep(self.millis(10, 2000)).await;
            let is_final = event == count && !is_silent;
            let sent = Arc::clone(&self).callback(Arc::clone(&granted), event.into(), is_final);
            match self.below(5) {
                // The event arrives twice at the same time, or again later.
                0 => {
                    let again = Arc::clone(&self).callback(Arc::clone(&granted), event.into(), is_final);
                    tokio::join!(sent, again);
                }
                1 => {
                    sent.await;
                    Arc::clone(&self).callback(Arc::clone(&granted), event.into(), is_final).await;
                }
                _ => sent.await,
            }
            if self.below(30) == 0 && self.some_member().store.revoke(&id, false).await.is_ok() {
                self.history.note(&id, |story| story.is_revoked = true);
            }
        }
    }

    /// Sends a callback again and again until it is accepted or denied, as providers do.
    async fn callback(self: Arc<Self>, granted: Arc<Granted>, event: u128, is_final: bool) {
        let report = Report { end: is_final.then_some(Event::Completed), ..Report::default() };
        for _ in 0..30 {
            if self.attempt(&granted, event, &report).await {
                return;
            }
            sleep(self.millis(200, 2000)).await;
        }
    }

    /// Sends a callback once. Returns whether the provider received a response after which it does not repeat the
    /// callback.
    async fn attempt(&self, granted: &Granted, event: u128, report: &Report) -> bool {
        let (member, id) = (self.some_member(), &*granted.interaction);
        let (was_revoked, was_acknowledged) = self.history.note(id, |story| {
            (story.is_revoked, story.events.get(&event).is_some_and(|seen| seen.is_acknowledged))
        });
        let events = [EventKey(event)];
        let ask = Ask::new(&self.route, &self.captures, &self.follow, report);
        let ask = Ask { granted: Some(granted), events: &events, delivery_max: DELIVERY_MAX, ..ask };
        let claim = match member.store.claim(&ask, PATIENCE).await {
            Ok(claim) => claim,
            Err(ClaimError::Duplicate | ClaimError::Stale) => {
                self.history.event(id, event, |seen| seen.is_acknowledged = true);
                return true;
            }
            Err(ClaimError::Refused(refusal)) => {
                if refusal.denial == Denial::InteractionUnknown {
                    self.history.fault(format!("{id} is unknown"));
                }
                return !matches!(refusal.denial, Denial::StoreUnavailable | Denial::EventInFlight);
            }
        };
        if was_revoked || was_acknowledged {
            self.history.fault(format!(
                "{id}: event {event} is delivered, revoked: {was_revoked}, acknowledged: {was_acknowledged}"
            ));
        }
        sleep(self.millis(5, 50)).await;
        if self.below(50) == 0 {
            claim.fail().await;
            return false;
        }
        self.history.event(id, event, |seen| seen.accepted += 1);
        if member.is_dead.load(Ordering::SeqCst) {
            // The process was killed, so it does not release its claim.
            self.history.event(id, event, |seen| seen.unrecorded += 1);
            std::mem::forget(claim);
            return false;
        }
        let is_settled = claim.settle(report, None).await.is_ok();
        self.history.event(id, event, |seen| match is_settled {
            true => (seen.settled, seen.is_acknowledged) = (seen.settled + 1, true),
            false => seen.unrecorded += 1,
        });
        is_settled
    }
}
