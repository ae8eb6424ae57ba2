//! The token check of a route.

use std::borrow::Cow;

use http::HeaderName;

use crate::denial::{Denial, Refusal};
use crate::ingress::route::{Carrier, Route, TokenRule};
use crate::path::{Captures, Parameter, TOKEN_CAPTURE, parameter};
use crate::request::{RequestHead, Single};
use crate::secret::Secret;
use crate::time::Timestamp;
use crate::token::Granted;

/// The result of a successful token check.
#[derive(Default)]
pub(super) struct VerifiedToken {
    /// The rights that a callback token grants. `None` for other kinds of tokens.
    pub(super) granted: Option<Granted>,
    /// The token. Callgate removes it from the delivered request wherever it occurs. `None` if there is no token to
    /// remove.
    pub(super) token: Option<Secret>,
    /// The position of the configured static token that the request contains, starting at 1. `None` if only one static
    /// token is configured.
    pub(super) secret: Option<usize>,
}

/// Verifies the token of a request, if the route requires one.
pub(super) fn verify_token(
    route: &Route,
    captures: &Captures,
    head: &RequestHead<'_>,
    now: Timestamp,
) -> Result<VerifiedToken, Refusal> {
    let Some(rule) = &route.token else { return Ok(VerifiedToken::default()) };
    match rule {
        TokenRule::Callback { carriers, verifier } => {
            let token = find(carriers, captures, head)?;
            let granted = verifier
                .verify(&token, &route.name, captures.iter(), now)
                .map_err(|refusal| with_appended_text(refusal, &token))?;
            let token = Some(Secret::new(token.into_owned().into_bytes()));
            Ok(VerifiedToken { granted: Some(granted), token, secret: None })
        }
        TokenRule::Jwt { carriers, verifier } => {
            let token = find(carriers, captures, head)?;
            verifier
                .verify(&token, |name| captures.value(name), now)
                .map_err(|refusal| with_appended_text(refusal, &token))?;
            let token = Some(Secret::new(token.into_owned().into_bytes()));
            Ok(VerifiedToken { granted: None, token, secret: None })
        }
        TokenRule::Static { carriers, secrets } => {
            let (position, token) = equals_secret(carriers, secrets, captures, head)?;
            Ok(VerifiedToken { granted: None, token, secret: (secrets.len() > 1).then_some(position) })
        }
    }
}

/// Returns the id of the interaction in a denied token, if the signature of the token is valid.
pub(super) fn named_interaction(
    route: &Route,
    captures: &Captures,
    head: &RequestHead<'_>,
) -> Option<Box<str>> {
    let Some(TokenRule::Callback { carriers, verifier }) = &route.token else { return None };
    verifier.named_interaction(&find(carriers, captures, head).ok()?)
}

/// Compares the token of a request with the static tokens of a route. Returns the position of the equal static token,
/// starting at 1. Also returns the token of the request, so that Callgate can remove it from the delivered request. If
/// a header is the only possible location of the token, returns no token, because Callgate always removes this header.
/// All static tokens are compared, so that the response time does not reveal which static token is equal.
fn equals_secret(
    carriers: &[Carrier],
    secrets: &[Secret],
    captures: &Captures,
    head: &RequestHead<'_>,
) -> Result<(usize, Option<Secret>), Refusal> {
    // Compares with all secrets, even after an equal secret was found.
    let position = |matches: &dyn Fn(&Secret) -> bool| {
        secrets
            .iter()
            .enumerate()
            .filter(|(_, secret)| matches(secret))
            .fold(None, |first, (i, _)| first.or(Some(i + 1)))
    };
    let (matches, token) = match carriers {
        [Carrier::Header(header)] => {
            let value = one_header(head, header)?;
            let matches = |secret: &Secret| match *header == http::header::AUTHORIZATION {
                true => secret.matches_authorization(value),
                false => secret.matches(value),
            };
            (position(&matches), None)
        }
        _ => {
            let token = find(carriers, captures, head)?;
            let matches = position(&|secret| secret.matches(token.as_bytes()));
            (matches, Some(Secret::new(token.into_owned().into_bytes())))
        }
    };
    let Some(position) = matches else {
        let detail = format!("{} equals none of the {} secrets", listed(carriers), secrets.len());
        return Err(Refusal::new(Denial::TokenMismatch, detail));
    };
    Ok((position, token))
}

