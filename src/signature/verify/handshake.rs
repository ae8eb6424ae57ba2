//! Answering handshakes.

use http::HeaderValue;

use super::verifier::Verifier;
use crate::denial::{Denial, Refusal};
use crate::request::RequestHead;
use crate::secret::Secret;
use crate::signature::context::SignatureContext;
use crate::signature::handshake::{Handshake, HandshakeReply, HandshakeRequest, ReplyBody};

impl Verifier {
    /// Whether the provider has handshakes.
    pub fn has_handshakes(&self) -> bool {
        !self.scheme.handshakes.is_empty()
    }

    /// Whether a head could be that of a handshake with its method.
    pub fn may_be_handshake(&self, head: &RequestHead<'_>) -> bool {
        self.candidates(head).next().is_some()
    }

    /// Whether a head could be that of a handshake that is not signed.
    pub fn may_be_unsigned_handshake(&self, head: &RequestHead<'_>) -> bool {
        self.candidates(head).any(|handshake| !handshake.signed)
    }

    fn candidates<'v>(&'v self, head: &'v RequestHead<'_>) -> impl Iterator<Item = &'v Handshake> {
        self.scheme.handshakes.iter().filter(move |handshake| {
            handshake.method.as_str() == head.method && handshake.condition.fits_head(head)
        })
    }

    /// The answer to a request, if it is a handshake: one that is signed when `verified`, another one otherwise.
    /// `pending` says whether a secret is expected to be handed over.
    ///
    /// # Errors
    /// `handshake_refused` when it is one but does not prove itself.
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
                return Err(refused("the handshake does not name the agreed token"));
            }
        }
        if let Some(at) = &handshake.subscription {
            let given = request.text(at)?;
            if !self.subscriptions.iter().any(|ours| **ours == *given) {
                return Err(refused("the handshake is about nothing that is in `subscriptions`"));
            }
        }
        let secret = match &handshake.secret {
            None => None,
            Some(at) => {
                let secret = request.text(at)?;
                if secret.len() < 16 {
                    return Err(refused("the secret handed over is shorter than 16 bytes"));
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
            headers.push((name.clone(), value.map_err(|_| refused("a header cannot hold the echo"))?));
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
