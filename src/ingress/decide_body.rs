//! The second part of the gate (the checks of a request). It checks the whole body, and reads the reported values from
//! the body: status, progress, event id and action endpoint.

use std::borrow::Cow;

use http::HeaderValue;

use super::decide::{Admitted, Denied, Seen};
use super::forward;
use super::head_checks::Decoding;
use super::observed::Observed;
use super::permit::Verified;
use super::route::QueryRule;
use super::streamed::Streamed;
use crate::body::form::form_fields;
use crate::denial::{Denial, Refusal};
use crate::interaction::Report;
use crate::json::find_one;
use crate::query::raw_values;
use crate::request::RequestHead;
use crate::secret::Secret;
use crate::signature::{
    AuthenticationTag, EventIdSource, HandshakeReply, PresentedSignature, SignatureContext, Verifier,
    VerifierKeys,
};
use crate::trail::{Check, Trail};

/// The maximum length of an event id, in bytes. A longer event id is ignored.
const EVENT_ID_BYTES_MAX: usize = 256;

/// The result for a request that passed all checks of its head and its body. The ledger has not checked the request
/// yet.
#[derive(Debug)]
pub enum Decided {
    /// A callback. The ledger checks it next.
    Callback(Box<Verified>),
    /// A provider's handshake. Callgate itself responds to it.
    Handshake(Box<(HandshakeReply, Seen)>),
    /// A request on a route with `stream: true`. Its body is passed on while it arrives, and is not checked.
    Streamed(Box<Streamed>),
    /// A request that Callgate delivers only because its route is in observe mode. In enforce mode, Callgate would deny
    /// the request or respond to it itself.
    Observed(Box<Observed>),
}

/// The result of the checks of the body, before [`Decided`] is built from it.
enum Body {
    Callback { tags: Vec<AuthenticationTag>, question: Option<Box<str>>, target: String },
    Handshake(HandshakeReply),
    Observed { instead: &'static str, target: String },
}

impl Admitted {
    /// Checks the whole body of the request. `head` must be the head that was checked before.
    ///
    /// # Errors
    /// Returns [`Denied`] if the body is too large or cannot be decoded, if no signature matches, or if the body
    /// contains an action endpoint that the route does not allow.
    pub fn decide_body(
        mut self: Box<Self>,
        head: &RequestHead<'_>,
        body: &[u8],
        trail: &mut Trail,
    ) -> Result<Decided, Box<Denied>> {
        if self.route.stream {
            return self.stream(head, trail).map(|streamed| Decided::Streamed(Box::new(streamed)));
        }
        if let Err(denial) = self.decode_body(head, body, &mut |_| true, trail) {
            return Err(Box::new(Denied { denial, seen: self.into_seen() }));
        }
        let decoded = std::mem::take(&mut self.found.decoded);
        let received_bytes = body.len() as u64;
        let body = if self.found.coding.is_some() { decoded.as_slice() } else { body };
        match self.decide(head, body, received_bytes, trail) {
            Ok(Body::Callback { tags, question, target }) => {
                let report = Report { question, ..self.route.follow.report(head, body) };
                let event_id = self.event_id(head, body);
                let (events, repeats) = self.event_keys(head, body, &tags, event_id.as_ref());
                self.found.event_id = event_id.as_ref().and_then(|id| id.to_str().ok()).map(Into::into);
                self.found.decoded = decoded;
                let owner_is_gone = false;
                let verified =
                    Verified { admitted: self, target, report, events, repeats, event_id, owner_is_gone };
                Ok(Decided::Callback(Box::new(verified)))
            }
            Ok(Body::Observed { instead, target }) => {
                Ok(Decided::Observed(Box::new(Observed { admitted: self, target, instead })))
            }
            Ok(Body::Handshake(reply)) => Ok(Decided::Handshake(Box::new((reply, self.into_seen())))),
            Err(denial) => Err(Box::new(Denied { denial, seen: self.into_seen() })),
        }
    }

    fn decide(
        &mut self,
        head: &RequestHead<'_>,
        body: &[u8],
        received_bytes: u64,
        trail: &mut Trail,
    ) -> Result<Body, Denial> {
        let said = self.check_size(head, body, received_bytes, trail);
        self.heed(said)?;
        // A request with a signature is never treated as an unsigned handshake.
        let presented = self.found.presented.as_ref();
        let is_signed =
            |verifier: &Verifier| verifier.has_handshakes() && verifier.has_signature(presented, head, body);
        if !self.route.verifier().is_some_and(is_signed) {
            let said = self.shake(head, body, false, trail);
            if let Some(reply) = self.heed(said)?.flatten() {
                return self.shaken(reply, head);
            }
        }
        let tags = match self.signature_was_refused() {
            true => None,
            false => {
                let said = self.check_signature(head, body, trail);
                self.heed(said)?
            }
        };
        if tags.is_some() {
            let said = self.shake(head, body, true, trail);
            if let Some(reply) = self.heed(said)?.flatten() {
                return self.shaken(reply, head);
            }
        }
        if self.found.only_handshake {
            let denial = trail.deny(Check::Handshake, Denial::MethodNotAllowed, || {
                "the request is not a handshake, and the route does not list its method".to_owned()
            });
            self.heed::<()>(Err(denial))?;
        }
        let said = self.check_action_endpoint(body, trail);
        let question = self.heed(said)?.flatten();
        let target = self.internal_target(head)?;
        match (self.found.observed.first(), tags) {
            (None, Some(tags)) => Ok(Body::Callback { tags, question, target }),
            (first, _) => {
                let instead = first.map_or(Denial::SignatureMissing.code(), |denial| denial.code());
                Ok(Body::Observed { instead, target })
            }
        }
    }

