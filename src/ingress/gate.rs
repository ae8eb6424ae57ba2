//! The checks of a gate that need only the head of a request. They run in this order: method, declared size, client
//! address, client certificate, token, signature headers. The order is fixed in this file. A route only configures the
//! checks.

use std::borrow::Cow;
use std::net::IpAddr;

use http::HeaderName;

use super::edge::Edge;
use super::route::{Carrier, Route, TokenRule};
use crate::denial::{Denial, Refusal};
use crate::path::{Captures, Parameter, TOKEN_CAPTURE, parameter};
use crate::request::{RequestHead, Single};
use crate::secret::Secret;
use crate::signature::{PresentedSignature, SignatureContext, VerifierKeys};
use crate::source::{ListUnavailable, Lists, SourceFault};
use crate::time::Timestamp;
use crate::token::Granted;
use crate::trail::{Check, Trail};

/// The results of the checks that have run so far.
#[derive(Clone, Debug, Default)]
pub(super) struct Found {
    /// The rights of the verified callback token.
    pub(super) granted: Option<Granted>,
    /// The signature, the timestamp and the event id in the head.
    pub(super) presented: Option<PresentedSignature>,
    /// The name of the guard's reason for denying the action endpoint.
    pub(super) guarded: Option<&'static str>,
    /// True if the route does not list the request's method. The request is then denied unless it is a handshake.
    pub(super) only_handshake: bool,
    /// The derived signing secrets of the interaction that the token names.
    pub(super) derived: Vec<Secret>,
    /// The denial of a request without a signature. Callgate applies the denial later, unless the body shows that the
    /// request is an unsigned handshake.
    pub(super) unsigned: Option<Refusal>,
    /// The URL of the certificate that verifies the signature, if the certificate has not been fetched yet.
    pub(super) wanted: Option<Box<str>>,
    /// The verified token. Callgate removes it from the delivered request wherever it occurs.
    pub(super) token: Option<Secret>,
    /// The denials that observe mode recorded instead of enforcing them.
    pub(super) observed: Vec<Denial>,
}

impl Found {
    /// Returns the value or the denial of a check. In observe mode, records a denial and returns `Ok(None)` instead.
    pub(super) fn heed<T>(&mut self, route: &Route, said: Result<T, Denial>) -> Result<Option<T>, Denial> {
        match said {
            Err(denial) if route.observes() => {
                self.observed.push(denial);
                Ok(None)
            }
            said => said.map(Some),
        }
    }
}

/// The input of the checks.
#[derive(Clone, Copy)]
pub(super) struct Run<'r> {
    pub(super) route: &'r Route,
    pub(super) captures: &'r Captures,
    pub(super) head: &'r RequestHead<'r>,
    pub(super) now: Timestamp,
    pub(super) edge: &'r Edge,
}

