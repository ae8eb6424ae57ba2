//! The state of this process as one of several replicas.

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::Method;
use parking_lot::Mutex;
use tokio::sync::Semaphore;

use super::liveness::{About, Member, Members, Presence};
use super::member_client::{Identity, MemberClient, MemberResponse, SendError, Sending};
use crate::clock::{Clock, instant};
use crate::observe::Metrics;
use crate::policy::Policy;
use crate::proxy::listen::LogThrottle;
use crate::replica::{Incarnation, Nonces, Outcome, Owner, Replicas, SeenNonce};
use crate::store::Store;
use crate::time::Timestamp;

/// The pause between two attempts to connect to the owner of an interaction.
pub(super) const RETRY_PAUSE: Duration = Duration::from_millis(100);
/// The maximum size of a response of another replica's API, in bytes.
const API_BYTES_MAX: usize = 16 << 20;
/// The timeout for a request to another replica's API.
const API_TIMEOUT: Duration = Duration::from_secs(5);

/// A request of another replica about interactions.
#[derive(Clone, Debug)]
pub struct MemberRequest {
    /// The HTTP method.
    pub method: String,
    /// The path after `/replica`.
    pub path: String,
    /// The query string. Empty if there is no query.
    pub query: String,
}

/// The response of a replica's API to a request of another replica.
#[derive(Clone, Debug)]
pub struct MemberAnswer {
    /// The HTTP status.
    pub status: u16,
    /// The body of the response.
    pub body: Vec<u8>,
}

/// The function that responds to requests of other replicas about interactions.
pub type CallbacksApi =
    Arc<dyn Fn(MemberRequest) -> Pin<Box<dyn Future<Output = MemberAnswer> + Send>> + Send + Sync>;

/// What the event log already contains about other replicas, so that nothing is logged twice.
#[derive(Default)]
pub(super) struct Logged {
    pub(super) throttle: LogThrottle,
    /// The id of the replica whose interactions were moved to this process most recently.
    pub(super) taken_over_from: Mutex<Option<Incarnation>>,
    /// The state of each replica (reachable, unreachable or dead) after the last round of discovery, by replica id.
    pub(super) presences: Mutex<HashMap<Incarnation, Presence>>,
}

/// The state of this process as one of several replicas.
pub struct Replication {
    policy: Arc<ArcSwap<Policy>>,
    clock: Clock,
    store: Arc<Store>,
    pub(crate) metrics: Arc<Metrics>,
    own: ArcSwap<Owner>,
    started: Timestamp,
    pub(crate) members: Members,
    client: MemberClient,
    nonces: Mutex<Nonces>,
    /// Ensures that only one callback at a time asks the other replicas which replica has received the interactions of
    /// a dead or stopped replica.
    pub(super) finding_heirs: Semaphore,
    /// The time at which the last search for the interactions of a dead replica failed. A search fails if not all other
    /// replicas respond. `None` if the last search succeeded.
    pub(super) heirs_not_found: Mutex<Option<Instant>>,
    /// The last time at which all replicas were asked whether they have received the interactions of a replica that
    /// refuses connections.
    pub(super) heirs_asked: Mutex<Option<Instant>>,
    pub(super) log_throttle: LogThrottle,
    /// Whether all addresses in `discover` were contacted at least once (the first round of discovery).
    pub(super) has_looked: AtomicBool,
    /// Whether this process accepts no more callbacks from other replicas, because it moves its ledger to another
    /// replica.
    is_leaving: AtomicBool,
    /// Whether this process has received SIGTERM.
    is_stopping: AtomicBool,
    pub(super) logged: Logged,
    /// Whether the ledger is being moved to another replica, so that nothing new can be recorded.
    pub(super) is_handing_over: AtomicBool,
}

/// The result of forwarding a callback to another replica.
pub(crate) enum HandedOver {
    /// The owner of the interaction responded.
    Response(Box<MemberResponse>),
    /// The owner of the interaction is dead and has not received the callback.
    Gone,
    /// The interaction belongs to this process.
    Here,
    /// The owner of the interaction cannot be reached or did not respond. Contains an explanation.
    Unreachable(String),
}

