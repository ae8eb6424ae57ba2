//! Tests the public-key algorithms with the test vectors of Project Wycheproof.

use data_encoding::{BASE64, BASE64URL_NOPAD};
use jsonwebtoken::EncodingKey;

use super::public_key::KeySet;
use super::public_key_algorithm::PublicKeyAlgorithm;
use super::wycheproof::{groups, hex};
use crate::time::Timestamp;

/// Asserts that the algorithm verifies signatures as the Wycheproof test vectors expect. Returns the numbers of
/// accepted and denied signatures. A signature with the result `acceptable` may be accepted or denied.
fn run(algorithm: PublicKeyAlgorithm, text: &str) -> (usize, usize) {
    let (mut accepted, mut refused) = (0, 0);
    for group in groups(text) {
        let Ok(keys) = KeySet::parse(group.public_key_pem.as_bytes()) else { continue };
        for vector in &group.tests {
            let verifies = algorithm.verifies(&keys.keys()[0], &hex(&vector.msg), &hex(&vector.sig));
            let says = (vector.tc_id, &vector.comment);
            match vector.result.as_str() {
                "valid" => assert!(verifies, "{says:?}"),
                "invalid" => assert!(!verifies, "{says:?}"),
                _ => {}
            }
            if verifies { accepted += 1 } else { refused += 1 }
        }
    }
    (accepted, refused)
}

#[test]
fn wycheproof_agrees() {
    let vectors = [
        (PublicKeyAlgorithm::Ed25519, include_str!("../../../tests/vectors/wycheproof/ed25519_test.json")),
        (
            PublicKeyAlgorithm::EcdsaP256Der,
            include_str!("../../../tests/vectors/wycheproof/ecdsa_secp256r1_sha256_test.json"),
        ),
        (
            PublicKeyAlgorithm::EcdsaP256Fixed,
            include_str!("../../../tests/vectors/wycheproof/ecdsa_secp256r1_sha256_p1363_test.json"),
        ),
        (
            PublicKeyAlgorithm::EcdsaP384Der,
            include_str!("../../../tests/vectors/wycheproof/ecdsa_secp384r1_sha384_test.json"),
        ),
        (
            PublicKeyAlgorithm::EcdsaP384Fixed,
            include_str!("../../../tests/vectors/wycheproof/ecdsa_secp384r1_sha384_p1363_test.json"),
        ),
        (
            PublicKeyAlgorithm::RsaPkcs1Sha256,
            include_str!("../../../tests/vectors/wycheproof/rsa_signature_2048_sha256_test.json"),
        ),
        (
            PublicKeyAlgorithm::RsaPkcs1Sha256,
            include_str!("../../../tests/vectors/wycheproof/rsa_signature_3072_sha256_test.json"),
        ),
        (
            PublicKeyAlgorithm::RsaPssSha256,
            include_str!("../../../tests/vectors/wycheproof/rsa_pss_2048_sha256_mgf1_32_test.json"),
        ),
    ];
    for (algorithm, text) in vectors {
        let (accepted, refused) = run(algorithm, text);
        assert!(accepted > 5 && refused > 40, "{}: {accepted} {refused}", algorithm.name());
    }
}

#[test]
fn each_jose_name_is_its_algorithm() {
    for (name, algorithm) in [
        ("ES256", PublicKeyAlgorithm::EcdsaP256Fixed),
        ("ES384", PublicKeyAlgorithm::EcdsaP384Fixed),
        ("EdDSA", PublicKeyAlgorithm::Ed25519),
        ("Ed25519", PublicKeyAlgorithm::Ed25519),
        ("RS256", PublicKeyAlgorithm::RsaPkcs1Sha256),
        ("RS384", PublicKeyAlgorithm::RsaPkcs1Sha384),
        ("RS512", PublicKeyAlgorithm::RsaPkcs1Sha512),
        ("PS256", PublicKeyAlgorithm::RsaPssSha256),
        ("PS384", PublicKeyAlgorithm::RsaPssSha384),
        ("PS512", PublicKeyAlgorithm::RsaPssSha512),
    ] {
        assert_eq!(PublicKeyAlgorithm::from_jose(name), Some(algorithm), "{name}");
    }
    for name in ["", "none", "es256", "RS1", "HS256", "ES512"] {
        assert_eq!(PublicKeyAlgorithm::from_jose(name), None, "{name}");
    }
}

