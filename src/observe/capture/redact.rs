//! Writes a captured request in the format of `.http` files, without tokens, secrets and signatures.
//!
//! These values are replaced: the places in which the route expects a token and the provider sends its proof; headers,
//! query parameters and members of the body whose names are those of secrets; JWTs; and all occurrences of a value that
//! was replaced elsewhere, and of the secrets of the route and its provider. A body that cannot be searched is left out.

use std::collections::BTreeSet;

use http::header::{AUTHORIZATION, CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{HeaderName, HeaderValue};
use serde_json::Value;

use super::verdicts::{BODY_HEADER, Verdicts};
use crate::ingress::{Carrier, Route, TokenRule};
use crate::observe::redact_path;
use crate::path::{Captures, TOKEN_CAPTURE};
use crate::query::raw_values;
use crate::request::RequestHead;
use crate::signature::{JwtPlace, Proof, Scheme, SharedSecretPlace, SignaturePlace};

/// The replacement in the target, where brackets are not allowed.
const IN_TARGET: &str = "redacted";
/// The replacement in a body.
const IN_BODY: &str = "[redacted]";
/// The shortest value that is also replaced elsewhere. Shorter texts occur by chance.
const VALUE_BYTES_MIN: usize = 8;
/// Parts of the names of headers, parameters and members that contain a secret.
const SECRET_NAMES: [&str; 20] = [
    "apikey",
    "api-key",
    "api_key",
    "assertion",
    "auth",
    "code",
    "cookie",
    "credential",
    "hmac",
    "jwt",
    "key",
    "passw",
    "proof",
    "secret",
    "session",
    "sig",
    "sha1",
    "sha256",
    "token",
    "verification",
];
/// The same for members of a body, where more names have another meaning.
const SECRET_MEMBERS: [&str; 10] = [
    "apikey",
    "api_key",
    "authorization",
    "cookie",
    "credential",
    "passw",
    "private_key",
    "secret",
    "signature",
    "token",
];

/// A request and what is known about it.
#[derive(Clone, Copy, Debug)]
pub struct Request<'r> {
    /// The head as received.
    pub head: &'r RequestHead<'r>,
    /// The body, or the reason why there is none.
    pub body: Result<&'r [u8], &'static str>,
    /// The route and the captures of the path. `None` if no route has this path.
    pub route: Option<(&'r Route, &'r Captures)>,
}

/// Returns the redacted request. The verdicts of the checks take the place of the values that were removed.
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
        // The body is written without a transfer coding. Only Callgate may write `Callgate-*` headers.
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

/// The values that must not appear anywhere in the file.
struct Known(Vec<String>);

impl Known {
    fn of(request: &Request<'_>) -> Self {
        let (head, mut values) = (request.head, BTreeSet::new());
        let mut add = |value: &[u8]| {
            if let Ok(text) = std::str::from_utf8(value) {
                values.insert(text.trim().to_owned());
            }
        };
        for (name, value) in head.headers.iter().filter(|(name, _)| is_secret_header(request, name)) {
            add(value.as_bytes());
            // The credentials alone, without the authentication scheme.
            if let Some((_, credentials)) = value.to_str().ok().and_then(|text| text.split_once(' ')) {
                let is_credentials = *name == AUTHORIZATION || carries(request.route, name);
                if is_credentials {
                    add(credentials.as_bytes());
                }
            }
        }
        let query = head.raw_query().unwrap_or_default();
        for (name, value) in query.split('&').filter_map(|pair| pair.split_once('=')) {
            if is_secret_parameter(request.route, name) {
                add(value.as_bytes());
                add(percent_encoding::percent_decode_str(value).collect::<Vec<_>>().as_slice());
            }
        }
        if let Some((route, captures)) = request.route {
            captures.value(TOKEN_CAPTURE).into_iter().for_each(|token| add(token.as_bytes()));
            route
                .secret_parameters()
                .flat_map(|name| raw_values(query, name))
                .for_each(|value| add(value.as_bytes()));
            if let Some(TokenRule::Static { secrets, .. }) = &route.token {
                secrets.iter().for_each(|secret| add(secret.expose()));
            }
            let verifier = route.verifier();
            verifier.iter().flat_map(|verifier| verifier.secrets()).for_each(|secret| add(secret.expose()));
        }
        values.retain(|value| value.len() >= VALUE_BYTES_MIN);
        // A longer value may contain a shorter one, and is replaced first.
        let mut values: Vec<_> = values.into_iter().collect();
        values.sort_by_key(|value| std::cmp::Reverse(value.len()));
        Self(values)
    }

