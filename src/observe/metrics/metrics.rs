//! The metrics of ingress, egress and the ledger, in base units (seconds, bytes).
//!
//! The other files of this folder contain the metrics of other parts of the process. `registry` registers all metrics.

use prometheus::{
    Encoder, GaugeVec, Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Registry,
    TextEncoder,
};

use super::agent_metrics::AgentMetrics;
use super::fetch_metrics::FetchMetrics;
use super::inbox_metrics::InboxMetrics;
use super::registry::{Label, MetricRegistry, Series};
use super::replicas::ReplicaMetrics;
use super::server_metrics::ServerMetrics;
use super::shared_store::SharedStoreMetrics;
use crate::guard::Refused;

/// The histogram buckets for the time to decide about a request, in seconds. A decision takes microseconds.
const DECIDE_BUCKETS: &[f64] = &[5e-6, 1e-5, 2.5e-5, 5e-5, 1e-4, 2.5e-4, 5e-4, 1e-3, 5e-3, 2.5e-2];
/// The histogram buckets for the response times of agents and providers, in seconds: milliseconds to minutes.
const DELIVER_BUCKETS: &[f64] =
    &[1e-3, 5e-3, 1e-2, 2.5e-2, 5e-2, 1e-1, 2.5e-1, 5e-1, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0];
/// The histogram buckets for the time of a commit to the ledger file, in seconds. The time depends on the disk.
const COMMIT_BUCKETS: &[f64] =
    &[1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 1e-2, 2.5e-2, 5e-2, 1e-1, 2.5e-1, 5e-1, 1.0, 2.5, 10.0];
/// The description of the values of the metric label `rule`.
const RULES: &str = "`egress[].name`, or `actions` for answers to questions, or `callbacks` for callbacks that the agent asks for, or `none` if no rule matches, or `unmatched` and `others` for requests that the forward proxy sends unchanged";
/// The final states of an interaction, as values of the label `outcome`.
const OUTCOMES: [&str; 5] = ["done", "failed", "expired", "revoked", "not_sent"];
/// The causes of a notice to the agent, as values of the label `cause`.
const CAUSES: [&str; 3] = ["expired", "stalled", "undelivered"];
/// The outcomes of an attempt to send a notice, as values of the label `outcome`.
const NOTICED: [&str; 3] = ["answered", "failed", "given_up"];

/// All registered metrics of the process.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    described: Vec<Series>,
    pub(super) agents: AgentMetrics,
    pub(super) egress: Egress,
    pub(super) fetch: FetchMetrics,
    pub(super) inbox: InboxMetrics,
    pub(super) ingress: Ingress,
    pub(super) ledger: Ledger,
    pub(super) replicas: ReplicaMetrics,
    pub(super) server: ServerMetrics,
    pub(super) shared_store: SharedStoreMetrics,
}

/// The registered metrics of egress requests, which the agent sends through Callgate.
#[derive(Debug)]
pub(super) struct Egress {
    pub(super) egress_requests: IntCounterVec,
    egress_seconds: HistogramVec,
    guard_refusals: IntCounterVec,
}

/// The registered metrics of ingress requests, such as callbacks from providers.
#[derive(Debug)]
pub(super) struct Ingress {
    decide_seconds: Histogram,
    deliver_seconds: HistogramVec,
    pub(super) ingress_requests: IntCounterVec,
    ingress_refusals: IntCounterVec,
    log_lines_lost: IntCounter,
    reports_unreadable: IntCounterVec,
}

/// The registered metrics of interactions and of the store.
#[derive(Debug)]
pub(super) struct Ledger {
    adopted: IntCounterVec,
    pub(super) commit_seconds: Histogram,
    duplicates: IntCounterVec,
    pub(super) ended: IntCounterVec,
    events: IntGauge,
    events_forgotten: IntCounter,
    events_max: IntGauge,
    interactions: IntGauge,
    interactions_max: IntGauge,
    minted: IntCounterVec,
    notices: IntCounterVec,
    oldest_seconds: GaugeVec,
    pub(super) open: IntGaugeVec,
    stale: IntCounterVec,
    pub(super) store_failed: IntGauge,
}

