//! Tests of the JWTs that providers send as signatures.

use serde_json::json;

use super::*;
use crate::signature::request_parts::HeaderFormat;

#[test]
fn each_limit_of_the_times_is_exact() {
    let scheme = JwtScheme {
        place: JwtPlace::At(SignaturePlace::Headers {
            names: vec![http::HeaderName::from_static("x-token")],
            format: HeaderFormat::parse("{signature}", None).unwrap(),
        }),
        algorithms: Vec::new(),
        claims: Vec::new(),
        body_hash: None,
        max_age: None,
        expires: false,
        leeway: Duration::from_secs(60),
        id: None,
    };
    let strict = JwtScheme { max_age: Some(Duration::from_secs(300)), expires: true, ..scheme.clone() };
    let now = 10_000;
    let check = |scheme: &JwtScheme, claims: &Value| {
        let claims: Claims = serde_json::from_value(claims.clone()).unwrap();
        scheme.check_times(&claims, Timestamp::from_unix_secs(now)).map_err(|refusal| refusal.denial)
    };
    // Each row: the claims, the expected result of the scheme `strict`, and the expected result of the scheme without
    // the limits `max_age` and `expires`.
    for (claims, limited, unlimited) in [
        (json!({}), Err(Denial::SignatureClaim), Ok(())),
        (json!({ "exp": now + 1 }), Err(Denial::SignatureClaim), Ok(())),
        (json!({ "iat": now }), Err(Denial::SignatureClaim), Ok(())),
        (json!({ "iat": now, "exp": now - 59 }), Ok(()), Ok(())),
        (json!({ "iat": now, "exp": now - 60 }), Err(Denial::SignatureTooOld), Err(Denial::SignatureTooOld)),
        (json!({ "iat": now + 60, "exp": now + 1 }), Ok(()), Ok(())),
        (
            json!({ "iat": now + 61, "exp": now + 1 }),
            Err(Denial::SignatureTooNew),
            Err(Denial::SignatureTooNew),
        ),
        (json!({ "iat": now - 300, "exp": now + 1 }), Ok(()), Ok(())),
        (json!({ "iat": now - 301, "exp": now + 1 }), Err(Denial::SignatureTooOld), Ok(())),
        (json!({ "iat": now, "exp": now + 1, "nbf": now + 60 }), Ok(()), Ok(())),
        (
            json!({ "iat": now, "exp": now + 1, "nbf": now + 61 }),
            Err(Denial::SignatureTooNew),
            Err(Denial::SignatureTooNew),
        ),
        (json!({ "iat": "now", "exp": now + 1 }), Err(Denial::SignatureClaim), Err(Denial::SignatureClaim)),
    ] {
        assert_eq!((check(&strict, &claims), check(&scheme, &claims)), (limited, unlimited), "{claims}");
    }
}