impl Run<'_> {
    /// Runs all checks of the head. Returns the client address.
    pub(super) fn run(
        &self,
        client: Result<IpAddr, SourceFault>,
        found: &mut Found,
        trail: &mut Trail,
    ) -> Result<IpAddr, Denial> {
        let route = self.route;
        let said = self.method(found, trail);
        found.heed(route, said)?;
        found.heed(route, size(route, self.head, trail))?;
        let allowed = address(route, client, &self.edge.fetched_data.lists, trail);
        let allowed = found.heed(route, allowed)?;
        found.heed(route, certificate(route, self.head, trail))?;
        let said = self.token(found, trail);
        found.heed(route, said)?;
        let said = self.signature_headers(found, trail);
        found.heed(route, said)?;
        Ok(allowed.unwrap_or_else(|| client.unwrap_or(self.head.peer)))
    }

    fn method(&self, found: &mut Found, trail: &mut Trail) -> Result<(), Denial> {
        let (route, head) = (self.route, self.head);
        if route.methods.iter().any(|method| method.as_str() == head.method) {
            trail.pass(Check::Method, || head.method.to_owned());
            return Ok(());
        }
        // A handshake can use a method that callbacks of the route do not use.
        if route.verifier().is_some_and(|verifier| verifier.may_be_handshake(head)) {
            found.only_handshake = true;
            trail.pass(Check::Method, || format!("{} is allowed for a handshake only", head.method));
            return Ok(());
        }
        Err(trail.deny(Check::Method, Denial::MethodNotAllowed, || {
            let methods: Vec<_> = route.methods.iter().map(http::Method::as_str).collect();
            format!("the method is not one of {}", methods.join(", "))
        }))
    }

    fn token(&self, found: &mut Found, trail: &mut Trail) -> Result<(), Denial> {
        match token(self.route, self.captures, self.head, self.now, found) {
            Ok(()) if self.route.token.is_none() => {
                trail.skip(Check::Token, "the route requires no token");
            }
            Ok(()) => trail.pass(Check::Token, || match &found.granted {
                Some(granted) => format!(
                    "bound to {}, interaction {}, until {}",
                    self.captures, granted.interaction, granted.expires
                ),
                None => match &self.route.token {
                    Some(TokenRule::Static { header, .. }) => format!("the header {header} equals a secret"),
                    _ => "the signature and the claims of the JWT are valid".to_owned(),
                },
            }),
            // A provider that sends a handshake has no token yet. The handshake is verified in another way, for example
            // by its verify token.
            Err(refusal) if found.only_handshake && refusal.denial == Denial::TokenMissing => {
                trail.skip(Check::Token, "a handshake has no token");
            }
            Err(refusal) => {
                return Err(trail.deny(Check::Token, refusal.denial, || refusal.detail.into_owned()));
            }
        }
        if let (Some(TokenRule::Callback { verifier, .. }), Some(granted)) =
            (&self.route.token, &found.granted)
            && self.route.verifier().is_some_and(|verifier| matches!(verifier.keys(), VerifierKeys::Derived))
        {
            found.derived = verifier.derived(&granted.interaction);
        }
        Ok(())
    }

    fn signature_headers(&self, found: &mut Found, trail: &mut Trail) -> Result<(), Denial> {
        let Some(verifier) = self.route.verifier().filter(|verifier| verifier.scheme().has_proof()) else {
            trail.skip(Check::SignatureHeaders, "the provider does not sign");
            return Ok(());
        };
        let signed = SignatureContext {
            head: *self.head,
            public_url: &self.edge.public_url,
            keyring: &self.edge.fetched_data.keyring,
            derived: &found.derived,
            now: self.now,
        };
        match verifier.verify_head(&signed) {
            Ok(presented) => {
                match verifier.head_checks() {
                    Some(checked) => trail.pass(Check::SignatureHeaders, || checked.to_owned()),
                    None => trail
                        .skip(Check::SignatureHeaders, "the signature is in the body, not in the headers"),
                }
                found.presented = Some(presented);
                Ok(())
            }
            // The unsigned request may be a handshake. The check of the body determines whether it is one.
            Err(refusal)
                if refusal.denial == Denial::SignatureMissing
                    && verifier.may_be_unsigned_handshake(self.head) =>
            {
                trail.skip(
                    Check::SignatureHeaders,
                    "no signature headers; the request may be an unsigned handshake",
                );
                found.unsigned = Some(refusal);
                Ok(())
            }
            Err(refusal) => {
                Err(trail.deny(Check::SignatureHeaders, refusal.denial, || refusal.detail.into_owned()))
            }
        }
    }
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
            trail.skip(
                Check::Size,
                "the request declares no length; the size is checked while the body is read",
            );
            Ok(())
        }
    }
}