    /// Handles the result of a check. Returns the value of a check that passed. In enforce mode, returns the denial of
    /// a check that failed. In observe mode, records this denial and returns `Ok(None)`.
    pub(super) fn heed<T>(&mut self, said: Result<T, Denial>) -> Result<Option<T>, Denial> {
        self.found.heed(&self.route, said)
    }

    /// Reports whether the check of the head already denied the signature. The request then continues only because of
    /// observe mode, and its signature is not verified over the body.
    fn signature_was_refused(&self) -> bool {
        let proves = self.route.verifier().is_some_and(|verifier| verifier.scheme().has_proof());
        self.route.observes() && proves && self.found.presented.is_none() && self.found.unsigned.is_none()
    }

    /// Returns the response to a handshake. In observe mode, Callgate delivers the handshake instead, because the agent
    /// itself responds to handshakes in this mode.
    fn shaken(&self, reply: HandshakeReply, head: &RequestHead<'_>) -> Result<Body, Denial> {
        match self.route.observes() {
            true => Ok(Body::Observed { instead: "handshake", target: self.internal_target(head)? }),
            false => Ok(Body::Handshake(reply)),
        }
    }

    /// Returns the internal request target (path and query at the agent). Denies the request if a capture in `forward`
    /// has no value, so that no request reaches a wrong path. The configuration prevents this case.
    pub(super) fn internal_target(&self, head: &RequestHead<'_>) -> Result<String, Denial> {
        self.target(head).ok_or(Denial::RouteUnknown)
    }

    /// Returns the data that the signature check needs in addition to the body.
    fn signed<'s>(&'s self, head: &RequestHead<'s>) -> SignatureContext<'s> {
        SignatureContext {
            head: *head,
            public_url: self.route.public_url(&self.edge),
            keyring: &self.edge.fetched_data.keyring,
            derived: &self.found.derived,
            now: self.now,
        }
    }

    /// Returns the response to a handshake, or `None` if the request is not a handshake. `verified` is true if the
    /// signature of the request was verified.
    fn shake(
        &self,
        head: &RequestHead<'_>,
        body: &[u8],
        verified: bool,
        trail: &mut Trail,
    ) -> Result<Option<HandshakeReply>, Denial> {
        let Some(verifier) = self.route.verifier().filter(|verifier| verifier.has_handshakes()) else {
            return Ok(None);
        };
        let pending = match verifier.keys() {
            VerifierKeys::Learned(id) => self.edge.fetched_data.keyring.secret(*id).is_none(),
            _ => false,
        };
        match verifier.answer_handshake(&self.signed(head), body, verified, pending) {
            None => Ok(None),
            Some(Ok(reply)) => {
                trail.pass(Check::Handshake, || format!("Callgate answers the handshake {}", reply.name));
                Ok(Some(reply))
            }
            Some(Err(refusal)) => {
                Err(trail.deny(Check::Handshake, refusal.denial, || refusal.detail.into_owned()))
            }
        }
    }

    /// Returns the provider's event id from the head or from the body, or `None` if there is no valid event id.
    fn event_id(&self, head: &RequestHead<'_>, body: &[u8]) -> Option<HeaderValue> {
        if let Some(id) = self.found.presented.as_ref().and_then(PresentedSignature::event_id) {
            return Some(id.clone());
        }
        let verifier = self.route.verifier()?;
        let word = match verifier.scheme().id.as_ref() {
            None => verifier.id_in_body_token(head, body)?.into_string().into(),
            Some(source) => self::body_id(source, head, body)?,
        };
        HeaderValue::from_str(&word).ok().filter(|id| (1..=EVENT_ID_BYTES_MAX).contains(&id.len()))
    }

    /// Returns the internal request target. The captures of the external path are filled into the internal path. If the
    /// route passes on the query, the target contains the query: without the token in enforce mode, and unchanged in
    /// observe mode. Returns `None` if a capture of the internal path has no value.
    fn target(&self, head: &RequestHead<'_>) -> Option<String> {
        let mut target = self.route.forward.fill(|name| self.captures.value(name))?;
        let query = match self.route.query {
            QueryRule::Drop => None,
            QueryRule::Pass if self.route.observes() => head.raw_query().map(Into::into),
            QueryRule::Pass => {
                head.raw_query().and_then(|query| forward::query(&self.route, self.token(), query))
            }
        };
        if let Some(query) = query {
            target.push('?');
            target.push_str(&query);
        }
        Some(target)
    }

