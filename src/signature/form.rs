//! Twilio's content of a form: every parameter of the body, sorted by name, each name and value joined without
//! anything between them. Other bodies are covered by a hash in the URL, which is signed.
//! Source: <https://www.twilio.com/docs/usage/webhooks/webhooks-security>.

use std::collections::{BTreeMap, BTreeSet};

use data_encoding::HEXLOWER;
use http::header::CONTENT_TYPE;
use percent_encoding::percent_decode;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::denial::{Denial, Refusal};
use crate::query::{Parameter, parameter};
use crate::request::RequestHead;

/// The parameter of the URL that holds the hash of a body that is no form.
const BODY_HASH: &str = "bodySHA256";

/// What of the body is signed, besides the URL.
pub(super) fn content(head: &RequestHead<'_>, body: &[u8]) -> Result<String, Refusal> {
    let mismatch = |detail: &'static str| Err(Refusal::new(Denial::SignatureMismatch, detail));
    match head.raw_query().map_or(Parameter::Missing, |query| parameter(query, BODY_HASH)) {
        Parameter::One(hash) => {
            let expected = HEXLOWER.encode(&Sha256::digest(body));
            if !bool::from(expected.as_bytes().ct_eq(hash.as_bytes())) {
                return mismatch("bodySHA256 in the URL is not the hash of the body");
            }
            return Ok(String::new());
        }
        Parameter::Several => return mismatch("bodySHA256 is in the URL more than once"),
        Parameter::Missing => {}
    }
    if body.is_empty() {
        return Ok(String::new());
    }
    if !is_form(head) {
        return mismatch("neither a form nor a body whose hash is in the URL");
    }
    sorted(body)
}

/// The public URL with its port left out, or with the scheme's where it has none: Twilio signs now the one, now the
/// other.
pub(super) fn other_port(public_url: &str) -> String {
    let (scheme, rest) = public_url.split_once("://").unwrap_or(("https", public_url));
    let (authority, path) = rest.split_at_checked(rest.find('/').unwrap_or(rest.len())).unwrap_or((rest, ""));
    // The last colon of an IPv6 address stands within its brackets.
    let host = authority.rsplit_once(':').filter(|(_, port)| !port.contains(']')).map(|(host, _)| host);
    match host {
        Some(host) => format!("{scheme}://{host}{path}"),
        None => format!("{scheme}://{authority}:{}{path}", if scheme == "http" { 80 } else { 443 }),
    }
}

fn is_form(head: &RequestHead<'_>) -> bool {
    let value = head.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let media = value.split(';').next().unwrap_or_default().trim();
    media.eq_ignore_ascii_case("application/x-www-form-urlencoded")
}

/// A name that comes more than once is followed by each of its different values, sorted, each with the name.
fn sorted(body: &[u8]) -> Result<String, Refusal> {
    let mut fields: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for pair in body.split(|b| *b == b'&').filter(|pair| !pair.is_empty()) {
        let split = pair.iter().position(|b| *b == b'=').unwrap_or(pair.len());
        let (name, value) = pair.split_at(split);
        let text = |bytes: &[u8]| {
            let spaced: Vec<u8> = bytes.iter().map(|b| if *b == b'+' { b' ' } else { *b }).collect();
            String::from_utf8(percent_decode(&spaced).collect()).ok()
        };
        let value = value.get(1..).unwrap_or_default();
        let Some((name, value)) = text(name).zip(text(value)) else {
            return Err(Refusal::new(Denial::SignatureMalformed, "the form is not UTF-8"));
        };
        fields.entry(name).or_default().insert(value);
    }
    let mut content = String::with_capacity(body.len());
    for (name, values) in &fields {
        for value in values {
            content.push_str(name);
            content.push_str(value);
        }
    }
    Ok(content)
}