impl Egress {
    fn new(make: &MetricRegistry<'_>) -> prometheus::Result<Self> {
        Ok(Self {
            egress_requests: make.counters(
                "callgate_egress_requests_total",
                "Requests of the agent, by verdict (allow, deny, fail) and reason.",
                &[Label::from("rule", RULES), Label::closed("verdict", ["allow", "deny", "fail"]), Label::reason(&["ok", "kept"])],
            )?,
            egress_seconds: make.histograms(
                "callgate_egress_seconds",
                "Time from the agent's complete request to the end of the provider's response, or to the failure, in seconds.",
                DELIVER_BUCKETS,
                &[Label::from("rule", RULES)],
            )?,
            guard_refusals: make.counters(
                "callgate_guard_refusals_total",
                "Action endpoints, and hosts of the forward proxy, that were denied, by class.",
                &[Label::closed("class", Refused::classes())],
            )?,
        })
    }
}

impl Ingress {
    fn new(make: &MetricRegistry<'_>) -> prometheus::Result<Self> {
        Ok(Self {
            decide_seconds: make.histogram(
                "callgate_ingress_decide_seconds",
                "Time to decide about a request, without the time to receive it, in seconds.",
                DECIDE_BUCKETS,
            )?,
            deliver_seconds: make.histograms(
                "callgate_deliver_seconds",
                "Time from the permit to the end of the agent's response, or to the failure, in seconds.",
                DELIVER_BUCKETS,
                &[Label::route()],
            )?,
            ingress_requests: make.counters(
                "callgate_ingress_requests_total",
                "Ingress requests, by verdict (allow, duplicate, observe, deny, fail) and reason.",
                &[
                    Label::route(),
                    Label::provider(),
                    Label::closed("verdict", ["allow", "duplicate", "observe", "deny", "fail"]),
                    Label::reason(&["ok", "accepted", "duplicate", "stale", "handshake", "stream", "document", "health", "handed_over"]),
                ],
            )?,
            ingress_refusals: make.counters(
                "callgate_ingress_refusals_total",
                "Ingress requests that were denied, or permitted but not delivered, by reason, over all routes.",
                &[Label::reason(&[])],
            )?,
            reports_unreadable: make.counters(
                "callgate_reports_unreadable_total",
                "Callbacks whose status and progress could not be read because the body is not JSON.",
                &[Label::route()],
            )?,
            log_lines_lost: make.counter(
                "callgate_access_log_lines_lost_total",
                "Access-log lines dropped because standard output did not keep up.",
            )?,
        })
    }
}

impl Ledger {
    fn new(make: &MetricRegistry<'_>) -> prometheus::Result<Self> {
        Ok(Self {
            adopted: make.counters(
                "callgate_interactions_adopted_total",
                "Interactions that were not in the ledger and were added because of a valid token.",
                &[Label::route()],
            )?,
            commit_seconds: make.histogram(
                "callgate_store_commit_seconds",
                "Time to write a batch of changes to the ledger file durably, in seconds.",
                COMMIT_BUCKETS,
            )?,
            duplicates: make.counters(
                "callgate_duplicates_total",
                "Callbacks that were duplicates: already delivered, and answered with 200.",
                &[Label::route()],
            )?,
            ended: make.counters(
                "callgate_interactions_ended_total",
                "Interactions that ended, by outcome (done, failed, expired, revoked, not_sent).",
                &[Label::route(), Label::closed("outcome", OUTCOMES)],
            )?,
            events: make.gauge("callgate_store_events", "Delivered events that the store remembers.")?,
            events_forgotten: make.counter(
                "callgate_store_events_forgotten_total",
                "Delivered events that the store removed before the end of their retention, because it had too many. Events of interactions that are over are not counted.",
            )?,
            events_max: make.gauge("callgate_store_events_max", "Maximum number of events in the store.")?,
            interactions: make
                .gauge("callgate_store_interactions", "Interactions whose token is still valid.")?,
            interactions_max: make.gauge(
                "callgate_store_interactions_max",
                "Maximum number of interactions in the store. When it is reached, nothing is minted.",
            )?,
            minted: make.counters(
                "callgate_callbacks_minted_total",
                "Callback URLs that were minted, by injection or through the API.",
                &[Label::route()],
            )?,
            notices: make.counters(
                "callgate_notices_total",
                "Attempts to send the agent a notice of a missing callback, by cause (expired, stalled, undelivered) and outcome (answered, failed, given_up).",
                &[Label::route(), Label::closed("cause", CAUSES), Label::closed("outcome", NOTICED)],
            )?,
            oldest_seconds: make.ages(
                "callgate_interactions_oldest_age_seconds",
                "Age of the oldest open interaction, in seconds.",
                &[Label::route()],
            )?,
            open: make.gauges("callgate_interactions_open", "Open interactions.", &[Label::route()])?,
            stale: make.counters(
                "callgate_stale_total",
                "Callbacks that report less progress than an earlier one, or progress after the end, by handling (delivered, dropped).",
                &[Label::route(), Label::closed("handling", ["delivered", "dropped"])],
            )?,
            store_failed: make.gauge(
                "callgate_store_failed",
                "1 while the ledger file cannot be written, its disk does not answer, or a node of the shared store does not answer, takes no changes or is full for store.grace, else 0. While it is 1, Callgate refuses the callbacks concerned.",
            )?,
        })
    }
}