fn address(
    route: &Route,
    client: Result<IpAddr, SourceFault>,
    lists: &Lists,
    trail: &mut Trail,
) -> Result<IpAddr, Denial> {
    let client = client.map_err(|fault| {
        let denial = match fault {
            SourceFault::ListUnavailable => Denial::ListUnavailable,
            SourceFault::Doubled | SourceFault::Unreadable => Denial::AddressUnreadable,
        };
        trail.deny(Check::Address, denial, || fault.to_string())
    })?;
    let Some(provider) = &route.provider else {
        trail.skip(Check::Address, "the route has no provider");
        return Ok(client);
    };
    let Some(allow) = &provider.allow else {
        trail.skip(Check::Address, "the provider has no allowlist");
        return Ok(client);
    };
    match allow.contains(client, lists) {
        Ok(true) => {
            trail.pass(Check::Address, || format!("{client} is allowed for {}", provider.name));
            Ok(client)
        }
        Ok(false) => Err(trail.deny(Check::Address, Denial::AddressNotAllowed, || {
            format!("{client} is in none of the {} networks of {}", allow.len(lists), provider.name)
        })),
        Err(ListUnavailable) => Err(trail.deny(Check::Address, Denial::ListUnavailable, || {
            format!("the published addresses of {} have not been fetched yet", provider.name)
        })),
    }
}

fn certificate(route: &Route, head: &RequestHead<'_>, trail: &mut Trail) -> Result<(), Denial> {
    // Most routes require no client certificate. On such a route, the check does not appear in the trail.
    let Some(rule) = &route.certificate else { return Ok(()) };
    match head.certificate {
        None => Err(trail.deny(Check::Certificate, Denial::ClientCertificateMissing, || {
            "the client sent no certificate that a trusted authority issued".to_owned()
        })),
        Some(shown) if rule.names.is_empty() || rule.names.iter().any(|name| shown.names.contains(name)) => {
            trail.pass(Check::Certificate, || {
                format!("the certificate is issued for {}", shown.names.join(", "))
            });
            Ok(())
        }
        Some(shown) => Err(trail.deny(Check::Certificate, Denial::ClientCertificateOther, || {
            format!(
                "the certificate is issued for {}; the route lists none of these names",
                shown.names.join(", ")
            )
        })),
    }
}

/// Verifies the token, if the route requires one.
fn token(
    route: &Route,
    captures: &Captures,
    head: &RequestHead<'_>,
    now: Timestamp,
    found: &mut Found,
) -> Result<(), Refusal> {
    let Some(rule) = &route.token else { return Ok(()) };
    let granted = match rule {
        TokenRule::Callback { carriers, verifier } => {
            let token = find(carriers, captures, head)?;
            let granted = verifier
                .verify(&token, &route.name, captures.iter(), now)
                .map_err(|refusal| with_appended_text(refusal, &token))?;
            found.token = Some(Secret::new(token.into_owned().into_bytes()));
            Some(granted)
        }
        TokenRule::Jwt { carriers, verifier } => {
            let token = find(carriers, captures, head)?;
            verifier
                .verify(&token, |name| captures.value(name), now)
                .map_err(|refusal| with_appended_text(refusal, &token))?;
            found.token = Some(Secret::new(token.into_owned().into_bytes()));
            None
        }
        TokenRule::Static { header, secrets } => {
            let value = one_header(head, header)?;
            // Compare all secrets, so that the response time does not reveal which secret matched.
            let matches = |secret: &&Secret| match *header == http::header::AUTHORIZATION {
                true => secret.matches_authorization(value),
                false => secret.matches(value),
            };
            if secrets.iter().filter(matches).count() == 0 {
                let detail = format!("the header {header} equals none of the {} secrets", secrets.len());
                return Err(Refusal::new(Denial::TokenMismatch, detail));
            }
            None
        }
    };
    found.granted = granted;
    Ok(())
}

/// If `token` contains a character that is never part of a token, adds a likely cause to the refusal: the sender
/// appended text to the token or to the URL.
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

/// Returns the token of the request. All carriers together must contain exactly one token.
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

/// Returns the credentials of a `Bearer` header (RFC 6750 section 2.1). The scheme is case-insensitive.
fn bearer(value: &str) -> Option<&str> {
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim_start_matches(' '))
}
