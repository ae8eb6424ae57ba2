//! Forged and malformed JWTs under four algorithms. The genuine token of each algorithm is accepted. Every token that
//! differs in its contents or its signature is denied.

use std::collections::BTreeMap;

use callgate::ingress::TokenRule;
use callgate::policy::Policy;
use callgate::request::RequestHead;
use callgate::source::LOOPBACK;
use callgate::time::Timestamp;
use callgate::trail::Trail;
use data_encoding::BASE64URL_NOPAD;
use http::{HeaderMap, HeaderValue};
use jsonwebtoken::{Algorithm, EncodingKey, crypto};

use crate::attack_jwt_claims::claims;
use crate::attack_jwt_headers::headers;
use crate::attack_jwt_spellings::{signatures, spellings};
use crate::harness::parse;

pub const NOW: i64 = 1_767_225_600;
pub const ID: &str = "doc-7f3a";
pub const SHARED: &str = "the key of somebody else's issuer";
pub const ISSUER: &str = "https://issuer.example.com";

/// An algorithm with its key and with a second key of the same type.
pub struct Signer {
    pub name: &'static str,
    pub algorithm: Algorithm,
    pub key: EncodingKey,
    pub other: EncodingKey,
}

fn pem(file: &str) -> Vec<u8> {
    std::fs::read(format!("tests/corpora/jwt/{file}")).unwrap()
}

pub fn signers() -> [Signer; 4] {
    let signer = |name, algorithm, key, other| Signer { name, algorithm, key, other };
    let rsa = |file| EncodingKey::from_rsa_pem(&pem(file)).unwrap();
    let ec = |file| EncodingKey::from_ec_pem(&pem(file)).unwrap();
    let ed = |file| EncodingKey::from_ed_pem(&pem(file)).unwrap();
    let shared = |text: &str| EncodingKey::from_secret(text.as_bytes());
    [
        signer("HS256", Algorithm::HS256, shared(SHARED), shared("another key of thirty-two bytes!")),
        signer("RS256", Algorithm::RS256, rsa("rsa.pem"), rsa("other-rsa.pem")),
        signer("ES256", Algorithm::ES256, ec("ec.pem"), ec("other-ec.pem")),
        signer("EdDSA", Algorithm::EdDSA, ed("ed.pem"), ed("other-ed.pem")),
    ]
}

pub fn b64(bytes: impl AsRef<[u8]>) -> String {
    BASE64URL_NOPAD.encode(bytes.as_ref())
}

pub fn sign(signed: &str, key: &EncodingKey, algorithm: Algorithm) -> String {
    crypto::sign(signed.as_bytes(), key, algorithm).unwrap()
}

