//! Replies to the handshake requests of a provider.

use http::HeaderValue;

use super::presented::PresentedSignature;
use super::verifier::Verifier;
use crate::denial::{Denial, Refusal};
use crate::request::RequestHead;
use crate::secret::Secret;
use crate::signature::context::SignatureContext;
use crate::signature::handshake::{Handshake, HandshakeReply, HandshakeRequest, ReplyBody};
use crate::signature::proofs::{JwtPlace, JwtScheme};
use crate::signature::request_parts::body_parts;
use crate::signature::scheme::Proof;

impl Verifier {
    /// Reports whether the provider may send handshakes.
    pub fn has_handshakes(&self) -> bool {
        !self.scheme.handshakes.is_empty()
    }

    /// Reports whether a request contains a signature. Such a request is never an unsigned handshake. A body that
    /// cannot be read counts as signed, because some programs could find a signature in the body. A shared secret is
    /// not a signature.
    pub fn has_signature(
        &self,
        presented: Option<&PresentedSignature>,
        head: &RequestHead<'_>,
        body: &[u8],
    ) -> bool {
        let place = match &self.scheme.proof {
            Proof::Content(scheme) => scheme.place.body_part(),
            Proof::Jwt(JwtScheme { place: JwtPlace::At(place), .. }) => place.body_part(),
            Proof::Jwt(JwtScheme { place: JwtPlace::WholeBody, .. }) => return !body.is_empty(),
            _ => None,
        };
        match place {
            None => presented.is_some_and(PresentedSignature::is_in_head),
            Some(_) if body.is_empty() => false,
            Some(part) => match body_parts(head, body, &[part]) {
                Ok(texts) => texts.iter().any(|text| !text.is_empty()),
                Err(_) => true,
            },
        }
    }

    /// Reports whether the head of a request meets the condition of any handshake. The body may still fail the
    /// condition.
    pub fn may_be_handshake(&self, head: &RequestHead<'_>) -> bool {
        self.candidates(head).next().is_some()
    }

    /// Reports whether the head of a request meets the condition of any unsigned handshake. The body may still fail
    /// the condition.
    pub fn may_be_unsigned_handshake(&self, head: &RequestHead<'_>) -> bool {
        self.candidates(head).any(|handshake| !handshake.signed)
    }

    /// Returns the handshakes whose method and condition fit the head of the request.
    fn candidates<'v>(&'v self, head: &'v RequestHead<'_>) -> impl Iterator<Item = &'v Handshake> {
        self.scheme.handshakes.iter().filter(move |handshake| {
            handshake.method.as_str() == head.method && handshake.condition.fits_head(head)
        })
    }

    /// Returns the reply to a handshake, or `None` if the request is not a handshake.
    ///
    /// If `verified` is true, the signature of the request was verified, and Callgate replies only to signed
    /// handshakes. If `verified` is false, Callgate replies only to unsigned handshakes. If `pending` is false,
    /// Callgate expects no secret from the provider, and does not reply to handshakes with a secret.
    ///
    /// # Errors
    /// Returns `handshake_refused` if the request is a handshake without a valid token or subscription, or with a
    /// missing value.
    pub fn answer_handshake(
        &self,
        context: &SignatureContext<'_>,
        body: &[u8],
        verified: bool,
        pending: bool,
    ) -> Option<Result<HandshakeReply, Refusal>> {
        let fits = |handshake: &&Handshake| {
            handshake.signed == verified
                && (handshake.secret.is_none() || pending)
                && handshake.condition.fits_body(&context.head, body)
        };
        let handshake = self.candidates(&context.head).find(fits)?;
        Some(self.answer(handshake, context, body))
    }

    /// Returns the reply to a request that meets the condition of `handshake`.
    ///
    /// # Errors
    /// Returns `handshake_refused` if the token, the subscription or the secret in the request is not valid, or if a
    /// value for the reply is missing.
    fn answer(
        &self,
        handshake: &Handshake,
        context: &SignatureContext<'_>,
        body: &[u8],
    ) -> Result<HandshakeReply, Refusal> {
        let request = HandshakeRequest {
            head: &context.head,
            body,
            key: self.mac_keys.first().map(|(keyed, _)| keyed),
        };
        let refused = |detail: &'static str| Refusal::new(Denial::HandshakeRefused, detail);
        if let Some(at) = &handshake.token {
            let given = request.text(at)?;
            let right = match &self.verify_token {
                Some(token) => token.matches(given.as_bytes()),
                None => self.secrets.first().is_some_and(|secret| secret.matches(given.as_bytes())),
            };
            if !right {
                return Err(refused("the handshake does not have the verify token"));
            }
        }
        if let Some(at) = &handshake.subscription {
            let given = request.text(at)?;
            if !self.subscriptions.iter().any(|ours| **ours == *given) {
                return Err(refused("the handshake is for a subscription that is not in `subscriptions`"));
            }
        }
        let secret = match &handshake.secret {
            None => None,
            Some(at) => {
                let secret = request.text(at)?;
                if secret.len() < 16 {
                    return Err(refused("the secret in the handshake is shorter than 16 bytes"));
                }
                Some(Secret::new(secret.as_bytes().to_vec()))
            }
        };
        let confirmation_url = match &handshake.confirmation {
            None => None,
            Some(rule) => Some(rule.confirmation(&context.head, body)?),
        };
        let mut headers = Vec::new();
        for (name, template) in &handshake.headers {
            let value = HeaderValue::from_str(&request.fill(template)?);
            headers.push((
                name.clone(),
                value.map_err(|_| refused("the echoed value is not a valid header value"))?,
            ));
        }
        let (media_type, body) = match &handshake.body {
            ReplyBody::Empty => (None, String::new()),
            ReplyBody::Text(template) => (Some("text/plain; charset=utf-8"), request.fill(template)?),
            ReplyBody::Json(members) => (Some("application/json"), request.object(members)?),
        };
        let (name, status) = (handshake.name.clone(), handshake.status);
        Ok(HandshakeReply { name, status, headers, media_type, body, secret, confirmation_url })
    }
}
