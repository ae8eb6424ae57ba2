//! The checks of a route that need only the head of a request. They run in this fixed order: method, declared size,
//! client address, client certificate, token, signature headers. A route configures only what each check accepts.

mod token;

use std::net::IpAddr;

use super::edge::Edge;
use super::route::{Route, TokenRule};
use crate::body::content_coding::ContentCoding;
use crate::denial::{Denial, Refusal};
use crate::path::Captures;
use crate::request::RequestHead;
use crate::secret::Secret;
use crate::signature::{PresentedSignature, SignatureContext, VerifierKeys};
use crate::source::{ListUnavailable, Lists, SourceFault};
use crate::time::Timestamp;
use crate::token::Granted;
use crate::trail::{Check, Trail};
use token::{listed, named_interaction, verify_token};

/// The results of the checks that have run so far for one request.
#[derive(Clone, Debug, Default)]
pub(super) struct Found {
    /// The rights that the verified callback token grants. `None` if no callback token was verified.
    pub(super) granted: Option<Granted>,
    /// The id of the interaction of a callback without a token. The ledger found the interaction by the provider's task
    /// id.
    pub(super) matched: Option<Box<str>>,
    /// The id of the interaction in a denied token whose signature is valid. It is used only for the log.
    pub(super) named: Option<Box<str>>,
    /// The provider's event id, if the callback was verified. It is used only for the log.
    pub(super) event_id: Option<Box<str>>,
    /// The position of the secret that verified the request, starting at 1. `None` if only one secret is configured.
    pub(super) secret: Option<usize>,
    /// The signature, the timestamp and the event id from the head of the request.
    pub(super) presented: Option<PresentedSignature>,
    /// The reason for which the action endpoint was denied, as a stable name. `None` if it was not denied.
    pub(super) guarded: Option<&'static str>,
    /// Whether only a handshake is accepted, because the route does not list the method of the request.
    pub(super) only_handshake: bool,
    /// The signing secrets that are derived for the interaction in the token.
    pub(super) derived: Vec<Secret>,
    /// The denial of a request without a signature. Callgate denies the request only after its body was read, because
    /// the body may show that the request is an unsigned handshake.
    pub(super) unsigned: Option<Refusal>,
    /// The URL of the certificate that is needed to verify the signature, if the certificate has not been fetched yet.
    pub(super) wanted: Option<Box<str>>,
    /// The verified token. Callgate removes the token from the delivered request wherever it occurs. `None` if there is
    /// no token to remove.
    pub(super) token: Option<Secret>,
    /// The content coding of the received body, if the body was decoded.
    pub(super) coding: Option<ContentCoding>,
    /// The decoded body, if `coding` is set.
    pub(super) decoded: Vec<u8>,
    /// The state of decoding the body.
    pub(super) decoding: Decoding,
    /// The denials that observe mode recorded instead of enforcing them.
    pub(super) observed: Vec<Denial>,
}

/// The state of decoding the body of a request.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) enum Decoding {
    /// [`Admitted::decode_body`](crate::ingress::Admitted::decode_body) has not been called yet.
    #[default]
    Pending,
    /// The body was decoded, or does not need to be decoded.
    Done,
    /// The body could not be decoded, and observe mode only recorded the denial.
    Failed,
}

impl Found {
    /// Returns the id of the interaction, or `None` if no interaction is known. The id comes from the token. For a
    /// callback without a token, the ledger found the interaction by the provider's task id.
    pub(super) fn interaction(&self) -> Option<&str> {
        self.granted.as_ref().map(|granted| &*granted.interaction).or(self.matched.as_deref())
    }

    /// Handles the result of a check. Returns the value of a check that passed. In enforce mode, returns the denial of
    /// a check that failed. In observe mode, records this denial and returns `Ok(None)`.
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

/// The input of the checks of the head of a request.
#[derive(Clone, Copy)]
pub(super) struct Run<'r> {
    pub(super) route: &'r Route,
    pub(super) captures: &'r Captures,
    pub(super) head: &'r RequestHead<'r>,
    pub(super) now: Timestamp,
    pub(super) edge: &'r Edge,
}

impl Run<'_> {
    /// Runs all checks of the head of a request. Returns the client address.
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
            let methods: Vec<_> = route.path_methods.iter().map(http::Method::as_str).collect();
            format!("the method is not one of {}", methods.join(", "))
        }))
    }

    fn token(&self, found: &mut Found, trail: &mut Trail) -> Result<(), Denial> {
        match verify_token(self.route, self.captures, self.head, self.now) {
            Ok(_) if self.route.token.is_none() => {
                trail.skip(Check::Token, "the route requires no token");
            }
            Ok(verified) => {
                (found.granted, found.token) = (verified.granted, verified.token);
                found.secret = verified.secret;
                trail.pass(Check::Token, || match &found.granted {
                    Some(granted) if granted.is_opaque => format!(
                        "opaque, bound to {}, interaction {}; only the ledger knows its lifetime and its uses",
                        self.captures, granted.interaction
                    ),
                    Some(granted) => format!(
                        "bound to {}, interaction {}, until {}",
                        self.captures, granted.interaction, granted.expires
                    ),
                    None => match &self.route.token {
                        Some(TokenRule::Static { carriers, .. }) => {
                            format!("{} equals a secret", listed(carriers))
                        }
                        _ => "the signature and the claims of the JWT are valid".to_owned(),
                    },
                });
            }
            // A provider that sends a handshake has no token yet. Callgate verifies the handshake in another way, for
            // example by its verify token.
            Err(refusal) if found.only_handshake && refusal.denial == Denial::TokenMissing => {
                trail.skip(Check::Token, "a handshake has no token");
            }
            Err(refusal) => {
                if matches!(refusal.denial, Denial::TokenExpired | Denial::TokenBinding) {
                    found.named = named_interaction(self.route, self.captures, self.head);
                }
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
            public_url: self.route.public_url(self.edge),
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
            // The request may be an unsigned handshake. The check of the body decides whether this is the case.
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
    // Most routes require no client certificate. The trail (the list of checks for `callgate explain` and the log) of
    // these routes does not contain this check.
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
