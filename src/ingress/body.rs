//! The second half: the whole body is verified, and what it says is read.

use http::HeaderValue;

use super::decide::{Admitted, Denied, Seen};
use super::forward;
use super::observed::Observed;
use super::permit::Verified;
use super::route::QueryRule;
use crate::denial::{Denial, Refusal};
use crate::interaction::{EventKey, Report, Scope};
use crate::json::{Found, NotJson, find_one, find_strict};
use crate::request::RequestHead;
use crate::secret::Secret;
use crate::signature::{
    AuthenticationTag, EventIdSource, HandshakeReply, PresentedSignature, SignatureContext, VerifierKeys,
};
use crate::trail::{Check, Trail};

/// Longest id of an event that is taken from a body, in bytes.
const EVENT_ID_BYTES_MAX: usize = 256;

/// What a request is that passed every check which needs no memory.
#[derive(Debug)]
pub enum Decided {
    /// A callback: what is left is to ask the ledger.
    Callback(Box<Verified>),
    /// A provider's handshake, which is answered here and now.
    Handshake(Box<(HandshakeReply, Seen)>),
    /// A request that would have been refused, or answered here, on a route that only observes.
    Observed(Box<Observed>),
}

/// The same, before it is put together.
enum Body {
    Callback { tags: Vec<AuthenticationTag>, question: Option<Box<str>>, target: String },
    Handshake(HandshakeReply),
    Observed { instead: &'static str, target: String },
}

impl Admitted {
    /// Decides on the whole body. `head` is the head that was admitted.
    ///
    /// # Errors
    /// [`Denied`] when the body is too large, no signature matches it, or it says to answer where the route does
    /// not allow.
    pub fn decide_body(
        mut self: Box<Self>,
        head: &RequestHead<'_>,
        body: &[u8],
        trail: &mut Trail,
    ) -> Result<Decided, Box<Denied>> {
        match self.decide(head, body, trail) {
            Ok(Body::Callback { tags, question, target }) => {
                let report = Report { question, ..self.route.follow.report(head, body) };
                let event_id = self.event_id(body);
                let events = self.events(&tags, event_id.as_ref());
                let verified = Verified { admitted: self, target, report, events, event_id };
                Ok(Decided::Callback(Box::new(verified)))
            }
            Ok(Body::Observed { instead, target }) => {
                Ok(Decided::Observed(Box::new(Observed { admitted: self, target, instead })))
            }
            Ok(Body::Handshake(reply)) => Ok(Decided::Handshake(Box::new((reply, self.into_seen())))),
            Err(denial) => Err(Box::new(Denied { denial, seen: self.into_seen() })),
        }
    }

    fn decide(&mut self, head: &RequestHead<'_>, body: &[u8], trail: &mut Trail) -> Result<Body, Denial> {
        let said = self.check_size(head, body, trail);
        self.heed(said)?;
        // What is signed is no unsigned handshake, whatever else it says.
        let signed = self.found.presented.as_ref().is_some_and(PresentedSignature::is_in_head);
        if !signed {
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
                "not a handshake after all, and the method is none of the route's".to_owned()
            });
            self.heed::<()>(Err(denial))?;
        }
        let said = self.question(body, trail);
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

    /// Takes a check's word: a denial holds, unless the route only observes.
    fn heed<T>(&mut self, said: Result<T, Denial>) -> Result<Option<T>, Denial> {
        self.found.heed(&self.route, said)
    }

    /// Whether the check of the head has refused the signature already, on a route that only observes: then there is
    /// nothing more to say about it.
    fn signature_was_refused(&self) -> bool {
        let proves = self.route.verifier().is_some_and(|verifier| verifier.scheme().has_proof());
        self.route.observes() && proves && self.found.presented.is_none() && self.found.unsigned.is_none()
    }

    /// A handshake is answered; where the route only observes, the agent does that as it always did.
    fn shaken(&self, reply: HandshakeReply, head: &RequestHead<'_>) -> Result<Body, Denial> {
        match self.route.observes() {
            true => Ok(Body::Observed { instead: "handshake", target: self.internal_target(head)? }),
            false => Ok(Body::Handshake(reply)),
        }
    }

    /// The configuration made sure that every capture of `forward` is one of the path; if that were ever wrong, there
    /// is no such internal path, and nothing is delivered anywhere else.
    fn internal_target(&self, head: &RequestHead<'_>) -> Result<String, Denial> {
        self.target(head).ok_or(Denial::RouteUnknown)
    }

    /// What is signed besides the body.
    fn signed<'s>(&'s self, head: &RequestHead<'s>) -> SignatureContext<'s> {
        SignatureContext {
            head: *head,
            public_url: &self.edge.public_url,
            keyring: &self.edge.outside.keyring,
            derived: &self.found.derived,
            now: self.now,
        }
    }

