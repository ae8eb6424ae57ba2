//! Tests of HTTP message signatures.

use data_encoding::BASE64;

use super::*;
use crate::request::RequestHead;

#[test]
fn only_the_digits_of_escapes_become_upper_case() {
    assert_eq!(uppercase_escapes("/abc%2fdef?a=%c3%a9f%"), "/abc%2Fdef?a=%C3%A9f%");
}

#[test]
fn the_authority_has_a_port_only_if_it_is_not_the_default_port() {
    for (public_url, expected) in [
        ("https://Agent.Example.com", "agent.example.com"),
        ("https://agent.example.com:443/base", "agent.example.com"),
        ("https://agent.example.com:8443/base", "agent.example.com:8443"),
        ("https://agent.example.com:80", "agent.example.com:80"),
        ("http://agent.example.com:80", "agent.example.com"),
        ("HTTP://agent.example.com:443", "agent.example.com:443"),
        ("https://[2001:DB8::443]", "[2001:db8::443]"),
    ] {
        assert_eq!(authority(public_url), expected, "{public_url}");
    }
}

#[test]
fn each_limit_of_the_signature_parameters_is_exact() {
    let scheme = MessageSignatureScheme {
        components: vec!["@method".into()],
        expires: true,
        max_age: Duration::from_secs(300),
        nonce: true,
        ..MessageSignatureScheme::default()
    };
    let now = 10_000;
    // Each row: `created` and `expires` in seconds after `now`, the length of the nonce, and the expected result.
    for (created, expires, nonce, expected) in [
        (0, 300, 16, Ok(())),
        (0, 301, 16, Err(Denial::SignatureClaim)),
        (0, 1, 16, Ok(())),
        (0, 0, 16, Err(Denial::SignatureClaim)),
        (-300, 0, 16, Ok(())),
        (-301, -1, 16, Err(Denial::SignatureTooOld)),
        (-10, -1, 16, Err(Denial::SignatureTooOld)),
        (60, 90, 16, Ok(())),
        (61, 90, 16, Err(Denial::SignatureTooNew)),
        (0, 1, 15, Err(Denial::SignatureMalformed)),
    ] {
        let (created, expires, nonce) = (now + created, now + expires, "n".repeat(nonce));
        let parameters = format!("created={created};expires={expires};nonce=\"{nonce}\"");
        let text = format!(r#"sig1=("@path" "@method");{parameters}"#);
        let inputs = parse_signature_input(&text).unwrap();
        let check = |scheme: &MessageSignatureScheme| {
            scheme.check(&inputs[0], Timestamp::from_unix_secs(now)).map_err(|refusal| refusal.denial)
        };
        assert_eq!(check(&scheme), expected, "{parameters}");
        let also = MessageSignatureScheme { components: vec!["@query".into()], ..scheme.clone() };
        assert_eq!(check(&also), Err(Denial::SignatureClaim), "the signature does not cover @query");
    }
}

#[test]
fn the_body_has_each_digest_that_is_listed_and_one_of_a_known_algorithm() {
    let digest = |name: &str, bytes: &[u8]| format!("{name}=:{}:", BASE64.encode(bytes));
    let (sha256, sha512) =
        (digest("sha-256", &Sha256::digest(b"{}")), digest("sha-512", &Sha512::digest(b"{}")));
    let other = digest("sha-512", &Sha512::digest(b"[]"));
    let unknown = digest("md5", &[1; 16]);
    let verify = |value: &str| {
        let digest = Some(HeaderValue::from_str(value).unwrap());
        let verified = VerifiedMessageSignature { digest, tag: AuthenticationTag::new(&[0; 32]) };
        verified.verify_body(b"{}").map(|tags| tags.len()).map_err(|refusal| refusal.denial)
    };
    for good in [&sha256, &sha512, &format!("{sha256}, {sha512}"), &format!("{unknown}, {sha256}")] {
        assert_eq!(verify(good), Ok(1), "{good}");
    }
    let short = digest("sha-256", &Sha256::digest(b"{}")[..31]);
    for bad in [&other, &short, &format!("{sha256}, {other}"), &format!("{other}, {sha256}")] {
        assert_eq!(verify(bad), Err(Denial::SignatureMismatch), "{bad}");
    }
    for bad in [&unknown, "", "sha-256", "sha-256=1", &sha256.replace("sha-256", "SHA-256")] {
        assert_eq!(verify(bad), Err(Denial::SignatureMalformed), "{bad}");
    }
}

#[test]
fn each_component_has_its_value() {
    let mut headers = HeaderMap::new();
    for (name, value) in [("x-a", " a b\t"), ("x-twice", "1"), ("x-twice", "2")] {
        headers.append(name, HeaderValue::from_static(value));
    }
    let client = std::net::IpAddr::from([127, 0, 0, 1]);
    let head = RequestHead::new("POST", "/in/%c3?a=%2f&b", &headers, client);
    let now = Timestamp::from_unix_secs(0);
    let context = SignatureContext::new(head, "HTTPS://Agent.example.com:443/base", now);
    let value = |component: &str| component_value(component, &context).map_err(|refusal| refusal.denial);
    for (component, expected) in [
        ("@method", Ok("POST")),
        ("@authority", Ok("agent.example.com")),
        ("@scheme", Ok("https")),
        ("@target-uri", Ok("https://agent.example.com/base/in/%C3?a=%2F&b")),
        ("@request-target", Ok("/in/%c3?a=%2f&b")),
        ("@path", Ok("/in/%c3")),
        ("@query", Ok("?a=%2f&b")),
        ("@status", Err(Denial::SignatureMalformed)),
        ("x-a", Ok("a b")),
        ("x-twice", Err(Denial::HeaderDuplicated)),
        ("x-missing", Err(Denial::SignatureMissing)),
        ("X-A", Err(Denial::SignatureMalformed)),
    ] {
        assert_eq!(value(component), expected.map(str::to_owned), "{component}");
    }
    let head = RequestHead::new("POST", "/in", &headers, client);
    let context = SignatureContext::new(head, "https://agent.example.com", now);
    assert_eq!(component_value("@query", &context).unwrap(), "?");
}
