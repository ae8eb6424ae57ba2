//! Traces: one span per request, sent to a collector by OTLP over HTTP. The checks of an ingress request are events of
//! its span.
//!
//! Traces are off by default. Spans that cannot be sent in time are dropped.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use bytes::Bytes;
use http::{Request, Response};
use opentelemetry::trace::{
    Link, Span as _, SpanContext, SpanId, SpanKind, Status, TraceContextExt as _, TraceFlags, TraceId,
    TraceState, Tracer as _, TracerProvider as _,
};
use opentelemetry::{Context, KeyValue};
use opentelemetry_http::{HttpClient, HttpError};
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{
    SamplingDecision, SamplingResult, SdkTracer, SdkTracerProvider, ShouldSample, Span as SdkSpan,
};

use super::log_entry::{EgressEntry, Entry};
use super::metrics::Metrics;
use super::recent::shortened;
use crate::config::TraceSettings;

/// The timeout for sending a batch of spans to the collector.
const TIMEOUT: Duration = Duration::from_secs(5);
/// The timeout for sending the last batch of spans when the process stops.
const LAST: Duration = Duration::from_secs(2);
/// The maximum size of a response of the trace collector, in bytes.
const ANSWER_BYTES_MAX: u64 = 64 << 10;

/// The number of different 32-bit values. The sampler generates one of these values at random for each span.
const NUMBERS: f64 = 4_294_967_296.0;

/// Creates trace spans and sends them to the collector by OTLP over HTTP.
#[derive(Debug)]
pub struct Traces {
    provider: SdkTracerProvider,
    tracer: SdkTracer,
}

/// The trace span of one request.
#[derive(Debug)]
pub struct Span(SdkSpan);

impl Traces {
    /// Starts the exporter of trace spans. The exporter connects to the collector only when there are spans to send.
    ///
    /// # Errors
    /// Returns the reason as text if the exporter cannot be created.
    pub fn start(settings: &TraceSettings, metrics: Arc<Metrics>) -> Result<Self, String> {
        let agent = ureq::Agent::config_builder()
            .timeout_global(Some(TIMEOUT))
            .max_redirects(0)
            .proxy(None)
            .http_status_as_error(false)
            .build()
            .new_agent();
        let exporter = SpanExporter::builder()
            .with_http()
            .with_http_client(Post { agent, metrics })
            .with_protocol(Protocol::HttpBinary)
            .with_endpoint(&*settings.endpoint)
            .with_timeout(TIMEOUT)
            .build()
            .map_err(|error| format!("traces.endpoint: {error}"))?;
        let resource = Resource::builder_empty()
            .with_service_name(settings.service.to_string())
            .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
            .build();
        let provider = SdkTracerProvider::builder()
            .with_resource(resource)
            .with_sampler(Share(settings.sample))
            .with_batch_exporter(exporter)
            .build();
        let tracer = provider.tracer("callgate");
        Ok(Self { provider, tracer })
    }

    /// Starts the span of a request. `came` is the value of the request header `traceparent`, or `None` if the request
    /// does not have this header.
    pub fn begin(&self, name: &'static str, came: Option<&str>) -> Span {
        let parent = came.and_then(parse).map(|parent| Context::new().with_remote_span_context(parent));
        let builder = self.tracer.span_builder(name).with_kind(SpanKind::Server);
        Span(self.tracer.build_with_context(builder, &parent.unwrap_or_default()))
    }

    /// Sends the remaining spans to the collector. Blocks the thread for up to `LAST`.
    pub fn stop(&self) {
        // Spans that cannot be sent within `LAST` are dropped, so the result is ignored.
        let _ = self.provider.shutdown_with_timeout(LAST);
    }
}

impl Span {
    /// Returns the value of the header `traceparent` for the request to the agent or provider (W3C Trace Context,
    /// section 3.2).
    pub fn traceparent(&self) -> String {
        let context = self.0.span_context();
        format!("00-{}-{}-{:02x}", context.trace_id(), context.span_id(), context.trace_flags().to_u8())
    }

    /// Adds the data of the access-log entry to the span of an ingress request, and ends the span.
    pub fn end(mut self, entry: &Entry<'_>) {
        if !self.0.is_recording() {
            return;
        }
        self.told(entry.method, entry.path, entry.status, entry.verdict, entry.reason);
        self.0.set_attributes([
            KeyValue::new("callgate.route", entry.route.to_owned()),
            KeyValue::new("callgate.provider", entry.provider.to_owned()),
            KeyValue::new("callgate.agent", entry.agent.unwrap_or("none").to_owned()),
            KeyValue::new("callgate.request_id", entry.request_id.to_owned()),
            KeyValue::new("network.peer.address", entry.peer.to_string()),
        ]);
        if let Some(client) = entry.client {
            self.0.set_attribute(KeyValue::new("client.address", client.to_string()));
        }
        self.interaction(entry.interaction);
        let ended = SystemTime::from(entry.time);
        let began = ended.checked_sub(Duration::from_micros(entry.duration_us)).unwrap_or(ended);
        let mut at = began;
        for step in entry.trail.steps() {
            at += Duration::from_nanos(step.nanos.map_or(0, u64::from));
            let outcome = KeyValue::new("outcome", step.outcome.name());
            self.0.add_event_with_timestamp(step.check.name(), at, vec![outcome]);
        }
        self.0.end();
    }

