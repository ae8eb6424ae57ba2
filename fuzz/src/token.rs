//! Tokens: nothing that was not made under the key is accepted, and what was made under it only if it says the right
//! things.

use std::sync::LazyLock;

use callgate::ingress::TokenRule;
use callgate::policy::Policy;
use data_encoding::BASE64URL_NOPAD;
use hmac::{Hmac, Mac};
use serde_json::Value;
use sha2::Sha256;

use super::{KEY, NOW, first_line, read};

const ID: &str = "doc-1";
const ISSUER: &str = "https://issuer.example.com";

static POLICY: LazyLock<Policy> = LazyLock::new(|| {
    let text = format!(
        "public_url: https://agent.example.com
listen: {{ ingress: [ {{ address: 127.0.0.1:0 }} ] }}
agent: {{ address: 127.0.0.1:1 }}
callback_tokens: {{ keys: [ {{ id: k, algorithm: HS256, secret: {{ env: KEY }} }} ] }}
routes:
  - {{ name: ours, path: \"/ours/{{id}}\", token: {{ kind: callback }}, forward: \"/in/{{id}}\" }}
  - name: theirs
    path: \"/theirs/{{id}}\"
    token: {{ kind: jwt, keys: [ {{ id: k, algorithm: HS256, secret: {{ env: KEY }} }} ], issuer: \"{ISSUER}\", audience: agent, bind: {{ id: sub }} }}
    forward: \"/in/{{id}}\"
"
    );
    read(&text).expect("a configuration").policy
});

/// `t` and a token; or `s`, a line with a header and the claims, which are signed here.
pub fn run(data: &[u8]) -> bool {
    match data.split_first() {
        Some((b't', token)) => {
            let Ok(token) = std::str::from_utf8(token) else { return false };
            let accepted = ours(token) || theirs(token);
            assert!(!accepted || is_genuine(token), "a token that nobody signed: {token}");
            accepted
        }
        Some((b's', rest)) => {
            let Some((header, claims)) = first_line(rest) else { return false };
            let signed =
                format!("{}.{}", BASE64URL_NOPAD.encode(header.as_bytes()), BASE64URL_NOPAD.encode(claims));
            let token = format!("{signed}.{}", mac(&signed));
            let (ours, theirs) = (ours(&token), theirs(&token));
            let shown = || format!("{header}\n{}", String::from_utf8_lossy(claims));
            assert!(!ours || may_be_ours(header, claims), "{}", shown());
            assert!(!theirs || may_be_theirs(header, claims), "{}", shown());
            ours || theirs
        }
        _ => false,
    }
}

fn ours(token: &str) -> bool {
    let Some(TokenRule::Callback { verifier, .. }) = &POLICY.route("ours").expect("a route").token else {
        return false;
    };
    verifier.verify(token, "ours", [("id", ID)].into_iter(), NOW).is_ok()
}

fn theirs(token: &str) -> bool {
    let Some(TokenRule::Jwt { verifier, .. }) = &POLICY.route("theirs").expect("a route").token else {
        return false;
    };
    verifier.verify(token, |name| (name == "id").then_some(ID), NOW).is_ok()
}

fn mac(signed: &str) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(KEY.as_bytes()).expect("a key");
    mac.update(signed.as_bytes());
    BASE64URL_NOPAD.encode(&mac.finalize().into_bytes())
}

fn is_genuine(token: &str) -> bool {
    token.rsplit_once('.').is_some_and(|(signed, signature)| mac(signed) == signature)
}

/// A header that this algorithm, this key and no extension go with.
fn plain(header: &str, types: &[&str]) -> bool {
    let Ok(Value::Object(header)) = serde_json::from_str(header) else { return false };
    let typ = header.get("typ").map(|typ| typ.as_str().map(str::to_ascii_lowercase));
    let typ =
        typ.map(|typ| typ.map(|typ| typ.strip_prefix("application/").map_or(typ.clone(), str::to_owned)));
    let right = match typ {
        None => types.contains(&""),
        Some(typ) => typ.is_some_and(|typ| types.contains(&typ.as_str())),
    };
    let extended = ["b64", "crit", "enc", "jku", "jwk", "p2c", "x5c", "x5u", "zip"];
    right
        && header.get("alg") == Some(&"HS256".into())
        && header.get("kid").is_none_or(|kid| kid == "k")
        && !extended.iter().any(|name| header.contains_key(*name))
}

fn may_be_ours(header: &str, claims: &[u8]) -> bool {
    let Ok(Value::Object(claims)) = serde_json::from_slice(claims) else { return false };
    plain(header, &["callback+jwt"])
        && claims.get("v") == Some(&1.into())
        && claims.get("iss") == Some(&"callgate".into())
        && claims.get("aud") == Some(&"https://agent.example.com".into())
        && claims.get("route") == Some(&"ours".into())
        && claims.get("cap") == Some(&serde_json::json!({ "id": ID }))
        && claims.get("exp").and_then(Value::as_i64).is_some_and(|exp| exp > NOW.unix_secs())
}

fn may_be_theirs(header: &str, claims: &[u8]) -> bool {
    let Ok(Value::Object(claims)) = serde_json::from_slice(claims) else { return false };
    let begun = |name: &str| match claims.get(name) {
        None => true,
        Some(moment) => moment.as_f64().is_some_and(|secs| secs < NOW.unix_secs() as f64 + 0.002),
    };
    let audience = match claims.get("aud") {
        Some(Value::Array(list)) => list.iter().all(Value::is_string) && list.contains(&"agent".into()),
        Some(other) => other == "agent",
        None => false,
    };
    plain(header, &["", "jwt"])
        && claims.get("iss") == Some(&ISSUER.into())
        && audience
        && claims.get("sub") == Some(&ID.into())
        && claims.get("exp").and_then(Value::as_f64).is_some_and(|exp| exp > NOW.unix_secs() as f64)
        && begun("nbf")
        && begun("iat")
}
