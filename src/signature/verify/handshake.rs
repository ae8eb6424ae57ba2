//! Answering handshakes.

use http::HeaderValue;

use super::verifier::Verifier;
use crate::denial::{Denial, Refusal};
use crate::request::RequestHead;
use crate::secret::Secret;
use crate::signature::context::Signed;
use crate::signature::handshake::{Answer, Handshake, Reply, Request};

impl Verifier {
    /// Whether the provider has handshakes.
    pub fn shakes(&self) -> bool {
        !self.scheme.handshakes.is_empty()
    }

    /// Whether a head could be that of a handshake with its method.
    pub fn could_shake(&self, head: &RequestHead<'_>) -> bool {
        self.candidates(head).next().is_some()
    }

    /// Whether a head could be that of a handshake that is not signed.
    pub fn could_shake_unsigned(&self, head: &RequestHead<'_>) -> bool {
        self.candidates(head).any(|handshake| !handshake.signed)
    }

    fn candidates<'v>(&'v self, head: &'v RequestHead<'_>) -> impl Iterator<Item = &'v Handshake> {
        self.scheme.handshakes.iter().filter(move |handshake| {
            handshake.method.as_str() == head.method && handshake.when.fits_head(head)
        })
    }

    /// The answer to a request, if it is a handshake: one that is signed when `verified`, another one otherwise.
    /// `pending` says whether a secret is expected to be handed over.
    ///
    /// # Errors
    /// `handshake_refused` when it is one but does not prove itself.
    pub fn shake(
        &self,
        signed: &Signed<'_>,
        body: &[u8],
        verified: bool,
        pending: bool,
    ) -> Option<Result<Reply, Refusal>> {
        let fits = |handshake: &&Handshake| {
            handshake.signed == verified
                && (handshake.learn.is_none() || pending)
                && handshake.when.fits_body(&signed.head, body)
        };
        let handshake = self.candidates(&signed.head).find(fits)?;
        Some(self.answer(handshake, signed, body))
    }

    fn answer(&self, handshake: &Handshake, signed: &Signed<'_>, body: &[u8]) -> Result<Reply, Refusal> {
        let request = Request { head: &signed.head, body, key: self.macs.first().map(|(keyed, _)| keyed) };
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
        if let Some(at) = &handshake.of {
            let given = request.text(at)?;
            if !self.origins.iter().any(|ours| **ours == *given) {
                return Err(refused("the handshake is about nothing that is in `subscriptions`"));
            }
        }
        let learned = match &handshake.learn {
            None => None,
            Some(at) => {
                let secret = request.text(at)?;
                if secret.len() < 16 {
                    return Err(refused("the secret handed over is shorter than 16 bytes"));
                }
                Some(Secret::new(secret.as_bytes().to_vec()))
            }
        };
        let fetch = match &handshake.fetch {
            None => None,
            Some(rule) => Some(rule.confirmation(&signed.head, body)?),
        };
        let mut headers = Vec::new();
        for (name, template) in &handshake.headers {
            let value = HeaderValue::from_str(&request.fill(template)?);
            headers.push((name.clone(), value.map_err(|_| refused("a header cannot hold the echo"))?));
        }
        let (media_type, body) = match &handshake.answer {
            Answer::Empty => (None, String::new()),
            Answer::Text(template) => (Some("text/plain; charset=utf-8"), request.fill(template)?),
            Answer::Json(members) => (Some("application/json"), request.object(members)?),
        };
        let (name, status) = (handshake.name.clone(), handshake.status);
        Ok(Reply { name, status, headers, media_type, body, learned, fetch })
    }
}