const ALL: [PublicKeyAlgorithm; 12] = [
    PublicKeyAlgorithm::EcdsaP256Der,
    PublicKeyAlgorithm::EcdsaP256Fixed,
    PublicKeyAlgorithm::EcdsaP384Der,
    PublicKeyAlgorithm::EcdsaP384Fixed,
    PublicKeyAlgorithm::Ed25519,
    PublicKeyAlgorithm::RsaPkcs1Sha1,
    PublicKeyAlgorithm::RsaPkcs1Sha256,
    PublicKeyAlgorithm::RsaPkcs1Sha384,
    PublicKeyAlgorithm::RsaPkcs1Sha512,
    PublicKeyAlgorithm::RsaPssSha256,
    PublicKeyAlgorithm::RsaPssSha384,
    PublicKeyAlgorithm::RsaPssSha512,
];

/// Each signature is valid only under the algorithm that created it. The library `jsonwebtoken` creates the signatures,
/// so that the test does not depend on Callgate's own code.
#[test]
fn a_signature_is_verified_by_its_own_algorithm_only() {
    let pem = |name: &str| std::fs::read(format!("tests/corpora/jwt/{name}.pem")).unwrap();
    for name in ["ES256", "EdDSA", "RS256", "RS384", "RS512", "PS256", "PS384", "PS512"] {
        let (file, key) = match &name[..2] {
            "ES" => ("ec", EncodingKey::from_ec_pem(&pem("ec"))),
            "Ed" => ("ed", EncodingKey::from_ed_pem(&pem("ed"))),
            _ => ("rsa", EncodingKey::from_rsa_pem(&pem("rsa"))),
        };
        let signature = jsonwebtoken::crypto::sign(b"m", &key.unwrap(), name.parse().unwrap()).unwrap();
        let signature = BASE64URL_NOPAD.decode(signature.as_bytes()).unwrap();
        let keys = KeySet::parse(&pem(&format!("{file}.pub"))).unwrap();
        let verifying: Vec<_> =
            ALL.into_iter().filter(|one| one.verifies(&keys.keys()[0], b"m", &signature)).collect();
        assert_eq!(verifying, [PublicKeyAlgorithm::from_jose(name).unwrap()], "{name}");
    }
}

#[test]
fn a_key_of_another_kind_verifies_nothing() {
    let key = KeySet::parse(b"whpk_PtroYJ/1anP4GGP7sv/DVk9HQVYC+xLboxf98CI4tDM=").unwrap();
    for algorithm in [PublicKeyAlgorithm::EcdsaP256Der, PublicKeyAlgorithm::RsaPkcs1Sha256] {
        assert!(!algorithm.verifies(&key.keys()[0], b"", b""));
    }
}