impl Ledger {
    /// Creates a time series with the value 0 for every outcome that an interaction or a notice of this route can have.
    /// An alert can then detect even the first interaction that expires, as an increase from 0.
    pub(super) fn expect(&self, route: &str) {
        for outcome in OUTCOMES {
            self.ended.with_label_values(&[route, outcome]);
        }
        for (cause, outcome) in CAUSES.iter().flat_map(|cause| NOTICED.map(|outcome| (cause, outcome))) {
            self.notices.with_label_values(&[route, cause, outcome]);
        }
    }
}

impl Metrics {
    /// Creates and registers all metrics of the process.
    ///
    /// # Errors
    /// Returns an error if a name is registered twice, which is a mistake in the code.
    pub fn new() -> prometheus::Result<Self> {
        let registry = Registry::new();
        let make = MetricRegistry::new(&registry);
        let version = Label::from("version", "the binary");
        let build = make.gauges(
            "callgate_build_info",
            "Always 1. The label contains the version of Callgate.",
            &[version],
        )?;
        build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        let (egress, ingress, ledger) = (Egress::new(&make)?, Ingress::new(&make)?, Ledger::new(&make)?);
        let (fetch, server, agents) =
            (FetchMetrics::new(&make)?, ServerMetrics::new(&make)?, AgentMetrics::new(&make)?);
        let (replicas, shared_store) = (ReplicaMetrics::new(&make)?, SharedStoreMetrics::new(&make)?);
        let inbox = InboxMetrics::new(&make)?;
        let described = make.described();
        Ok(Self {
            agents,
            described,
            egress,
            fetch,
            inbox,
            ingress,
            ledger,
            registry,
            replicas,
            server,
            shared_store,
        })
    }

    /// Returns the descriptions of all registered metrics, sorted by name.
    pub fn described(&self) -> &[Series] {
        &self.described
    }

    // === The ledger ===

    /// Adds 1 to the number of open interactions of a route.
    pub fn interaction_opened(&self, route: &str) {
        self.ledger.open.with_label_values(&[route]).inc();
    }

    /// Counts an open interaction that ended, and subtracts 1 from the number of open interactions. `outcome` is the
    /// final state of the interaction, such as `done` or `expired`.
    pub fn interaction_ended(&self, route: &str, outcome: &str) {
        self.ledger.open.with_label_values(&[route]).dec();
        self.ledger.ended.with_label_values(&[route, outcome]).inc();
    }

    /// Subtracts 1 from the number of open interactions of a route, because another process took over an open
    /// interaction.
    pub fn interaction_left(&self, route: &str) {
        self.ledger.open.with_label_values(&[route]).dec();
    }

    /// Counts an interaction that was added to the ledger because a callback had a valid token.
    pub fn interaction_adopted(&self, route: &str) {
        self.ledger.adopted.with_label_values(&[route]).inc();
    }

    /// Counts a callback URL that Callgate issued.
    pub fn minted(&self, route: &str) {
        self.ledger.minted.with_label_values(&[route]).inc();
    }

    /// Counts a callback that is a duplicate of an earlier callback.
    pub fn duplicate(&self, route: &str) {
        self.ledger.duplicates.with_label_values(&[route]).inc();
    }

