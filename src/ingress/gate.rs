//! The checks of a gate, in the order they run: method, declared size, client address, token, signature
//! headers. The order is fixed here; a route only says what each of them holds.

use std::borrow::Cow;
use std::net::IpAddr;

use http::HeaderName;

use super::route::{Carrier, Route, TokenRule};
use crate::denial::{Denial, Refusal};
use crate::path::{Captures, Parameter, TOKEN_CAPTURE, parameter};
use crate::request::{RequestHead, Single};
use crate::secret::Secret;
use crate::signature::Presented;
use crate::source::SourceFault;
use crate::time::Timestamp;
use crate::token::Granted;
use crate::trail::{Check, Trail};

/// What the checks found out, as far as they got.
#[derive(Clone, Debug, Default)]
pub(super) struct Found {
    /// What a token of ours grants.
    pub(super) granted: Option<Granted>,
    /// The signature fields.
    pub(super) presented: Option<Presented>,
    /// The class of what the guard refused.
    pub(super) guarded: Option<&'static str>,
    /// The verified token: wherever it stands on the request, it is not passed on.
    pub(super) token: Option<Secret>,
}

/// Runs every check that needs the head alone; the client address is the one that was allowed.
pub(super) fn run(
    route: &Route,
    captures: &Captures,
    client: Result<IpAddr, SourceFault>,
    head: &RequestHead<'_>,
    now: Timestamp,
    found: &mut Found,
    trail: &mut Trail,
) -> Result<IpAddr, Denial> {
    method(route, head, trail)?;
    size(route, head, trail)?;
    let client = address(route, client, trail)?;
    token(route, captures, head, now, found, trail)?;
    found.presented = signature_headers(route, head, now, trail)?;
    Ok(client)
}

fn method(route: &Route, head: &RequestHead<'_>, trail: &mut Trail) -> Result<(), Denial> {
    if route.methods.iter().any(|method| method.as_str() == head.method) {
        trail.pass(Check::Method, || head.method.to_owned());
        return Ok(());
    }
    Err(trail.deny(Check::Method, Denial::MethodNotAllowed, || {
        format!("{} is none of {:?}", head.method, route.methods)
    }))
}

fn size(route: &Route, head: &RequestHead<'_>, trail: &mut Trail) -> Result<(), Denial> {
    let limit = route.body_bytes_max;
    match head.body_bytes_declared {
        Some(declared) if declared > limit => Err(trail.deny(Check::Size, Denial::BodyTooLarge, || {
            format!("{declared} bytes declared, {limit} allowed")
        })),
        Some(declared) => {
            trail.pass(Check::Size, || format!("{declared} bytes declared, {limit} allowed"));
            Ok(())
        }
        None => {
            trail.skip(Check::Size, "no length declared; the body is counted as it comes");
            Ok(())
        }
    }
}

fn address(route: &Route, client: Result<IpAddr, SourceFault>, trail: &mut Trail) -> Result<IpAddr, Denial> {
    let client = client
        .map_err(|fault| trail.deny(Check::Address, Denial::AddressUnreadable, || fault.to_string()))?;
    let Some(provider) = &route.provider else {
        trail.skip(Check::Address, "the route has no provider");
        return Ok(client);
    };
    match &provider.allow {
        None => trail.skip(Check::Address, "the provider has no allowlist"),
        Some(allow) if allow.contains(client) => {
            trail.pass(Check::Address, || format!("{client} is allowed for {}", provider.name));
        }
        Some(allow) => {
            return Err(trail.deny(Check::Address, Denial::AddressNotAllowed, || {
                format!("{client} is in none of the {} networks of {}", allow.len(), provider.name)
            }));
        }
    }
    Ok(client)
}

fn token(
    route: &Route,
    captures: &Captures,
    head: &RequestHead<'_>,
    now: Timestamp,
    found: &mut Found,
    trail: &mut Trail,
) -> Result<(), Denial> {
    let Some(rule) = &route.token else {
        trail.skip(Check::Token, "the route asks for no token");
        return Ok(());
    };
    let verdict = match rule {
        TokenRule::Callback { carriers, verifier } => find(carriers, captures, head).and_then(|token| {
            let granted = verifier.verify(&token, &route.name, captures.iter(), now)?;
            found.token = Some(Secret::new(token.into_owned().into_bytes()));
            Ok(Some(granted))
        }),
        TokenRule::Jwt { carriers, verifier } => find(carriers, captures, head).and_then(|token| {
            verifier.verify(&token, |name| captures.value(name), now)?;
            found.token = Some(Secret::new(token.into_owned().into_bytes()));
            Ok(None)
        }),
        TokenRule::Static { header, secrets } => {
            let value = one_header(head, header);
            value.and_then(|value| {
                // Every secret is compared, so that the time does not tell which one matched.
                let matches = secrets.iter().filter(|secret| secret.matches(value)).count();
                let mismatch =
                    || Refusal::new(Denial::TokenMismatch, format!("{header} equals none of the secrets"));
                if matches == 0 { Err(mismatch()) } else { Ok(None) }
            })
        }
    };
    match verdict {
        Ok(granted) => {
            trail.pass(Check::Token, || match &granted {
                Some(granted) => {
                    format!(
                        "bound to {captures}, interaction {}, until {}",
                        granted.interaction, granted.expires
                    )
                }
                None => "genuine".to_owned(),
            });
            found.granted = granted;
            Ok(())
        }
        Err(refusal) => Err(trail.deny(Check::Token, refusal.denial, || refusal.detail.into_owned())),
    }
}

/// The one token on the request: none is missing, two are one too many, wherever they came.
fn find<'a>(
    carriers: &[Carrier],
    captures: &'a Captures,
    head: &RequestHead<'a>,
) -> Result<Cow<'a, str>, Refusal> {
    let mut found = None;
    for carrier in carriers {
        let Some(token) = carried(carrier, captures, head)? else { continue };
        if found.replace(token).is_some() {
            return Err(Refusal::new(Denial::TokenDuplicated, "a token in more than one place"));
        }
    }
    found.ok_or_else(|| Refusal::new(Denial::TokenMissing, format!("no token in {}", listed(carriers))))
}

fn listed(carriers: &[Carrier]) -> String {
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

/// The credentials behind `Bearer` (RFC 6750 section 2.1), whose case does not matter.
fn bearer(value: &str) -> Option<&str> {
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim_start_matches(' '))
}

fn signature_headers(
    route: &Route,
    head: &RequestHead<'_>,
    now: Timestamp,
    trail: &mut Trail,
) -> Result<Option<Presented>, Denial> {
    let Some(verifier) = route.provider.as_ref().and_then(|provider| provider.verifier.as_ref()) else {
        trail.skip(Check::SignatureHeaders, "the provider does not sign");
        return Ok(None);
    };
    match verifier.present(head, now) {
        Ok(presented) => {
            trail.pass(Check::SignatureHeaders, || "present and fresh".to_owned());
            Ok(Some(presented))
        }
        Err(refusal) => {
            Err(trail.deny(Check::SignatureHeaders, refusal.denial, || refusal.detail.into_owned()))
        }
    }
}
