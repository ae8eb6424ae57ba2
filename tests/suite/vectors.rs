//! Published vectors and the ones made with the providers' own libraries, through the configuration a user
//! would write.

use std::fs;

use callgate::config::{Config, Surroundings};
use callgate::request::RequestHead;
use callgate::source::LOOPBACK;
use callgate::time::Timestamp;
use callgate::trail::Trail;
use http::{HeaderMap, HeaderName, HeaderValue};
use serde::Deserialize;

#[derive(Deserialize)]
struct Vector {
    id: String,
    provider: String,
    secret: String,
    method: String,
    headers: std::collections::BTreeMap<String, String>,
    body: String,
    valid: bool,
    #[serde(default)]
    now: Option<i64>,
}

/// The preset that covers a provider: most AI services sign as Standard Webhooks does.
fn preset(provider: &str) -> &str {
    match provider {
        "github" | "slack" | "stripe" => provider,
        _ => "standard-webhooks",
    }
}

fn decide(vector: &Vector, body: &[u8], headers: &HeaderMap) -> Result<(), String> {
    let text = format!(
        "listen: {{ ingress: [ {{ address: 127.0.0.1:0 }} ] }}
agent: {{ address: 127.0.0.1:1 }}
providers: {{ p: {{ preset: {}, secrets: [ {{ env: SECRET }} ] }} }}
routes: [ {{ name: r, path: /webhooks/test, provider: p, forward: /in }} ]
",
        preset(&vector.provider)
    );
    let env = |_: &str| Some(vector.secret.clone());
    let config = Config::parse(&text, &Surroundings { env: &env, file: &|path| fs::read(path) }).unwrap();
    let target = "/webhooks/test";
    let head =
        RequestHead { method: &vector.method, target, headers, peer: LOOPBACK, body_bytes_declared: None };
    let now = Timestamp::from_unix_secs(vector.now.unwrap_or(1_767_225_600));
    let mut trail = Trail::verbose();
    let ingress = &config.policy.ingress;
    let decided = ingress
        .decide_head(&head, now, &mut trail)
        .and_then(|admitted| admitted.decide_body(&head, body, &mut trail));
    decided.map(|_| ()).map_err(|denied| denied.denial.code().to_owned())
}

fn headers(vector: &Vector) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in &vector.headers {
        map.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), value.parse().unwrap());
    }
    map
}

fn vectors() -> Vec<Vector> {
    let text = fs::read_to_string("tests/vectors/providers.json").unwrap();
    serde_json::from_str(&text).unwrap()
}

#[test]
fn every_vector_is_decided_as_it_should() {
    let vectors = vectors();
    assert!(vectors.len() > 30, "{}", vectors.len());
    for vector in &vectors {
        let decided = decide(vector, vector.body.as_bytes(), &headers(vector));
        assert_eq!(decided.is_ok(), vector.valid, "{}: {decided:?}", vector.id);
    }
}

#[test]
fn any_flipped_bit_of_body_or_signature_refuses() {
    for vector in vectors().iter().filter(|vector| vector.valid) {
        for bit in 0..vector.body.len() * 8 {
            let mut body = vector.body.clone().into_bytes();
            body[bit / 8] ^= 1 << (bit % 8);
            assert!(decide(vector, &body, &headers(vector)).is_err(), "{}: body bit {bit}", vector.id);
        }
        for (name, value) in headers(vector).iter().filter(|(name, _)| name.as_str().contains("signature")) {
            // Headers with several signatures stay valid as long as one of them matches.
            if value.as_bytes().contains(&b' ') || value.to_str().unwrap().matches("v1=").count() > 1 {
                continue;
            }
            for bit in 0..value.len() * 8 {
                let mut bytes = value.as_bytes().to_vec();
                bytes[bit / 8] ^= 1 << (bit % 8);
                let Ok(flipped) = HeaderValue::from_bytes(&bytes) else { continue };
                let mut map = headers(vector);
                map.insert(name.clone(), flipped);
                let decided = decide(vector, vector.body.as_bytes(), &map);
                assert!(
                    decided.is_err(),
                    "{}: {name} bit {bit}: {:?}",
                    vector.id,
                    String::from_utf8_lossy(&bytes)
                );
            }
        }
    }
}
