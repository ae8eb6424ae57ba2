//! Traces: the spans that a collector receives, decoded with the types of OpenTelemetry, and the `traceparent` that
//! Callgate sends on.

use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};

use callgate::clock::Clock;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value::Value};
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;

use crate::harness::{ANSWER, Agent, Callgate, converse, open_config};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const PARENT: &str = "b7ad6b7169203331";

/// A collector that receives OTLP over HTTP.
struct Collector {
    address: SocketAddr,
    received: Arc<Mutex<Vec<crate::harness::Received>>>,
}

impl Collector {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let collector = Self { address: listener.local_addr().unwrap(), received: Arc::default() };
        let received = Arc::clone(&collector.received);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                converse(stream, &received, || {
                    b"HTTP/1.1 200 OK\r\ncontent-type: application/x-protobuf\r\ncontent-length: 0\r\n\r\n"
                        .to_vec()
                });
            }
        });
        collector
    }

    /// Returns all received spans, and the attributes of the service.
    fn spans(&self) -> (Vec<Span>, Vec<KeyValue>) {
        let (mut spans, mut resource) = (Vec::new(), Vec::new());
        for request in self.received.lock().unwrap().iter() {
            assert_eq!(request.target(), "/v1/traces");
            let batch = ExportTraceServiceRequest::decode(request.body.as_slice()).unwrap();
            for one in batch.resource_spans {
                resource = one.resource.unwrap().attributes;
                spans.extend(one.scope_spans.into_iter().flat_map(|scope| scope.spans));
            }
        }
        (spans, resource)
    }
}

fn text<'k>(attributes: &'k [KeyValue], key: &str) -> Option<&'k str> {
    let value = &attributes.iter().find(|attribute| attribute.key == key)?.value.as_ref()?.value;
    match value {
        Some(Value::StringValue(text)) => Some(text),
        _ => None,
    }
}

fn hex(bytes: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(bytes)
}

fn ask(callgate: &Callgate, path: &str, trace: &str) -> u16 {
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer eyJhbGciOi.secret.token\r\nTraceparent: 00-{trace}-{PARENT}-01\r\nTracestate: a=b\r\n\r\n"
    );
    callgate.send(request.as_bytes()).status
}

#[test]
fn a_span_for_each_request_with_its_checks() {
    let (agent, collector) = (Agent::start(ANSWER), Collector::start());
    let traces =
        format!("traces: {{ endpoint: \"http://{}/v1/traces\", service: gate }}\n", collector.address);
    let config = format!("{traces}{}", open_config(&agent.address.to_string()));
    let callgate = Callgate::start(&config, Clock::System);
    assert_eq!([ask(&callgate, "/open/x?secret=1", TRACE), ask(&callgate, "/open/..%2f", TRACE)], [200, 400]);
    assert_eq!(ask(&callgate, "/open/y", "no trace at all"), 200);
    // The request to the agent has Callgate's span as its parent, and the trace id of the caller.
    let received = agent.received();
    let [onward] = received[0].header("traceparent")[..] else { panic!("{}", received[0].head) };
    let parts: Vec<_> = onward.split('-').collect();
    assert_eq!((parts[1], parts[3]), (TRACE, "01"));
    assert_ne!(parts[2], PARENT);
    let ours = parts[2].to_owned();
    // Stopping Callgate sends the remaining spans.
    drop(callgate);
    let (spans, resource) = collector.spans();
    assert_eq!((spans.len(), text(&resource, "service.name")), (3, Some("gate")));
    let delivered = spans.iter().find(|span| hex(&span.span_id) == ours).unwrap();
    assert_eq!((hex(&delivered.trace_id), hex(&delivered.parent_span_id)), (TRACE.into(), PARENT.into()));
    assert_eq!(text(&delivered.attributes, "callgate.route"), Some("open"));
    assert_eq!(text(&delivered.attributes, "callgate.verdict"), Some("allow"));
    let checks: Vec<_> = delivered.events.iter().map(|event| event.name.as_str()).collect();
    assert!(checks.starts_with(&["path", "route", "method"]), "{checks:?}");
    let refused =
        spans.iter().find(|span| text(&span.attributes, "callgate.verdict") == Some("deny")).unwrap();
    assert_eq!(text(&refused.attributes, "callgate.reason"), Some("path_malformed"));
    let other = spans.iter().find(|span| hex(&span.trace_id) != TRACE).unwrap();
    assert!(other.parent_span_id.is_empty(), "what is no traceparent begins a trace");
    let all = format!("{spans:?}");
    assert!(!all.contains("eyJ") && !all.contains("secret"), "{all}");
}

