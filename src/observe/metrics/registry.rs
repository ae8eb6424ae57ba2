//! Creates and registers metrics, and records a description of each metric.
//!
//! The output of `callgate metrics` and the file `docs/metrics.md` are generated from these descriptions. Both
//! therefore list every metric.

use std::cell::RefCell;

use prometheus::core::Collector;
use prometheus::proto::MetricType;
use prometheus::{
    CounterVec, Error, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge,
    IntGaugeVec, Opts, Registry,
};

use crate::denial::Denial;

/// The description of a registered metric.
#[derive(Clone, Debug)]
pub struct Series {
    /// The name of the metric. For a histogram: the common prefix of the names of its time series.
    pub name: String,
    /// The type of the metric: `counter`, `gauge` or `histogram`.
    pub kind: &'static str,
    /// The labels of the metric, in the order of their declaration.
    pub labels: Vec<Label>,
    /// The help text of the metric.
    pub help: String,
    /// The upper bounds of the buckets of a histogram, in the unit of the metric. Empty if the metric is not a
    /// histogram.
    pub buckets: Vec<f64>,
    /// Whether all time series of the metric exist when Callgate starts.
    pub from_start: bool,
}

/// The description of a label of a metric.
#[derive(Clone, Debug)]
pub struct Label {
    /// The name of the label.
    pub name: &'static str,
    /// The possible values of the label.
    pub values: Values,
}

/// The possible values of a metric label. The values never come from a request.
#[derive(Clone, Debug)]
pub enum Values {
    /// A fixed list of values.
    Closed(Vec<&'static str>),
    /// A text that describes the source of the values, such as a configuration key.
    From(&'static str),
}

impl Label {
    /// Creates the description of a label with a fixed list of values.
    pub(super) fn closed(name: &'static str, values: impl IntoIterator<Item = &'static str>) -> Self {
        Self { name, values: Values::Closed(values.into_iter().collect()) }
    }

    /// Creates the description of a label whose values come from `place`, such as a configuration key.
    pub(super) const fn from(name: &'static str, place: &'static str) -> Self {
        Self { name, values: Values::From(place) }
    }

    /// Creates the description of the label `route`.
    pub(super) const fn route() -> Self {
        Self::from("route", "`routes[].name`, or `none` if no route matches")
    }

    /// Creates the description of the label `agent`.
    pub(super) const fn agent() -> Self {
        Self::from("agent", "`agents`, or `agent` if the configuration has the section `agent`")
    }

    /// Creates the description of the label `provider`.
    pub(super) const fn provider() -> Self {
        Self::from("provider", "`providers`, or `none` if the route has no provider")
    }

    /// Creates the description of the label `reason`. Its values are the codes of all denials, and the values in
    /// `besides`.
    pub(super) fn reason(besides: &[&'static str]) -> Self {
        Self::closed("reason", Denial::ALL.iter().map(|denial| denial.code()).chain(besides.iter().copied()))
    }
}

/// Creates metrics, registers them with Prometheus, and records their descriptions.
pub(super) struct MetricRegistry<'r> {
    registry: &'r Registry,
    made: RefCell<Vec<Series>>,
}

impl<'r> MetricRegistry<'r> {
    pub(super) const fn new(registry: &'r Registry) -> Self {
        Self { registry, made: RefCell::new(Vec::new()) }
    }

    /// Returns the descriptions of all metrics, sorted by name. Sets `from_start` to true for each metric that already
    /// has time series when this function is called. The function must therefore be called directly after all metrics
    /// are created, before any event is counted.
    pub(super) fn described(self) -> Vec<Series> {
        let there = self.registry.gather();
        let mut made = self.made.into_inner();
        for series in &mut made {
            series.from_start = there.iter().any(|family| family.name() == series.name);
        }
        made.sort_by(|one, other| one.name.cmp(&other.name));
        made
    }

    /// Registers a metric and records its description. All functions that create a metric call this function. Returns
    /// an error if a label of the metric is not in `labels`, so that the description contains every label.
    fn register<C: Collector + Clone + 'static>(
        &self,
        made: prometheus::Result<C>,
        labels: &[Label],
        buckets: &[f64],
    ) -> prometheus::Result<C> {
        let made = made?;
        self.registry.register(Box::new(made.clone()))?;
        for (desc, family) in made.desc().into_iter().zip(made.collect()) {
            let known = |name: &String| labels.iter().find(|label| label.name == name).cloned();
            let said: Vec<_> = desc.variable_labels.iter().filter_map(known).collect();
            if said.len() != desc.variable_labels.len() {
                return Err(Error::Msg(format!("a label of {} is not described", desc.fq_name)));
            }
            self.made.borrow_mut().push(Series {
                name: desc.fq_name.clone(),
                kind: kind(family.get_field_type()),
                labels: said,
                help: desc.help.clone(),
                buckets: buckets.to_vec(),
                from_start: false,
            });
        }
        Ok(made)
    }

    pub(super) fn counter(&self, name: &str, help: &str) -> prometheus::Result<IntCounter> {
        self.register(IntCounter::new(name, help), &[], &[])
    }

    /// Creates a counter with labels. If all labels have fixed values, all time series are created at once with the
    /// value 0. An alert can then detect even the first event, as an increase from 0.
    pub(super) fn counters(
        &self,
        name: &str,
        help: &str,
        labels: &[Label],
    ) -> prometheus::Result<IntCounterVec> {
        let made = IntCounterVec::new(Opts::new(name, help), &names(labels));
        let counters = self.register(made, labels, &[])?;
        for values in combinations(labels) {
            counters.with_label_values(&values);
        }
        Ok(counters)
    }

    /// Creates a counter of seconds. The value can have a fraction. The time series of the counter is created when its
    /// first value is set.
    pub(super) fn seconds(&self, name: &str, help: &str) -> prometheus::Result<CounterVec> {
        self.register(CounterVec::new(Opts::new(name, help), &[]), &[], &[])
    }

    pub(super) fn gauge(&self, name: &str, help: &str) -> prometheus::Result<IntGauge> {
        self.register(IntGauge::new(name, help), &[], &[])
    }

    pub(super) fn gauges(&self, name: &str, help: &str, labels: &[Label]) -> prometheus::Result<IntGaugeVec> {
        self.register(IntGaugeVec::new(Opts::new(name, help), &names(labels)), labels, &[])
    }

    /// Creates a gauge with labels for times in seconds. A value can have a fraction.
    pub(super) fn ages(&self, name: &str, help: &str, labels: &[Label]) -> prometheus::Result<GaugeVec> {
        self.register(GaugeVec::new(Opts::new(name, help), &names(labels)), labels, &[])
    }

    pub(super) fn histogram(&self, name: &str, help: &str, buckets: &[f64]) -> prometheus::Result<Histogram> {
        let opts = HistogramOpts::new(name, help).buckets(buckets.to_vec());
        self.register(Histogram::with_opts(opts), &[], buckets)
    }

    pub(super) fn histograms(
        &self,
        name: &str,
        help: &str,
        buckets: &[f64],
        labels: &[Label],
    ) -> prometheus::Result<HistogramVec> {
        let opts = HistogramOpts::new(name, help).buckets(buckets.to_vec());
        self.register(HistogramVec::new(opts, &names(labels)), labels, buckets)
    }
}

fn names(labels: &[Label]) -> Vec<&'static str> {
    labels.iter().map(|label| label.name).collect()
}