    /// Counts a callback whose status and progress could not be read, because the body is not JSON.
    pub fn report_unreadable(&self, route: &str) {
        self.ingress.reports_unreadable.with_label_values(&[route]).inc();
    }

    /// Counts a callback that reports less progress than an earlier callback, or progress after the end of the
    /// interaction. `handling` is `delivered` or `dropped`.
    pub fn stale(&self, route: &str, handling: &str) {
        self.ledger.stale.with_label_values(&[route, handling]).inc();
    }

    /// Counts an attempt to send the agent a notice. `cause` is `expired`, `stalled` or `undelivered`. `outcome` is
    /// `answered`, `failed` or `given_up`.
    pub fn notice(&self, route: &str, cause: &str, outcome: &str) {
        self.ledger.notices.with_label_values(&[route, cause, outcome]).inc();
    }

    /// Counts a delivered event that a full store removed before the end of its retention time.
    pub fn event_forgotten(&self) {
        self.ledger.events_forgotten.inc();
    }

    /// Sets the maximum numbers of interactions and of events in the store.
    pub fn store_limits(&self, interactions_max: usize, events_max: usize) {
        self.ledger.events_max.set(i64::try_from(events_max).unwrap_or(i64::MAX));
        self.ledger.interactions_max.set(i64::try_from(interactions_max).unwrap_or(i64::MAX));
    }

    /// Sets the current numbers of interactions and of events in the store.
    pub fn store_counts(&self, (interactions, events): (usize, usize)) {
        self.ledger.interactions.set(i64::try_from(interactions).unwrap_or(i64::MAX));
        self.ledger.events.set(i64::try_from(events).unwrap_or(i64::MAX));
    }

    /// Sets the age of the oldest open interaction of each route, in seconds. Removes the time series of all routes
    /// that `ages` does not contain.
    pub fn oldest<'r>(&self, ages: impl Iterator<Item = (&'r str, f64)>) {
        self.ledger.oldest_seconds.reset();
        for (route, seconds) in ages {
            self.ledger.expect(route);
            self.ledger.oldest_seconds.with_label_values(&[route]).set(seconds);
        }
    }

    // === Egress ===

    /// Counts one egress request and records its duration in seconds. `reason` is the code of a denial, `ok` or `kept`,
    /// as in the access log.
    pub fn egress(&self, rule: &str, verdict: &str, reason: &str, seconds: f64) {
        self.egress.egress_requests.with_label_values(&[rule, verdict, reason]).inc();
        self.egress.egress_seconds.with_label_values(&[rule]).observe(seconds);
    }

    /// Counts a connection that Callgate denied: to an action endpoint, or to a host that the agent requested from the
    /// forward proxy. `class` is the class of the denied address or URL, such as `loopback`.
    pub fn guard_refusal(&self, class: &str) {
        self.egress.guard_refusals.with_label_values(&[class]).inc();
    }

    // === Ingress ===

    /// Counts one ingress request, and records the time that Callgate needed to decide about it. `reason` is the code
    /// of a denial, or another value of the label `reason`, such as `ok`.
    pub fn request(&self, route: &str, provider: &str, verdict: &str, reason: &str, decide_nanos: u64) {
        self.ingress.ingress_requests.with_label_values(&[route, provider, verdict, reason]).inc();
        if matches!(verdict, "deny" | "fail") {
            self.ingress.ingress_refusals.with_label_values(&[reason]).inc();
        }
        self.ingress.decide_seconds.observe(decide_nanos as f64 / 1e9);
    }

    /// Records the duration of one delivery of a callback to the agent.
    pub fn delivery(&self, route: &str, seconds: f64) {
        self.ingress.deliver_seconds.with_label_values(&[route]).observe(seconds);
    }

    /// Counts an access-log line that was dropped, because standard output did not keep up.
    pub fn log_line_lost(&self) {
        self.ingress.log_lines_lost.inc();
    }

    /// Returns all metrics in the Prometheus text exposition format.
    ///
    /// # Errors
    /// Returns an error if a metric cannot be encoded, which is a mistake in the code.
    pub fn text(&self) -> prometheus::Result<String> {
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    }
}