    /// Replaces the known values and all JWTs in a text.
    fn remove_from(&self, text: &str, replacement: &str) -> String {
        let text =
            self.0.iter().fold(text.to_owned(), |text, value| text.replace(value.as_str(), replacement));
        without_jwts(&text, replacement)
    }
}

/// Replaces everything that looks like a JWT, or begins like one.
fn without_jwts(text: &str, replacement: &str) -> String {
    let is_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '=' | '~');
    let (mut out, mut rest) = (String::with_capacity(text.len()), text);
    while let Some((before, token)) = rest.find("eyJ").and_then(|at| rest.split_at_checked(at)) {
        out.push_str(before);
        out.push_str(replacement);
        rest = token.trim_start_matches(is_part);
    }
    out.push_str(rest);
    out
}

fn is_secret_name(name: &str, parts: &[&str]) -> bool {
    let name = name.to_ascii_lowercase();
    // The time of a signature is no secret, and its age cannot be checked without it.
    parts.iter().any(|part| name.contains(part)) && !name.contains("timestamp") && !name.contains("digest")
}

/// Reports whether a header carries the token of the route.
fn carries(route: Option<(&Route, &Captures)>, name: &HeaderName) -> bool {
    route
        .and_then(|(route, _)| route.token.as_ref())
        .is_some_and(|rule| rule.headers().any(|header| header == name))
}

fn is_secret_header(request: &Request<'_>, name: &HeaderName) -> bool {
    let scheme = request.route.and_then(|(route, _)| route.verifier()).map(|verifier| verifier.scheme());
    let is_proof = scheme.is_some_and(|scheme| scheme.proof_headers().contains(name));
    let is_event_id = scheme.is_some_and(|scheme| scheme.id_header() == Some(name));
    let named = is_secret_name(name.as_str(), &SECRET_NAMES);
    is_proof || carries(request.route, name) || (named && !is_event_id)
}

fn is_secret_parameter(route: Option<(&Route, &Captures)>, name: &str) -> bool {
    let listed = route.is_some_and(|(route, _)| {
        let carried = route.token.iter().flat_map(TokenRule::carriers);
        carried.into_iter().any(|carrier| matches!(carrier, Carrier::Query(query) if **query == *name))
            || route.secret_parameters().any(|secret| secret == name)
    });
    listed || is_secret_name(name, &SECRET_NAMES)
}

/// Returns the value of a header in the file.
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

/// Reports whether a text is a usual name of an authentication scheme, and not a part of a secret.
fn is_scheme(text: &str) -> bool {
    ["basic", "bearer", "digest", "token"].iter().any(|scheme| text.eq_ignore_ascii_case(scheme))
}

/// Returns the target without secrets. The path keeps its form, so that the same route has it.
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

// === Body ===

