//! The text that Twilio signs after the URL. For a form, the text contains all fields, sorted by name. Names and
//! values are joined without a separator. For other bodies, the text is empty, because a query parameter of the URL
//! contains the hash of the body. Source: <https://www.twilio.com/docs/usage/webhooks/webhooks-security>.

use percent_encoding::percent_decode;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::denial::{Denial, Refusal};
use crate::query::{Parameter, parameter};
use crate::request::RequestHead;
use crate::signature::keys::Encoding;

/// The name of the query parameter in which Twilio sends the hash of a body that is not a form.
const BODY_HASH: &str = "bodySHA256";

/// The maximum number of form fields. Callgate sorts the fields before it verifies the signature, so the limit bounds
/// the work that an unauthenticated caller can cause.
const FIELDS_MAX: usize = 1000;

/// Returns the text that Twilio signs after the URL of this request.
///
/// # Errors
/// Returns `signature_malformed` if the body is a malformed form. Returns `signature_mismatch` in these cases:
///
/// - The URL contains a hash that is not the hash of the body.
/// - The URL contains a hash, but the body is a form, or the hash is not the last query parameter.
/// - The URL contains no hash, and the body is neither empty nor a form.
pub(in crate::signature) fn signed_text(head: &RequestHead<'_>, body: &[u8]) -> Result<String, Refusal> {
    let mismatch = |detail: &'static str| Err(Refusal::new(Denial::SignatureMismatch, detail));
    // Twilio appends the hash parameter to the end of the query. Callgate accepts the parameter in no other position.
    // Otherwise an attacker could move text of a signed form field to the URL, where the text could pass as the
    // parameter. The signature would stay valid, because Twilio signs the URL and the form without a separator.
    let query = head.raw_query().unwrap_or_default();
    let last = query.rsplit('&').next().and_then(|pair| pair.strip_prefix(BODY_HASH)?.strip_prefix('='));
    match (last, parameter(query, BODY_HASH)) {
        (Some(hash), Parameter::One(_)) if hash.len() == 64 && !head.is_form() => {
            let given = Encoding::Hex.decode_any(hash).unwrap_or_default();
            return match bool::from(Sha256::digest(body)[..].ct_eq(&given)) {
                true => Ok(String::new()),
                false => mismatch("bodySHA256 in the URL is not the hash of the body"),
            };
        }
        (_, Parameter::Missing) => {}
        _ => return mismatch("bodySHA256 is not the last query parameter, or the body is a form"),
    }
    if body.is_empty() {
        return Ok(String::new());
    }
    if !head.is_form() {
        return mismatch("the body is not a form, and its hash is not in the URL");
    }
    sorted_fields(body)
}

/// Returns the public URL without its port. If the URL has no port, returns the URL with the default port of its
/// scheme. Twilio may sign either URL, so the caller tries both.
pub(in crate::signature) fn alternative_port(public_url: &str) -> String {
    let (scheme, rest) = public_url.split_once("://").unwrap_or(("https", public_url));
    let (authority, path) = rest.split_at_checked(rest.find('/').unwrap_or(rest.len())).unwrap_or((rest, ""));
    // If an IPv6 address has no port, its last colon is inside the brackets and does not begin a port.
    let host = authority.rsplit_once(':').filter(|(_, port)| !port.contains(']')).map(|(host, _)| host);
    match host {
        Some(host) => format!("{scheme}://{host}{path}"),
        None => format!("{scheme}://{authority}:{}{path}", if scheme == "http" { 80 } else { 443 }),
    }
}

/// Returns the names and values of all form fields, sorted and joined without a separator. Fields with the same name
/// and the same value appear once.
///
/// # Errors
/// Returns `signature_malformed` if a field is not UTF-8, or if there are too many fields.
fn sorted_fields(body: &[u8]) -> Result<String, Refusal> {
    let malformed = |detail: &'static str| Refusal::new(Denial::SignatureMalformed, detail);
    let text = |bytes: &[u8]| {
        let spaced: Vec<u8> = bytes.iter().map(|b| if *b == b'+' { b' ' } else { *b }).collect();
        String::from_utf8(percent_decode(&spaced).collect()).ok()
    };
    let mut fields = Vec::new();
    for pair in body.split(|b| *b == b'&').filter(|pair| !pair.is_empty()) {
        if fields.len() == FIELDS_MAX {
            return Err(malformed("the form has more than 1000 fields"));
        }
        let split = pair.iter().position(|b| *b == b'=').unwrap_or(pair.len());
        let (name, value) = pair.split_at(split);
        let field = text(name).zip(text(value.get(1..).unwrap_or_default()));
        fields.push(field.ok_or_else(|| malformed("the form is not UTF-8"))?);
    }
    fields.sort_unstable();
    fields.dedup();
    Ok(fields.iter().flat_map(|(name, value)| [name.as_str(), value.as_str()]).collect())
}