impl Replication {
    /// Creates the state of this process. Returns `None` if the configuration has no section `replicas`.
    pub fn new(
        policy: &Arc<ArcSwap<Policy>>,
        clock: &Clock,
        store: &Arc<Store>,
        metrics: &Arc<Metrics>,
    ) -> Option<Self> {
        let own = policy.load().replicas.as_ref()?.own.clone()?;
        Some(Self {
            policy: Arc::clone(policy),
            clock: clock.clone(),
            store: Arc::clone(store),
            metrics: Arc::clone(metrics),
            own: ArcSwap::from_pointee(own),
            started: clock.now(),
            members: Members::default(),
            client: MemberClient::default(),
            nonces: Mutex::default(),
            finding_heirs: Semaphore::new(1),
            heirs_not_found: Mutex::default(),
            heirs_asked: Mutex::default(),
            log_throttle: LogThrottle::default(),
            has_looked: AtomicBool::new(false),
            is_handing_over: AtomicBool::new(false),
            is_leaving: AtomicBool::new(false),
            is_stopping: AtomicBool::new(false),
            logged: Logged::default(),
        })
    }

    /// Returns the current settings of the section `replicas`, which a reload cannot remove.
    pub(crate) fn settings(&self) -> Option<Arc<Replicas>> {
        self.policy.load().replicas.clone()
    }

    /// Returns the current wall-clock time, for proofs.
    pub(crate) fn wall_clock(&self) -> Timestamp {
        self.clock.now()
    }

    /// Returns the id and address of this process.
    pub fn own(&self) -> Arc<Owner> {
        self.own.load_full()
    }

    /// Records the port of the replica listener, if the operating system chose the port at start.
    pub(crate) fn listens_on(&self, port: u16) {
        let own = self.own();
        let Some(host) = own.address.strip_suffix(":0") else { return };
        let own = Owner { address: format!("{host}:{port}").into(), ..(*own).clone() };
        self.policy.rcu(|policy| {
            let replicas = policy.replicas.as_ref().map(|replicas| Arc::new(replicas.of(own.clone())));
            Policy { replicas, ..(**policy).clone() }
        });
        self.store.set_own(&own);
        self.own.store(Arc::new(own));
    }

    pub(super) fn store(&self) -> &Store {
        &self.store
    }

    /// Accepts the nonce of a proof, unless the nonce was accepted before or the table of nonces is full. Returns which
    /// of these cases applies.
    pub(crate) fn accept_nonce(&self, nonce: u128) -> SeenNonce {
        self.nonces.lock().accept(nonce, self.clock.now())
    }

    /// Records that this process has received SIGTERM.
    pub(crate) fn stopping(&self) {
        self.is_stopping.store(true, Ordering::Relaxed);
    }

    /// Stops accepting callbacks from other replicas, because the ledger will be moved to another replica.
    pub(crate) fn leaving(&self) {
        self.is_leaving.store(true, Ordering::Relaxed);
    }

    /// Reports whether the ledger is being moved to another replica. An interaction that is minted now would be lost.
    pub fn is_handing_over(&self) -> bool {
        self.is_handing_over.load(Ordering::SeqCst)
    }

    pub(crate) fn is_leaving(&self) -> bool {
        self.is_leaving.load(Ordering::Relaxed)
    }

    /// Records the description that another replica sent. Returns the id and address of the other replica. Returns
    /// `None` if the description is malformed, or if this process sent the description to itself, because `discover`
    /// lists the address of this process.
    pub(super) fn learned(&self, about: About) -> Option<Owner> {
        let own = self.own();
        if about.incarnation == own.incarnation.to_string() {
            return None;
        }
        if about.address == own.address && self.log_throttle.should_log("same_address", instant()) {
            log::warn!(
                "another member says that its address is {}, too: every member needs an address of its own (`replicas.advertise`)",
                own.address
            );
        }
        self.members.answered(about, instant())
    }

