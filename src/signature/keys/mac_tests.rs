//! Tests the MAC algorithms with the test vectors of Project Wycheproof.

use super::encoding::Encoding;
use super::mac::{MacAlgorithm, MacKey};
use super::secret_format::{SecretFormat, SecretFormatError};
use super::wycheproof::{groups, hex};
use crate::secret::Secret;

fn wycheproof(algorithm: MacAlgorithm, text: &str) {
    let mut counts = (0, 0);
    for group in groups(text) {
        for vector in &group.tests {
            // Only the vectors with an empty key fail here, because Callgate does not accept empty keys.
            let Ok(mut mac) =
                MacKey::new(algorithm, &SecretFormat::Hex, &Secret::new(vector.key.clone().into_bytes()))
            else {
                assert!(vector.key.is_empty(), "test {}", vector.tc_id);
                continue;
            };
            mac.update(&hex(&vector.msg));
            let presented = Encoding::Hex.decode(&vector.tag, algorithm);
            let whole = group.tag_size == algorithm.tag_bytes() * 8;
            assert_eq!(presented.is_some(), whole, "test {}: only whole tags are read", vector.tc_id);
            let Some(presented) = presented else { continue };
            let matches = mac.finish().matches(&presented);
            assert_eq!(matches, vector.result == "valid", "test {}", vector.tc_id);
            if matches { counts.0 += 1 } else { counts.1 += 1 }
        }
    }
    assert!(counts.0 > 20 && counts.1 > 20, "{counts:?}");
}

#[test]
fn hmac_is_hmac() {
    wycheproof(MacAlgorithm::HmacSha1, include_str!("../../../tests/vectors/wycheproof/hmac_sha1_test.json"));
    wycheproof(
        MacAlgorithm::HmacSha256,
        include_str!("../../../tests/vectors/wycheproof/hmac_sha256_test.json"),
    );
    wycheproof(
        MacAlgorithm::HmacSha384,
        include_str!("../../../tests/vectors/wycheproof/hmac_sha384_test.json"),
    );
    wycheproof(
        MacAlgorithm::HmacSha512,
        include_str!("../../../tests/vectors/wycheproof/hmac_sha512_test.json"),
    );
}

#[test]
fn tags_are_read_strictly() {
    let tag = |text: &str, encoding: Encoding| encoding.decode(text, MacAlgorithm::HmacSha1).is_some();
    let hex = "0123456789abcdef0123456789abcdef01234567";
    assert!(tag(hex, Encoding::Hex) && tag(&hex.to_uppercase(), Encoding::Hex));
    for bad in [
        &hex[1..],
        &hex.replacen('a', "A", 1),
        &hex.to_uppercase().replacen('F', "f", 1),
        &format!("{hex}00"),
        &hex.replace('0', "g"),
        "",
    ] {
        assert!(!tag(bad, Encoding::Hex), "{bad}");
    }
    assert!(tag("ASNFZ4mrze8BI0VniavN7wEjRWc=", Encoding::Base64));
    // The last text is not canonical base64: its unused trailing bits are not zero.
    for bad in ["ASNFZ4mrze8BI0VniavN7wEjRWc", "ASNFZ4mrze8BI0VniavN7wEjRW==", "ASNFZ4mrze8BI0VniavN7wEjRWd="]
    {
        assert!(!tag(bad, Encoding::Base64), "{bad}");
    }
}

#[test]
fn keys_are_read_in_the_form_of_the_scheme() {
    let ready = |text: &str, form: &SecretFormat| {
        MacKey::new(MacAlgorithm::HmacSha256, form, &Secret::new(text.into())).is_ok()
    };
    let whsec = SecretFormat::Base64 { prefix: "whsec_".into() };
    for good in ["whsec_AQIDBAUGBwg=", "AQIDBAUGBwg=", "whsec_AQIDBAUGBwg"] {
        assert!(ready(good, &whsec), "{good}");
    }
    for bad in ["whsec_", "whsec_!!!!", "whsec_AQIDBAUGB", ""] {
        assert!(!ready(bad, &whsec), "{bad}");
    }
    assert!(ready("00FF", &SecretFormat::Hex) && !ready("0g", &SecretFormat::Hex));
}

