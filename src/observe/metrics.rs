//! The metrics, in base units.

use prometheus::{
    Encoder, GaugeVec, Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Registry,
    TextEncoder,
};

use super::edge::Edge;
use super::fetched::Fetched;
use super::maker::{Label, Maker, Series};
use crate::guard::Refused;

/// Deciding takes microseconds.
const DECIDE_BUCKETS: &[f64] = &[5e-6, 1e-5, 2.5e-5, 5e-5, 1e-4, 2.5e-4, 5e-4, 1e-3, 5e-3, 2.5e-2];
/// Agents take milliseconds to minutes.
const DELIVER_BUCKETS: &[f64] =
    &[1e-3, 5e-3, 1e-2, 2.5e-2, 5e-2, 1e-1, 2.5e-1, 5e-1, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0];
/// A commit of the ledger's file takes as long as the disk needs.
const COMMIT_BUCKETS: &[f64] =
    &[1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 1e-2, 2.5e-2, 5e-2, 1e-1, 2.5e-1, 5e-1, 1.0, 2.5, 10.0];
/// Where the label `rule` comes from.
const RULES: &str = "`egress[].name`; `actions` for answers to questions; `none` where no rule was found";
/// How an interaction ends.
const OUTCOMES: [&str; 5] = ["done", "failed", "expired", "revoked", "not_sent"];
/// Of what the agent is told, and what comes of it.
const CAUSES: [&str; 2] = ["expired", "stalled"];
const NOTICED: [&str; 3] = ["answered", "failed", "given_up"];

/// Every metric there is.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    described: Vec<Series>,
    pub(super) edge: Edge,
    egress: Egress,
    pub(super) fetched: Fetched,
    ingress: Ingress,
    ledger: Ledger,
}

/// What the agent sends.
#[derive(Debug)]
struct Egress {
    egress_requests: IntCounterVec,
    egress_seconds: HistogramVec,
    guard_refusals: IntCounterVec,
}

/// What comes in.
#[derive(Debug)]
struct Ingress {
    decide_seconds: Histogram,
    deliver_seconds: HistogramVec,
    ingress_requests: IntCounterVec,
    ingress_refusals: IntCounterVec,
    log_lines_lost: IntCounter,
    reports_unreadable: IntCounterVec,
}

/// What is known of interactions.
#[derive(Debug)]
struct Ledger {
    adopted: IntCounterVec,
    commit_seconds: Histogram,
    duplicates: IntCounterVec,
    ended: IntCounterVec,
    events: IntGauge,
    events_forgotten: IntCounter,
    interactions: IntGauge,
    interactions_max: IntGauge,
    minted: IntCounterVec,
    notices: IntCounterVec,
    oldest_seconds: GaugeVec,
    open: IntGaugeVec,
    stale: IntCounterVec,
    store_failed: IntGauge,
}

impl Egress {
    fn new(make: &Maker<'_>) -> prometheus::Result<Self> {
        Ok(Self {
            egress_requests: make.counters(
                "callgate_egress_requests_total",
                "Requests of the agent, by verdict (allow, deny, fail) and reason.",
                &[Label::from("rule", RULES), Label::closed("verdict", ["allow", "deny", "fail"]), Label::reason(&["ok", "kept"])],
            )?,
            egress_seconds: make.histograms(
                "callgate_egress_seconds",
                "From the agent's whole request to the end of the provider's answer, or to the failure to get one.",
                DELIVER_BUCKETS,
                &[Label::from("rule", RULES)],
            )?,
            guard_refusals: make.counters(
                "callgate_guard_refusals_total",
                "Action endpoints that were refused, by class.",
                &[Label::closed("class", Refused::classes())],
            )?,
        })
    }
}