    /// The answer to a handshake, if the request is one.
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
            VerifierKeys::Learned(id) => self.edge.outside.keyring.secret(*id).is_none(),
            _ => false,
        };
        match verifier.answer_handshake(&self.signed(head), body, verified, pending) {
            None => Ok(None),
            Some(Ok(reply)) => {
                trail.pass(Check::Handshake, || format!("{} is answered", reply.name));
                Ok(Some(reply))
            }
            Some(Err(refusal)) => {
                Err(trail.deny(Check::Handshake, refusal.denial, || refusal.detail.into_owned()))
            }
        }
    }

    /// The provider's id of the event, from a header or from the body.
    fn event_id(&self, body: &[u8]) -> Option<HeaderValue> {
        if let Some(id) = self.found.presented.as_ref().and_then(PresentedSignature::event_id) {
            return Some(id.clone());
        }
        let scheme_id = self.route.verifier().and_then(|verifier| verifier.scheme().id.as_ref());
        let Some(EventIdSource::Body(pointer)) = scheme_id else {
            return None;
        };
        let word = find_one(body, pointer).word()?;
        HeaderValue::from_str(&word).ok().filter(|id| (1..=EVENT_ID_BYTES_MAX).contains(&id.len()))
    }

    /// By what the event is known. An id that is not under the signature can be changed by whoever sends the
    /// request again; then the signature tells as well.
    fn events(&self, tags: &[AuthenticationTag], id: Option<&HeaderValue>) -> Vec<EventKey> {
        if !self.route.tells_duplicates {
            return Vec::new();
        }
        let scope = match &self.found.granted {
            Some(granted) => Scope::Interaction(&granted.interaction),
            None => Scope::Captures(&self.captures),
        };
        let signed_id = self.route.verifier().is_some_and(|verifier| verifier.scheme().signs_id());
        let marks = self.route.verifier().is_some_and(|verifier| verifier.scheme().duplicates_by_signature);
        let by_tag = if marks && (id.is_none() || !signed_id) { tags } else { &[] };
        let route = &self.route.name;
        let id = id.map(|id| EventKey::of_id(route, scope, id.as_bytes()));
        let tags = by_tag.iter().map(|tag| EventKey::of_tag(route, scope, tag.as_bytes()));
        id.into_iter().chain(tags).collect()
    }

    /// Where the body says to answer; refused when that is nowhere the route allows.
    fn question(&mut self, body: &[u8], trail: &mut Trail) -> Result<Option<Box<str>>, Denial> {
        let Some(actions) = &self.route.actions else { return Ok(None) };
        let refuse = |trail: &mut Trail, detail: String| {
            Err(trail.deny(Check::Action, Denial::ActionNotAllowed, || detail))
        };
        let at = actions.pointer.as_str();
        // Agents read more than is JSON, and some take a member whose name is spelt in another case. What can be read in
        // more than one way cannot be guarded.
        let found = match find_strict(body, &actions.pointer) {
            Ok(found) => found,
            Err(NotJson) if body.is_empty() => Found::Missing,
            Err(NotJson) => {
                let detail = || "the body cannot be read as JSON".to_owned();
                return Err(trail.deny(Check::Action, Denial::BodyNotJson, detail));
            }
        };
        match found {
            Found::Missing => {}
            Found::One(raw) if raw.get() == "null" => {}
            Found::One(raw) if raw.get().starts_with('"') => {
                let url = found.word().unwrap_or_default();
                return match actions.guard.admit(&url) {
                    Ok(_) => {
                        trail.pass(Check::Action, || format!("{at} is at a listed host"));
                        Ok(Some(url))
                    }
                    Err(refused) => {
                        let refusal = refuse(trail, format!("{at}: {refused}"));
                        self.found.guarded = Some(refused.class());
                        refusal
                    }
                };
            }
            Found::One(_) => return refuse(trail, format!("{at} is not text")),
            Found::Doubled => return refuse(trail, format!("{at} is there twice, or in another spelling")),
        }
        trail.skip(Check::Action, "the callback brings no action endpoint");
        Ok(None)
    }

    /// The internal request target: the path from the captures, and the query without the token.
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

    pub(super) fn token(&self) -> Option<&[u8]> {
        self.found.token.as_ref().map(Secret::expose)
    }

    fn check_size(&self, head: &RequestHead<'_>, body: &[u8], trail: &mut Trail) -> Result<(), Denial> {
        let bytes = body.len() as u64;
        if bytes > self.route.body_bytes_max {
            return Err(trail.deny(Check::Body, Denial::BodyTooLarge, || {
                format!("{bytes} bytes, {} allowed", self.route.body_bytes_max)
            }));
        }
        if head.body_bytes_declared.is_some_and(|declared| declared != bytes) {
            return Err(trail.deny(Check::Body, Denial::BodyIncomplete, || {
                format!("{bytes} bytes, {} declared", head.body_bytes_declared.unwrap_or_default())
            }));
        }
        trail.pass(Check::Body, || format!("{bytes} bytes"));
        Ok(())
    }

    /// Returns what tells the message from others.
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
            let missing = || Refusal::new(Denial::SignatureMissing, "no signature, and no handshake");
            let refusal = self.found.unsigned.clone().unwrap_or_else(missing);
            return Err(trail.deny(Check::Signature, refusal.denial, || refusal.detail.into_owned()));
        };
        let signed = self.signed(head);
        match verifier.verify_body(presented, &signed, body) {
            Ok(tags) => {
                trail.pass(Check::Signature, || match verifier.scheme().covers().body {
                    true => format!("matches over {} body bytes", body.len()),
                    false => "genuine; the body is not covered".to_owned(),
                });
                Ok(tags)
            }
            Err(refusal) => {
                let wanted = (refusal.denial == Denial::KeysUnavailable)
                    .then(|| verifier.missing_certificate(&signed, body).map(Into::into))
                    .flatten();
                self.found.wanted = wanted;
                Err(trail.deny(Check::Signature, refusal.denial, || refusal.detail.into_owned()))
            }
        }
    }
}