    /// Adds the data of the access-log entry to the span of an egress request, and ends the span.
    pub fn end_egress(mut self, entry: &EgressEntry<'_>) {
        self.told(entry.method, entry.path, entry.status, entry.verdict, entry.reason);
        self.0.set_attribute(KeyValue::new("callgate.rule", entry.rule.to_owned()));
        self.interaction(entry.interaction);
        self.0.end();
    }

    fn told(&mut self, method: &str, path: &str, status: u16, verdict: &'static str, reason: &'static str) {
        self.0.set_attributes([
            KeyValue::new("http.request.method", method.to_owned()),
            KeyValue::new("url.path", shortened(path).to_owned()),
            KeyValue::new("http.response.status_code", i64::from(status)),
            KeyValue::new("callgate.verdict", verdict),
            KeyValue::new("callgate.reason", reason),
        ]);
        if verdict == "fail" {
            self.0.set_status(Status::error(reason));
        }
    }

    fn interaction(&mut self, interaction: Option<&str>) {
        if let Some(interaction) = interaction {
            self.0.set_attribute(KeyValue::new("callgate.interaction", interaction.to_owned()));
        }
    }
}

/// A sampler that records a random fraction of the spans. The field is the fraction, from 0 to 1. The sampler ignores
/// the trace id and the sampled flag from the caller, because a caller must not choose whether Callgate records a span.
#[derive(Clone, Debug)]
struct Share(f64);

impl Share {
    fn has(&self, drawn: u32) -> bool {
        f64::from(drawn) < self.0 * NUMBERS
    }
}

impl ShouldSample for Share {
    fn should_sample(
        &self,
        _: Option<&Context>,
        _: TraceId,
        _: &str,
        _: &SpanKind,
        _: &[KeyValue],
        _: &[Link],
    ) -> SamplingResult {
        // If the random number generator fails, the span is recorded only if the fraction is 1.
        let decision = match self.has(getrandom::u32().unwrap_or(u32::MAX)) {
            true => SamplingDecision::RecordAndSample,
            false => SamplingDecision::Drop,
        };
        SamplingResult { decision, attributes: Vec::new(), trace_state: TraceState::default() }
    }
}

/// Parses the header `traceparent`. Returns `None` if it is not valid. The request then starts a new trace.
fn parse(text: &str) -> Option<SpanContext> {
    let mut parts = text.split('-');
    let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let hex =
        |part: &str, len| part.len() == len && part.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    let known = hex(version, 2) && version != "ff" && (version != "00" || parts.next().is_none());
    if !known || !hex(trace, 32) || !hex(span, 16) || !hex(flags, 2) {
        return None;
    }
    let (trace, span) = (TraceId::from_hex(trace).ok()?, SpanId::from_hex(span).ok()?);
    let flags = TraceFlags::new(u8::from_str_radix(flags, 16).ok()?) & TraceFlags::SAMPLED;
    let context = SpanContext::new(trace, span, flags, true, TraceState::default());
    context.is_valid().then_some(context)
}

/// The HTTP client that sends batches of trace spans to the collector.
#[derive(Debug)]
struct Post {
    agent: ureq::Agent,
    metrics: Arc<Metrics>,
}

#[async_trait]
impl HttpClient for Post {
    // Blocking is allowed here, because the exporter runs on a thread of its own.
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let (head, body) = request.into_parts();
        let sent = self.agent.run(Request::from_parts(head, body.to_vec()));
        let answered = sent.and_then(|mut response| {
            let status = response.status();
            let body = response.body_mut().with_config().limit(ANSWER_BYTES_MAX).read_to_vec()?;
            Ok((status, body))
        });
        self.metrics.traces_sent(answered.as_ref().is_ok_and(|(status, _)| status.is_success()));
        let (status, body) = answered?;
        Ok(Response::builder().status(status).body(body.into())?)
    }
}

#[cfg(test)]
mod tests {
    use super::{Share, parse};

    #[test]
    fn a_share_is_of_every_number_there_is() {
        let (none, half, all) = (Share(0.0), Share(0.5), Share(1.0));
        for drawn in [0, 1, u32::MAX / 2, u32::MAX / 2 + 1, u32::MAX] {
            assert_eq!(
                [none.has(drawn), half.has(drawn), all.has(drawn)],
                [false, drawn <= u32::MAX / 2, true]
            );
        }
    }

    #[test]
    fn what_is_a_traceparent() {
        let (trace, span) = ("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331");
        let good = format!("00-{trace}-{span}-01");
        assert!(parse(&good).is_some_and(|context| context.is_sampled() && context.is_remote()));
        assert!(parse(&format!("cc-{trace}-{span}-01-more")).is_some());
        for bad in [
            String::new(),
            format!("00-{trace}-{span}"),
            format!("00-{trace}-{span}-01-more"),
            format!("ff-{trace}-{span}-01"),
            format!("00-{}-{span}-01", "0".repeat(32)),
            format!("00-{trace}-{}-01", "0".repeat(16)),
            good.to_uppercase(),
            good.replace("af", "zz"),
        ] {
            assert!(parse(&bad).is_none(), "{bad}");
        }
    }
}