#[test]
fn each_format_has_its_key_and_its_id() {
    let base64 = |prefix: &str| SecretFormat::Base64 { prefix: prefix.into() };
    let after = |prefix: &str| SecretFormat::Utf8After { prefix: prefix.into() };
    for (text, format, key, id) in [
        ("a:b", SecretFormat::Utf8, &b"a:b"[..], None),
        ("00fF", SecretFormat::Hex, &[0, 255], None),
        ("whsec_AQID", base64("whsec_"), &[1, 2, 3], None),
        ("AQID", base64("whsec_"), &[1, 2, 3], None),
        ("AQI=", base64(""), &[1, 2], None),
        ("signkey-prod-abc", after("signkey-*-"), b"abc", None),
        ("abc", after("signkey-*-"), b"abc", None),
        ("key_abc", after("key_"), b"abc", None),
        ("id:secret", SecretFormat::IdAndSecret, b"secret", Some(&b"id"[..])),
        ("id:sec:ret", SecretFormat::IdAndSecret, b"sec:ret", Some(b"id")),
    ] {
        let secret = Secret::new(text.into());
        assert_eq!(format.key(&secret).unwrap().as_slice(), key, "{text}");
        assert_eq!(format.id(&secret), id, "{text}");
    }
    for (text, format, error) in [
        ("", SecretFormat::Utf8, SecretFormatError::Empty),
        ("key_", after("key_"), SecretFormatError::Empty),
        ("id:", SecretFormat::IdAndSecret, SecretFormatError::Empty),
        ("secret", SecretFormat::IdAndSecret, SecretFormatError::Id),
        ("0", SecretFormat::Hex, SecretFormatError::Hex),
    ] {
        assert_eq!(format.key(&Secret::new(text.into())).unwrap_err(), error, "{text}");
    }
}

#[test]
fn each_jose_name_is_its_algorithm() {
    for (name, algorithm) in [
        ("HS256", MacAlgorithm::HmacSha256),
        ("HS384", MacAlgorithm::HmacSha384),
        ("HS512", MacAlgorithm::HmacSha512),
    ] {
        assert_eq!(MacAlgorithm::from_jose(name), Some(algorithm), "{name}");
    }
    for name in ["", "none", "hs256", "HS1", "RS256"] {
        assert_eq!(MacAlgorithm::from_jose(name), None, "{name}");
    }
}

#[test]
fn a_text_that_is_no_signature_is_described_without_its_value() {
    let sha1 = Some(MacAlgorithm::HmacSha1);
    let sha256 = Some(MacAlgorithm::HmacSha256);
    let hex = "0123456789abcdef0123456789abcdef01234567";
    let base64 = "ASNFZ4mrze8BI0VniavN7wEjRWc=";
    for (encoding, algorithm, text, expected) in [
        (Encoding::Hex, sha256, hex, "has 40 hexadecimal digits, hmac-sha256 needs 64"),
        (
            Encoding::Hex,
            sha1,
            &hex.replacen('a', "A", 1),
            "mixes upper-case and lower-case hexadecimal digits",
        ),
        (Encoding::Hex, sha1, &hex[1..], "has 39 hexadecimal digits, hmac-sha1 needs 40"),
        (Encoding::Hex, sha1, base64, "is base64, expected hexadecimal"),
        (Encoding::Hex, sha1, "!", "is not hexadecimal"),
        (Encoding::Hex, sha1, "", "is empty"),
        (Encoding::Base64, sha1, hex, "is hexadecimal, expected base64"),
        (Encoding::Base64, sha256, base64, "is base64 of 20 bytes, hmac-sha256 needs 32"),
        (Encoding::Base64, sha1, &base64[..27], "has wrong padding, expected base64"),
        (Encoding::Base64, sha1, "__-_", "is base64url, expected base64"),
        (Encoding::Base64Url, sha1, base64, "has padding, expected base64url"),
        (Encoding::Base64Url, sha1, "//+/", "is base64, expected base64url"),
        (Encoding::Base64, None, "\"AAAA\"", "is in quotation marks"),
        (Encoding::Hex, None, "aab", "has 3 hexadecimal digits, which is an odd number"),
    ] {
        assert_eq!(encoding.fault(text, algorithm), expected, "{text}");
    }
}