/// Returns the body without secrets, or the reason why it is left out.
fn redacted_body(request: &Request<'_>, known: &Known, body: &[u8]) -> Result<String, &'static str> {
    let head = request.head;
    if head.headers.contains_key(CONTENT_ENCODING) {
        return Err("left out: it is compressed");
    }
    let text = std::str::from_utf8(body).map_err(|_| "left out: it is not text")?;
    let scheme = request.route.and_then(|(route, _)| route.verifier()).map(|verifier| verifier.scheme());
    let place = scheme.map_or(BodyPlace::None, BodyPlace::of);
    if matches!(place, BodyPlace::Whole) {
        return Err("left out: it is a token");
    }
    if let Ok(mut value) = serde_json::from_str::<Value>(text) {
        let mut found = Vec::new();
        place.remove_from(&mut value, &mut found);
        remove_members(&mut value, &mut found);
        if found.is_empty() {
            return Ok(known.remove_from(text, IN_BODY));
        }
        found.retain(|secret| secret.len() >= VALUE_BYTES_MIN);
        found.extend(known.0.iter().cloned());
        return Ok(Known(found).remove_from(&value.to_string(), IN_BODY));
    }
    if head.is_form() {
        if !text.contains('=') || text.contains("\r\n") {
            return Err("left out: it is a form with several parts");
        }
        let is_field = |name: &str| matches!(place, BodyPlace::Field(field) if *field == *name);
        let pair = |pair: &str| match pair.split_once('=') {
            Some((name, _)) if is_field(name) || is_secret_name(name, &SECRET_NAMES) => {
                format!("{name}={IN_TARGET}")
            }
            _ => known.remove_from(pair, IN_TARGET),
        };
        return Ok(text.split('&').map(pair).collect::<Vec<_>>().join("&"));
    }
    match place {
        BodyPlace::None => Ok(known.remove_from(text, IN_BODY)),
        _ => Err("left out: the signature is in it, and it is not JSON"),
    }
}

/// The place of the provider's proof, if it is in the body.
enum BodyPlace<'s> {
    None,
    Member(&'s str),
    Each(&'s str, &'s str),
    Field(&'s str),
    Whole,
}

impl<'s> BodyPlace<'s> {
    fn of(scheme: &'s Scheme) -> Self {
        let at = |place: &'s SignaturePlace| match place {
            SignaturePlace::Body(pointer) => Self::Member(pointer.as_str()),
            SignaturePlace::Form(name) => Self::Field(name),
            SignaturePlace::Headers { .. } | SignaturePlace::Query(_) => Self::None,
        };
        match &scheme.proof {
            Proof::Content(content) => at(&content.place),
            Proof::Jwt(jwt) => match &jwt.place {
                JwtPlace::At(place) => at(place),
                JwtPlace::WholeBody => Self::Whole,
            },
            Proof::SharedSecret(SharedSecretPlace::At(place)) => at(place),
            Proof::SharedSecret(SharedSecretPlace::Each { list, member }) => {
                Self::Each(list.as_str(), member.as_str())
            }
            Proof::Sns => Self::Member("/Signature"),
            Proof::SharedSecret(SharedSecretPlace::Basic) | Proof::MessageSignature(_) | Proof::None => {
                Self::None
            }
        }
    }

    /// Replaces the proof, and adds it to `found`.
    fn remove_from(&self, value: &mut Value, found: &mut Vec<String>) {
        match self {
            Self::Member(pointer) => value.pointer_mut(pointer).into_iter().for_each(|at| remove(at, found)),
            Self::Each(list, member) => {
                let elements = value.pointer_mut(list).and_then(Value::as_array_mut);
                for element in elements.into_iter().flatten() {
                    element.pointer_mut(member).into_iter().for_each(|at| remove(at, found));
                }
            }
            Self::None | Self::Field(_) | Self::Whole => {}
        }
    }
}

/// Replaces the values of members whose names are those of secrets, and adds them to `found`.
fn remove_members(value: &mut Value, found: &mut Vec<String>) {
    match value {
        Value::Object(members) => {
            for (name, value) in members {
                if value.is_string() && is_secret_name(name, &SECRET_MEMBERS) {
                    remove(value, found);
                } else {
                    remove_members(value, found);
                }
            }
        }
        Value::Array(elements) => elements.iter_mut().for_each(|element| remove_members(element, found)),
        _ => {}
    }
}

fn remove(value: &mut Value, found: &mut Vec<String>) {
    if let Some(text) = value.as_str().filter(|text| *text != IN_BODY) {
        found.push(text.to_owned());
    }
    *value = Value::from(IN_BODY);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_tokens_are_recognized() {
        for name in
            ["authorization", "x-api-key", "Stripe-Signature", "x-gitlab-token", "paypal-transmission-sig"]
        {
            assert!(is_secret_name(name, &SECRET_NAMES), "{name}");
        }
        for name in
            ["host", "content-type", "webhook-id", "webhook-timestamp", "x-slack-request-timestamp", "date"]
        {
            assert!(!is_secret_name(name, &SECRET_NAMES), "{name}");
        }
        let text = without_jwts("a eyJhbGciOiJIUzI1NiJ9.e30.c2ln\" b eyJ", "X");
        assert_eq!(text, "a X\" b X");
    }

    #[test]
    fn members_of_a_body_are_removed_wherever_their_value_occurs() {
        let mut value: Value = serde_json::from_str(
            r#"{"a":[{"access_token":"s3cret-value"}],"total_tokens":7,"Token":"longer-token","text":"see longer-token"}"#,
        )
        .unwrap();
        let mut found = Vec::new();
        remove_members(&mut value, &mut found);
        let text = Known(found).remove_from(&value.to_string(), IN_BODY);
        assert!(!text.contains("s3cret") && !text.contains("longer-token"), "{text}");
        assert!(text.contains("\"total_tokens\":7"), "{text}");
    }
}
