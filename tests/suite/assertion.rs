//! Assertions: the proof to the agent that a request came through Callgate. No other party can create one.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use callgate::clock::Clock;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::harness::{ANSWER, Agent, Callgate, Received, env, send_to};

const START: i64 = 1_767_225_600;

/// A configuration with two routes. The second route adds no assertion.
fn config(agent: &str, key: &str) -> String {
    format!(
        "public_url: https://agent.example.com
listen: {{ ingress: [ {{ address: 127.0.0.1:0 }} ], admin: {{ address: 127.0.0.1:0 }} }}
agent: {{ address: \"{agent}\" }}
assertion: {{ ttl: 30s, key: {{ id: a1, {key} }} }}
callback_tokens: {{ ttl: 2h, keys: [ {{ id: k1, algorithm: HS256, secret: {{ env: TOKEN_KEY }} }} ] }}
providers: {{ p: {{ preset: runpod }} }}
routes:
  - {{ name: doc, path: \"/doc/{{id}}\", provider: p, token: {{ kind: callback, from: [query] }}, forward: \"/in/{{id}}\",
      interaction: {{ deadline: 1h, notify: \"/overdue/{{id}}\" }} }}
  - {{ name: plain, path: \"/plain/{{id}}\", open: true, forward: \"/plain/{{id}}\", assertion: false }}
"
    )
}

const SHARED: &str = "algorithm: HS256, secret: { env: FOREIGN_KEY }";

/// Decodes the only assertion of a request with another library, and returns its header and claims.
fn assertion(message: &Received, algorithm: Algorithm, key: &DecodingKey) -> (jsonwebtoken::Header, Value) {
    let [token] = *message.header("callgate-assertion") else { panic!("{}", message.head) };
    let mut rules = Validation::new(algorithm);
    rules.validate_exp = false; // Callgate's clock is set by hand; the times are compared below.
    rules.set_audience(&["https://agent.example.com"]);
    rules.set_issuer(&["callgate"]);
    let read = jsonwebtoken::decode::<Value>(token, key, &rules).unwrap();
    (read.header, read.claims)
}

fn hash(body: &[u8]) -> String {
    Sha256::digest(body).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn the_agent_is_told_what_came_through_here() {
    let agent = Agent::start(ANSWER);
    let now = Arc::new(AtomicI64::new(START * 1000));
    let callgate = Callgate::start(&config(&agent.address.to_string(), SHARED), Clock::Set(Arc::clone(&now)));
    let mint = json!({ "route": "doc", "params": { "id": "a" } }).to_string();
    let minted = callgate.admin_send("POST", "/callbacks", &mint).json();
    let key = DecodingKey::from_secret(env("FOREIGN_KEY").unwrap().as_bytes());
    let target = minted["callback_url"].as_str().unwrap().strip_prefix("https://agent.example.com").unwrap();

    // A caller's own assertion header is removed, whatever the verdict is.
    let forged = [("callgate-assertion", "forged"), ("callgate_assertion", "forged")];
    let bodies: [&[u8]; 2] = [b"{\"n\": 1}", b""];
    for body in bodies {
        let response = send_to(callgate.ingress, "POST", &format!("{target}&b=2&a=%31"), &forged, body);
        assert_eq!(response.status, 200);
        let message = agent.received().pop().unwrap();
        assert_eq!(message.body, body);
        assert!(!message.head.contains("forged"), "{}", message.head);
        let (header, mut claims) = assertion(&message, Algorithm::HS256, &key);
        assert_eq!((header.typ.as_deref(), header.kid.as_deref()), (Some("assertion+jwt"), Some("a1")));
        let logged = callgate.log().pop().unwrap();
        let jti = claims.as_object_mut().unwrap().remove("jti").unwrap();
        assert_eq!(logged["request_id"], jti, "{logged}");
        let expected = json!({
            "iss": "callgate", "aud": "https://agent.example.com", "iat": START, "exp": START + 30,
            "method": "POST", "target": message.target(), "body_sha256": hash(body),
            "route": "doc", "provider": "p", "sub": minted["interaction"], "content": "untrusted",
        });
        assert_eq!(claims, expected);
        assert_eq!(message.target(), "/in/a?b=2&a=%31");
    }

    let response = send_to(callgate.ingress, "POST", "/plain/a", &forged, b"{}");
    assert_eq!(response.status, 200);
    assert_eq!(agent.received().pop().unwrap().header("callgate-assertion"), [""; 0]);

    now.fetch_add(3_600_000, Ordering::SeqCst);
    let notice = agent.wait_for(4).pop().unwrap();
    let (_, claims) = assertion(&notice, Algorithm::HS256, &key);
    assert_eq!((&claims["target"], &claims["sub"]), (&json!("/overdue/a"), &minted["interaction"]));
    assert_eq!(claims["notice"], notice.header("callgate-notice")[0]);
    assert_eq!((&claims["iat"], &claims["body_sha256"]), (&json!(START + 3600), &json!(hash(&notice.body))));
}

fn openssl(arguments: &[&str]) {
    let made = Command::new("openssl").args(arguments).output().expect("openssl is needed for this test");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
}

/// Creates a private key and its public key as files.
fn key_pair(folder: &Path, name: &str, arguments: &[&str]) -> (String, Vec<u8>) {
    let private = folder.join(name).display().to_string();
    let public = format!("{private}.pub");
    openssl(&[&["genpkey", "-out", &private], arguments].concat());
    openssl(&["pkey", "-in", &private, "-pubout", "-out", &public]);
    (private, std::fs::read(public).unwrap())
}

#[test]
fn a_key_that_the_agent_has_not_signs_as_well() {
    let folder = tempfile::tempdir().unwrap();
    let pair = |name: &str, arguments: &[&str]| key_pair(folder.path(), name, arguments);
    let p256 = pair("p256", &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"]);
    let p384 = pair("p384", &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-384"]);
    let ed25519 = pair("ed25519", &["-algorithm", "ed25519"]);
    let rsa = pair("rsa", &["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"]);
    let rows = [
        (Algorithm::ES256, &p256, DecodingKey::from_ec_pem(&p256.1)),
        (Algorithm::ES384, &p384, DecodingKey::from_ec_pem(&p384.1)),
        (Algorithm::EdDSA, &ed25519, DecodingKey::from_ed_pem(&ed25519.1)),
        (Algorithm::RS256, &rsa, DecodingKey::from_rsa_pem(&rsa.1)),
        (Algorithm::PS384, &rsa, DecodingKey::from_rsa_pem(&rsa.1)),
    ];
    let agent = Agent::start(ANSWER);
    for (algorithm, (private, _), public) in rows {
        let key = format!("algorithm: {algorithm:?}, private_key: {{ file: {private} }}");
        let text = config(&agent.address.to_string(), &key).replace(", assertion: false", "");
        let callgate = Callgate::start(&text, Clock::System);
        assert_eq!(send_to(callgate.ingress, "POST", "/plain/b?x", &[], b"text").status, 200);
        let message = agent.received().pop().unwrap();
        let (_, claims) = assertion(&message, algorithm, &public.unwrap());
        assert_eq!(
            (&claims["target"], &claims["body_sha256"]),
            (&json!("/plain/b?x"), &json!(hash(b"text")))
        );
    }
}