impl Signer {
    /// Returns the header of a genuine token.
    pub fn header(&self) -> String {
        format!(r#"{{"alg":"{0}","typ":"JWT","kid":"{0}"}}"#, self.name)
    }

    /// Returns the claims of a genuine token. They are valid only for the route of this algorithm.
    pub fn claims(&self) -> String {
        format!(
            r#"{{"iss":"{ISSUER}","aud":"{}","sub":"{ID}","scope":"x","exp":{},"nbf":{NOW},"iat":{NOW}}}"#,
            self.name,
            NOW + 60
        )
    }

    /// Returns a token with any header and claims, and with a correct signature.
    pub fn token(&self, header: &str, claims: &str) -> String {
        self.seal(&format!("{}.{}", b64(header), b64(claims)))
    }

    /// Returns a token whose two parts are signed as they are.
    pub fn seal(&self, signed: &str) -> String {
        format!("{signed}.{}", sign(signed, &self.key, self.algorithm))
    }

    pub fn genuine(&self) -> String {
        self.token(&self.header(), &self.claims())
    }
}

/// Returns a policy with one route per algorithm, each with its key, and one route that accepts all the keys.
fn policy() -> Policy {
    let mut text =
        "listen: { ingress: [ { address: 127.0.0.1:0 } ] }\nagent: { address: 127.0.0.1:1 }\nroutes:\n"
            .to_owned();
    let keys = [
        ("HS256", "secret: { env: JWT_KEY }".to_owned()),
        ("RS256", "public_key: { file: tests/corpora/jwt/rsa.pub.pem }".to_owned()),
        ("ES256", "public_key: { file: tests/corpora/jwt/ec.pub.pem }".to_owned()),
        ("EdDSA", "public_key: { file: tests/corpora/jwt/ed.pub.pem }".to_owned()),
    ];
    let key = |(name, material): &(&str, String)| format!("{{ id: {name}, algorithm: {name}, {material} }}");
    let mut route = |name: &str, keys: &[String]| {
        text.push_str(&format!(
            "  - {{ name: {0}, path: \"/{1}/{{id}}\", forward: \"/in/{{id}}\", token: {{ kind: jwt, keys: [ {2} ], \
             issuer: \"{ISSUER}\", audience: {1}, required: [ scope ], bind: {{ id: sub }} }} }}\n",
            name.to_lowercase(),
            name,
            keys.join(", ")
        ));
    };
    for one in &keys {
        route(one.0, &[key(one)]);
    }
    route("all", &keys.iter().map(key).collect::<Vec<_>>());
    parse(&text).policy
}

/// Reports whether a route accepts a token: by itself, and as part of a request if it can be written into a header.
fn accepts(policy: &Policy, route: &str, token: &str) -> bool {
    let Some(TokenRule::Jwt { verifier, .. }) = &policy.route(&route.to_lowercase()).unwrap().token else {
        panic!("{route}")
    };
    let now = Timestamp::from_unix_secs(NOW);
    let alone = verifier.verify(token, |name| (name == "id").then_some(ID), now).is_ok();
    let Ok(value) = HeaderValue::from_bytes(format!("Bearer {token}").as_bytes()) else { return alone };
    let mut headers = HeaderMap::new();
    headers.insert("authorization", value);
    let target = format!("/{route}/{ID}");
    let head = RequestHead::new("POST", &target, &headers, LOOPBACK);
    let admitted = policy.ingress.decide_head(&head, now, &mut Trail::verbose()).is_ok();
    // Spaces before the token are part of the header, not of the token.
    assert!(admitted == alone || token.starts_with(' '), "{route}: {token:?}");
    admitted || alone
}

/// The attacks by name. Each name occurs once.
pub type Attacks = BTreeMap<String, String>;

fn attacks(signer: &Signer) -> Attacks {
    let mut attacks = Attacks::new();
    headers(signer, &mut attacks);
    claims(signer, &mut attacks);
    signatures(signer, &mut attacks);
    spellings(signer, &mut attacks);
    attacks
}

#[test]
fn no_token_but_the_genuine_one_is_accepted() {
    let policy = policy();
    let signers = signers();
    let (mut count, mut wrong) = (0, Vec::new());
    for signer in &signers {
        assert!(accepts(&policy, signer.name, &signer.genuine()), "{}: the genuine token", signer.name);
        let attacks = attacks(signer);
        println!("{}: {} attacks", signer.name, attacks.len());
        // Every token is tried twice: the result must not depend on a token that was verified before.
        for _ in 0..2 {
            for (name, token) in &attacks {
                if accepts(&policy, signer.name, token) {
                    wrong.push(format!("{}: {name}: {token:.300}", signer.name));
                }
            }
            assert!(accepts(&policy, signer.name, &signer.genuine()));
        }
        count += attacks.len();
        for other in signers.iter().filter(|other| other.name != signer.name) {
            count += 1;
            assert!(!accepts(&policy, other.name, &signer.genuine()), "{} at {}", signer.name, other.name);
        }
    }
    println!("{count} token attacks, {} wrong accepts", wrong.len());
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(count >= 1_400, "only {count} attacks");
}

/// If a route accepts several keys, a token is still verified only with the key that it names, or with the key of its
/// algorithm.
#[test]
fn several_keys_side_by_side_let_nothing_more_in() {
    let policy = policy();
    let signers = signers();
    let mut count = 0;
    for signer in &signers {
        let claims = signer.claims().replace(&format!(r#""aud":"{}""#, signer.name), r#""aud":"all""#);
        let header = |alg: &str, kid: &str| format!(r#"{{"alg":"{alg}","kid":"{kid}"}}"#);
        assert!(accepts(&policy, "all", &signer.token(&signer.header(), &claims)), "{}", signer.name);
        assert!(accepts(&policy, "all", &signer.token(&format!(r#"{{"alg":"{}"}}"#, signer.name), &claims)));
        assert!(!accepts(&policy, "all", &signer.genuine()), "another audience");
        for other in signers.iter().filter(|other| other.name != signer.name) {
            for header in [
                header(signer.name, other.name),
                header(other.name, signer.name),
                header(other.name, other.name),
                format!(r#"{{"alg":"{}"}}"#, other.name),
            ] {
                count += 1;
                assert!(
                    !accepts(&policy, "all", &signer.token(&header, &claims)),
                    "{}: {header}",
                    signer.name
                );
            }
        }
    }
    println!("{count} crossings of keys, none accepted");
    assert!(count >= 48);
}

/// Valid variants of a genuine token are accepted. Otherwise the attacks could fail for an unrelated reason.
#[test]
fn the_same_token_in_other_words_is_accepted() {
    let policy = policy();
    for signer in &signers() {
        let header = signer.header();
        let claims = signer.claims();
        for (header, claims) in [
            (header.replace(r#","typ":"JWT""#, ""), claims.clone()),
            (header.replace("JWT", "jwt"), claims.clone()),
            (header.replace("JWT", "application/jwt"), claims.clone()),
            (header.replace(&format!(r#","kid":"{}""#, signer.name), ""), claims.clone()),
            (header.replace(':', " : "), claims.replace(',', " ,\n")),
            (header.replace('}', r#","cty":"x"}"#), claims.replace('}', r#","more":{"a":[1]}}"#)),
            (
                header.clone(),
                claims.replace(
                    &format!(r#""aud":"{}""#, signer.name),
                    &format!(r#""aud":["x","{}"]"#, signer.name),
                ),
            ),
            (header.clone(), claims.replace(&format!(r#","nbf":{NOW},"iat":{NOW}"#), "")),
            (header.clone(), claims.replace(&format!("{}", NOW + 60), &format!("{}.5", NOW))),
        ] {
            assert!(accepts(&policy, signer.name, &signer.token(&header, &claims)), "{header} {claims}");
        }
    }
}