#[test]
fn keys_are_read_in_every_form_and_no_other() {
    let hex = "89cd7489bf665a36667ba46dfd521ca6713fd2f9ad842835340b244e98355f2a";
    let same = |text: &str| format!("{:?}", KeySet::parse(text.as_bytes()).unwrap().keys());
    assert_eq!(same(hex), same(&hex.to_uppercase()));
    for bad in [
        "",
        "{}",
        "{\"keys\":[]}",
        "{\"keys\":[{\"kty\":\"oct\",\"k\":\"AQID\"}]}",
        "{\"kty\":\"OKP\",\"crv\":\"Ed25519\",\"x\":\"AQID\"}",
        "{\"kty\":\"EC\",\"crv\":\"P-256\",\"x\":\"AQID\",\"y\":\"AQID\"}",
        "-----BEGIN PUBLIC KEY-----\nAQID\n-----END PUBLIC KEY-----",
        "-----BEGIN PRIVATE KEY-----\nAQID\n-----END PRIVATE KEY-----",
        &hex[1..],
        "a shared secret",
    ] {
        assert!(KeySet::parse(bad.as_bytes()).is_err(), "{bad}");
    }
    // Keys for encryption, and keys whose `key_ops` do not include `verify`, are skipped.
    let text = r#"{"keys":[
        {"kty":"OKP","crv":"Ed25519","use":"enc","x":"PtroYJ_1anP4GGP7sv_DVk9HQVYC-xLboxf98CI4tDM"},
        {"kty":"OKP","crv":"Ed25519","key_ops":["sign"],"x":"PtroYJ_1anP4GGP7sv_DVk9HQVYC-xLboxf98CI4tDM"},
        {"kty":"OKP","crv":"Ed25519","kid":"k","x":"PtroYJ_1anP4GGP7sv_DVk9HQVYC-xLboxf98CI4tDM"}]}"#;
    assert_eq!(KeySet::parse(text.as_bytes()).unwrap().keys().len(), 1);
}

/// A key in a SubjectPublicKeyInfo is accepted only if its length fits its type, such as 32 bytes for Ed25519.
#[test]
fn a_key_in_a_subject_public_key_info_has_the_length_of_its_type() {
    const ED25519: [u8; 7] = [0x30, 5, 6, 3, 0x2b, 0x65, 0x70];
    const P256: [u8; 21] =
        [0x30, 19, 6, 7, 0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1, 6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7];
    let usable = |algorithm: &[u8], key: &[u8]| {
        let bits = [&[3, u8::try_from(key.len() + 1).unwrap(), 0], key].concat();
        let body = [algorithm, &bits].concat();
        let info = [&[0x30, u8::try_from(body.len()).unwrap()], &*body].concat();
        KeySet::parse(BASE64.encode(&info).as_bytes()).is_ok()
    };
    for (length, is_usable) in [(0, false), (31, false), (32, true), (33, false)] {
        assert_eq!(usable(&ED25519, &vec![4; length]), is_usable, "Ed25519, {length}");
    }
    for (length, is_usable) in [(0, false), (64, false), (65, true), (66, false)] {
        assert_eq!(usable(&P256, &vec![4; length]), is_usable, "P-256, {length}");
    }
    assert!(!usable(&P256, &[2; 65]), "a point that is not in uncompressed form");
}

/// The start of the validity period of the certificate in `tests/corpora/tls`, in Unix seconds.
const NOT_BEFORE: i64 = 1_795_530_214;
const NOT_AFTER: i64 = 4_949_130_214;

#[test]
fn a_certificate_is_used_within_its_validity_only() {
    let set = KeySet::parse(include_bytes!("../../../tests/corpora/tls/tls.crt")).unwrap();
    for (seconds, is_valid) in [
        (0, false),
        (NOT_BEFORE - 1, false),
        (NOT_BEFORE, true),
        (NOT_AFTER, true),
        (NOT_AFTER + 1, false),
        (i64::MAX / 1000, false),
    ] {
        let now = Timestamp::from_unix_secs(seconds);
        let found =
            [set.usable(now).count(), set.named(None, now).count(), set.named(Some("k"), now).count()];
        assert_eq!(found, [usize::from(is_valid); 3], "{seconds}");
    }
    // A public key without a certificate does not expire.
    let bare = KeySet::parse(b"PtroYJ/1anP4GGP7sv/DVk9HQVYC+xLboxf98CI4tDM=").unwrap();
    assert_eq!(bare.usable(Timestamp::from_unix_secs(NOT_AFTER + 1)).count(), 1);
}
