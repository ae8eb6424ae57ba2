//! Forged and misshapen JWTs under four algorithms. A genuine token of each is accepted; nothing that differs from
//! it in what it says, or in how it is signed, is.

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

/// An algorithm, its key, and another key of its kind.
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
    /// The header of a genuine token.
    pub fn header(&self) -> String {
        format!(r#"{{"alg":"{0}","typ":"JWT","kid":"{0}"}}"#, self.name)
    }

    /// The claims of a genuine token: of this algorithm's route, and of no other.
    pub fn claims(&self) -> String {
        format!(
            r#"{{"iss":"{ISSUER}","aud":"{}","sub":"{ID}","scope":"x","exp":{},"nbf":{NOW},"iat":{NOW}}}"#,
            self.name,
            NOW + 60
        )
    }

    /// Whatever is in it, signed as it should be.
    pub fn token(&self, header: &str, claims: &str) -> String {
        self.seal(&format!("{}.{}", b64(header), b64(claims)))
    }

    /// Two parts, signed as they stand.
    pub fn seal(&self, signed: &str) -> String {
        format!("{signed}.{}", sign(signed, &self.key, self.algorithm))
    }

    pub fn genuine(&self) -> String {
        self.token(&self.header(), &self.claims())
    }
}

/// A route for each algorithm, under one key, for one audience; and one under all the keys together.
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

/// Whether a route takes a token: by itself, and where it fits into a header, as part of a request.
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
    // Blanks in front of the token belong to the header, not to the token.
    assert!(admitted == alone || token.starts_with(' '), "{route}: {token:?}");
    admitted || alone
}

/// A map, so that each attack has one name and is made once.
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
        // Twice: no verdict on one token may come from another one that was seen before.
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

/// Under all the keys together a token is still read under the one that it names, or the one of its algorithm.
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

/// What is genuine in other clothes stays genuine: without these the attacks could fail for another reason.
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
