//! Reads the configuration section `traces`: the collector of trace spans, and the fraction of all spans that Callgate
//! records.

use super::yaml::{Cursor, Node};
use crate::guard::{Scheme, Url};

/// The settings for trace spans, which Callgate sends to a collector.
#[derive(Clone, Debug, PartialEq)]
pub struct TraceSettings {
    /// The URL of the collector, which usually ends in `/v1/traces`.
    pub endpoint: Box<str>,
    /// The fraction of all spans that Callgate records, from 0 to 1.
    pub sample: f64,
    /// The service name that the spans contain.
    pub service: Box<str>,
}

/// Reads the configuration section `traces`.
pub(super) fn traces(at: &Cursor<'_>) -> Option<TraceSettings> {
    let mut fields = at.fields()?;
    let endpoint = fields.required("endpoint").and_then(|at| endpoint(&at));
    let sample = fields.optional("sample").map_or(Some(1.0), |at| sample(&at));
    let service = fields.optional("service").map_or(Some("callgate"), |at| at.text());
    fields.finish();
    Some(TraceSettings { endpoint: endpoint?, sample: sample?, service: service?.into() })
}

/// Reads the URL of the collector of trace spans. Only plain HTTP is supported, because collectors run in the same pod
/// or the same cluster.
fn endpoint(at: &Cursor<'_>) -> Option<Box<str>> {
    let text = at.text()?;
    match Url::parse(text) {
        Ok(url) if url.scheme() == Scheme::Http => Some(text.into()),
        _ => at.error("not the URL of a collector", "such as http://127.0.0.1:4318/v1/traces"),
    }
}

fn sample(at: &Cursor<'_>) -> Option<f64> {
    let part = match at.node() {
        Node::Number(text) => text.parse().ok().filter(|part| (0.0..=1.0).contains(part)),
        _ => None,
    };
    part.or_else(|| at.error("expected a number from 0 to 1", "such as 0.1"))
}
