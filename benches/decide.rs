//! Measures nanoseconds and allocations per decision of the core: the client address against 100 and 10,000 networks, a
//! bound token, an HMAC over bodies of several sizes, 10 and 1,000 routes.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::unwrap_used,
    missing_docs,
    reason = "a benchmark that cannot go on fails"
)]

use std::alloc::System;
use std::fmt::Write;
use std::hint::black_box;

use callgate::config::{Config, Surroundings};
use callgate::policy::{MintRequest, Policy};
use callgate::request::RequestHead;
use callgate::signature::SignatureContext;
use callgate::source::LOOPBACK;
use callgate::time::Timestamp;
use callgate::trail::Trail;
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use http::HeaderMap;
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

fn policy(routes: usize, networks: usize) -> Policy {
    let mut text = "public_url: https://agent.example.com
listen: { ingress: [ { address: 127.0.0.1:0 } ] }
agent: { address: 127.0.0.1:1 }
callback_tokens: { keys: [ { id: k1, algorithm: HS256, secret: { env: KEY } } ] }
providers:
  p:
    signature: { scheme: standard-webhooks, secrets: [ { env: KEY } ] }
    allow: [127.0.0.1"
        .to_owned();
    for i in 1..networks {
        write!(text, ", 10.{}.{}.0/25", i / 256, i % 256).unwrap();
    }
    text.push_str("]\nroutes:\n");
    for i in 0..routes {
        writeln!(
            text,
            "  - {{ name: r{i}, path: \"/webhooks/kind-{i}/{{id}}\", provider: p, token: {{ kind: callback }}, forward: \"/in/{{id}}/status\" }}"
        )
        .unwrap();
    }
    let env = |_: &str| Some("0123456789abcdef0123456789abcdef".to_owned());
    let surroundings = Surroundings { env: &env, file: &|path| std::fs::read(path) };
    Config::parse(&text, &surroundings).unwrap().policy
}

struct Prepared {
    policy: Policy,
    headers: HeaderMap,
    body: Vec<u8>,
    now: Timestamp,
}

impl Prepared {
    fn new(routes: usize, networks: usize, body_bytes: usize) -> Self {
        let policy = policy(routes, networks);
        let now = Timestamp::from_unix_secs(1_767_225_600);
        let token = policy
            .mint(
                &MintRequest { route: "r0", parameters: &[("id", "doc-1")], ttl: None, uses: None },
                "int_1",
                now,
            )
            .unwrap()
            .callback_token;
        let mut headers = HeaderMap::new();
        headers.insert("authorization", format!("Bearer {token}").parse().unwrap());
        headers.insert("content-type", "application/json".parse().unwrap());
        headers.insert("user-agent", "bench/1".parse().unwrap());
        headers.insert("host", "agent.example.com".parse().unwrap());
        let mut prepared = Self { policy, headers, body: vec![b'x'; body_bytes], now };
        let verifier = prepared.policy.providers[0].verifier.clone().unwrap();
        let signed = SignatureContext::new(prepared.head(), "", now);
        let signature = verifier.sign(&signed, &prepared.body, "evt_1").unwrap();
        for (name, value) in signature.headers {
            prepared.headers.insert(name, value);
        }
        prepared
    }

    fn head(&self) -> RequestHead<'_> {
        let head = RequestHead::new("POST", "/webhooks/kind-0/doc-1", &self.headers, LOOPBACK);
        RequestHead { body_bytes_declared: Some(self.body.len() as u64), ..head }
    }

    fn decide(&self) {
        let mut trail = Trail::timed(callgate::clock::instant(), callgate::clock::instant);
        let head = self.head();
        let admitted = self.policy.ingress.decide_head(&head, self.now, &mut trail).expect("admitted");
        black_box(admitted.decide_body(&head, &self.body, &mut trail).expect("permitted"));
    }
}

fn decisions(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("decide");
    for (routes, networks, body_bytes) in
        [(1, 100, 200), (1_000, 100, 200), (1, 10_000, 200), (1, 100, 4 << 10), (1, 100, 64 << 10)]
    {
        let prepared = Prepared::new(routes, networks, body_bytes);
        let name = format!("{routes} routes, {networks} networks, {body_bytes} B");
        let region = Region::new(ALLOCATOR);
        for _ in 0..1_000 {
            prepared.decide();
        }
        let stats = region.change();
        println!(
            "{name}: {:.1} allocations, {} bytes a decision",
            stats.allocations as f64 / 1e3,
            stats.bytes_allocated / 1000
        );
        group.bench_function(BenchmarkId::from_parameter(name), |bencher| bencher.iter(|| prepared.decide()));
    }
    group.finish();
}

criterion_group!(benches, decisions);
criterion_main!(benches);