    /// Returns the verified token, which Callgate removes from the delivered request wherever it occurs. Returns `None`
    /// if there is no token to remove.
    pub(super) fn token(&self) -> Option<&[u8]> {
        self.found.token.as_ref().map(Secret::expose)
    }

    /// Replaces the verified token and the values of secret query parameters in a text by `[token]`.
    fn without_token(&self, head: &RequestHead<'_>, text: String) -> String {
        let token = self.token().and_then(|token| std::str::from_utf8(token).ok());
        let query = head.raw_query().unwrap_or_default();
        let raw = self.route.secret_parameters().flat_map(|name| raw_values(query, name));
        let secrets = token.into_iter().chain(raw).filter(|secret| !secret.is_empty());
        secrets.fold(text, |text, secret| text.replace(secret, "[token]"))
    }

    fn check_size(
        &self,
        head: &RequestHead<'_>,
        body: &[u8],
        received_bytes: u64,
        trail: &mut Trail,
    ) -> Result<(), Denial> {
        let bytes = body.len() as u64;
        if bytes > self.route.body_bytes_max {
            return Err(trail.deny(Check::Body, Denial::BodyTooLarge, || {
                format!("{bytes} bytes, {} allowed", self.route.body_bytes_max)
            }));
        }
        if head.body_bytes_declared.is_some_and(|declared| declared != received_bytes) {
            return Err(trail.deny(Check::Body, Denial::BodyIncomplete, || {
                format!("{received_bytes} bytes, {} declared", head.body_bytes_declared.unwrap_or_default())
            }));
        }
        // The trail (the list of checks for `callgate explain` and the log) has one step for the body. If the body
        // could not be decoded, the trail already contains this step.
        if self.found.decoding == Decoding::Failed {
            return Ok(());
        }
        trail.pass(Check::Body, || match self.found.coding {
            Some(coding) => format!("{bytes} bytes, decoded from {received_bytes} bytes of {coding}"),
            None => format!("{bytes} bytes"),
        });
        Ok(())
    }

    /// Verifies the signature over the body. Returns the authentication tags, which identify the message.
    fn check_signature(
        &mut self,
        head: &RequestHead<'_>,
        body: &[u8],
        trail: &mut Trail,
    ) -> Result<Vec<AuthenticationTag>, Denial> {
        let Some(verifier) = self.route.verifier().filter(|verifier| verifier.scheme().has_proof()) else {
            trail.skip(Check::Signature, "the provider does not sign");
            return Ok(Vec::new());
        };
        let Some(presented) = &self.found.presented else {
            let missing = || {
                Refusal::new(Denial::SignatureMissing, "the request has no signature and is not a handshake")
            };
            let refusal = self.found.unsigned.clone().unwrap_or_else(missing);
            return Err(trail.deny(Check::Signature, refusal.denial, || refusal.detail.into_owned()));
        };
        let signed = self.signed(head);
        // Only a verbose trail, such as the trail of `callgate explain`, describes the signed bytes. The log must not
        // describe them, because the signed URL can contain a token.
        let described =
            trail.is_verbose().then(|| verifier.describe_signed(presented, &signed, body)).flatten();
        let described =
            described.map(|text| format!("; {}", self.without_token(head, text))).unwrap_or_default();
        match verifier.verify_body(presented, &signed, body) {
            Ok(tags) => {
                let secret = verifier.matched_secret(head, body, &tags);
                trail.pass(Check::Signature, || {
                    let secret = secret.map_or_else(String::new, |position| format!("; secret {position}"));
                    match verifier.scheme().covers().body {
                        true => format!("matches over {} body bytes{secret}{described}", body.len()),
                        false => format!("valid; it does not cover the body{secret}{described}"),
                    }
                });
                self.found.secret = secret.or(self.found.secret);
                Ok(tags)
            }
            Err(refusal) => {
                let wanted = (refusal.denial == Denial::KeysUnavailable)
                    .then(|| verifier.missing_certificate(&signed, body).map(Into::into))
                    .flatten();
                self.found.wanted = wanted;
                Err(trail.deny(Check::Signature, refusal.denial, || format!("{}{described}", refusal.detail)))
            }
        }
    }
}

/// Returns the event id from the body, if the signature scheme reads it from there.
fn body_id<'b>(source: &EventIdSource, head: &RequestHead<'_>, body: &'b [u8]) -> Option<Cow<'b, str>> {
    match source {
        EventIdSource::Body(pointer) => Some(find_one(body, pointer).word()?.into_string().into()),
        EventIdSource::Form(name) => form_fields(head, body, &[name]).ok()?.into_iter().next()?,
        EventIdSource::Header(_) | EventIdSource::Query(_) => None,
    }
}