impl Ingress {
    fn new(make: &Maker<'_>) -> prometheus::Result<Self> {
        Ok(Self {
            decide_seconds: make.histogram(
                "callgate_ingress_decide_seconds",
                "Time spent deciding on a callback, waiting for its bytes not counted.",
                DECIDE_BUCKETS,
            )?,
            deliver_seconds: make.histograms(
                "callgate_deliver_seconds",
                "From a permit to the end of the agent's answer, or to the failure to get one.",
                DELIVER_BUCKETS,
                &[Label::route()],
            )?,
            ingress_requests: make.counters(
                "callgate_ingress_requests_total",
                "Requests that came in, by verdict (allow, observe, deny, fail) and reason.",
                &[
                    Label::route(),
                    Label::provider(),
                    Label::closed("verdict", ["allow", "observe", "deny", "fail"]),
                    Label::reason(&["ok", "duplicate", "stale", "handshake", "document"]),
                ],
            )?,
            ingress_refusals: make.counters(
                "callgate_ingress_refusals_total",
                "Requests that came in and were refused, or permitted but not delivered, by reason, over all routes.",
                &[Label::reason(&[])],
            )?,
            reports_unreadable: make.counters(
                "callgate_reports_unreadable_total",
                "Callbacks whose status and progress could not be read, because the body is no JSON.",
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
    fn new(make: &Maker<'_>) -> prometheus::Result<Self> {
        Ok(Self {
            adopted: make.counters(
                "callgate_interactions_adopted_total",
                "Genuine tokens whose interaction was not known and is from then on.",
                &[Label::route()],
            )?,
            commit_seconds: make.histogram(
                "callgate_store_commit_seconds",
                "Writing a batch of changes to the ledger's file, until it is safe.",
                COMMIT_BUCKETS,
            )?,
            duplicates: make.counters(
                "callgate_duplicates_total",
                "Callbacks that were delivered before, and answered with 200.",
                &[Label::route()],
            )?,
            ended: make.counters(
                "callgate_interactions_ended_total",
                "Interactions that ended, by outcome (done, failed, expired, revoked, not_sent).",
                &[Label::route(), Label::closed("outcome", OUTCOMES)],
            )?,
            events: make.gauge("callgate_store_events", "Delivered events that are remembered.")?,
            events_forgotten: make.counter(
                "callgate_store_events_forgotten_total",
                "Delivered events that were forgotten before their time, to make room.",
            )?,
            interactions: make.gauge("callgate_store_interactions", "Interactions that are known.")?,
            interactions_max: make.gauge(
                "callgate_store_interactions_max",
                "Most interactions that are taken; beyond it nothing is minted.",
            )?,
            minted: make.counters(
                "callgate_callbacks_minted_total",
                "Callbacks that were made, by injection or through the API.",
                &[Label::route()],
            )?,
            notices: make.counters(
                "callgate_notices_total",
                "Attempts to tell the agent that no callback came, by cause (expired, stalled) and outcome (answered, failed, given_up).",
                &[Label::route(), Label::closed("cause", CAUSES), Label::closed("outcome", NOTICED)],
            )?,
            oldest_seconds: make.ages(
                "callgate_interactions_oldest_age_seconds",
                "Age of the oldest open interaction.",
                &[Label::route()],
            )?,
            open: make.gauges("callgate_interactions_open", "Interactions that are open.", &[Label::route()])?,
            stale: make.counters(
                "callgate_stale_total",
                "Callbacks that report overtaken progress, by what became of them (delivered, dropped).",
                &[Label::route(), Label::closed("handling", ["delivered", "dropped"])],
            )?,
            store_failed: make.gauge(
                "callgate_store_failed",
                "1 while the ledger's file cannot be written, or its disk does not answer; nothing is taken then.",
            )?,
        })
    }
}

impl Ledger {
    /// What may become of a route's interactions is counted from the first open one on, so that the first that
    /// expires is an increase.
    fn expect(&self, route: &str) {
        for outcome in OUTCOMES {
            self.ended.with_label_values(&[route, outcome]);
        }
        for (cause, outcome) in CAUSES.iter().flat_map(|cause| NOTICED.map(|outcome| (cause, outcome))) {
            self.notices.with_label_values(&[route, cause, outcome]);
        }
    }
}

impl Metrics {
    /// A fresh set, registered.
    ///
    /// # Errors
    /// A name that is registered twice, which would be a mistake in this file.
    pub fn new() -> prometheus::Result<Self> {
        let registry = Registry::new();
        let make = Maker::new(&registry);
        let version = Label::from("version", "the binary");
        let build =
            make.gauges("callgate_build_info", "Always 1; the labels tell what is running.", &[version])?;
        build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        let (egress, ingress, ledger) = (Egress::new(&make)?, Ingress::new(&make)?, Ledger::new(&make)?);
        let (edge, fetched) = (Edge::new(&make)?, Fetched::new(&make)?);
        let described = make.described();
        Ok(Self { described, edge, egress, fetched, ingress, ledger, registry })
    }

    /// Every metric there is, by name: what was registered, and no list beside it.
    pub fn described(&self) -> &[Series] {
        &self.described
    }

    // === The ledger ===

    /// An interaction is open.
    pub fn interaction_opened(&self, route: &str) {
        self.ledger.open.with_label_values(&[route]).inc();
    }

    /// An open interaction ended.
    pub fn interaction_ended(&self, route: &str, outcome: &str) {
        self.ledger.open.with_label_values(&[route]).dec();
        self.ledger.ended.with_label_values(&[route, outcome]).inc();
    }

    /// An interaction that was not known is.
    pub fn interaction_adopted(&self, route: &str) {
        self.ledger.adopted.with_label_values(&[route]).inc();
    }

    /// A callback was made.
    pub fn minted(&self, route: &str) {
        self.ledger.minted.with_label_values(&[route]).inc();
    }

    /// A delivered callback came again.
    pub fn duplicate(&self, route: &str) {
        self.ledger.duplicates.with_label_values(&[route]).inc();
    }

    /// A callback could not be read.
    pub fn report_unreadable(&self, route: &str) {
        self.ingress.reports_unreadable.with_label_values(&[route]).inc();
    }

    /// Overtaken progress came. `handling` is `delivered` or `dropped`.
    pub fn stale(&self, route: &str, handling: &str) {
        self.ledger.stale.with_label_values(&[route, handling]).inc();
    }

    /// The agent was told, or not, that no callback came.
    pub fn notice(&self, route: &str, cause: &str, outcome: &str) {
        self.ledger.notices.with_label_values(&[route, cause, outcome]).inc();
    }

    /// An event had to make room.
    pub fn event_forgotten(&self) {
        self.ledger.events_forgotten.inc();
    }

    /// Most interactions that are taken.
    pub fn store_limits(&self, interactions_max: usize) {
        self.ledger.interactions_max.set(i64::try_from(interactions_max).unwrap_or(i64::MAX));
    }

    /// How many interactions and events are known.
    pub fn store_counts(&self, (interactions, events): (usize, usize)) {
        self.ledger.interactions.set(i64::try_from(interactions).unwrap_or(i64::MAX));
        self.ledger.events.set(i64::try_from(events).unwrap_or(i64::MAX));
    }

    /// A batch was written.
    pub fn commit(&self, seconds: f64) {
        self.ledger.commit_seconds.observe(seconds);
    }

    /// Whether the ledger's file cannot be written now.
    pub fn store_failed(&self, failed: bool) {
        self.ledger.store_failed.set(i64::from(failed));
    }

    /// The ages of the oldest open interactions, by route; of a route that is not named, there is none.
    pub fn oldest<'r>(&self, ages: impl Iterator<Item = (&'r str, f64)>) {
        self.ledger.oldest_seconds.reset();
        for (route, seconds) in ages {
            self.ledger.expect(route);
            self.ledger.oldest_seconds.with_label_values(&[route]).set(seconds);
        }
    }

    // === The egress ===

    /// Counts one request of the agent. `reason` is a denial's code, `ok`, or `kept`.
    pub fn egress(&self, rule: &str, verdict: &str, reason: &str, seconds: f64) {
        self.egress.egress_requests.with_label_values(&[rule, verdict, reason]).inc();
        self.egress.egress_seconds.with_label_values(&[rule]).observe(seconds);
    }

    /// The guard refused an action endpoint.
    pub fn guard_refusal(&self, class: &str) {
        self.egress.guard_refusals.with_label_values(&[class]).inc();
    }

    // === The ingress ===

    /// Counts one request and the time its decision took. `reason` is a denial's code, or `ok`.
    pub fn request(&self, route: &str, provider: &str, verdict: &str, reason: &str, decide_nanos: u64) {
        self.ingress.ingress_requests.with_label_values(&[route, provider, verdict, reason]).inc();
        if matches!(verdict, "deny" | "fail") {
            self.ingress.ingress_refusals.with_label_values(&[reason]).inc();
        }
        self.ingress.decide_seconds.observe(decide_nanos as f64 / 1e9);
    }

    /// Records one delivery.
    pub fn delivery(&self, route: &str, seconds: f64) {
        self.ingress.deliver_seconds.with_label_values(&[route]).observe(seconds);
    }

    /// Counts an access-log line that was dropped.
    pub fn log_line_lost(&self) {
        self.ingress.log_lines_lost.inc();
    }

    /// The text exposition format.
    ///
    /// # Errors
    /// A metric that cannot be encoded, which would be a mistake in this file.
    pub fn text(&self) -> prometheus::Result<String> {
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    }
}
