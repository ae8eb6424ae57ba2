//! Writes a captured request in the format of `.http` files, without tokens, secrets and signatures.
//!
//! These values are replaced:
//! - the callback token and the provider's proof (a signature, a token or a secret), in the header, parameter, path or
//!   body where the route expects them;
//! - the values of headers, query parameters and JSON keys that have the name of a secret;
//! - JWTs and opaque callback tokens;
//! - all other occurrences of these values in the request;
//! - the secrets of all routes and their providers.
//!
//! A body that cannot be searched for secrets is left out.

use http::header::{AUTHORIZATION, CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{HeaderName, HeaderValue};

use super::body::redacted_body;
use super::known::{IN_BODY, IN_TARGET, Known, Request, carries, is_secret_header, is_secret_parameter};
use super::verdicts::{BODY_HEADER, Verdicts};
use crate::observe::redact_path;

/// Returns the captured request in the format of `.http` files, with its secrets replaced. Adds headers with the
/// verdicts of the checks, because a check that needs a secret cannot be repeated without the secret.
pub fn redacted_request(request: Request<'_>, verdicts: &Verdicts) -> String {
    let known = Known::of(&request);
    let body = request.body.and_then(|body| redacted_body(&request, &known, body));
    let mut out = format!("{} {} HTTP/1.1\r\n", request.head.method, target(&request, &known));
    let mut line = |name: &HeaderName, value: &str| {
        out.push_str(name.as_str());
        out.push_str(": ");
        out.push_str(value);
        out.push_str("\r\n");
    };
    for (name, value) in request.head.headers {
        // Omits `Transfer-Encoding` and `Connection`: they describe the connection to the caller, not the request.
        // Omits `Callgate-*` headers of the caller, because only Callgate may write these headers.
        let is_dropped =
            [TRANSFER_ENCODING, CONNECTION].contains(name) || name.as_str().starts_with("callgate-");
        if !is_dropped && (*name != CONTENT_LENGTH || body.is_err()) {
            line(name, &header(&request, &known, verdicts, name, value));
        }
    }
    match &body {
        Ok(body) => line(&CONTENT_LENGTH, &body.len().to_string()),
        Err(why) => line(&BODY_HEADER, why),
    }
    for (name, value) in verdicts.headers() {
        line(&name, &value);
    }
    out.push_str("\r\n");
    out.push_str(body.as_deref().unwrap_or_default());
    out
}

/// Returns the value of a request header for the `.http` file, without secrets.
fn header(
    request: &Request<'_>,
    known: &Known,
    verdicts: &Verdicts,
    name: &HeaderName,
    value: &HeaderValue,
) -> String {
    let text = String::from_utf8_lossy(value.as_bytes());
    if !is_secret_header(request, name) {
        return known.remove_from(&text, IN_BODY);
    }
    let verdict = if carries(request.route, name) {
        verdicts.verdict("token")
    } else {
        let head =
            verdicts.verdict("signature_headers").filter(|verdict| !matches!(*verdict, "pass" | "skip"));
        head.or_else(|| verdicts.verdict("signature"))
    };
    let redacted = verdict.map_or_else(|| IN_BODY.to_owned(), |verdict| format!("[redacted: {verdict}]"));
    match text.split_once(' ').filter(|(scheme, _)| *name == AUTHORIZATION && is_scheme(scheme)) {
        Some((scheme, _)) => format!("{scheme} {redacted}"),
        None => redacted,
    }
}

/// Reports whether a text is the name of a common authentication scheme, such as `Bearer`. A text that is not such a
/// name could be a part of a secret.
fn is_scheme(text: &str) -> bool {
    ["basic", "bearer", "digest", "token"].iter().any(|scheme| text.eq_ignore_ascii_case(scheme))
}

/// Returns the request target without secrets. The path of the returned target matches the same route as the original
/// path.
fn target(request: &Request<'_>, known: &Known) -> String {
    let path = match request.route {
        Some((_, captures)) => captures.redacted_path(),
        None => redact_path(request.head.raw_path()),
    };
    let path = path.replace("[token]", IN_TARGET).replace("[redacted]", IN_TARGET);
    let path = known.remove_from(&path, IN_TARGET);
    let Some(query) = request.head.raw_query() else { return path };
    let pair = |pair: &str| match pair.split_once('=') {
        Some((name, _)) if is_secret_parameter(request.route, name) => format!("{name}={IN_TARGET}"),
        _ => known.remove_from(pair, IN_TARGET),
    };
    let pairs: Vec<_> = query.split('&').map(pair).collect();
    format!("{path}?{}", pairs.join("&"))
}
