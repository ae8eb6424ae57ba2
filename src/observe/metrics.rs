//! The metrics, in base units.

use prometheus::core::Collector;
use prometheus::{
    Encoder, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge,
    IntGaugeVec, Opts, Registry, TextEncoder,
};

use super::edge::Edge;
use super::fetched::Fetched;
use crate::guard::Refused;

/// Deciding takes microseconds.
const DECIDE_BUCKETS: &[f64] = &[5e-6, 1e-5, 2.5e-5, 5e-5, 1e-4, 2.5e-4, 5e-4, 1e-3, 5e-3, 2.5e-2];
/// Agents take milliseconds to minutes.
const DELIVER_BUCKETS: &[f64] =
    &[1e-3, 5e-3, 1e-2, 2.5e-2, 5e-2, 1e-1, 2.5e-1, 5e-1, 1.0, 2.5, 5.0, 10.0, 30.0];

/// A commit of the ledger's file takes as long as the disk needs.
const COMMIT_BUCKETS: &[f64] = &[1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 1e-2, 2.5e-2, 5e-2, 1e-1, 5e-1, 1.0];

/// Every metric there is.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
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

/// Makes metrics and registers them.
pub(super) struct Maker<'r>(&'r Registry);

impl Maker<'_> {
    pub(super) fn register<C: Collector + Clone + 'static>(
        &self,
        made: prometheus::Result<C>,
    ) -> prometheus::Result<C> {
        let made = made?;
        self.0.register(Box::new(made.clone()))?;
        Ok(made)
    }

    fn counter(&self, name: &str, help: &str) -> prometheus::Result<IntCounter> {
        self.register(IntCounter::new(name, help))
    }

    pub(super) fn counters(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
    ) -> prometheus::Result<IntCounterVec> {
        self.register(IntCounterVec::new(Opts::new(name, help), labels))
    }

    pub(super) fn gauge(&self, name: &str, help: &str) -> prometheus::Result<IntGauge> {
        self.register(IntGauge::new(name, help))
    }

    pub(super) fn gauges(&self, name: &str, help: &str, labels: &[&str]) -> prometheus::Result<IntGaugeVec> {
        self.register(IntGaugeVec::new(Opts::new(name, help), labels))
    }

    fn histogram(&self, name: &str, help: &str, buckets: &[f64]) -> prometheus::Result<Histogram> {
        self.register(Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets.to_vec())))
    }

    fn histograms(
        &self,
        name: &str,
        help: &str,
        buckets: &[f64],
        labels: &[&str],
    ) -> prometheus::Result<HistogramVec> {
        let opts = HistogramOpts::new(name, help).buckets(buckets.to_vec());
        self.register(HistogramVec::new(opts, labels))
    }
}

impl Egress {
    fn new(make: &Maker<'_>) -> prometheus::Result<Self> {
        Ok(Self {
            egress_requests: make.counters(
                "callgate_egress_requests_total",
                "Requests of the agent, by verdict (allow, deny, fail) and reason.",
                &["rule", "verdict", "reason"],
            )?,
            egress_seconds: make.histograms(
                "callgate_egress_seconds",
                "From the agent's whole request to the end of the provider's answer, or to the failure to get one.",
                DELIVER_BUCKETS,
                &["rule"],
            )?,
            guard_refusals: make.counters(
                "callgate_guard_refusals_total",
                "Action endpoints that were refused, by class.",
                &["class"],
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
                &["route"],
            )?,
            ingress_requests: make.counters(
                "callgate_ingress_requests_total",
                "Requests that came in, by verdict (allow, observe, deny, fail) and reason.",
                &["route", "provider", "verdict", "reason"],
            )?,
            reports_unreadable: make.counters(
                "callgate_reports_unreadable_total",
                "Callbacks whose status and progress could not be read, because the body is no JSON.",
                &["route"],
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
                &["route"],
            )?,
            commit_seconds: make.histogram(
                "callgate_store_commit_seconds",
                "Writing a batch of changes to the ledger's file, until it is safe.",
                COMMIT_BUCKETS,
            )?,
            duplicates: make.counters(
                "callgate_duplicates_total",
                "Callbacks that were delivered before, and answered with 200.",
                &["route"],
            )?,
            ended: make.counters(
                "callgate_interactions_ended_total",
                "Interactions that ended, by outcome (done, failed, expired, revoked, not_sent).",
                &["route", "outcome"],
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
                &["route"],
            )?,
            notices: make.counters(
                "callgate_notices_total",
                "Attempts to tell the agent that no callback came, by cause (expired, stalled) and outcome (answered, failed, given_up).",
                &["route", "cause", "outcome"],
            )?,
            oldest_seconds: make.register(GaugeVec::new(
                Opts::new("callgate_interactions_oldest_age_seconds", "Age of the oldest open interaction."),
                &["route"],
            ))?,
            open: make.gauges("callgate_interactions_open", "Interactions that are open.", &["route"])?,
            stale: make.counters(
                "callgate_stale_total",
                "Callbacks that report overtaken progress, by what became of them (delivered, dropped).",
                &["route", "handling"],
            )?,
            store_failed: make.gauge(
                "callgate_store_failed",
                "1 once the ledger's file could not be written; nothing is acknowledged then.",
            )?,
        })
    }
}

impl Metrics {
    /// A fresh set, registered.
    ///
    /// # Errors
    /// A name that is registered twice, which would be a mistake in this file.
    pub fn new() -> prometheus::Result<Self> {
        let registry = Registry::new();
        let make = Maker(&registry);
        let build =
            make.gauges("callgate_build_info", "Always 1; the labels tell what is running.", &["version"])?;
        build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        let (egress, ingress, ledger) = (Egress::new(&make)?, Ingress::new(&make)?, Ledger::new(&make)?);
        // A counter that is there from the start can be alerted on from the first refusal.
        for class in Refused::classes() {
            egress.guard_refusals.with_label_values(&[class]);
        }
        let (edge, fetched) = (Edge::new(&make)?, Fetched::new(&make)?);
        Ok(Self { edge, egress, fetched, ingress, ledger, registry })
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

    /// The file cannot be written any more.
    pub fn store_failed(&self) {
        self.ledger.store_failed.set(1);
    }

    /// The ages of the oldest open interactions, by route; of a route that is not named, there is none.
    pub fn oldest<'r>(&self, ages: impl Iterator<Item = (&'r str, f64)>) {
        self.ledger.oldest_seconds.reset();
        for (route, seconds) in ages {
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