#[test]
fn what_is_not_sampled_is_not_sent_and_says_so() {
    let (agent, collector) = (Agent::start(ANSWER), Collector::start());
    let traces = format!("traces: {{ endpoint: \"http://{}/v1/traces\", sample: 0 }}\n", collector.address);
    let config = format!("{traces}{}", open_config(&agent.address.to_string()));
    let callgate = Callgate::start(&config, Clock::System);
    assert_eq!(ask(&callgate, "/open/x", TRACE), 200);
    let received = agent.received();
    let onward = received[0].header("traceparent")[0];
    assert!(onward.starts_with(&format!("00-{TRACE}-")) && onward.ends_with("-00"), "{onward}");
    drop(callgate);
    assert!(collector.spans().0.is_empty());
    // Without the `traces` section, the caller's header is passed on unchanged.
    let callgate = Callgate::start(&open_config(&agent.address.to_string()), Clock::System);
    assert_eq!(ask(&callgate, "/open/x", TRACE), 200);
    assert_eq!(agent.received()[1].header("traceparent"), [format!("00-{TRACE}-{PARENT}-01")]);
}

/// A caller chooses its trace id, so the sampling must not depend on this id.
#[test]
fn what_is_recorded_is_not_for_callers_to_choose() {
    let (agent, collector) = (Agent::start(ANSWER), Collector::start());
    let traces = format!("traces: {{ endpoint: \"http://{}/v1/traces\", sample: 0.5 }}\n", collector.address);
    let callgate =
        Callgate::start(&format!("{traces}{}", open_config(&agent.address.to_string())), Clock::System);
    let ids = ["00000000000000000000000000000001", "ffffffffffffffffffffffffffffffff"];
    for _ in 0..64 {
        assert_eq!(ids.map(|id| ask(&callgate, "/open/x", id)), [200, 200]);
    }
    drop(callgate);
    let (spans, _) = collector.spans();
    for id in ids {
        // With a probability of 2^-63, none or all of the spans are recorded.
        let recorded = spans.iter().filter(|span| hex(&span.trace_id) == id).count();
        assert!((1..64).contains(&recorded), "{id}: {recorded}");
    }
}

#[test]
fn the_agents_requests_have_spans_too() {
    let (agent, provider, collector) = (Agent::start(ANSWER), Agent::start(ANSWER), Collector::start());
    let config = format!(
        "traces: {{ endpoint: \"http://{}/v1/traces\" }}\n{}",
        collector.address,
        open_config(&agent.address.to_string())
    )
    .replacen("admin:", "egress: { address: 127.0.0.1:0 }, admin:", 1)
        + &format!("egress:\n  - {{ name: e, path: /e, target: \"http://{}/e\" }}\n", provider.address);
    let callgate = Callgate::start(&config, Clock::System);
    let header = format!("00-{TRACE}-{PARENT}-01");
    let answer = crate::harness::send_to(
        callgate.egress.unwrap(),
        "POST",
        "/e",
        &[("traceparent", &header), ("content-type", "application/json")],
        b"{}",
    );
    assert_eq!(answer.status, 200);
    let onward = provider.received()[0].header("traceparent")[0].to_owned();
    assert!(onward.starts_with(&format!("00-{TRACE}-")) && !onward.contains(PARENT), "{onward}");
    drop(callgate);
    let (spans, _) = collector.spans();
    assert_eq!(text(&spans[0].attributes, "callgate.rule"), Some("e"));
    assert_eq!(hex(&spans[0].parent_span_id), PARENT);
}

#[test]
fn a_collector_that_is_not_there_holds_nobody_up() {
    let agent = Agent::start(ANSWER);
    let config = format!(
        "traces: {{ endpoint: \"http://127.0.0.1:9/v1/traces\" }}\n{}",
        open_config(&agent.address.to_string())
    );
    let callgate = Callgate::start(&config, Clock::System);
    for _ in 0..50 {
        assert_eq!(ask(&callgate, "/open/x", TRACE), 200);
    }
    let began = callgate::clock::instant();
    drop(callgate);
    assert!(began.elapsed() < std::time::Duration::from_secs(10));
}
