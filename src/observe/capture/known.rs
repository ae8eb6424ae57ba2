//! Finds the values that the `.http` file of a captured request must not contain, such as tokens and secrets.

use std::collections::BTreeSet;
use std::sync::Arc;

use http::HeaderName;
use http::header::AUTHORIZATION;

use super::text::{without_parameters, without_tokens};
use crate::ingress::{Carrier, Route, TokenRule};
use crate::path::{Captures, TOKEN_CAPTURE};
use crate::query::raw_values;
use crate::request::RequestHead;

/// The text that replaces a secret in a request target or in a form. The text must not contain brackets.
pub(super) const IN_TARGET: &str = "redacted";
/// The text that replaces a secret in a header or in a JSON body of a captured request.
pub(super) const IN_BODY: &str = "[redacted]";
/// The minimum length of a known secret, in bytes. The text of a known secret is replaced wherever it occurs in the
/// request. A shorter text could occur by chance.
pub(super) const VALUE_BYTES_MIN: usize = 8;
/// If the name of a header or of a parameter contains one of these texts, the value of the header or parameter is a
/// secret.
pub(super) const SECRET_NAMES: [&str; 20] = [
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
/// If the name of a JSON key contains one of these texts, the value of the key is a secret. The list is shorter than
/// [`SECRET_NAMES`], because many harmless JSON keys contain texts such as `code` or `key`.
pub(super) const SECRET_MEMBERS: [&str; 10] = [
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

/// The value of a JSON key with one of these names is a secret, even if the value is a number.
pub(super) const SECRET_NUMBERS: [&str; 20] = [
    "access_token",
    "api_key",
    "apikey",
    "authorization",
    "client_secret",
    "cookie",
    "credential",
    "credentials",
    "id_token",
    "passcode",
    "passphrase",
    "passwd",
    "password",
    "pin",
    "private_key",
    "refresh_token",
    "secret",
    "secret_key",
    "signature",
    "token",
];

/// A request to capture, with its route and with all configured routes.
#[derive(Clone, Copy, Debug)]
pub struct Request<'r> {
    /// The head of the request as received.
    pub head: &'r RequestHead<'r>,
    /// The body of the request, or the reason why the body is not available.
    pub body: Result<&'r [u8], &'static str>,
    /// The route of the request, with the values of its path captures. `None` if no route matches the path of the
    /// request.
    pub route: Option<(&'r Route, &'r Captures)>,
    /// All configured routes. They are needed because a caller may send a secret of another route.
    pub all: &'r [Arc<Route>],
}

/// The secret values that must not appear anywhere in the `.http` file of a captured request.
pub(super) struct Known(pub(super) Vec<String>);

impl Known {
    pub(super) fn of(request: &Request<'_>) -> Self {
        let (head, mut values) = (request.head, BTreeSet::new());
        let mut add = |value: &[u8]| {
            if let Ok(text) = std::str::from_utf8(value) {
                values.insert(text.trim().to_owned());
            }
        };
        for (name, value) in head.headers.iter().filter(|(name, _)| is_secret_header(request, name)) {
            add(value.as_bytes());
            // Adds the credentials without the authentication scheme, such as `abc` for `Bearer abc`.
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
        }
        for route in request.all {
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

    /// Returns these secret values and the values in `further`, longest value first.
    pub(super) fn with(&self, further: Vec<String>) -> Self {
        let further = further.into_iter().filter(|value| value.len() >= VALUE_BYTES_MIN && value != IN_BODY);
        let mut values: Vec<_> = self.0.iter().cloned().chain(further).collect();
        // A longer value may contain a shorter one, and is replaced first.
        values.sort_by_key(|value| std::cmp::Reverse(value.len()));
        Self(values)
    }

    /// Replaces in a text the known secret values, all tokens, and the value of each parameter whose name is the name
    /// of a secret.
    pub(super) fn remove_from(&self, text: &str, replacement: &str) -> String {
        let text =
            self.0.iter().fold(text.to_owned(), |text, value| text.replace(value.as_str(), replacement));
        let is_secret = |name: &str| is_secret_name(name, &SECRET_NAMES);
        without_tokens(&without_parameters(&text, replacement, is_secret), replacement)
    }
}

/// If a name contains one of these words as a whole word, such as `user_pin`, it is the name of a secret. Longer words
/// can contain the same letters by chance, such as `shipping`.
const SECRET_WORDS: [&str; 5] = ["bearer", "otp", "pass", "pin", "pwd"];

/// Reports whether a name is the name of a secret. The name must contain one of `parts`, or a word of [`SECRET_WORDS`],
/// but neither `timestamp` nor `digest`. The name may be percent-encoded.
pub(super) fn is_secret_name(name: &str, parts: &[&str]) -> bool {
    let name = decoded_name(name).to_ascii_lowercase().replace(['-', ' '], "_");
    let has_part = parts.iter().any(|part| name.contains(part));
    let has_word = name.split(|c: char| !c.is_ascii_alphanumeric()).any(|word| SECRET_WORDS.contains(&word));
    // Timestamps and digests are no secrets. `callgate explain` needs the timestamp to check the age of a signature.
    (has_part || has_word) && !name.contains("timestamp") && !name.contains("digest")
}

/// Decodes a percent-encoded name. `+` becomes a space.
fn decoded_name(name: &str) -> String {
    let spaced = name.replace('+', " ");
    percent_encoding::percent_decode_str(&spaced).decode_utf8_lossy().into_owned()
}

/// Reports whether the route reads its callback token from the header `name`.
pub(super) fn carries(route: Option<(&Route, &Captures)>, name: &HeaderName) -> bool {
    route
        .and_then(|(route, _)| route.token.as_ref())
        .is_some_and(|rule| rule.headers().any(|header| header == name))
}

pub(super) fn is_secret_header(request: &Request<'_>, name: &HeaderName) -> bool {
    let scheme = request.route.and_then(|(route, _)| route.verifier()).map(|verifier| verifier.scheme());
    let is_proof = scheme.is_some_and(|scheme| scheme.proof_headers().contains(name));
    let is_event_id = scheme.is_some_and(|scheme| scheme.id_header() == Some(name));
    let named = is_secret_name(name.as_str(), &SECRET_NAMES);
    is_proof || carries(request.route, name) || (named && !is_event_id)
}

pub(super) fn is_secret_parameter(route: Option<(&Route, &Captures)>, name: &str) -> bool {
    let name = decoded_name(name);
    let listed = route.is_some_and(|(route, _)| {
        let carried = route.token.iter().flat_map(TokenRule::carriers);
        carried.into_iter().any(|carrier| matches!(carrier, Carrier::Query(query) if **query == *name))
            || route.secret_parameters().any(|secret| secret == name)
    });
    listed || is_secret_name(&name, &SECRET_NAMES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_tokens_are_recognized() {
        for name in
            ["authorization", "x-api-key", "Stripe-Signature", "x-gitlab-token", "t%6fken", "x-pass", "pwd"]
        {
            assert!(is_secret_name(name, &SECRET_NAMES), "{name}");
        }
        for name in
            ["host", "content-type", "webhook-id", "webhook-timestamp", "x-slack-request-timestamp", "date"]
        {
            assert!(!is_secret_name(name, &SECRET_NAMES), "{name}");
        }
        for name in ["api-key", "private-key", "Api_Key", "apikey"] {
            assert!(is_secret_name(name, &SECRET_MEMBERS), "{name}");
        }
        for name in ["passed", "spinner", "total", "bypass", "keys"] {
            assert!(!is_secret_name(name, &SECRET_MEMBERS), "{name}");
        }
    }
}