const fn kind(kind: MetricType) -> &'static str {
    match kind {
        MetricType::COUNTER => "counter",
        MetricType::GAUGE => "gauge",
        MetricType::HISTOGRAM => "histogram",
        MetricType::SUMMARY => "summary",
        MetricType::UNTYPED => "untyped",
    }
}

/// Returns every combination of label values. Returns an empty list if a label has no fixed list of values.
fn combinations(labels: &[Label]) -> Vec<Vec<&'static str>> {
    let mut rows = vec![Vec::new()];
    for label in labels {
        let values = match &label.values {
            Values::Closed(values) => values.as_slice(),
            Values::From(_) => &[],
        };
        let longer = |row: &Vec<&'static str>| {
            let row = row.clone();
            values.iter().map(move |value| row.iter().copied().chain([*value]).collect()).collect::<Vec<_>>()
        };
        rows = rows.iter().flat_map(longer).collect();
    }
    rows
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
mod tests {
    use super::*;
    use crate::observe::Metrics;

    #[test]
    fn a_label_that_nothing_is_said_of_cannot_be_registered() {
        let registry = Registry::new();
        let make = MetricRegistry::new(&registry);
        let counters = IntCounterVec::new(Opts::new("some_total", "Some."), &["route"]);
        assert!(make.register(counters, &[Label::provider()], &[]).is_err());
    }

    #[test]
    fn closed_labels_are_there_from_the_start_in_every_combination() {
        let registry = Registry::new();
        let make = MetricRegistry::new(&registry);
        let labels = [Label::closed("one", ["a", "b"]), Label::closed("other", ["x", "y", "z"])];
        make.counters("closed_total", "All known.", &labels).unwrap();
        make.counters("open_total", "Not.", &[Label::closed("one", ["a"]), Label::route()]).unwrap();
        let families = registry.gather();
        assert_eq!(families.iter().map(|family| family.get_metric().len()).collect::<Vec<_>>(), [6]);
        let described = make.described();
        let told: Vec<_> =
            described.iter().map(|series| (&*series.name, series.kind, series.from_start)).collect();
        assert_eq!(told, [("closed_total", "counter", true), ("open_total", "counter", false)]);
    }

    #[test]
    fn what_may_become_of_an_interaction_is_counted_from_its_beginning() {
        let metrics = Metrics::new().unwrap();
        metrics.oldest([("r", 1.0)].into_iter());
        metrics.fetched("f", true);
        metrics.request("r", "p", "deny", "token_missing", 1);
        metrics.request("r", "p", "observe", "token_missing", 1);
        let page = metrics.text().unwrap();
        for line in [
            "callgate_interactions_ended_total{outcome=\"expired\",route=\"r\"} 0",
            "callgate_notices_total{cause=\"stalled\",outcome=\"given_up\",route=\"r\"} 0",
            "callgate_feed_fetches_total{feed=\"f\",outcome=\"failed\"} 0",
            "callgate_ingress_refusals_total{reason=\"token_missing\"} 1",
            "callgate_ingress_refusals_total{reason=\"token_forged\"} 0",
        ] {
            assert!(page.lines().any(|there| there == line), "{line}\n{page}");
        }
    }
}
