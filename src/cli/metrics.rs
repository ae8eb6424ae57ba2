//! `callgate metrics`: lists every registered metric as text, as JSON, or as the table in `docs/metrics.md`.

use std::io::Write as _;

use clap::Args;
use serde_json::{Value, json};

use super::common::EXIT_UNAVAILABLE;
use crate::denial::Denial;
use crate::observe::{Label, Metrics, Series, Values};

#[derive(Args)]
pub(super) struct MetricsArgs {
    /// Print JSON.
    #[arg(long)]
    json: bool,
    /// Print the Markdown table of docs/metrics.md.
    #[arg(long, conflicts_with = "json")]
    markdown: bool,
}

pub(super) fn metrics(args: &MetricsArgs) -> u8 {
    let metrics = match Metrics::new() {
        Ok(metrics) => metrics,
        Err(error) => {
            eprintln!("error: {error}");
            return EXIT_UNAVAILABLE;
        }
    };
    let all = metrics.described();
    let text = match (args.json, args.markdown) {
        (true, _) => format!("{:#}\n", all.iter().map(described).collect::<Value>()),
        (_, true) => table(all),
        _ => all.iter().map(plain).collect(),
    };
    // A closed pipe is not an error: `callgate metrics | head` reads only the beginning.
    u8::from(
        std::io::stdout()
            .write_all(text.as_bytes())
            .is_err_and(|error| error.kind() != std::io::ErrorKind::BrokenPipe),
    )
}

/// Returns the names of the time series that Prometheus stores for a metric.
fn exposed(series: &Series) -> Vec<String> {
    match series.kind {
        "histogram" => ["_bucket", "_count", "_sum"].map(|end| format!("{}{end}", series.name)).to_vec(),
        _ => vec![series.name.clone()],
    }
}

fn described(series: &Series) -> Value {
    let label = |label: &Label| match &label.values {
        Values::Closed(values) => json!({ "name": label.name, "values": values }),
        Values::From(place) => json!({ "name": label.name, "from": place }),
    };
    json!({
        "name": series.name,
        "type": series.kind,
        "exposed": exposed(series),
        "labels": series.labels.iter().map(label).collect::<Value>(),
        "help": series.help,
        "buckets": series.buckets,
        "from_start": series.from_start,
    })
}

fn plain(series: &Series) -> String {
    let mut text = format!("{} ({})\n    {}\n", series.name, series.kind, series.help);
    for label in &series.labels {
        let values = match &label.values {
            Values::Closed(values) => format!("one of {}", values.join(", ")),
            Values::From(place) => format!("from {}", place.replace('`', "")),
        };
        text.push_str(&format!("    {}: {values}\n", label.name));
    }
    text
}

/// Formats a label of a metric and its values for a cell of the table. If the values include every denial, the cell
/// contains a link to the list of denials instead of their names.
fn cell(label: &Label) -> String {
    let values = match &label.values {
        Values::From(place) => return format!("`{}` from {place}", label.name),
        Values::Closed(values) => values,
    };
    let is_denial = |value: &&'static str| Denial::ALL.iter().any(|denial| denial.code() == *value);
    let all_denials = values.iter().copied().filter(is_denial).count() == Denial::ALL.len();
    let named = values.iter().copied().filter(|value| !(all_denials && is_denial(value)));
    let denials = all_denials.then(|| "a [denial](denials.md)".to_owned());
    let words: Vec<_> = denials.into_iter().chain(named.map(|value| format!("`{value}`"))).collect();
    format!("**`{}`** {}", label.name, words.join(", "))
}

fn table(all: &[Series]) -> String {
    let mut table =
        String::from("| metric | type | labels | from the start | description |\n|---|---|---|---|---|\n");
    for series in all {
        let labels: Vec<_> = series.labels.iter().map(cell).collect();
        let buckets: Vec<_> = series.buckets.iter().map(ToString::to_string).collect();
        let bounds = if buckets.is_empty() {
            String::new()
        } else {
            format!(" Buckets up to {}.", buckets.join(", "))
        };
        table.push_str(&format!(
            "| `{}` | {} | {} | {} | {}{bounds} |\n",
            series.name,
            series.kind,
            labels.join("<br>"),
            if series.from_start { "yes" } else { "" },
            series.help,
        ));
    }
    table
}

/// Returns the Markdown table of all metrics for `docs/metrics.md`.
///
/// # Errors
/// Returns an error if a metric cannot be registered.
pub fn metrics_table() -> prometheus::Result<String> {
    Ok(table(Metrics::new()?.described()))
}