    pub(super) async fn send(
        &self,
        replicas: &Replicas,
        to: &Owner,
        message: &Sending<'_>,
        timeout: Duration,
    ) -> Result<MemberResponse, SendError> {
        let response = self.client.send(self, replicas, to, message, timeout).await?;
        self.members.reached(to);
        Ok(response)
    }

    /// Sends a request to the API of another replica.
    ///
    /// # Errors
    /// Returns an explanation if the replica did not respond.
    pub(crate) async fn ask(
        &self,
        replicas: &Replicas,
        to: &Owner,
        (method, target): (&Method, &str),
        body: Bytes,
    ) -> Result<MemberAnswer, String> {
        let message = Sending::api(method, target, body);
        let mut response = match self.send(replicas, to, &message, API_TIMEOUT).await {
            Ok(response) if response.outcome == Outcome::Mistaken => {
                self.members.replaced(to, instant());
                return Err("another process has its address".to_owned());
            }
            Ok(response) => response,
            Err(SendError::Mistaken(about)) => {
                self.members.replaced(to, instant());
                self.learned(about);
                return Err("another process has its address".to_owned());
            }
            Err(error) => {
                if error.is_refusal() {
                    self.members.refused(to, replicas.gone_after, instant());
                }
                return Err(error.to_string());
            }
        };
        if response.outcome == Outcome::Clock {
            return Err(SendError::Clock.to_string());
        }
        let status = response.response.status().as_u16();
        let body = response.read_all(API_BYTES_MAX).await.ok_or("the response is incomplete")?;
        Ok(MemberAnswer { status, body })
    }

    /// Asks the process at an address to identify itself. Records the description that the process sends, unless the
    /// address belongs to this process itself.
    ///
    /// # Errors
    /// Returns a [`SendError`] if no replica responds at the address.
    pub(super) async fn introduce(&self, replicas: &Replicas, address: &str) -> Result<(), SendError> {
        let about = self.client.introduce(self, replicas, address).await?;
        self.learned(about);
        Ok(())
    }

    /// Returns the `host:port` at which other replicas reach this process.
    pub fn address(&self) -> Box<str> {
        self.own.load().address.clone()
    }

    /// Returns the other replicas that are not considered dead.
    pub fn others(&self) -> Vec<Owner> {
        let Some(replicas) = self.settings() else { return Vec::new() };
        self.members.all_but_gone(replicas.gone_after).into_iter().map(|member| member.owner).collect()
    }

    /// Sends a request to the API of another replica, with the current settings.
    ///
    /// # Errors
    /// Returns an explanation if the replica did not respond.
    pub async fn ask_member(
        &self,
        to: &Owner,
        request: (&Method, &str),
        body: Bytes,
    ) -> Result<MemberAnswer, String> {
        let replicas = self.settings().ok_or("the configuration has no section `replicas`")?;
        self.ask(&replicas, to, request, body).await
    }

    /// Updates the metric with the number of reachable replicas.
    pub fn report(&self) {
        let Some(replicas) = self.settings() else { return };
        let is_present = |member: &Member| member.presence(replicas.gone_after) == Presence::Present;
        self.metrics.members(self.members.all().iter().filter(|member| is_present(member)).count() + 1);
    }

    /// Counts a callback of an interaction whose owner is dead. `did` is what happened to the callback.
    pub(crate) fn owner_gone(&self, did: &'static str) {
        self.metrics.owner_gone(did);
    }

    /// Closes connections to other replicas that have been idle for longer than the idle timeout.
    pub(crate) fn sweep(&self) {
        self.client.sweep(instant());
    }
}

impl Identity for Replication {
    fn now(&self) -> Timestamp {
        self.clock.now()
    }

    fn about(&self) -> About {
        let own = self.own();
        let group = self.settings().map_or_else(Box::default, |replicas| replicas.group.clone());
        About {
            incarnation: own.incarnation.to_string(),
            address: own.address.clone(),
            group,
            started: self.started.unix_ms(),
            inherits: self.store.inherited(),
            stopping: self.is_stopping.load(Ordering::Relaxed),
        }
    }

    fn incarnation(&self) -> Incarnation {
        self.own.load().incarnation
    }
}