/// Adds a likely cause to the refusal if `token` contains a character that never occurs in a token. The likely cause is
/// that the sender appended text to the token or to the URL.
fn with_appended_text(refusal: Refusal, token: &str) -> Refusal {
    let cause = match token.find(['?', '&', '/', '#', ' ', '"', '<', '>', ',']).map(|at| token.get(at..)) {
        None => return refusal,
        Some(Some(rest)) if rest.starts_with('?') => {
            "likely cause: the sender appended `?` and parameters to the callback URL, which already has a query; \
             give it the token in the path or in a header"
        }
        Some(_) => "likely cause: the sender appended text to the token or to the callback URL",
    };
    Refusal::new(refusal.denial, format!("{}; {cause}", refusal.detail))
}

/// Returns the token of the request. Exactly one of the possible locations (the carriers) must contain a token.
fn find<'a>(
    carriers: &[Carrier],
    captures: &'a Captures,
    head: &RequestHead<'a>,
) -> Result<Cow<'a, str>, Refusal> {
    let mut found = None;
    for carrier in carriers {
        let Some(token) = carried(carrier, captures, head)? else { continue };
        if found.replace(token).is_some() {
            return Err(Refusal::new(
                Denial::TokenDuplicated,
                "the request has a token in more than one place",
            ));
        }
    }
    found.ok_or_else(|| Refusal::new(Denial::TokenMissing, format!("no token in {}", listed(carriers))))
}

pub(super) fn listed(carriers: &[Carrier]) -> String {
    carriers.iter().map(Carrier::to_string).collect::<Vec<_>>().join(" or ")
}

fn carried<'a>(
    carrier: &Carrier,
    captures: &'a Captures,
    head: &RequestHead<'a>,
) -> Result<Option<Cow<'a, str>>, Refusal> {
    match carrier {
        Carrier::Bearer => match head.single(&http::header::AUTHORIZATION) {
            Single::Missing => Ok(None),
            Single::Several => Err(duplicated(&http::header::AUTHORIZATION)),
            Single::One(value) => Ok(value.to_str().ok().and_then(bearer).map(Cow::Borrowed)),
        },
        Carrier::Header(name) => match head.single(name) {
            Single::Missing => Ok(None),
            Single::Several => Err(duplicated(name)),
            Single::One(value) => match value.to_str() {
                Ok(text) => Ok(Some(Cow::Borrowed(text))),
                Err(_) => Err(Refusal::new(Denial::TokenMalformed, format!("{name} is not visible ASCII"))),
            },
        },
        Carrier::Path => Ok(captures.value(TOKEN_CAPTURE).map(Cow::Borrowed)),
        Carrier::Query(name) => {
            match head.raw_query().map_or(Parameter::Missing, |query| parameter(query, name)) {
                Parameter::Missing => Ok(None),
                Parameter::One(value) => Ok(Some(value)),
                Parameter::Several => {
                    Err(Refusal::new(Denial::TokenDuplicated, format!("more than one {name} in the query")))
                }
            }
        }
    }
}

fn one_header<'a>(head: &RequestHead<'a>, name: &HeaderName) -> Result<&'a [u8], Refusal> {
    match head.single(name) {
        Single::Missing => Err(Refusal::new(Denial::TokenMissing, format!("no {name} header"))),
        Single::Several => Err(duplicated(name)),
        Single::One(value) => Ok(value.as_bytes()),
    }
}

fn duplicated(name: &HeaderName) -> Refusal {
    Refusal::new(Denial::HeaderDuplicated, format!("{name} occurs more than once"))
}

/// Returns the credentials from an `Authorization: Bearer` header (RFC 6750 section 2.1). The scheme name is
/// case-insensitive. Returns `None` for another scheme.
fn bearer(value: &str) -> Option<&str> {
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim_start_matches(' '))
}
