//! Tests tokens with the JWS test vectors of Project Wycheproof, and with attacks that confuse the algorithm of a key.

use jsonwebtoken::jwk::Jwk;
use serde::Deserialize;
use serde_json::Value;

use crate::jose::{Algorithm, Key, KeyFault, KeyMaterial, Unverified};
use crate::secret::Secret;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Vectors {
    test_groups: Vec<Group>,
}

#[derive(Deserialize)]
struct Group {
    comment: String,
    #[serde(default)]
    public: Option<Value>,
    #[serde(default)]
    private: Option<Value>,
    tests: Vec<Vector>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Vector {
    tc_id: u32,
    comment: String,
    jws: Value,
    result: String,
}

/// Verifies only the signature and the header of a JWS, because the payloads of the test vectors are not claims.
fn verifies(jws: &str, key: &Key) -> bool {
    Unverified::parse(jws).and_then(|token| token.verify(std::slice::from_ref(key))).is_ok()
}

/// The ids of test vectors whose text contradicts their expected result. The vectors 367 and 370 should test padding,
/// but contain no padding and are equal to the valid vector 357. The vectors 372 and 373 contain a `?`, which no
/// base64 alphabet has.
const MISLABELLED: [u32; 4] = [367, 370, 372, 373];

#[test]
fn wycheproof_jws() {
    let text = include_str!("../../tests/vectors/wycheproof/json_web_signature_test.json");
    let vectors: Vectors = serde_json::from_str(text).unwrap();
    let (mut accepted, mut refused, mut strict) = (0, 0, Vec::new());
    for group in vectors.test_groups {
        let jwk = group.public.or(group.private).unwrap();
        let Some(algorithm) = jwk["alg"].as_str().and_then(Algorithm::from_name) else { continue };
        let jwk: Jwk = serde_json::from_value(jwk).unwrap();
        let key = Key::from_jwk(algorithm, &jwk);
        for vector in group.tests.iter().filter(|vector| !MISLABELLED.contains(&vector.tc_id)) {
            let accepts = vector.jws.as_str().is_some_and(|jws| verifies(jws, &key));
            match (accepts, vector.result == "valid") {
                (true, true) => accepted += 1,
                (false, false) => refused += 1,
                (false, true) => strict.push(format!("{} {}", vector.tc_id, vector.comment)),
                (true, false) => panic!("{}: {} {} is accepted", group.comment, vector.tc_id, vector.comment),
            }
        }
    }
    assert!(accepted > 10 && refused > 200, "{accepted} {refused}");
    // Both vectors are the PS384 token in figure 20 of RFC 7520. Callgate denies this token, because the vectors
    // declare that the key is for PS256.
    assert_eq!(strict, ["346 Figure20", "350 Figure20"], "valid tokens that are refused");
}

const RSA_PUBLIC: &str = "-----BEGIN PUBLIC KEY-----
MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEAkqGboBfAWttWPCA+0cGR
gsY6SaYoIARt0B/PkaEcIq9HPYNdu9n6UuWHuuTHrjF/ZoQW97r5HaAorNvrMEGT
GdxCHZdEtkHvNVVmrtxTBLiQCbCozXhFoIrVcr3qUBrdGnNn/M3jJi7Wg7p/+x62
nS5gNG875oyheRkutHsQXikFZwsN3q/TsPNOVlCiHy8mxzaFTUQGm+X8UYexFyAi
vlDSjgDJLAZSWfxd7k9Gxuwa3AUfQqQcVcegmgKGCaErQ3qQbh1x7WB6iopE3/+G
Z8HMAVtR9AmrVscqYsnjhaCehfAI0iKKs8zXr8tISc0ORbaalrkk03H1ZrsEnDKE
WQIDAQAB
-----END PUBLIC KEY-----
";

#[test]
fn key_material_of_the_other_kind_is_refused() {
    let algorithm = |name| Algorithm::from_name(name).unwrap();
    let pem = Secret::new(RSA_PUBLIC.into());
    let shared = Secret::new(vec![b'k'; 32]);
    let new = |name, material| Key::new(None, algorithm(name), material).err();
    assert_eq!(new("RS256", KeyMaterial::PublicPem(&pem)), None);
    assert_eq!(new("PS512", KeyMaterial::PublicPem(&pem)), None);
    assert_eq!(new("ES256", KeyMaterial::PublicPem(&pem)), Some(KeyFault::NotAPublicKey));
    assert_eq!(new("EdDSA", KeyMaterial::PublicPem(&pem)), Some(KeyFault::NotAPublicKey));
    assert_eq!(new("RS256", KeyMaterial::Shared(&shared)), Some(KeyFault::OtherKind));
    assert_eq!(new("HS256", KeyMaterial::PublicPem(&pem)), Some(KeyFault::OtherKind));
    assert_eq!(new("HS256", KeyMaterial::Shared(&Secret::new(vec![b'k'; 23]))), Some(KeyFault::TooShort));
    assert_eq!(Algorithm::from_name("none"), None);
    assert_eq!(Algorithm::from_name("hs256"), None);
}

#[test]
fn a_public_key_is_no_shared_key() {
    // Algorithm confusion: the token is signed with HS256, and the MAC key is the text of the RSA public key.
    use hmac::{Hmac, Mac};
    let encode = |text: &str| data_encoding::BASE64URL_NOPAD.encode(text.as_bytes());
    let signed = format!("{}.{}", encode(r#"{"alg":"HS256"}"#), encode("{}"));
    let mut mac = Hmac::<sha2::Sha256>::new_from_slice(RSA_PUBLIC.as_bytes()).unwrap();
    mac.update(signed.as_bytes());
    let token = format!("{signed}.{}", data_encoding::BASE64URL_NOPAD.encode(&mac.finalize().into_bytes()));
    let key = Key::new(
        None,
        Algorithm::from_name("RS256").unwrap(),
        KeyMaterial::PublicPem(&Secret::new(RSA_PUBLIC.into())),
    );
    assert!(!verifies(&token, &key.unwrap()));
}

#[test]
fn a_minted_token_begins_with_the_header_its_verifier_knows() {
    use super::mint::{Grant, Minter, header_text};
    use crate::time::Timestamp;
    let algorithm = Algorithm::from_name("HS256").unwrap();
    let secret = Secret::new(vec![b'k'; 32]);
    let minter = Minter::new("k1", algorithm, &secret, "https://a").unwrap();
    let now = Timestamp::from_unix_secs(0);
    let grant = Grant {
        route: "r",
        interaction: "i",
        captures: &[],
        issued: now,
        expires: now,
        uses: None,
        owner: None,
    };
    assert!(
        minter
            .mint(&grant)
            .unwrap()
            .token
            .starts_with(&*header_text(super::callback_claims::CALLBACK_TYPE, algorithm, "k1").unwrap())
    );
}
