//! The metrics, in base units.

use prometheus::{
    Encoder, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGaugeVec, Opts, Registry,
    TextEncoder,
};

/// Deciding takes microseconds.
const DECIDE_BUCKETS: &[f64] = &[5e-6, 1e-5, 2.5e-5, 5e-5, 1e-4, 2.5e-4, 5e-4, 1e-3, 5e-3, 2.5e-2];
/// Agents take milliseconds to minutes.
const DELIVER_BUCKETS: &[f64] =
    &[1e-3, 5e-3, 1e-2, 2.5e-2, 5e-2, 1e-1, 2.5e-1, 5e-1, 1.0, 2.5, 5.0, 10.0, 30.0];

/// Every metric there is.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    decide_seconds: Histogram,
    deliver_seconds: HistogramVec,
    ingress_requests: IntCounterVec,
    log_lines_lost: IntCounter,
}

impl Metrics {
    /// A fresh set, registered.
    ///
    /// # Errors
    /// A name that is registered twice, which would be a mistake in this file.
    pub fn new() -> prometheus::Result<Self> {
        let registry = Registry::new();
        let metrics = Self {
            decide_seconds: Histogram::with_opts(
                HistogramOpts::new(
                    "callgate_ingress_decide_seconds",
                    "Time spent deciding on a callback, waiting for its bytes not counted.",
                )
                .buckets(DECIDE_BUCKETS.to_vec()),
            )?,
            deliver_seconds: HistogramVec::new(
                HistogramOpts::new(
                    "callgate_deliver_seconds",
                    "From a permit to the end of the agent's answer, or to the failure to get one.",
                )
                .buckets(DELIVER_BUCKETS.to_vec()),
                &["route"],
            )?,
            ingress_requests: IntCounterVec::new(
                Opts::new(
                    "callgate_ingress_requests_total",
                    "Requests that came in, by verdict (allow, deny, fail) and reason.",
                ),
                &["route", "provider", "verdict", "reason"],
            )?,
            log_lines_lost: IntCounter::new(
                "callgate_access_log_lines_lost_total",
                "Access-log lines dropped because standard output did not keep up.",
            )?,
            registry,
        };
        let build = IntGaugeVec::new(
            Opts::new("callgate_build_info", "Always 1; the labels tell what is running."),
            &["version"],
        )?;
        build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        metrics.registry.register(Box::new(build))?;
        metrics.registry.register(Box::new(metrics.decide_seconds.clone()))?;
        metrics.registry.register(Box::new(metrics.deliver_seconds.clone()))?;
        metrics.registry.register(Box::new(metrics.ingress_requests.clone()))?;
        metrics.registry.register(Box::new(metrics.log_lines_lost.clone()))?;
        Ok(metrics)
    }

    /// Counts one request and the time its decision took. `reason` is a denial's code, or `ok`.
    pub fn request(&self, route: &str, provider: &str, verdict: &str, reason: &str, decide_nanos: u64) {
        self.ingress_requests.with_label_values(&[route, provider, verdict, reason]).inc();
        self.decide_seconds.observe(decide_nanos as f64 / 1e9);
    }

    /// Records one delivery.
    pub fn delivery(&self, route: &str, seconds: f64) {
        self.deliver_seconds.with_label_values(&[route]).observe(seconds);
    }

    /// Counts an access-log line that was dropped.
    pub fn log_line_lost(&self) {
        self.log_lines_lost.inc();
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
